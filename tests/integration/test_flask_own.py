"""Flask's and Werkzeug's own tests, in a task and through the server.

All of them with TXGREENWSGI_FRAMEWORKS=all in the environment; that takes two
minutes. Else all of Flask's, and of Werkzeug's those of requests and servers.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.frameworks.own_tests import KNOWN, NoSource, Outcome, fetch, run, table

CHOSEN = {
    "flask": ("tests",),
    "werkzeug": tuple(
        f"tests/test_{name}.py"
        for name in ("test", "wsgi", "wrappers", "formparser", "local")
    ),
}


class OwnTests(SynchronousTestCase):
    """What passes as ever passes here, but for the failures with a reason."""

    def words(self, project: str) -> tuple[str, ...]:
        """Which tests are run."""
        if find_spec("pytest") is None:
            raise SkipTest("pytest is not installed")
        try:
            fetch(project)
        except NoSource as error:
            raise SkipTest(str(error)) from None
        if os.environ.get("TXGREENWSGI_FRAMEWORKS") == "all":
            return ("tests",)
        return CHOSEN[project]

    def compare(self, project: str) -> None:
        """Run them in all ways, and compare test by test."""
        words = self.words(project)
        plain = run(project, "plain", *words)
        self.assertGreater(len(plain.passed), 100, plain.output)
        for how in ("task", "served"):
            outcome = run(project, how, *words)
            lost = plain.passed - outcome.passed - KNOWN[how].keys()
            self.assertEqual({test: outcome.tests.get(test) for test in lost}, {})
        self.assertGreater(outcome.served, 50)

    def test_flask(self) -> None:
        """Flask's tests pass in a task, and with every request served."""
        self.compare("flask")

    def test_werkzeug(self) -> None:
        """Werkzeug's tests pass in a task, and with every request served."""
        self.compare("werkzeug")

    def test_live(self) -> None:
        """What Werkzeug asks of its own server, ours does too, or better."""
        self.words("werkzeug")
        outcome = run("werkzeug", "live")
        lost = outcome.tests.keys() - outcome.passed - KNOWN["live"].keys()
        self.assertEqual({test: outcome.tests[test] for test in lost}, {})
        self.assertGreaterEqual(len(outcome.passed), 10, outcome.output)

    def test_table(self) -> None:
        """The table counts what passes of what passes as ever."""
        plain = Outcome({"a": ("passed", ""), "b": ("passed", "")}, 0, "")
        served = Outcome({"a": ("passed", ""), "b": ("failed", "x")}, 7, "")
        text = table({("flask", "plain"): plain, ("flask", "served"): served})
        self.assertIn("| 2 | - | 1, by 7 requests | - |", text)
