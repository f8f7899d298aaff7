"""Tests of `txgreenwsgi._http.llhttp`, and comparison of our grammar with llhttp's.

A cached line is accepted later without validation by llhttp, so our patterns and llhttp
must agree on every byte. The exceptions and their reasons are recorded here.
"""

from __future__ import annotations

import random
import re

from httptools import HttpParserError, HttpRequestParser
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.fields import FIELD_LINE
from txgreenwsgi._http.head import END, Malformed, Refusal
from txgreenwsgi._http.llhttp import validate_head
from txgreenwsgi._http.target import check_request_line

from .streams import GOOD, bytewise, events

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


def _accepted_by_llhttp(head: bytes) -> bool:
    try:
        validate_head(head)
    except Malformed:
        return False
    return True


def _accepted_by_us(line: bytes) -> bool:
    try:
        return check_request_line(line + b"\r\n", len(line))
    except Malformed:
        return False


class ValidationTests(SynchronousTestCase):
    """`validate_head` on whole heads."""

    def test_valid_heads(self) -> None:
        """Valid heads pass, whatever body or upgrade follows them."""
        for sentence, stream in GOOD.items():
            head = stream[: stream.index(b"\r\n\r\n", 2) + 4]
            self.assertTrue(_accepted_by_llhttp(head), sentence)

    def test_malformed_head(self) -> None:
        """A malformed head is refused with the error message of llhttp."""
        with self.assertRaises(Malformed) as caught:
            validate_head(HEAD + b"A : b\r\n\r\n")
        self.assertEqual(caught.exception.status, 400)
        self.assertEqual(
            caught.exception.reason, "malformed head: Invalid header token"
        )

    def test_incomplete_head(self) -> None:
        """A head that llhttp considers incomplete is refused."""
        self.assertFalse(_accepted_by_llhttp(HEAD))
        self.assertFalse(_accepted_by_llhttp(HEAD + b"A: b\r\n\r"))


class GrammarTests(SynchronousTestCase):
    """Our patterns compared with llhttp, byte by byte."""

    def test_names(self) -> None:
        """Both accept the same bytes at every position of a name."""
        for value in range(256):
            byte = bytes((value,))
            for line in (byte + b": v", byte + b"n: v", b"nn" + byte + b"m: v"):
                ours = FIELD_LINE.fullmatch(line) is not None
                self.assertEqual(
                    ours, _accepted_by_llhttp(HEAD + line + b"\r\n\r\n"), line
                )

    def test_values(self) -> None:
        """Both accept the same bytes at every position of a value."""
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
                self.assertEqual(
                    ours, _accepted_by_llhttp(HEAD + line + b"\r\n\r\n"), line
                )

    def test_long_values(self) -> None:
        """Both accept the same bytes far inside a long value.

        llhttp scans long values with vector instructions.
        """
        for value in range(256):
            byte = bytes((value,))
            for length in (15, 16, 17, 31, 32, 33, 100):
                line = b"N: " + b"v" * length + byte + b"w" * 40
                ours = FIELD_LINE.fullmatch(line) is not None
                self.assertEqual(
                    ours, _accepted_by_llhttp(HEAD + line + b"\r\n\r\n"), line
                )

    def test_targets(self) -> None:
        """We refuse every byte of a path or query that llhttp refuses.

        llhttp accepts one more byte, "#": it parses URLs with a fragment, which a
        target must not have (RFC 9112 3.2).
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
                ours = _accepted_by_us(line % byte)
                theirs = _accepted_by_llhttp(line % byte + b"\r\nHost: x\r\n\r\n")
                # llhttp ignores a second space before the version; both refuse
                # other data after the first space.
                if byte == b"#" or (byte == b" " and line.endswith(b"%b HTTP/1.1")):
                    self.assertEqual((ours, theirs), (False, True), line % byte)
                else:
                    self.assertEqual(ours, theirs, line % byte)

    def test_methods(self) -> None:
        """The method has no effect on the validation of the rest of the head.

        Not even one that llhttp does not know, or that changes the grammar of the head
        there: CONNECT (target), PRI (HTTP/2), SOURCE (ICE) and PLAY (RTSP).
        """
        for method in (
            *(b"GET", b"POST", b"BREW", b"get", b"x" * 256, b"!#$%&'*+-.^_`|~09"),
            *(b"CONNECT", b"PRI", b"SOURCE", b"PLAY", b"M-SEARCH"),
        ):
            for rest, accepted in (
                (b" / HTTP/1.1\r\nHost: x\r\n\r\n", True),
                (b" * HTTP/1.1\r\nHost: x\r\n\r\n", True),
                (b" http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", True),
                (b" / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", True),
                (b" x:80 HTTP/1.1\r\nHost: x\r\n\r\n", False),
                (b" / ICE/1.0\r\nHost: x\r\n\r\n", False),
                (b" / HTTP/1.1\r\nHost : x\r\n\r\n", False),
            ):
                self.assertEqual(_accepted_by_llhttp(method + rest), accepted, method)


#: Bad white space in a chunk extension (RFC 9112 7.1.1).
BAD_SPACE = re.compile(rb"[ \t]*([;=])[ \t]*")


class _Body:
    """Collects the data of one chunked body from llhttp."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.ended = True


class ChunkedTests(SynchronousTestCase):
    """Our decoder of chunked bodies compared with llhttp."""

    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    def _theirs(self, stream: bytes) -> bytes | None:
        """Return the data of a body according to llhttp; None if it is refused."""
        body = _Body()
        reader = HttpRequestParser(body)
        try:
            # Byte by byte, so that nothing after the end is fed.
            for byte in bytewise(self.head + stream):
                if not body.ended:
                    reader.feed_data(byte)
        except HttpParserError:
            return None
        return body.data if body.ended else None

    def _ours(self, stream: bytes) -> bytes | None:
        """Return the data of a body according to our parser; None if refused."""
        _, *found = events([self.head + stream])
        if END not in found:
            return None
        return found[0] if isinstance(found[0], bytes) else b""

    def test_mutated(self) -> None:
        """Both decode a body that we accept to the same data.

        We refuse some chunk extensions that llhttp accepts: those that are neither a
        name nor a name and a value (RFC 9112 7.1.1). llhttp refuses bad white space
        around `;` and `=`, which we accept; without it, llhttp accepts the body too.
        """
        good = b'4\r\nabcd\r\n00a;x=y;z="q"\r\n0123456789\r\n0\r\nA: b\r\n\r\n'
        alphabet = [bytes((byte,)) for byte in b'\r\n\t\0 0159afgAFGx+-_;=":,\\\x80']
        accepted = refused = stricter = spaced = 0
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
                if theirs is None:
                    theirs = self._theirs(BAD_SPACE.sub(rb"\1", stream))
                    spaced += theirs is not None
                self.assertEqual(ours, theirs, f"seed {seed}: {stream!r}")
            elif theirs is None:
                refused += 1
            else:
                stricter += 1
                last = events([self.head + stream])[-1]
                assert isinstance(last, Refusal), stream
                self.assertEqual(last.reason, "malformed chunk size line")
        # Guard against mutations that break nearly all bodies, or none.
        self.assertGreater(min(accepted, refused), 1000)
        self.assertLess(stricter, 300)
        self.assertGreater(spaced, 20)

    def test_bad_white_space(self) -> None:
        """Llhttp refuses each form of bad white space around an extension.

        So a proxy with llhttp in front of this server forwards none of them.
        """
        for line in (b"5 ;a", b"5\t;a", b"5; a", b"5;a =b", b"5;a= b", b'5;a="b" ;c'):
            stream = line + b"\r\nhello\r\n0\r\n\r\n"
            self.assertEqual(
                (self._ours(stream), self._theirs(stream)), (b"hello", None)
            )
