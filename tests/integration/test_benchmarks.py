"""Short benchmarks of this checkout, with real servers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.against import COMPARISONS, Tree, compare
from benchmarks.mixed import SETUPS, Comparison
from tests.integration.processes import CHECKOUT


class AgainstTests(SynchronousTestCase):
    """`python -m benchmarks --against`."""

    def test_every_load(self) -> None:
        """Each kind of load gives a figure for both trees and a ratio."""
        names = ("hello", "browser", "post", "connect", "chunks")
        told: list[str] = []
        outcomes = compare(
            [each for each in COMPARISONS if each.name in names],
            Tree("old", CHECKOUT),
            Tree("new", CHECKOUT),
            rounds=1,
            requests=20,
            pairs=2,
            cpu=min(os.sched_getaffinity(0)),
            tell=told.append,
        )
        self.assertEqual([each.comparison.name for each in outcomes], list(names))
        for outcome in outcomes:
            [result] = outcome.rounds
            self.assertGreater(result.old, 0.1, outcome.comparison.name)
            self.assertGreater(result.new, 0.1, outcome.comparison.name)
        self.assertEqual(len(told), len(names))


class MixedTests(SynchronousTestCase):
    """`python -m benchmarks.mixed`."""

    def test_results(self) -> None:
        """Both servers are measured; work and latencies have figures."""
        comparison = Comparison(Path(), peers=sys.executable, clients=2, seconds=0.5)
        setups = [SETUPS["default"], SETUPS["none"]]
        comparison.measure_all("loop", setups, 1)
        for setup in setups:
            [result] = comparison.results["loop", setup.name]
            self.assertGreater(result.work, 0.0)
            self.assertGreater(result.memory, 1e6)
            self.assertTrue(0 < result.p50 <= result.p99)
