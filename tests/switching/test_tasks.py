"""Tests of the interface of tasks, and of their cancellation."""

from __future__ import annotations

import gc
import traceback
from functools import partial
from typing import Any

from greenlet import greenlet
from twisted.internet.defer import CancelledError, Deferred

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
from txgreenwsgi._switching.tasks import ALL_SHIELDS

from .clocked import ClockTestCase, after
from .threaded import ThreadClock, in_thread


def failing_deep_down() -> None:
    """Fail, with a name to look for in a traceback."""
    raise ValueError("deep")


def fail_after(seconds: float) -> None:
    """Sleep, then fail."""
    sleep(seconds)
    failing_deep_down()


class WaitTests(ClockTestCase):
    """`Task.wait()`."""

    def test_result(self) -> None:
        """It returns the task's result, before and after the end, every time."""
        task = self.start(after, 1, "it")
        waiters = [self.start(task.wait) for _ in range(3)]
        self.clock.advance(1)
        waiters.append(self.start(task.wait))
        self.assertEqual([self.result_of(w) for w in waiters], ["it"] * 4)

    def test_error(self) -> None:
        """It raises the task's error, every time."""
        task = self.start(fail_after, 1)
        waiters = [self.start(task.wait) for _ in range(2)]
        self.clock.advance(1)
        waiters.append(self.start(task.wait))
        for waiter in waiters:
            self.error_of(waiter, ValueError)

    def test_traceback(self) -> None:
        """Its traceback ends at the line in the task that failed."""
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
        # It does not grow with each wait.
        self.assertEqual(text.count("in wait\n"), 1)

    def test_timeout(self) -> None:
        """On timeout the wait raises TimedOut, and the task continues."""
        task = self.start(after, 5, "late")
        waiter = self.start(task.wait, 2)
        self.clock.advance(2)
        self.error_of(waiter, TimedOut)
        self.clock.advance(3)
        self.assertEqual(self.result_of(task), "late")

    def test_many_that_gave_up(self) -> None:
        """A task keeps no reference to waits for it that timed out."""
        task = self.start(sleep, 1000)

        def waiter() -> None:
            for _ in range(50):
                self.assertRaises(TimedOut, task.wait, 1)

        self.start(waiter)
        for _ in range(50):
            self.clock.advance(1)
        gc.collect()
        waits = [each for each in gc.get_objects() if type(each) is Suspension]
        self.assertEqual([wait for wait in waits if wait.waiting_on is task], [])

    def test_given_up_inside_the_end(self) -> None:
        """A task that ends at its waiter's timeout is handled once."""
        task = self.start(sleep, 1)
        waiter = self.start(task.wait, 1)
        self.clock.advance(1)
        self.assertEqual(task.state, "finished")
        self.assertTrue(waiter.done)
        self.assert_nothing_left()

    def test_bad_timeout(self) -> None:
        """A negative timeout raises an error that names the call."""
        task = self.start(sleep, 1)
        waiter = self.start(task.wait, -1)
        self.assertIn("-1", str(self.error_of(waiter, ValueError)))

    def test_its_own_end(self) -> None:
        """A task that waits for itself gets an error instead of a deadlock."""

        def narcissus() -> None:
            task = current_task()
            assert task is not None
            task.wait()

        self.error_of(self.start(narcissus), RuntimeError)

    def test_pending_interruption(self) -> None:
        """Waiting for an ended task raises a pending cancellation."""
        ended = self.start(str)

        def work() -> None:
            task = current_task()
            assert task is not None
            task.cancel()
            ended.wait()

        self.error_of(self.start(work), Cancelled)


class StateTests(ClockTestCase):
    """The attributes shown in tables of tasks."""

    def test_life(self) -> None:
        """`state` and `done` at each stage of a task's life."""
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
        """Fail unless exactly one error of that class was logged."""
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_waiting_on(self) -> None:
        """`waiting_on` and `parked_seconds` of a parked task."""
        deferred: Deferred[None] = Deferred()
        task = self.start(wait, deferred)
        self.clock.advance(3)
        self.assertIs(task.waiting_on, deferred)
        self.assertEqual(task.parked_seconds, 3)
        deferred.callback(None)
        self.assertIsNone(task.waiting_on)
        self.assertEqual(task.parked_seconds, 0)

    def test_waiting_on_in_words(self) -> None:
        """`waiting_on` is a text where no object is waited on."""
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
        """The repr of a task has its name and state."""
        self.assertEqual(repr(self.start(sleep, 1)), "<Task sleep parked>")
        nameless: Task[None] = Task(self.hub, lambda: None)
        self.assertIn("<lambda>", repr(nameless))
        self.hub.start(nameless)
        self.assertIn("finished", repr(nameless))


class InterruptionTests(ClockTestCase):
    """The interface for interruptions and shields."""

    def test_pending_interruption(self) -> None:
        """It is True while an interruption waits, and after one of two is raised."""
        task = self.start(self.shielded)
        self.assertFalse(task.pending_interruption)
        task.interrupt(ValueError("first"))
        task.interrupt(KeyError("second"))
        self.assertTrue(task.pending_interruption)
        self.clock.advance(1)
        self.assertTrue(task.pending_interruption)
        self.clock.advance(1)
        self.assertFalse(task.pending_interruption)
        self.assertEqual(self.result_of(task), [ValueError, KeyError])

    def shielded(self) -> list[type[Exception]]:
        """Sleep behind a raised shield, then return the errors of two waits."""
        task = current_task()
        assert task is not None
        task.raise_shield()
        sleep(1)
        self.assertEqual(task.shield_depth, 1)
        task.lower_shield()
        self.assertEqual(task.shield_depth, 0)
        errors: list[type[Exception]] = []
        try:
            sleep(1)
        except ValueError:
            errors.append(ValueError)
        task.raise_shield(ALL_SHIELDS)
        sleep(1)
        task.lower_shield(ALL_SHIELDS)
        try:
            sleep(1)
        except KeyError:
            errors.append(KeyError)
        return errors

    def test_withdrawn(self) -> None:
        """An interruption that was withdrawn is not raised."""
        task = self.start(sleep, 1)
        task.raise_shield()
        error = ValueError()
        task.interrupt(error)
        task.withdraw(error)
        self.assertFalse(task.pending_interruption)
        task.lower_shield()
        self.clock.advance(1)
        self.result_of(task)

    def test_dying(self) -> None:
        """A killed task is dying."""
        task = self.start(sleep, 1)
        self.assertFalse(task.dying)
        task.kill()
        self.assertTrue(task.dying)

    def test_greenlet(self) -> None:
        """`greenlet` is None before the beginning and after the end."""
        task: Task[None] = Task(self.hub, sleep, (1,))
        self.assertIsNone(task.greenlet)
        self.hub.start(task)
        self.assertIsInstance(task.greenlet, greenlet)
        self.clock.advance(1)
        self.assertIsNone(task.greenlet)

    def test_error(self) -> None:
        """`error` is the exception with its traceback; reading it handles nothing."""
        self.assertIsNone(self.start(str).error)
        task = self.start(failing_deep_down)
        self.assertIsInstance(task.error, ValueError)
        text = "".join(traceback.format_exception(task.error))
        self.assertIn("in failing_deep_down", text)
        del task
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_on_end(self) -> None:
        """`on_end` of the constructor is called as by `call_at_end`."""
        events: list[str] = []
        task: Task[str] = Task(self.hub, str, on_end=[lambda: events.append("first")])
        task.call_at_end(lambda: events.append("second"))
        removed = partial(events.append, "removed")
        task.call_at_end(removed)
        task.remove_end_call(removed)
        self.hub.start(task)
        self.assertEqual(events, ["first", "second"])


class CancelTests(ClockTestCase):
    """`Task.cancel()`."""

    def test_parked(self) -> None:
        """Cancelled is raised at the current wait, and the task may clean up."""
        events: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                sleep(1)  # a cancelled task may wait; a killed one may not
                events.append("cleaned up")

        task = self.start(work)
        self.assertTrue(task.cancel())
        self.clock.advance(1)
        self.error_of(task, Cancelled)
        self.assertEqual(events, ["cleaned up"])
        self.assert_nothing_left()

    def test_an_ordinary_exception(self) -> None:
        """`except Exception`, as in drivers, catches the cancellation."""
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
        """It returns False after the end."""
        self.assertFalse(self.start(str).cancel())

    def test_while_it_runs(self) -> None:
        """A running task is cancelled at its next wait, even without parking."""

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
        # A fired Deferred keeps its result for the next waiter.
        self.assertIsNone(self.successResultOf(fired))

    def test_twice(self) -> None:
        """A second cancellation before the first was raised is a no-op."""
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
        """A task may catch the cancellation and continue."""

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
        """The cancelling task continues; the other runs at the next turn."""
        task = self.start(sleep, 60)
        canceller = self.start(task.cancel)
        self.assertTrue(self.result_of(canceller))
        self.assertEqual(task.state, "ready")
        self.turn()
        self.error_of(task, Cancelled)

    def test_after_the_answer(self) -> None:
        """An answer that came first is not lost to a later cancellation."""
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
        """A task that waits in a child greenlet is cancelled there."""
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
        """Return a clock that accepts calls from threads."""
        return ThreadClock()

    def test_cancel(self) -> None:
        """The cancellation takes place in the reactor's thread."""
        task = self.start(sleep, 60)
        self.assertTrue(in_thread(task.cancel))
        self.assertEqual(task.state, "parked")
        self.turn()
        self.error_of(task, Cancelled)
        self.assertFalse(in_thread(task.cancel))


class DeferredTests(ClockTestCase):
    """`Task.deferred()`, for Twisted code."""

    def test_result(self) -> None:
        """It fires with the result, requested before or after the end."""
        task = self.start(after, 1, "it")
        before = task.deferred()
        self.assertNoResult(before)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(before), "it")
        self.assertEqual(self.successResultOf(task.deferred()), "it")

    def test_deferred_result(self) -> None:
        """A task may return a Deferred, as Twisted's functions do."""
        result: Deferred[str] = Deferred()
        task = self.start(lambda: result)
        deferred = task.deferred()
        self.assertNoResult(deferred)
        result.callback("it")
        self.assertEqual(self.successResultOf(deferred), "it")

    def test_failure(self) -> None:
        """It fails with the task's error and its traceback."""
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
        """Another error of a cancelled task, from its cleanup, is logged."""

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
