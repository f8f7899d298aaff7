"""Pyramid and Bottle, which keep the request in a `threading.local`: whose is it?"""

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
    """Fifty requests at once that wake in any order: name, answer, its JSON."""
    server = shared(app, *options)
    chance = random.Random(50)
    waits = [chance.randint(1, 50) / 100 for _ in range(MANY)]

    def fetch(number: int) -> tuple[str, Answer, Any]:
        name = f"n{number:02}"  # all as long: so is what is told of them
        answer = server.fetch(f"{path}?name={name}&seconds={waits[number]}")
        return name, answer, json.loads(answer.body)

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(fetch, range(MANY)))


class PyramidTests(SynchronousTestCase):
    """Its thread-local stack of requests and registries."""

    def setUp(self) -> None:
        """Look for it."""
        if find_spec("pyramid") is None:
            raise SkipTest("Pyramid is not installed")

    def test_current_request(self) -> None:
        """`get_current_request` is the request's own, however many take turns."""
        for name, _, told in ask(PYRAMID, "/view"):
            self.assertEqual(told, {"asked": name, "found": name, "registry": "ours"})

    def test_subrequests(self) -> None:
        """A subrequest is pushed and popped within its own request."""
        for name, _, told in ask(PYRAMID, "/nested"):
            self.assertEqual(told["inner"]["found"], f"sub-{name}")
            self.assertEqual(told["found"], name)

    def test_unpatched(self) -> None:
        """Without patching all requests share one stack: views find another's."""
        told = [told for _, _, told in ask(PYRAMID, "/view", "--patch=none")]
        strangers = [each for each in told if each["found"] != each["asked"]]
        self.assertGreater(len(strangers), MANY // 2)


class BottleTests(SynchronousTestCase):
    """Its `request` and `response`."""

    def test_request_and_response(self) -> None:
        """Each view finds its own request, and sets fields of its own response."""
        for name, answer, told in ask(BOTTLE, "/view"):
            self.assertEqual(told, {"asked": name, "found": name})
            self.assertEqual(answer.headers["X-Name"], name)

    def test_unpatched(self) -> None:
        """Without patching a view finds the request of whoever came last."""
        answers = ask(BOTTLE, "/view", "--patch=none")
        strangers = [told for name, _, told in answers if told["found"] != name]
        self.assertGreater(len(strangers), MANY // 2)
