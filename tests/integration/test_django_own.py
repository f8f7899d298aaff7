"""A selection of Django's own tests, run in a task.

`python -m tests.django.own_tests` runs all of them, with more databases.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.django.own_tests import NoSource, Outcome, compare, fetch, run

LABELS = ("handlers", "requests_tests", "transactions", "transaction_hooks", "wsgi")
#: Django 4.2 has more; with fewer, the run itself is broken.
LEAST = 200


class OwnTests(SynchronousTestCase):
    """Tests that pass without txgreenwsgi pass in a task."""

    plain: ClassVar[Outcome | None] = None

    def setUp(self) -> None:
        """Run the tests without txgreenwsgi, once."""
        try:
            fetch()
        except NoSource as error:
            raise SkipTest(f"Django's source is not available: {error}") from None
        if OwnTests.plain is None:
            OwnTests.plain = run("plain", LABELS, {})
        self.assertGreater(
            OwnTests.plain.counts["passed"], LEAST, OwnTests.plain.output
        )

    def check(self, how: str) -> None:
        """Run the tests in another way, and compare."""
        assert self.plain is not None
        outcome = run(how, LABELS, {})
        lost = compare(self.plain, outcome)
        self.assertEqual(lost, {}, outcome.output[-5000:])

    def test_patched(self) -> None:
        """With the standard library patched."""
        self.check("patched")

    def test_isolated(self) -> None:
        """With Django isolated and nothing patched."""
        self.check("isolated")
