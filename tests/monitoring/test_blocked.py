"""Tests of the report of blocked lines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.monitoring.blocked import SUMMARY_LINES, BlockedLine, BlockedReport
from txgreenwsgi.monitoring.stacks import CodeLine


class BlockedReportTests(SynchronousTestCase):
    """`BlockedReport`."""

    def setUp(self) -> None:
        """Begin with an empty report."""
        self.report = BlockedReport()

    def add(self, line: int, seconds: float, request: str = "GET /") -> None:
        """Add a block of a line."""
        self.report.add(CodeLine("/srv/a.py", line, "f"), "", seconds, request)

    def test_sums(self) -> None:
        """Each line has its number of blocks, their duration and the last request."""
        self.add(1, 0.5)
        self.add(2, 2.0, "GET /b")
        self.add(1, 0.25, "GET /a")
        self.assertEqual(
            self.report.lines(),
            [
                BlockedLine("/srv/a.py", 2, "f", "", 1, 2.0, 2.0, "GET /b"),
                BlockedLine("/srv/a.py", 1, "f", "", 2, 0.75, 0.5, "GET /a"),
            ],
        )
        self.assertEqual(
            str(self.report.lines()[1]),
            "0.75 s in 2 blocks, at most 0.50 s: /srv/a.py:1 in f (GET /a)",
        )

    def test_kinds(self) -> None:
        """The kinds of blocks of one line are separate."""
        line = CodeLine("/srv/a.py", 1, "f")
        self.report.add(line, "import", 3.0, "GET /")
        self.report.add(line, "", 1.0, "GET /")
        self.assertEqual(
            [str(line) for line in self.report.lines()],
            [
                "3.00 s in 1 block, at most 3.00 s: /srv/a.py:1 in f, import (GET /)",
                "1.00 s in 1 block, at most 1.00 s: /srv/a.py:1 in f (GET /)",
            ],
        )

    def test_bound(self) -> None:
        """A thousand lines are kept: those that blocked for longest."""
        for number in range(1100):
            self.add(number, number + 1.0)
        lines = self.report.lines()
        self.assertEqual(len(lines), 1000)
        self.assertEqual((lines[0].line, lines[-1].line), (1099, 100))

    def test_summary(self) -> None:
        """The summary has ten lines, once until there is another block."""
        self.assertEqual(self.report.summary(), [])
        for number in range(20):
            self.add(number, number + 1.0)
        self.assertEqual(self.report.summary(), self.report.lines()[:SUMMARY_LINES])
        self.assertEqual(self.report.summary(), [])
        self.add(1, 1.0)
        self.assertEqual(len(self.report.summary()), SUMMARY_LINES)

    def test_reset(self) -> None:
        """A reset report is empty."""
        self.add(1, 1.0)
        self.report.reset()
        self.assertEqual(self.report.lines(), [])
        self.assertEqual(self.report.summary(), [])
