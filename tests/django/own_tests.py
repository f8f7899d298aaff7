"""Django's own tests, run as ever and in a task, and what that makes of them.

    python -m tests.django.own_tests [--database ENGINE] [LABEL ...]

Their source is that of the installed version, see `tests.sources`. `own_child.py`
runs them.
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

#: Requests, handlers, transactions, streaming, and what goes by the thread.
LABELS = (
    *("handlers", "requests_tests", "responses", "httpwrappers", "wsgi"),
    *("transactions", "transaction_hooks", "select_for_update", "signals"),
    *("middleware", "middleware_exceptions", "file_uploads", "async", "asgi"),
    *("sessions_tests", "messages_tests", "csrf_tests", "conditional_processing"),
    *("servers", "test_client", "test_client_regress", "view_tests"),
    *("cache", "db_utils", "backends", "timezones", "i18n", "urlpatterns_reverse"),
)
HOW = ("plain", "patched", "isolated")
_POOLED = (
    "what it says to be dead lives, so the pool has no reason not to give it out again"
)
#: Tests of what is meant to be otherwise on a pooled backend in a task, and why.
KNOWN = {
    "backends.tests.ThreadTests.test_default_connection_thread_local": (
        "it counts the connections of threads that have ended; a task's are closed "
        "by then"
    ),
    "backends.base.test_base.ConnectionHealthChecksTests"
    ".test_health_checks_enabled": _POOLED,
    "backends.base.test_base.ConnectionHealthChecksTests"
    ".test_set_autocommit_health_checks_enabled": _POOLED,
    "backends.mysql.tests.IsolationLevelTests.test_auto_is_null_auto_config": (
        "it looks for the query that sets a session up, which is not done again for "
        "a connection from the pool"
    ),
}
_CHILD = Path(__file__).with_name("own_child.py")
RUN_SECONDS = 1200.0


@dataclass(frozen=True)
class Outcome:
    """How some tests ended.

    Attributes:
        tests: by name "passed", "failed" or "skipped".
        output: what was printed.
    """

    tests: dict[str, str]
    output: str

    @property
    def counts(self) -> Counter[str]:
        """How many ended in which way."""
        return Counter(self.tests.values())


def fetch() -> Path:
    """Return the directory of the tests of the installed Django.

    Raises:
        NoSource: pip could not fetch it.
    """
    return fetch_source("Django") / "tests"


def run(how: str, labels: tuple[str, ...], environ: dict[str, str]) -> Outcome:
    """Run the tests of `labels` in a process of their own.

    Args:
        how: one of `HOW`; see `own_child.py`.
        labels: packages of Django's tests.
        environ: added to the environment.
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
    """The tests that passed plainly and do not otherwise: how they ended."""
    return {
        name: (outcome, other.tests.get(name, "missing"))
        for name, outcome in plain.tests.items()
        if outcome == "passed" and other.tests.get(name) != "passed"
    }


def main() -> None:
    """Run what the command line asks for, and print the counts."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.django.own_tests", description=__doc__
    )
    parser.add_argument("labels", nargs="*", default=LABELS)
    parser.add_argument(
        "--database",
        choices=("sqlite3", "postgresql", "mysql"),
        help="our backend for it, on a server started for this; default: Django's "
        "for SQLite, in memory",
    )
    parser.add_argument("--how", choices=HOW, action="append")
    said = parser.parse_args()
    labels = tuple(said.labels)
    with ExitStack() as stack:
        environ = {}
        if said.database:
            environ = {"OWN_DATABASE": said.database}
        if said.database in ("postgresql", "mysql"):
            from tests.integration import services

            kinds = {"postgresql": services.PostgreSQL, "mysql": services.MariaDB}
            service = stack.enter_context(kinds[said.database]())
            environ["OWN_PORT"] = str(service.port)
        plain = run("plain", labels, environ)
        print(f"plain: {dict(plain.counts)}", flush=True)
        for how in said.how or HOW[1:]:
            other = run(how, labels, environ)
            lost = compare(plain, other)
            print(f"{how}: {dict(other.counts)}; lost: {len(lost)}", flush=True)
            known = KNOWN if said.database else {}
            for name, (_, outcome) in lost.items():
                print(f"    {name}: {outcome}; {known.get(name, 'NOT KNOWN')}")
            if not lost.keys() <= known.keys():
                print(other.output[-20000:])


if __name__ == "__main__":
    main()
