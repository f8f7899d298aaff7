"""The process always exits, even when the reactor no longer turns.

This file knows signals. SIGTERM and SIGINT ask for a stop; a second one ends
the time of grace; and when the process is still there some seconds after that
time, blocked in an application's code or in a thread that never ends, every
thread's stack is written down and the process exits with status 1.

Neither the reactor nor a Python thread can be trusted for that last part (a C
function may hold the interpreter's lock for ever): `faulthandler` does it from
a thread of its own, in C.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
from _thread import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Final, TextIO

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["MARGIN_SECONDS", "Watchdog"]

#: What ending the requests that are left, closing files and joining threads
#: may take once the time of grace is over.
MARGIN_SECONDS: Final = 5.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Watchdog:
    """Sees to it that a process which was told to stop does.

    Args:
        grace_seconds: How long requests in flight may go on.
        cut_short: Ends that time early. Called from the reactor greenlet.
        stacks_path: File to append the stacks to if the process must be
            killed, "" for standard error.
    """

    _log = Logger()

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
        self._reactor: Any = None
        self._before: dict[int, Any] = {}
        self._asked = 0

    def prepare(self) -> None:
        """Open the file for the stacks, while that is allowed.

        Call before the process sheds its privileges.
        """
        if self._stacks_path:
            try:
                self._stacks = self._open_stacks()
            except OSError as error:
                self._log.warn(
                    "should the process have to be killed, its stacks go to standard "
                    "error: {error}",
                    error=error,
                )

    def install(self, reactor: Any) -> None:
        """Take over SIGTERM and SIGINT. Call once the reactor runs.

        Before that the reactor has not set its own handlers, and would put
        them over ours. A signal that something else than the reactor has
        taken (a debugger, say) is left alone.

        Args:
            reactor: Told to stop by the first signal.
        """
        self._reactor = reactor
        ours = (getattr(reactor, "sigTerm", None), getattr(reactor, "sigInt", None))
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before in ours:
                self._before[number] = before
                signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        """A signal has come. This may interrupt any bytecode: do little."""
        self._asked += 1
        name = signal.Signals(number).name
        if self._asked > 1:
            if self._asked == 2:  # later ones do not move the deadline
                self._arm(MARGIN_SECONDS)
            self._reactor.callFromThread(self._hurry, name)
            return
        self._arm(self._grace_seconds + MARGIN_SECONDS)
        self._reactor.callFromThread(self._announce, name)
        if number == signal.SIGINT:
            # Twisted's own: the process ends by SIGINT in the end, by which a
            # shell knows that its loop is to be left as well.
            self._before[number](number, frame)
        else:
            # Not Twisted's, by which the process would end "killed by
            # SIGTERM": it was asked to stop, and a stop in good order is
            # status 0.
            self._reactor.callFromThread(self._stop, name)

    def _arm(self, seconds: float) -> None:
        """Exit with status 1 after so long, unless the process is gone by then.

        There is no disarming: the interpreter does that as the last of its
        acts, when the threads that could keep it from ending have ended.
        """
        if self._stacks_path:
            # Opened anew: the log may have been rotated since.
            with contextlib.suppress(OSError):
                self._stacks = self._open_stacks()
        file = self._stacks or sys.__stderr__
        assert file is not None
        # A longer time it refuses: this much is 292 years.
        seconds = min(seconds, TIMEOUT_MAX)
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)

    def _open_stacks(self) -> TextIO:
        # A daemon's standard error leads nowhere: the log is where one looks.
        return open(self._stacks_path, "a", encoding="utf-8")

    def _announce(self, name: str) -> None:
        self._log.info(
            "{name}: stopping; requests in flight have {seconds:g} s to end (again "
            "{name} ends them now)",
            name=name,
            seconds=self._grace_seconds,
        )

    def _stop(self, name: str) -> None:
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            # Something else had stopped it: this is the second request.
            self._hurry(name)

    def _hurry(self, name: str) -> None:
        self._log.info("{name} again: ending the requests in flight now", name=name)
        self._cut_short()
