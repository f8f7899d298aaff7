"""Response heads and chunks as bytes, strictly.

What an application gives is checked here, once: nothing that could split a
response leaves this file. It must never know who sends the bytes.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Any

__all__ = [
    "CONTINUE",
    "LAST_CHUNK",
    "STATUSES",
    "InvalidField",
    "ResponseHead",
    "date_field",
]

#: What the server itself answers to requests that it refuses (RFC 9110 section 15).
STATUSES = {
    400: "400 Bad Request",
    408: "408 Request Timeout",
    413: "413 Content Too Large",
    414: "414 URI Too Long",
    417: "417 Expectation Failed",
    431: "431 Request Header Fields Too Large",
    501: "501 Not Implemented",
    505: "505 HTTP Version Not Supported",
}

#: RFC 9110 section 10.1.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: RFC 9112 section 7.1, with no trailers.
LAST_CHUNK = b"0\r\n\r\n"

# RFC 9110 section 7.6.1, and the list of PEP 3333 "Other HTTP Features".
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_FORBIDDEN_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)  # in 64 bits, as others count
_STATUS = re.compile(r"([1-9][0-9][0-9]) [^\x00-\x1f\x7f]*", re.ASCII)

# Applications answer with the same fields again and again. Each entry is a
# checked and encoded line; whole tables are dropped when they are full, which
# costs 1 us a field afterwards and needs no bookkeeping before.
_MOST_CACHED = 1024
_LONGEST_CACHED = 200
_field_cache: dict[tuple[str, str], tuple[bytes, str]] = {}
_status_cache: dict[str, tuple[bytes, int]] = {}


class InvalidField(ValueError):
    """A status or field that cannot be sent; the message says why."""


def _encode_field(field: Any) -> tuple[bytes, str]:
    """The line of a field, and its lower-case name if it means something to us."""
    if not isinstance(field, tuple) or len(field) != 2:
        raise TypeError(
            f"a response field is a tuple of a name and a value, not {field!r}"
        )
    name, value = field
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            f"the names and values of response fields are str, not {field!r}"
        )
    if not _TOKEN.fullmatch(name):
        raise InvalidField(f"{name!r} is no field name (RFC 9110 section 5.1)")
    if _FORBIDDEN_IN_VALUE.search(value):
        raise InvalidField(
            f"the value of the response field {name} has a control character: "
            f"{value!r} (RFC 9110 section 5.5)"
        )
    lower = name.lower()
    if lower in _HOP_BY_HOP:
        raise InvalidField(
            f"the response field {name} is the server's own: an application must not "
            "send hop-by-hop fields (PEP 3333, Other HTTP Features)"
        )
    try:
        line = f"{name}: {value}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidField(
            f"the value of the response field {name} is not latin-1: {value!r} "
            "(PEP 3333, Unicode Issues)"
        ) from None
    kind = lower if lower in ("content-length", "date", "server") else ""
    if len(value) <= _LONGEST_CACHED:
        if len(_field_cache) >= _MOST_CACHED:
            _field_cache.clear()
        _field_cache[field] = line, kind
    return line, kind


def _encode_status(status: str) -> tuple[bytes, int]:
    if not isinstance(status, str):
        raise TypeError(f"the status is a str such as '200 OK', not {status!r}")
    match = _STATUS.fullmatch(status)
    if match is None:
        raise InvalidField(
            f"the status is three digits, a space and a reason such as '200 OK', "
            f"without control characters, not {status!r}"
        )
    code = int(match[1])
    if code < 200:
        raise InvalidField(
            f"the status {status!r} is interim: an application sends final ones, "
            "from 200 on (PEP 3333, Other HTTP Features)"
        )
    try:
        line = f"HTTP/1.1 {status}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidField(f"the status {status!r} is not latin-1") from None
    if len(_status_cache) >= _MOST_CACHED:
        _status_cache.clear()
    _status_cache[status] = line, code
    return line, code


class ResponseHead:
    """A checked response head, ready to be sent.

    Args:
        status: such as "200 OK".
        fields: (name, value) pairs of latin-1 str (PEP 3333).

    Attributes:
        code: the status code.
        content_length: what the Content-Length field says; None without one.

    Raises:
        InvalidField: something cannot be sent.
        TypeError: something is not of the type that PEP 3333 names.
    """

    __slots__ = ("_dated", "_lines", "_served", "code", "content_length")

    def __init__(self, status: str, fields: list[tuple[str, str]]) -> None:
        encoded = _status_cache.get(status) or _encode_status(status)
        self.code = encoded[1]
        self._lines = lines = [encoded[0]]
        self.content_length: int | None = None
        self._dated = self._served = False
        if not isinstance(fields, list):
            raise TypeError(
                f"start_response takes its headers as a list, not {fields!r} (PEP 3333)"
            )
        for field in fields:
            try:
                line, kind = _field_cache[field]
            except (KeyError, TypeError):  # TypeError: it cannot be hashed
                line, kind = _encode_field(field)
            lines.append(line)
            if kind:
                if kind == "content-length":
                    self._set_length(field[1])
                elif kind == "date":
                    self._dated = True
                else:
                    self._served = True

    def _set_length(self, value: str) -> None:
        if self.code == 204:
            # RFC 9110 section 8.6 forbids it; Django's middleware adds it all
            # the same.
            self._lines.pop()
            return
        if self.content_length is not None:
            raise InvalidField("the response has two Content-Length fields")
        if not _LENGTH.fullmatch(value):
            raise InvalidField(
                f"Content-Length is a number of bytes, not {value!r:.60} (RFC 9110 "
                "section 8.6)"
            )
        self.content_length = int(value)

    @property
    def reason(self) -> bytes:
        """What the status line says behind the code."""
        return self._lines[0][len(b"HTTP/1.1 200 ") : -len(b"\r\n")]

    def fields(self) -> list[tuple[bytes, bytes]]:
        """The checked fields, for a writer that is not ours."""
        pairs = []
        for line in self._lines[1:]:
            name, _, value = line[:-2].partition(b": ")
            pairs.append((name, value))
        return pairs

    def has(self, name: bytes) -> bool:
        """Whether the application gave a field; `name` in lower case."""
        start = name + b":"
        return any(line[: len(start)].lower() == start for line in self._lines[1:])

    def encode(self, date: bytes, server: bytes, framing_lines: bytes) -> bytes:
        """The head's bytes, with the empty line that ends it.

        Args:
            date: a whole Date line, used if the application gave none.
            server: whole further lines of the server's, likewise a Server line.
            framing_lines: whole lines that tell where the body ends and whether
                the connection lives on.
        """
        lines = self._lines
        if not self._served:
            lines.append(server)
        if not self._dated:
            lines.append(date)
        lines.append(framing_lines)
        lines.append(b"\r\n")
        return b"".join(lines)


def date_field(unix_seconds: float) -> bytes:
    """The Date line of a moment (RFC 9110 section 6.6.1)."""
    return b"Date: %s\r\n" % formatdate(unix_seconds, usegmt=True).encode("ascii")
