"""`wait()` on Deferreds, `sleep()`, `spawn()` and `in_greenlet()`."""

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
        """Something to wait on."""
        super().setUp()
        self.deferreds = CancellableDeferreds()
        self.deferred = self.deferreds.make()

    def test_result(self) -> None:
        """Its result, whether it has fired before or fires then."""
        self.assertEqual(self.result_of(self.start(wait, succeed("before"))), "before")
        task = self.start(wait, self.deferred)
        self.deferred.callback("then")
        self.assertEqual(self.result_of(task), "then")

    def test_failure(self) -> None:
        """What it failed with is raised, whether it has failed before or fails then."""
        error = ValueError()
        self.assertIs(self.error_of(self.start(wait, fail(error)), ValueError), error)
        task = self.start(wait, self.deferred)
        self.deferred.errback(error)
        self.assertIs(self.error_of(task, ValueError), error)

    def test_chained(self) -> None:
        """One that waits for another itself is waited for to its end."""
        inner: Deferred[str] = Deferred()
        outer = succeed(None).addCallback(lambda _: inner)
        task = self.start(wait, outer)
        self.assertEqual(task.state, "parked")
        inner.callback("inner")
        self.assertEqual(self.result_of(task), "inner")

    def test_success_passes_through(self) -> None:
        """A result can be waited for by any number of tasks."""
        tasks = [self.start(wait, self.deferred) for _ in range(3)]
        self.deferred.callback("shared")
        tasks.append(self.start(wait, self.deferred))
        self.assertEqual([self.result_of(task) for task in tasks], ["shared"] * 4)

    def test_failure_is_consumed(self) -> None:
        """A failure is raised once; who waits behind gets None, nothing is logged."""
        tasks = [self.start(wait, self.deferred) for _ in range(2)]
        self.deferred.errback(ValueError())
        self.error_of(tasks[0], ValueError)
        self.assertIsNone(self.result_of(tasks[1]))
        self.assertIsNone(self.result_of(self.start(wait, self.deferred)))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_waiting_again_in_the_same_task(self) -> None:
        """A task that is resumed may wait on the same Deferred at once."""
        task = self.start(lambda: (wait(self.deferred), wait(self.deferred)))
        self.deferred.callback("twice")
        self.assertEqual(self.result_of(task), ("twice", "twice"))

    def test_timeout(self) -> None:
        """After its timeout the wait ends by TimedOut, the Deferred is cancelled."""
        task = self.start(wait, self.deferred, 2)
        self.clock.advance(2)
        error = self.error_of(task, TimedOut)
        self.assertIn("2 seconds", str(error))
        self.assertEqual(self.deferreds.cancelled, [self.deferred])
        self.assert_nothing_left()

    def test_in_time(self) -> None:
        """A result that comes in time leaves nothing of the timeout."""
        task = self.start(wait, self.deferred, 2)
        self.deferred.callback("in time")
        self.assertEqual(self.result_of(task), "in time")
        self.assert_nothing_left()

    def test_timeout_of_nothing(self) -> None:
        """With a timeout of 0 a result that is there is had, another has one turn."""
        self.assertEqual(self.result_of(self.start(wait, succeed("here"), 0)), "here")
        task = self.start(wait, self.deferred, 0)
        self.assertEqual(task.state, "parked")
        self.turn()
        self.error_of(task, TimedOut)

    def test_late_result(self) -> None:
        """A result that comes after the wait was left answers no later wait."""
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
        """A failure that comes after the wait was left is logged: nobody sees it."""
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
        """Whatever a Deferred fails with because it is cancelled is no news."""
        rude: Deferred[None] = Deferred(lambda deferred: deferred.errback(ValueError()))
        for deferred in (rude, self.deferred):
            task = self.start(wait, deferred, 1)
            self.clock.advance(1)
            self.error_of(task, TimedOut)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failure_to_cancel(self) -> None:
        """A canceller that fails is logged, and the wait ends by what ended it."""

        def canceller(deferred: Deferred[None]) -> None:
            raise ValueError

        task = self.start(wait, Deferred[None](canceller), 1)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_left_by_one_of_two(self) -> None:
        """When one of two gives up, the other is told that it was cancelled."""
        hasty = self.start(wait, self.deferred, 1)
        patient = self.start(wait, self.deferred)
        self.clock.advance(1)
        self.error_of(hasty, TimedOut)
        self.error_of(patient, CancelledError)

    def test_traceback_of_one_that_fails_then(self) -> None:
        """The traceback leads to where the failure came from."""
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
        """Also when it had failed before anybody waited."""

        @inlineCallbacks
        def origin_of_the_failure() -> Generator[Any, Any, None]:
            yield succeed(None)
            raise ValueError

        text = self.result_of(self.start(traceback_of, origin_of_the_failure()))
        self.assertIn("in origin_of_the_failure", text)

    def test_cause_is_kept(self) -> None:
        """An exception that has a cause keeps it."""
        error = ValueError()
        error.__cause__ = KeyError()
        task = self.start(wait, fail(error))
        self.assertIsInstance(self.error_of(task, ValueError).__cause__, KeyError)

    def test_killed(self) -> None:
        """The end of the process cancels what is waited on."""
        self.start(wait, self.deferred)
        self.hub.close()
        self.assertEqual(self.deferreds.cancelled, [self.deferred])

    def test_refused(self) -> None:
        """A Deferred that a dying task may not wait on is cancelled."""

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
        """Of one that has fired it gets the result: it need not wait."""
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
        """One that takes calls from threads."""
        return ThreadClock()

    def test_fired_in_a_thread(self) -> None:
        """The task goes on in the reactor's thread all the same."""
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
        """It parks for so many seconds of the reactor's clock."""
        task = self.start(sleep, 2.5)
        self.clock.advance(2.4)
        self.assertEqual(task.state, "parked")
        self.clock.advance(0.2)
        self.assertIsNone(self.result_of(task))
        self.assert_nothing_left()

    def test_zero(self) -> None:
        """`sleep(0)` is one turn: all that is ready runs."""
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
        """A sleep that is interrupted leaves nothing behind."""
        for seconds in (0, 60):
            task = self.start(sleep, seconds)
            task.cancel()
            self.error_of(task, Cancelled)
        self.turn()
        self.assert_nothing_left()

    def test_bad_values(self) -> None:
        """What is no number of seconds is told by name and value."""
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
        """It begins at the next turn, with its arguments; the task is its owner's."""

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
        """A task is called after its function."""
        self.assertIn("sleep", self.result_of(self.start(lambda: spawn(sleep, 0).name)))
        name = self.result_of(self.start(lambda: spawn(partial(sleep, 0)).name))
        self.assertIn("functools.partial", name)

    def test_context(self) -> None:
        """It inherits a copy of its spawner's context variables, and sets its own."""
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
        """A spawned task is its own: it goes on when the other has ended."""
        events: list[str] = []

        def child() -> None:
            sleep(1)
            events.append("ended")

        self.start(lambda: spawn(child))
        self.turn()
        self.clock.advance(1)
        self.assertEqual(events, ["ended"])

    def test_no_function(self) -> None:
        """A call instead of a function is told so, there and then."""
        error = self.error_of(self.start(lambda: spawn("")), TypeError)  # type: ignore[arg-type]
        self.assertIn("spawn(function, 1, 2)", str(error))

    def test_coroutine_function(self) -> None:
        """A coroutine function is not spawned by itself; the error says how."""

        async def coroutine() -> str:
            return "ran"

        error = self.error_of(self.start(lambda: spawn(coroutine)), TypeError)
        self.assertIn("spawn(wait, function(1, 2))", str(error))
        task = self.result_of(self.start(lambda: spawn(wait, coroutine())))
        self.turn()
        self.assertEqual(self.result_of(task), "ran")

    def test_in_greenlet(self) -> None:
        """A function that waits becomes one that returns a Deferred."""

        @in_greenlet
        def double(number: int) -> int:
            """Twice the number."""
            sleep(1)
            return number * 2

        self.assertEqual(double.__doc__, "Twice the number.")
        deferred = self.made_in_a_task(double, 21)
        self.turn()
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(deferred), 42)

    def made_in_a_task(self, function: Callable[..., Any], *args: Any) -> Any:
        """What it returns, called in a task."""
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
