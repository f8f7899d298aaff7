"""Run some of Django's own tests in this process, and tell how each ends.

A program of its own, run by `own_tests.py`:

    python own_child.py HOW TESTS REPORT LABEL ...

HOW says where the tests run: "plain", as Django's own; "isolated", in a task, with
nothing patched; "patched", in a task, with the standard library patched. TESTS is the
directory of Django's tests, REPORT a file that gets a line of JSON for each test.
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

# Not this directory, whose modules have common names.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class Report(unittest.TextTestResult):
    """Tells a file as well."""

    path = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._report = open(self.path, "a", buffering=1)  # noqa: SIM115 - until the end
        self._outcome = ""

    def _note(self, outcome: str) -> None:
        if self._outcome != "failed":
            self._outcome = outcome

    def startTest(self, test: Any) -> None:
        """A test begins."""
        self._outcome = ""
        super().startTest(test)

    def stopTest(self, test: Any) -> None:
        """It has ended."""
        super().stopTest(test)
        self._tell(test.id(), self._outcome or "passed")

    def _tell(self, name: str, outcome: str) -> None:
        self._report.write(json.dumps([name, outcome]) + "\n")

    def addError(self, test: Any, err: Any) -> None:
        """It failed, or what prepares it did."""
        super().addError(test, err)
        self._note("failed")
        if not isinstance(test, unittest.TestCase):
            self._tell(test.id(), "failed")

    def addFailure(self, test: Any, err: Any) -> None:
        """It failed."""
        super().addFailure(test, err)
        self._note("failed")

    def addSkip(self, test: Any, reason: str) -> None:
        """It does not run here."""
        super().addSkip(test, reason)
        self._note("skipped")

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        """It failed, as is known."""
        super().addExpectedFailure(test, err)
        self._note("skipped")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        """A part of one has ended."""
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
    """Run them; exits."""
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
