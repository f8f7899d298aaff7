"""Pyramid and Bottle keep the request in a `threading.local`."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .processes import shared

if TYPE_CHECKING:
    from .processes import Answer

PYRAMID = "tests.frameworks.pyramid_site:app"
BOTTLE = "tests.frameworks.bottle_site:app"
MANY = 50


def ask(app: str, path: str, *options: str) -> list[tuple[str, Answer, Any]]:
    """Send fifty requests that wake up in random order; return names and answers."""
    server = shared(app, *options)
    chance = random.Random(50)
    waits = [chance.randint(1, 50) / 100 for _ in range(MANY)]

    def fetch(number: int) -> tuple[str, Answer, Any]:
        name = f"n{number:02}"  # equal lengths, and so equal lengths of the answers
        answer = server.fetch(f"{path}?name={name}&seconds={waits[number]}")
        return name, answer, json.loads(answer.body)

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(fetch, range(MANY)))


class PyramidTests(SynchronousTestCase):
    """Pyramid's thread-local stack of requests and registries."""

    def setUp(self) -> None:
        """Skip if it is not installed."""
        if find_spec("pyramid") is None:
            raise SkipTest("Pyramid is not installed")

    def test_current_request(self) -> None:
        """`get_current_request` is the request's own under concurrency."""
        for name, _, found in ask(PYRAMID, "/view"):
            self.assertEqual(found, {"asked": name, "found": name, "registry": "ours"})

    def test_subrequests(self) -> None:
        """A subrequest is pushed and popped within its own request."""
        for name, _, found in ask(PYRAMID, "/nested"):
            self.assertEqual(found["inner"]["found"], f"sub-{name}")
            self.assertEqual(found["found"], name)

    def test_unpatched(self) -> None:
        """Without patching all requests share one stack: views find other requests."""
        answers = [found for _, _, found in ask(PYRAMID, "/view", "--patch=none")]
        strangers = [each for each in answers if each["found"] != each["asked"]]
        self.assertGreater(len(strangers), MANY // 2)


class BottleTests(SynchronousTestCase):
    """Bottle's `request` and `response`."""

    def test_request_and_response(self) -> None:
        """Each view has its own request and response."""
        for name, answer, found in ask(BOTTLE, "/view"):
            self.assertEqual(found, {"asked": name, "found": name})
            self.assertEqual(answer.headers["X-Name"], name)

    def test_unpatched(self) -> None:
        """Without patching a view finds the most recent request."""
        answers = ask(BOTTLE, "/view", "--patch=none")
        strangers = [found for name, _, found in answers if found["found"] != name]
        self.assertGreater(len(strangers), MANY // 2)
