"""The process always exits: what each signal does.

Only what can be seen from inside of a process that lives on; that a blocked
one is killed is for the integration tests.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.watchdog import MARGIN_SECONDS, Watchdog

_really_arm = faulthandler.dump_traceback_later


class StoppableClock(Clock):
    """As much of a reactor as the watchdog knows."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.stopped = False

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        """Call on the next turn."""
        self.callLater(0, function, *arguments)

    def stop(self) -> None:
        """Stop, once."""
        if self.stopped:
            raise ReactorNotRunning
        self.stopped = True
        self.told.append("stop")

    def sigTerm(self, number: int, frame: object = None) -> None:
        """Twisted's own handler: never to be called by ours."""
        self.told.append("sigTerm")

    def sigInt(self, number: int, frame: object = None) -> None:
        """Twisted's own handler, which stops and remembers the signal."""
        self.told.append("sigInt")


class WatchdogTests(SynchronousTestCase):
    """Signals, of which none is really sent."""

    def setUp(self) -> None:
        """A process of which we only note what would be done to it."""
        self.reactor = StoppableClock()
        self.handlers: dict[int, Any] = {
            signal.SIGTERM: self.reactor.sigTerm,
            signal.SIGINT: self.reactor.sigInt,
        }
        self.armed: list[tuple[float, bool, Any]] = []
        self.patch(signal, "getsignal", self.handlers.__getitem__)
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.patch(faulthandler, "dump_traceback_later", self.arm)

    def arm(self, seconds: float, exit: bool, file: Any) -> None:  # noqa: A002
        """What `faulthandler` is told."""
        self.armed.append((seconds, exit, file))

    def watchdog(self, path: str = "", grace: float = 30) -> None:
        """Install one with 30 seconds of grace."""
        hurry = self.reactor.told.append
        watchdog = Watchdog(grace, lambda: hurry("cut short"), path)
        with capturedLogs() as events:
            watchdog.prepare()
        self.prepared = [formatEvent(event) for event in events]
        watchdog.install(self.reactor)

    def send(self, number: int) -> list[str]:
        """Let a signal arrive, and what it causes; return what was logged."""
        with capturedLogs() as events:
            self.handlers[number](number, None)
            self.reactor.advance(0)
        return [text for event in events if (text := formatEvent(event))]

    def test_terminate(self) -> None:
        """SIGTERM stops the reactor; the process ends by itself, status 0."""
        self.watchdog()
        logged = self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.told, ["stop"])
        self.assertEqual(
            logged,
            [
                "SIGTERM: stopping; requests in flight have 30 s to end (again SIGTERM "
                "ends them now)"
            ],
        )

    def test_interrupt(self) -> None:
        """SIGINT stops as Twisted does: the process ends by that signal."""
        self.watchdog()
        self.send(signal.SIGINT)
        self.assertEqual(self.reactor.told, ["sigInt"])

    def test_deadline(self) -> None:
        """From the first signal on there is a time at which the process exits."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.setUp()
            self.watchdog()
            self.assertEqual(self.armed, [])
            self.send(number)
            self.assertEqual(self.armed, [(30 + MARGIN_SECONDS, True, sys.__stderr__)])

    def test_grace_without_end(self) -> None:
        """A time of grace longer than any clock counts is one that can be set."""
        self.watchdog(grace=99_999_999_999)
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.told, ["stop"])
        [(seconds, _, _)] = self.armed
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        _really_arm(seconds, file=sys.stderr)  # does not raise

    def test_blocked(self) -> None:
        """The deadline is set even if the reactor never turns again."""
        self.watchdog()
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertEqual(len(self.armed), 1)
        self.assertEqual(self.reactor.told, [])

    def test_again(self) -> None:
        """A second signal ends the time of grace, and brings the end nearer."""
        for first, second in [
            (signal.SIGTERM, signal.SIGTERM),
            (signal.SIGTERM, signal.SIGINT),
            (signal.SIGINT, signal.SIGINT),
        ]:
            self.setUp()
            self.watchdog()
            self.send(first)
            name = signal.Signals(second).name
            self.assertEqual(
                self.send(second), [f"{name} again: ending the requests in flight now"]
            )
            self.assertEqual(self.reactor.told[1:], ["cut short"])
            self.assertEqual(self.armed[1][0], MARGIN_SECONDS)
            self.send(second)
            self.assertEqual(len(self.armed), 2)

    def test_already_stopping(self) -> None:
        """A signal to a server that is stopping already ends its grace."""
        self.watchdog()
        self.reactor.stop()
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.told, ["stop", "cut short"])

    def test_other_handlers(self) -> None:
        """A signal that a debugger or a shell has taken is left to it."""
        self.handlers[signal.SIGINT] = signal.SIG_IGN
        self.watchdog()
        self.assertIs(self.handlers[signal.SIGINT], signal.SIG_IGN)
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.told, ["stop"])

    def stacks(self) -> None:
        """Write where the stacks would be written."""
        file = self.armed[-1][2]
        self.addCleanup(file.close)
        os.write(file.fileno(), b"stacks\n")

    def test_stacks_of_a_daemon(self) -> None:
        """A daemon's stacks are appended to its log."""
        log = Path(self.mktemp())
        log.write_text("log\n")
        self.watchdog(str(log))
        self.send(signal.SIGTERM)
        self.stacks()
        self.assertEqual(log.read_text(), "log\nstacks\n")

    def test_stacks_after_rotation(self) -> None:
        """They go to the log as it is then, not to one that was moved away."""
        log = Path(self.mktemp())
        self.watchdog(str(log))
        log.rename(f"{log}.1")
        self.send(signal.SIGTERM)
        self.stacks()
        self.assertEqual(log.read_text(), "stacks\n")

    def test_stacks_without_privileges(self) -> None:
        """They go to the log even if it may not be opened any more."""
        directory = Path(self.mktemp())
        directory.mkdir()
        log = directory / "log"
        self.watchdog(str(log))
        directory.rename(f"{directory}.moved")
        self.send(signal.SIGTERM)
        self.stacks()
        self.assertEqual(Path(f"{directory}.moved", "log").read_text(), "stacks\n")

    def test_log_out_of_reach(self) -> None:
        """Where the log can never be opened they go to standard error."""
        self.watchdog(os.path.join(self.mktemp(), "nowhere"))
        [warning] = self.prepared
        self.assertIn("its stacks go to standard error: [Errno 2]", warning or "")
        self.send(signal.SIGTERM)
        self.assertIs(self.armed[0][2], sys.__stderr__)

    def test_logger_is_named(self) -> None:
        """Log lines say that it is the watchdog who speaks."""
        log: Logger = Watchdog._log
        self.assertEqual(log.namespace, "txgreenwsgi._twistd.watchdog.Watchdog")
