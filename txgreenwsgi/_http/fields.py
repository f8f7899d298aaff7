"""Fields: one line of a head, and what all of them together mean.

Knows field names, values, and the fields that decide framing and persistence
(RFC 9110, RFC 9112). Must never know of connections, or of how lines were found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .head import Malformed, RequestHead
from .target import is_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .target import RequestLine

__all__ = [
    "FIELD_LINE",
    "Variable",
    "join_fields",
    "read_field",
    "read_value",
    "request_head",
    "variable_name",
]

FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
"""A field line without its CRLF (RFC 9112 5, RFC 9110 5.5).

No optional white space in the pattern: two ways to match a run of spaces would
let a long one take quadratic time.
"""

# The latter half of the same.
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")

Variable = tuple[str, str]
"""A CGI variable: its name, and its value as latin-1."""

DROPPED: Variable = ("", "")
"""What a field gives that no application may see."""

# Fields whose value is one thing: a second one means that two readers may choose
# differently. Content-Length and Host: RFC 9112 6.3 and 3.2. Content-Type: RFC 9110
# 8.3 lets a recipient choose, and a joined value is no media type.
_SINGLE = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST"})

# More digits than any body that could be sent; keeps int() cheap.
_LENGTH_DIGITS = 18


def variable_name(name: str) -> str:
    """The variable of a field (RFC 3875 4.1.18); "" if no application may see it.

    That is a name with an underscore, which would pose as the same name with a
    hyphen, and Proxy, which would become the HTTP_PROXY that HTTP clients obey
    (CVE-2016-5385).
    """
    name = name.upper()
    if "_" in name or name == "PROXY":
        return ""
    key = name.replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


def read_field(line: bytes) -> Variable:
    """Read one field line, given without its CRLF.

    Returns:
        The variable's name and value; `DROPPED` where `variable_name` gives none.

    Raises:
        Malformed: 400.
    """
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise Malformed(400, "a field line is not a name, a colon and a value")
    key = variable_name(match[1].decode("ascii"))
    if not key:
        return DROPPED
    value = match[2].strip(b" \t").decode("latin-1")
    if key == "CONTENT_LENGTH" and not (value.isascii() and value.isdigit()):
        raise Malformed(400, "Content-Length is not a number")
    if key == "HTTP_HOST" and not is_host(value):
        raise Malformed(400, "Host is not a host and a port")
    return key, value


def read_value(line: bytes, start: int) -> str | None:
    """The value that begins at `start` of a field line; None if it is not one.

    For a field whose name is known by its bytes, and whose value may be anything.
    """
    if _VALUE.fullmatch(line, start) is None:
        return None
    return line[start:].strip(b" \t").decode("latin-1")


def join_fields(fields: Iterable[Variable]) -> dict[str, str]:
    """Return the variables of a head, fields of one name joined into one.

    Cookie is joined with ``"; "`` (RFC 6265 5.4 and RFC 9113 8.2.3), all others
    with ``", "`` (RFC 9110 5.3), in the order in which they came.

    Raises:
        Malformed: 400 where a field that must be single is not.
    """
    variables: dict[str, str] = {}
    for key, value in fields:
        if key not in variables:
            variables[key] = value
        elif key in _SINGLE:
            name = key.removeprefix("HTTP_").replace("_", "-").title()
            raise Malformed(400, f"more than one {name} field")
        elif key != "":
            separator = "; " if key == "HTTP_COOKIE" else ", "
            variables[key] = f"{variables[key]}{separator}{value}"
    variables.pop("", None)
    return variables


def request_head(line: RequestLine, variables: dict[str, str]) -> RequestHead:
    """Return the head of a request, or say why it cannot be answered.

    Args:
        line: The request line.
        variables: What `join_fields` gave. Becomes the head's own.

    Raises:
        Malformed: 400, 417 or 501.
    """
    method, target, path, query, version, authority = line
    persistent = version == "HTTP/1.1"
    if persistent and "HTTP_HOST" not in variables:
        raise Malformed(400, "no Host field")  # RFC 9112 3.2
    if authority is not None:
        variables["HTTP_HOST"] = authority  # RFC 9112 3.2.2

    length: int | None = 0
    if "CONTENT_LENGTH" in variables:
        length = _read_length(variables["CONTENT_LENGTH"])
    if "HTTP_TRANSFER_ENCODING" in variables:
        _check_coding(variables, version)
        length = None

    upgrade = ""
    keep_alive = persistent
    if "HTTP_CONNECTION" in variables:
        options = variables["HTTP_CONNECTION"].lower()
        # What nearly every client sends that sends this field at all.
        if options == "keep-alive":
            keep_alive = True
        else:
            listed = _elements(options)
            # RFC 9112 9.3: close wins over keep-alive.
            keep_alive = "close" not in listed and (
                persistent or "keep-alive" in listed
            )
            # RFC 9110 7.8: to be ignored in an HTTP/1.0 request.
            if persistent and "upgrade" in listed:
                upgrade = variables.get("HTTP_UPGRADE", "")

    expects_continue = False
    if "HTTP_EXPECT" in variables:
        expected = _elements(variables["HTTP_EXPECT"].lower())
        if not expected <= {"100-continue"}:
            raise Malformed(417, "an expectation other than 100-continue")
        # RFC 9110 10.1.1: to be ignored in an HTTP/1.0 request.
        expects_continue = bool(expected) and persistent and length != 0

    return RequestHead(
        method,
        target,
        path,
        query,
        version,
        variables,
        length,
        keep_alive,
        expects_continue,
        upgrade,
    )


def _read_length(value: str) -> int:
    digits = value.lstrip("0")
    if len(digits) > _LENGTH_DIGITS:
        raise Malformed(400, "Content-Length is too large")
    return int(digits or "0")


def _check_coding(variables: dict[str, str], version: str) -> None:
    """Refuse what is not the one chunked body that every reader sees alike."""
    if version != "HTTP/1.1":
        # RFC 9112 6.1: the framing of such a message is faulty.
        raise Malformed(400, "Transfer-Encoding in an HTTP/1.0 request")
    if "CONTENT_LENGTH" in variables:
        # RFC 9112 6.1 lets a server reject it: it is how requests are smuggled.
        raise Malformed(400, "Transfer-Encoding together with Content-Length")
    coding = variables["HTTP_TRANSFER_ENCODING"].lower()
    if coding == "chunked":
        return
    *others, last = [part.strip(" \t") for part in coding.split(",")]
    if last != "chunked":
        # RFC 9112 6.3: where the body ends cannot be known.
        raise Malformed(400, "the last transfer coding is not chunked")
    if "chunked" in others or "" in others:
        raise Malformed(400, "Transfer-Encoding is not a list of different codings")
    raise Malformed(501, "a transfer coding other than chunked")  # RFC 9112 6.1


def _elements(value: str) -> set[str]:
    """Return the elements of a list; empty ones do not count (RFC 9110 5.6.1)."""
    return {part.strip(" \t") for part in value.split(",")} - {""}
