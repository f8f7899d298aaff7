"""Tests of the blocked-reactor monitor, on a clock and with stacks of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.server.logged import Logged
from txgreenwsgi._parking.thread_load import Load
from txgreenwsgi._serving import monitor as monitor_module
from txgreenwsgi._serving.blocks import Block, seconds_blocked
from txgreenwsgi._serving.monitor import (
    LINGER_SECONDS,
    MESSAGE_SECONDS,
    REMEDY_BLOCKS,
    BlockedMonitor,
    monitor_of,
)
from txgreenwsgi._serving.surroundings import Surroundings
from txgreenwsgi._switching import running
from txgreenwsgi.monitoring.blocked import BlockedReport
from txgreenwsgi.monitoring.stacks import CodeLine
from txgreenwsgi.testing import MemoryReactor

from .cases import ServingTestCase
from .memory_stream import MemoryStream, request_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi._serving.registry import InFlight
    from txgreenwsgi._switching.greenlets import Hub, Task
    from txgreenwsgi.monitoring.stacks import Stack

LIMIT = 0.25
TOTALS = CodeLine("/srv/shop/reports.py", 88, "totals")
LOOP = CodeLine("/srv/shop/reports.py", 90, "totals")
VIEW = CodeLine("/srv/shop/views.py", 21, "report")


@implementer(IReactorFromThreads)
class ReactorOfTest(Clock):
    """A reactor's clock, and the calls that other threads asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Callable[[], object]] = []

    def callFromThread(  # type: ignore[override]
        self, function: Callable[..., object], *args: object
    ) -> None:
        """Keep the call."""
        self.asked.append(lambda: function(*args))


class HubOfTest:
    """The part of a hub that the monitor reads."""

    thread = 1

    def __init__(self) -> None:
        self.reactor = ReactorOfTest()
        self.resumed_at = 0.0

    def seconds(self) -> float:
        """Return the time of the reactor's clock."""
        return self.reactor.seconds()


class TaskOfTest:
    """The part of a task that the monitor reads."""

    def __init__(self, hub: HubOfTest, name: str = "") -> None:
        self.hub = hub
        self.name = name


class RequestOfTest:
    """The part of an exchange that the monitor reads."""

    def __init__(self, path: str, task: TaskOfTest | None = None) -> None:
        self.head = request_head("GET", path)
        self.request_id = "1f6a-2b"
        self.task = task
        self.blocks: list[Block] | None = None


class ServerOfTest:
    """The part of an application's server that the monitor reads."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.blocked_after = limit
        self.requests: list[RequestOfTest] = []
        self.open_connections = 3

    @property
    def requests_in_flight(self) -> list[InFlight]:
        """The exchanges in progress."""
        return cast("list[InFlight]", self.requests)


class SurroundingsOfTest(Surroundings):
    """A process whose clock, stacks and load the test sets."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.processor = Load(0.0, 0.0)
        self.lines: Stack = (TOTALS, VIEW)
        self.waits_for_events = False
        self.collected: list[tuple[float, float]] = []
        self.ended = 0

    def now(self) -> float:
        """Return the time."""
        return self.time

    def begin(self) -> None:
        """No-op."""

    def enter_thread(self) -> None:
        """No-op: the test's thread needs its signals."""

    def end(self) -> None:
        """Count the calls."""
        self.ended += 1

    def load(self) -> Load:
        """Return the load."""
        return self.processor

    def processor_time(self) -> float:
        """Return the first figure of the load."""
        return self.processor.thread

    def stack(self, thread: int) -> Stack:
        """Return the stack."""
        return self.lines

    def is_idle(self, thread: int) -> bool:
        """Return whether the reactor waits for events."""
        return self.waits_for_events

    def collections(self) -> list[tuple[float, float]]:
        """Return the collections of the test."""
        collected, self.collected = self.collected, []
        return collected


class MonitorCase(SynchronousTestCase):
    """A monitor without a thread; the test takes its samples."""

    def setUp(self) -> None:
        """Begin with a server without requests, and a reactor that waits."""
        self.hub = HubOfTest()
        self.around = SurroundingsOfTest()
        self.report = BlockedReport()
        self.threads: list[Callable[[], object]] = []
        self.monitor = BlockedMonitor(
            cast("Hub", self.hub),
            self.around,
            self.report,
            lambda function, args: self.threads.append(function),
        )
        self.server = ServerOfTest()
        self.monitor.watch(self.server)
        self.patch(running, "task", None)
        self.logged = Logged(self)
        self.idle()
        self.sample()

    def sample(self, seconds: float | None = None, used: float = 0.0) -> None:
        """Let the time of an interval pass, then take a sample.

        Args:
            seconds: the length of the interval; as planned by default.
            used: processor time of the reactor's thread.
        """
        gap = self.monitor.interval if seconds is None else seconds
        self.around.time += gap
        self.hub.reactor.rightNow += gap
        thread, delay = self.around.processor
        self.around.processor = Load(thread + used, delay)
        self.monitor.sample()

    def pass_by(self, seconds: float) -> None:
        """Take samples for a time."""
        end = self.around.time + seconds
        while self.around.time < end:
            self.sample(min(self.monitor.interval, end - self.around.time + 1e-9))

    def run_task(self, task: TaskOfTest | None) -> None:
        """Switch to a task; None for the reactor greenlet."""
        self.around.waits_for_events = False
        running.task = cast("Task[object] | None", task)
        if task is not None:
            self.hub.resumed_at = self.hub.reactor.seconds()

    def idle(self) -> None:
        """Let the reactor make its calls and wait for events."""
        self.run_task(None)
        calls, self.hub.reactor.asked = self.hub.reactor.asked, []
        for call in calls:
            call()
        self.around.waits_for_events = True

    def request(self, path: str = "/reports/7?secret=1") -> RequestOfTest:
        """Return a new request that runs now."""
        request = RequestOfTest(path, TaskOfTest(self.hub, "request"))
        self.server.requests.append(request)
        self.run_task(request.task)
        return request

    def end(self, request: RequestOfTest) -> None:
        """End a request."""
        self.server.requests.remove(request)
        self.idle()

    def block(self, seconds: float, path: str = "/") -> None:
        """Let one request block for a time."""
        request = self.request(path)
        self.pass_by(seconds)
        self.end(request)
        self.sample()


class BlockTests(MonitorCase):
    """Blocks by a request."""

    def test_messages(self) -> None:
        """The request and the line are logged once, and then the duration."""
        for _ in range(41):
            self.server.requests.append(RequestOfTest("/other"))
        request = self.request()
        self.pass_by(LIMIT - 0.01)
        self.assertEqual(self.logged.lines(), [])
        self.sample()
        [line] = self.logged.lines()
        self.assertIn(
            "reactor blocked by GET /reports/7 (request 1f6a-2b) at "
            "/srv/shop/reports.py:88 in totals: it has held up 41 other requests in "
            "flight for 0.",
            line,
        )
        self.assertIn(
            "with 3 connections open; most recent call last:\n"
            "  /srv/shop/views.py:21 in report\n"
            "  /srv/shop/reports.py:88 in totals",
            line,
        )
        self.assertNotIn("secret", line)
        self.pass_by(1.0)
        self.assertEqual(self.logged.lines(), [])
        self.end(request)
        self.sample()
        [line] = self.logged.lines()
        self.assertIn("reactor no longer blocked after 1.", line)
        self.assertIn("held up 41 other requests", line)
        self.pass_by(5.0)
        self.assertEqual(self.logged.lines(), [])

    def test_short_requests(self) -> None:
        """Requests that run for less are not blocks, however many there are."""
        for _ in range(50):
            request = self.request()
            self.pass_by(LIMIT - 0.05)
            self.end(request)
            self.request()
            self.sample()
        self.assertEqual(self.logged.lines(), [])
        self.assertEqual(self.report.lines(), [])

    def test_task_that_parks(self) -> None:
        """A task that is resumed again and again does not block."""
        request = self.request()
        for _ in range(50):
            self.sample()
            self.run_task(request.task)
        self.assertEqual(self.logged.lines(), [])

    def test_duration(self) -> None:
        """The duration begins with the switch, and ends with the next turn."""
        self.around.time += 0.15
        self.hub.reactor.rightNow += 0.15
        request = self.request()
        self.sample(0.05)
        self.pass_by(0.35)
        self.end(request)
        self.sample(0.04)
        [line] = self.report.lines()
        self.assertAlmostEqual(line.seconds, 0.4, places=3)

    def test_line_seen_most(self) -> None:
        """At the end, the line that ran for most of the time is named."""
        request = self.request()
        self.pass_by(0.3)
        self.around.lines = (LOOP, VIEW)
        self.pass_by(1.0)
        self.end(request)
        self.sample()
        self.assertIn(f", most of it at {LOOP}", self.logged.lines()[1])
        [line] = self.report.lines()
        self.assertEqual((line.line, line.request), (LOOP.line, "GET /reports/7"))

    def test_other_task(self) -> None:
        """A task without a request is named."""
        self.run_task(TaskOfTest(self.hub, "cleanup"))
        self.pass_by(0.4)
        self.assertIn("blocked by task 'cleanup' at", self.logged.lines()[0])

    def test_unprintable_path(self) -> None:
        """The target is logged as the client sent it, so it cannot split the line."""
        request = self.request("/%0Areactor")
        request.head.path = "/\nreactor"
        self.pass_by(0.4)
        self.assertIn("GET /%0Areactor (request", self.logged.lines()[0])

    def test_debugger(self) -> None:
        """While a debugger waits for its user, nothing is logged or counted."""
        import pdb

        self.around.lines = (CodeLine(pdb.__file__, 5, "interaction"), VIEW)
        self.block(5.0)
        self.assertEqual(self.logged.lines(), [])
        self.assertEqual(self.report.lines(), [])

    def test_garbage_collection(self) -> None:
        """A garbage collection during the block is named."""
        request = self.request()
        self.around.time += 0.1
        self.around.collected = [(self.around.time, self.around.time + 0.5)]
        self.sample(0.5, used=0.5)
        self.assertIn("in totals (garbage collection):", self.logged.lines()[0])
        self.end(request)

    def test_earlier_garbage_collection(self) -> None:
        """A collection before the block does not count."""
        self.around.collected = [(self.around.time - 1.0, self.around.time)]
        self.block(0.5)
        self.assertNotIn("garbage", "".join(self.logged.lines()))

    def test_record(self) -> None:
        """The block belongs to its request, and ends with it if that is earlier."""
        request = self.request()
        self.pass_by(0.4)
        [block] = request.blocks or []
        self.assertIsNone(block.ended)
        block.since, block.ended = 5.0, 5.75
        self.end(request)
        self.sample()
        self.assertEqual(seconds_blocked([block, block]), 1.5)
        self.assertIn("after 0.75 s", self.logged.lines()[1])

    def test_shortest_limit(self) -> None:
        """The interval suits the smallest limit of all servers."""
        self.assertEqual(self.monitor.interval, 0.2)
        other = ServerOfTest(0.02)
        self.monitor.watch(other)
        self.assertEqual(self.monitor.interval, 0.01)
        self.monitor.unwatch(other)
        self.assertEqual(self.monitor.interval, 0.2)
        self.request()
        self.sample()
        self.assertEqual(self.monitor.interval, 0.05)


class OutsideTests(MonitorCase):
    """Code outside tasks."""

    def test_callback(self) -> None:
        """A callback that blocks is reported, when a call has not been made."""
        self.run_task(None)
        self.pass_by(0.6)
        [line] = self.logged.lines()
        self.assertIn("reactor blocked by code outside requests at", line)
        self.idle()
        self.sample()
        self.assertIn("reactor no longer blocked after", self.logged.lines()[0])
        self.assertEqual(self.report.lines()[0].request, "no request")

    def test_unknown_reactor(self) -> None:
        """A reactor that makes the calls is alive, even if its wait is unknown."""
        for _ in range(100):
            self.sample()
            self.idle()
            self.around.waits_for_events = False
        self.assertEqual(self.logged.lines(), [])

    def test_idle(self) -> None:
        """An idle reactor is not woken."""
        self.pass_by(2.0)
        self.assertEqual(self.hub.reactor.asked, [])

    def test_tasks_run(self) -> None:
        """A turn in which tasks run is not a block, however long it takes."""
        self.run_task(None)
        for _ in range(20):
            self.sample()
            self.hub.resumed_at = self.hub.reactor.seconds()
        self.assertEqual(self.logged.lines(), [])


class LateTests(MonitorCase):
    """Samples that come late."""

    def test_interpreter_lock(self) -> None:
        """A late sample is a block if the reactor's thread has computed."""
        self.sample(0.01)
        self.request()
        self.sample(0.4, used=0.39)
        [line] = self.logged.lines()
        self.assertIn("flight for 0.40 s", line)

    def test_block_within_a_sample(self) -> None:
        """A block that begins and ends while a sample waits for the lock is seen."""
        self.sample(0.01)

        def lose_the_lock() -> Load:
            lost.restore()
            before = thread, delay = self.around.processor
            self.request("/second")
            self.around.time += 1.0
            self.hub.reactor.rightNow += 1.0
            self.around.processor = Load(thread + 1.0, delay)
            return before

        lost = self.patch(self.around, "load", lose_the_lock)
        self.sample(0.01)
        [line] = self.logged.lines()
        self.assertIn("blocked by GET /second (request", line)
        self.assertIn("flight for 1.00 s", line)

    def test_stopped_process(self) -> None:
        """A process that was stopped is not blocked: it has not computed."""
        self.request()
        self.sample()
        self.sample(3600.0)
        self.run_task(None)
        self.idle()
        self.pass_by(1.0)
        self.assertEqual(self.logged.lines(), [])

    def test_stopped_during_a_block(self) -> None:
        """The time in which the process was stopped is no part of the block."""
        request = self.request()
        self.pass_by(0.2)
        self.sample(3600.0)
        self.pass_by(0.2)
        self.end(request)
        self.sample(0.01)
        [line] = self.report.lines()
        self.assertAlmostEqual(line.seconds, 0.4, places=1)

    def test_other_thread(self) -> None:
        """Another thread that holds the lock is not blamed on the running task."""
        self.request()
        self.sample(0.5)
        self.assertEqual(self.logged.lines(), [])

    def test_starved_process(self) -> None:
        """A thread that gets no processor does not block."""
        self.request()
        for _ in range(20):
            thread, delay = self.around.processor
            self.around.processor = Load(thread, delay + 0.0499)
            self.sample(0.05)
        self.assertEqual(self.logged.lines(), [])

    def test_busy_machine(self) -> None:
        """A thread that gets a part of a processor does block."""
        self.request()
        for _ in range(20):
            thread, delay = self.around.processor
            self.around.processor = Load(thread, delay + 0.04)
            self.sample(0.05, used=0.01)
        self.assertEqual(len(self.logged.lines()), 1)

    def test_clock_jumps(self) -> None:
        """Jumps of the reactor's clock neither cause nor hide a block."""
        for jump in (3600.0, -3600.0):
            request = self.request()
            self.hub.reactor.rightNow += jump
            self.sample()
            self.end(request)
            self.sample()
            self.assertEqual(self.logged.lines(), [])
            self.block(0.9, f"/{jump}")
            self.assertEqual(len(self.logged.lines()), 2, jump)
            self.around.lines = (LOOP,)


class MessageTests(MonitorCase):
    """The number of messages."""

    def test_once_a_minute(self) -> None:
        """A line is logged once a minute; the next message has the number."""
        for number in range(5):
            self.block(0.4, f"/{number}")
        self.assertEqual(len(self.logged.lines()), 2)
        self.assertEqual(self.report.lines()[0].blocks, 5)
        self.pass_by(MESSAGE_SECONDS)
        self.block(0.4)
        self.assertIn(
            "; this line blocked 4 times more since the last message;",
            self.logged.lines()[0],
        )
        self.pass_by(MESSAGE_SECONDS)
        self.block(0.4)
        self.assertNotIn("since the last message", self.logged.lines()[0])

    def test_other_line(self) -> None:
        """Another line is logged at once."""
        self.block(0.4)
        self.around.lines = (LOOP, VIEW)
        self.block(0.4)
        self.assertEqual(len(self.logged.lines()), 4)

    def test_many_lines(self) -> None:
        """The number of lines whose messages are counted is bounded."""
        self.patch(monitor_module, "MOST_COUNTED", 2)
        for number in (1, 2, 3, 1):
            self.around.lines = (CodeLine("/srv/a.py", number, "f"),)
            self.block(0.4)
        self.assertEqual(len(self.logged.lines()), 8)

    def test_remedies(self) -> None:
        """The tenth block of a line names the remedies, once."""
        for number in range(REMEDY_BLOCKS + 5):
            self.block(0.5, f"/{number}")
        [remedy] = [line for line in self.logged.lines() if "--threads-for" in line]
        self.assertIn(f"{TOTALS} has blocked the reactor 10 times, 5.", remedy)
        self.assertIn("last for GET /9: serve these requests in real", remedy)
        self.assertIn("@in_thread", remedy)
        self.assertIn("offload()", remedy)

    def test_summary(self) -> None:
        """At the shutdown, the lines that blocked are logged."""
        self.block(0.4)
        self.logged.lines()
        self.monitor.stop()
        [summary] = self.logged.lines()
        self.assertIn("code that blocked the reactor, by time:\n  0.4", summary)
        self.assertIn(f"{TOTALS} (GET /)", summary)
        self.monitor.stop()
        self.assertEqual(self.logged.lines(), [])


class ThreadTests(MonitorCase):
    """The start and the end of the thread."""

    def test_ends_after_the_last_connection(self) -> None:
        """The thread ends half a second after the last connection."""
        [run] = self.threads
        self.patch(self.monitor, "sample", lambda: self.sample_of_thread())
        self.steps = 0
        self.monitor.unwatch(self.server)
        run()
        self.assertEqual(self.around.ended, 1)
        self.assertGreaterEqual(self.steps * 0.05, LINGER_SECONDS)

    def sample_of_thread(self) -> None:
        """Let time pass in the thread's loop."""
        self.steps += 1
        self.around.time += 0.05

    def test_restarts(self) -> None:
        """A connection within that time keeps it; a later one starts a new one."""
        [run] = self.threads
        self.monitor.watch(self.server)
        self.assertEqual(len(self.threads), 1)
        self.monitor.stop()
        run()
        self.monitor.watch(self.server)
        self.assertEqual(len(self.threads), 2)

    def test_error(self) -> None:
        """An error ends the monitor with one message, and leaves the server alone."""

        def fail() -> None:
            raise ZeroDivisionError

        self.patch(self.monitor, "sample", fail)
        self.threads[0]()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.monitor.watch(self.server)
        self.assertEqual(len(self.threads), 1)
        self.assertEqual(self.around.ended, 1)

    def test_fork(self) -> None:
        """The child of a fork has no thread, and starts one when it serves."""
        self.monitor.forget_thread()
        self.assertEqual(self.around.ended, 1)
        self.monitor.watch(self.server)
        self.assertEqual(len(self.threads), 2)

    def test_server_that_ends_during_a_block(self) -> None:
        """A block ends when nothing is watched any more."""
        self.request()
        self.pass_by(0.4)
        self.monitor.unwatch(self.server)
        self.sample()
        self.assertEqual(len(self.logged.lines()), 2)

    def test_reactor_in_memory(self) -> None:
        """A reactor in memory, on a clock of its own, has no monitor."""
        hub: Any = HubOfTest()
        hub.reactor = MemoryReactor()
        self.assertIsNone(monitor_of(hub))


class RecordTests(ServingTestCase):
    """The blocks of an exchange in its record."""

    def test_record(self) -> None:
        """The record has the duration of all blocks of the request."""
        streams: list[MemoryStream] = []

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
            block = Block(1.0, "GET /", "GET /", TOTALS, ended=1.5)
            [exchange] = server.table.exchanges
            exchange.blocks = [block, block]
            start_response("200 OK", [])
            return []

        server = self.server_of(app)
        streams.append(self.served(server))
        self.assertEqual([record.blocked for record in self.records], [1.0])

    def test_other_record(self) -> None:
        """Without a block it is 0.0."""

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
            start_response("200 OK", [])
            return []

        self.served(self.server_of(app))
        self.assertEqual([record.blocked for record in self.records], [0.0])
