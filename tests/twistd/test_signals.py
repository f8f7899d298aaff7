"""The signals of operators: the handlers, and the effect of each signal."""

from __future__ import annotations

import os
import signal
from operator import methodcaller
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.logfile import LogFile
from twisted.scripts._twistd_unix import UnixAppLogger
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd import signals
from txgreenwsgi._twistd.signals import OperatorSignals

NAMES = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGTTIN", "SIGTTOU")


class FakeReactor(Clock):
    """A clock with `callFromThread`."""

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        """Call it on the next turn."""
        self.callLater(0, function, *arguments)


class Installed(SynchronousTestCase):
    """The handlers, installed in this process."""

    def setUp(self) -> None:
        """Set the default actions; the cleanup restores the handlers."""
        for name in (*NAMES, "SIGTERM"):
            number = getattr(signal, name)
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_DFL)
        self.reactor = FakeReactor()
        self.reopened: list[str] = []
        self.terminal = False
        self.patch(signals, "has_terminal", lambda: self.terminal)

    def install(self) -> None:
        """Install the handlers."""
        made = OperatorSignals([lambda: self.reopened.append("log")])
        made.install(self.reactor)

    def receive(self, name: str) -> list[str]:
        """Send a signal to this process; return the lines that are logged."""
        with capturedLogs() as events:
            os.kill(os.getpid(), getattr(signal, name))
            self.reactor.advance(0)
        return [formatEvent(event) for event in events]


class SignalTests(Installed):
    """`OperatorSignals`."""

    def test_reopen(self) -> None:
        """SIGUSR1 and SIGHUP reopen the logs; SIGHUP says that nothing is reloaded."""
        self.install()
        self.assertEqual(self.receive("SIGUSR1"), ["SIGUSR1: reopened the logs"])
        self.assertEqual(self.reopened, ["log"])
        self.assertEqual(
            self.receive("SIGHUP"),
            [
                "SIGHUP: reopened the logs; restart the process to load new code or "
                "another configuration"
            ],
        )
        self.assertEqual(self.reopened, ["log", "log"])

    def test_certificates(self) -> None:
        """With TLS, SIGHUP also reads the certificates again; SIGUSR1 does not."""
        read: list[str] = []
        made = OperatorSignals(read_again=[lambda: read.append("certificates")])
        made.install(self.reactor)
        self.receive("SIGUSR1")
        self.assertEqual(read, [])
        [line] = self.receive("SIGHUP")
        self.assertIn("reopened the logs, reading TLS certificates again", line)
        self.assertEqual(read, ["certificates"])

    def test_signals_for_workers(self) -> None:
        """Signals that manage workers are logged."""
        self.install()
        for name in ("SIGUSR2", "SIGTTIN", "SIGTTOU"):
            [line] = self.receive(name)
            self.assertIn(f"{name} ignored: this process has no workers", line)
        self.assertEqual(self.reopened, [])

    def test_quit(self) -> None:
        """SIGQUIT is SIGTERM."""
        self.install()
        received: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        self.assertEqual(self.receive("SIGQUIT"), [])
        self.assertEqual(received, [signal.SIGTERM])

    def test_quit_during_the_start(self) -> None:
        """Before the reactor handles SIGTERM, SIGQUIT waits for it."""
        self.install()
        received: list[int] = []
        os.kill(os.getpid(), signal.SIGQUIT)
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        self.assertEqual(received, [])
        self.reactor.advance(0)
        self.assertEqual(received, [signal.SIGTERM])

    def test_closed_terminal(self) -> None:
        """SIGHUP from a closed terminal is SIGTERM, from a terminal in use not."""
        self.terminal = True
        self.install()
        received: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        self.receive("SIGHUP")
        self.assertEqual((received, self.reopened), ([], ["log"]))
        self.terminal = False
        self.receive("SIGHUP")
        self.assertEqual((received, self.reopened), ([signal.SIGTERM], ["log"]))

    def test_background_process_of_a_terminal(self) -> None:
        """With a terminal, SIGTTIN and SIGTTOU are ignored: a handler would loop."""
        self.terminal = True
        self.install()
        for name in ("SIGTTIN", "SIGTTOU"):
            self.assertIs(signal.getsignal(getattr(signal, name)), signal.SIG_IGN)
            self.assertEqual(self.receive(name), [])

    def test_handled_signals(self) -> None:
        """Handlers of other code, and ignored signals, are left unchanged."""
        received: list[int] = []

        def theirs(number: int, frame: object) -> None:
            received.append(number)

        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        for name in ("SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGTTIN", "SIGTTOU"):
            signal.signal(getattr(signal, name), theirs)
        self.install()
        for name in NAMES:
            self.assertEqual(self.receive(name), [])
        self.assertEqual(len(received), 5)
        self.assertEqual(self.reopened, [])

    def test_application_that_installs_its_own(self) -> None:
        """A handler that the application installs later replaces ours."""
        self.install()
        received: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
        self.receive("SIGUSR1")
        self.assertEqual((received, self.reopened), ([signal.SIGUSR1], []))


class LogFileTests(Installed):
    """twistd's log file."""

    def setUp(self) -> None:
        """Open the log as twistd does, with its handler of SIGUSR1."""
        super().setUp()
        self.path = Path(self.mktemp()).absolute()
        logger = UnixAppLogger({"logfile": str(self.path)})
        self.observer: Any = methodcaller("_getLogObserver")(logger)
        self.observer({"log_format": "first", "log_time": 0.0})

    def line(self, text: str) -> None:
        """Log a line."""
        self.observer({"log_format": text, "log_time": 0.0})

    def test_rotation(self) -> None:
        """After logrotate has moved the file, SIGUSR1 opens a new one like it."""
        self.path.chmod(0o640)
        self.install()
        moved = self.path.with_suffix(".1")
        self.path.rename(moved)
        self.receive("SIGUSR1")
        self.line("second")
        self.assertIn("first", moved.read_text())
        self.assertNotIn("second", moved.read_text())
        self.assertIn("second", self.path.read_text())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)

    def test_not_moved(self) -> None:
        """If the file was not moved, it goes on; twistd would rename it."""
        self.install()
        self.receive("SIGHUP")
        self.line("second")
        self.assertIn("first", self.path.read_text())
        self.assertIn("second", self.path.read_text())
        self.assertFalse(Path(f"{self.path}.1").exists())

    def test_no_permission(self) -> None:
        """If the new file cannot be opened, the old one stays open."""
        self.install()
        moved = self.path.with_suffix(".1")
        self.path.rename(moved)
        self.path.mkdir()
        lines = self.receive("SIGUSR1")
        self.assertIn(f"cannot reopen {self.path} (", lines[0])
        self.line("second")
        self.assertIn("second", moved.read_text())

    def test_closure_of_twistd(self) -> None:
        """The handler of twistd still refers to the file by the name that is read."""
        handler: Any = signal.getsignal(signal.SIGUSR1)
        self.assertIsInstance(signals.rotated_by(handler), LogFile)
