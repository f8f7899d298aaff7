"""Flask's and Werkzeug's own tests, in a task and through the server.

With TXGREENWSGI_FRAMEWORKS=all in the environment these are all of them, which takes
two minutes. Else all of Flask's, and those of Werkzeug that test requests and servers.
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
    """Tests that pass without txgreenwsgi pass here, or `KNOWN` lists them."""

    def words(self, project: str) -> tuple[str, ...]:
        """Return pytest's arguments for the selected tests."""
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
        """Run them in all ways, and compare the result of each test."""
        words = self.words(project)
        plain = run(project, "plain", *words)
        self.assertGreater(len(plain.passed), 100, plain.output)
        for how in ("task", "served"):
            outcome = run(project, how, *words)
            lost = plain.passed - outcome.passed - KNOWN[how].keys()
            self.assertEqual({test: outcome.tests.get(test) for test in lost}, {})
        self.assertGreater(outcome.served, 50)

    def test_flask(self) -> None:
        """Flask's tests pass in a task, and with each request served."""
        self.compare("flask")

    def test_werkzeug(self) -> None:
        """Werkzeug's tests pass in a task, and with each request served."""
        self.compare("werkzeug")

    def test_live(self) -> None:
        """Werkzeug's tests of its server pass on this one, or `KNOWN` lists them."""
        self.words("werkzeug")
        outcome = run("werkzeug", "live")
        lost = outcome.tests.keys() - outcome.passed - KNOWN["live"].keys()
        self.assertEqual({test: outcome.tests[test] for test in lost}, {})
        self.assertGreaterEqual(len(outcome.passed), 9, outcome.output)

    def test_table(self) -> None:
        """The table counts the tests that pass, of those that pass plainly."""
        plain = Outcome({"a": ("passed", ""), "b": ("passed", "")}, 0, "")
        served = Outcome({"a": ("passed", ""), "b": ("failed", "x")}, 7, "")
        text = table({("flask", "plain"): plain, ("flask", "served"): served})
        self.assertIn("| 2 | - | 1, by 7 requests | - |", text)
