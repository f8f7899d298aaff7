"""Tests of the runner: the choice of the place, and the response from a thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from tests.serving.thread_runner import SECONDS
from txgreenwsgi import current_task, sleep, spawn, wait
from txgreenwsgi._switching.greenlets import require_task
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

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: object) -> None:
            assert current_task() is not None, f"{name} was not called in the task"
            if name == "begin":
                self.head_sent.set()
                args = args[1:]  # without the head
            self.calls.append((name, *args))

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

    def send(self, function: Callable[[Any], None]) -> list[tuple[Any, ...]]:
        """Call `function` with a sink in a thread; return the calls in the task."""
        self.sink = FakeSink()

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
