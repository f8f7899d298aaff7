"""Tests of `wait()` with Deferreds, `sleep()`, `spawn()` and `in_greenlet()`."""

from __future__ import annotations

import gc
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    fail,
    inlineCallbacks,
    succeed,
)
from twisted.internet.task import deferLater

from txgreenwsgi import (
    Cancelled,
    NotInGreenlet,
    TimedOut,
    in_greenlet,
    sleep,
    spawn,
    wait,
)

from .clocked import CancellableDeferreds, ClockTestCase, traceback_of
from .threaded import ThreadClock, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class DeferredTests(ClockTestCase):
    """`wait(deferred)`."""

    def setUp(self) -> None:
        """Make a Deferred."""
        super().setUp()
        self.deferreds = CancellableDeferreds()
        self.deferred = self.deferreds.make()

    def test_result(self) -> None:
        """It returns the result, of a Deferred that has fired or fires later."""
        self.assertEqual(self.result_of(self.start(wait, succeed("before"))), "before")
        task = self.start(wait, self.deferred)
        self.deferred.callback("then")
        self.assertEqual(self.result_of(task), "then")

    def test_failure(self) -> None:
        """It raises the error, of a Deferred that has failed or fails later."""
        error = ValueError()
        self.assertIs(self.error_of(self.start(wait, fail(error)), ValueError), error)
        task = self.start(wait, self.deferred)
        self.deferred.errback(error)
        self.assertIs(self.error_of(task, ValueError), error)

    def test_chained(self) -> None:
        """A Deferred chained to another is waited for to its end."""
        inner: Deferred[str] = Deferred()
        outer = succeed(None).addCallback(lambda _: inner)
        task = self.start(wait, outer)
        self.assertEqual(task.state, "parked")
        inner.callback("inner")
        self.assertEqual(self.result_of(task), "inner")

    def test_success_passes_through(self) -> None:
        """Several tasks can wait for one result."""
        tasks = [self.start(wait, self.deferred) for _ in range(3)]
        self.deferred.callback("shared")
        tasks.append(self.start(wait, self.deferred))
        self.assertEqual([self.result_of(task) for task in tasks], ["shared"] * 4)

    def test_failure_is_consumed(self) -> None:
        """A failure is raised once; the next waiter gets None; nothing is logged."""
        tasks = [self.start(wait, self.deferred) for _ in range(2)]
        self.deferred.errback(ValueError())
        self.error_of(tasks[0], ValueError)
        self.assertIsNone(self.result_of(tasks[1]))
        self.assertIsNone(self.result_of(self.start(wait, self.deferred)))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_waiting_again_in_the_same_task(self) -> None:
        """A resumed task may wait on the same Deferred again."""
        task = self.start(lambda: (wait(self.deferred), wait(self.deferred)))
        self.deferred.callback("twice")
        self.assertEqual(self.result_of(task), ("twice", "twice"))

    def test_timeout(self) -> None:
        """On timeout the wait raises TimedOut, and the Deferred is cancelled."""
        task = self.start(wait, self.deferred, 2)
        self.clock.advance(2)
        error = self.error_of(task, TimedOut)
        self.assertIn("2 seconds", str(error))
        self.assertEqual(self.deferreds.cancelled, [self.deferred])
        self.assert_nothing_left()

    def test_in_time(self) -> None:
        """A result in time leaves no delayed call."""
        task = self.start(wait, self.deferred, 2)
        self.deferred.callback("in time")
        self.assertEqual(self.result_of(task), "in time")
        self.assert_nothing_left()

    def test_timeout_of_nothing(self) -> None:
        """With a timeout of 0 a fired result is returned; others get one turn."""
        self.assertEqual(self.result_of(self.start(wait, succeed("here"), 0)), "here")
        task = self.start(wait, self.deferred, 0)
        self.assertEqual(task.state, "parked")
        self.turn()
        self.error_of(task, TimedOut)

    def test_late_result(self) -> None:
        """A late result does not answer a later wait."""
        stubborn: Deferred[str] = Deferred(lambda deferred: None)
        stubborn_inner: Deferred[str] = Deferred(lambda d: d.callback("late"))
        for late in (stubborn, stubborn_inner):

            def work(late: Deferred[str] = late) -> Any:
                self.assertRaises(TimedOut, wait, late, 1)
                return wait(self.deferreds.make(), 5)

            task = self.start(work)
            self.clock.advance(1)
            self.assertEqual(task.state, "parked")
            if not late.called:
                late.callback("late")
            self.assertEqual(task.state, "parked")
            self.clock.advance(5)
            self.error_of(task, TimedOut)

    def test_late_failure(self) -> None:
        """A late failure is logged."""
        slow_to_cancel: Deferred[Any] = Deferred()
        slow_to_cancel.addErrback(lambda _: deferLater(self.clock, 3))
        slow_to_cancel.addCallback(lambda _: 1 / 0)
        task = self.start(wait, slow_to_cancel, 1)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.clock.advance(3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure_as_answer_to_the_cancellation(self) -> None:
        """A failure in reply to the cancellation is not logged."""
        rude: Deferred[None] = Deferred(lambda deferred: deferred.errback(ValueError()))
        for deferred in (rude, self.deferred):
            task = self.start(wait, deferred, 1)
            self.clock.advance(1)
            self.error_of(task, TimedOut)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failure_to_cancel(self) -> None:
        """A canceller that fails is logged; the wait raises its own error."""

        def canceller(deferred: Deferred[None]) -> None:
            raise ValueError

        task = self.start(wait, Deferred[None](canceller), 1)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_left_by_one_of_two(self) -> None:
        """When one of two waiters times out, the other gets CancelledError."""
        hasty = self.start(wait, self.deferred, 1)
        patient = self.start(wait, self.deferred)
        self.clock.advance(1)
        self.error_of(hasty, TimedOut)
        self.error_of(patient, CancelledError)

    def test_traceback_of_one_that_fails_then(self) -> None:
        """The traceback leads to the origin of the failure."""
        task = self.start(traceback_of, self.deferred)

        def origin_of_the_failure() -> None:
            raise ValueError

        succeed(None).addCallback(lambda _: origin_of_the_failure()).addErrback(
            self.deferred.errback
        )
        text = self.result_of(task)
        self.assertIn("in origin_of_the_failure", text)
        self.assertIn("in traceback_of", text)

    def test_traceback_of_one_that_failed_before(self) -> None:
        """The same if the Deferred failed before the wait."""

        @inlineCallbacks
        def origin_of_the_failure() -> Generator[Any, Any, None]:
            yield succeed(None)
            raise ValueError

        text = self.result_of(self.start(traceback_of, origin_of_the_failure()))
        self.assertIn("in origin_of_the_failure", text)

    def test_cause_is_kept(self) -> None:
        """An exception with a cause keeps it."""
        error = ValueError()
        error.__cause__ = KeyError()
        task = self.start(wait, fail(error))
        self.assertIsInstance(self.error_of(task, ValueError).__cause__, KeyError)

    def test_killed(self) -> None:
        """A kill cancels the Deferred."""
        self.start(wait, self.deferred)
        self.hub.close()
        self.assertEqual(self.deferreds.cancelled, [self.deferred])

    def test_refused(self) -> None:
        """A Deferred that a killed task tries to wait on is cancelled."""

        def work() -> None:
            try:
                sleep(60)
            finally:
                self.assertRaises(NotInGreenlet, wait, self.deferred)

        task = self.start(work)
        self.hub.close()
        self.error_of(task, Cancelled)
        self.assertEqual(self.deferreds.cancelled, [self.deferred])

    def test_fired_in_a_dying_task(self) -> None:
        """A killed task gets the result of a fired Deferred."""
        got: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                got.append(wait(succeed("here")))

        self.start(work)
        self.hub.close()
        self.assertEqual(got, ["here"])


class ThreadTests(ClockTestCase):
    """Deferreds that are fired in the wrong thread."""

    def make_clock(self) -> ThreadClock:
        """Return a clock that accepts calls from threads."""
        return ThreadClock()

    def test_fired_in_a_thread(self) -> None:
        """The task continues in the reactor's thread."""
        for fire in (
            lambda deferred: deferred.callback("done"),
            lambda deferred: deferred.errback(ValueError()),
        ):
            deferred: Deferred[str] = Deferred()
            task = self.start(wait, deferred)
            in_thread(partial(fire, deferred))
            self.assertEqual(task.state, "parked")
            self.turn()
            self.assertTrue(task.done)
            task.deferred().addErrback(lambda _: None)


class SleepTests(ClockTestCase):
    """`sleep()`."""

    def test_seconds(self) -> None:
        """It parks for that many seconds of the reactor's clock."""
        task = self.start(sleep, 2.5)
        self.clock.advance(2.4)
        self.assertEqual(task.state, "parked")
        self.clock.advance(0.2)
        self.assertIsNone(self.result_of(task))
        self.assert_nothing_left()

    def test_zero(self) -> None:
        """`sleep(0)` takes one turn, in which all ready tasks run."""
        events: list[str] = []

        def work(name: str) -> None:
            for number in range(2):
                events.append(f"{name}{number}")
                sleep(0)

        self.start(work, "a")
        self.start(work, "b")
        self.clock.callLater(0, events.append, "reactor")
        self.turn()
        self.assertEqual(events, ["a0", "b0", "a1", "b1", "reactor"])
        self.turn(2)
        self.assert_nothing_left()

    def test_interrupted(self) -> None:
        """An interrupted sleep leaves no delayed call."""
        for seconds in (0, 60):
            task = self.start(sleep, seconds)
            task.cancel()
            self.error_of(task, Cancelled)
        self.turn()
        self.assert_nothing_left()

    def test_bad_values(self) -> None:
        """Bad values raise an error that names the call and the value."""
        for value, kind in (
            (-1, ValueError),
            (float("nan"), ValueError),
            ("1", TypeError),
            (None, TypeError),
        ):
            error = self.error_of(self.start(sleep, value), kind)
            self.assertIn(
                f"sleep() takes a number of seconds >= 0, not {value!r}", str(error)
            )
        self.assert_nothing_left()


class SpawnTests(ClockTestCase):
    """`spawn()` and `in_greenlet()`, called in a task."""

    def test_spawn(self) -> None:
        """The task begins at the next turn, with its arguments."""

        def child(*args: int, **kwargs: int) -> tuple[Any, ...]:
            sleep(1)
            return args, kwargs

        def work() -> Any:
            task = spawn(child, 1, 2, three=3)
            self.assertEqual(task.state, "new")
            return task.wait()

        task = self.start(work)
        self.turn()
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), ((1, 2), {"three": 3}))

    def test_name(self) -> None:
        """A task has the name of its function."""
        self.assertIn("sleep", self.result_of(self.start(lambda: spawn(sleep, 0).name)))
        name = self.result_of(self.start(lambda: spawn(partial(sleep, 0)).name))
        self.assertIn("functools.partial", name)

    def test_context(self) -> None:
        """It inherits a copy of the caller's context variables, and sets its own."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        seen: list[str] = []

        def child() -> None:
            seen.append(variable.get())
            variable.set("the child's")

        def work() -> str:
            variable.set("as it was spawned")
            task = spawn(child)
            variable.set("later")
            task.wait()
            return variable.get()

        task = self.start(work)
        self.turn(2)
        self.assertEqual(self.result_of(task), "later")
        self.assertEqual(seen, ["as it was spawned"])
        self.assertEqual(variable.get(), "unset")

    def test_outlives_its_spawner(self) -> None:
        """A spawned task continues after the end of its spawner."""
        events: list[str] = []

        def child() -> None:
            sleep(1)
            events.append("ended")

        self.start(lambda: spawn(child))
        self.turn()
        self.clock.advance(1)
        self.assertEqual(events, ["ended"])

    def test_no_function(self) -> None:
        """The result of a call instead of a function is refused at once."""
        error = self.error_of(self.start(lambda: spawn("")), TypeError)  # type: ignore[arg-type]
        self.assertIn("spawn(function, 1, 2)", str(error))

    def test_coroutine_function(self) -> None:
        """A coroutine function is refused; the error names the remedy."""

        async def coroutine() -> str:
            return "ran"

        error = self.error_of(self.start(lambda: spawn(coroutine)), TypeError)
        self.assertIn("spawn(wait, function(1, 2))", str(error))
        task = self.result_of(self.start(lambda: spawn(wait, coroutine())))
        self.turn()
        self.assertEqual(self.result_of(task), "ran")

    def test_in_greenlet(self) -> None:
        """The decorated function returns a Deferred."""

        @in_greenlet
        def double(number: int) -> int:
            """Return twice the number."""
            sleep(1)
            return number * 2

        self.assertEqual(double.__doc__, "Return twice the number.")
        deferred = self.made_in_a_task(double, 21)
        self.turn()
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(deferred), 42)

    def made_in_a_task(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what the function returns when called in a task."""
        made: list[Any] = []
        self.start(lambda: made.append(function(*args)))
        return made[0]

    def test_in_greenlet_cancelled(self) -> None:
        """Cancelling that Deferred cancels the task."""
        deferred = self.made_in_a_task(in_greenlet(sleep), 60)
        self.turn()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.turn()
        self.assert_nothing_left()
