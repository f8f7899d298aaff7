"""Tests of `DeadlineClock`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._serving.deadlines import CHECK_SECONDS, DeadlineClock


class Watched:
    """An object that records the times of its checks.

    Attributes:
        times: those times.
        error: raised by each check, unless it is None.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.times: list[float] = []
        self.error = error

    def check(self, now: float) -> None:
        """Record the time, and fail if told to."""
        self.times.append(now)
        if self.error is not None:
            raise self.error


class DeadlineClockTests(SynchronousTestCase):
    """`DeadlineClock`."""

    def setUp(self) -> None:
        """Create a clock of deadlines on a clock that the test moves."""
        self.reactor = Clock()
        self.deadlines = DeadlineClock()

    def watch(self, error: Exception | None = None) -> Watched:
        """Return a new watched object."""
        watched = Watched(error)
        self.deadlines.watch(watched, self.reactor)
        return watched

    def test_interval(self) -> None:
        """Watched objects are checked four times a second, with the current time."""
        watched = self.watch()
        self.reactor.pump([CHECK_SECONDS] * 4)
        self.assertEqual(watched.times, [0.25, 0.5, 0.75, 1.0])

    def test_one_delayed_call(self) -> None:
        """All objects share one delayed call."""
        for _ in range(100):
            self.watch()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_nothing_to_watch(self) -> None:
        """No call is scheduled before the first object and after the last one."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        first, second = self.watch(), self.watch()
        self.deadlines.forget(first)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.deadlines.forget(second)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.deadlines.forget(second)
        third = self.watch()
        self.reactor.advance(CHECK_SECONDS)
        self.assertEqual(len(third.times), 1)
        self.assertEqual((first.times, second.times), ([], []))

    def test_failing_check(self) -> None:
        """A failing check is logged; the other objects are checked all the same."""
        all_watched = [self.watch(), self.watch(ZeroDivisionError()), self.watch()]
        self.reactor.pump([CHECK_SECONDS] * 2)
        self.assertEqual([len(watched.times) for watched in all_watched], [2, 2, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_forget_in_a_check(self) -> None:
        """A check may forget its object, also the last one."""

        class Closing(Watched):
            def check(checked, now: float) -> None:  # noqa: N805
                super().check(now)
                self.deadlines.forget(checked)

        watched = Closing()
        self.deadlines.watch(watched, self.reactor)
        self.reactor.pump([CHECK_SECONDS] * 2)
        self.assertEqual(len(watched.times), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
