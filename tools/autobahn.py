"""Run Autobahn's fuzzing client against the server, and write the table of results.

The suite needs Python 2.7. Install it into a folder of its own, then run this:

    python2.7 -m pip install --target DIR autobahntestsuite==25.10.1
    touch DIR/zope/__init__.py
    python -m tools.autobahn --python python2.7 --library DIR

It takes about half an hour for all cases. `--cases '1.*' '7.*'` runs some of them, and
`--results FILE` adds their results to a file of JSON, so that the suite can be run in
parts; the table is that of the file. The exit status is 1 if a case has failed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.process import ROOT, free_port
from txgreenwsgi import WebSocketRefused, websocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["echo", "main", "table_of"]

FIGURES: Final = ROOT / "docs" / "figures" / "autobahn.md"

#: The largest message of the suite is 16 MiB.
_MAX_MESSAGE: Final = 32 * 1024 * 1024

#: Results that are not failures: the suite reports some cases for information only.
_PASSED: Final = frozenset({"OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED"})

#: Number of cases of the suite.
_CASES: Final = 517

_GROUPS: Final = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing handshake",
    "9": "Large messages, many messages",
    "10": "Automatic fragmentation",
    "12": "Compression, different contents and sizes",
    "13": "Compression, different parameters",
}


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send each message back."""
    try:
        with websocket(environ, max_message=_MAX_MESSAGE, ping=0) as ws:
            for message in ws:
                ws.send(message)
    except WebSocketRefused as error:
        start_response(error.status, [("Content-Type", "text/plain")])
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", required=True, help="interpreter, Python 2.7")
    parser.add_argument("--library", required=True, help="folder of the suite")
    parser.add_argument("--cases", nargs="+", default=["*"], help="such as 1.* 7.*")
    parser.add_argument("--results", help="file of JSON to which results are added")
    options = parser.parse_args(arguments)
    port = free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "txgreenwsgi", "tools.autobahn:echo"),
            *("--listen", f"tcp:{port}:interface=127.0.0.1"),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        with tempfile.TemporaryDirectory() as folder:
            results = _run_suite(options, port, Path(folder))
    finally:
        server.terminate()
        server.wait()
    if options.results:
        kept = Path(options.results)
        if kept.exists():
            results = json.loads(kept.read_text()) | results
        kept.write_text(json.dumps(results))
    text = table_of(results)
    print(text)
    if options.cases == ["*"] or options.results:
        FIGURES.write_text(text)
    return int(any(not _passed(result) for result in results.values()))


def _run_suite(
    options: argparse.Namespace, port: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """Return the result of each case by its number."""
    specification = {
        "options": {"failByDrop": False},
        "outdir": str(folder),
        "servers": [{"agent": "txgreenwsgi", "url": f"ws://127.0.0.1:{port}"}],
        "cases": options.cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    file = folder / "specification.json"
    file.write_text(json.dumps(specification))
    program = (
        f"import sys; sys.argv = ['wstest', '-m', 'fuzzingclient', '-s', {str(file)!r}]"
        "; from autobahntestsuite.wstest import run; run()"
    )
    environment = {**os.environ, "PYTHONPATH": options.library}
    subprocess.run(
        [options.python, "-c", program], env=environment, cwd=folder, check=True
    )
    index = json.loads((folder / "index.json").read_text())
    results: dict[str, dict[str, Any]] = index["txgreenwsgi"]
    return results


def _passed(result: dict[str, Any]) -> bool:
    return result["behavior"] in _PASSED and result["behaviorClose"] in _PASSED


def table_of(results: dict[str, dict[str, Any]]) -> str:
    """Return the page with the results.

    Args:
        results: by case, the results as the suite writes them.
    """
    lines = [
        "# WebSocket conformance",
        "",
        "Results of the fuzzing client of the Autobahn test suite 25.10.1 against the",
        "echo application of `tools/autobahn.py`, which uses `txgreenwsgi.websocket`.",
        "`python -m tools.autobahn` writes this page.",
        "",
        "| Group | Cases | OK | Non-strict | Informational | Failed |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[str, Counter[str]] = {}
    for case, result in results.items():
        counter = groups.setdefault(case.split(".")[0], Counter())
        counter["cases"] += 1
        counter[result["behavior"] if _passed(result) else "failed"] += 1
    total: Counter[str] = Counter()
    columns = ("cases", "OK", "NON-STRICT", "INFORMATIONAL", "failed")
    for group in sorted(groups, key=int):
        total += groups[group]
        counts = " | ".join(str(groups[group][column]) for column in columns)
        lines.append(f"| {group}. {_GROUPS.get(group, '')} | {counts} |")
    lines.append(f"| All | {' | '.join(str(total[column]) for column in columns)} |")
    if len(results) < _CASES:
        lines += ["", f"{len(results)} of the {_CASES} cases of the suite were run."]
    others = {
        case: result
        for case, result in results.items()
        if result["behavior"] != "OK" or result["behaviorClose"] != "OK"
    }
    if others:
        lines += ["", "Cases with another result than OK:", ""]
        lines += ["| Case | Behavior | Closing |", "|---|---|---|"]
    for case in sorted(others, key=lambda case: [int(n) for n in case.split(".")]):
        result = others[case]
        lines.append(f"| {case} | {result['behavior']} | {result['behaviorClose']} |")
    return "\n".join([*lines, ""])


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        with socket.socket() as skt:
            if not skt.connect_ex(("127.0.0.1", port)):
                return
        if time.monotonic() > end:
            raise TimeoutError(f"no server on port {port} after 60 seconds")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
