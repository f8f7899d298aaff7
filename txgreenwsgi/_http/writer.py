"""Validation and encoding of response heads.

The status and fields from the application are validated here, once: nothing that
allows response splitting passes. Must never know transports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any

from txgreenwsgi._native import lanes

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CONTINUE",
    "HOP_BY_HOP",
    "LAST_CHUNK",
    "STATUSES",
    "EarlyHints",
    "InvalidField",
    "ResponseHead",
    "date_field",
    "encode_switching",
    "encoded_fields",
    "encoded_statuses",
    "reason_of",
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

#: Names of the fields that belong to the connection, in lower case: RFC 9110 section
#: 7.6.1, and the list in PEP 3333, "Other HTTP Features".
HOP_BY_HOP = frozenset(
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
_STATUS = re.compile(r"([1-9][0-9][0-9])( [^\x00-\x1f\x7f]*)?", re.ASCII)

# Transfer codings that do not change the content: without the field, the body is sent
# as the application yields it. A body in another coding would be unreadable.
_HARMLESS_CODINGS = frozenset({"", "chunked", "identity"})

# Fields that an interim response must not have, besides those of the connection (RFC
# 9110 section 8.6).
_NOT_IN_HINTS = HOP_BY_HOP | {"content-length"}

# Applications send the same fields again and again, so their validated and encoded
# lines are cached. A full cache is cleared as a whole: that costs 1 us per field
# afterwards, and needs no bookkeeping on a hit.
_CACHE_ENTRIES = 1024
_CACHED_VALUE_CHARS = 200

#: Cache of field lines: (name, value) to the encoded line and the field's kind, see
#: `_encode_field`.
encoded_fields: dict[tuple[str, str], tuple[bytes, str | int | None]] = {}
#: Cache of status lines: status to the encoded line and the status code.
encoded_statuses: dict[str, tuple[bytes, int]] = {}
lanes.lend(encoded_fields=encoded_fields, encoded_statuses=encoded_statuses)


class InvalidField(ValueError):
    """A status or field that cannot be sent; the message gives the reason."""


def _plain(text: str) -> str:
    """Return an instance of `str` itself: a subclass may format as another text."""
    return text if type(text) is str else str.__str__(text)


def _pair(field: Any) -> tuple[str, str]:
    """Return a field given as any ordered pair of str."""
    parts: list[Any] = []
    if not isinstance(field, str | bytes | Mapping | Set):
        with suppress(TypeError):
            parts = list(islice(field, 3))
    if len(parts) != 2:
        raise TypeError(
            f"a response field must be a pair (name, value), not {field!r:.80}"
        )
    name, value = parts
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            f"names and values of response fields must be str, not {field!r:.80}"
        )
    return _plain(name), _plain(value)


@lanes.lent
def _encode_field(name: str, value: str) -> tuple[bytes, str | int | None]:
    """Validate a field; return its line and its kind.

    The kind is the lower-case name of the fields that `ResponseHead` treats specially:
    Date, Server, and the hop-by-hop fields, which have the line b"". For Content-Length
    it is the length, or the name if the value is not a length. It is None for all other
    fields.
    """
    if not _TOKEN.fullmatch(name):
        raise InvalidField(f"{name!r} is not a field name (RFC 9110 section 5.1)")
    if _FORBIDDEN_IN_VALUE.search(value):
        raise InvalidField(
            f"the value of the response field {name} contains a control character: "
            f"{value!r} (RFC 9110 section 5.5)"
        )
    lower = name.lower()
    try:
        line = f"{name}: {value}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidField(
            f"the value of the response field {name} is not latin-1: {value!r} "
            "(PEP 3333, Unicode Issues)"
        ) from None
    kind: str | int | None = None
    if lower in HOP_BY_HOP:
        if lower == "transfer-encoding" and not _list_of(value) <= _HARMLESS_CODINGS:
            raise InvalidField(
                f"the response field {name}: {value} cannot be dropped, because it "
                "changes the body: use Content-Encoding (RFC 9110 section 8.4)"
            )
        line, kind = b"", lower
    elif lower == "content-length":
        kind = int(value) if _LENGTH.fullmatch(value) else lower
    elif lower in ("date", "server"):
        kind = lower
    if len(value) <= _CACHED_VALUE_CHARS:
        if len(encoded_fields) >= _CACHE_ENTRIES:
            encoded_fields.clear()
        encoded_fields[name, value] = line, kind
    return line, kind


def _list_of(value: str) -> set[str]:
    """Return the elements of a list in lower case (RFC 9110 section 5.6.1)."""
    return {part.strip(" \t").lower() for part in value.split(",")}


def _encode_status(status: object) -> tuple[bytes, int]:
    """Validate a status; return its line and its code."""
    if not isinstance(status, str):
        raise TypeError(f"the status must be a str such as '200 OK', not {status!r}")
    status = _plain(status)
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
    # The space is required even without a reason (RFC 9112 section 4).
    text = status if match[2] else f"{status} {reason_of(code)}"
    try:
        line = f"HTTP/1.1 {text}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidField(f"the status {status!r} is not latin-1") from None
    if len(encoded_statuses) >= _CACHE_ENTRIES:
        encoded_statuses.clear()
    encoded_statuses[status] = line, code
    return line, code


def reason_of(code: int) -> str:
    """Return the usual reason phrase of a status code; "" if it has none."""
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


@lanes.with_lanes
class ResponseHead(lanes.ResponseHeadState):
    """A validated response head, ready to be encoded once.

    Hop-by-hop fields are dropped: the server sends its own.

    Args:
        status: Status code and reason, such as "200 OK". A missing reason is added.
        fields: Pairs of name and value, latin-1 str (PEP 3333).

    Attributes:
        code: The status code.
        content_length: The value of the Content-Length field; None without one.
        dropped: The names of the dropped fields.
        ends_connection: True if the fields have `Connection: close`.

    Raises:
        InvalidField: The status or a field cannot be sent.
        TypeError: An argument does not have the type that PEP 3333 requires.
    """

    __slots__ = lanes.slots(
        lanes.ResponseHeadState,
        (
            "_has_date",
            "_has_server",
            "_lines",
            "code",
            "content_length",
            "dropped",
            "ends_connection",
        ),
    )

    def __init__(self, status: str, fields: Iterable[tuple[str, str]]) -> None:
        encoded = encoded_statuses.get(status) or _encode_status(status)
        self.code = encoded[1]
        self._lines = lines = [encoded[0]]
        self.content_length: int | None = None
        self._has_date = self._has_server = self.ends_connection = False
        self.dropped: tuple[str, ...] = ()
        for field in fields if type(fields) is list else _iterated(fields):
            try:
                line, kind = encoded_fields[field]
            except (KeyError, TypeError):  # TypeError: not hashable
                field = _pair(field)
                line, kind = _encode_field(*field)
            lines.append(line)
            if kind is not None:
                if type(kind) is int or kind == "content-length":
                    self._set_length(kind, field[1])
                elif kind == "date":
                    self._has_date = True
                elif kind == "server":
                    self._has_server = True
                else:
                    self._drop(*field)

    def _drop(self, name: str, value: str) -> None:
        """Drop the last line, a hop-by-hop field."""
        self._lines.pop()
        self.dropped += (name,)
        if name.lower() == "connection" and "close" in _list_of(value):
            self.ends_connection = True

    def _set_length(self, length: str | int, value: str) -> None:
        """Set the length; `length` is a str if `value` is not a length."""
        if self.code == 204:
            # Drop it: RFC 9110 section 8.6 forbids Content-Length with 204, but
            # Django's middleware adds it.
            self._lines.pop()
            return
        if self.content_length is not None:
            raise InvalidField("the response has two Content-Length fields")
        if type(length) is not int:
            raise InvalidField(
                f"Content-Length must be a number of bytes, not {value!r:.60} "
                "(RFC 9110 section 8.6)"
            )
        self.content_length = length

    def add(self, name: str, value: str) -> None:
        """Add a field of the server. Call before `encode`."""
        self._lines.append(f"{name}: {value}\r\n".encode("latin-1"))

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

    def sent(self) -> list[tuple[str, str]]:
        """Return the fields as pairs of text, after `encode` with the server's own."""
        lines = b"".join(self._lines[1:]).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines if line)
        return [(name, value) for name, _, value in pairs]

    def has(self, name: bytes) -> bool:
        """Return True if the application set a field.

        Args:
            name: The field's name in lower case.
        """
        start = name + b":"
        return any(line[: len(start)].lower() == start for line in self._lines[1:])

    def lines(self, date: bytes, server: bytes, more: Iterable[bytes]) -> list[bytes]:
        """Return the field lines, with those of the server; for HTTP/2.

        Call once, in place of `encode`. Each line ends with CRLF; some may be empty.

        Args:
            date: As for `encode`.
            server: As for `encode`.
            more: Further lines, one field each.
        """
        lines = self._lines
        if not self._has_server:
            lines.append(server)
        if not self._has_date:
            lines.append(date)
        lines += more
        return lines[1:]

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
        if self._has_server:
            server = b""
        if self._has_date:
            date = b""
        lines += (server, date, framing_lines, b"\r\n")
        return b"".join(lines)


class EarlyHints:
    """The validated fields of a 103 response (RFC 8297), in the order given.

    Args:
        fields: Pairs of name and value, latin-1 str.

    Raises:
        InvalidField: A field cannot be sent in an interim response.
        TypeError: The fields are not pairs of str.
    """

    __slots__ = ("_pairs",)

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._pairs: list[tuple[bytes, bytes]] = []
        for field in _iterated(fields):
            name, value = _pair(field)
            if name.lower() in _NOT_IN_HINTS:
                raise InvalidField(
                    f"the field {name} must not be in early hints: remove it (RFC 9110 "
                    "sections 7.6.1 and 8.6)"
                )
            line = _encode_field(name, value)[0]
            encoded_name, _, encoded_value = line[:-2].partition(b": ")
            self._pairs.append((encoded_name, encoded_value))

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the fields, for transports that encode heads themselves."""
        return self._pairs

    def encode(self) -> bytes:
        """Return the bytes of the interim response."""
        lines = [b"%b: %b\r\n" % pair for pair in self._pairs]
        return b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % b"".join(lines)


def encode_switching(protocol: str, head: ResponseHead, lines: bytes) -> bytes:
    """Return the bytes of a 101 response (RFC 9110 section 15.2.2).

    Args:
        protocol: The value of the Upgrade field.
        head: Its fields are sent; its status is ignored.
        lines: Further lines, each with CRLF.
    """
    return b"HTTP/1.1 101 Switching Protocols\r\n%b%b%b\r\n" % (
        b"Upgrade: %b\r\nConnection: Upgrade\r\n" % protocol.encode("latin-1"),
        b"".join(b"%b: %b\r\n" % pair for pair in head.fields()),
        lines,
    )


def _iterated(fields: Any) -> Iterable[tuple[str, str]]:
    """Return the iterator of `fields` if they can be pairs."""
    remedy = "give an iterable of pairs (name, value), such as a list of tuples"
    if isinstance(fields, Mapping):
        remedy = "give its items()"
    elif not isinstance(fields, str | bytes):
        with suppress(TypeError):
            pairs: Iterable[tuple[str, str]] = iter(fields)
            return pairs
    raise TypeError(f"the response fields are not pairs: {fields!r:.80}; {remedy}")


def date_field(unix_seconds: float) -> bytes:
    """Return the Date line of a time, with CRLF (RFC 9110 section 6.6.1)."""
    return b"Date: %s\r\n" % formatdate(unix_seconds, usegmt=True).encode("ascii")
