"""A watchdog that ends the process even if the reactor is blocked.

It knows signals. SIGTERM and SIGINT start a graceful shutdown; a second one ends the
grace period. If the process still runs some seconds after the grace period, blocked
in application code or by a thread that never ends, the watchdog writes the stacks of
all threads and exits with status 1.

Neither the reactor nor a Python thread is reliable enough for that last step, because
a C function may hold the interpreter lock for ever. `faulthandler` does it from its
own thread, in C.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import signal
import sys
from _thread import TIMEOUT_MAX
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    class _Reactor(Protocol):
        """The part of IReactorCore and IReactorFromThreads that is used here."""

        def stop(self) -> object:
            """Stop the reactor."""

        def callFromThread(
            self, function: Callable[..., object], /, *args: object
        ) -> object:
            """Call a function on the next reactor turn."""


__all__ = ["MARGIN_SECONDS", "Watchdog"]

_log = Logger()

#: Time after the grace period for ending the remaining requests, closing files and
#: joining threads.
MARGIN_SECONDS: Final = 5.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Watchdog:
    """The signal handlers and the exit deadline of a process.

    Args:
        grace_seconds: the grace period of requests in flight.
        cut_short: ends the grace period, or skips it if it has not begun. Called
            from the reactor greenlet.
        stacks_path: the file to append the stacks to if the process must be killed;
            "" for standard error.
    """

    def __init__(
        self,
        grace_seconds: float,
        cut_short: Callable[[], object],
        stacks_path: str = "",
    ) -> None:
        self._grace_seconds = grace_seconds
        self._cut_short = cut_short
        self._stacks_path = stacks_path
        self._stacks: TextIO | None = None
        self._reactor: _Reactor | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._signals = itertools.count(1)

    def prepare(self) -> None:
        """Open the file for the stacks.

        Call while the process may still open it, before twistd changes the user.
        """
        if self._stacks_path:
            try:
                self._stacks = self._open_stacks()
            except OSError as error:
                _log.warn(
                    "watchdog: cannot open the log ({error}); if the process must be "
                    "killed, its stacks go to standard error",
                    error=error,
                )

    def install(self, reactor: _Reactor) -> None:
        """Replace the reactor's handlers of SIGTERM and SIGINT.

        Call when the reactor runs: it sets its own handlers at its start, and would
        replace ours. A signal handled by anything but the reactor, such as a
        debugger, is left alone.

        Args:
            reactor: stopped by the first signal.
        """
        self._reactor = reactor
        ours = (getattr(reactor, "sigTerm", None), getattr(reactor, "sigInt", None))
        for number in _SIGNALS:
            previous = signal.getsignal(number)
            if callable(previous) and previous in ours:
                self._previous[number] = previous
                signal.signal(number, self._signal_received)

    def _signal_received(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. It may interrupt any bytecode, so do little here."""
        reactor = self._reactor
        assert reactor is not None
        # Another signal may interrupt this function at any bytecode. `next` is one
        # step, so exactly one call counts as the first.
        count = next(self._signals)
        name = signal.Signals(number).name
        if count > 1:
            if count == 2:  # later ones do not move the deadline
                self._arm(MARGIN_SECONDS)
            reactor.callFromThread(self._end_grace_period, name)
            return
        self._arm(self._grace_seconds + MARGIN_SECONDS)
        reactor.callFromThread(self._log_stop, name)
        if number == signal.SIGINT:
            # Twisted's handler: the process finally ends by SIGINT, so that a shell
            # script with a loop ends as well.
            self._previous[number](number, frame)
        else:
            # Not Twisted's handler, with which the process would end by SIGTERM: a
            # graceful stop on request has status 0.
            reactor.callFromThread(self._stop, reactor, name)

    def _arm(self, seconds: float) -> None:
        """Exit with status 1 after `seconds`, unless the process has ended by then.

        The interpreter disarms it in one of its last steps, after joining the
        threads that could keep the process alive.
        """
        if self._stacks_path:
            # Reopen it: the log may have been rotated.
            with contextlib.suppress(OSError):
                self._stacks = self._open_stacks()
        file = self._stacks or sys.__stderr__
        assert file is not None
        # faulthandler refuses a longer time. This one is 292 years.
        seconds = min(seconds, TIMEOUT_MAX)
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)

    def _open_stacks(self) -> TextIO:
        # The standard error of a daemon is /dev/null, so the log is used.
        return open(self._stacks_path, "a", encoding="utf-8")

    def _log_stop(self, name: str) -> None:
        _log.info(
            "{name}: stopping; requests in flight have {seconds:g} s to end (a second "
            "{name} cancels them)",
            name=name,
            seconds=self._grace_seconds,
        )

    def _stop(self, reactor: _Reactor, name: str) -> None:
        try:
            reactor.stop()
        except ReactorNotRunning:
            # Stopped by other code before: this is the second request to stop.
            self._end_grace_period(name)

    def _end_grace_period(self, name: str) -> None:
        _log.info("second {name}: cancelling the requests in flight", name=name)
        self._cut_short()
