"""Compare the results of CPython's tests with and without patching.

Each module runs in its own process. A test that reports nothing for `HANG_SECONDS` has
hung: the process is killed and the remaining tests run in another one.
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
#: Maximum number of processes per module: each hang or crash costs one.
MAX_PROCESSES = 40

_CHILD = Path(__file__).with_name("child.py")

#: The test modules of all that patching affects.
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
    """Outcome of the tests of one module: details by test id.

    Attributes:
        passed: tests that passed, with empty details.
        failed: tests that failed, with their traceback.
        skipped: tests that were skipped, with the reason.
        seconds: duration of the run.
    """

    passed: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def done(self) -> set[str]:
        """Return the ids of all tests that have ended."""
        return {*self.passed, *self.failed, *self.skipped}


def run_module(
    flavour: str, module: str, python: str, hang_seconds: float = HANG_SECONDS
) -> Outcome:
    """Run a test module.

    Args:
        flavour: the library that patches.
        module: the name of the test module.
        python: the interpreter.
        hang_seconds: time without a report after which a test has hung.
    """
    outcome = Outcome()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stdlib-tests-") as folder:
        for number in range(MAX_PROCESSES):
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
    """Run one process, and return whether the module has run to its end."""
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
            # Background jobs of a shell ignore Ctrl-C, and their children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
    size, reported = 0, time.monotonic()
    hung = False
    while process.poll() is None:
        time.sleep(0.05)
        now = report.stat().st_size
        if now != size:
            size, reported = now, time.monotonic()
        elif time.monotonic() - reported > hang_seconds:
            hung = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # processes left behind by tests
    running = ""
    ended = False
    for line in report.read_text().splitlines():
        event, test, detail = json.loads(line)
        running = test if event == "start" else ""
        if event == "end":
            ended = True
        elif event == "pass":
            outcome.passed[test] = ""
        elif event == "skip":
            outcome.skipped[test] = detail
        elif event == "fail":
            outcome.failed[test] = detail
    if ended:
        return True
    if running:
        outcome.failed[running] = "it hung" if hung else "the process died"
        outcome.failed[running] += "\n" + log.read_text()[-3000:]
        return False
    # No test ran: the module cannot be imported, or hangs before its first test.
    outcome.failed[module] = log.read_text()[-3000:]
    return True


def table(results: dict[str, dict[str, Outcome]]) -> str:
    """Return the results as a Markdown table with one row per module.

    Args:
        results: {flavour: {module: outcome}}; it must contain the flavour "none".
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
    """Save results to a JSON file."""
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
    """Load the results saved by `save`; return {} if there is no file."""
    if not path.exists():
        return {}
    return {
        flavour: {module: Outcome(**kept) for module, kept in found.items()}
        for flavour, found in json.loads(path.read_text()).items()
    }


assert sys.platform != "win32", "the tests are run by process groups"
