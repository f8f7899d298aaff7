"""Run tests of Flask or Werkzeug in this process and report their outcomes.

A program that `own_tests.py` runs in the folder of a source distribution:

    python own_child.py HOW REPORT [PYTEST ARGUMENTS ...]

HOW is `plain`; `task`, in a task with the patched standard library; or `served`,
where the requests of Werkzeug's test client go through the real server in memory.
REPORT is the name of a JSON file to write: {test: [outcome, reason]}.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_MOST_CHARACTERS = 3000


class Outcomes:
    """A pytest plugin that records the outcomes of tests."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record the outcome of a setup, call or teardown."""
        known = self.tests.get(report.nodeid)
        if known is None or (known[0] == "passed" and report.outcome != "passed"):
            why = "" if report.outcome == "passed" else str(report.longrepr)
            self.tests[report.nodeid] = (report.outcome, why[-_MOST_CHARACTERS:])


def _run(outcomes: Outcomes, words: list[str]) -> None:
    pytest: Any = import_module("pytest")
    patching: Any = import_module("_pytest.monkeypatch")
    if not hasattr(patching, "notset"):
        # Flask's conftest uses a name that newer versions of pytest renamed.
        patching.notset = patching.NOTSET
    pytest.main(
        [
            *("-q", "-p", "no:cacheprovider", "--tb=short", "-W", "default"),
            # Modules that a newer pytest cannot import are left out in both runs.
            "--continue-on-collection-errors",
            *words,
        ],
        plugins=[outcomes],
    )


def main(how: str, report: str, words: list[str]) -> None:
    """Run the tests selected by the pytest arguments `words`."""
    outcomes = Outcomes()
    if how == "task":
        from txgreenwsgi import monkey

        monkey.patch_all()
        monkey.run(lambda: _run(outcomes, words))
    else:
        served: Any = None
        if how == "served":
            sys.path.insert(0, str(Path(__file__).parents[2]))
            served = import_module("tests.frameworks.served")
            served.serve_test_clients()
        _run(outcomes, words)
        if served is not None:
            outcomes.tests["requests"] = ("served", str(served.counts["served"]))
            print(dict(served.counts))
    Path(report).write_text(json.dumps(outcomes.tests))


if __name__ == "__main__":
    sys.path.pop(0)  # the tests must not import modules of this folder
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
    sys.stdout.flush()
    os._exit(0)  # do not wait for threads that tests left running
