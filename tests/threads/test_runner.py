"""Tests of the runner: the choice of the place, and the response from a thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from tests.serving.thread_runner import SECONDS
from txgreenwsgi import (
    Cancelled,
    ClientDisconnected,
    current_task,
    sleep,
    spawn,
    timeout,
    wait,
)
from txgreenwsgi._switching.greenlets import require_task
from txgreenwsgi._switching.thread_calls import in_task
from txgreenwsgi._threads.calls import ThreadCall
from txgreenwsgi._threads.reactor_calls import guard_from_threads
from txgreenwsgi._threads.response import SinkInThread
from txgreenwsgi._threads.routes import RoutePatterns
from txgreenwsgi._threads.runner import ThreadRunner
from txgreenwsgi._threads.turns import meter_of

from .cases import ThreadsTestCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Task


class FakeSink:
    """A sink that records its calls."""

    bodiless = False
    code = 200

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.head_sent = threading.Event()
        self.accepts_blocks = True
        self.error: BaseException | None = None
        self.on_write: Callable[[], object] = int

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: object) -> None:
            assert current_task() is not None, f"{name} was not called in the task"
            if name in ("begin", "respond"):
                self.head_sent.set()
                args = args[1:]  # without the head
            self.calls.append((name, *args))
            if name == "write":
                self.on_write()

        return call

    def begin_iteration(self) -> None:
        """Note the call, which may be made in the thread."""
        self.calls.append(("begin_iteration",))


class Head:
    """A response head."""

    def __init__(self, content_length: int | None) -> None:
        self.content_length = content_length


class RunnerTests(ThreadsTestCase):
    """ThreadRunner."""

    def setUp(self) -> None:
        """Make a list of the places where requests were served."""
        super().setUp()
        self.places: list[str] = []
        self.view: Callable[[], object] = int
        self.code = 200

    def serve(self, application: Any, environ: Any, sink: Any) -> None:
        """Note the place; call the view."""
        self.places.append("thread" if current_task() is None else "task")
        self.view()

    def runner(self, *patterns: str, automatic: bool = False) -> ThreadRunner:
        """Return a runner."""
        return ThreadRunner(RoutePatterns(patterns), self.serve, automatic)

    def ask(self, runner: ThreadRunner, path: str, count: int = 1) -> list[str]:
        """Serve requests; return their places."""
        self.places.clear()
        environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
        sink: Any = FakeSink()
        sink.code = self.code
        application: Any = None

        def serve() -> None:
            tasks.append(require_task("a request"))
            runner.run(application, environ, sink)

        for _ in range(count):
            tasks: list[Task[object]] = []
            try:
                self.run_in_task(serve)
            finally:
                if tasks[0].measured:
                    runner.ended(tasks[0], "GET", path, sink.code)
        return self.places

    def block(self) -> None:
        """Hold up the reactor."""
        if current_task() is not None:
            self.pass_time(10)

    def test_patterns(self) -> None:
        """A request that matches a pattern is served in a thread, others in tasks."""
        runner = self.runner("/reports/*")
        self.assertEqual(self.ask(runner, "/reports/1"), ["thread"])
        self.assertEqual(self.ask(runner, "/other"), ["task"])

    def test_two_runners(self) -> None:
        """Two servers of one reactor have their own patterns and moved routes."""
        first, second = self.runner(automatic=True), self.runner("/b", automatic=True)
        self.view = self.block
        self.assertEqual(self.ask(second, "/a"), ["task"])
        self.assertEqual(self.ask(first, "/a", 3), ["task"] * 2 + ["thread"])
        self.assertEqual(self.ask(second, "/a"), ["task"])
        self.assertEqual(self.ask(second, "/b"), ["thread"])

    def test_turns_of_two_runners(self) -> None:
        """A turn that ends before the last wait counts, whichever server came last."""
        first, second = self.runner(automatic=True), self.runner(automatic=True)
        self.ask(first, "/a")
        self.ask(second, "/a")

        def view() -> None:
            self.block()
            sleep(0)

        self.view = view
        self.assertEqual(self.ask(first, "/a", 3), ["task"] * 2 + ["thread"])
        self.assertFalse(meter_of(self.hub).precise)

    def test_move_and_return(self) -> None:
        """A route moves after two slow requests, and returns after 50 quick ones."""
        runner = self.runner(automatic=True)
        self.view = self.block
        self.assertEqual(self.ask(runner, "/a/7", 2), ["task"] * 2)
        self.assertEqual(self.ask(runner, "/a/8"), ["thread"])
        self.view = int
        for _ in range(60):
            # A slow machine may need more than 50 requests.
            if "task" in self.ask(runner, "/a/9", 50):
                break
        self.assertIn("task", self.places)

    def test_blocking_wait(self) -> None:
        """A route whose thread waits without the task, in C, does not return."""
        runner = self.runner(automatic=True)
        self.view = self.block
        self.ask(runner, "/a", 4)
        lock = threading.Lock()
        lock.acquire()
        self.view = lambda: lock.acquire(timeout=0.02)
        self.assertEqual(self.ask(runner, "/a", 60), ["thread"] * 60)

    def test_pinned_by_a_wait(self) -> None:
        """A path that waits for a coroutine, or spawns, stays in tasks."""

        async def coroutine() -> None:
            pass

        for name, use in (
            ("wait", lambda: wait(coroutine())),
            ("spawn", lambda: spawn(int)),
        ):

            def view(use: Callable[[], object] = use) -> None:
                self.block()
                use()

            self.view = view
            runner = self.runner(automatic=True)
            self.assertEqual(self.ask(runner, f"/{name}", 8), ["task"] * 8)

    def test_pinned_by_a_reactor_call(self) -> None:
        """A moved path that calls the reactor works, and returns to tasks."""
        runner = self.runner(automatic=True)
        self.view = self.block
        self.ask(runner, "/a", 4)
        self.view = lambda: self.reactor.callLater(0, int)
        self.assertEqual(self.ask(runner, "/a", 3), ["thread", "task", "task"])

    def test_failing_requests(self) -> None:
        """Slow requests that fail move their path, too."""

        def view() -> None:
            self.block()
            raise ValueError

        self.view = view
        self.code = 0
        runner = self.runner(automatic=True)
        for _ in range(5):
            self.assertRaises(ValueError, self.ask, runner, "/a")
        self.assertEqual(self.places, ["thread"])

    def test_failing_in_threads(self) -> None:
        """A path that fails in threads only returns to tasks for good."""

        def view() -> None:
            self.block()
            if current_task() is None:
                raise ValueError

        self.view = view
        runner = self.runner(automatic=True)
        self.assertEqual(self.ask(runner, "/a", 2), ["task"] * 2)
        self.assertRaises(ValueError, self.ask, runner, "/a")
        self.assertEqual(self.ask(runner, "/a", 20), ["task"] * 20)


class SinkInThreadTests(ThreadsTestCase):
    """SinkInThread."""

    def setUp(self) -> None:
        """Make the sink of the task."""
        super().setUp()
        self.sink = FakeSink()

    def send(self, function: Callable[[Any], None]) -> list[tuple[Any, ...]]:
        """Call `function` with a sink in a thread; return the calls in the task."""

        def main() -> None:
            task = current_task()
            assert task is not None
            call: ThreadCall[None] = ThreadCall(task, "route")
            sink: Any = self.sink
            in_thread = SinkInThread(call, sink)
            call.run(self.pool, lambda: function(in_thread))

        self.run_in_task(main)
        return self.sink.calls

    def test_whole(self) -> None:
        """A response of one block."""

        def respond(sink: Any) -> None:
            sink.begin(Head(None), 3, b"one")
            sink.finish()

        self.assertEqual(self.send(respond), [("begin", 3, b"one"), ("finish",)])

    def test_blocks(self) -> None:
        """Each call is made in the task, in order."""

        def respond(sink: Any) -> None:
            sink.begin_iteration()
            sink.begin(Head(6), None, b"one")
            sink.turn()
            sink.write(b"two")
            sink.finish()
            sink.end_iteration()

        self.assertEqual(
            self.send(respond),
            [
                *(("begin_iteration",), ("begin", None, b"one"), ("turn",)),
                *(("write", b"two"), ("finish",), ("end_iteration",)),
            ],
        )

    def test_complete_before_the_end(self) -> None:
        """A complete response is sent while the application still computes."""

        def respond(sink: Any) -> None:
            sink.begin(Head(3), None, b"one")
            assert self.sink.head_sent.wait(SECONDS), "the response is held back"
            sink.finish()

        self.assertEqual(self.send(respond), [("begin", None, b"one"), ("finish",)])

    def test_one_block(self) -> None:
        """A response of one block is one call."""

        def respond(sink: Any) -> None:
            sink.respond(Head(None), b"one")

        self.assertEqual(self.send(respond), [("respond", b"one")])

    def written(self) -> bytes:
        """Return all blocks that the task has written."""
        return b"".join(call[1] for call in self.sink.calls if call[0] == "write")

    def test_ahead(self) -> None:
        """The thread writes further blocks while the task sends; these are joined."""
        written = threading.Event()

        def on_write() -> None:
            assert written.wait(SECONDS), "the thread waits for the task"

        def respond(sink: Any) -> None:
            sink.begin(Head(None), None, b"one")
            self.sink.on_write = on_write
            sink.write(b"two")
            sink.write(b"three")
            sink.write(b"four")
            written.set()
            sink.finish()

        calls = self.send(respond)
        self.assertEqual(calls[0], ("begin", None, b"one"))
        self.assertEqual(calls[-1], ("finish",))
        self.assertEqual(self.written(), b"twothreefour")
        self.assertLess(len(calls), 5)

    def ahead(self, size: int) -> int:
        """Write 4000 blocks; return how many are written while the first is sent."""
        counts: list[int] = []
        written: list[int] = []
        self.sink.calls.clear()

        def on_write() -> None:
            # Until the thread makes no more progress: it is blocked.
            before = -1
            while before < len(written):
                before = len(written)
                threading.Event().wait(0.05)
            counts.append(len(written))
            self.sink.on_write = int

        def respond(sink: Any) -> None:
            sink.begin(Head(None), None, b"")
            self.sink.on_write = on_write
            for _ in range(4000):
                sink.write(bytes(size))
                written.append(size)
            sink.finish()

        self.send(respond)
        self.assertEqual(len(self.written()), 4000 * size)
        return counts[0]

    def test_bound(self) -> None:
        """The thread is at most 256 KiB ahead, with the overhead of the blocks."""
        for size in (50_000, 1):
            self.assertTrue(0 < self.ahead(size) * (size + 64) <= 300_000, size)

    def test_alone(self) -> None:
        """A write that may fail or wait is over when it returns."""

        def respond(sink: Any) -> None:
            sink.begin(Head(7), None, b"one")
            sink.write(b"block")  # longer than the Content-Length
            assert self.sink.calls[-1] == ("write", b"block")
            self.sink.accepts_blocks = False
            sink.write(b"")
            assert self.sink.calls[-1] == ("write", b"")
            self.sink.accepts_blocks = True
            with timeout(10):
                sink.write(b"")
                assert self.sink.calls[-1] == ("write", b"")
            sink.finish()

        self.send(respond)

    def fail_write(self, error: BaseException, sticky: bool) -> Callable[[], None]:
        """Let the next write fail; if `sticky`, all further ones too."""
        failed = threading.Event()

        def on_write() -> None:
            if sticky:
                self.sink.error = error
                self.sink.accepts_blocks = False
            else:
                self.sink.on_write = int
            failed.set()
            raise error

        self.sink.on_write = on_write
        return lambda: self.assertTrue(failed.wait(SECONDS))

    def test_disconnect(self) -> None:
        """A disconnect found while the task sends is raised in the next write."""
        raised: list[str] = []

        def respond(sink: Any) -> None:
            sink.begin(Head(None), None, b"one")
            wait_until_failed = self.fail_write(ClientDisconnected("gone"), sticky=True)
            sink.write(b"two")
            wait_until_failed()
            sleep(0)
            raised.append("not in a wait")
            try:
                sink.write(b"three")
            except ClientDisconnected:
                raised.append("in the next write")

        self.send(respond)
        self.assertEqual(raised, ["not in a wait", "in the next write"])

    def test_interruption(self) -> None:
        """An interruption found while the task sends is raised in the next wait."""
        raised: list[str] = []

        def respond(sink: Any) -> None:
            sink.begin(Head(None), None, b"one")
            wait_until_failed = self.fail_write(Cancelled("cancelled"), sticky=False)
            sink.write(b"two")
            wait_until_failed()
            try:
                sleep(0)
            except Cancelled:
                raised.append("in the wait")

        self.send(respond)
        self.assertEqual(raised, ["in the wait"])

    def test_late_interruption(self) -> None:
        """Without a further wait, an interruption is raised at the end."""

        def respond(sink: Any) -> None:
            sink.begin(Head(None), None, b"one")
            self.fail_write(Cancelled("cancelled"), sticky=False)
            sink.write(b"two")

        with self.assertRaises(Cancelled):
            self.send(respond)

    def test_failure_before_close(self) -> None:
        """A failed end of the response does not prevent later calls in the task."""
        calls: list[str] = []

        def fail() -> None:
            raise ConnectionResetError

        def respond(sink: Any) -> None:
            vars(self.sink)["finish"] = fail
            sink.begin(Head(None), None, b"one")
            sink.finish()
            sleep(0)
            sink.end_iteration()
            in_task(calls.append, "released")

        with self.assertRaises(ConnectionResetError):
            self.send(respond)
        self.assertEqual(calls, ["released"])


class GuardTests(ThreadsTestCase):
    """guard_from_threads."""

    def test_repeat(self) -> None:
        """A second call changes nothing."""
        guard_from_threads(self.reactor)
        method = self.reactor.callLater
        guard_from_threads(self.reactor)
        self.assertIs(self.reactor.callLater, method)

    def test_other_threads(self) -> None:
        """Other threads, and the reactor's, call the reactor directly."""
        guard_from_threads(self.reactor)
        idents: list[int] = []
        with_ident = threading.get_ident

        def call() -> None:
            self.reactor.callLater(0, lambda: idents.append(with_ident()))

        call()
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(SECONDS)
        self.reactor.settle()
        self.assertEqual(idents, [with_ident()] * 2)
