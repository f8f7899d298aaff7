"""Tests of `DeadlineClock`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._serving.deadlines import CHECK_SECONDS, DeadlineClock
from txgreenwsgi._switching.greenlets import hub_of


class Watched:
    """An object that records the times of its checks.

    Attributes:
        times: those times.
        stalls: durations and ends of the stalls.
        error: raised by each check, unless it is None.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.times: list[float] = []
        self.stalls: list[tuple[float, float]] = []
        self.error = error

    def check(self, now: float) -> None:
        """Record the time, and fail if requested."""
        self.times.append(now)
        if self.error is not None:
            raise self.error

    def postpone(self, seconds: float, now: float) -> None:
        """Record the stall, and fail if requested."""
        self.stalls.append((seconds, now))
        if self.error is not None:
            raise self.error


class DeadlineClockTests(SynchronousTestCase):
    """`DeadlineClock`."""

    def setUp(self) -> None:
        """Create a deadline clock for two groups, on a clock that the test moves."""
        self.reactor = Clock()
        self.groups: tuple[set[Watched], set[Watched]] = (set(), set())
        self.deadlines = DeadlineClock(*self.groups)

    def watch(self, group: int = 0, error: Exception | None = None) -> Watched:
        """Return a new member of a group."""
        watched = Watched(error)
        self.groups[group].add(watched)
        self.deadlines.start(self.reactor)
        return watched

    def forget(self, watched: Watched) -> None:
        """Remove a member from its group."""
        for group in self.groups:
            group.discard(watched)
        self.deadlines.stop_if_idle()

    def test_interval(self) -> None:
        """Members of all groups are checked four times a second, with the time."""
        members = [self.watch(0), self.watch(1)]
        self.reactor.pump([CHECK_SECONDS] * 4)
        for watched in members:
            self.assertEqual(watched.times, [0.25, 0.5, 0.75, 1.0])

    def test_one_delayed_call(self) -> None:
        """All members share one delayed call."""
        for number in range(100):
            self.watch(number % 2)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_nothing_to_watch(self) -> None:
        """No call is scheduled before the first member and after the last one."""
        self.deadlines.stop_if_idle()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        first, second = self.watch(0), self.watch(1)
        self.forget(first)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.forget(second)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        third = self.watch()
        self.reactor.advance(CHECK_SECONDS)
        self.assertEqual(len(third.times), 1)
        self.assertEqual((first.times, second.times), ([], []))

    def test_last_check(self) -> None:
        """Without `stop_if_idle`, the next check finds no member and is the last."""
        idle: list[bool] = []
        self.deadlines = DeadlineClock(
            *self.groups, on_idle=lambda: idle.append(self.deadlines.idle)
        )
        watched = self.watch()
        self.groups[0].clear()
        self.reactor.advance(CHECK_SECONDS)
        self.assertEqual((watched.times, idle), ([], [True]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        watched = self.watch()
        self.reactor.advance(CHECK_SECONDS)
        self.assertEqual(len(watched.times), 1)

    def test_failing_check(self) -> None:
        """A failing check is logged; the other members are checked all the same."""
        error = ZeroDivisionError()
        members = [self.watch(), self.watch(0, error), self.watch(), self.watch(1)]
        self.reactor.pump([CHECK_SECONDS] * 2)
        self.assertEqual([len(watched.times) for watched in members], [2] * 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_forget_in_a_check(self) -> None:
        """A check may remove its own object, even the last one."""

        class Closing(Watched):
            def check(checked, now: float) -> None:  # noqa: N805
                super().check(now)
                self.forget(checked)

        watched = Closing()
        self.groups[0].add(watched)
        self.deadlines.start(self.reactor)
        self.reactor.pump([CHECK_SECONDS] * 2)
        self.assertEqual(len(watched.times), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def stall(self, seconds: float) -> None:
        """Let time pass in which the reactor does nothing."""
        hub_of(self.reactor).detects_stalls = True
        self.reactor.rightNow += seconds

    def test_late_check(self) -> None:
        """A late check reports its lateness; deadlines apply one turn later."""
        watched = self.watch()
        self.stall(10)
        self.reactor.pump([0, 0])
        self.assertEqual(watched.stalls, [(9.75, 10.0)])
        self.assertEqual(watched.times, [10.0])
        self.reactor.advance(CHECK_SECONDS)
        self.assertEqual(watched.times, [10.0, 10.25])
        self.assertEqual(len(watched.stalls), 1)

    def test_input_is_read_first(self) -> None:
        """Between a late check and the deadlines, the reactor has a whole turn."""
        watched = self.watch()
        self.stall(10)
        (call,) = self.reactor.getDelayedCalls()
        self.reactor.calls.clear()
        call.func(*call.args)  # type: ignore[attr-defined]
        self.assertEqual((len(watched.stalls), watched.times), (1, []))
        self.reactor.advance(0)
        self.assertEqual(watched.times, [10.0])

    def test_consecutive_stalls(self) -> None:
        """A stall between a late check and the deadlines counts at the next check."""
        watched = self.watch()
        self.stall(10)
        (call,) = self.reactor.getDelayedCalls()
        self.reactor.calls.clear()
        call.func(*call.args)  # type: ignore[attr-defined]
        self.stall(5)
        self.reactor.pump([0, 0, 0])
        self.assertEqual(watched.stalls, [(9.75, 10.0), (4.75, 15.0)])
        self.assertEqual(watched.times, [10.0, 15.0])

    def test_slightly_late_check(self) -> None:
        """A check that is late by less than a tenth of a second is no stall."""
        watched = self.watch()
        self.stall(CHECK_SECONDS + 0.09)
        self.reactor.advance(0)
        self.assertEqual((watched.stalls, watched.times), ([], [CHECK_SECONDS + 0.09]))

    def test_jump_of_a_clock(self) -> None:
        """A clock that a test moves in jumps has no stalls."""
        watched = self.watch()
        self.reactor.advance(3600)
        self.assertEqual((watched.stalls, watched.times), ([], [3600]))

    def test_failing_postponement(self) -> None:
        """A member that fails does not affect the other members."""
        self.watch(0, ZeroDivisionError("failed"))
        watched = self.watch(1)
        self.stall(10)
        self.reactor.pump([0, 0])
        self.assertEqual((len(watched.stalls), watched.times), (1, [10.0]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_stalled_seconds(self) -> None:
        """A stall in progress is known before the check; an idle clock has none."""
        self.assertEqual(self.deadlines.stalled_seconds(self.reactor), 0)
        watched = self.watch()
        self.stall(10)
        self.assertEqual(self.deadlines.stalled_seconds(self.reactor), 9.75)
        self.reactor.pump([0, 0])
        self.assertEqual(self.deadlines.stalled_seconds(self.reactor), 0)
        self.forget(watched)
        self.stall(10)
        self.assertEqual(self.deadlines.stalled_seconds(self.reactor), 0)
