"""Tests of calls in threads: ThreadCall, to_thread, in_thread."""

from __future__ import annotations

import contextlib
import gc
import threading
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING
from weakref import ref

from greenlet import GreenletExit, greenlet
from twisted.internet.defer import Deferred

from tests.matrices import assert_table, matrix
from tests.serving.thread_runner import SECONDS
from txgreenwsgi import (
    Cancelled,
    GreenProxy,
    TimedOut,
    current_task,
    in_greenlet,
    in_thread,
    shield,
    sleep,
    spawn,
    suspend,
    timeout,
    to_thread,
    wait,
)
from txgreenwsgi._switching.greenlets import require_task
from txgreenwsgi._switching.thread_calls import in_task_of_thread, tasks_of_threads
from txgreenwsgi._threads.calls import CALL, ThreadCall

from .cases import ThreadsTestCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Suspension

variable: ContextVar[str] = ContextVar("variable", default="unset")


class FalseError(Exception):
    """An exception that is false."""

    def __len__(self) -> int:
        return 0


class StateTests(ThreadsTestCase):
    """`ThreadCall.state` follows `CALL`."""

    def test_table(self) -> None:
        """Each pair of state and event."""
        assert_table(
            self,
            CALL,
            matrix(
                """
                          | begin   | drop    | abandon   | end
                queued    | running | dropped | dropped   | -
                running   | -       | -       | abandoned | ended
                dropped   | -       | -       | dropped   | ended
                abandoned | -       | -       | -         | ended
                ended     | -       | -       | ended     | -
                """
            ),
        )

    def test_states(self) -> None:
        """A call is queued, runs and ends."""
        states: list[str] = []

        def main() -> None:
            call: ThreadCall[None] = ThreadCall(require_task("a test"), "route")
            states.append(call.state)
            call.run(self.pool, lambda: states.append(call.state))
            states.append(call.state)

        self.run_in_task(main)
        self.assertEqual(states, ["queued", "running", "ended"])


class ResultTests(ThreadsTestCase):
    """Results, errors and contexts."""

    def test_result(self) -> None:
        """The function is called with its arguments, in another thread."""

        def function(one: int, two: int) -> tuple[int, int]:
            self.assertIsNone(current_task())
            return get_ident(), one + two

        ident, total = self.run_in_task(lambda: to_thread(function, 1, two=2))
        self.assertNotEqual(ident, get_ident())
        self.assertEqual(total, 3)
        self.assertEqual((self.pool.calls, tasks_of_threads), (set(), {}))

    def test_decorator(self) -> None:
        """`in_thread` keeps the name, the arguments and the result."""

        @in_thread
        def view(text: str) -> tuple[str, int]:
            """Return the text."""
            return text, get_ident()

        text, ident = self.run_in_task(lambda: view(text="a"))
        self.assertEqual((text, view.__name__), ("a", "view"))
        self.assertNotEqual(ident, get_ident())

    def test_outside_a_task(self) -> None:
        """Outside a task, and in a request's thread, the function is called there."""
        self.assertEqual(to_thread(get_ident), get_ident())
        here, there = self.run_in_task(
            lambda: to_thread(lambda: (get_ident(), to_thread(get_ident)))
        )
        self.assertEqual(here, there)

    def test_error(self) -> None:
        """An exception of the function is raised in the task; also a false one."""
        for kind in (ValueError, SystemExit, GreenletExit, FalseError, StopIteration):

            def fail(kind: type[BaseException] = kind) -> None:
                raise kind("reason")

            def caught(kind: type[BaseException] = kind) -> str:
                try:
                    to_thread(fail)
                except kind as error:
                    return str(error)
                return "nothing"

            self.assertEqual(self.run_in_task(caught), "reason", kind)

    def test_error_of_a_call_in_the_task(self) -> None:
        """An exception of a wait is raised in the thread; also a false one."""

        async def fail() -> None:
            raise FalseError

        def function() -> str:
            try:
                wait(fail())
            except FalseError:
                return "raised"
            return "nothing"

        self.assertEqual(self.run_in_task(lambda: to_thread(function)), "raised")

    def test_context(self) -> None:
        """The thread, the task and coroutines in it have one Context."""

        async def set_in_coroutine() -> None:
            variable.set("coroutine")

        def function() -> list[str]:
            seen = [variable.get()]
            variable.set("thread")
            wait(set_in_coroutine())
            return [*seen, variable.get()]

        def main() -> list[str]:
            variable.set("task")
            return [*to_thread(function), variable.get()]

        self.assertEqual(self.run_in_task(main), ["task", "coroutine", "coroutine"])
        self.assertEqual(variable.get(), "unset")

    def test_entered_context(self) -> None:
        """A call inside `Context.run` uses that Context."""

        def main() -> tuple[str, str]:
            inner = copy_context()
            inner.run(variable.set, "inner")
            return inner.run(to_thread, variable.get), variable.get()

        self.assertEqual(self.run_in_task(main), ("inner", "unset"))

    def test_child_greenlet(self) -> None:
        """A call may be made in a child greenlet of the task."""

        def main() -> int:
            ident: int = greenlet(lambda: to_thread(get_ident)).switch()
            return ident

        self.assertNotEqual(self.run_in_task(main), get_ident())

    def test_context_of_the_next_call(self) -> None:
        """A thread does not keep the Context of its last call."""
        self.run_in_task(lambda: to_thread(variable.set, "kept"))
        self.assertEqual(
            self.run_in_task(lambda: to_thread(variable.get)),
            "unset",
        )

    def test_nothing_is_kept(self) -> None:
        """Arguments, result and errors are freed without the garbage collector."""

        class Freed(Exception):
            pass

        references: list[ref[Freed]] = []

        def function(given: Freed) -> Freed:
            result = Freed()
            references.extend((ref(given), ref(result)))
            return result

        def failing() -> None:
            error = Freed()
            references.append(ref(error))
            try:
                raise error
            finally:
                del error

        def main() -> None:
            to_thread(function, Freed())
            with contextlib.suppress(Freed):
                to_thread(failing)

        gc.disable()
        self.addCleanup(gc.enable)
        self.run_in_task(main)
        # The thread has dropped its call when it begins the next one.
        self.run_in_task(lambda: to_thread(get_ident))
        self.assertEqual([reference() for reference in references], [None] * 3)


class WaitTests(ThreadsTestCase):
    """Waits in threads."""

    def test_waits(self) -> None:
        """Each function that waits is called in the task."""
        fired: Deferred[str] = Deferred()
        suspensions: SimpleQueue[Suspension] = SimpleQueue()

        async def coroutine() -> str:
            return "coroutine"

        def resumer() -> None:
            suspensions.get().resume("resumed")

        def function() -> list[object]:
            sleep(0)
            waiter = suspend()
            suspensions.put(waiter)
            spawn(resumer)
            return [
                waiter.wait(),
                wait(fired),
                wait(coroutine()),
                spawn(str.upper, "task").wait(),
                wait(spawn(str.upper, "waited")),
                wait(in_greenlet(str.upper)("deferred")),
                wait(spawn(str.upper, "chained").deferred()),
                GreenProxy(in_greenlet(str.upper))("proxy"),
            ]

        self.reactor.callLater(0, fired.callback, "fired")
        self.assertEqual(
            self.run_in_task(lambda: to_thread(function)),
            [
                *("resumed", "fired", "coroutine", "TASK", "WAITED", "DEFERRED"),
                *("CHAINED", "PROXY"),
            ],
        )

    def test_resume_from_a_thread(self) -> None:
        """A thread may resume a task, and a task another thread."""
        waiters: SimpleQueue[Suspension] = SimpleQueue()

        def resume() -> bool:
            return waiters.get(timeout=SECONDS).resume("answer")

        def wait_for_it() -> object:
            waiter = suspend()
            waiters.put(waiter)
            return waiter.wait()

        for waits_in_thread in (True, False):
            task = self.begin(
                (lambda: to_thread(wait_for_it)) if waits_in_thread else wait_for_it
            )
            other = self.begin(lambda: to_thread(resume))
            self.finish(task, other)
            self.assertEqual(self.run_in_task(task.wait), "answer")

    def test_reactor_calls(self) -> None:
        """A view may make its Deferreds itself: the reactor runs at its next wait."""
        idents: list[int] = []

        def function() -> str:
            deferred: Deferred[str] = Deferred()

            def fire() -> None:
                idents.append(get_ident())
                deferred.callback("fired")

            self.reactor.callLater(0, fire)
            self.reactor.callLater(0, lambda: None)
            self.assertEqual(idents, [])
            return wait(deferred)

        self.assertEqual(self.run_in_task(lambda: to_thread(function)), "fired")
        self.assertEqual(idents, [get_ident()])

    def test_reactor_call_without_a_wait(self) -> None:
        """A thread that calls the reactor, and then ends, lets the reactor run."""
        calls: list[str] = []

        def function() -> None:
            self.reactor.callLater(0, calls.append, "made")

        self.run_in_task(lambda: to_thread(function))
        self.reactor.settle()
        self.assertEqual(calls, ["made"])

    def test_reactor_call_before_a_deadlock(self) -> None:
        """A thread that has called the reactor may wait for another thread."""
        ready = threading.Event()
        go = threading.Event()

        def first() -> bool:
            ready.wait(SECONDS)
            self.reactor.callLater(0, lambda: None)
            return go.wait(SECONDS)

        def second() -> None:
            ready.set()
            sleep(0)
            sleep(0)
            go.set()

        waiting = self.begin(lambda: to_thread(first))
        self.finish(waiting, self.begin(lambda: to_thread(second)))
        self.assertTrue(self.run_in_task(waiting.wait))

    def test_nested_call(self) -> None:
        """A finalizer may wait while its thread waits."""

        def function() -> list[object]:
            results: list[object] = []

            class Late:
                def __del__(self) -> None:
                    results.append(spawn(str.upper, "inner").wait())

            def drop() -> str:
                return "outer"

            late: list[Late] = [Late()]
            late.clear()
            results.append(spawn(drop).wait())
            return results

        self.assertEqual(
            self.run_in_task(lambda: to_thread(function)), ["INNER", "outer"]
        )

    def test_call_of_an_ended_function(self) -> None:
        """A kept call works in the thread's next function, by the task of that one."""
        self.pool.size = 1
        kept: list[ThreadCall[None]] = []
        made: list[str] = []

        def note(name: str) -> int:
            task = current_task()
            assert task is not None
            made.append(f"{name} in {task.name}")
            return get_ident()

        def run(function: Callable[[], None], name: str) -> int:
            def main() -> int:
                task = current_task()
                assert task is not None
                task.name = name
                kept.append(ThreadCall(task, "route"))
                idents: list[int] = []

                def in_thread() -> None:
                    function()
                    idents.append(get_ident())

                kept[-1].run(self.pool, in_thread)
                return idents[0]

            return self.run_in_task(main)

        def use_first() -> None:
            self.assertNotEqual(kept[0](note, "call"), get_ident())
            kept[0].post(note, "post")
            kept[0].post_later(note, "post_later")

        first = run(lambda: None, "first")
        self.assertEqual(run(use_first, "second"), first)
        self.assertEqual(
            made, [f"{name} in second" for name in ("call", "post", "post_later")]
        )

    def test_other_callers(self) -> None:
        """Other threads, and tasks, do not use a thread's task."""

        def function() -> list[object]:
            found: list[object] = []
            thread = threading.Thread(
                target=lambda: found.append(in_task_of_thread()),
            )
            thread.start()
            thread.join(SECONDS)
            return found

        self.assertEqual(self.run_in_task(lambda: to_thread(function)), [None])


class InterruptionTests(ThreadsTestCase):
    """Timeouts, cancellations and kills."""

    def setUp(self) -> None:
        """Make the events by which a test and a thread take turns."""
        super().setUp()
        self.begun = threading.Event()
        self.go = threading.Event()
        self.log: list[str] = []

    def compute(self) -> None:
        """Wait for the test, without a wait of the task."""
        self.begun.set()
        self.reactor.callFromThread(lambda: None)  # for `run_until`
        assert self.go.wait(SECONDS), "the test does not continue"

    def test_cancellation(self) -> None:
        """A cancellation is raised at the next wait of the thread, once."""

        def function() -> str:
            self.compute()
            self.log.append("computed")
            try:
                sleep(0)
            except Cancelled:
                self.log.append("cancelled")
            sleep(0)
            return "result"

        task = self.begin(lambda: to_thread(function))
        self.reactor.settle()
        self.assertTrue(self.begun.wait(SECONDS))
        task.cancel()
        self.reactor.settle()
        self.assertFalse(task.done)
        self.go.set()
        self.finish(task)
        self.assertEqual(self.log, ["computed", "cancelled"])
        self.assertEqual(self.run_in_task(task.wait), "result")

    def test_cancellation_in_a_wait(self) -> None:
        """A cancellation ends the wait in which the thread is."""

        def function() -> str:
            try:
                sleep(10)
            except Cancelled:
                return "cancelled"
            return "slept"

        task = self.begin(lambda: to_thread(function))
        self.reactor.run_until(lambda: "sleep" in repr(task.waiting_on))
        task.cancel()
        self.finish(task)
        self.assertEqual(self.run_in_task(task.wait), "cancelled")

    def test_dropped_call(self) -> None:
        """A call that no thread has begun is dropped."""
        self.pool.size = 1
        first = self.begin(lambda: to_thread(self.compute))
        self.reactor.settle()
        self.assertTrue(self.begun.wait(SECONDS))
        second = self.begin(lambda: to_thread(self.log.append, "called"))
        self.reactor.settle()
        second.cancel()
        self.reactor.settle()
        self.assertTrue(second.done)
        self.go.set()
        self.finish(first)
        self.run_in_task(lambda: to_thread(get_ident))
        self.assertEqual(self.log, [])
        self.assertEqual(self.pool.calls, set())

    def test_timeout_in_the_thread(self) -> None:
        """A `timeout` block in a thread ends its waits, not its computation."""

        def function() -> str:
            try:
                with timeout(1) as limit:
                    self.compute()
                    sleep(0)
            except TimedOut:
                return f"timed out, {limit.expired}"
            return "in time"

        task = self.begin(lambda: to_thread(function))
        self.reactor.run_until(self.begun.is_set)
        self.reactor.advance(2)
        self.go.set()
        self.finish(task)
        self.assertEqual(self.run_in_task(task.wait), "timed out, True")

    def test_timeout_without_a_wait(self) -> None:
        """A block that has not waited is not interrupted, nor what follows."""

        def function() -> str:
            with timeout(1):
                self.compute()
            sleep(0)
            return "complete"

        task = self.begin(lambda: to_thread(function))
        self.reactor.run_until(self.begun.is_set)
        self.reactor.advance(2)
        self.go.set()
        self.finish(task)
        self.assertEqual(self.run_in_task(task.wait), "complete")

    def test_shield(self) -> None:
        """A `shield` block in a thread defers a cancellation."""

        def function() -> None:
            with shield():
                self.compute()
                sleep(0)
                self.log.append("shielded")
            sleep(0)

        task = self.begin(lambda: to_thread(function))
        self.reactor.run_until(self.begun.is_set)
        task.cancel()
        self.go.set()
        self.finish(task)
        self.assertEqual(self.log, ["shielded"])
        self.assertRaises(Cancelled, self.run_in_task, task.wait)

    def test_kill(self) -> None:
        """When the reactor stops, the waits of a thread raise GreenletExit."""
        ended = threading.Event()

        def function() -> None:
            self.compute()
            try:
                sleep(0)
            except GreenletExit as error:
                self.log.append(str(error))
                try:
                    wait(Deferred())
                except GreenletExit:
                    self.log.append("again")
            ended.set()

        task = self.begin(lambda: to_thread(function))
        self.reactor.settle()
        self.assertTrue(self.begun.wait(SECONDS))
        task.kill()
        self.assertTrue(task.done)
        self.go.set()
        self.assertTrue(ended.wait(SECONDS))
        self.assertIn("no task any more", self.log[0])
        self.assertEqual(self.log[1:], ["again"])

    def test_kill_during_a_wait(self) -> None:
        """A thread that waits when its task is killed is woken by GreenletExit."""
        ended = threading.Event()

        def function() -> None:
            try:
                sleep(10)
            except GreenletExit:
                self.log.append("killed")
            finally:
                ended.set()

        task = self.begin(lambda: to_thread(function))
        self.reactor.run_until(lambda: "sleep" in repr(task.waiting_on))
        task.kill()
        self.assertTrue(ended.wait(SECONDS))
        self.assertEqual(self.log, ["killed"])

    def test_line_of_the_thread(self) -> None:
        """A task shows the line that its thread runs."""
        task = self.begin(lambda: to_thread(self.compute))
        self.reactor.settle()
        self.assertTrue(self.begun.wait(SECONDS))
        self.assertRegex(repr(task.waiting_on), r"its thread, at \S+:\d+ in \w+")
        self.go.set()
        self.finish(task)


class PostedCallTests(ThreadsTestCase):
    """Calls that the thread does not wait for."""

    def test_order(self) -> None:
        """Posted calls are made in order, before the next call and the end."""
        calls: list[int] = []

        def main() -> list[int]:
            task = current_task()
            assert task is not None
            call: ThreadCall[None] = ThreadCall(task, "route")

            def function() -> None:
                call.post_later(calls.append, 1)
                call.post(calls.append, 2)
                call(calls.append, 3)
                call.post(calls.append, 4)
                call.post_later(calls.append, 5)

            call.run(self.pool, function)
            return list(calls)

        self.assertEqual(self.run_in_task(main), [1, 2, 3, 4, 5])

    def test_later_call(self) -> None:
        """The watcher sends a call that is posted for later."""
        sent = threading.Event()

        def main() -> bool:
            task = current_task()
            assert task is not None
            call: ThreadCall[bool] = ThreadCall(task, "route")

            def function() -> bool:
                call.post_later(sent.set)
                return sent.wait(SECONDS)

            return call.run(self.pool, function)

        self.assertTrue(self.run_in_task(main))

    def test_failure(self) -> None:
        """The failure of a posted call is raised at the next call, or at the end."""
        for calls_again in (True, False):

            def main(calls_again: bool = calls_again) -> None:
                task = current_task()
                assert task is not None
                call: ThreadCall[None] = ThreadCall(task, "route")

                def fail() -> None:
                    raise FalseError

                def function() -> None:
                    call.post(fail)
                    if calls_again:
                        call(str)
                        call(str)

                call.run(self.pool, function)

            self.assertRaises(FalseError, self.run_in_task, main)
