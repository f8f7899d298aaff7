"""Run programs in child processes, each with its own reactor.

It starts programs and requires each to end in time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).resolve().parents[2]

#: Many times what the slowest program here needs.
END_SECONDS = 60.0


class ChildTestCase(SynchronousTestCase):
    """Base class of tests that run programs.

    Attributes:
        reactor: the module of `twisted.internet` that installs the reactor, as
            "asyncioreactor"; "" for the default one.
    """

    reactor = ""

    def start(self, program: str) -> subprocess.Popen[str]:
        """Start a program; the test's cleanup kills it."""
        lines = [textwrap.dedent(program)]
        if self.reactor:
            lines.insert(
                0, f"from twisted.internet import {self.reactor} as chosen_reactor"
            )
            lines.insert(1, self.install())
        child = subprocess.Popen(
            [sys.executable, "-c", "\n".join(lines)],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A background job of a shell ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        self.addCleanup(self._end, child)
        return child

    def install(self) -> str:
        """Return the statement that installs the reactor."""
        return "chosen_reactor.install()"

    def _end(self, child: subprocess.Popen[str]) -> None:
        if child.poll() is None:
            child.kill()
        child.communicate()

    def finish(
        self, child: subprocess.Popen[str], status: int | Sequence[int] = 0
    ) -> tuple[str, str]:
        """Wait for the end of a program and return its stdout and stderr.

        Raises:
            AssertionError: it does not end in time, or its exit status is another.
        """
        try:
            output, errors = child.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
            raise AssertionError(
                f"the program does not end:\n{output}\n{errors}"
            ) from None
        expected = [status] if isinstance(status, int) else status
        self.assertIn(child.returncode, expected, f"{output}\n{errors}")
        return output, errors

    def run_program(self, program: str, status: int = 0) -> tuple[str, str]:
        """Run a program to its end and return its stdout and stderr."""
        return self.finish(self.start(program), status)

    def interrupt(self, child: subprocess.Popen[str], mark: str) -> None:
        """Send SIGINT, as Ctrl-C does, as soon as the program has printed `mark`."""
        assert child.stdout is not None
        line = child.stdout.readline()
        self.assertEqual(line.strip(), mark)
        child.send_signal(signal.SIGINT)
