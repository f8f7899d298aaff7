"""Run tests of Flask's or Werkzeug's in this process, and tell of each.

A program of its own, run by `own_tests.py` in the folder of a source distribution:

    python own_child.py HOW REPORT [PYTEST'S WORDS ...]

HOW is `plain`; or `task`, in a task on the patched library; or `served`, where each
request of Werkzeug's test client goes through the real server, in memory. REPORT
becomes a file of JSON: {test: [how it ended, why]}.
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
    """A plugin of pytest's that notes how tests end."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test was set up, called or torn down."""
        known = self.tests.get(report.nodeid)
        if known is None or (known[0] == "passed" and report.outcome != "passed"):
            why = "" if report.outcome == "passed" else str(report.longrepr)
            self.tests[report.nodeid] = (report.outcome, why[-_MOST_CHARACTERS:])


def _run(outcomes: Outcomes, words: list[str]) -> None:
    pytest: Any = import_module("pytest")
    patching: Any = import_module("_pytest.monkeypatch")
    if not hasattr(patching, "notset"):
        # What Flask's conftest reaches for has another name in newer versions.
        patching.notset = patching.NOTSET
    pytest.main(
        [
            *("-q", "-p", "no:cacheprovider", "--tb=short", "-W", "default"),
            # A module that a newer pytest cannot load is left out, both times.
            "--continue-on-collection-errors",
            *words,
        ],
        plugins=[outcomes],
    )


def main(how: str, report: str, words: list[str]) -> None:
    """Run the tests that pytest's `words` choose."""
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
    sys.path.pop(0)  # this folder's modules are none of the tests'
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
    sys.stdout.flush()
    os._exit(0)  # threads that a test has left behind must not hold us up
