"""What `txgreenwsgi._http.llhttp` promises, and that our grammar is llhttp's.

A line that has been read by our own patterns may be believed later without asking
llhttp, so the two must agree on every byte. Where they do not, the reason is here.
"""

from __future__ import annotations

import random

from httptools import HttpParserError, HttpRequestParser
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.fields import FIELD_LINE
from txgreenwsgi._http.head import END, Malformed, Refusal
from txgreenwsgi._http.llhttp import validate_head
from txgreenwsgi._http.target import METHODS, check_request_line

from .streams import GOOD, bytewise, events

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


def _judged(head: bytes) -> bool:
    try:
        validate_head(head)
    except Malformed:
        return False
    return True


def _checked(line: bytes) -> bool:
    try:
        return check_request_line(line + b"\r\n", len(line))
    except Malformed:
        return False


class JudgeTests(SynchronousTestCase):
    """The verdict on whole heads."""

    def test_good_heads(self) -> None:
        """Every head that clients may send passes, whatever is to follow it."""
        for sentence, stream in GOOD.items():
            head = stream[: stream.index(b"\r\n\r\n", 2) + 4]
            self.assertTrue(_judged(head), sentence)

    def test_bad_head(self) -> None:
        """A bad one is refused with what llhttp says of it."""
        with self.assertRaises(Malformed) as caught:
            validate_head(HEAD + b"A : b\r\n\r\n")
        self.assertEqual(caught.exception.status, 400)
        self.assertEqual(
            caught.exception.reason, "malformed head: Invalid header token"
        )

    def test_incomplete_head(self) -> None:
        """A head is refused where llhttp thinks that it goes on."""
        self.assertFalse(_judged(HEAD))
        self.assertFalse(_judged(HEAD + b"A: b\r\n\r"))


class GrammarTests(SynchronousTestCase):
    """Our patterns and llhttp, byte for byte."""

    def test_names(self) -> None:
        """They agree about every byte of a name, wherever it stands."""
        for value in range(256):
            byte = bytes((value,))
            for line in (byte + b": v", byte + b"n: v", b"nn" + byte + b"m: v"):
                ours = FIELD_LINE.fullmatch(line) is not None
                self.assertEqual(ours, _judged(HEAD + line + b"\r\n\r\n"), line)

    def test_values(self) -> None:
        """They agree about every byte of a value, wherever it stands."""
        for value in range(256):
            byte = bytes((value,))
            for line in (
                b"N:" + byte,
                b"N:" + byte + b"v",
                b"N: \t" + byte + b" v",
                b"N: v" + byte + b"w",
                b"N: v" + byte,
                b"N: v \t" + byte,
            ):
                ours = FIELD_LINE.fullmatch(line) is not None
                self.assertEqual(ours, _judged(HEAD + line + b"\r\n\r\n"), line)

    def test_long_values(self) -> None:
        """They agree about every byte far inside a value.

        llhttp takes long values in strides of vector registers.
        """
        for value in range(256):
            byte = bytes((value,))
            for length in (15, 16, 17, 31, 32, 33, 100):
                line = b"N: " + b"v" * length + byte + b"w" * 40
                ours = FIELD_LINE.fullmatch(line) is not None
                self.assertEqual(ours, _judged(HEAD + line + b"\r\n\r\n"), line)

    def test_targets(self) -> None:
        """We accept no byte of a path or a query that llhttp refuses.

        It accepts one that we do not: "#", for it can read a URL with a fragment,
        which a target may not have (RFC 9112 3.2).
        """
        for value in range(256):
            byte = bytes((value,))
            for line in (
                b"GET /%b HTTP/1.1",
                b"GET /a%bb HTTP/1.1",
                b"GET /a?%bb HTTP/1.1",
                b"GET //%b HTTP/1.1",
                b"GET http://x/%b HTTP/1.1",
            ):
                ours = _checked(line % byte)
                theirs = _judged(line % byte + b"\r\nHost: x\r\n\r\n")
                # What llhttp ignores: a space more before the version, whatever
                # is behind the first space is refused by both.
                if byte == b"#" or (byte == b" " and line.endswith(b"%b HTTP/1.1")):
                    self.assertEqual((ours, theirs), (False, True), line % byte)
                else:
                    self.assertEqual(ours, theirs, line % byte)

    def test_methods(self) -> None:
        """Every method of our table is one of llhttp's."""
        for method in METHODS:
            self.assertTrue(_judged(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n"), method)


class _Body:
    """Collects what llhttp says of one chunked body."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.ended = True


class ChunkedTests(SynchronousTestCase):
    """Our own reading of chunked bodies, and llhttp's."""

    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    def _theirs(self, stream: bytes) -> bytes | None:
        """Return the data of a body that llhttp reads to its end."""
        body = _Body()
        reader = HttpRequestParser(body)
        try:
            # One by one, so that no byte behind the end is read.
            for byte in bytewise(self.head + stream):
                if not body.ended:
                    reader.feed_data(byte)
        except HttpParserError:
            return None
        return body.data if body.ended else None

    def _ours(self, stream: bytes) -> bytes | None:
        """Return the data of a body that we read to its end."""
        _, *found = events([self.head + stream])
        if END not in found:
            return None
        return found[0] if isinstance(found[0], bytes) else b""

    def test_alike(self) -> None:
        """A body that we accept is the same body to llhttp.

        We refuse some chunk extensions that it accepts: those that are neither a
        name nor a name and a value (RFC 9112 7.1.1).
        """
        good = b'4\r\nabcd\r\n00a;x=y;z="q"\r\n0123456789\r\n0\r\nA: b\r\n\r\n'
        alphabet = [bytes((byte,)) for byte in b'\r\n\t\0 0159afgAFGx+-_;=":,\\\x80']
        accepted = refused = stricter = 0
        for seed in range(6000):
            chance = random.Random(seed)
            stream = good
            for _ in range(chance.randrange(1, 3)):
                at = chance.randrange(len(stream))
                cut = chance.randrange(2)
                stream = stream[:at] + chance.choice(alphabet) + stream[at + cut :]
            ours, theirs = self._ours(stream), self._theirs(stream)
            if ours is not None:
                accepted += 1
                self.assertEqual(ours, theirs, f"seed {seed}: {stream!r}")
            elif theirs is None:
                refused += 1
            else:
                stricter += 1
                last = events([self.head + stream])[-1]
                assert isinstance(last, Refusal), stream
                self.assertEqual(last.reason, "malformed chunk size line")
        # The comparison is of little worth if nearly all is spoilt, or nothing.
        self.assertGreater(min(accepted, refused), 1000)
        self.assertLess(stricter, 300)
