"""Differential tests of our parser and h11, on valid and invalid streams.

Accepted differences are recorded in `readings`.
"""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from .readings import H11_REFUSES, WE_REFUSE, assert_agree, ours, theirs
from .streams import GOOD, mutated


class SideBySideTests(SynchronousTestCase):
    """The same streams, parsed by both."""

    def test_good(self) -> None:
        """Valid requests are parsed identically."""
        for sentence, stream in GOOD.items():
            # h11 does not skip empty lines before a request line.
            agreed = assert_agree(stream.removeprefix(b"\r\n"))
            self.assertEqual(agreed, (1, ""), sentence)

    def test_mutated(self) -> None:
        """Mutated streams are parsed identically as far as both accept them."""
        same = 0
        differed: set[str] = set()
        for seed in range(8000):
            count, reason = assert_agree(mutated(random.Random(seed)))
            same += count
            differed.add(reason)
        self.assertGreater(same, 5000)
        self.assertGreater(len(differed), 12)

    def test_recorded_reasons(self) -> None:
        """Each recorded difference occurs."""
        head = b"POST / HTTP/1.1\r\nHost: x\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        seen: set[str] = set()
        for reason, stream in (
            (
                "the method is longer than 256 characters",
                b"x" * 257 + head[4:] + b"\r\n",
            ),
            (
                "HTTP/2 with prior knowledge is not supported",
                b"PRI" + head[4:] + b"\r\n",
            ),
            ("LF without CR in the head", head + b"A: b\n\r\n"),
            ("LF without CR in a chunked body", chunked + b"0\r\nA: b\n\r\n"),
            (
                "the request line does not end with CRLF",
                b"GET / HTTP/1.1\nHost: x\r\n\r\n",
            ),
            (
                "unsupported Expect: only 100-continue is supported",
                head + b"Expect: x\r\n\r\n",
            ),
            (
                "malformed field line: expected 'name: value'",
                head + b"A: b\r\n c\r\n\r\n",
            ),
            (
                "malformed field line: expected 'name: value'",
                head + b"A: \x7f\r\n\r\n",
            ),
            (
                "malformed trailer line: expected 'name: value'",
                chunked + b"0\r\nA: b\r\n c\r\n\r\n",
            ),
            (
                "Content-Length is not a number",
                head + b"Content-Length:\r\n 0\r\n\r\n",
            ),
            (
                "Host is not a valid host and port",
                b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            ),
            (
                "the target has no form defined in RFC 9112 3.2",
                b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
            (
                "the target has no valid host",
                b"GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
            ("invalid byte 0x23 in the target", b"GET /# HTTP/1.1\r\nHost: x\r\n\r\n"),
            (
                "malformed chunk size line",
                chunked + b"1 \r\na\r\n0\r\n\r\n",
            ),
            (
                "malformed chunk size line",
                chunked + b"1;=\r\na\r\n0\r\n\r\n",
            ),
            (
                "more than one Content-Length field",
                head + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
            ),
            (
                "more than one Content-Type field",
                head + b"Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n",
            ),
            (
                "both Transfer-Encoding and Content-Length",
                head + b"Content-Length: 9\r\n" + chunked[len(head) :] + b"0\r\n\r\n",
            ),
            (
                "Transfer-Encoding in an HTTP/1.0 request",
                chunked.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
            ),
            (
                "only HTTP/1.1 and HTTP/1.0 are supported",
                b"GET / HTTP/1.5\r\nHost: x\r\n\r\n",
            ),
        ):
            seen.add(reason)
            mine, other = ours(stream), theirs(stream)
            self.assertEqual(mine.error, reason, stream)
            self.assertEqual(mine.whole, [], stream)
            self.assertEqual(len(other.whole), 1, stream)
        for reason, stream in (
            ("no request line received", b"\r\n" + head + b"\r\n"),
            (
                "Only Transfer-Encoding: chunked is supported",
                chunked + b"0\r\nTransfer-Encoding: gzip\r\n\r\n",
            ),
            (
                "multiple Transfer-Encoding headers",
                chunked + b"0\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n",
            ),
            (
                "bad Content-Length",
                chunked + b"0\r\nContent-Length: x\r\n\r\n",
            ),
            (
                "conflicting Content-Length headers",
                chunked + b"0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            ),
        ):
            seen.add(reason)
            self.assertEqual(theirs(stream).error, reason, stream)
            self.assertEqual(len(ours(stream).whole), 1, stream)
        self.assertEqual(seen, WE_REFUSE.keys() | H11_REFUSES.keys())
