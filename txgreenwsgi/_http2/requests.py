"""Header lists of HTTP/2 requests: validation, and request heads (RFC 9113 section 8).

An error of the framing of HTTP/2 is a `StreamError`: the stream is reset. An error that
HTTP/1.1 answers with a status is `Malformed`, as there. The meaning of the fields is
that of `_http/fields.py`. Must never know connections.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from txgreenwsgi._http.fields import Variable, join_fields, request_head, variable_name
from txgreenwsgi._http.head import Malformed, RequestHead
from txgreenwsgi._http.target import (
    RequestLine,
    check_method,
    is_host,
    read_request_line,
)

from .priority import DEFAULT_URGENCY, urgency_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._http.parser import HeadLimits

__all__ = ["VERSION", "Request", "StreamError", "check_trailers", "read_request"]

#: SERVER_PROTOCOL, in the form that RFC 3875 section 4.1.16 requires. nginx, Apache
#: and gunicorn use it too.
VERSION: Final = "HTTP/2.0"

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
# As in HTTP/1.1; white space at the ends is forbidden (RFC 9113 section 8.2.1).
_VALUE: Final = re.compile(rb"(?![ \t])[\t -~\x80-\xff]*(?<![ \t])")
_SCHEMES: Final = frozenset({b"http", b"https"})
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")
_PROTOCOL: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z/]+")

_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
_EXTENDED: Final = _PSEUDO | {b":protocol"}

# RFC 9113 section 8.2.2.
_OF_CONNECTIONS: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Credentials must not outlive the request in memory.
_SECRET: Final = frozenset({"HTTP_AUTHORIZATION", "HTTP_COOKIE"})

_CACHED_BYTES: Final = 256
_CACHE_ENTRIES: Final = 1024

#: Cache of valid fields and their variables, cleared as a whole when it is full.
_variables: dict[tuple[bytes, bytes], Variable] = {}
#: Cache of valid authorities.
_hosts: dict[bytes, str] = {}
#: Cache of request lines by method and path.
_lines: dict[tuple[bytes, bytes], RequestLine] = {}


class StreamError(Exception):
    """The request violates HTTP/2: PROTOCOL_ERROR on its stream."""


class Request(NamedTuple):
    """A valid request.

    Attributes:
        head: its head.
        urgency: its urgency (RFC 9218).
        protocol: the `:protocol` of an extended CONNECT; "" otherwise.
    """

    head: RequestHead
    urgency: int
    protocol: str


def read_request(
    fields: Sequence[tuple[bytes, bytes]],
    size: int,
    ended: bool,
    limits: HeadLimits,
    extended: bool,
) -> Request:
    """Validate the header list of a request.

    Args:
        fields: the fields, in order.
        size: their total size in bytes.
        ended: whether the request has no body.
        limits: the limits on heads.
        extended: whether extended CONNECT is enabled (RFC 8441).

    Raises:
        StreamError: the request must be reset.
        Malformed: the request must be answered with an error status.
    """
    pseudo: dict[bytes, bytes] = {}
    allowed = _EXTENDED if extended else _PSEUDO
    start = 0
    for name, value in fields:
        if name[:1] != b":":
            break
        if name not in allowed:
            raise StreamError("unknown pseudo-header field")
        if name in pseudo:
            raise StreamError("repeated pseudo-header field")
        pseudo[name] = value
        start += 1
    variables = _read_fields(fields[start:] if start else fields)
    method = pseudo.get(b":method", b"")
    if not method:
        raise StreamError("no :method")
    if size > limits.size:
        raise Malformed(431, f"the head is longer than {limits.size} bytes")
    if len(fields) - start > limits.fields:
        raise Malformed(431, f"more than {limits.fields} fields")
    protocol = pseudo.get(b":protocol", b"")
    if b":protocol" in pseudo:
        if method != b"CONNECT" or _PROTOCOL.fullmatch(protocol) is None:
            raise StreamError("invalid :protocol")
    elif method == b"CONNECT":
        check_method(method)  # raises
    joined = _join(variables, pseudo.get(b":authority"))
    line = _read_line(method, pseudo, limits.target)
    if "HTTP_HOST" not in joined:
        raise Malformed(400, "there is neither :authority nor Host")
    head = request_head(line, joined)
    head.method = line.method
    head.version = VERSION
    head.keep_alive = True
    length = head.content_length
    if ended:
        if length:
            raise StreamError("a Content-Length without a body")
        head.content_length = 0
        head.expects_continue = False
    elif "CONTENT_LENGTH" not in joined:
        head.content_length = None
    urgency = DEFAULT_URGENCY
    if "HTTP_PRIORITY" in joined:
        urgency = urgency_of(joined["HTTP_PRIORITY"])
    return Request(head, urgency, protocol.decode("ascii"))


def _read_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[Variable]:
    """Return the variables of valid fields, which are no pseudo-header fields."""
    variables = []
    for field in fields:
        variable = _variables.get(field)
        if variable is None:
            variable = _read_field(*field)
        variables.append(variable)
    return variables


def _read_field(name: bytes, value: bytes) -> Variable:
    if _NAME.fullmatch(name) is None:
        if name[:1] == b":":
            raise StreamError("a pseudo-header field after other fields")
        raise StreamError("invalid field name")
    if _VALUE.fullmatch(value) is None:
        raise StreamError("invalid field value")
    if name in _OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
        raise StreamError("a field that belongs to HTTP/1.1 connections")
    key = variable_name(name.decode("ascii"))
    text = value.decode("latin-1")
    if key == "CONTENT_LENGTH" and not (text.isascii() and text.isdigit()):
        raise StreamError("Content-Length is not a number")
    if key == "HTTP_HOST" and not is_host(text):
        raise Malformed(400, "Host is not a valid host and port")
    variable = (key, text) if key else ("", "")
    if key not in _SECRET and len(name) + len(value) <= _CACHED_BYTES:
        if len(_variables) >= _CACHE_ENTRIES:
            _variables.clear()
        _variables[bytes(name), bytes(value)] = variable
    return variable


def _join(variables: list[Variable], authority: bytes | None) -> dict[str, str]:
    """Return the variables by name; `:authority` becomes HTTP_HOST."""
    joined = dict(variables)
    if len(joined) != len(variables) or "" in joined:
        joined = join_fields(variables)
    if authority is not None:
        host = _hosts.get(authority) or _read_host(authority)
        given = joined.get("HTTP_HOST")
        if given is not None and given.lower() != host.lower():
            # RFC 9113 section 8.3.1: two recipients would choose differently.
            raise StreamError("Host differs from :authority")
        joined["HTTP_HOST"] = host
    return joined


def _read_host(authority: bytes) -> str:
    host = authority.decode("latin-1")
    if not is_host(host) or not host:
        raise Malformed(400, "the :authority is not a valid host and port")
    if len(authority) <= _CACHED_BYTES:
        if len(_hosts) >= _CACHE_ENTRIES:
            _hosts.clear()
        _hosts[bytes(authority)] = host
    return host


def _read_line(method: bytes, pseudo: dict[bytes, bytes], limit: int) -> RequestLine:
    """Return the request line of the pseudo-header fields."""
    scheme, path = pseudo.get(b":scheme", b""), pseudo.get(b":path", b"")
    if scheme not in _SCHEMES and _SCHEME.fullmatch(scheme) is None:
        raise StreamError("no valid :scheme")
    if not path:
        raise StreamError("no :path")
    line = _lines.get((method, path))
    if line is not None and len(path) <= limit:
        return line
    check_method(b"GET" if method == b"CONNECT" else method)
    if not path.startswith(b"/") and (path != b"*" or method != b"OPTIONS"):
        raise StreamError("the :path is neither absolute nor an asterisk")
    if len(path) > limit:
        raise Malformed(414, f"the target is longer than {limit} bytes")
    # An extended CONNECT has the path of a GET.
    shown = b"GET" if method == b"CONNECT" else method
    line = read_request_line(b"%b %b HTTP/1.1" % (shown, path))
    line = RequestLine(method.decode("ascii"), *line[1:])
    if len(path) <= _CACHED_BYTES:
        if len(_lines) >= _CACHE_ENTRIES:
            _lines.clear()
        _lines[bytes(method), bytes(path)] = line
    return line


def check_trailers(
    fields: Sequence[tuple[bytes, bytes]], size: int, limits: HeadLimits
) -> None:
    """Validate the trailers of a request, which are dropped, as in HTTP/1.1.

    Raises:
        StreamError: the request must be reset.
        Malformed: they exceed a limit.
    """
    for name, value in fields:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise StreamError("invalid trailer")
        if name in _OF_CONNECTIONS:
            raise StreamError("a trailer that belongs to HTTP/1.1 connections")
    if size > limits.trailers:
        raise Malformed(431, f"the trailers are longer than {limits.trailers} bytes")
