"""The guardian: a small process that kills this one if C code blocks it for ever.

While a C function runs in the main thread, Python calls no signal handler; if it holds
the interpreter lock, no Python code runs at all. The interpreter's C signal handler,
which runs in any case, writes the number of the signal to the wakeup descriptor
(`signal.set_wakeup_fd`). So that descriptor is a socket here. The guardian looks at
what is in it; the reactor takes it out, and passes it on.

No signal handler may read the Python stack of a process that goes on: `faulthandler`
follows frames that the interpreter is changing at that moment, and crashes
(https://github.com/python/cpython/issues/140815). So it writes the stack only at the
request of the guardian, right before the kill.

It knows processes, signals, and a reactor's readers. It must never know the server.
"""

from __future__ import annotations

# These are never patched.
import _signal  # type: ignore[import-not-found]
import _socket
import atexit
import faulthandler
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._parking.real_threads import start_real_thread
from txgreenwsgi.green import exits

from . import guardian_process

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from twisted.python.failure import Failure

__all__ = ["NotedSignals", "start_guardian"]

_log = Logger()

#: The signal at which the server writes its stack to the guardian. Programs rarely use
#: it; those of a worker's stacks are the two before.
STACK_SIGNAL: Final[int] = (
    signal.SIGRTMIN + 10
    if hasattr(signal, "SIGRTMIN")
    else getattr(signal, "SIGVTALRM", 0)
)
_READ_BYTES: Final = 4096

# Closed in the children of a fork.
_descriptors: list[int] = []


def start_guardian(
    reactor: Any,
    numbers: Collection[int],
    is_handled: Callable[[int], bool],
    drain_seconds: float,
    seconds: float,
    seconds_again: float,
    stacks_path: str,
) -> None:
    """Start the process; it kills this one if it does not end after a signal.

    Call from the main thread, after the reactor has installed its signal handlers. If
    the process cannot be started, a warning is logged.

    Args:
        reactor: the running reactor; implements IReactorFDSet.
        numbers: the signals that end this process.
        is_handled: returns False for a signal that the application handles instead.
        drain_seconds: the time from the first signal in which the server drains,
            unless a second one ends it.
        seconds: the time from then until it is killed.
        seconds_again: the time from a signal after the drain.
        stacks_path: the log for the guardian's message; "" for standard error.
    """
    if not hasattr(faulthandler, "register"):
        return  # Windows
    reading, writing = os.pipe()
    noted, noting = (end.detach() for end in _socket.socketpair())
    # No signal handler may block if the guardian was killed or stopped.
    for fd in (writing, noted, noting):
        os.set_blocking(fd, False)
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                guardian_process.__file__,
                str(os.getpid()),
                str(drain_seconds),
                str(seconds),
                str(seconds_again),
                str(int(STACK_SIGNAL)),
                stacks_path,
                *map(str, map(int, numbers)),
            ],
            stdin=reading,
            stdout=noted,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        for fd in (writing, noted, noting):
            os.close(fd)
        _log.warn(
            "watchdog: cannot start the guardian process ({error}); a signal cannot "
            "end the server while C code blocks it",
            error=error,
        )
        return
    finally:
        os.close(reading)
    _descriptors.extend((writing, noted, noting))
    # The guardian is its child. In a thread, because its start takes some time.
    start_real_thread(process.wait, ())
    atexit.register(_end_start, process)
    faulthandler.register(STACK_SIGNAL, writing, all_threads=False)
    signals = NotedSignals(noted, noting, writing, numbers, is_handled)
    signals.note()
    reactor.addReader(signals)
    # The reactor resets the wakeup descriptor at its end.
    exits.when_begun(signals.note_again)


@implementer(IReadDescriptor)
class NotedSignals:
    """Takes the numbers of signals from the socket, and passes them on.

    They go to the wakeup descriptor of the reactor, which reaps child processes then,
    and to the guardian, which counts them.

    Args:
        noted: the end of the socket to read from.
        noting: the end that the interpreter writes to.
        guardian: the pipe to the guardian.
        numbers: the signals that end this process.
        is_handled: returns False for a signal that the application handles instead.
    """

    def __init__(
        self,
        noted: int,
        noting: int,
        guardian: int,
        numbers: Collection[int],
        is_handled: Callable[[int], bool],
    ) -> None:
        self._noted = noted
        self._noting = noting
        self._guardian = guardian
        self._numbers = numbers
        self._is_handled = is_handled
        self._of_reactor = -1

    def note(self) -> None:
        """Make the socket the wakeup descriptor. Call from the main thread."""
        # What does not fit in the socket wakes nothing more.
        self._of_reactor = _signal.set_wakeup_fd(
            self._noting, warn_on_full_buffer=False
        )

    def note_again(self) -> None:
        """Do so unless other code has such a descriptor. Call from the main thread."""
        other = _signal.set_wakeup_fd(self._noting, warn_on_full_buffer=False)
        if other != -1:
            _signal.set_wakeup_fd(other)

    def fileno(self) -> int:
        return self._noted

    def doRead(self) -> None:
        """Pass the signals on."""
        with suppress(BlockingIOError):
            data = os.read(self._noted, _READ_BYTES)
            if self._of_reactor != -1:
                with suppress(OSError):  # full, so it is awake
                    os.write(self._of_reactor, data)
            ours = bytes(
                number
                for number in data
                if number in self._numbers and self._is_handled(number)
            )
            # An OSError: the guardian has ended or is stopped.
            with suppress(OSError):
                os.write(self._guardian, ours)

    def connectionLost(self, reason: Failure) -> None:
        """Leave the signals in the socket: the reactor closes its descriptor next."""
        self._of_reactor = -1

    def logPrefix(self) -> str:
        return "signals"


def _end_start(process: subprocess.Popen[bytes]) -> None:
    """End a guardian that has not started yet; later it ends by itself."""
    process.kill()
    process.wait()


def _leave() -> None:
    """Leave the guardian to the parent. Called in the child of a fork."""
    if not _descriptors:
        return
    before = _signal.set_wakeup_fd(-1)
    if before not in _descriptors:
        _signal.set_wakeup_fd(before)
    faulthandler.unregister(STACK_SIGNAL)
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
