"""The benchmark of a trivial page beside blocking work: its arithmetic and tables."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import mixed
from benchmarks.mixed import SETUPS, Comparison, Result, median, percentile


class FiguresTests(SynchronousTestCase):
    """Percentiles and medians."""

    def test_percentile(self) -> None:
        """At least the share of the figures does not exceed a percentile."""
        figures = [float(number) for number in range(100, 0, -1)]
        self.assertEqual(percentile(figures, 0.5), 50.0)
        self.assertEqual(percentile(figures, 0.99), 99.0)
        self.assertEqual(percentile([7.0], 0.5), 7.0)
        self.assertEqual(percentile([1.0, 2.0], 0.99), 2.0)

    def test_median(self) -> None:
        """Each figure has its own median."""
        results = [
            Result(p50=1.0, p99=9.0, work=3.0, memory=5.0),
            Result(p50=2.0, p99=8.0, work=1.0, memory=4.0),
            Result(p50=3.0, p99=7.0, work=2.0, memory=6.0),
        ]
        self.assertEqual(
            median(results), Result(p50=2.0, p99=8.0, work=2.0, memory=5.0)
        )


class SetupTests(SynchronousTestCase):
    """The command lines."""

    def test_commands(self) -> None:
        """Each server listens on the port; the others run in the interpreter given."""
        for name, setup in SETUPS.items():
            words = setup.command(4321, "/python")
            self.assertIn("4321", " ".join(words), name)
            self.assertEqual(words[0] == "/python", not setup.ours, name)
        self.assertNotIn("--threads-for", SETUPS["default"].words)

    def test_unknown_names(self) -> None:
        """An unknown kind of work or server is an error that lists the known ones."""
        for option in ("--work", "--servers"):
            errors = io.StringIO()
            with (
                patch.object(sys, "argv", ["mixed", option, "bogus"]),
                redirect_stderr(errors),
            ):
                self.assertRaises(SystemExit, mixed.main)
            self.assertIn(f"{option}: unknown bogus; give some of [", errors.getvalue())


class TableTests(SynchronousTestCase):
    """The tables."""

    def setUp(self) -> None:
        """Make results of two rounds."""
        self.comparison = Comparison(Path(), peers="", clients=6, seconds=1)
        for name, latency, work in (
            ("default", 0.002, 10.0),
            ("gthread", 0.001, 20.0),
            ("granian", 0.004, 5.0),
        ):
            self.comparison.results["zlib", SETUPS[name].name] = [
                Result(p50=latency * round_, p99=0.1, work=work, memory=5e7)
                for round_ in (1, 2)
            ]
        self.setups = [
            SETUPS[name] for name in ("default", "gthread", "granian", "waitress")
        ]

    def test_table(self) -> None:
        """The table has medians, and a dash where a server could not be measured."""
        heading, _, row = self.comparison.table(["zlib"], self.setups).split("\n")
        self.assertEqual(
            heading, "| work | txgreenwsgi | gunicorn gthread | granian | waitress |"
        )
        self.assertTrue(
            row.startswith("| zlib | 3.0 / 100 ms, 10.0/s, 50 MB | 1.5 / "), row
        )
        self.assertTrue(row.endswith(" | - |"), row)

    def test_ratios(self) -> None:
        """Each figure is relative to the best of the other servers."""
        [row] = self.comparison.ratios(["zlib"], self.setups).split("\n")[2:]
        self.assertEqual(
            row,
            "| zlib | txgreenwsgi | 2.00 (2.00 to 2.00) | 1.00 (1.00 to 1.00) "
            "| 0.50 (0.50 to 0.50) | 1.00 (1.00 to 1.00) |",
        )
