"""Validation and encoding of response heads.

The status and fields from the application are validated here, once: nothing that
allows response splitting passes. Must never know transports.
"""

from __future__ import annotations

import re
from email.utils import formatdate

__all__ = [
    "CONTINUE",
    "LAST_CHUNK",
    "STATUSES",
    "InvalidField",
    "ResponseHead",
    "date_field",
    "encoded_fields",
    "encoded_statuses",
]

#: Status lines of the server's own responses to refused requests (RFC 9110 section
#: 15), by status code.
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

#: The interim response to ``Expect: 100-continue`` (RFC 9110 section 10.1.1).
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: The last chunk of a chunked body, without trailers (RFC 9112 section 7.1).
LAST_CHUNK = b"0\r\n\r\n"

# RFC 9110 section 7.6.1, and the list in PEP 3333, "Other HTTP Features".
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
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)  # fits in a signed 64-bit integer
_STATUS = re.compile(r"([1-9][0-9][0-9]) [^\x00-\x1f\x7f]*", re.ASCII)

# Applications send the same fields again and again, so their validated and encoded
# lines are cached. A full cache is cleared as a whole: that costs 1 us per field
# afterwards, and needs no bookkeeping on a hit.
_CACHE_ENTRIES = 1024
_CACHED_VALUE_CHARS = 200

#: Cache of field lines: (name, value) to the encoded line and the field's kind, see
#: `_encode_field`.
encoded_fields: dict[tuple[str, str], tuple[bytes, str]] = {}
#: Cache of status lines: status to the encoded line and the status code.
encoded_statuses: dict[str, tuple[bytes, int]] = {}


class InvalidField(ValueError):
    """A status or field that cannot be sent; the message gives the reason."""


def _encode_field(field: object) -> tuple[bytes, str]:
    """Validate a field; return its line and its kind.

    The kind is the lower-case name of Content-Length, Date and Server, which
    `ResponseHead` treats specially, and "" for all other fields.
    """
    if not isinstance(field, tuple) or len(field) != 2:
        raise TypeError(
            f"a response field must be a tuple (name, value), not {field!r}"
        )
    name, value = field
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            f"names and values of response fields must be str, not {field!r}"
        )
    if not _TOKEN.fullmatch(name):
        raise InvalidField(f"{name!r} is not a field name (RFC 9110 section 5.1)")
    if _FORBIDDEN_IN_VALUE.search(value):
        raise InvalidField(
            f"the value of the response field {name} contains a control character: "
            f"{value!r} (RFC 9110 section 5.5)"
        )
    lower = name.lower()
    if lower in _HOP_BY_HOP:
        raise InvalidField(
            f"the response field {name} is hop-by-hop: applications must not send it "
            "(PEP 3333, Other HTTP Features)"
        )
    try:
        line = f"{name}: {value}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidField(
            f"the value of the response field {name} is not latin-1: {value!r} "
            "(PEP 3333, Unicode Issues)"
        ) from None
    kind = lower if lower in ("content-length", "date", "server") else ""
    if len(value) <= _CACHED_VALUE_CHARS:
        if len(encoded_fields) >= _CACHE_ENTRIES:
            encoded_fields.clear()
        encoded_fields[name, value] = line, kind
    return line, kind


def _encode_status(status: object) -> tuple[bytes, int]:
    """Validate a status; return its line and its code."""
    if not isinstance(status, str):
        raise TypeError(f"the status must be a str such as '200 OK', not {status!r}")
    match = _STATUS.fullmatch(status)
    if match is None:
        raise InvalidField(
            f"the status is invalid: {status!r}; expected three digits, a space and a "
            "reason without control characters, such as '200 OK'"
        )
    code = int(match[1])
    if code < 200:
        raise InvalidField(
            f"the status {status!r} is interim: applications must send a final status, "
            "200 or above (PEP 3333, Other HTTP Features)"
        )
    try:
        line = f"HTTP/1.1 {status}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidField(f"the status {status!r} is not latin-1") from None
    if len(encoded_statuses) >= _CACHE_ENTRIES:
        encoded_statuses.clear()
    encoded_statuses[status] = line, code
    return line, code


class ResponseHead:
    """A validated response head, ready to be encoded once.

    Args:
        status: Status code and reason, such as "200 OK".
        fields: (name, value) pairs of latin-1 str (PEP 3333).

    Attributes:
        code: The status code.
        content_length: The value of the Content-Length field; None without one.

    Raises:
        InvalidField: The status or a field cannot be sent.
        TypeError: An argument does not have the type that PEP 3333 requires.
    """

    __slots__ = ("_has_date", "_has_server", "_lines", "code", "content_length")

    def __init__(self, status: str, fields: list[tuple[str, str]]) -> None:
        encoded = encoded_statuses.get(status) or _encode_status(status)
        self.code = encoded[1]
        self._lines = lines = [encoded[0]]
        self.content_length: int | None = None
        self._has_date = self._has_server = False
        if not isinstance(fields, list):
            raise TypeError(
                f"start_response takes the headers as a list, not {fields!r} (PEP 3333)"
            )
        for field in fields:
            try:
                line, kind = encoded_fields[field]
            except (KeyError, TypeError):  # TypeError: not hashable
                line, kind = _encode_field(field)
            lines.append(line)
            if kind:
                if kind == "content-length":
                    self._set_length(field[1])
                elif kind == "date":
                    self._has_date = True
                else:
                    self._has_server = True

    def _set_length(self, value: str) -> None:
        if self.code == 204:
            # Drop it: RFC 9110 section 8.6 forbids Content-Length with 204, but
            # Django's middleware adds it.
            self._lines.pop()
            return
        if self.content_length is not None:
            raise InvalidField("the response has two Content-Length fields")
        if not _LENGTH.fullmatch(value):
            raise InvalidField(
                f"Content-Length must be a number of bytes, not {value!r:.60} "
                "(RFC 9110 section 8.6)"
            )
        self.content_length = int(value)

    @property
    def reason(self) -> bytes:
        """The reason phrase: the part of the status line after the code."""
        return self._lines[0][len(b"HTTP/1.1 200 ") : -len(b"\r\n")]

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the validated fields as (name, value) pairs.

        For transports that encode heads themselves.
        """
        pairs = []
        for line in self._lines[1:]:
            name, _, value = line[:-2].partition(b": ")
            pairs.append((name, value))
        return pairs

    def has(self, name: bytes) -> bool:
        """Return True if the application set a field.

        Args:
            name: The field's name in lower case.
        """
        start = name + b":"
        return any(line[: len(start)].lower() == start for line in self._lines[1:])

    def encode(self, date: bytes, server: bytes, framing_lines: bytes) -> bytes:
        """Return the bytes of the head, including the empty line at its end.

        Call once: the lines of the server are appended in place.

        Args:
            date: The Date line, with CRLF; sent unless the application set Date.
            server: The Server line, with CRLF, or b""; sent unless the application
                set Server.
            framing_lines: Further lines, each with CRLF: those that define the end
                of the body and the persistence of the connection, and any others
                that the server adds.
        """
        lines = self._lines
        if not self._has_server:
            lines.append(server)
        if not self._has_date:
            lines.append(date)
        lines.append(framing_lines)
        lines.append(b"\r\n")
        return b"".join(lines)


def date_field(unix_seconds: float) -> bytes:
    """Return the Date line of a time, with CRLF (RFC 9110 section 6.6.1)."""
    return b"Date: %s\r\n" % formatdate(unix_seconds, usegmt=True).encode("ascii")
