"""The guardian of a program, with a signal of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT

PATIENCE_SECONDS = 120


class GuardianTests(SynchronousTestCase):
    """Each runs `guarded_program`."""

    def run_program(self, name: str) -> tuple[int, str]:
        """Return its exit status, and what it and its guardian have written."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.guarded_program", name],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def assert_killed(self, name: str, function: str) -> None:
        """Fail unless it is killed in a function, which the guardian reports."""
        status, output = self.run_program(name)
        self.assertEqual(status, -signal.SIGKILL, output)
        self.assertIn("did not end in time after a signal and was killed", output)
        self.assertRegex(output, rf'guarded_program\.py", line [0-9]+ in {function}\n')

    def test_storm(self) -> None:
        """Signals do not crash a process that changes its Python stack."""
        self.assertEqual(self.run_program("storm"), (0, ""))

    def test_blocked(self) -> None:
        """The guardian sees a signal that Python cannot handle."""
        self.assert_killed("block", "block")

    def test_blocked_at_exit(self) -> None:
        """It sees a signal after the end of the reactor."""
        self.assert_killed("at_exit", "block")

    def test_handled(self) -> None:
        """It sees a signal that Python has handled."""
        self.assert_killed("handled", "main")

    def test_other_handler(self) -> None:
        """It forgets a signal that the application handles."""
        self.assertEqual(self.run_program("left"), (0, ""))

    def test_fork(self) -> None:
        """It does not see signals to the child of a fork."""
        status, output = self.run_program("forked")
        # Python warns of a fork in a process with threads.
        self.assertEqual(status, 0, output)

    def test_children(self) -> None:
        """The reactor still notices the end of child processes."""
        self.assertEqual(self.run_program("child"), (0, ""))
