"""Short benchmarks of this checkout, with real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.against import COMPARISONS, Tree, compare
from benchmarks.mixed import SETUPS, Comparison
from tests.folders import short_folder
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


class WorkersTests(SynchronousTestCase):
    """`python -m benchmarks --workers`."""

    def run_benchmarks(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks", "--scenarios=chunks"),
                *("--rounds=1", *words),
            ],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def test_results(self) -> None:
        """Two workers are measured; the table is a file of its own."""
        folder = short_folder(self)
        done = self.run_benchmarks(
            "--workers=2",
            "--servers=txgreenwsgi,waitress",
            "--seconds=1",
            f"--output={folder}",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        table = (folder / "workers.md").read_text("utf-8")
        # With a note if the path has moved to threads, which join blocks.
        self.assertRegex(table, r"\| \*\*txgreenwsgi\*\* \| +[\d,]+( \[1\])? \|")
        self.assertIn("2 workers of a server and the client on ", table)
        self.assertNotIn("waitress", table)
        self.assertTrue((folder / "workers.svg").exists())

    def test_refused(self) -> None:
        """Wrong numbers and servers of one process are refused."""
        for words, message in (
            (["--workers=0"], "--workers 0: give a whole number from 1 to 64"),
            (
                ["--workers=2", "--servers=waitress"],
                "--workers 2: none of --servers waitress can have more than one",
            ),
            (
                ["--workers=2", "--against=HEAD"],
                "--workers has no meaning with --against; leave it out",
            ),
        ):
            done = self.run_benchmarks(*words)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(message, done.stderr)
