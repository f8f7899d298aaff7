"""CPython's own tests on the patched library: a selection, or all by option.

All of `tests.stdlib.compare.MODULES` with TXGREENWSGI_STDLIB=all in the
environment; that takes a quarter of an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SkipTest, TestCase

from tests.stdlib.compare import MODULES, run_module, table
from tests.stdlib.known import REASONS

#: Those that take some seconds and touch every part.
SELECTION = (
    "test_select",
    "test_epoll",
    "test_threading_local",
    "test_thread",
    "test_httplib",
    "test_urllib2_localnet",
    "test_wait4",
)


class StdlibTests(TestCase):
    """What passes unpatched passes patched, but for the failures with a reason."""

    timeout = 3600

    def test_both_ways(self) -> None:
        """Each module is run unpatched and patched, and compared test by test."""
        # Asked of another process: in a worker of trial -j, `test` is Twisted's.
        asked = subprocess.run(
            [sys.executable, "-c", "import test.test_select"],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if asked.returncode:
            raise SkipTest("this Python has no `test` package")
        chosen = MODULES if os.environ.get("TXGREENWSGI_STDLIB") == "all" else SELECTION
        for module in chosen:
            plain = run_module("none", module, sys.executable)
            green = run_module("txgreenwsgi", module, sys.executable)
            lost = plain.passed.keys() - green.passed.keys() - REASONS.keys()
            self.assertTrue(plain.passed, f"{module}: {plain.failed}")
            self.assertEqual(
                {test: green.failed.get(test, "was not run") for test in lost}, {}
            )

    def test_table(self) -> None:
        """The table compares what passes with what passes unpatched."""
        from tests.stdlib.compare import Outcome

        plain = Outcome(passed={"a": "", "b": ""})
        green = Outcome(passed={"a": "", "c": ""}, failed={"b": "why"})
        text = table({"none": {"test_x": plain}, "ours": {"test_x": green}})
        self.assertIn("| test_x | 2 | 1 |", text)
        self.assertIn("1 (50.0%)", text)
