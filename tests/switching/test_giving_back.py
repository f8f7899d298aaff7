"""What a task gives back before it ends, in the task itself."""

from __future__ import annotations

from typing import Any

from txgreenwsgi import Cancelled, NotInGreenlet, current_task, sleep, timeout
from txgreenwsgi._switching.greenlets import require_task

from .clocked import ClockTestCase


class GivingBackTests(ClockTestCase):
    """`Task.call_before_end`."""

    def setUp(self) -> None:
        """Note what is done."""
        super().setUp()
        self.done: list[Any] = []

    def give(self, what: object, seconds: float = 0) -> None:
        """Have something done before the current task ends."""

        def do() -> None:
            if seconds:
                sleep(seconds)
            self.done.append((what, current_task()))

        require_task("give()").call_before_end(do)

    def test_order(self) -> None:
        """What was taken last is given back first, in the task that has taken it."""

        def work() -> str:
            self.give("first")
            self.give("second")
            return "result"

        task = self.start(work)
        self.assertEqual(self.done, [("second", task), ("first", task)])
        self.assertEqual(self.result_of(task), "result")

    def test_before_it_counts_as_ended(self) -> None:
        """Whoever waits for the task finds everything given back."""

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
        """What the task raises is raised, when everything is given back."""

        def work() -> None:
            self.give("it", 1)
            raise ValueError("of the task")

        task = self.start(work)
        self.clock.advance(1)
        self.assertEqual(len(self.done), 1)
        self.error_of(task, ValueError)

    def test_not_interrupted(self) -> None:
        """A cancellation or a timeout that comes too late leaves it alone."""

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
        """A task that was cancelled gives back, waiting if it must."""

        def work() -> None:
            self.give("it", 1)
            sleep(100)

        task = self.start(work)
        task.cancel()
        self.clock.advance(1)
        self.assertEqual(len(self.done), 1)
        self.error_of(task, Cancelled)

    def test_failure(self) -> None:
        """What fails is logged, the rest is given back, the result is as it was."""

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
        """What giving back takes is given back as well."""

        def again() -> None:
            self.give("second")

        def work() -> None:
            require_task("work()").call_before_end(again)

        self.start(work)
        self.assertEqual([what for what, _ in self.done], ["second"])

    def test_kill(self) -> None:
        """A killed task gives back what can be given back without waiting."""

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
        """One that is killed in the midst of it gives back the rest."""

        def work() -> None:
            self.give("at once")
            self.give("slowly", 1)

        task = self.start(work)
        self.assertFalse(task.done)
        task.kill()
        self.assertEqual([what for what, _ in self.done], ["at once"])
        self.error_of(task, Cancelled)
