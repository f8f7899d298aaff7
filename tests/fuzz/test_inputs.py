"""The initial inputs of the fuzzer and the inputs that once failed."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from tests.http.watched import Wanted

from .inputs import dictionary, encode, run, seeds

#: The shortest input for each defect that was found, by the name of the defect.
FOUND: dict[str, bytes] = {}


class InputTests(SynchronousTestCase):
    """The checks of the fuzzer, run without it."""

    def tearDown(self) -> None:
        """Discard the errors that the application raises on purpose."""
        self.flushLoggedErrors(Wanted)

    def test_seeds(self) -> None:
        """Valid requests are parsed alike, however they are cut and sent."""
        for seed in seeds():
            run(seed)

    def test_found(self) -> None:
        """Inputs that once failed no longer fail."""
        for data in FOUND.values():
            run(data)

    def test_corrupted(self) -> None:
        """Corrupted requests are parsed alike, however they are cut, or refused."""
        chance = random.Random(7)
        words = dictionary()
        for seed in seeds() * 4:
            stream = seed
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(3, len(stream))
                stream = stream[:at] + chance.choice(words) + stream[at:]
            run(encode(stream[3:], settings=chance.randrange(4)))
