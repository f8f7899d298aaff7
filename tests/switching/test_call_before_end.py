"""Tests of cleanup calls that a task makes before it ends."""

from __future__ import annotations

from typing import Any

from txgreenwsgi import Cancelled, NotInGreenlet, current_task, sleep, timeout
from txgreenwsgi._switching.greenlets import require_task

from .clocked import ClockTestCase


class CallBeforeEndTests(ClockTestCase):
    """`Task.call_before_end`."""

    def setUp(self) -> None:
        """Make a list of events."""
        super().setUp()
        self.done: list[Any] = []

    def give(self, what: object, seconds: float = 0) -> None:
        """Register a call before the end of the current task."""

        def do() -> None:
            if seconds:
                sleep(seconds)
            self.done.append((what, current_task()))

        require_task("give()").call_before_end(do)

    def test_order(self) -> None:
        """The calls are made in reverse order, in the task that registered them."""

        def work() -> str:
            self.give("first")
            self.give("second")
            return "result"

        task = self.start(work)
        self.assertEqual(self.done, [("second", task), ("first", task)])
        self.assertEqual(self.result_of(task), "result")

    def test_before_it_counts_as_ended(self) -> None:
        """Waiters for the task are resumed after all calls have been made."""

        def work() -> None:
            self.give("it", 2)

        task = self.start(work)
        waiter = self.start(task.wait)
        self.clock.advance(1)
        self.assertFalse(task.done or waiter.done)
        self.clock.advance(1)
        self.result_of(waiter)
        self.assertEqual(self.done, [("it", task)])

    def test_error(self) -> None:
        """The task's error is raised after all calls have been made."""

        def work() -> None:
            self.give("it", 1)
            raise ValueError("of the task")

        task = self.start(work)
        self.clock.advance(1)
        self.assertEqual(len(self.done), 1)
        self.error_of(task, ValueError)

    def test_not_interrupted(self) -> None:
        """A late cancellation or timeout does not interrupt the calls."""

        def work() -> None:
            self.give("it", 2)
            with timeout(1):
                pass

        task = self.start(work)
        task.cancel()
        self.clock.advance(2)
        self.assertEqual(len(self.done), 1)
        self.result_of(task)

    def test_cancelled(self) -> None:
        """The calls of a cancelled task may wait."""

        def work() -> None:
            self.give("it", 1)
            sleep(100)

        task = self.start(work)
        task.cancel()
        self.clock.advance(1)
        self.assertEqual(len(self.done), 1)
        self.error_of(task, Cancelled)

    def test_failure(self) -> None:
        """A call that fails is logged; the others and the result are unaffected."""

        def fail() -> None:
            raise KeyError("not given back")

        def work() -> str:
            self.give("it")
            require_task("work()").call_before_end(fail)
            return "result"

        task = self.start(work)
        self.assertEqual(len(self.done), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.result_of(task), "result")

    def test_more(self) -> None:
        """Calls that are registered during a call are made as well."""

        def again() -> None:
            self.give("second")

        def work() -> None:
            require_task("work()").call_before_end(again)

        self.start(work)
        self.assertEqual([what for what, _ in self.done], ["second"])

    def test_kill(self) -> None:
        """The calls of a killed task are made, but cannot wait."""

        def work() -> None:
            self.give("at once")
            self.give("slowly", 1)
            sleep(100)

        task = self.start(work)
        task.kill()
        self.assertTrue(task.done)
        self.assertEqual([what for what, _ in self.done], ["at once"])
        self.assertEqual(len(self.flushLoggedErrors(NotInGreenlet)), 1)

    def test_killed_while_giving_back(self) -> None:
        """A task killed during one call still makes the other calls."""

        def work() -> None:
            self.give("at once")
            self.give("slowly", 1)

        task = self.start(work)
        self.assertFalse(task.done)
        task.kill()
        self.assertEqual([what for what, _ in self.done], ["at once"])
        self.error_of(task, Cancelled)
