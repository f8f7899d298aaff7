"""Compare the results of Django's own tests run normally and in a task.

    python -m tests.django.own_tests [--database ENGINE] [LABEL ...]

The source is that of the installed version; see `tests.sources`. `own_child.py` runs
the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.sources import NoSource, fetch_source

__all__ = ["LABELS", "NoSource", "Outcome", "compare", "fetch", "run"]

#: Tests of requests, handlers, transactions, streaming and per-thread state.
LABELS = (
    *("handlers", "requests_tests", "responses", "httpwrappers", "wsgi"),
    *("transactions", "transaction_hooks", "select_for_update", "signals"),
    *("middleware", "middleware_exceptions", "file_uploads", "async", "asgi"),
    *("sessions_tests", "messages_tests", "csrf_tests", "conditional_processing"),
    *("servers", "test_client", "test_client_regress", "view_tests"),
    *("cache", "db_utils", "backends", "timezones", "i18n", "urlpatterns_reverse"),
)
HOW = ("plain", "patched", "isolated")
_POOLED = "it marks a live connection as dead, which the pool may reuse"
#: Tests that fail by design on a pooled backend in a task, with the reasons.
KNOWN = {
    "backends.tests.ThreadTests.test_default_connection_thread_local": (
        "it counts the connections of ended threads; those of ended tasks are closed"
    ),
    "backends.base.test_base.ConnectionHealthChecksTests"
    ".test_health_checks_enabled": _POOLED,
    "backends.base.test_base.ConnectionHealthChecksTests"
    ".test_set_autocommit_health_checks_enabled": _POOLED,
    "backends.mysql.tests.IsolationLevelTests.test_auto_is_null_auto_config": (
        "it expects the query that sets up a session, which is not repeated for a "
        "connection from the pool"
    ),
}
_CHILD = Path(__file__).with_name("own_child.py")
RUN_SECONDS = 1200.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of a test run.

    Attributes:
        tests: "passed", "failed" or "skipped", by test id.
        output: the printed output.
    """

    tests: dict[str, str]
    output: str

    @property
    def counts(self) -> Counter[str]:
        """The number of tests by outcome."""
        return Counter(self.tests.values())


def fetch() -> Path:
    """Return the directory of the tests of the installed Django.

    Raises:
        NoSource: pip could not download it.
    """
    return fetch_source("Django") / "tests"


def run(how: str, labels: tuple[str, ...], environ: dict[str, str]) -> Outcome:
    """Run the tests of `labels` in a new process.

    Args:
        how: one of `HOW`; see `own_child.py`.
        labels: packages of Django's tests.
        environ: variables added to the environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        report.touch()
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", str(_CHILD), how),
                *(str(fetch()), str(report), *labels),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environ,
            timeout=RUN_SECONDS,
            check=False,
        )
        lines = report.read_text("utf-8").splitlines()
    return Outcome(dict(json.loads(line) for line in lines), done.stdout)


def compare(plain: Outcome, other: Outcome) -> dict[str, tuple[str, str]]:
    """Return both outcomes of the tests that passed normally and not in `other`."""
    return {
        name: (outcome, other.tests.get(name, "missing"))
        for name, outcome in plain.tests.items()
        if outcome == "passed" and other.tests.get(name) != "passed"
    }


def main() -> None:
    """Run the tests given on the command line and print the counts."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.django.own_tests", description=__doc__
    )
    parser.add_argument("labels", nargs="*", default=LABELS)
    parser.add_argument(
        "--database",
        choices=("sqlite3", "postgresql", "mysql"),
        help="use the backend of txgreenwsgi, on a server started for this run; "
        "default: Django's backend for SQLite, in memory",
    )
    parser.add_argument("--how", choices=HOW, action="append")
    options = parser.parse_args()
    labels = tuple(options.labels)
    with ExitStack() as stack:
        environ = {}
        if options.database:
            environ = {"OWN_DATABASE": options.database}
        if options.database in ("postgresql", "mysql"):
            from tests.integration import services

            kinds = {"postgresql": services.PostgreSQL, "mysql": services.MariaDB}
            service = stack.enter_context(kinds[options.database]())
            environ["OWN_PORT"] = str(service.port)
        plain = run("plain", labels, environ)
        print(f"plain: {dict(plain.counts)}", flush=True)
        for how in options.how or HOW[1:]:
            other = run(how, labels, environ)
            lost = compare(plain, other)
            print(f"{how}: {dict(other.counts)}; lost: {len(lost)}", flush=True)
            known = KNOWN if options.database else {}
            for name, (_, outcome) in lost.items():
                print(f"    {name}: {outcome}; {known.get(name, 'NOT KNOWN')}")
            if not lost.keys() <= known.keys():
                print(other.output[-20000:])


if __name__ == "__main__":
    main()
