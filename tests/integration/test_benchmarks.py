"""A short comparison of this checkout with itself, with real servers."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.against import COMPARISONS, Tree, compare
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
