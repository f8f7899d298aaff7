"""Run one of CPython's test modules in this process and report each test.

A separate program, started by `compare.py` with various interpreters, so it imports
nothing of this project except for patching:

    python child.py FLAVOUR MODULE REPORT [DONE]

FLAVOUR is the library that patches: none, txgreenwsgi, gevent or eventlet. REPORT is a
file that gets one line of JSON when a test starts and when it ends. DONE is a file with
ids of tests to skip.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import unittest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Left out: resources that need the internet, or much time or space.
_RESOURCES = ("cpu", "subprocess", "walltime", "decimal")


class Report(unittest.TestResult):
    """A test result that writes each outcome to a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - until the end
        self._outcome = ""
        self._detail = ""

    def _write(self, event: str, test: Any, detail: str = "") -> None:
        self._file.write(json.dumps([event, test.id(), detail]) + "\n")

    def _note(self, outcome: str, detail: str = "") -> None:
        if self._outcome not in ("fail", "error"):
            self._outcome, self._detail = outcome, detail

    def startTest(self, test: Any) -> None:
        """Report the start of a test."""
        super().startTest(test)
        self._outcome, self._detail = "", ""
        self._write("start", test)

    def stopTest(self, test: Any) -> None:
        """Report the outcome of a test."""
        super().stopTest(test)
        self._write(self._outcome or "pass", test, self._detail)

    def addError(self, test: Any, err: Any) -> None:
        """Note an error of a test or of its fixture."""
        detail = self._exc_info_to_string(err, test)  # type: ignore[attr-defined]
        if isinstance(test, unittest.TestCase):
            self._note("fail", detail)
        else:  # setUpClass or setUpModule
            self._write("fail", test, detail)

    addFailure = addError  # noqa: N815 - unittest's name

    def addSkip(self, test: Any, reason: str) -> None:
        """Note a skipped test."""
        if isinstance(test, unittest.TestCase):
            self._note("skip", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        """Note an expected failure, counted as skipped."""
        self._note("skip", "expected")

    def addUnexpectedSuccess(self, test: Any) -> None:
        """Note an unexpected success, counted as a failure."""
        self._note("fail", "unexpected success")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        """Note the failure of a subtest."""
        if err is not None:
            self.addError(test, err)


def _flat(suite: Any) -> Iterator[Any]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def run_tests(module_name: str, report: str, done: frozenset[str]) -> None:
    """Run the tests of `test.<module_name>` that are not in `done`."""
    support: Any = importlib.import_module("test.support")
    support.use_resources = list(_RESOURCES)
    if module_name == "test_socketserver":
        support.use_resources.append("network")  # it uses this machine only
    support.verbose = 0
    module = importlib.import_module(f"test.{module_name}")
    loaded = unittest.defaultTestLoader.loadTestsFromModule(module)
    suite = unittest.TestSuite(test for test in _flat(loaded) if test.id() not in done)
    suite.run(Report(report))


def _run_plain(main: Callable[[], None]) -> None:
    main()


def _run_green(main: Callable[[], None]) -> None:
    from txgreenwsgi import monkey

    monkey.patch_all()
    status = monkey.run(main)
    if status:
        raise SystemExit(status)


def _run_gevent(main: Callable[[], None]) -> None:
    importlib.import_module("gevent.monkey").patch_all()
    main()


def _run_eventlet(main: Callable[[], None]) -> None:
    importlib.import_module("eventlet").monkey_patch()
    main()


_RUN = {
    "none": _run_plain,
    "txgreenwsgi": _run_green,
    "gevent": _run_gevent,
    "eventlet": _run_eventlet,
}


def main(flavour: str, module: str, report: str, done_path: str = "") -> None:
    """Patch by `flavour`, then run the tests."""
    done: frozenset[str] = frozenset()
    if done_path:
        with open(done_path) as file:
            done = frozenset(file.read().splitlines())
    _RUN[flavour](lambda: run_tests(module, report, done))
    with open(report, "a") as file:
        file.write(json.dumps(["end", module, ""]) + "\n")


if __name__ == "__main__":
    sys.path.pop(0)  # the modules of this directory would hide others
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # do not wait for threads left behind by a test
