"""CPython's own tests on the patched library: a selection, or all of them.

With TXGREENWSGI_STDLIB=all in the environment these are all of
`tests.stdlib.compare.MODULES`, which takes a quarter of an hour.
"""

from __future__ import annotations

import os
import sys

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.stdlib.compare import MODULES, Outcome, run_module, table
from tests.stdlib.known import REASONS
from tests.stdlib.presence import has_tests

#: Modules that take some seconds and cover every patched part.
SELECTION = (
    "test_select",
    "test_epoll",
    "test_threading_local",
    "test_thread",
    "test_httplib",
    "test_urllib2_localnet",
    "test_wait4",
)


if has_tests("test.test_select"):

    class StdlibTests(TestCase):
        """A selection of CPython's test modules, where the installation has them."""

        timeout = 3600

        def test_unpatched_and_patched(self) -> None:
            """A test that passes unpatched passes patched, or `REASONS` lists it."""
            chosen = (
                MODULES if os.environ.get("TXGREENWSGI_STDLIB") == "all" else SELECTION
            )
            for module in chosen:
                plain = run_module("none", module, sys.executable)
                green = run_module("txgreenwsgi", module, sys.executable)
                lost = plain.passed.keys() - green.passed.keys() - REASONS.keys()
                self.assertTrue(plain.passed, f"{module}: {plain.failed}")
                self.assertEqual(
                    {test: green.failed.get(test, "was not run") for test in lost}, {}
                )


class TableTests(SynchronousTestCase):
    """The table of `python -m tests.stdlib`."""

    def test_table(self) -> None:
        """It compares the tests that pass with those that pass unpatched."""
        plain = Outcome(passed={"a": "", "b": ""})
        green = Outcome(passed={"a": "", "c": ""}, failed={"b": "why"})
        text = table({"none": {"test_x": plain}, "ours": {"test_x": green}})
        self.assertIn("| test_x | 2 | 1 |", text)
        self.assertIn("1 (50.0%)", text)
