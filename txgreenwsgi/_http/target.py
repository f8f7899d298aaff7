"""The request line: method, target, version (RFC 9112 3).

Knows the four forms of a target and the syntax of an authority. Must never know
fields, bodies, or how the bytes were split into reads.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .head import Malformed

__all__ = [
    "METHOD_LIMIT_BYTES",
    "RequestLine",
    "check_method",
    "check_request_line",
    "is_host",
    "read_request_line",
    "with_other_query",
]

METHOD_LIMIT_BYTES = 256
"""Length beyond which a method is refused without waiting for more data.

The longest registered method has 17 characters.
"""

_REFUSED_METHODS: dict[bytes, tuple[int, str]] = {
    # RFC 9110 9.3.6: the bytes after the head would belong to the tunnel. After a 2xx
    # of an application, the client would send them, and they would be read as requests.
    b"CONNECT": (501, "CONNECT asks for a tunnel, which is not supported"),
    # RFC 9113 3.4: the preface of a client with prior knowledge of HTTP/2.
    b"PRI": (505, "HTTP/2 with prior knowledge is not supported"),
}

# RFC 9110 5.6.2, tchar.
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")

# VCHAR without "#": a target has no fragment (RFC 9112 3.2), and servers disagree
# about the meaning of one that is sent anyway. RFC 3986 forbids a few more characters
# ("<", ">", "|", "{" ...), but browsers and libraries do send those.
_TARGET = re.compile(rb"[!\"$-~]*")

# Exactly one space each: RFC 9112 3 allows leniency and warns of its risks.
_REQUEST_LINE = re.compile(
    rb"(%b) (%b) (HTTP/1\.[01])" % (_TOKEN.pattern, _TARGET.pattern)
)

# The rest of a request line after the question mark.
_QUERY_AND_VERSION = re.compile(rb"(%b) (HTTP/1\.[01])" % _TARGET.pattern)

_VERSION_LENGTH = len(b"HTTP/1.1")
_VERSION_PATTERN = (*((byte,) for byte in b"HTTP/"), range(48, 58), b".", range(48, 58))

# RFC 3986 3.2.2 and 3.2.3, without "," (proxies join two Host fields into a list) and
# with at most five digits of port.
_HOST = re.compile(
    r"(?:(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*"
    r"|\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+;=:]+)\])"
    r"(?::[0-9]{0,5})?"
)

_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)([^?]*)(?:\?(.*))?")


class RequestLine(NamedTuple):
    """A parsed request line.

    Attributes:
        method: The method as received.
        target: The target as received.
        path: The path, percent-decoded, latin-1.
        query: The query, not decoded, latin-1.
        version: ``HTTP/1.1`` or ``HTTP/1.0``.
        authority: The host and port of an absolute-form target, which replace the
            value of Host (RFC 9112 3.2.2); None for the other forms.
    """

    method: str
    target: bytes
    path: str
    query: str
    version: str
    authority: str | None


def is_host(value: str) -> bool:
    """Return True if `value` is valid in a Host field: ``uri-host [":" port]`` or "".

    Source: RFC 9112 3.2, RFC 3986 3.2.2. Userinfo is not allowed.
    """
    return _HOST.fullmatch(value) is not None


def read_request_line(line: bytes) -> RequestLine:
    """Parse a request line, given without its CRLF.

    Raises:
        Malformed: With the status of the method, or 400. `check_request_line` finds
            the exact status.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Malformed(400, "malformed request line")
    method, target, version = match.groups()
    check_method(method)
    path, query, authority = _read_target(method, target)
    return RequestLine(
        method.decode("ascii"), target, path, query, version.decode("ascii"), authority
    )


def with_other_query(known: RequestLine, line: bytes) -> RequestLine | None:
    """Parse a request line that equals a known one up to the question mark.

    Args:
        known: The known line, valid and in origin-form.
        line: The line to parse, without its CRLF.

    Returns:
        The parsed line; None if the rest of it is malformed.
    """
    match = _QUERY_AND_VERSION.fullmatch(line, line.index(b"?") + 1)
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
    """Validate a request line that may be incomplete.

    Scans strictly from left to right and stops at the first invalid byte, so that
    the result does not depend on how the bytes were split into reads.

    Args:
        data: The request line with its CRLF, followed by any data; or the beginning
            of a request line.
        target_limit: Maximum length of the target, in bytes.

    Returns:
        True if the line is complete, False if more data is needed.

    Raises:
        Malformed: 400; 414 for a target that is too long; 501 for CONNECT and for a
            method that is too long; 505 for another version of HTTP.
    """
    method_end = _match_end(_TOKEN, data, 0)
    if method_end > METHOD_LIMIT_BYTES:
        check_method(data[:method_end])  # raises
    if method_end == len(data):
        return False
    if method_end == 0 or data[method_end] != 0x20:
        raise Malformed(400, "the request line does not start with a method")
    method = data[:method_end]
    check_method(method)

    target_start = method_end + 1
    target_end = _match_end(_TARGET, data, target_start)
    if target_end - target_start > target_limit:
        raise Malformed(414, f"the target is longer than {target_limit} bytes")
    if target_end == len(data):
        return False
    if data[target_end] in b"\r\n":
        raise Malformed(400, "the request line has no HTTP version")
    if data[target_end] != 0x20:
        raise Malformed(400, f"invalid byte {data[target_end]:#04x} in the target")
    _read_target(method, data[target_start:target_end])

    version_start = target_end + 1
    version_end = version_start + _VERSION_LENGTH
    version = data[version_start:version_end]
    for byte, expected in zip(version, _VERSION_PATTERN, strict=False):
        if byte not in expected:
            raise Malformed(400, "the request line does not end with an HTTP version")
    if len(version) < _VERSION_LENGTH:
        return False
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Malformed(505, "only HTTP/1.1 and HTTP/1.0 are supported")
    line_end = data[version_end : version_end + 2]
    if not b"\r\n".startswith(line_end):
        raise Malformed(400, "the request line does not end with CRLF")
    return line_end == b"\r\n"


def check_method(method: bytes) -> None:
    """Raise if a method is not served; every other token is (RFC 9110 9.1).

    Methods are case-sensitive: "connect" is not CONNECT.

    Raises:
        Malformed: 400 if the method is not a token, 501 for CONNECT and for a method
            longer than `METHOD_LIMIT_BYTES`, 505 for PRI.
    """
    if method in _REFUSED_METHODS:
        raise Malformed(*_REFUSED_METHODS[method])
    if not method or _TOKEN.fullmatch(method) is None:
        raise Malformed(400, "the method is not a token")
    if len(method) > METHOD_LIMIT_BYTES:
        raise Malformed(
            501, f"the method is longer than {METHOD_LIMIT_BYTES} characters"
        )


def _match_end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Return the end of the match of `pattern` at `start`; `start` without one."""
    match = pattern.match(data, start)
    return match.end() if match else start


def _read_target(method: bytes, target: bytes) -> tuple[str, str, str | None]:
    """Return path, query and authority of a target (RFC 9112 3.2)."""
    text = target.decode("ascii")
    if text.startswith("/"):
        # Not urlsplit(): it reads "//x/y" as an authority and a path.
        path, _, query = text.partition("?")
        return _decode(path), query, None
    if text == "*" and method == b"OPTIONS":
        return "*", "", None
    absolute = _ABSOLUTE.fullmatch(text)
    if absolute is None:
        raise Malformed(400, "the target has no form defined in RFC 9112 3.2")
    authority, path, query = absolute.groups(default="")
    # RFC 9110 4.2.1 and 4.2.4: a URI without a host, or with userinfo, is invalid.
    if not is_host(authority) or authority.startswith(":") or not authority:
        raise Malformed(400, "the target has no valid host")
    return _decode(path) or "/", query, authority


def _decode(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1") if "%" in path else path
