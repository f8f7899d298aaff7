"""Tests of the time for which tasks hold up the reactor."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from txgreenwsgi import sleep
from txgreenwsgi._switching.waiting import yield_if_due
from txgreenwsgi._threads.turns import LongTurns, TurnMeter, meter_of

from .cases import ThreadsTestCase

if TYPE_CHECKING:
    from collections.abc import Callable


class User:
    """A user of the meter."""


class TurnMeterTests(ThreadsTestCase):
    """TurnMeter, with a clock that a task moves: its turns use no CPU time."""

    def setUp(self) -> None:
        """Make a meter."""
        super().setUp()
        self.threads_run = False
        self.meter = TurnMeter(self.hub, lambda: self.threads_run)
        self.user = User()

    def measure(self, function: Callable[[], object]) -> LongTurns:
        """Run `function` in a task; return its long turns."""
        task = self.begin(function)
        self.finish(task)
        return self.meter.take(task)

    def block(self) -> None:
        """Hold up the reactor: two turns of 10 s and a short one."""
        self.pass_time(10)
        sleep(0)
        self.pass_time(0.001)
        sleep(0)
        self.pass_time(10)

    def test_plain(self) -> None:
        """Long turns count in full; the last one is included."""
        self.assertEqual(self.measure(self.block), LongTurns(20.0, 20.0))
        self.assertEqual(self.measure(lambda: sleep(0)), LongTurns(0.0, 0.0))

    def test_rows(self) -> None:
        """Turns of 6 ms count when they follow each other for more than 20 ms."""

        def turns(pause: float) -> None:
            for _ in range(5):
                self.pass_time(0.006)
                sleep(pause)

        row = self.measure(lambda: turns(0))
        self.assertAlmostEqual(row.blocked, 0.012)
        self.assertAlmostEqual(row.total, 0.03)
        self.pass_time(1)
        task = self.begin(lambda: turns(0.1))
        while not task.done:
            self.reactor.advance(0.1)
        self.assertEqual(self.meter.take(task).blocked, 0.0)

    def test_streams(self) -> None:
        """Turns that end with their time slice, between blocks, do not count."""

        def turns(seconds: float) -> None:
            for _ in range(10):
                self.pass_time(seconds)
                self.assertTrue(yield_if_due())

        self.assertEqual(self.measure(lambda: turns(0.008)).blocked, 0.0)
        slow = self.measure(lambda: turns(0.05))
        self.assertAlmostEqual(slow.blocked, 10 * 0.045)
        self.assertAlmostEqual(slow.total, 0.5)

    def test_waited(self) -> None:
        """A request waits while the reactor is free, not while it is busy."""
        seconds = []

        def main() -> None:
            life = self.meter.begin_life()
            self.pass_time(10)
            sleep(15)
            seconds.append(self.meter.waited(life, 25.0))
            self.pass_time(10)
            sleep(0)
            seconds.append(self.meter.waited(life, 35.0))

        task = self.begin(main)
        self.reactor.advance(15)
        self.finish(task)
        self.assertEqual(seconds, [15.0, 0.0])

    def test_precise(self) -> None:
        """A precise meter subtracts the time of others."""
        self.meter.measure_for(self.user, True)
        self.addCleanup(self.meter.measure_for, self.user, False)
        blocked, total = self.measure(self.block)
        self.assertEqual(total, 20.0)
        self.assertTrue(10.0 < blocked <= 20.0, blocked)

    def test_beside_threads(self) -> None:
        """While threads run, only CPU time counts."""
        self.threads_run = True
        self.meter.measure_for(self.user, True)
        self.addCleanup(self.meter.measure_for, self.user, False)
        blocked, total = self.measure(self.block)
        self.assertEqual(total, 20.0)
        self.assertLess(blocked, 10.0)

    def test_users(self) -> None:
        """The meter is precise while one of its users needs it."""
        other = User()
        callbacks = len(gc.callbacks)
        for user in (self.user, other, self.user):
            self.meter.measure_for(user, True)
        self.assertTrue(self.meter.precise)
        self.meter.measure_for(self.user, False)
        self.meter.measure_for(self.user, False)
        self.assertTrue(self.meter.precise)
        self.assertIsNotNone(self.hub.on_turn)
        self.meter.measure_for(other, False)
        self.assertFalse(self.meter.precise)
        self.assertIsNone(self.hub.on_turn)
        self.assertEqual(len(gc.callbacks), callbacks)

    def test_one_meter(self) -> None:
        """The servers of a reactor share a meter."""
        self.assertIs(meter_of(self.hub), meter_of(self.hub))
