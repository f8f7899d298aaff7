"""The child of a fork: its exit status, and the parent's signal handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._switching.forks import Forked, call_or_end_child, end_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def in_child(function: Callable[[], object]) -> int:
    """Call `function` in the child of a fork; return the child's exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            function()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class EndChildTests(SynchronousTestCase):
    """The exit status is that of a program that ends in the same way."""

    def test_statuses(self) -> None:
        """It depends on the exception."""
        for error, status in (
            (None, 0),
            (SystemExit(), 0),
            (SystemExit(3), 3),
            (SystemExit(256 + 7), 7),
            (SystemExit("a message"), 1),
            (ZeroDivisionError(), 1),
            (KeyboardInterrupt(), 1),
            # The child has returned a response, which the parent sends.
            (Forked(), 0),
        ):
            self.assertEqual(in_child(partial(end_child, error)), status)

    def test_output(self) -> None:
        """The message of SystemExit is printed, and the output is flushed."""
        program = (
            "import os, sys\n"
            "from txgreenwsgi._switching.forks import end_child\n"
            "if os.fork():\n"
            "    os.wait()\n"
            "else:\n"
            "    print('output')\n"
            "    end_child(SystemExit('message'))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.stdout, done.stderr), ("output\n", "message\n"))

    def test_no_streams(self) -> None:
        """A daemon may have no standard streams."""

        def end() -> None:
            sys.stdout = sys.stderr = None
            end_child(SystemExit(3))

        self.assertEqual(in_child(end), 3)


class CallTests(SynchronousTestCase):
    """A call that may fork, made by a loop in a thread."""

    def test_without_a_fork(self) -> None:
        """The result is returned, or the exception raised."""
        self.assertEqual(call_or_end_child(divmod, 7, 2), (3, 1))
        self.assertRaises(ZeroDivisionError, call_or_end_child, divmod, 7, 0)

    def test_fork(self) -> None:
        """The child exits when the call has ended; the parent goes on."""

        def fork_and_exit() -> int:
            child = os.fork()
            if not child:
                sys.exit(3)
            return child

        def fork_and_return() -> int:
            return os.fork()

        for function, status in ((fork_and_exit, 3), (fork_and_return, 0)):
            child = call_or_end_child(function)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), status)


class SignalTests(SynchronousTestCase):
    """Signal handlers in the child."""

    def handlers_in_child(self) -> int:
        """Return a bit for each signal whose handler is the default in a child."""
        defaults = (
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGINT, signal.default_int_handler),
        )
        return in_child(
            lambda: os._exit(
                sum(
                    1 << bit
                    for bit, (number, default) in enumerate(defaults)
                    if signal.getsignal(number) == default
                )
            )
        )

    def set(
        self,
        number: int,
        handler: Callable[[int, FrameType | None], Any] | signal.Handlers,
    ) -> None:
        """Set a handler for this test."""
        self.addCleanup(signal.signal, number, signal.getsignal(number))
        signal.signal(number, handler)

    def test_of_a_reactor(self) -> None:
        """The handlers of the parent's reactor are replaced by the defaults."""
        self.set(signal.SIGTERM, reactor.sigTerm)  # type: ignore[attr-defined]
        self.set(signal.SIGINT, reactor.sigInt)  # type: ignore[attr-defined]
        self.assertEqual(self.handlers_in_child(), 3)

    def test_of_the_application(self) -> None:
        """Other handlers are kept, as in any fork."""
        self.set(signal.SIGTERM, lambda *_: None)
        self.set(signal.SIGINT, signal.SIG_IGN)
        self.assertEqual(self.handlers_in_child(), 0)
