"""The request line: method, target, version (RFC 9112 3).

Knows the four forms of a target and what an authority may look like. Must never
know of fields, of bodies, or of how many bytes came at once.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .head import Malformed

__all__ = [
    "METHODS",
    "RequestLine",
    "check_request_line",
    "is_host",
    "read_request_line",
    "with_other_query",
]

METHODS = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE PATCH QUERY "
    b"COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL "
    b"REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE "
    b"MKCALENDAR LINK UNLINK SOURCE".split()
)
"""The methods that are passed on: those of llhttp, without CONNECT.

Any other gets 501 (RFC 9110 9.1). CONNECT asks for a tunnel, which an origin
server does not build.
"""

# Longer than any method above. What is longer still is not waited for.
_METHOD_LIMIT_BYTES = 32

# RFC 9110 5.6.2, tchar.
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")

# VCHAR without "#": a target has no fragment (RFC 9112 3.2), and one that is sent
# nevertheless would be read differently by different servers. RFC 3986 forbids a
# few more ("<", ">", "|", "{" ...), but browsers and libraries do send those.
_TARGET = re.compile(rb"[!\"$-~]*")

# One space each: RFC 9112 3 lets a recipient be lenient, and warns of what follows.
_REQUEST_LINE = re.compile(
    rb"(%b) (%b) (HTTP/1\.[01])" % (_TOKEN.pattern, _TARGET.pattern)
)

# What stands behind the question mark.
_QUERY_ON = re.compile(rb"(%b) (HTTP/1\.[01])" % _TARGET.pattern)

_VERSION_LENGTH = len(b"HTTP/1.1")
_VERSION_FORM = (*((byte,) for byte in b"HTTP/"), range(48, 58), b".", range(48, 58))

# RFC 3986 3.2.2 and 3.2.3, without "," (a list of two hosts is what a proxy makes
# of two Host fields) and with at most five digits of port.
_HOST = re.compile(
    r"(?:(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*"
    r"|\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+;=:]+)\])"
    r"(?::[0-9]{0,5})?"
)

_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)([^?]*)(?:\?(.*))?")


class RequestLine(NamedTuple):
    """What a request line says.

    Attributes:
        method: As sent.
        target: As sent.
        path: Percent-decoded, latin-1.
        query: Not decoded, latin-1.
        version: ``HTTP/1.1`` or ``HTTP/1.0``.
        authority: The host and port of an absolute-form target, which replace
            what Host says (RFC 9112 3.2.2); None for the other forms.
    """

    method: str
    target: bytes
    path: str
    query: str
    version: str
    authority: str | None


def is_host(value: str) -> bool:
    """Whether this may stand in a Host field: ``uri-host [":" port]``, or nothing.

    Source: RFC 9112 3.2, RFC 3986 3.2.2. Userinfo is not a part of it.
    """
    return _HOST.fullmatch(value) is not None


def read_request_line(line: bytes) -> RequestLine:
    """Read a request line, given without its CRLF.

    Raises:
        Malformed: It is none. `check_request_line` knows the status to answer with.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or match[1] not in METHODS:
        raise Malformed(400, "no request line")
    method, target, version = match.groups()
    path, query, authority = _read_target(method, target)
    return RequestLine(
        method.decode("ascii"), target, path, query, version.decode("ascii"), authority
    )


def with_other_query(known: RequestLine, line: bytes) -> RequestLine | None:
    """Read a line that begins as another did, up to the question mark.

    Args:
        known: What that other line said, which was a good one in origin-form.
        line: The line.

    Returns:
        What it says; None if it does not go on as a request line.
    """
    match = _QUERY_ON.fullmatch(line, line.index(b"?") + 1)
    if match is None:
        return None
    query, version = match.groups()
    return RequestLine(
        known.method,
        line[len(known.method) + 1 : match.end(1)],
        known.path,
        query.decode("ascii"),
        version.decode("ascii"),
        None,
    )


def check_request_line(data: bytes, target_limit: int) -> bool:
    """Find out whether `data` begins, or may yet begin, with a request line.

    Goes strictly from left to right and stops at the first byte that cannot be
    right, so that the verdict does not depend on how many bytes came together.

    Args:
        data: The request line with its CRLF and anything after it; or only the
            beginning of a request line.
        target_limit: How many bytes the target may have.

    Returns:
        True if the whole line is there, False if more must come.

    Raises:
        Malformed: 400; 414 for a target that is too long; 501 for a method that
            this server does not have; 505 for another version of HTTP.
    """
    method_end = _span(_TOKEN, data, 0)
    if method_end > _METHOD_LIMIT_BYTES:
        raise Malformed(501, "the method is none that this server has")
    if method_end == len(data):
        return False
    if method_end == 0 or data[method_end] != 0x20:
        raise Malformed(400, "the request line does not begin with a method")
    method = data[:method_end]
    if method == b"PRI":
        # RFC 9113 3.4: how a client that is sure of HTTP/2 begins.
        raise Malformed(505, "HTTP/2 is not spoken here")
    if method not in METHODS:
        raise Malformed(501, "the method is none that this server has")

    target_start = method_end + 1
    target_end = _span(_TARGET, data, target_start)
    if target_end - target_start > target_limit:
        raise Malformed(414, f"the target is longer than {target_limit} bytes")
    if target_end == len(data):
        return False
    if data[target_end] in b"\r\n":
        raise Malformed(400, "the request line has no HTTP version")
    if data[target_end] != 0x20:
        raise Malformed(400, f"byte {data[target_end]:#04x} in the target")
    _read_target(method, data[target_start:target_end])

    version_start = target_end + 1
    version_end = version_start + _VERSION_LENGTH
    version = data[version_start:version_end]
    for byte, expected in zip(version, _VERSION_FORM, strict=False):
        if byte not in expected:
            raise Malformed(400, "the request line does not end with an HTTP version")
    if len(version) < _VERSION_LENGTH:
        return False
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Malformed(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    line_end = data[version_end : version_end + 2]
    if not b"\r\n".startswith(line_end):
        raise Malformed(400, "the request line does not end with CRLF")
    return line_end == b"\r\n"


def _span(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Return where that ends which `pattern` matches at `start`, maybe nothing."""
    match = pattern.match(data, start)
    return match.end() if match else start


def _read_target(method: bytes, target: bytes) -> tuple[str, str, str | None]:
    """Return path, query and authority of a target (RFC 9112 3.2)."""
    text = target.decode("ascii")
    if text.startswith("/"):
        # Not urlsplit(): it takes "//x/y" for an authority and a path.
        path, _, query = text.partition("?")
        return _decode(path), query, None
    if text == "*" and method == b"OPTIONS":
        return "*", "", None
    absolute = _ABSOLUTE.fullmatch(text)
    if absolute is None:
        raise Malformed(400, "the target has none of the forms of RFC 9112 3.2")
    authority, path, query = absolute.groups(default="")
    # RFC 9110 4.2.1: a URI without a host is invalid; 4.2.4: so is userinfo.
    if not is_host(authority) or authority.startswith(":") or not authority:
        raise Malformed(400, "the target names no valid host")
    return _decode(path) or "/", query, authority


def _decode(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1") if "%" in path else path
