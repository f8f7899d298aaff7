r"""Formats of the access log with the directives of Apache, such as `%h %{Referer}i`.

A format is compiled once, to one function for each directive. It knows the syntax and
the escaping. It must never know files.

All text from a client is escaped, so that a client cannot split or forge a line:
control characters, quotes and backslashes become `\x0a`, `\"` and `\\`. Outside of
quotes, spaces are escaped too.
"""

from __future__ import annotations

import binascii
import os
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = [
    "DIRECTIVES",
    "FormatError",
    "bare",
    "common_log_time",
    "compiled",
    "iso_time",
    "needs_of_format",
    "quoted",
    "request_line",
    "user_of",
]

# Not strftime("%b"), which depends on the locale.
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)

_UNSAFE_QUOTED: Final = re.compile(r"[^ !#-\[\]-~]")
# Outside quotes a space separates fields, so it is also escaped.
_UNSAFE_BARE: Final = re.compile(r"[^!#-\[\]-~]")


class FormatError(ValueError):
    """A format is invalid.

    Attributes:
        problem: the reason, as a clause that continues "the format ...".
        remedy: the correction, as an imperative.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


def _escape(unsafe: re.Match[str]) -> str:
    character = unsafe[0]
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def quoted(text: str) -> str:
    """Return text for a place between quotes; "-" if there is none."""
    return _UNSAFE_QUOTED.sub(_escape, text) or "-"


def bare(text: str) -> str:
    """Return text for a place outside quotes; "-" if there is none."""
    return _UNSAFE_BARE.sub(_escape, text) or "-"


# The requests of a moment end in the same few seconds.
@lru_cache(maxsize=16)
def common_log_time(second: int) -> str:
    """Return a time in the form of Apache's log, in UTC and without brackets."""
    t = time.gmtime(second)
    return (
        f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year:04d}"
        f":{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
    )


def iso_time(seconds: float) -> str:
    """Return a time in ISO 8601, in UTC and with milliseconds."""
    # Round once, as integers: 59.9996 s must not become :60.000.
    second, millisecond = divmod(round(seconds * 1000), 1000)
    return f"{_iso_second(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=16)
def _iso_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def request_line(record: ExchangeRecord) -> str:
    """Return the request line; "" for a head that could not be parsed."""
    if not record.method:
        return ""
    return f"{record.method} {record.target} {record.version}"


def user_of(record: ExchangeRecord) -> str:
    """Return the name of the user; "" if there is none.

    That is REMOTE_USER, if the application or its middleware has set it in the environ
    of the request. Otherwise it is the name that the client gives in an Authorization
    field of the scheme Basic, correct or not (RFC 7617).
    """
    environ = record.environ
    user = environ.get("REMOTE_USER")
    if user:
        return str(user)
    authorization = environ.get("HTTP_AUTHORIZATION")
    if not authorization or authorization[:6].lower() != "basic ":
        return ""
    try:
        decoded = binascii.a2b_base64(authorization[6:].encode("latin-1", "replace"))
    except binascii.Error:
        return ""
    return decoded.partition(b":")[0].decode("latin-1")


_Value: TypeAlias = "Callable[[ExchangeRecord], str]"


def _path(record: ExchangeRecord) -> str:
    return record.target.partition("?")[0]


def _query(record: ExchangeRecord) -> str:
    _, mark, query = record.target.partition("?")
    return mark + query


def _environ(name: str) -> _Value:
    """Return the function for a variable of the environ."""

    def value(record: ExchangeRecord) -> str:
        found = record.environ.get(name)
        return "" if found is None else str(found)

    return value


def _request_header(name: str) -> _Value:
    variable = name.upper().replace("-", "_")
    if variable not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        variable = f"HTTP_{variable}"
    return _environ(variable)


def _response_header(name: str) -> _Value:
    wanted = name.lower()

    def value(record: ExchangeRecord) -> str:
        return ", ".join(
            text for field, text in record.response_headers if field.lower() == wanted
        )

    return value


def _cookie(name: str) -> _Value:
    def value(record: ExchangeRecord) -> str:
        cookies = record.environ.get("HTTP_COOKIE") or ""
        for pair in cookies.split(";"):
            key, _, text = pair.strip().partition("=")
            if key == name:
                return str(text)
        return ""

    return value


#: The fields in seconds.
_TIMES: Final = ("blocked", "duration", "queued", "waiting")
_FIELDS: Final = (*_TIMES, "outcome", "remote_port", "request_id", "traceparent")


def _field(name: str) -> _Value:
    if name not in _FIELDS:
        raise FormatError(
            f"contains %{{{name}}}x, which is no field of the record",
            f"give one of {', '.join(_FIELDS)}",
        )
    if name in _TIMES:
        return lambda record: f"{getattr(record, name):.6f}"
    return lambda record: str(getattr(record, name))


_TIME_UNITS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}


def _duration(unit: str) -> _Value:
    if unit not in _TIME_UNITS:
        raise FormatError(
            f"contains %{{{unit}}}T, which is no unit of time", "give s, ms or us"
        )
    factor = _TIME_UNITS[unit]
    return lambda record: str(int(record.duration * factor))


#: The numbers that `%{...}t` knows by name, from microseconds since 1970.
_CLOCKS: Final[dict[str, Callable[[int], str]]] = {
    "sec": lambda microseconds: str(microseconds // 1_000_000),
    "msec": lambda microseconds: str(microseconds // 1_000),
    "usec": lambda microseconds: str(microseconds),
    "msec_frac": lambda microseconds: f"{microseconds // 1_000 % 1_000:03d}",
    "usec_frac": lambda microseconds: f"{microseconds % 1_000_000:06d}",
}


def _time(form: str) -> _Value:
    """Return the function for `%{form}t`: a time in UTC.

    Args:
        form: a name in `_CLOCKS`, or a pattern of strftime; with "end:" in front, the
            end of the request.
    """
    at_end = form.startswith("end:")
    form = form.removeprefix("begin:").removeprefix("end:")
    clock = _CLOCKS.get(form) or _calendar(form)

    def value(record: ExchangeRecord) -> str:
        seconds = record.started + (record.duration if at_end else 0.0)
        return clock(round(seconds * 1_000_000))

    return value


def _calendar(form: str) -> Callable[[int], str]:
    """Return the function that formats a time, in microseconds, by strftime."""
    try:
        time.strftime(form, time.gmtime(0))
    except ValueError:
        raise FormatError(
            f"contains %{{{form}}}t, which strftime rejects",
            "give a pattern such as %Y-%m-%dT%H:%M:%SZ",
        ) from None
    return lambda microseconds: time.strftime(
        form, time.gmtime(microseconds // 1_000_000)
    )


#: The directives without a name, with the function for each.
_PLAIN: Final[dict[str, _Value]] = {
    "a": lambda record: record.remote_addr,
    "b": lambda record: str(record.bytes_sent) if record.bytes_sent else "",
    "B": lambda record: str(record.bytes_sent),
    "D": lambda record: str(int(record.duration * 1_000_000)),
    "h": lambda record: record.remote_addr,
    "H": lambda record: record.version,
    "l": lambda _record: "",
    "L": lambda record: f"{record.duration:.6f}",
    "m": lambda record: record.method,
    "M": lambda record: str(int(record.duration * 1_000)),
    "p": _environ("SERVER_PORT"),
    "P": lambda _record: str(os.getpid()),
    "q": _query,
    "r": request_line,
    "s": lambda record: f"{record.status:03d}",
    "t": lambda record: f"[{common_log_time(int(record.started))}]",
    "T": lambda record: str(int(record.duration)),
    "u": user_of,
    "U": _path,
    "v": _environ("SERVER_NAME"),
    "V": _environ("SERVER_NAME"),
}
#: The directives with a name in braces.
_NAMED: Final[dict[str, Callable[[str], _Value]]] = {
    "C": _cookie,
    "e": _environ,
    "i": _request_header,
    "o": _response_header,
    "t": _time,
    "T": _duration,
    "x": _field,
}

#: Every directive with its meaning, for the documentation.
DIRECTIVES: Final = {
    "%%": "a percent sign",
    "%a, %h": "the address of the client",
    "%b": "the size of the response body in bytes; - for 0",
    "%B": "the size of the response body in bytes",
    "%{NAME}C": "a cookie of the request",
    "%D": "the duration in microseconds",
    "%{NAME}e": "a variable of the environ, as the application leaves it",
    "%H": "the protocol, such as HTTP/1.1",
    "%{NAME}i": "a header of the request",
    "%l": "-, for the name of RFC 1413",
    "%L": "the duration in seconds, with six decimals",
    "%m": "the method",
    "%M": "the duration in milliseconds",
    "%{NAME}o": "a header of the response",
    "%p": "the port of the server",
    "%P": "the process id",
    "%q": "the query with its question mark, or nothing",
    "%r": "the request line",
    "%s, %>s": "the status; 000 if no response was sent",
    "%t": "the time of the request, such as [28/Nov/2026:12:00:00 +0000]",
    "%{FORMAT}t": "the time in UTC: sec, msec, usec, msec_frac, usec_frac, or a "
    "pattern of strftime; with end: in front, the time of the end",
    "%T": "the duration in seconds, a whole number",
    "%{UNIT}T": "the duration in s, ms or us",
    "%u": "the user: REMOTE_USER, or that of an Authorization field of Basic",
    "%U": "the path, as sent by the client",
    "%v, %V": "SERVER_NAME",
    "%{NAME}x": "a field of the record: blocked, duration, queued, waiting, outcome, "
    "remote_port, request_id or traceparent",
}

_DIRECTIVE: Final = re.compile(
    r"%(?P<not>!?)(?P<codes>(?:[0-9]{3}(?:,[0-9]{3})*)?)[<>]?"
    r"(?:\{(?P<name>[^}]*)\})?(?P<letter>[a-zA-Z%])"
)
_ESCAPES: Final = {r"\t": "\t", r"\"": '"', r"\\": "\\"}


def compiled(form: str) -> Callable[[ExchangeRecord], str]:
    r"""Return the function that formats a record, with a newline at the end.

    Args:
        form: text with directives. `\t`, `\"` and `\\` stand for a tab, a quote and a
            backslash, as in Apache.

    Raises:
        FormatError: a directive is unknown, or the text is not printable ASCII.
    """
    if "%(" in form:
        raise FormatError(
            "is in the syntax of gunicorn, %(h)s",
            "give directives of Apache, such as %h or %{Referer}i; txgreenwsgi "
            "from-gunicorn translates them",
        )
    form = re.sub(r'\\[t"\\]', lambda match: _ESCAPES[match[0]], form)
    wrong = re.search(r"[^\t -~]", form)
    if wrong:
        raise FormatError(
            f"contains {wrong[0]!r}", "give printable ASCII characters and tabs"
        )
    parts: list[str | _Value] = []
    position = 0
    in_quotes = False
    while position < len(form):
        start = form.find("%", position)
        literal = form[position : start if start >= 0 else len(form)]
        if literal:
            parts.append(literal)
            in_quotes ^= literal.count('"') % 2 == 1
        if start < 0:
            break
        match = _DIRECTIVE.match(form, start)
        if match is None:
            raise _unknown(form[start : start + 2])
        parts.append(_part(match, quoted if in_quotes else bare))
        position = match.end()
    return lambda record: (
        "".join([part if isinstance(part, str) else part(record) for part in parts])
        + "\n"
    )


def _part(match: re.Match[str], escape: Callable[[str], str]) -> str | _Value:
    """Return the text or the function for one directive."""
    letter = match["letter"]
    if letter == "%":
        if match[0] != "%%":
            raise _unknown(match[0])
        return "%"
    name = match["name"]
    if name is None:
        value = _PLAIN.get(letter)
    elif not name or letter not in _NAMED:
        value = None
    else:
        value = _NAMED[letter](name)
    if value is None:
        raise _unknown(match[0])
    plain = value
    # The only value with a space that is no text from outside.
    if letter == "t":
        escape = quoted
    if letter == "q":
        # Nothing, not "-": it continues the path.
        return lambda record: escape(text) if (text := plain(record)) else ""
    if not match["codes"]:
        return lambda record: escape(plain(record))
    codes = frozenset(map(int, match["codes"].split(",")))
    wanted = not match["not"]
    return lambda record: (
        escape(plain(record)) if (record.status in codes) is wanted else "-"
    )


def _unknown(directive: str) -> FormatError:
    known = ", ".join(", ".join(key.split(", ")) for key in DIRECTIVES)
    return FormatError(
        f"contains {directive}, which is no directive", f"give some of {known}"
    )


def needs_of_format(form: str) -> frozenset[str]:
    """Return the fields of a record that a format needs, of `records.NEEDS`."""
    names = {"environ"}
    if form == "json" or re.search(r"%[^%{]*\{(?:queued|waiting)\}x", form):
        names.add("times")
    if re.search(r"%[^%{]*\{[^}]*\}o", form):
        names.add("response_headers")
    return frozenset(names)
