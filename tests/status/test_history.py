"""Rates from the differences of snapshots."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._status.history import GAP_SECONDS, MOST_SAMPLES, History

from .snapshots import snapshot, worker


class HistoryTests(SynchronousTestCase):
    """`History`."""

    def setUp(self) -> None:
        """Make a history."""
        self.history = History()

    def add(self, time: float, *served: int | None, **more: object) -> None:
        """Add a snapshot of workers 1, 2 ..."""
        workers = [
            worker(number, served=count, **more)
            for number, count in enumerate(served, 1)
        ]
        self.history.add(snapshot(time=time, workers=workers))

    def test_rates(self) -> None:
        """A rate is a difference by the time between the snapshots."""
        self.add(100.0, 10, 20)
        self.assertIsNone(self.history.samples[-1].rate)
        self.assertEqual(self.history.rates, {})
        self.add(102.0, 14, 30, requests=3, lag=0.5)
        sample = self.history.samples[-1]
        self.assertEqual((sample.rate, sample.in_flight, sample.lag), (7.0, 6, 0.5))
        self.assertEqual(self.history.rates, {1: 2.0, 2: 5.0})

    def test_new_worker(self) -> None:
        """A worker that has started since then began at 0; one that ended is gone."""
        self.add(100.0, 1000)
        self.history.add(snapshot(time=101.0, workers=[worker(2, served=5)]))
        self.assertEqual(self.history.samples[-1].rate, 5.0)

    def test_silent_worker(self) -> None:
        """A worker that did not answer has no rate, and no jump afterwards."""
        self.add(100.0, 10)
        self.add(101.0, None)
        self.assertEqual(self.history.rates, {})
        self.add(102.0, 14)
        self.assertEqual(self.history.rates, {1: 4.0})

    def test_gap(self) -> None:
        """After a pause, and when the clock is set back, the samples begin anew."""
        self.add(100.0, 10)
        self.add(101.0, 20)
        self.add(101.0 + GAP_SECONDS, 90)
        self.assertEqual(len(self.history.samples), 1)
        self.assertIsNone(self.history.samples[-1].rate)
        self.add(50.0, 95)
        self.assertEqual(len(self.history.samples), 1)

    def test_most(self) -> None:
        """The samples of the last minute are kept."""
        for second in range(3 * MOST_SAMPLES):
            self.add(100.0 + second, second)
        self.assertEqual(len(self.history.samples), MOST_SAMPLES)
        self.assertEqual(self.history.samples[0].rate, 1.0)

    def test_no_worker(self) -> None:
        """A server without workers has no lag."""
        self.add(100.0)
        self.assertEqual(self.history.samples[-1].lag, 0.0)
