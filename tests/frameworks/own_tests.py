"""Flask's and Werkzeug's own tests: unchanged, in a task, and through the server.

    python -m tests.frameworks [flask] [werkzeug] [--how HOW] [--why]

The source is that of the installed versions, see `tests.sources`. `own_child.py`
runs each suite in its own process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.sources import NoSource, fetch_source

__all__ = ["HOW", "KNOWN", "PROJECTS", "NoSource", "Outcome", "fetch", "run", "table"]

PROJECTS = ("flask", "werkzeug")
#: `live` is for Werkzeug only: its tests with a server in another process.
HOW = ("plain", "task", "served", "live")
RUN_SECONDS = 600.0
_HERE = Path(__file__).parent

_NO_BYTES = (
    "its application yields str, but PEP 3333 requires bytes: the server refuses it"
)
_LINTED = "tests the linter of an invalid response, which the server refuses"
_SMUGGLING = "Content-Length with Transfer-Encoding is refused (RFC 9112, 6.1)"
_HTTP_1_0 = "Werkzeug's server uses HTTP/1.0 here; this one ends the body by chunks"
_COMMA = "fields with the same name are joined by comma and space (RFC 9110, 5.2)"
_FOLDED = "a folded field is refused (RFC 9112, 5.2)"
_SLASHES = "the application gets the path unchanged"
_FRAGMENT = "a target with a fragment is refused (RFC 9112, 3.2)"
_NO_HOST = "its client sends the socket path as Host, which is refused"
_LINT = "tests/middleware/test_lint.py::test_lint_middleware_"
_LIVE = "tests/test_serving.py::test_"

#: Expected failures of tests that pass unchanged: {how: {test: reason}}.
KNOWN: dict[str, dict[str, str]] = {
    "task": {},
    "served": {
        "tests/test_testing.py::test_full_url_request": (
            "reads the form after the request has ended"
        ),
        f"{_LINT}invalid_status": _LINTED,
        f"{_LINT}http_headers[headers0-Header list is not a list.]": _LINTED,
        f"{_LINT}http_headers[headers1-Header items must be 2-item tuples.]": _LINTED,
        "tests/test_test.py::test_path_info_script_name_unquoting": _NO_BYTES,
        "tests/test_wrappers.py::test_base_response": _NO_BYTES,
        "tests/test_wsgi.py::test_closing_iterator": _NO_BYTES,
    },
    "live": {
        f"{_LIVE}server[unix socket]": _NO_HOST,
        f"{_LIVE}untrusted_host": _FRAGMENT,
        f"{_LIVE}double_slash_path": _SLASHES,
        f"{_LIVE}chunked_request[True]": _SMUGGLING,
        f"{_LIVE}chunked_request[False]": (
            "a chunked body is received before the call, and gets a CONTENT_LENGTH"
        ),
        f"{_LIVE}streaming_close_response[]": _HTTP_1_0,
        f"{_LIVE}streaming_close_response[crash]": _HTTP_1_0,
        f"{_LIVE}multiple_headers_concatenated": _COMMA,
        f"{_LIVE}multiline_header_folding": _FOLDED,
    },
}

#: Deselects tests of Werkzeug's reloader and request class.
_NOT_OF_A_SERVER = "not reloader and not ipv6_scope"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a test suite.

    Attributes:
        tests: outcome and reason of each test, by name.
        served: number of requests that went through the server.
        output: the printed output.
    """

    tests: dict[str, tuple[str, str]]
    served: int
    output: str

    @property
    def passed(self) -> set[str]:
        """The names of the tests that passed."""
        return {name for name, (how, _) in self.tests.items() if how == "passed"}


def fetch(project: str) -> Path:
    """Return the source folder of the installed version of `project`.

    Raises:
        NoSource: pip could not fetch it.
    """
    return fetch_source(project)


_RESERVE = '''"""A replacement for the package of this name."""
import socket

def reserve(host="127.0.0.1"):
    with socket.socket() as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]
'''

_RUN = """import sys
sys.path.append({checkout!r})
from tests.frameworks.live_server import main
main()
"""


def run(project: str, how: str, *words: str) -> Outcome:
    """Run the tests of `project`.

    Args:
        project: one of `PROJECTS`.
        how: one of `HOW`.
        words: pytest arguments that select tests (default: all).
    """
    with tempfile.TemporaryDirectory(prefix="own-tests-") as name:
        work = Path(name)
        source = fetch(project)
        (work / "ephemeral_port_reserve.py").write_text(_RESERVE)
        if how == "live":
            checkout = str(_HERE.parents[1])
            source = Path(shutil.copytree(source, work / "source"))
            script = source / "tests" / "live_apps" / "run.py"
            script.write_text(_RUN.format(checkout=checkout))
            chosen = ["-m", "dev_server", "-k", _NOT_OF_A_SERVER]
            words = words or ("tests/test_serving.py",)
        else:
            chosen = ["-m", "not dev_server"]
        done = subprocess.run(
            [
                *(sys.executable, str(_HERE / "own_child.py")),
                *("plain" if how == "live" else how, str(work / "report")),
                *(*chosen, *(words or ("tests",))),
            ],
            cwd=source,
            env={**os.environ, "PYTHONPATH": str(work)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if not (work / "report").exists():
            raise AssertionError(f"{project}, {how}: {done.stdout[-3000:]}")
        told = json.loads((work / "report").read_text())
    served = int(told.pop("requests", ("", "0"))[1])
    ended = {name: (how, why) for name, (how, why) in told.items()}
    return Outcome(ended, served, done.stdout)


def table(outcomes: dict[tuple[str, str], Outcome]) -> str:
    """Return a Markdown table with the number of passed tests of each project."""
    lines = [
        "| Tests of | unchanged | in a task | served | live |",
        "|---|---|---|---|---|",
    ]
    for project in dict.fromkeys(project for project, _ in outcomes):
        plain = outcomes[project, "plain"].passed
        cells = [f"{project} {version(project)}", str(len(plain))]
        for how in HOW[1:]:
            outcome = outcomes.get((project, how))
            if outcome is None:
                cells.append("-")
            elif how == "live":
                cells.append(f"{len(outcome.passed)} of {len(outcome.tests)}")
            else:
                cell = str(len(outcome.passed & plain))
                if outcome.served:
                    cell += f", by {outcome.served} requests"
                cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
