"""Tests of the monotonic clock that a reactor gets."""

from __future__ import annotations

import time
from unittest.mock import patch

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.runtime import seconds as wall_clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._switching import steady_clock
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._switching.steady_clock import is_steady, use_steady_clock


class _Reactor(SelectReactor):
    """A reactor that is not installed, without a waker."""

    def installWaker(self) -> None:
        """No-op: a waker would leave descriptors open."""


class SteadyClockTests(SynchronousTestCase):
    """`use_steady_clock`."""

    def setUp(self) -> None:
        """Create a reactor, and clocks that the test sets."""
        self.reactor = _Reactor()
        self.wall, self.monotonic = 1_000_000.0, 50.0

        def wall_seconds() -> float:
            return self.wall

        self.patch(steady_clock, "wall_clock", wall_seconds)
        self.patch(steady_clock, "monotonic", lambda: self.monotonic)
        self.reactor.seconds = wall_seconds

    def test_default_clock(self) -> None:
        """A reactor of Twisted measures time with the wall clock or a monotonic one."""
        self.assertIn(_Reactor().seconds, (wall_clock, time.monotonic))

    def test_continues(self) -> None:
        """The clock continues from its current value."""
        use_steady_clock(self.reactor)
        self.assertTrue(is_steady(self.reactor))
        self.assertEqual(self.reactor.seconds(), 1_000_000)
        self.monotonic += 3
        self.assertEqual(self.reactor.seconds(), 1_000_003)

    def test_ignores_the_wall_clock(self) -> None:
        """Setting the wall clock changes nothing, for new and pending calls."""
        called: list[str] = []
        pending = self.reactor.callLater(10, called.append, "pending")
        moved = self.reactor.callLater(10, called.append, "moved")
        use_steady_clock(self.reactor)
        self.reactor.callLater(5, called.append, "new")
        for wall in (0.0, 2_000_000.0):
            self.wall = wall
            self.reactor.runUntilCurrent()
            self.assertEqual(called, [])
        self.assertEqual(self.reactor.timeout(), 5)
        moved.reset(20)
        self.monotonic += 5
        self.reactor.runUntilCurrent()
        self.assertEqual(called, ["new"])
        self.monotonic += 5
        self.reactor.runUntilCurrent()
        self.assertEqual(called, ["new", "pending"])
        self.assertFalse(pending.active())
        self.monotonic += 10
        self.reactor.runUntilCurrent()
        self.assertEqual(called, ["new", "pending", "moved"])

    def test_twice(self) -> None:
        """A second call is a no-op."""
        use_steady_clock(self.reactor)
        clock = self.reactor.seconds
        use_steady_clock(self.reactor)
        self.assertIs(self.reactor.seconds, clock)

    def test_other_clocks(self) -> None:
        """A `task.Clock`, and a clock that the program has set, are kept."""
        clock = Clock()
        use_steady_clock(clock)
        clock.advance(7)
        self.assertEqual(clock.seconds(), 7)
        self.assertFalse(is_steady(clock))

        def own() -> float:
            return 5.0

        self.reactor.seconds = own
        use_steady_clock(self.reactor)
        self.assertIs(self.reactor.seconds, own)
        self.assertFalse(is_steady(self.reactor))

    def test_frozen_time(self) -> None:
        """A library that replaces the module's clock later does not stop timers."""
        monotonic = self.monotonic
        use_steady_clock(self.reactor)
        with patch.object(steady_clock, "monotonic", lambda: monotonic):
            self.monotonic += 3
            self.assertEqual(self.reactor.seconds(), 1_000_003)

    def test_hub(self) -> None:
        """A reactor gets the clock with its hub, which then detects stalls."""
        hub = hub_of(self.reactor)
        self.assertTrue(is_steady(self.reactor))
        self.assertTrue(hub.detects_stalls)
        self.assertFalse(hub_of(Clock()).detects_stalls)
