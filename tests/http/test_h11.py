"""Our parser and h11, which was written from the RFCs by others, side by side.

A request that both accept must be the same request: that is what keeps a server and
what stands before it from disagreeing about where one request ends and the next one
begins. Where only one of them accepts, the reason is recorded here.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

import h11
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.head import Refusal, RequestHead

from .streams import GOOD, events, mutated

WE_REFUSE = {
    "the method is none that this server has": "h11 accepts every token as a method",
    "LF without CR in the head": "RFC 9112 2.2 lets a recipient accept it; h11 does",
    "LF without CR in a chunked body": "h11 accepts it in trailers as well",
    "the request line does not end with CRLF": "h11 accepts LF there as well",
    "an expectation other than 100-continue": "h11 leaves expectations to its user",
    "a field line is not a name, a colon and a value": (
        "h11 unfolds folded lines and lets some controls through in values"
    ),
    "a trailer is not a name, a colon and a value": "the same, in trailers",
    "Content-Length is not a number": "the same: the number is on a folded line",
    "Host is not a host and a port": "h11 leaves the value of Host to its user",
    "the target has none of the forms of RFC 9112 3.2": "h11 leaves it to its user",
    "the target names no valid host": "h11 leaves it to its user",
    "byte 0x23 in the target": "h11 leaves fragments to its user as well",
    "a chunk does not begin with its size": (
        "h11 accepts any extension, and white space behind a size"
    ),
    "more than one Content-Length field": (
        "RFC 9112 6.3 lets a recipient accept equal ones; h11 does"
    ),
    "more than one Content-Type field": "h11 leaves most fields to its user",
    "Transfer-Encoding together with Content-Length": (
        "RFC 9112 6.1 lets a recipient drop Content-Length; h11 does"
    ),
    "only HTTP/1.1 and HTTP/1.0 are spoken here": "h11 reads any version",
}
"""Our reasons for what h11 accepts."""

OLD_LLHTTP = "the head is malformed: Invalid character in Content-Length"
"""The llhttp of httptools 0.6 lets no tab stand behind Content-Length."""

H11_REFUSES = {
    "no request line received": "h11 skips no empty line before a request line",
    "Only Transfer-Encoding: chunked is supported": (
        "h11 reads Transfer-Encoding in trailers too, where we ignore it"
    ),
}
"""What h11 says of what we accept."""


@dataclass
class Request:
    """One request as far as it was read."""

    method: str
    target: bytes
    version: str
    variables: dict[str, str]
    body: bytes = b""
    ended: bool = False


@dataclass
class Reading:
    """What a parser made of a stream."""

    requests: list[Request] = field(default_factory=list)
    error: str = ""

    @property
    def whole(self) -> list[Request]:
        """Return the requests that were read to their end."""
        return [request for request in self.requests if request.ended]


def _ours(stream: bytes) -> Reading:
    reading = Reading()
    for event in events([stream]):
        if isinstance(event, RequestHead):
            request = Request(
                event.method, event.target, event.version, event.variables
            )
            reading.requests.append(request)
        elif isinstance(event, Refusal):
            reading.error = event.reason
        elif isinstance(event, bytes):
            request.body += event
        else:
            request.ended = True
    return reading


def _theirs(stream: bytes) -> Reading:
    reading = Reading()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(stream)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = Request(
                    event.method.decode("ascii"),
                    event.target,
                    "HTTP/" + event.http_version.decode("ascii"),
                    _variables(event),
                )
                reading.requests.append(request)
            elif isinstance(event, h11.Data):
                request.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                request.ended = True
                answer = h11.Response(status_code=204, headers=[])
                connection.send(answer)
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return reading
                connection.start_next_cycle()
            else:
                return reading
    except h11.RemoteProtocolError as error:
        reading.error = str(error)
    return reading


def _variables(request: h11.Request) -> dict[str, str]:
    """Return the variables of RFC 3875 4.1.18, from h11's pairs."""
    variables: dict[str, str] = {}
    for name, raw in request.headers:
        if b"_" in name or name == b"proxy":
            continue
        key = "HTTP_" + name.decode("ascii").upper().replace("-", "_")
        if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
            key = key[5:]
        value = raw.decode("latin-1")
        if key in variables:
            value = variables[key] + ("; " if "COOKIE" in key else ", ") + value
        variables[key] = value
    absolute = re.match(rb"(?i:https?)://([^/?]+)", request.target)
    if absolute:
        variables["HTTP_HOST"] = absolute[1].decode("ascii")
    # h11 writes this one in lower case.
    if "HTTP_TRANSFER_ENCODING" in variables:
        variables["HTTP_TRANSFER_ENCODING"] = "chunked"
    return variables


class SideBySideTests(SynchronousTestCase):
    """The same streams through both."""

    def _assert_same(self, ours: Request, theirs: Request, stream: bytes) -> None:
        if "HTTP_TRANSFER_ENCODING" in ours.variables:
            ours.variables["HTTP_TRANSFER_ENCODING"] = "chunked"
        self.assertEqual(ours, theirs, stream)

    def test_good(self) -> None:
        """What every client may send is the same to both."""
        for sentence, stream in GOOD.items():
            ours, theirs = _ours(stream), _theirs(stream.removeprefix(b"\r\n"))
            self.assertEqual((ours.error, theirs.error), ("", ""), sentence)
            self.assertEqual(len(ours.whole), 1, sentence)
            self.assertEqual(len(theirs.whole), 1, sentence)
            self._assert_same(ours.whole[0], theirs.whole[0], stream)

    def test_spoilt(self) -> None:
        """Spoilt streams are the same to both, as far as both accept them."""
        same = 0
        differed: set[str] = set()
        for seed in range(8000):
            stream = mutated(random.Random(seed))
            ours, theirs = _ours(stream), _theirs(stream)
            for mine, other in zip(ours.whole, theirs.whole, strict=False):
                self._assert_same(mine, other, stream)
                same += 1
            if len(ours.whole) < len(theirs.whole):
                reasons = {*WE_REFUSE, OLD_LLHTTP}
                self.assertIn(ours.error, reasons, f"seed {seed}: {stream!r}")
                differed.add(ours.error)
            elif len(ours.whole) > len(theirs.whole) and theirs.error:
                self.assertIn(theirs.error, H11_REFUSES, f"seed {seed}: {stream!r}")
                differed.add(theirs.error)
            elif len(ours.whole) > len(theirs.whole):
                # h11 does not keep an HTTP/1.0 connection alive.
                last = theirs.whole[-1]
                self.assertEqual(last.version, "HTTP/1.0", f"seed {seed}: {stream!r}")
        self.assertGreater(same, 5000)
        self.assertGreater(len(differed), 12)

    def test_recorded_reasons(self) -> None:
        """Each difference that is recorded exists."""
        head = b"POST / HTTP/1.1\r\nHost: x\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        seen: set[str] = set()
        for reason, stream in (
            ("the method is none that this server has", b"BREW" + head[4:] + b"\r\n"),
            ("LF without CR in the head", head + b"A: b\n\r\n"),
            ("LF without CR in a chunked body", chunked + b"0\r\nA: b\n\r\n"),
            (
                "the request line does not end with CRLF",
                b"GET / HTTP/1.1\nHost: x\r\n\r\n",
            ),
            ("an expectation other than 100-continue", head + b"Expect: x\r\n\r\n"),
            (
                "a field line is not a name, a colon and a value",
                head + b"A: b\r\n c\r\n\r\n",
            ),
            (
                "a field line is not a name, a colon and a value",
                head + b"A: \x7f\r\n\r\n",
            ),
            (
                "a trailer is not a name, a colon and a value",
                chunked + b"0\r\nA: b\r\n c\r\n\r\n",
            ),
            (
                "Content-Length is not a number",
                head + b"Content-Length:\r\n 0\r\n\r\n",
            ),
            (
                "Host is not a host and a port",
                b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            ),
            (
                "the target has none of the forms of RFC 9112 3.2",
                b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
            (
                "the target names no valid host",
                b"GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
            ("byte 0x23 in the target", b"GET /# HTTP/1.1\r\nHost: x\r\n\r\n"),
            (
                "a chunk does not begin with its size",
                chunked + b"1 \r\na\r\n0\r\n\r\n",
            ),
            (
                "a chunk does not begin with its size",
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
                "Transfer-Encoding together with Content-Length",
                head + b"Content-Length: 9\r\n" + chunked[len(head) :] + b"0\r\n\r\n",
            ),
            (
                "only HTTP/1.1 and HTTP/1.0 are spoken here",
                b"GET / HTTP/1.5\r\nHost: x\r\n\r\n",
            ),
        ):
            seen.add(reason)
            ours, theirs = _ours(stream), _theirs(stream)
            self.assertEqual(ours.error, reason, stream)
            self.assertEqual(ours.whole, [], stream)
            self.assertEqual(len(theirs.whole), 1, stream)
        for reason, stream in (
            ("no request line received", b"\r\n" + head + b"\r\n"),
            (
                "Only Transfer-Encoding: chunked is supported",
                chunked + b"0\r\nTransfer-Encoding: gzip\r\n\r\n",
            ),
        ):
            seen.add(reason)
            self.assertEqual(_theirs(stream).error, reason, stream)
            self.assertEqual(len(_ours(stream).whole), 1, stream)
        self.assertEqual(seen, WE_REFUSE.keys() | H11_REFUSES.keys())
