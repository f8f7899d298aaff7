"""How many of CPython's tests pass unpatched, and how many of those patched.

Each module runs in a process of its own. A test during which nothing was told
for `HANG_SECONDS` has hung: the process is killed and the rest runs in another.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["MODULES", "Outcome", "run_module", "table"]

HANG_SECONDS = 60.0
#: Processes that a module may need: each hang or crash costs one.
MOST_PROCESSES = 40

_CHILD = Path(__file__).with_name("child.py")

#: What is measured: all that the issue of a green library touches.
MODULES = (
    "test_socket",
    "test_ssl",
    "test_select",
    "test_poll",
    "test_epoll",
    "test_selectors",
    "test_socketserver",
    "test_queue",
    "test_thread",
    "test_threading",
    "test_threading_local",
    "test_threadsignals",
    "test_httplib",
    "test_httpservers",
    "test_ftplib",
    "test_smtplib",
    "test_poplib",
    "test_imaplib",
    "test_telnetlib",
    "test_nntplib",
    "test_xmlrpc",
    "test_urllib2_localnet",
    "test_wsgiref",
    "test_sched",
    "test_logging",
    "test_subprocess",
    "test_wait3",
    "test_wait4",
)


@dataclass
class Outcome:
    """How the tests of one module ended: {test id: detail, or ""}."""

    passed: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def done(self) -> set[str]:
        """The tests that have ended."""
        return {*self.passed, *self.failed, *self.skipped}


def run_module(
    flavour: str, module: str, python: str, hang_seconds: float = HANG_SECONDS
) -> Outcome:
    """Run `module` in processes of `python`, patched by `flavour`."""
    outcome = Outcome()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stdlib-tests-") as folder:
        for number in range(MOST_PROCESSES):
            report = Path(folder, f"report-{number}")
            done = Path(folder, "done")
            done.write_text("\n".join(outcome.done()))
            if _run_once(flavour, module, python, report, done, hang_seconds, outcome):
                break
    outcome.seconds = time.monotonic() - began
    return outcome


def _run_once(
    flavour: str,
    module: str,
    python: str,
    report: Path,
    done: Path,
    hang_seconds: float,
    outcome: Outcome,
) -> bool:
    """One process; whether the module has been run to its end."""
    report.touch()
    log = report.with_suffix(".log")
    work = report.with_suffix(".work")
    work.mkdir()
    with log.open("w") as output:
        process = subprocess.Popen(
            [python, str(_CHILD), flavour, module, str(report), str(done)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=work,
            start_new_session=True,
            # A shell's background job ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
    size, told = 0, time.monotonic()
    hung = False
    while process.poll() is None:
        time.sleep(0.05)
        now = report.stat().st_size
        if now != size:
            size, told = now, time.monotonic()
        elif time.monotonic() - told > hang_seconds:
            hung = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the tests left behind
    running = ""
    ended = False
    for line in report.read_text().splitlines():
        what, test, detail = json.loads(line)
        running = test if what == "start" else ""
        if what == "end":
            ended = True
        elif what == "pass":
            outcome.passed[test] = ""
        elif what == "skip":
            outcome.skipped[test] = detail
        elif what == "fail":
            outcome.failed[test] = detail
    if ended:
        return True
    if running:
        outcome.failed[running] = "it hung" if hung else "the process died"
        outcome.failed[running] += "\n" + log.read_text()[-3000:]
        return False
    # Nothing ran: the module cannot be imported, or hangs before its first test.
    outcome.failed[module] = log.read_text()[-3000:]
    return True


def table(results: dict[str, dict[str, Outcome]]) -> str:
    """The figures as a table in Markdown: a row for each module.

    Args:
        results: {flavour: {module: outcome}}; "none" must be among the flavours.
    """
    flavours = [flavour for flavour in results if flavour != "none"]
    lines = [
        "| Module | Unpatched | " + " | ".join(flavours) + " |",
        "|---|---|" + "---|" * len(flavours),
    ]
    totals = dict.fromkeys(["none", *flavours], 0)
    for module, plain in results["none"].items():
        cells = [module, str(len(plain.passed))]
        totals["none"] += len(plain.passed)
        for flavour in flavours:
            outcome = results[flavour].get(module)
            if outcome is None:
                cells.append("")
                continue
            kept = len(plain.passed.keys() & outcome.passed.keys())
            totals[flavour] += kept
            cells.append(str(kept))
        lines.append("| " + " | ".join(cells) + " |")
    whole = totals["none"] or 1
    lines.append(
        f"| **all** | {totals['none']} | "
        + " | ".join(f"{totals[f]} ({totals[f] / whole:.1%})" for f in flavours)
        + " |"
    )
    return "\n".join(lines) + "\n"


def save(path: Path, results: dict[str, dict[str, Outcome]]) -> None:
    """Keep the results in a file of JSON."""
    path.write_text(
        json.dumps(
            {
                flavour: {module: asdict(outcome) for module, outcome in found.items()}
                for flavour, found in results.items()
            },
            indent=1,
        )
    )


def load(path: Path) -> dict[str, dict[str, Outcome]]:
    """What `save` has kept; nothing if there is no such file."""
    if not path.exists():
        return {}
    return {
        flavour: {module: Outcome(**kept) for module, kept in found.items()}
        for flavour, found in json.loads(path.read_text()).items()
    }


assert sys.platform != "win32", "the tests are run by process groups"
