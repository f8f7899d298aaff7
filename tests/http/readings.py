"""What our parser and h11 make of the same bytes, and why they may differ.

h11 was written from the RFCs by others. A request that both accept must be the same
request: that is what keeps a server and what stands before it from disagreeing about
where one request ends and the next one begins. Where only one of them accepts, the
reason is recorded here. Knows nothing of how the streams were made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import h11

from txgreenwsgi._http.head import Refusal, RequestHead

from .streams import events

__all__ = [
    "H11_REFUSES",
    "WE_REFUSE",
    "Reading",
    "Request",
    "assert_agree",
    "ours",
    "theirs",
]

WE_REFUSE = {
    "the method is not supported": "h11 accepts every token as a method",
    "HTTP/2 with prior knowledge is not supported": "the same: PRI is one",
    "LF without CR in the head": "RFC 9112 2.2 lets a recipient accept it; h11 does",
    "LF without CR in a chunked body": "h11 accepts it in trailers as well",
    "the request line does not end with CRLF": "h11 accepts LF there as well",
    "unsupported Expect: only 100-continue is supported": "h11 leaves expectations to its user",
    "malformed field line: expected 'name: value'": (
        "h11 unfolds folded lines and lets some controls through in values"
    ),
    "malformed trailer line: expected 'name: value'": "the same, in trailers",
    "Content-Length is not a number": "the same: the number is on a folded line",
    "Host is not a valid host and port": "h11 leaves the value of Host to its user",
    "the target has no form defined in RFC 9112 3.2": "h11 leaves it to its user",
    "the target has no valid host": "h11 leaves it to its user",
    "invalid byte 0x23 in the target": "h11 leaves fragments to its user as well",
    "malformed chunk size line": (
        "h11 accepts any extension, and white space behind a size"
    ),
    "more than one Content-Length field": (
        "RFC 9112 6.3 lets a recipient accept equal ones; h11 does"
    ),
    "more than one Content-Type field": "h11 leaves most fields to its user",
    "both Transfer-Encoding and Content-Length": (
        "RFC 9112 6.1 lets a recipient drop Content-Length; h11 does"
    ),
    "Transfer-Encoding in an HTTP/1.0 request": (
        "RFC 9112 6.1 calls its framing faulty; h11 reads the chunks"
    ),
    "only HTTP/1.1 and HTTP/1.0 are supported": "h11 reads any version",
}
"""Our reasons for what h11 accepts."""

OLD_LLHTTP = "malformed head: Invalid character in Content-Length"
"""The llhttp of httptools 0.6 lets no tab stand behind Content-Length."""

H11_REFUSES = {
    "no request line received": "h11 skips no empty line before a request line",
    "Only Transfer-Encoding: chunked is supported": (
        "h11 reads Transfer-Encoding in trailers too, where we ignore it"
    ),
    "bad Content-Length": "the same with Content-Length",
    "conflicting Content-Length headers": "the same with two of them",
    "multiple Transfer-Encoding headers": "the same with two of these",
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


def ours(stream: bytes) -> Reading:
    """Read a stream with a parser of its own."""
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


def theirs(stream: bytes) -> Reading:
    """Read a stream with h11."""
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


def assert_agree(stream: bytes) -> tuple[int, str]:
    """Fail unless both read a stream alike, or for a recorded reason.

    Returns:
        How many requests both read, and the reason for a difference, "" without.
    """
    mine, other = ours(stream), theirs(stream)
    same = 0
    for our, their in zip(mine.whole, other.whole, strict=False):
        if "HTTP_TRANSFER_ENCODING" in our.variables:
            our.variables["HTTP_TRANSFER_ENCODING"] = "chunked"
        if our != their:
            raise AssertionError(f"{our} is {their} to h11, in {stream!r}")
        same += 1
    if len(mine.whole) < len(other.whole):
        if mine.error not in {*WE_REFUSE, OLD_LLHTTP}:
            raise AssertionError(f"only h11 accepts {stream!r}: {mine.error!r}")
        return same, mine.error
    if len(mine.whole) > len(other.whole) and other.error:
        if other.error not in H11_REFUSES:
            raise AssertionError(f"h11 refuses {stream!r}: {other.error!r}")
        return same, other.error
    # h11 does not keep an HTTP/1.0 connection alive.
    if len(mine.whole) > len(other.whole) and other.whole[-1].version != "HTTP/1.0":
        raise AssertionError(f"h11 reads less of {stream!r}")
    return same, ""
