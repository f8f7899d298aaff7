"""Run some of Django's own tests in this process and report each outcome.

A separate program, started by `own_tests.py`:

    python own_child.py HOW TESTS REPORT LABEL ...

HOW is "plain" (as Django runs them), "isolated" (in a task, nothing patched) or
"patched" (in a task, standard library patched). TESTS is the directory of Django's
tests, REPORT a file that gets one line of JSON per test.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import unittest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Not this directory: its modules have common names.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class Report(unittest.TextTestResult):
    """A test result that also writes the report file."""

    path = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._report = open(self.path, "a", buffering=1)  # noqa: SIM115 - until the end
        self._outcome = ""

    def _note(self, outcome: str) -> None:
        if self._outcome != "failed":
            self._outcome = outcome

    def startTest(self, test: Any) -> None:
        """Reset the outcome."""
        self._outcome = ""
        super().startTest(test)

    def stopTest(self, test: Any) -> None:
        """Write the outcome of a test."""
        super().stopTest(test)
        self._write(test.id(), self._outcome or "passed")

    def _write(self, name: str, outcome: str) -> None:
        self._report.write(json.dumps([name, outcome]) + "\n")

    def addError(self, test: Any, err: Any) -> None:
        """Note an error of a test or of its fixture."""
        super().addError(test, err)
        self._note("failed")
        if not isinstance(test, unittest.TestCase):
            self._write(test.id(), "failed")

    def addFailure(self, test: Any, err: Any) -> None:
        """Note a failure."""
        super().addFailure(test, err)
        self._note("failed")

    def addSkip(self, test: Any, reason: str) -> None:
        """Note a skipped test."""
        super().addSkip(test, reason)
        self._note("skipped")

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        """Note an expected failure, counted as skipped."""
        super().addExpectedFailure(test, err)
        self._note("skipped")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        """Note the failure of a subtest."""
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note("failed")


def _run(tests: str, labels: Sequence[str]) -> None:
    os.chdir(tests)
    sys.path.insert(0, tests)
    words = ["runtests.py", "--parallel=1", "--verbosity=1", "--noinput"]
    if "OWN_DATABASE" in os.environ:
        words.append("--settings=tests.django.own_settings")
    sys.argv = [*words, *labels]
    runpy.run_path("runtests.py", run_name="__main__")


def main(how: str, tests: str, report: str, *labels: str) -> None:
    """Run the tests and exit."""
    Report.path = report
    unittest.TextTestRunner.resultclass = Report
    if how == "plain":
        _run(tests, labels)
        return
    if how == "patched":
        from txgreenwsgi import monkey

        monkey.patch_all()
    from txgreenwsgi import isolation, react

    isolation.isolate_loaded()
    react(_run, tests, labels)


if __name__ == "__main__":
    main(*sys.argv[1:])
