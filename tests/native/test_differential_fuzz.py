"""A fuzzer of the compiled server: random streams, compared with the server in Python.

It mutates valid requests byte by byte and line by line, mixes them with requests for
random responses, cuts the stream anywhere and leaves at any point. Each server has two
settings in turn. TXGREENWSGI_FUZZ_SECONDS sets the time, for example 600, and makes the
streams random; by default a fixed number of fixed streams is sent.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.endurance.figures import note
from tests.http.streams import ALPHABET, GOOD, LINES, mutated, split

from .app import encode
from .pair import Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS: Final = float(os.environ.get("TXGREENWSGI_FUZZ_SECONDS", "0"))
STREAMS: Final = 200
SMALL: Final = (
    *("--max-header-size=300", "--max-headers=6", "--max-target=120"),
    *("--max-body=20", "--input-window=1"),
)
PATHS: Final = (
    *(b"/hello", b"/body", b"/lines", b"/some", b"/pieces", b"/unread", b"/sleep"),
    *(b"/fail", b"/chunks", b"/environ"),
)


def with_path(stream: bytes, chance: random.Random) -> bytes:
    """Return a stream whose first request is for a path of the application."""
    method, space, rest = stream.partition(b" ")
    _, other, rest = rest.partition(b" ")
    return method + space + chance.choice(PATHS) + other + rest


def random_response(chance: random.Random) -> bytes:
    """Return a request for a response of random fields and blocks."""
    fields: list[list[Any]] = [
        [
            chance.choice(
                ("X-A", "Content-Type", "Content-Length", "Date", "Set-Cookie")
            ),
            chance.choice(
                ("5", "text/plain", "a" * chance.randrange(300), "\xe4", "0")
            ),
        ]
        for _ in range(chance.randrange(4))
    ]
    spec = {
        "status": chance.choice(
            ("200 OK", "204 None", "404", "500 Error", "2", "304 X")
        ),
        "fields": fields,
        "blocks": [
            {"repeat": ["x", chance.choice((0, 1, 5, 100, 16_384, 65_536, 70_000))]}
            for _ in range(chance.randrange(4))
        ],
        "by": chance.choice(
            ("list", "tuple", "generator", "sleeping", "write", "both")
        ),
    }
    method = chance.choice((b"GET", b"GET", b"HEAD", b"POST"))
    head = method + b" /respond?" + encode(spec).encode() + b" HTTP/1.1\r\n"
    return head + b"Host: x\r\n\r\n"


def random_stream(chance: random.Random) -> list[bytes]:
    """Return the pieces of a random stream."""
    parts = []
    for _ in range(chance.randrange(1, 4)):
        match chance.randrange(4):
            case 0:
                parts.append(random_response(chance))
            case 1:
                parts.append(with_path(chance.choice(list(GOOD.values())), chance))
            case 2:
                parts.append(with_path(mutated(chance), chance))
            case _:
                parts.append(mutated(chance))
    stream = bytearray(b"".join(parts))
    for _ in range(chance.choice((0, 0, 1, 2, 5))):
        at = chance.randrange(len(stream))
        match chance.randrange(4):
            case 0:
                stream[at] = chance.randrange(256)
            case 1:
                stream[at : at + chance.randrange(8)] = chance.choice(ALPHABET)
            case 2:
                stream[at:at] = chance.choice(LINES) + b"\r\n"
            case _:
                del stream[at : at + chance.randrange(40)]
        if not stream:
            return [b"\r\n"]
    return split(bytes(stream), chance)


class FuzzTests(SynchronousTestCase):
    """Random streams to a compiled server and to one in pure Python."""

    def fuzz(self, options: Sequence[str]) -> None:
        """Send streams until the time is over, and compare the logs."""
        seed = random.randrange(2**32) if SECONDS else 3
        chance = random.Random(seed)
        # A chunked body is not awaited, which would depend on time.
        pair = Pair(self, [*options, "--chunked=stream"])
        end = time.monotonic() + SECONDS / 2
        count = 0
        while count < STREAMS or time.monotonic() < end:
            pieces = random_stream(chance)
            pair.check(pieces, leave=chance.random() < 0.5)
            count += 1
        note("fuzz", seed=seed, streams=count, options=options)
        pair.finish()

    def test_default(self) -> None:
        """With the settings that the fast path is made for."""
        self.fuzz([])

    def test_small(self) -> None:
        """With small limits and a small window."""
        self.fuzz(SMALL)
