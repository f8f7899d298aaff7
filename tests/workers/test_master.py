"""The decisions of the master, with a clock and fake processes."""

from __future__ import annotations

import signal
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._workers.interface import EndedWorker, MasterObserver
from txgreenwsgi._workers.page import Beat

from .fakes import FakeProcess, MasterCase, Observer


class StartTests(SynchronousTestCase):
    """The start of workers."""

    def test_sockets(self) -> None:
        """A ready worker adopts the sockets of its slot and the shared ones."""
        case = MasterCase()
        case.master.start()
        first, second = case.processes
        self.assertEqual(first.messages, [])
        first.ready()
        second.ready()
        self.assertEqual(
            first.done("adopt")[0],
            _adopt(0, [100, 99]),
        )
        self.assertEqual(
            second.done("adopt"),
            [_adopt(1, [101, 99])],
        )

    def test_neighbour_during_the_start(self) -> None:
        """The first ready worker accepts for slots without one, until they have one."""
        case = MasterCase(3)
        case.master.start()
        first, second, third = case.processes
        first.ready()
        self.assertEqual([each["slot"] for each in first.done("adopt")], [0, 1, 2])
        second.ready()
        self.assertEqual(first.done("release"), [_release(1)])
        third.ready()
        self.assertEqual(first.done("release"), [_release(1), _release(2)])

    def test_no_worker_can_start(self) -> None:
        """The first failure of all ends the server with its reason, once."""
        case = MasterCase()
        case.master.start()
        case.processes[0].fail("ImportError: no module")
        self.assertEqual(case.given_up, ["ImportError: no module"])
        self.flushLoggedErrors()

    def test_one_worker_cannot_start(self) -> None:
        """When another worker is ready, a failed one is started again."""
        case = MasterCase()
        case.master.start()
        case.processes[0].ready()
        case.processes[1].exit(9)
        self.assertEqual(case.given_up, [])
        case.advance(0)
        self.assertEqual(len(case.processes), 3)
        for delay in (1, 2, 4, 8, 16, 30, 30):
            case.last.exit(9)
            count = len(case.processes)
            case.advance(delay - 0.1)
            self.assertEqual(len(case.processes), count)
            case.advance(0.1)
            self.assertEqual(len(case.processes), count + 1)

    def test_process_cannot_be_started(self) -> None:
        """An error of the system is the reason."""
        case = MasterCase(1)
        case.launch_errors = [OSError("no memory")]
        case.master.start()
        case.advance(0)
        self.assertEqual(case.given_up, ["the process cannot be started (no memory)"])

    def test_boot_timeout(self) -> None:
        """A worker that is not ready in time is killed; the reason has its stacks."""
        case = MasterCase(1, boot_timeout=60.0)
        case.master.start()
        case.advance(59)
        self.assertEqual(case.last.stacks_begun, 0)
        case.advance(1)
        self.assertEqual((case.last.stacks_begun, case.last.signals), (1, []))
        case.advance(1)
        self.assertEqual(case.last.signals, [signal.SIGKILL])
        case.last.exit(None, signal.SIGKILL)
        self.assertEqual(
            case.given_up,
            [
                "it was not ready after 60 s (--boot-timeout); its stacks:\n"
                f"stacks of {case.last.pid}"
            ],
        )

    def test_development(self) -> None:
        """For development, a worker is started that shows the reason."""
        case = MasterCase(1, development=True)
        case.master.start()
        self.assertEqual(case.last.worker.failure, "")
        case.last.fail("SyntaxError")
        self.assertEqual(len(case.processes), 2)
        self.assertEqual(case.last.worker.failure, "SyntaxError")
        case.last.ready()
        case.advance(100)
        self.assertEqual((case.given_up, len(case.processes)), ([], 2))

    def test_development_without_a_page(self) -> None:
        """If that one fails too, the server ends."""
        case = MasterCase(1, development=True)
        case.master.start()
        case.last.fail("SyntaxError")
        case.last.fail("out of memory")
        self.assertEqual(case.given_up, ["out of memory"])


class EndTests(SynchronousTestCase):
    """Why workers have ended, as observers are told."""

    def setUp(self) -> None:
        """Start two workers."""
        self.case = MasterCase(2, worker_timeout=30.0)
        self.observer = Observer()
        self.case.master.observe(self.observer)
        self.case.start()
        self.first, self.second = self.case.processes

    def test_crash(self) -> None:
        """A worker has ended without being told to."""
        self.first.exit(None, signal.SIGSEGV)
        self.assertEqual(self.observer.ends, [(1, "crash")])

    def test_hang(self) -> None:
        """The master has killed a worker whose reactor is blocked."""
        self.first.worker.killed = True
        self.first.exit(None, signal.SIGKILL)
        self.assertEqual(self.observer.ends, [(1, "hang")])

    def test_reload(self) -> None:
        """A worker had a successor in a reload."""
        self.case.master.reload()
        self.case.last.ready()
        self.first.exit()
        self.assertEqual(self.observer.ends, [(1, "reload")])

    def test_recycle(self) -> None:
        """A worker has reached a limit."""
        message = {"event": "recycle", "reason": "100 requests"}
        self.case.master.received(self.first.worker, message)
        self.case.last.ready()
        self.first.exit()
        self.assertEqual(self.observer.ends, [(1, "recycle")])

    def test_signal(self) -> None:
        """A worker has got a signal of its own."""
        message = {"event": "leaving", "reason": "SIGTERM"}
        self.case.master.received(self.first.worker, message)
        self.case.advance(0.2)
        self.first.exit()
        self.assertEqual(self.observer.ends, [(1, "signal")])

    def test_not_replaced(self) -> None:
        """A worker that is not replaced, or has never served, has no reason."""
        self.case.master.scale(1)
        self.second.exit()
        self.case.master.reload()
        self.case.last.fail("broken")
        self.case.master.stop()
        self.first.exit()
        self.assertEqual(self.observer.ends, [(2, ""), (3, ""), (1, "")])

    def test_record(self) -> None:
        """The record is free only after observers were told."""
        records = []

        class Watching(MasterObserver):
            """Notes the record of an ended worker."""

            def ended(self, worker: EndedWorker) -> None:
                """Note it."""
                records.append(worker.record)

        self.case.master.observe(Watching())
        record = self.first.worker.record
        self.first.exit(1)
        self.case.advance(0)
        self.assertEqual(records, [record])
        self.assertEqual(self.case.last.worker.record, record)


class CrashTests(SynchronousTestCase):
    """Workers that end unexpectedly."""

    def test_restart(self) -> None:
        """A worker is restarted at once, and a neighbour accepts meanwhile."""
        case = MasterCase()
        case.start()
        case.advance(100)
        first, second = case.processes
        second.messages.clear()
        first.exit(None, signal.SIGSEGV)
        self.assertEqual([each["slot"] for each in second.done("adopt")], [0])
        case.advance(0)
        self.assertEqual(len(case.processes), 3)
        case.last.ready()
        self.assertEqual(second.done("release"), [_release(0)])

    def test_early_ends(self) -> None:
        """A worker that ends soon after it was ready is restarted later and later."""
        case = MasterCase(1)
        case.start()
        delays = []
        for _ in range(8):
            case.advance(9)
            case.last.exit(1)
            began, count = case.clock.seconds(), len(case.processes)
            while len(case.processes) == count:
                case.advance(0.5)
            delays.append(int(case.clock.seconds() - began))
            case.last.ready()
        self.assertEqual(delays, [0, 1, 2, 4, 8, 16, 30, 30])

    def test_later_end(self) -> None:
        """After ten seconds of service the delay starts again."""
        case = MasterCase(1)
        case.start()
        for _ in range(5):
            case.advance(10)
            case.last.exit(1)
            case.advance(0.5)
            case.last.ready()
        self.assertEqual(len(case.processes), 6)

    def test_leaving(self) -> None:
        """A worker that drains by itself gets a successor at once."""
        case = MasterCase()
        case.start()
        first, second = case.processes
        second.messages.clear()
        case.master.received(first.worker, {"event": "leaving", "reason": "SIGTERM"})
        case.advance(0.2)
        self.assertEqual(len(case.processes), 3)
        self.assertEqual([each["slot"] for each in second.done("adopt")], [0])
        first.exit()
        case.last.ready()
        self.assertEqual(len(case.live), 2)

    def test_leaving_while_the_server_stops(self) -> None:
        """A service manager sends the signal to all processes at once."""
        case = MasterCase()
        case.start()
        for process in case.processes:
            case.master.received(
                process.worker, {"event": "leaving", "reason": "SIGTERM"}
            )
        case.master.unready()
        case.advance(100)
        self.assertFalse(any(process.draining for process in case.processes))
        self.assertEqual(len(case.processes), 2)

    def test_lost_link(self) -> None:
        """A worker that closes its link and stays is killed."""
        case = MasterCase(1)
        case.start()
        case.master.lost(case.last.worker)
        case.advance(5)
        self.assertEqual(case.last.signals, [signal.SIGKILL])

    def test_lost_link_of_a_successor(self) -> None:
        """A reload tells why the master has killed a worker."""
        case = MasterCase(1)
        case.start()
        done = case.master.reload()
        case.master.lost(case.last.worker)
        case.advance(5)
        case.last.exit(None, signal.SIGKILL)
        self.assertEqual(
            self.successResultOf(done).reason, "it was killed: it has closed its link"
        )


class ReloadTests(SynchronousTestCase):
    """Reloads."""

    def test_one_after_the_other(self) -> None:
        """Each successor is ready before its worker drains."""
        case = MasterCase()
        case.start()
        first, second = case.processes
        done = case.master.reload()
        self.assertEqual(len(case.processes), 3)
        self.assertFalse(first.draining or second.draining)
        case.last.ready()
        self.assertTrue(first.draining)
        self.assertFalse(second.draining)
        self.assertEqual(first.done("drain"), [_drain(final=False)])
        self.assertEqual(len(case.processes), 4)
        self.assertNoResult(done)
        case.last.ready()
        self.assertTrue(second.draining)
        result = self.successResultOf(done)
        self.assertEqual((result.succeeded, result.replaced), (True, 2))

    def test_parallel(self) -> None:
        """Several successors may boot at the same time."""
        case = MasterCase(4, reload_parallel=3)
        case.start()
        done = case.master.reload()
        self.assertEqual(len(case.processes), 7)
        case.processes[5].ready()
        self.assertEqual(len(case.processes), 8)
        for process in (case.processes[4], *case.processes[6:]):
            process.ready()
        self.assertTrue(self.successResultOf(done).succeeded)

    def test_failure(self) -> None:
        """The first failure ends the reload; the old workers stay."""
        case = MasterCase(3, reload_parallel=2)
        case.start()
        old = list(case.processes)
        done = case.master.reload()
        third, fourth = case.processes[3:]
        third.fail("Traceback ...\nImportError: x")
        result = self.successResultOf(done)
        self.assertEqual(
            (result.succeeded, result.replaced, result.reason),
            (False, 0, "Traceback ...\nImportError: x"),
        )
        self.assertEqual(fourth.signals, [signal.SIGTERM])
        fourth.exit(None, signal.SIGTERM)
        self.assertEqual(case.live, old)
        self.assertFalse(any(process.draining for process in old))
        case.advance(100)
        self.assertEqual(case.live, old)

    def test_failure_in_the_middle(self) -> None:
        """Workers that were replaced before the failure stay replaced."""
        case = MasterCase(2)
        case.start()
        done = case.master.reload()
        case.last.ready()
        case.last.fail("broken")
        self.assertEqual(self.successResultOf(done).replaced, 1)
        case.end_drained()
        self.assertEqual(case.live, [case.processes[1], case.processes[2]])

    def test_merged(self) -> None:
        """Any number of requests during a reload causes one more."""
        case = MasterCase(1)
        case.start()
        requests = [case.master.reload() for _ in range(50)]
        self.assertEqual(len(case.processes), 2)
        case.last.ready()
        self.successResultOf(requests[0])
        self.assertNoResult(requests[1])
        case.end_drained()
        self.assertEqual(len(case.processes), 3)
        case.last.ready()
        for request in requests[1:]:
            self.assertTrue(self.successResultOf(request).succeeded)
        case.end_drained()
        self.assertEqual(len(case.processes), 3)
        self.assertEqual(case.master.status().reloads, 2)

    def test_processes_that_cannot_be_started(self) -> None:
        """Successors without a process end too when the reload fails."""
        case = MasterCase(3, reload_parallel=2)
        case.start()
        case.launch_errors = [OSError("no memory"), OSError("no memory")]
        done = case.master.reload()
        case.advance(0)
        self.assertEqual(
            self.successResultOf(done).reason,
            "the process cannot be started (no memory)",
        )
        self.assertEqual(len(case.master.status().workers), 3)
        stopped = case.master.stop()
        case.end_drained()
        self.successResultOf(stopped)

    def test_waits_for_a_drain(self) -> None:
        """A slot gets no further successor while its last worker drains."""
        case = MasterCase(1)
        case.start()
        case.master.reload()
        case.last.ready()
        case.master.reload()
        self.assertEqual(len(case.processes), 2)
        case.processes[0].exit()
        self.assertEqual(len(case.processes), 3)

    def test_crash_during_a_reload(self) -> None:
        """A slot whose worker crashes is served by its successor."""
        case = MasterCase(2)
        case.start()
        done = case.master.reload()
        case.processes[0].exit(None, signal.SIGKILL)
        case.advance(1)
        self.assertEqual(len(case.processes), 3)
        case.processes[2].ready()
        case.last.ready()
        self.assertTrue(self.successResultOf(done).succeeded)
        case.end_drained()
        self.assertEqual(len(case.live), 2)

    def test_crash_before_a_failed_reload(self) -> None:
        """A slot without a worker is tried again after a failed reload."""
        case = MasterCase(2)
        case.start()
        case.processes[0].exit(1)
        case.advance(0)
        done = case.master.reload()  # replaces the worker that boots
        self.assertTrue(case.processes[2].draining)
        case.processes[2].exit(None, signal.SIGTERM)
        case.last.fail("broken")
        self.assertFalse(self.successResultOf(done).succeeded)
        count = len(case.processes)
        case.advance(40)
        self.assertGreater(len(case.processes), count)

    def test_observers(self) -> None:
        """Observers are told of the beginning and of the result."""
        case = MasterCase(1)
        observer = Observer()
        case.master.observe(observer)
        case.start()
        self.assertEqual(observer.calls, ["ready", "1 worker"])
        observer.calls.clear()
        case.master.reload()
        self.assertEqual(observer.calls[0], "reloading")
        case.last.fail("broken")
        self.assertIn("slot 0 failed: broken", observer.calls)
        self.assertIn("reloaded", observer.calls)
        self.assertFalse(observer.results[0].succeeded)

    def test_observer_that_fails(self) -> None:
        """An error of an observer is logged."""
        case = MasterCase(1)
        case.master.observe(object())  # type: ignore[arg-type]
        case.start()
        self.assertTrue(self.flushLoggedErrors(AttributeError))


class RestartSlotTests(SynchronousTestCase):
    """Stop, then start."""

    def setUp(self) -> None:
        """Make a master for development."""
        self.case = MasterCase(1, development=True)

    def test_restart(self) -> None:
        """The successor starts when the worker has ended."""
        case = self.case
        case.start()
        done = case.master.restart_slot(0, 1.0)
        self.assertEqual(len(case.processes), 1)
        self.assertEqual(
            [each["do"] for each in case.last.messages], ["adopt", "drain"]
        )
        case.last.exit()
        self.assertEqual(len(case.processes), 2)
        self.assertNoResult(done)
        case.last.ready()
        self.assertTrue(self.successResultOf(done).succeeded)

    def test_grace(self) -> None:
        """The grace period is as short as asked for; then the worker is killed."""
        case = self.case
        case.start()
        case.master.restart_slot(0, 1.0)
        case.advance(1)
        self.assertEqual(len(case.last.done("cut short")), 1)
        case.advance(8)
        self.assertEqual(case.last.signals, [signal.SIGKILL])

    def test_while_it_starts(self) -> None:
        """A worker that starts is ended; the first call fails, the second succeeds."""
        case = self.case
        case.start()
        first = case.master.restart_slot(0)
        second = case.master.restart_slot(0)
        self.assertEqual(self.successResultOf(first).reason, "restarted again")
        case.last.exit()
        third = case.master.restart_slot(0)
        case.last.exit(None, signal.SIGTERM)
        self.assertFalse(self.successResultOf(second).succeeded)
        self.assertEqual(len(case.processes), 3)
        case.last.ready()
        self.assertTrue(self.successResultOf(third).succeeded)

    def test_shutdown(self) -> None:
        """A shutdown ends a restart."""
        case = self.case
        case.start()
        done = case.master.restart_slot(0)
        stopped = case.master.stop()
        case.last.exit()
        self.assertFalse(self.successResultOf(done).succeeded)
        self.successResultOf(stopped)
        self.assertEqual(len(case.processes), 1)

    def test_after_a_failure(self) -> None:
        """The page of a failure is replaced by the application again."""
        case = self.case
        case.start()
        done = case.master.restart_slot(0)
        case.last.exit()
        case.last.fail("NameError")
        self.assertEqual(self.successResultOf(done).reason, "NameError")
        case.last.ready()
        again = case.master.restart_slot(0)
        case.last.exit()
        self.assertEqual(case.last.worker.failure, "")
        case.last.ready()
        self.assertTrue(self.successResultOf(again).succeeded)

    def test_crashes(self) -> None:
        """A worker that crashes is restarted once; then a page says so."""
        case = self.case
        case.start()
        case.last.exit(None, signal.SIGSEGV)
        case.advance(0)
        self.assertEqual(case.last.worker.failure, "")
        case.last.ready()
        case.last.exit(None, signal.SIGSEGV)
        self.assertEqual(case.last.worker.failure, "The worker was killed by SIGSEGV.")

    def test_other_messages(self) -> None:
        """Messages for other parts of the command reach them."""
        case = self.case
        seen: list[object] = []
        case.master.events["loaded"] = lambda worker, message: seen.append(message)
        case.start()
        message = {"event": "loaded", "files": []}
        case.master.received(case.last.worker, message)
        self.assertEqual(seen, [message])


class ScaleTests(SynchronousTestCase):
    """More and fewer workers."""

    def test_more(self) -> None:
        """A new slot accepts when its worker is ready."""
        case = MasterCase(1)
        case.start()
        case.master.scale(2)
        self.assertEqual(len(case.processes), 2)
        case.last.ready()
        self.assertEqual(case.last.done("adopt")[0]["descriptors"], [101, 99])

    def test_fewer(self) -> None:
        """A neighbour accepts for a retired slot from now on."""
        case = MasterCase(2)
        case.start()
        first, second = case.processes
        first.messages.clear()
        case.master.scale(1)
        self.assertTrue(second.draining)
        self.assertEqual(first.done("adopt")[0]["descriptors"], [101])
        second.exit()
        case.advance(100)
        self.assertEqual(case.live, [first])
        case.master.reload()
        case.last.ready()
        adopted = [each["slot"] for each in case.last.done("adopt")]
        self.assertEqual(adopted, [0, 1])
        case.end_drained()
        case.master.scale(2)
        newest = case.last
        newest.ready()
        self.assertEqual(len(case.live), 2)
        self.assertEqual(newest.done("adopt")[0]["descriptors"], [101, 99])

    def test_no_workers(self) -> None:
        """One worker is the minimum."""
        case = MasterCase(1)
        case.start()
        error = self.assertRaises(ValueError, case.master.scale, 0)
        self.assertEqual(str(error), "0 workers are too few: give 1 or more")

    def test_development(self) -> None:
        """In development, there is one worker: the reloader restarts no other."""
        case = MasterCase(1, development=True)
        case.start()
        error = self.assertRaises(ValueError, case.master.scale, 2)
        self.assertIn("restart without it, and with --workers 2", str(error))
        case.master.scale(1)
        self.assertEqual(len(case.live), 1)

    def test_while_a_worker_boots(self) -> None:
        """A worker that boots in a retired slot ends."""
        case = MasterCase(2)
        case.start()
        case.master.scale(3)
        case.master.scale(2)
        self.assertEqual(case.last.signals, [signal.SIGTERM])
        case.last.ready()
        self.assertEqual(case.last.done("adopt"), [])

    def test_during_a_reload(self) -> None:
        """A retired slot is left out of a reload."""
        case = MasterCase(2)
        case.start()
        done = case.master.reload()
        case.last.ready()
        case.master.scale(1)
        case.end_drained()
        self.assertTrue(self.successResultOf(done).succeeded)

    def test_down_and_up_during_a_reload(self) -> None:
        """A successor that is scaled away and replaced does not fail the reload."""
        case = MasterCase(2, reload_parallel=2)
        case.start()
        done = case.master.reload()
        first, second = case.processes[2:]
        case.master.scale(1)
        case.master.scale(2)
        third = case.last
        self.assertIsNot(third, second)
        second.exit(None, signal.SIGTERM)
        self.assertNoResult(done)
        first.ready()
        third.ready()
        self.assertTrue(self.successResultOf(done).succeeded)
        self.assertEqual(
            [each.state for each in case.master.status().workers if each.slot == 1],
            ["draining", "ready"],
        )


class StopTests(SynchronousTestCase):
    """The end of the server."""

    def test_stop(self) -> None:
        """All workers drain, accepting their backlogs first."""
        case = MasterCase(2)
        case.start()
        done = case.master.stop()
        for process in case.live:
            self.assertEqual(process.done("drain"), [_drain(final=True)])
            self.assertNoResult(done)
            process.exit()
        self.successResultOf(done)
        case.advance(100)
        self.assertEqual(len(case.processes), 2)

    def test_stop_during_the_start(self) -> None:
        """Workers that boot are ended; no other is started."""
        case = MasterCase(2)
        case.master.start()
        done = case.master.stop()
        for process in case.live:
            self.assertEqual(process.signals, [signal.SIGTERM])
            process.exit(None, signal.SIGTERM)
        self.successResultOf(done)
        self.assertEqual(case.given_up, [])

    def test_worker_that_does_not_end(self) -> None:
        """It is killed some time after the grace period."""
        case = MasterCase(1, graceful_timeout=30.0)
        case.start()
        case.master.stop()
        case.advance(37)
        self.assertEqual(case.last.signals, [])
        case.advance(1)
        self.assertEqual(case.last.signals, [signal.SIGKILL])

    def test_cut_short(self) -> None:
        """The grace period ends for all workers."""
        case = MasterCase(1, graceful_timeout=3600.0)
        case.start()
        case.master.stop()
        case.master.cut_short()
        self.assertTrue(case.last.done("cut short"))
        case.advance(8)
        self.assertEqual(case.last.signals, [signal.SIGKILL])

    def test_cut_short_before_the_stop(self) -> None:
        """A quick stop has no grace period."""
        case = MasterCase(1)
        case.start()
        case.master.cut_short()
        self.assertFalse(case.last.done("cut short"))
        case.master.stop()
        self.assertTrue(case.last.done("cut short"))

    def test_reload_ends(self) -> None:
        """A reload in progress ends without success, and further ones too."""
        case = MasterCase(1)
        case.start()
        done, following = case.master.reload(), case.master.reload()
        case.master.stop()
        for each in (done, following, case.master.reload()):
            result = self.successResultOf(each)
            self.assertEqual(result.reason, "the server shuts down")
        case.end_drained()
        self.assertEqual(case.live, [])

    def test_crash_during_the_stop(self) -> None:
        """A worker that crashes is not replaced."""
        case = MasterCase(1)
        case.start()
        done = case.master.stop()
        case.last.exit(None, signal.SIGSEGV)
        self.successResultOf(done)


class BeatTests(SynchronousTestCase):
    """Workers whose reactor is blocked."""

    def setUp(self) -> None:
        """Start two workers that have been ready for some time."""
        self.case = case = MasterCase(2, worker_timeout=30.0)
        case.start()
        for _ in range(50):
            self.beat(*case.processes)
            case.advance(0.25)
        self.first, self.second = case.processes
        self.second.messages.clear()

    def beat(
        self, *processes: FakeProcess, current: str = "", reported: bool = False
    ) -> None:
        """Let processes beat."""
        now = self.case.clock.seconds()
        for process in processes:
            self.case.beats.beats[process.worker.record] = Beat(
                1, now, 0.0, 2, 3, 4, reported, current
            )

    def pass_time(self, seconds: float, **keywords: Any) -> None:
        """Let time pass in which only the second worker beats."""
        for _ in range(int(seconds * 4)):
            self.beat(self.second)
            self.case.advance(0.25)

    def test_neighbour(self) -> None:
        """A neighbour accepts for a worker that is blocked, until it recovers."""
        self.beat(self.first, current="a-1 GET /slow")
        self.pass_time(1)
        self.assertEqual(self.second.messages, [])
        self.pass_time(0.5)
        self.assertEqual([each["slot"] for each in self.second.done("adopt")], [0])
        self.assertTrue(self.second.done("poll"))
        self.assertEqual(self.case.beats.serving, [self.second.worker.record])
        self.beat(self.first)
        self.case.advance(0.25)
        self.assertEqual(self.second.done("release"), [_release(0)])
        self.second.messages.clear()
        self.beat(self.first, self.second)
        self.case.advance(0.25)
        self.assertEqual(self.second.messages, [])

    def test_request_is_named(self) -> None:
        """The log names the request of a worker that cannot log itself."""
        with capturedLogs() as events:
            self.beat(self.first, current="a-1 GET /slow")
            self.pass_time(5)
        [text] = [formatEvent(event) for event in events if "is blocked" in str(event)]
        self.assertIn("by request a-1 GET /slow, which lets no other", text or "")

    def test_worker_that_reports_itself(self) -> None:
        """If the worker's own monitor has logged it, the master does not."""
        with capturedLogs() as events:
            self.beat(self.first, current="a-1 GET /slow", reported=True)
            self.pass_time(5)
        self.assertEqual([each for each in events if "is blocked" in str(each)], [])
        self.assertTrue(self.first.worker.blocked)

    def test_hung(self) -> None:
        """A worker is killed at the timeout, after its stacks have been requested."""
        self.beat(self.first, current="a-1 GET /slow")
        self.pass_time(28.75)
        self.assertEqual(self.first.stacks_begun, 0)
        self.pass_time(0.5)
        self.assertEqual(self.first.stacks_begun, 1)
        self.pass_time(0.5)
        self.assertEqual(self.first.signals, [])
        with capturedLogs() as events:
            self.pass_time(0.5)
        self.assertEqual(self.first.signals, [signal.SIGKILL])
        text = " ".join(str(formatEvent(event)) for event in events)
        self.assertIn("(--worker-timeout 30) by request a-1 GET /slow", text)
        self.assertIn(f"stacks of {self.first.pid}", text)
        self.pass_time(5)
        self.assertEqual(self.first.signals, [signal.SIGKILL])
        self.first.exit(None, signal.SIGKILL)
        self.case.advance(0)
        self.assertEqual(len(self.case.live), 2)

    def test_recovers_at_the_last_moment(self) -> None:
        """A worker that beats again is not killed."""
        self.beat(self.first)
        self.pass_time(29.5)
        self.assertEqual(self.first.stacks_begun, 1)
        self.beat(self.first)
        self.pass_time(29)
        self.assertEqual(self.first.signals, [])

    def test_master_that_was_stopped(self) -> None:
        """If the master itself was stopped, workers get their full time."""
        self.case.advance(100)
        self.case.advance(0.25)
        self.assertFalse(self.first.worker.blocked)
        self.pass_time(25)
        self.assertEqual(self.first.stacks_begun, 0)

    def test_all_blocked(self) -> None:
        """If all workers are blocked, none accepts for another."""
        self.beat(self.first, self.second)
        for _ in range(10):
            self.case.advance(0.25)
        self.assertTrue(self.second.worker.blocked)
        self.beat(self.second)
        self.case.advance(0.25)
        self.assertEqual([each["slot"] for each in self.second.done("adopt")], [0])

    def test_no_timeout(self) -> None:
        """With --worker-timeout 0 no worker is killed."""
        self.case = case = MasterCase(2, worker_timeout=0)
        case.start()
        first, self.second = case.processes
        self.beat(first)
        self.pass_time(100)
        self.assertTrue(first.worker.blocked)
        self.assertEqual((first.stacks_begun, first.signals), (0, []))

    def test_status(self) -> None:
        """The status has the values of the last beat."""
        self.beat(self.first, current="a-1 GET /")
        self.case.advance(0.125)
        status = self.case.master.status().workers[0]
        self.assertEqual(
            (status.requests, status.connections, status.served), (2, 3, 4)
        )
        self.assertEqual((status.current, status.beat_age), ("a-1 GET /", 0.125))


class RecyclingTests(SynchronousTestCase):
    """Workers that have reached a limit."""

    def recycle(self, case: MasterCase, process: FakeProcess) -> None:
        """Let a worker ask for a successor."""
        case.master.received(
            process.worker, {"event": "recycle", "reason": "100 requests"}
        )

    def test_successor_first(self) -> None:
        """The worker drains when its successor is ready; one at a time."""
        case = MasterCase(2)
        case.start()
        first, second = case.processes
        self.recycle(case, first)
        self.recycle(case, second)
        self.recycle(case, first)
        self.assertEqual(len(case.processes), 3)
        self.assertFalse(first.draining)
        case.last.ready()
        self.assertTrue(first.draining)
        self.assertEqual(len(case.processes), 3)
        first.exit()
        self.assertEqual(len(case.processes), 4)
        case.last.ready()
        self.assertTrue(second.draining)

    def test_successor_that_fails(self) -> None:
        """The worker stays, and may ask again."""
        case = MasterCase(1)
        case.start()
        self.recycle(case, case.processes[0])
        case.last.fail("broken")
        case.advance(60)
        self.assertEqual(case.live, [case.processes[0]])
        self.recycle(case, case.processes[0])
        case.last.ready()
        self.assertTrue(case.processes[0].draining)

    def test_during_a_reload(self) -> None:
        """A reload replaces the worker anyway."""
        case = MasterCase(1)
        case.start()
        case.master.reload()
        self.recycle(case, case.processes[0])
        case.last.ready()
        case.end_drained()
        self.assertEqual(len(case.processes), 2)


class StatusTests(SynchronousTestCase):
    """`status` and `stacks`."""

    def test_status(self) -> None:
        """The status has all workers."""
        case = MasterCase(2)
        case.start()
        case.advance(5)
        status = case.master.status()
        self.assertEqual((status.target, len(status.workers)), (2, 2))
        first = status.workers[0]
        self.assertEqual(
            (first.number, first.slot, first.pid, first.state, first.age, first.slots),
            (1, 0, 1001, "ready", 5.0, (0,)),
        )
        self.assertEqual(status.listening, ("127.0.0.1:8080", "/run/socket"))

    def test_stacks(self) -> None:
        """A worker is asked for its stacks."""
        case = MasterCase(1)
        case.start()
        answer = case.master.stacks(1)
        [question] = case.last.done("stacks")
        case.master.received(
            case.last.worker,
            {"event": "stacks", "question": question["question"], "text": "GET /"},
        )
        self.assertEqual(self.successResultOf(answer), "GET /")

    def test_stacks_of_a_blocked_worker(self) -> None:
        """If it does not answer, the stacks are written by its signal handler."""
        case = MasterCase(1)
        case.start()
        answer = case.master.stacks(1)
        case.advance(2)
        self.assertEqual(case.last.stacks_begun, 1)
        case.advance(1)
        self.assertEqual(self.successResultOf(answer), f"stacks of {case.last.pid}")

    def test_stacks_while_the_state_changes(self) -> None:
        """An answer does not depend on what happens to the worker meanwhile."""
        case = MasterCase(1)
        case.master.start()
        booting = case.master.stacks(1)
        case.last.ready()
        case.advance(1)
        self.assertEqual(self.successResultOf(booting), "stacks of 1001")
        silent = case.master.stacks(1)
        case.master.stop()
        case.advance(2)
        case.advance(1)
        self.assertEqual(self.successResultOf(silent), "stacks of 1001")

    def test_stacks_without_a_process(self) -> None:
        """A worker that could not be started has no stacks."""
        case = MasterCase(1)
        case.launch_errors = [OSError("no memory")]
        case.master.start()
        stacks = case.master.stacks(1)
        case.advance(0)
        self.failureResultOf(stacks, LookupError)

    def test_stacks_of_no_worker(self) -> None:
        """An unknown number fails."""
        case = MasterCase(1)
        case.start()
        self.failureResultOf(case.master.stacks(9), LookupError)

    def test_stacks_of_a_worker_that_ends(self) -> None:
        """The end of the worker ends the question."""
        case = MasterCase(1)
        case.start()
        answer = case.master.stacks(1)
        case.last.exit(1)
        self.failureResultOf(answer, LookupError)


def _adopt(slot: int, descriptors: list[int]) -> dict[str, object]:
    return {
        "do": "adopt",
        "slot": slot,
        "listeners": [0, 1],
        "shared": [1],
        "descriptors": descriptors,
    }


def _release(slot: int) -> dict[str, object]:
    return {"do": "release", "slot": slot, "descriptors": []}


def _drain(*, final: bool) -> dict[str, object]:
    return {"do": "drain", "final": final, "descriptors": []}
