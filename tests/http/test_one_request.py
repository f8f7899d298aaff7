"""Tests of `feed(..., one=True)`: one request per call, the rest kept unread."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.head import END, Refusal, RequestHead

from .accepted import CHUNKED, GET
from .refused import REFUSED
from .streams import events, joined, mutated, parser, split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi._http.parser import Event

REQUEST = GET + b"\r\n"


def one_by_one(pieces: Iterable[bytes]) -> list[Event]:
    """Return the events of a new parser that is asked for one request at a time."""
    reader = parser()
    found: list[Event] = []
    for piece in pieces:
        found += reader.feed(piece, one=True)
        while reader.has_unread:
            found += reader.feed(b"", one=True)
    return joined(found)


class OneRequestTests(SynchronousTestCase):
    """`feed(..., one=True)`."""

    def test_stops_after_each_request(self) -> None:
        """One call returns the rest of one request, and nothing of the next."""
        reader = parser()
        stream = REQUEST + CHUNKED + b"1\r\na\r\n0\r\n\r\n" + REQUEST
        for expected in ([END], [b"a", END], [END]):
            found = reader.feed(stream, one=True)
            stream = b""
            self.assertIsInstance(found[0], RequestHead)
            self.assertEqual(found[1:], expected)
        self.assertFalse(reader.has_unread)
        self.assertTrue(reader.idle)

    def test_unread_is_not_idle(self) -> None:
        """The parser is not idle while it holds unread bytes of a request."""
        reader = parser()
        reader.feed(REQUEST + b"G", one=True)
        self.assertTrue(reader.has_unread)
        self.assertFalse(reader.idle)
        self.assertEqual(reader.feed(b"", one=True), [])
        self.assertFalse(reader.has_unread)
        self.assertFalse(reader.idle)

    def test_more_unread_data(self) -> None:
        """Data fed while bytes are unread is appended to them, and not parsed."""
        reader = parser()
        reader.feed(REQUEST * 2, one=True)
        for byte in REQUEST:
            self.assertEqual(reader.feed(bytes((byte,)), one=True), [])
        self.assertEqual(len(reader.feed(b"", one=True)), 2)
        self.assertEqual(len(reader.feed(b"", one=True)), 2)
        self.assertFalse(reader.has_unread)

    def test_all_the_rest_at_once(self) -> None:
        """feed() without `one` returns all requests, the unread ones first."""
        reader = parser()
        reader.feed(REQUEST * 3, one=True)
        self.assertEqual(len(reader.feed(REQUEST)), 2 * 3)
        self.assertFalse(reader.has_unread)

    def test_refused_after_a_valid_request(self) -> None:
        """A refusal is reported in its order, and nothing after it."""
        for sentence, (status, stream) in REFUSED.items():
            reader = parser()
            self.assertEqual(len(reader.feed(REQUEST + stream, one=True)), 2, sentence)
            found = one_by_one([REQUEST + stream + REQUEST])
            last = found[-1]
            assert isinstance(last, Refusal), sentence
            self.assertEqual(last.status, status, sentence)
            self.assertEqual(found, events([REQUEST + stream + REQUEST]), sentence)

    def test_data_after_the_last_request(self) -> None:
        """Data after a request that ends the connection is not kept."""
        reader = parser()
        reader.feed(GET + b"Connection: close\r\n\r\n" + REQUEST, one=True)
        self.assertFalse(reader.has_unread)
        self.assertTrue(reader.idle)

    def test_stopped(self) -> None:
        """After stop(), the parser holds no data and ignores further data."""
        for stream in (REQUEST * 2, REQUEST + b"G", CHUNKED + b"5\r\nab", b"GET"):
            reader = parser()
            reader.feed(stream, one=True)
            reader.stop()
            self.assertFalse(reader.has_unread)
            self.assertEqual(reader.feed(REQUEST), [])
            self.assertEqual(reader.feed(REQUEST, one=True), [])

    def test_same_events(self) -> None:
        """One at a time or all at once, and however split, the events are the same."""
        for seed in range(2000):
            chance = random.Random(seed)
            stream = mutated(chance) + mutated(chance)
            self.assertEqual(one_by_one(split(stream, chance)), events([stream]), seed)
