"""The number of usable CPUs."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._workers.cpus import quota_of, usable_cpus


class CPUTests(SynchronousTestCase):
    """Affinity and limits."""

    def test_quota(self) -> None:
        """`cpu.max` is a quota and a period, or "max"."""
        self.assertEqual(quota_of("200000 100000\n"), 2.0)
        self.assertEqual(quota_of("50000 100000"), 0.5)
        for text in ("max 100000", "", "nonsense", "1 0", "-1 100"):
            self.assertIsNone(quota_of(text), text)

    def test_usable(self) -> None:
        """There is at least one, and no more than the machine has."""
        self.assertTrue(1 <= usable_cpus() <= (os.cpu_count() or 1))

    def test_affinity(self) -> None:
        """The affinity of the process counts."""
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, {min(before)})
        self.assertEqual(usable_cpus(), 1)
