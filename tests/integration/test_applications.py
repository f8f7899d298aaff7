"""The runner of applications, with an application of the tests."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tools.applications.runner import run_application
from tools.applications.table import APPLICATIONS, Application


class RunnerTests(SynchronousTestCase):
    """`run_application`, in the environment of the tests."""

    def run_sample(self, application: Application, *options: str) -> tuple[bool, str]:
        """Run an application; return the result and the report."""
        output = io.StringIO()
        with (
            patch.dict(APPLICATIONS, {"sample": application}),
            redirect_stdout(output),
        ):
            passed = run_application(
                "sample", Path(sys.prefix), None, options, install=False
            )
        return passed, output.getvalue()

    def test_passed(self) -> None:
        """The report has the checks, the version and the failures in the log."""
        module = "tests.integration.sample_application"
        passed, output = self.run_sample(
            Application("Sample", ("Twisted",), {}, ("--patch=none",), module)
        )
        self.assertTrue(passed, output)
        self.assertIn("ok: one\nok: many\nok: failure\n", output)
        self.assertRegex(output, r"Sample [\d.]+: passed; tracebacks .* log: 1\n")

    def test_failed(self) -> None:
        """The report has the failed step and the log."""
        passed, output = self.run_sample(
            Application("Sample", ("Twisted",), module="tests.integration.nothing")
        )
        self.assertFalse(passed)
        self.assertIn("Sample: FAILED: prepare: ", output)
        self.assertIn("No module named tests.integration.nothing", output)
        module = "tests.integration.sample_application"
        application = Application("Sample", ("Twisted",), module=module)
        passed, output = self.run_sample(application, "--max-in-flight=wrong")
        self.assertFalse(passed)
        self.assertIn("the server does not listen", output)
        self.assertIn("wrong", output)

    def test_missing_program(self) -> None:
        """The report names the package of a missing program."""
        programs = {"no-such-program": "a-package"}
        passed, output = self.run_sample(Application("Sample", (), programs))
        self.assertFalse(passed)
        self.assertIn("no-such-program is not installed: apt install a-package", output)
