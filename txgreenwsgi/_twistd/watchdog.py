"""A watchdog that ends the process even if the reactor is blocked.

SIGTERM and SIGINT start a graceful shutdown; a second one ends the grace period. If the
server drains first (`--drain-delay`), the second one ends that, and the third one the
grace period. The process then ends in steps, each of which depends on less than the one
before:

1. The reactor stops, and threads and exit handlers end (`green.exits`); green threads
   that are left soon after the grace period are killed.
2. A Python thread ends the processes of `multiprocessing` that are left, so that the
   exit handlers that wait for them return.
3. `faulthandler`, a C thread, writes the stacks of all threads and exits with status 1.
4. The guardian, another process, kills this one. Only it acts if a C function keeps the
   signal handler from running.

It knows signals. It must never know the server.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import signal
import stat
import sys
from _thread import TIMEOUT_MAX
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, eventAsText

from txgreenwsgi._parking.real_threads import start_real_thread
from txgreenwsgi.green import exits

from .guardian import start_guardian

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from twisted.internet.defer import Deferred
    from twisted.logger import LogEvent

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

#: Time after the grace period to end the remaining requests, close files and join
#: threads.
MARGIN_SECONDS: Final = 5.0

# Times after the grace period. The requests have ended after one second.
_TERMINATE_SECONDS: Final = 2.0
_KILL_SECONDS: Final = 3.0
_GUARDIAN_SECONDS: Final = MARGIN_SECONDS + 2.0

_MAX_SLEEP_SECONDS: Final = 3600.0
_NONBLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Watchdog:
    """The signal handlers and the exit deadline of a process.

    Args:
        grace_seconds: the grace period of requests in flight.
        cut_short: ends the grace period, or skips it if it has not begun. Called
            from the reactor greenlet.
        stacks_path: the file to append the stacks to if the process must be killed;
            "" for standard error.
        drain: called after the first signal; the reactor is stopped when its Deferred
            fires. None to stop it at once.
        end_drain: makes that Deferred fire. Called from the reactor greenlet.
        drain_seconds: the time until it fires.
        slack_seconds: further time that the process may take to end, such as that for
            the end of its workers.
        is_master: whether the process has workers and serves nothing itself: SIGINT
            then skips the grace period, and no guardian is necessary.

    Attributes:
        on_signal: called in the reactor greenlet with the name of the signal that
            begins the shutdown. Returns True to call `request_stop` later instead.
    """

    def __init__(
        self,
        grace_seconds: float,
        cut_short: Callable[[], object],
        stacks_path: str = "",
        *,
        drain: Callable[[], Deferred[None]] | None = None,
        end_drain: Callable[[], object] | None = None,
        drain_seconds: float = 0.0,
        slack_seconds: float = 0.0,
        is_master: bool = False,
    ) -> None:
        self.on_signal: Callable[[str], bool] | None = None
        self._drain = drain
        self._end_drain = end_drain
        self._drain_seconds = drain_seconds
        # Whether a second signal ends the drain, and not the grace period.
        self._draining = False
        self._grace_seconds = grace_seconds
        self._cut_short = cut_short
        self._stacks_path = stacks_path
        self._slack_seconds = slack_seconds
        self._is_master = is_master
        # Whether a shutdown was requested, and whether it has begun.
        self._requested = False
        self._begun = False
        self._stacks: TextIO | None = None
        self._reactor: _Reactor | None = None
        self._signals = itertools.count(1)
        self._cuts = itertools.count(1)
        self._interrupted = False

    def prepare(self) -> None:
        """Open the file for the stacks, which is never blocked by a full pipe.

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
        if self._stacks is None:
            self._stacks = _reopened_stderr()

    def install(self, reactor: _Reactor) -> None:
        """Replace the reactor's handlers of SIGTERM and SIGINT.

        Call when the reactor runs: it installs its own handlers when it starts, and
        would replace ours. Signals that other code handles, such as a debugger, are
        left unchanged.

        Args:
            reactor: stopped by the first signal.
        """
        self._reactor = reactor
        exits.install()
        ours = (getattr(reactor, "sigTerm", None), getattr(reactor, "sigInt", None))
        numbers: list[int] = []
        for number in _SIGNALS:
            previous = signal.getsignal(number)
            if callable(previous) and previous in ours:
                signal.signal(number, self._signal_received)
                numbers.append(number)
        if self._is_master:
            return
        start_guardian(
            reactor,
            numbers,
            lambda number: signal.getsignal(number) == self._signal_received,
            self._drain_seconds,
            self._grace_seconds + _GUARDIAN_SECONDS,
            _GUARDIAN_SECONDS,
            self._stacks_path,
        )

    def request_stop(self, reason: str, *, at_once: bool = False) -> None:
        """Begin the shutdown as the first signal does. A no-op if it has begun.

        A signal that follows does not end the grace period; a second one does. Call
        from the reactor greenlet.

        Args:
            reason: the origin of the request, for the log.
            at_once: whether to skip the drain.
        """
        if at_once:
            self._drain = None
        reactor = self._reactor
        assert reactor is not None, "installed"
        if self._begun:
            return
        if self._requested:  # by a signal
            self._begin(reactor, reason)
            return
        self._requested = True
        self._arm(self._drain_seconds + self._grace_seconds)
        _log.info(
            "stopping by request of {reason}; requests in flight have {seconds:g} s to "
            "end",
            reason=reason,
            seconds=self._grace_seconds,
        )
        self._begin(reactor, reason)

    def end_grace_period(self, reason: str) -> None:
        """End the grace period as the second signal does."""
        self._arm(0.0)
        self._end_grace_period(reason)

    def observe(self, event: LogEvent) -> None:
        """Write a log event of the interpreter's exit to the file for the stacks.

        twistd has stopped its log by then. Add this to the log's observers.
        """
        if exits.has_begun() and self._stacks is not None:
            with contextlib.suppress(OSError, ValueError):
                # Not by the file object, whose buffer would keep what a full pipe
                # does not accept.
                text = eventAsText(event) + "\n"
                os.write(self._stacks.fileno(), text.encode("utf-8", "replace"))

    def exit_by_signal(self) -> None:
        """End the process by SIGINT if SIGINT has stopped it.

        This also ends a shell script that runs it in a loop. Call as the last exit
        handler.
        """
        if self._interrupted:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)

    def _signal_received(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. It may interrupt any bytecode, so keep this minimal."""
        reactor = self._reactor
        assert reactor is not None
        # Another signal may interrupt this function at any bytecode. `next` is one
        # step, so exactly one call counts as the first.
        count = next(self._signals)
        name = signal.Signals(number).name
        if count == 2 and self._draining:
            self._arm(self._grace_seconds)
            reactor.callFromThread(self._skip_drain, name)
            return
        if count > 1:
            if next(self._cuts) == 1:  # later ones do not move the deadline
                self._arm(0.0)
            reactor.callFromThread(self._end_grace_period, name)
            return
        if self._requested:
            return  # a service manager sends the signal to all processes
        self._requested = True
        quick = self._is_master and number == signal.SIGINT
        self._draining = self._drain_seconds > 0 and not quick
        seconds = self._drain_seconds + self._grace_seconds
        self._arm(0.0 if quick else seconds)
        reactor.callFromThread(self._log_stop, name, quick)
        self._interrupted = number == signal.SIGINT
        # Not Twisted's handlers, with which twistd ends the process by the signal and
        # without exit handlers. A requested graceful shutdown has status 0.
        reactor.callFromThread(self._signalled, reactor, name)
        if quick:
            reactor.callFromThread(self._cut_short)

    def _arm(self, grace_seconds: float) -> None:
        """End the process in steps, unless it has ended by then.

        The interpreter disarms the exit with status 1 in one of its last steps, after
        joining the threads that could keep the process alive.
        """
        grace_seconds += self._slack_seconds
        exits.set_time_limit(grace_seconds + exits.AFTER_GRACE_SECONDS)
        if self._stacks_path:
            # Reopen it: the log may have been rotated.
            with contextlib.suppress(OSError):
                self._stacks = self._open_stacks()
        # faulthandler rejects longer times. The maximum is 292 years.
        seconds = min(grace_seconds + MARGIN_SECONDS, TIMEOUT_MAX)
        if self._stacks is None:
            self._stacks = _reopened_stderr()
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stacks)
        start_real_thread(_end_processes, (monotonic() + grace_seconds,))

    def _open_stacks(self) -> TextIO:
        # Not standard error, which is /dev/null in a daemon.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NONBLOCK
        return os.fdopen(os.open(self._stacks_path, flags, 0o666), "a")

    def _log_stop(self, name: str, quick: bool) -> None:
        if quick:
            _log.info("{name}: stopping; cancelling the requests in flight", name=name)
            return
        if self._drain_seconds:
            _log.info(
                "{name}: not ready any more; accepting connections for another "
                "{delay:g} s (a second {name} ends this)",
                name=name,
                delay=self._drain_seconds,
            )
            return
        _log.info(
            "{name}: stopping; requests in flight have {seconds:g} s to end (a second "
            "{name} cancels them)",
            name=name,
            seconds=self._grace_seconds,
        )

    def _signalled(self, reactor: _Reactor, name: str) -> None:
        if self.on_signal is None or not self.on_signal(name):
            self._begin(reactor, name)

    def _begin(self, reactor: _Reactor, name: str) -> None:
        if not self._begun:
            self._begun = True
            self._stop(reactor, name)

    def _stop(self, reactor: _Reactor, name: str) -> None:
        drained = None if self._drain is None else self._drain()
        if drained is not None and not drained.called:
            drained.addCallback(lambda _: self._stop_drained(reactor, name))
            return
        self._draining = False
        try:
            reactor.stop()
        except ReactorNotRunning:
            # Other code stopped the reactor before: this is the second request.
            self._end_grace_period(name)

    def _stop_drained(self, reactor: _Reactor, name: str) -> None:
        self._draining = False
        _log.info(
            "stopping; requests in flight have {seconds:g} s to end (another {name} "
            "cancels them)",
            name=name,
            seconds=self._grace_seconds,
        )
        with contextlib.suppress(ReactorNotRunning):
            # Other code may have stopped the reactor meanwhile.
            reactor.stop()

    def _skip_drain(self, name: str) -> None:
        _log.info("second {name}: accepting no more connections", name=name)
        if self._end_drain is not None:
            self._end_drain()

    def _end_grace_period(self, name: str) -> None:
        _log.info(
            "{count} {name}: cancelling the requests in flight",
            count="another" if self._drain_seconds else "second",
            name=name,
        )
        self._cut_short()


def _reopened_stderr() -> TextIO:
    """Return a file of our own for standard error; the null device if there is none.

    If standard error may block, the file is reopened and non-blocking. The original
    cannot be, because other processes may share it. The application may close the
    original.
    """
    file = sys.__stderr__
    try:
        assert file is not None
        number = file.fileno()
        mode = os.fstat(number).st_mode
    except (AssertionError, OSError, ValueError):
        return open(os.devnull, "a")
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):
            return os.fdopen(os.open(f"/dev/fd/{number}", os.O_WRONLY | _NONBLOCK), "a")
    return os.fdopen(os.dup(number), "a")


def _end_processes(end_of_grace: float) -> None:
    """End the processes of `multiprocessing` some seconds after the grace period.

    The exit handlers of `multiprocessing` wait for them.
    """
    for number, seconds in (
        (signal.SIGTERM, _TERMINATE_SECONDS),
        (signal.SIGKILL, _KILL_SECONDS),
    ):
        while (left := end_of_grace + seconds - monotonic()) > 0:
            sleep(min(left, _MAX_SLEEP_SECONDS))
        children = _live_processes()
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(child.pid, number)
        for child in children:
            _log.warn(
                "{name}: sent to {child}, which did not end in the grace period",
                name=number.name,
                child=child,
            )


def _live_processes() -> list[Any]:
    # `active_children()` would reap them, for which the main thread waits.
    module: Any = sys.modules.get("multiprocessing.process")
    children: set[Any] = getattr(module, "_children", set())
    return [child for child in list(children) if child._popen.returncode is None]
