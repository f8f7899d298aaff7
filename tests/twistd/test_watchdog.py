"""The watchdog: the effect of each signal.

These tests cover what is visible in a process that goes on. Integration tests cover
the end of a blocked process.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd import watchdog as watchdog_module
from txgreenwsgi._twistd.watchdog import MARGIN_SECONDS, Watchdog
from txgreenwsgi.green import exits

if TYPE_CHECKING:
    from types import FrameType

_really_arm = faulthandler.dump_traceback_later


class StoppableClock(Clock):
    """The part of a reactor that the watchdog uses."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.stopped = False

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        """Call it on the next turn."""
        self.callLater(0, function, *arguments)

    def stop(self) -> None:
        """Stop; a second call is an error."""
        if self.stopped:
            raise ReactorNotRunning
        self.stopped = True
        self.events.append("stop")

    def sigTerm(self, number: int, frame: object = None) -> None:
        """Record a call of Twisted's handler, which the watchdog must not call."""
        self.events.append("sigTerm")

    def sigInt(self, number: int, frame: object = None) -> None:
        """Record a call of Twisted's handler, which the watchdog must not call."""
        self.events.append("sigInt")


class WatchdogTests(SynchronousTestCase):
    """Signals, without sending any."""

    def setUp(self) -> None:
        """Replace the calls that would change the process."""
        self.reactor = StoppableClock()
        self.handlers: dict[int, Any] = {
            signal.SIGTERM: self.reactor.sigTerm,
            signal.SIGINT: self.reactor.sigInt,
        }
        self.armed: list[tuple[float, bool, Any]] = []
        self.patch(signal, "getsignal", self.handlers.__getitem__)
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.patch(faulthandler, "dump_traceback_later", self.arm)
        self.guarded: list[tuple[Any, ...]] = []
        self.limits: list[float] = []
        self.started: list[tuple[Any, tuple[float, ...]]] = []
        self.patch(exits, "install", lambda: None)
        self.patch(exits, "set_time_limit", self.limits.append)
        self.patch(
            watchdog_module, "start_guardian", lambda *args: self.guarded.append(args)
        )
        self.patch(
            watchdog_module,
            "start_real_thread",
            lambda function, args: self.started.append((function, args)),
        )

    def arm(self, seconds: float, exit: bool, file: Any) -> None:  # noqa: A002
        """Record the arguments of `faulthandler`."""
        self.armed.append((seconds, exit, file))

    def watchdog(self, path: str = "", grace: float = 30) -> None:
        """Install a watchdog."""
        record = self.reactor.events.append
        watchdog = Watchdog(grace, lambda: record("cut short"), path)
        with capturedLogs() as events:
            watchdog.prepare()
        self.prepared = [formatEvent(event) for event in events]
        watchdog.install(self.reactor)
        self.dog = watchdog

    def send(self, number: int) -> list[str]:
        """Deliver a signal, run one reactor turn, and return the log lines."""
        with capturedLogs() as events:
            self.handlers[number](number, None)
            self.reactor.advance(0)
        return [text for event in events if (text := formatEvent(event))]

    def assert_same_file(self, armed: IO[str], expected: IO[str]) -> None:
        """Fail unless the file for the stacks is another descriptor of a file."""
        self.addCleanup(armed.close)
        self.assertIsNot(armed, expected)
        self.assertTrue(os.path.sameopenfile(armed.fileno(), expected.fileno()))

    def test_terminate(self) -> None:
        """SIGTERM stops the reactor; the process ends with status 0."""
        self.watchdog()
        logged = self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.events, ["stop"])
        self.assertEqual(
            logged,
            [
                "SIGTERM: stopping; requests in flight have 30 s to end (a second "
                "SIGTERM cancels them)"
            ],
        )

    def test_interrupt(self) -> None:
        """SIGINT stops the reactor; the last exit handler ends the process by it."""
        killed: list[tuple[int, int]] = []
        self.patch(os, "kill", lambda pid, number: killed.append((pid, number)))
        self.watchdog()
        self.send(signal.SIGINT)
        self.assertEqual(self.reactor.events, ["stop"])
        self.dog.exit_by_signal()
        self.assertEqual(killed, [(os.getpid(), signal.SIGINT)])
        self.assertEqual(self.handlers[signal.SIGINT], signal.SIG_DFL)

    def test_no_interrupt(self) -> None:
        """After SIGTERM the last exit handler does nothing."""
        self.patch(os, "kill", self.fail)
        self.watchdog()
        self.send(signal.SIGTERM)
        self.dog.exit_by_signal()

    def test_steps(self) -> None:
        """The signal sets the limits of all steps, each later than the one before."""
        self.watchdog(grace=10)
        [(reactor, numbers, _, *times, path)] = self.guarded
        drain, killed, killed_again = times
        self.assertIs(reactor, self.reactor)
        self.assertEqual((numbers, path), ([signal.SIGTERM, signal.SIGINT], ""))
        self.assertEqual(drain, 0)
        before = time.monotonic()
        self.send(signal.SIGTERM)
        [limit], [(exited, _, _)] = self.limits, self.armed
        self.assertTrue(11 < limit < exited < killed)
        [(_, (end_of_grace,))] = self.started
        self.assertTrue(before + 10 <= end_of_grace <= time.monotonic() + 10)
        self.send(signal.SIGTERM)
        self.assertTrue(1 < self.limits[1] < self.armed[1][0] < killed_again)

    def test_other_handler(self) -> None:
        """The guardian leaves signals alone that the application handles."""
        self.watchdog()
        is_handled = self.guarded[0][2]
        self.handlers[signal.SIGTERM] = lambda number, frame: None
        self.assertFalse(is_handled(signal.SIGTERM))
        self.assertTrue(is_handled(signal.SIGINT))

    def test_children_that_are_left(self) -> None:
        """After the grace period, processes of multiprocessing are terminated, killed.

        Those that have been reaped are not: their ids may have been reused.
        """

        class Child:
            def __init__(self, pid: int, returncode: int | None) -> None:
                self.pid = pid
                self._popen = SimpleNamespace(returncode=returncode)

            def __repr__(self) -> str:
                return f"<child {self.pid}>"

        killed: list[tuple[int, int]] = []
        slept: list[float] = []
        self.patch(os, "kill", lambda pid, number: killed.append((pid, number)))
        self.patch(watchdog_module, "monotonic", lambda: sum(slept))
        self.patch(watchdog_module, "sleep", slept.append)
        module = SimpleNamespace(_children={Child(2, None), Child(3, 0)})
        self.patch(sys, "modules", {**sys.modules, "multiprocessing.process": module})
        self.watchdog()
        self.send(signal.SIGTERM)
        [(end, _)] = self.started
        with capturedLogs() as events:
            end(10.0)
        self.assertEqual(killed, [(2, signal.SIGTERM), (2, signal.SIGKILL)])
        self.assertTrue(slept[0] > 11 and sum(slept) < 10 + MARGIN_SECONDS)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                f"{name}: sent to <child 2>, which did not end in the grace period"
                for name in ("SIGTERM", "SIGKILL")
            ],
        )

    def test_log_at_exit(self) -> None:
        """When twistd has stopped its log, events go to the file of the stacks."""
        log = Path(self.mktemp())
        self.watchdog(str(log))
        with capturedLogs() as events:
            Logger().warn("late")
        for begun in (False, True):
            self.patch(exits, "has_begun", lambda begun=begun: begun)
            self.dog.observe(events[0])
        [line] = log.read_text().splitlines()
        self.assertTrue(line.endswith("late"), line)

    def test_log_that_is_a_full_pipe(self) -> None:
        """A log that is a pipe is opened without waiting and never blocks."""
        log = self.mktemp()
        os.mkfifo(log)
        self.watchdog(log)  # there is no reader
        self.send(signal.SIGTERM)
        reading = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        self.send(signal.SIGTERM)
        file = self.armed[-1][2]
        self.addCleanup(file.close)
        self.assertFalse(os.get_blocking(file.fileno()))

    def test_stderr_that_is_a_full_pipe(self) -> None:
        """Standard error is reopened if it is a pipe; the original is unchanged."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        pipe = os.fdopen(writing, "w")
        self.addCleanup(pipe.close)
        self.patch(sys, "__stderr__", pipe)
        self.watchdog()
        self.send(signal.SIGTERM)
        file = self.armed[-1][2]
        self.addCleanup(file.close)
        self.assertFalse(os.get_blocking(file.fileno()))
        self.assertTrue(os.get_blocking(writing))
        os.write(file.fileno(), b"x")
        self.assertEqual(os.read(reading, 10), b"x")

    def test_no_stderr(self) -> None:
        """Without standard error, the stacks are dropped and the deadline is set."""
        closed = open(self.mktemp(), "w")  # noqa: SIM115
        closed.close()
        for stderr in None, closed:
            self.setUp()
            self.patch(sys, "__stderr__", stderr)
            self.watchdog()
            self.send(signal.SIGTERM)
            self.assertEqual(self.reactor.events, ["stop"])
            with open(os.devnull) as null:
                self.assert_same_file(self.armed[0][2], null)

    def test_stderr_closed_later(self) -> None:
        """Stacks reach the file of a standard error that was closed later."""
        stderr = open(self.mktemp(), "w")  # noqa: SIM115
        self.addCleanup(stderr.close)
        self.patch(sys, "__stderr__", stderr)
        self.watchdog()
        stderr.close()
        self.send(signal.SIGTERM)
        with open(stderr.name) as same:
            self.assert_same_file(self.armed[0][2], same)

    def test_deadline(self) -> None:
        """The first signal sets a deadline at which the process exits."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.setUp()
            with open(self.mktemp(), "w") as stderr:
                self.patch(sys, "__stderr__", stderr)
                self.watchdog()
                self.assertEqual(self.armed, [])
                self.send(number)
                [(seconds, leave, file)] = self.armed
                self.assertEqual((seconds, leave), (30 + MARGIN_SECONDS, True))
                self.assert_same_file(file, stderr)

    def test_very_long_grace_period(self) -> None:
        """A grace period above the limit of faulthandler is accepted."""
        self.watchdog(grace=99_999_999_999)
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.events, ["stop"])
        [(seconds, _, _)] = self.armed
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        _really_arm(seconds, file=sys.stderr)  # does not raise

    def test_blocked(self) -> None:
        """The deadline is set even if the reactor is blocked."""
        self.watchdog()
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertEqual(len(self.armed), 1)
        self.assertEqual(self.reactor.events, [])

    def test_again(self) -> None:
        """A second signal ends the grace period, and moves the deadline forward."""
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
                self.send(second), [f"second {name}: cancelling the requests in flight"]
            )
            self.assertEqual(self.reactor.events[1:], ["cut short"])
            self.assertEqual(self.armed[1][0], MARGIN_SECONDS)
            self.send(second)
            self.assertEqual(len(self.armed), 2)

    def drain(self, seconds: float = 5) -> Deferred[None]:
        """Install a watchdog with a drain, and return the Deferred of its end."""
        drained: Deferred[None] = Deferred()
        record = self.reactor.events.append

        def drain() -> Deferred[None]:
            record("drain")
            return drained

        def end_drain() -> None:
            record("end drain")
            drained.callback(None)

        self.dog = Watchdog(
            30,
            lambda: record("cut short"),
            drain=drain,
            end_drain=end_drain,
            drain_seconds=seconds,
        )
        self.dog.prepare()
        self.dog.install(self.reactor)
        return drained

    def test_drain(self) -> None:
        """With a drain, the reactor stops at its end, and the deadlines are later."""
        drained = self.drain()
        [(_, _, _, drain, killed, _, _)] = self.guarded
        self.assertEqual(drain, 5)
        self.assertEqual(
            self.send(signal.SIGTERM),
            [
                "SIGTERM: not ready any more; accepting connections for another 5 s "
                "(a second SIGTERM ends this)"
            ],
        )
        self.assertEqual(self.reactor.events, ["drain"])
        [(exits_after, _, _)] = self.armed
        self.assertEqual(exits_after, 5 + 30 + MARGIN_SECONDS)
        self.assertTrue(35 < self.limits[0] < exits_after < drain + killed)
        with capturedLogs() as events:
            drained.callback(None)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "stopping; requests in flight have 30 s to end (another SIGTERM "
                "cancels them)"
            ],
        )
        self.assertEqual(self.reactor.events, ["drain", "stop"])
        self.assertEqual(
            self.send(signal.SIGTERM),
            ["another SIGTERM: cancelling the requests in flight"],
        )
        self.assertEqual(self.reactor.events, ["drain", "stop", "cut short"])
        self.assertEqual(self.armed[1][0], MARGIN_SECONDS)

    def test_second_signal_in_drain(self) -> None:
        """A second signal ends the drain; the third one ends the grace period."""
        self.drain()
        self.send(signal.SIGTERM)
        logged = self.send(signal.SIGINT)
        self.assertEqual(logged[0], "second SIGINT: accepting no more connections")
        self.assertEqual(self.reactor.events, ["drain", "end drain", "stop"])
        self.assertEqual(self.armed[1][0], 30 + MARGIN_SECONDS)
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.events[3:], ["cut short"])
        self.assertEqual(self.armed[2][0], MARGIN_SECONDS)
        self.send(signal.SIGTERM)
        self.assertEqual(len(self.armed), 3)

    def test_reactor_that_stops_in_drain(self) -> None:
        """If other code stops the reactor in the drain, its end changes nothing."""
        drained = self.drain()
        self.send(signal.SIGTERM)
        self.reactor.stop()
        drained.callback(None)
        self.assertEqual(self.reactor.events, ["drain", "stop"])

    def test_drain_that_is_over(self) -> None:
        """A drain that ends at once delays nothing, and a second signal cancels."""
        self.drain().callback(None)
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.events, ["drain", "stop"])
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.events, ["drain", "stop", "cut short"])

    def test_nested(self) -> None:
        """A signal that interrupts the handler of the first counts as the second."""
        self.watchdog()
        handle = self.handlers[signal.SIGTERM]
        pending = [signal.SIGTERM]

        def interrupt(frame: FrameType, event: str, _argument: object) -> None:
            caller = frame.f_back.f_code if frame.f_back else None
            if event == "call" and pending and caller is handle.__func__.__code__:
                handle(pending.pop(), None)

        sys.setprofile(interrupt)
        try:
            handle(signal.SIGTERM, None)
        finally:
            sys.setprofile(None)
        self.assertEqual(pending, [])
        self.reactor.advance(0)
        self.assertEqual(sorted(self.reactor.events), ["cut short", "stop"])

    def test_already_stopping(self) -> None:
        """A signal to a server that is already stopping ends the grace period."""
        self.watchdog()
        self.reactor.stop()
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.events, ["stop", "cut short"])

    def test_other_handlers(self) -> None:
        """A signal handled by a debugger or ignored by a shell is left alone."""
        self.handlers[signal.SIGINT] = signal.SIG_IGN
        self.watchdog()
        self.assertIs(self.handlers[signal.SIGINT], signal.SIG_IGN)
        self.send(signal.SIGTERM)
        self.assertEqual(self.reactor.events, ["stop"])

    def stacks(self) -> None:
        """Write to the file that gets the stacks."""
        file = self.armed[-1][2]
        self.addCleanup(file.close)
        os.write(file.fileno(), b"stacks\n")

    def test_stacks_of_a_daemon(self) -> None:
        """The stacks of a daemon are appended to its log."""
        log = Path(self.mktemp())
        log.write_text("log\n")
        self.watchdog(str(log))
        self.send(signal.SIGTERM)
        self.stacks()
        self.assertEqual(log.read_text(), "log\nstacks\n")

    def test_stacks_after_rotation(self) -> None:
        """After a rotation, the stacks go to the new log."""
        log = Path(self.mktemp())
        self.watchdog(str(log))
        log.rename(f"{log}.1")
        self.send(signal.SIGTERM)
        self.stacks()
        self.assertEqual(log.read_text(), "stacks\n")

    def test_stacks_without_privileges(self) -> None:
        """The stacks go to the log even if it can no longer be opened."""
        directory = Path(self.mktemp())
        directory.mkdir()
        log = directory / "log"
        self.watchdog(str(log))
        directory.rename(f"{directory}.moved")
        self.send(signal.SIGTERM)
        self.stacks()
        self.assertEqual(Path(f"{directory}.moved", "log").read_text(), "stacks\n")

    def test_log_that_cannot_be_opened(self) -> None:
        """If the log cannot be opened, the stacks go to standard error."""
        stderr = open(self.mktemp(), "w")  # noqa: SIM115
        self.addCleanup(stderr.close)
        self.patch(sys, "__stderr__", stderr)
        self.watchdog(os.path.join(self.mktemp(), "nowhere"))
        [warning] = self.prepared
        self.assertIn("cannot open the log ([Errno 2]", warning or "")
        self.assertIn("its stacks go to standard error", warning or "")
        self.send(signal.SIGTERM)
        self.assert_same_file(self.armed[0][2], stderr)
