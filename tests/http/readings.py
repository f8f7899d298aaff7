"""Comparison of our parser with h11, and the reasons for accepted differences.

h11 is an independent implementation of the RFCs. A request that both accept must be
parsed identically: otherwise a server and the proxy in front of it could disagree about
where one request ends and the next begins. If only one of them accepts a request, the
reason is recorded here. Knows nothing of how the streams are generated.
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
    "the method is longer than 256 characters": "h11 has no limit for it",
    "HTTP/2 with prior knowledge is not supported": "PRI is a method for h11",
    "LF without CR in the head": "RFC 9112 2.2 lets a recipient accept it; h11 does",
    "LF without CR in a chunked body": "h11 accepts it in trailers as well",
    "the request line does not end with CRLF": "h11 accepts LF there as well",
    "unsupported Expect: only 100-continue is supported": (
        "h11 leaves expectations to its caller"
    ),
    "malformed field line: expected 'name: value'": (
        "h11 unfolds folded lines and accepts some control characters in values"
    ),
    "malformed trailer line: expected 'name: value'": "the same, in trailers",
    "Content-Length is not a number": "the same: the number is on a continuation line",
    "Host is not a valid host and port": "h11 leaves the value of Host to its caller",
    "the target has no form defined in RFC 9112 3.2": "h11 leaves it to its caller",
    "the target has no valid host": "h11 leaves it to its caller",
    "invalid byte 0x23 in the target": "h11 leaves fragments to its caller as well",
    "malformed chunk size line": (
        "h11 accepts any extension, and white space after a size"
    ),
    "more than one Content-Length field": (
        "RFC 9112 6.3 lets a recipient accept equal ones; h11 does"
    ),
    "more than one Content-Type field": "h11 leaves most fields to its caller",
    "both Transfer-Encoding and Content-Length": (
        "RFC 9112 6.1 lets a recipient drop Content-Length; h11 does"
    ),
    "Transfer-Encoding in an HTTP/1.0 request": (
        "RFC 9112 6.1 calls its framing faulty; h11 decodes the chunks"
    ),
    "only HTTP/1.1 and HTTP/1.0 are supported": "h11 accepts any version",
}
"""Our reasons for refusing requests that h11 accepts."""

OLD_LLHTTP = "malformed head: Invalid character in Content-Length"
"""httptools 0.6: its llhttp refuses a tab after the value of Content-Length."""

H11_REFUSES = {
    "no request line received": "h11 does not skip empty lines before a request line",
    "Only Transfer-Encoding: chunked is supported": (
        "h11 interprets Transfer-Encoding in trailers, where we ignore it"
    ),
    "bad Content-Length": "the same with Content-Length",
    "conflicting Content-Length headers": "the same with two of them",
    "multiple Transfer-Encoding headers": "the same with two of them",
}
"""Errors of h11 for requests that we accept."""


@dataclass
class Request:
    """One request, as far as it has been parsed."""

    method: str
    target: bytes
    version: str
    variables: dict[str, str]
    body: bytes = b""
    ended: bool = False


@dataclass
class Reading:
    """The result of parsing a stream."""

    requests: list[Request] = field(default_factory=list)
    error: str = ""

    @property
    def whole(self) -> list[Request]:
        """Return the requests that are complete."""
        return [request for request in self.requests if request.ended]


def ours(stream: bytes) -> Reading:
    """Parse a stream with a new parser of ours."""
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
    """Parse a stream with h11."""
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
                response = h11.Response(status_code=204, headers=[])
                connection.send(response)
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
    """Return the variables of RFC 3875 4.1.18 for the fields of h11's request."""
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
    # h11 converts the value to lower case.
    if "HTTP_TRANSFER_ENCODING" in variables:
        variables["HTTP_TRANSFER_ENCODING"] = "chunked"
    return variables


def assert_agree(stream: bytes) -> tuple[int, str]:
    """Fail unless both parse a stream identically or differ for a recorded reason.

    Returns:
        The number of requests that both accept, and the reason for the difference
        after them, "" if there is none.
    """
    mine, other = ours(stream), theirs(stream)
    same = 0
    for our, their in zip(mine.whole, other.whole, strict=False):
        if "HTTP_TRANSFER_ENCODING" in our.variables:
            our.variables["HTTP_TRANSFER_ENCODING"] = "chunked"
        if our != their:
            raise AssertionError(f"h11 parses {our} as {their}, in {stream!r}")
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
        raise AssertionError(f"h11 accepts fewer requests of {stream!r}")
    return same, ""
