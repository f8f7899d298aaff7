"""Tasks: what their owner may ask, how they are cancelled, what they leave behind."""

from __future__ import annotations

import contextlib
import gc
import traceback
import weakref
from contextvars import ContextVar
from typing import Any

from greenlet import greenlet
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txgreenwsgi import (
    Cancelled,
    Suspension,
    Task,
    TimedOut,
    current_task,
    shield,
    sleep,
    suspend,
    wait,
)

from .clocked import ClockTestCase, after
from .threaded import ThreadClock, in_thread


class Held:
    """Something that a frame holds, and whose end can be seen."""


def failing_deep_down() -> None:
    """A name to look for in a traceback."""
    raise ValueError("deep")


def fail_after(seconds: float) -> None:
    """Sleep, then fail."""
    sleep(seconds)
    failing_deep_down()


class WaitTests(ClockTestCase):
    """`Task.wait()`."""

    def test_result(self) -> None:
        """It returns what the task returned, before and after its end, every time."""
        task = self.start(after, 1, "it")
        waiters = [self.start(task.wait) for _ in range(3)]
        self.clock.advance(1)
        waiters.append(self.start(task.wait))
        self.assertEqual([self.result_of(w) for w in waiters], ["it"] * 4)

    def test_error(self) -> None:
        """It raises what the task raised, every time."""
        task = self.start(fail_after, 1)
        waiters = [self.start(task.wait) for _ in range(2)]
        self.clock.advance(1)
        waiters.append(self.start(task.wait))
        for waiter in waiters:
            self.error_of(waiter, ValueError)

    def test_traceback(self) -> None:
        """Its traceback leads to the line in the task that failed, and no further."""
        task = self.start(failing_deep_down)

        def waiter() -> str:
            for _ in range(2):
                self.assertRaises(ValueError, task.wait)
            try:
                task.wait()
            except ValueError:
                return traceback.format_exc()
            raise AssertionError("no error")

        text = self.result_of(self.start(waiter))
        self.assertEqual(text.count("in failing_deep_down"), 1)
        # Waited for three times, it has not grown by three.
        self.assertEqual(text.count("in wait\n"), 1)

    def test_timeout(self) -> None:
        """A wait that is too long ends by TimedOut, and the task goes on."""
        task = self.start(after, 5, "late")
        waiter = self.start(task.wait, 2)
        self.clock.advance(2)
        self.error_of(waiter, TimedOut)
        self.clock.advance(3)
        self.assertEqual(self.result_of(task), "late")

    def test_many_that_gave_up(self) -> None:
        """A task that is waited for in vain, again and again, remembers none of it."""
        task = self.start(sleep, 1000)

        def waiter() -> None:
            for _ in range(50):
                self.assertRaises(TimedOut, task.wait, 1)

        self.start(waiter)
        for _ in range(50):
            self.clock.advance(1)
        self.assertEqual(task._on_end, [])

    def test_given_up_inside_the_end(self) -> None:
        """One that ends just as its waiter gives up does nothing twice."""
        task = self.start(sleep, 1)
        waiter = self.start(task.wait, 1)
        self.clock.advance(1)
        self.assertEqual(task.state, "finished")
        self.assertTrue(waiter.done)
        self.assert_nothing_left()

    def test_bad_timeout(self) -> None:
        """A negative timeout is told by name."""
        task = self.start(sleep, 1)
        waiter = self.start(task.wait, -1)
        self.assertIn("-1", str(self.error_of(waiter, ValueError)))

    def test_its_own_end(self) -> None:
        """A task that waits for itself is told so, instead of hanging."""

        def narcissus() -> None:
            task = current_task()
            assert task is not None
            task.wait()

        self.error_of(self.start(narcissus), RuntimeError)

    def test_pending_interruption(self) -> None:
        """Waiting for a task that has ended is a wait: a cancelled task is told."""
        ended = self.start(str)

        def work() -> None:
            task = current_task()
            assert task is not None
            task.cancel()
            ended.wait()

        self.error_of(self.start(work), Cancelled)


class StateTests(ClockTestCase):
    """What tables of tasks are made of."""

    def test_life(self) -> None:
        """A task tells whether it is new, running, parked, ready or over, and why."""
        handles: list[Suspension] = []
        states = []

        def work() -> None:
            states.append(self.task.state)
            handles.append(suspend())
            handles[0].wait()

        self.task = self.spawn(work)
        states.append(self.task.state)
        self.turn()
        states.append(self.task.state)
        self.start(handles[0].resume)
        states.append(self.task.state)
        self.turn()
        states.append(self.task.state)
        self.assertEqual(states, ["new", "running", "parked", "ready", "finished"])
        self.assertEqual(self.start(failing_deep_down).state, "failed")
        self.flush_one(ValueError)

    def flush_one(self, kind: type[Exception]) -> None:
        """Exactly one error of that kind was logged."""
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_waiting_on(self) -> None:
        """A parked task tells what it waits on and for how long."""
        deferred: Deferred[None] = Deferred()
        task = self.start(wait, deferred)
        self.clock.advance(3)
        self.assertIs(task.waiting_on, deferred)
        self.assertEqual(task.parked_seconds, 3)
        deferred.callback(None)
        self.assertIsNone(task.waiting_on)
        self.assertEqual(task.parked_seconds, 0)

    def test_waiting_on_in_words(self) -> None:
        """What is no object is told in words."""
        other = self.start(sleep, 1.5)
        tasks = [
            other,
            self.start(other.wait),
            self.start(lambda: suspend().wait()),
        ]
        self.assertEqual(
            [task.waiting_on for task in tasks], ["sleep(1.5)", other, "suspend()"]
        )

    def test_repr(self) -> None:
        """A task prints as its name and state."""
        self.assertEqual(repr(self.start(sleep, 1)), "<Task sleep parked>")
        nameless: Task[None] = Task(self.hub, lambda: None)
        self.assertIn("<lambda>", repr(nameless))
        self.hub.start(nameless)
        self.assertIn("finished", repr(nameless))


class CancelTests(ClockTestCase):
    """`Task.cancel()`."""

    def test_parked(self) -> None:
        """Cancelled is raised at the wait the task is in, and it may clean up."""
        events: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                sleep(1)  # a cancelled task may wait: only an exiting process may not
                events.append("cleaned up")

        task = self.start(work)
        self.assertTrue(task.cancel())
        self.clock.advance(1)
        self.error_of(task, Cancelled)
        self.assertEqual(events, ["cleaned up"])
        self.assert_nothing_left()

    def test_an_ordinary_exception(self) -> None:
        """What drivers clean up after with `except Exception` is what they get."""
        events: list[str] = []

        def driver() -> None:
            try:
                sleep(60)
            except Exception:
                events.append("rolled back")
                raise

        self.start(driver).cancel()
        self.assertEqual(events, ["rolled back"])

    def test_before_it_begins(self) -> None:
        """A task cancelled before its first turn never runs."""
        events: list[str] = []
        task = self.spawn(events.append, "ran")
        told: list[str] = []
        task.call_at_end(lambda: told.append("ended"))
        self.assertTrue(task.cancel())
        self.assertEqual((task.done, told), (True, []))
        self.turn()
        self.error_of(task, Cancelled)
        self.assertEqual((events, told), ([], ["ended"]))
        self.assert_nothing_left()

    def test_after_the_end(self) -> None:
        """It says so when there was nothing to cancel."""
        self.assertFalse(self.start(str).cancel())

    def test_while_it_runs(self) -> None:
        """A task that runs is told at its next wait, even if that need not park."""

        def work(next_wait: Any) -> None:
            task = current_task()
            assert task is not None
            task.cancel()
            next_wait()

        fired: Deferred[None] = Deferred()
        fired.callback(None)
        ended = self.start(str)
        for next_wait in (
            lambda: sleep(0),
            lambda: sleep(1),
            lambda: wait(fired),
            lambda: wait(ended),
            lambda: suspend().wait(),
        ):
            self.error_of(self.start(work, next_wait), Cancelled)
        # What had fired is still there for the next.
        self.assertIsNone(self.successResultOf(fired))

    def test_twice(self) -> None:
        """Asking twice before it could be raised does not raise it twice."""
        raised: list[Cancelled] = []

        def work() -> str:
            with shield():
                sleep(1)
            try:
                sleep(1)
            except Cancelled as error:
                raised.append(error)
            sleep(1)
            return "cleaned up"

        task = self.start(work)
        self.assertTrue(task.cancel())
        self.assertTrue(task.cancel())
        self.clock.advance(1)
        self.assertEqual(len(raised), 1)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "cleaned up")

    def test_again_while_it_cleans_up(self) -> None:
        """A task that takes too long to clean up can be cancelled again."""

        def work() -> None:
            try:
                sleep(60)
            finally:
                sleep(60)

        task = self.start(work)
        task.cancel()
        self.assertEqual(task.state, "parked")
        task.cancel()
        self.error_of(task, Cancelled)

    def test_swallowed(self) -> None:
        """A task may decide to go on."""

        def work() -> str:
            try:
                sleep(60)
            except Cancelled:
                sleep(1)
            return "went on"

        task = self.start(work)
        task.cancel()
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "went on")

    def test_by_another_task(self) -> None:
        """The canceller goes on first; the cancelled one has the next turn."""
        task = self.start(sleep, 60)
        canceller = self.start(task.cancel)
        self.assertTrue(self.result_of(canceller))
        self.assertEqual(task.state, "ready")
        self.turn()
        self.error_of(task, Cancelled)

    def test_after_the_answer(self) -> None:
        """An answer that came first is not lost to a cancellation after it."""
        deferred: Deferred[str] = Deferred()
        got: list[str] = []

        def work() -> None:
            got.append(wait(deferred))
            sleep(1)

        task = self.start(work)

        def both() -> None:
            deferred.callback("answer")
            task.cancel()

        self.start(both)
        self.turn()
        self.assertEqual(got, ["answer"])
        self.error_of(task, Cancelled)

    def test_what_was_waited_on(self) -> None:
        """The Deferred that the task waited on is cancelled with it."""
        cancelled: list[Any] = []
        deferred: Deferred[None] = Deferred(cancelled.append)
        self.start(wait, deferred).cancel()
        self.assertEqual(cancelled, [deferred])

    def test_inside_a_child_greenlet(self) -> None:
        """A task that waits in a library's greenlet is cancelled there."""
        events: list[str] = []

        def in_child() -> None:
            try:
                sleep(60)
            except Cancelled:
                events.append("in the child")
                raise

        task = self.start(lambda: greenlet(in_child).switch())
        task.cancel()
        self.error_of(task, Cancelled)
        self.assertEqual(events, ["in the child"])


class ThreadTests(ClockTestCase):
    """Cancelling from a thread."""

    def make_clock(self) -> ThreadClock:
        """One that takes calls from threads."""
        return ThreadClock()

    def test_cancel(self) -> None:
        """A thread may cancel a task; it happens in the reactor's thread."""
        task = self.start(sleep, 60)
        self.assertTrue(in_thread(task.cancel))
        self.assertEqual(task.state, "parked")
        self.turn()
        self.error_of(task, Cancelled)
        self.assertFalse(in_thread(task.cancel))


class DeferredTests(ClockTestCase):
    """`Task.deferred()`, for Twisted code."""

    def test_result(self) -> None:
        """It fires with the result, asked for before the end or after it."""
        task = self.start(after, 1, "it")
        before = task.deferred()
        self.assertNoResult(before)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(before), "it")
        self.assertEqual(self.successResultOf(task.deferred()), "it")

    def test_deferred_result(self) -> None:
        """A task may return a Deferred, as Twisted's own functions do."""
        result: Deferred[str] = Deferred()
        task = self.start(lambda: result)
        deferred = task.deferred()
        self.assertNoResult(deferred)
        result.callback("it")
        self.assertEqual(self.successResultOf(deferred), "it")

    def test_failure(self) -> None:
        """It fails with what the task raised, the traceback with it."""
        task = self.start(fail_after, 1)
        before = task.deferred()
        self.clock.advance(1)
        for deferred in (before, task.deferred()):
            failure = self.failureResultOf(deferred, ValueError)
            self.assertIn("failing_deep_down", failure.getTraceback())

    def test_cancel(self) -> None:
        """Cancelling it cancels the task."""
        events: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            except Cancelled:
                events.append("cancelled")
                raise

        deferred = self.start(work).deferred()
        deferred.cancel()
        self.failureResultOf(deferred)
        self.assertEqual(events, ["cancelled"])
        self.assert_nothing_left()

    def test_failure_after_the_cancellation(self) -> None:
        """A cancelled task that fails otherwise while it cleans up is logged."""

        def work() -> None:
            try:
                sleep(60)
            finally:
                sleep(1)
                failing_deep_down()

        task = self.start(work)
        deferred = task.deferred()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.clock.advance(1)
        self.assertTrue(task.done)
        del task, deferred
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class UnobservedTests(ClockTestCase):
    """Failures that nobody asks for."""

    def test_logged(self) -> None:
        """A task that fails unnoticed is logged as soon as nobody can ask any more."""
        task = self.start(failing_deep_down)
        self.assertEqual(self.flushLoggedErrors(), [])
        del task
        [failure] = self.flushLoggedErrors(ValueError)
        self.assertIn("failing_deep_down", failure.getTraceback())

    def test_logged_after_waits(self) -> None:
        """Nor does the collector have to run when it failed in the middle of waits."""
        deferred: Deferred[None] = Deferred()

        def work() -> None:
            sleep(1)
            wait(deferred)

        self.start(work)
        self.clock.advance(1)
        deferred.errback(ValueError())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_asked_for(self) -> None:
        """A failure that somebody got, by `wait()` or a Deferred, is not logged."""
        waited_for = self.start(failing_deep_down)
        self.start(self.assertRaises, ValueError, waited_for.wait)
        self.failureResultOf(self.start(failing_deep_down).deferred(), ValueError)
        del waited_for
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_gave_up_waiting(self) -> None:
        """One who gave up waiting before the failure has not got it."""

        def work() -> None:
            sleep(2)
            failing_deep_down()

        task = self.start(work)
        self.start(self.assertRaises, TimedOut, task.wait, 1)
        self.clock.advance(1)
        self.clock.advance(1)
        del task
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_cancelled(self) -> None:
        """A task that ends by its cancellation did as it was told: no log."""
        self.start(sleep, 1).cancel()
        self.spawn(sleep, 1).cancel()
        self.turn()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_one_who_is_told_fails(self) -> None:
        """When something told of a task's end fails, the others are told too."""
        told: list[str] = []
        task = self.start(sleep, 1)
        task.call_at_end(failing_deep_down)
        task.call_at_end(lambda: told.append("the other"))
        self.clock.advance(1)
        self.assertEqual(told, ["the other"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class MemoryTests(ClockTestCase):
    """What a task that has ended keeps alive: its result, and nothing else."""

    def setUp(self) -> None:
        """Without the collector: what is not in a circle goes at once."""
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.held: weakref.ref[Held] | None = None

    def hold(self, last: Any) -> None:
        """A function with something in its frame."""
        held = Held()
        self.held = weakref.ref(held)
        last()
        del last

    def assert_gone(self) -> None:
        """What the frame held is gone, without the collector."""
        assert self.held is not None
        self.assertIsNone(self.held())

    def test_finished(self) -> None:
        """A task that is kept for its result does not keep its frame."""
        task = self.start(self.hold, lambda: sleep(1))
        self.clock.advance(1)
        self.assertTrue(task.done)
        self.assert_gone()

    def test_arguments_and_context(self) -> None:
        """Nor its function, its arguments, and the context variables it had."""
        variable: ContextVar[Held] = ContextVar("variable")
        argument, value = Held(), Held()
        gone = [weakref.ref(argument), weakref.ref(value)]

        def work(argument: Held, value: Held) -> None:
            variable.set(value)
            sleep(1)

        task = self.start(work, argument, value)
        del argument, value
        self.clock.advance(1)
        self.assertTrue(task.done)
        self.assertEqual([reference() for reference in gone], [None, None])

    def test_result_of_a_dropped_task(self) -> None:
        """The result goes with the task, even the first one of a greenlet."""
        task = self.start(Held)
        gone = weakref.ref(self.result_of(task))
        del task
        self.assertIsNone(gone())

    def test_failed(self) -> None:
        """A failed task lets go of its frames when it is dropped."""
        fired: Deferred[None] = Deferred()
        fired.callback(None)
        never: Deferred[None] = Deferred()

        def fails_with_a_failure() -> None:
            failing: Deferred[None] = Deferred()
            failing.errback(ValueError())
            wait(failing)

        def fails_in_a_coroutine() -> None:
            async def coroutine() -> None:
                await fired
                raise ValueError

            wait(coroutine())

        for last in (
            failing_deep_down,
            fails_with_a_failure,
            fails_in_a_coroutine,
            lambda: wait(never, timeout=1),
            lambda: suspend(timeout=1).wait(),
            lambda: wait(None),  # type: ignore[call-overload]
            lambda: sleep(-1),
        ):
            task = self.start(self.hold, last)
            self.clock.advance(1)
            self.assertEqual(task.state, "failed")
            del task
            self.assertEqual(len(self.flushLoggedErrors()), 1)
            self.assert_gone()

    def test_cancelled(self) -> None:
        """So does a cancelled one, and one that a timeout ended."""
        task = self.start(self.hold, lambda: sleep(60))
        task.cancel()
        self.assertEqual(task.state, "failed")
        del task
        self.assert_gone()

    def test_killed(self) -> None:
        """A task that the end of the process ended keeps nothing even before."""
        task = self.start(self.hold, lambda: sleep(60))
        self.hub.close()
        self.assertTrue(task.done)
        self.assert_gone()

    def test_waited_for(self) -> None:
        """Waiting for a failed task does not tie the two together."""
        failed = self.start(self.hold, failing_deep_down)

        def waiter(task: Task[None]) -> None:
            try:
                task.wait()
            except ValueError:
                del task

        self.start(waiter, failed)
        del failed
        self.assert_gone()

    def test_caught(self) -> None:
        """An exception that the task catches goes at once, with what it held."""

        def work() -> None:
            failing: Deferred[None] = Deferred()
            for call in (
                lambda: wait(failing),
                lambda: wait(Deferred[None](), timeout=1),
                lambda: self.hold(lambda: wait(Deferred[None](), timeout=1)),
            ):
                with contextlib.suppress(ValueError, TimedOut):
                    self.hold(call)
                sleep(0)  # until the turn ends, whoever raised it has it in hand
                self.assert_gone()

        task = self.start(work)
        failing_task = task.waiting_on
        assert isinstance(failing_task, Deferred)
        failing_task.errback(Failure(ValueError()))
        del failing_task
        for _ in range(3):
            self.clock.advance(0)
            self.clock.advance(1)
        self.result_of(task)

    def test_frames_of_others(self) -> None:
        """Frames of the application keep their variables: debuggers look at them."""

        def application() -> None:
            secret = "still here"  # noqa: F841
            sleep(-1)

        task = self.start(application)
        error = self.error_of(task, ValueError)
        frame = error.__traceback__
        assert frame is not None
        self.assertEqual(frame.tb_frame.f_locals["secret"], "still here")

    def test_error_from_a_task_that_runs(self) -> None:
        """A task may fail with what a parked one caught: that one goes on unharmed."""
        caught: list[BaseException] = []

        async def coroutine() -> str:
            try:
                await Deferred[None]().addTimeout(1, self.clock)
            except Exception as error:
                caught.append(error)
            sleep(10)
            return "unharmed"

        first = self.start(lambda: wait(coroutine()))
        self.clock.advance(1)

        def second() -> None:
            raise caught[0]

        self.error_of(self.start(second), Exception)
        self.clock.advance(10)
        self.assertEqual(self.result_of(first), "unharmed")

    def test_interrupted_after_its_end(self) -> None:
        """An interruption that comes too late is no burden to the task."""
        task = self.start(str)
        task.interrupt(ValueError())
        task.withdraw(ValueError())
        self.assertEqual(task._interruptions, None)
