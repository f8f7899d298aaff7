"""A program with a guardian that watches SIGALRM; the argument names what it does.

    python -m tests.integration.guarded_program NAME

The guardian kills it one second after a signal, except in a storm of signals.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from greenlet import greenlet
from twisted.internet import reactor as installed
from twisted.internet.protocol import ProcessProtocol

from txgreenwsgi._twistd.guardian import start_guardian
from txgreenwsgi.green import exits

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

#: Time for the guardian to start and to kill.
PATIENCE_SECONDS = 60.0
STORM_SECONDS = 3.0

reactor: Any = installed


def block() -> None:
    """Send the signal, and block for ever with the interpreter lock."""
    send()
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def send() -> None:
    """Send the signal to this process."""
    os.kill(os.getpid(), signal.SIGALRM)


def handled() -> None:
    """Handle the signal, and do not end."""
    send()
    reactor.callLater(PATIENCE_SECONDS, reactor.stop)


def left() -> None:
    """Leave the signal to another handler, and end after the time."""
    send()
    reactor.callLater(3.0, reactor.stop)


def forked() -> None:
    """Let a child of a fork receive the signal, and end after the time."""
    pid = os.fork()
    if not pid:
        send()
        os._exit(0)
    os.waitpid(pid, 0)
    reactor.callLater(3.0, reactor.stop)


def at_exit() -> None:
    """Block in an exit handler, when the reactor has ended."""
    atexit.register(block)
    reactor.stop()


def child() -> None:
    """End when a child process has."""

    class Ends(ProcessProtocol):
        def processEnded(self, reason: Failure) -> None:
            reactor.stop()

    reactor.spawnProcess(Ends(), sys.executable, [sys.executable, "-c", ""])


def storm() -> None:
    """Receive thousands of signals while frames are pushed, popped and switched."""

    def run() -> None:
        while True:
            reactor_greenlet.switch()

    reactor_greenlet = greenlet.getcurrent()
    other = greenlet(run)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    until = time.monotonic() + STORM_SECONDS
    while time.monotonic() < until:
        sorted(map(str, range(20)), key=lambda text: text)
        other.switch()
        type("Made", (), {})
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    reactor.stop()


ACTIONS: dict[str, Callable[[], None]] = {
    action.__name__: action
    for action in (at_exit, block, child, forked, handled, left, storm)
}


def main(name: str) -> None:
    """Run the program."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    exits.install()
    seconds = 600.0 if name == "storm" else 1.0

    def begin() -> None:
        start_guardian(
            reactor,
            [signal.SIGALRM],
            lambda _: name != "left",
            0.0,
            seconds,
            seconds,
            "",
        )
        ACTIONS[name]()  # it also sees the signals before its start

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
