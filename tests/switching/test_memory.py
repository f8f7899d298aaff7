"""Tests of the memory of ended tasks, and of the logging of unhandled errors."""

from __future__ import annotations

import contextlib
import gc
import weakref
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txgreenwsgi import (
    Task,
    TimedOut,
    sleep,
    suspend,
    wait,
)

from .clocked import ClockTestCase
from .test_tasks import failing_deep_down


class Held:
    """An object held by a frame, with weak references."""


class UnobservedTests(ClockTestCase):
    """Errors of tasks that are never waited for."""

    def test_logged(self) -> None:
        """The error is logged when the last reference to the task goes."""
        task = self.start(failing_deep_down)
        self.assertEqual(self.flushLoggedErrors(), [])
        del task
        [failure] = self.flushLoggedErrors(ValueError)
        self.assertIn("failing_deep_down", failure.getTraceback())

    def test_logged_after_waits(self) -> None:
        """The error of a task that failed between waits is logged without gc."""
        deferred: Deferred[None] = Deferred()

        def work() -> None:
            sleep(1)
            wait(deferred)

        self.start(work)
        self.clock.advance(1)
        deferred.errback(ValueError())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_asked_for(self) -> None:
        """An error delivered by `wait()` or a Deferred is not logged."""
        waited_for = self.start(failing_deep_down)
        self.start(self.assertRaises, ValueError, waited_for.wait)
        self.failureResultOf(self.start(failing_deep_down).deferred(), ValueError)
        del waited_for
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_gave_up_waiting(self) -> None:
        """A waiter that timed out before the failure has not received it."""

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
        """A cancelled task is not logged."""
        self.start(sleep, 1).cancel()
        self.spawn(sleep, 1).cancel()
        self.turn()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failing_end_callback(self) -> None:
        """An end callback that fails is logged; the others are called."""
        told: list[str] = []
        task = self.start(sleep, 1)
        task.call_at_end(failing_deep_down)
        task.call_at_end(lambda: told.append("the other"))
        self.clock.advance(1)
        self.assertEqual(told, ["the other"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class MemoryTests(ClockTestCase):
    """An ended task keeps its result alive, and nothing else."""

    def setUp(self) -> None:
        """Disable the collector: objects outside cycles are freed at once."""
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.held: weakref.ref[Held] | None = None

    def hold(self, last: Any) -> None:
        """Return a function with a `Held` in its frame."""
        held = Held()
        self.held = weakref.ref(held)
        last()
        del last

    def assert_gone(self) -> None:
        """Fail if the frame's object is still alive."""
        assert self.held is not None
        self.assertIsNone(self.held())

    def test_finished(self) -> None:
        """A finished task that is kept for its result does not keep its frame."""
        task = self.start(self.hold, lambda: sleep(1))
        self.clock.advance(1)
        self.assertTrue(task.done)
        self.assert_gone()

    def test_arguments_and_context(self) -> None:
        """A finished task keeps neither function, arguments nor context."""
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
        """The result is freed with the task, even the first of a greenlet."""
        task = self.start(Held)
        gone = weakref.ref(self.result_of(task))
        del task
        self.assertIsNone(gone())

    def test_failed(self) -> None:
        """A failed task frees its frames when it is dropped."""
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
        """A cancelled task and a timed-out one free their frames."""
        task = self.start(self.hold, lambda: sleep(60))
        task.cancel()
        self.assertEqual(task.state, "failed")
        del task
        self.assert_gone()

    def test_killed(self) -> None:
        """A killed task keeps nothing alive, even before it is dropped."""
        task = self.start(self.hold, lambda: sleep(60))
        self.hub.close()
        self.assertTrue(task.done)
        self.assert_gone()

    def test_waited_for(self) -> None:
        """Waiting for a failed task creates no cycle between the two."""
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
        """An exception that the task catches is freed at once."""

        def work() -> None:
            failing: Deferred[None] = Deferred()
            for call in (
                lambda: wait(failing),
                lambda: wait(Deferred[None](), timeout=1),
                lambda: self.hold(lambda: wait(Deferred[None](), timeout=1)),
            ):
                with contextlib.suppress(ValueError, TimedOut):
                    self.hold(call)
                sleep(0)  # until the turn ends, the raising code holds it
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
        """Application frames keep their variables, for debuggers."""

        def application() -> None:
            secret = "still here"  # noqa: F841
            sleep(-1)

        task = self.start(application)
        error = self.error_of(task, ValueError)
        frame = error.__traceback__
        assert frame is not None
        self.assertEqual(frame.tb_frame.f_locals["secret"], "still here")

    def test_error_from_a_task_that_runs(self) -> None:
        """A task may raise an error that a parked one caught; that one is unharmed."""
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
        """An interruption after the end is not stored."""
        task = self.start(str)
        task.interrupt(ValueError())
        task.withdraw(ValueError())
        self.assertIs(task.pending_interruption, False)
