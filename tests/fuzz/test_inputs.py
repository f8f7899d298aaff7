"""The inputs that the fuzzer begins with, and those that once broke something."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from tests.http.watched import Wanted

from .inputs import dictionary, encode, run, seeds

#: Each is the shortest input that did, by what it broke.
FOUND: dict[str, bytes] = {}


class InputTests(SynchronousTestCase):
    """What a fuzzer does, without one."""

    def tearDown(self) -> None:
        """What the application was asked to raise is no fault."""
        self.flushLoggedErrors(Wanted)

    def test_seeds(self) -> None:
        """Good requests are read as they were sent, however that was."""
        for seed in seeds():
            run(seed)

    def test_found(self) -> None:
        """What was found is mended."""
        for data in FOUND.values():
            run(data)

    def test_spoilt(self) -> None:
        """Seeds with a few words put in are read by all in one way, or refused."""
        chance = random.Random(7)
        words = dictionary()
        for seed in seeds() * 4:
            stream = seed
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(3, len(stream))
                stream = stream[:at] + chance.choice(words) + stream[at:]
            run(encode(stream[3:], settings=chance.randrange(4)))
