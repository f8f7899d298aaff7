"""Header fields: parsing of single lines, and the meaning of a whole head.

Knows field names, values, and the fields that decide framing and persistence
(RFC 9110, RFC 9112). Must never know connections, nor how lines are found.
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

The pattern has no optional white space: two ways to match a run of spaces would make
long runs take quadratic time.
"""

# The value part of FIELD_LINE.
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")

Variable = tuple[str, str]
"""Name and latin-1 value of a CGI variable."""

DROPPED: Variable = ("", "")
"""Stands for a field that must not reach the application."""

# Singleton fields: if one is repeated, two parsers may choose different values.
# Content-Length and Host: RFC 9112 6.3 and 3.2. Content-Type: RFC 9110 8.3 lets a
# recipient choose, and a joined value is not a media type.
_SINGLETONS = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST"})

# Longer than any real body needs; keeps int() cheap.
_LENGTH_DIGITS = 18


def variable_name(name: str) -> str:
    """Return the CGI variable of a field (RFC 3875 4.1.18), "" to drop the field.

    Dropped are names with an underscore, which would collide with the same name
    spelt with a hyphen, and Proxy, which would become the HTTP_PROXY variable that
    HTTP clients obey (CVE-2016-5385).
    """
    name = name.upper()
    if "_" in name or name == "PROXY":
        return ""
    key = name.replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


def read_field(line: bytes) -> Variable:
    """Parse one field line, given without its CRLF.

    Returns:
        The variable's name and value; `DROPPED` if `variable_name` returns "".

    Raises:
        Malformed: 400.
    """
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise Malformed(400, "malformed field line: expected 'name: value'")
    key = variable_name(match[1].decode("ascii"))
    if not key:
        return DROPPED
    value = match[2].strip(b" \t").decode("latin-1")
    if key == "CONTENT_LENGTH" and not (value.isascii() and value.isdigit()):
        raise Malformed(400, "Content-Length is not a number")
    if key == "HTTP_HOST" and not is_host(value):
        raise Malformed(400, "Host is not a valid host and port")
    return key, value


def read_value(line: bytes, start: int) -> str | None:
    """Return the value that begins at `start` of a field line; None if invalid.

    For lines whose name the caller has already compared, of fields that allow any
    value.
    """
    if _VALUE.fullmatch(line, start) is None:
        return None
    return line[start:].strip(b" \t").decode("latin-1")


def join_fields(fields: Iterable[Variable]) -> dict[str, str]:
    """Return the variables of a head, with repeated fields joined.

    Cookie is joined with ``"; "`` (RFC 6265 5.4 and RFC 9113 8.2.3), all others
    with ``", "`` (RFC 9110 5.3), in the order received.

    Raises:
        Malformed: 400 if a singleton field is repeated.
    """
    variables: dict[str, str] = {}
    for key, value in fields:
        if key not in variables:
            variables[key] = value
        elif key in _SINGLETONS:
            name = key.removeprefix("HTTP_").replace("_", "-").title()
            raise Malformed(400, f"more than one {name} field")
        elif key != "":
            separator = "; " if key == "HTTP_COOKIE" else ", "
            variables[key] = f"{variables[key]}{separator}{value}"
    variables.pop("", None)
    return variables


def request_head(line: RequestLine, variables: dict[str, str]) -> RequestHead:
    """Build the head of a request from its request line and fields.

    Args:
        line: The request line.
        variables: The result of `join_fields`. The head takes ownership of it.

    Raises:
        Malformed: 400, 417 or 501.
    """
    method, target, path, query, version, authority = line
    persistent = version == "HTTP/1.1"
    if persistent and "HTTP_HOST" not in variables:
        raise Malformed(400, "the Host field is missing")  # RFC 9112 3.2
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
        # Fast path for the most common value.
        if options == "keep-alive":
            keep_alive = True
        else:
            listed = _list_elements(options)
            # RFC 9112 9.3: close wins over keep-alive.
            keep_alive = "close" not in listed and (
                persistent or "keep-alive" in listed
            )
            # RFC 9110 7.8: ignore it in an HTTP/1.0 request.
            if persistent and "upgrade" in listed:
                upgrade = variables.get("HTTP_UPGRADE", "")

    expects_continue = False
    if "HTTP_EXPECT" in variables:
        expected = _list_elements(variables["HTTP_EXPECT"].lower())
        if not expected <= {"100-continue"}:
            raise Malformed(417, "unsupported Expect: only 100-continue is supported")
        # RFC 9110 10.1.1: ignore it in an HTTP/1.0 request.
        expects_continue = bool(expected) and persistent and length != 0

    # By position: ten keyword arguments cost 0.3 us more per request.
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
    """Reject every Transfer-Encoding that is not exactly one chunked coding."""
    if version != "HTTP/1.1":
        # RFC 9112 6.1: treat the framing of such a message as faulty.
        raise Malformed(400, "Transfer-Encoding in an HTTP/1.0 request")
    if "CONTENT_LENGTH" in variables:
        # RFC 9112 6.1 lets a server reject it: the usual request smuggling attack.
        raise Malformed(400, "both Transfer-Encoding and Content-Length")
    coding = variables["HTTP_TRANSFER_ENCODING"].lower()
    if coding == "chunked":
        return
    *others, last = [part.strip(" \t") for part in coding.split(",")]
    if last != "chunked":
        # RFC 9112 6.3: the end of the body cannot be determined.
        raise Malformed(400, "the last transfer coding is not chunked")
    if "chunked" in others or "" in others:
        raise Malformed(400, "Transfer-Encoding has an empty or repeated coding")
    # RFC 9112 6.1: 501 for a transfer coding that the server does not know.
    raise Malformed(501, "unsupported transfer coding: only chunked is supported")


def _list_elements(value: str) -> set[str]:
    """Return the elements of a list, without empty ones (RFC 9110 5.6.1)."""
    return {part.strip(" \t") for part in value.split(",")} - {""}
