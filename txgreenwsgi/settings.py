"""Every setting once: its name, default, unit, meaning and limits.

The command's options, the table in the README and the keywords of
`txgreenwsgi.service` and `GreenSite` are made from what is written here, so
that none of them can drift. This file imports nothing but the standard
library, and must never know where a setting is used.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    # In `typing` from Python 3.11 on. Type checkers bring it along for 3.10.
    from typing_extensions import Unpack

__all__ = [
    "Pairs",
    "Setting",
    "SettingError",
    "Settings",
    "SettingsKeywords",
    "described",
    "parse",
    "refuse_settings",
    "shown",
]

#: Names with their values, as `add_header` and `environ` take them.
Pairs: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]


class SettingError(ValueError):
    """A setting has a value that it cannot have, or does not exist.

    Attributes:
        problem: What is wrong with the value, in words that follow it.
        remedy: What to give instead.
    """

    def __init__(self, subject: str, problem: str, remedy: str) -> None:
        super().__init__(f"{subject} {problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of one setting besides its name and default.

    Attributes:
        kind: How its value is read from text: "count", "bytes", "seconds",
            "flag", "choice", "text" or "pairs".
        meaning: One sentence for `--help` and the documentation.
        minimum: The smallest number allowed.
        off: What the value 0 (or the empty text) means, "" if it is nothing
            special.
        choices: The words allowed, for a "choice".
        form: What an option's value looks like in `--help`, for "pairs" and
            "text".
        separator: What stands between name and value of a pair.
    """

    kind: str
    meaning: str
    minimum: float = 0
    off: str = ""
    choices: tuple[str, ...] = ()
    form: str = ""
    separator: str = ""


def _setting(default: Any, kind: str, meaning: str, **more: Any) -> Any:
    """One field of `Settings`, with what is known of it in its metadata."""
    return dataclasses.field(
        default=default, metadata={"setting": Setting(kind, meaning, **more)}
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How a server behaves. Sizes are in bytes, times in seconds.

    Raises:
        SettingError: a value is of the wrong type or out of range.
    """

    max_in_flight: int = _setting(
        10000,
        "count",
        "Requests that may run at once, each in a greenlet of its own.",
        minimum=1,
    )
    max_queued: int = _setting(
        1000,
        "count",
        "Requests that may wait for a place to run; the next one is answered "
        "503 with Retry-After.",
    )
    queue_timeout: float = _setting(
        30.0,
        "seconds",
        "How long a request may wait for a place to run before it is answered "
        "503 with Retry-After.",
        off="for as long as it takes",
    )
    max_connections: int = _setting(
        0,
        "count",
        "Connections that may be open at once; further ones are closed at once.",
        off="no limit",
    )
    max_body: int = _setting(
        1024**3,
        "bytes",
        "Size of the largest request body; a larger one is answered 413.",
        off="no limit",
    )
    request_timeout: float = _setting(
        0.0,
        "seconds",
        "How long a request may take from its start to its end; then the wait it "
        "is in ends by RequestTimeout and the client is answered 504, or cut off "
        "if the response has begun.",
        off="no limit",
    )
    graceful_timeout: float = _setting(
        30.0,
        "seconds",
        "How long requests in flight may go on after the server was told to stop.",
        off="they are ended at once",
    )
    keep_alive: float = _setting(
        15.0,
        "seconds",
        "How long a connection may wait idle for its next request.",
        off="close after each response",
    )
    header_timeout: float = _setting(
        20.0,
        "seconds",
        "How long a request's head may take from its first byte to its last; then "
        "it is answered 408.",
        off="no limit",
    )
    body_timeout: float = _setting(
        30.0,
        "seconds",
        "How long the application may wait for the next byte of a request body; "
        "then its read fails, and the client is answered 408.",
        off="no limit",
    )
    min_body_rate: int = _setting(
        240,
        "bytes",
        "How many bytes of a request body must come each second, on average over the "
        "time that the application has waited for them; slower clients are answered "
        "408, but not in their first minute nor while body_timeout is 0.",
        off="no limit",
    )
    write_timeout: float = _setting(
        60.0,
        "seconds",
        "How long a client may accept no byte of a response that is waiting for it; "
        "then the connection is closed.",
        off="no limit",
    )
    max_header_size: int = _setting(
        32768,
        "bytes",
        "Size of the largest request head; a larger one is answered 431.",
        minimum=256,
    )
    max_headers: int = _setting(
        100,
        "count",
        "Header fields in one request; more are answered 431.",
        minimum=1,
    )
    max_target: int = _setting(
        8192,
        "bytes",
        "Length of the longest request target (path and query); a longer one is "
        "answered 414.",
        minimum=16,
    )
    max_trailer_size: int = _setting(
        8192,
        "bytes",
        "Size of all trailer fields of a chunked request body; larger ones are "
        "answered 431.",
    )
    max_chunk_extensions: int = _setting(
        4096,
        "bytes",
        "Size of all chunk extensions of a request body; larger ones are answered 400.",
    )
    input_window: int = _setting(
        65536,
        "bytes",
        "How much of a request body is held for the application before reading "
        "from the client pauses.",
        minimum=1,
    )
    buffer_input: bool = _setting(
        False,
        "flag",
        "Receive the whole request body before the application is called; without "
        "it, reading wsgi.input waits for what has not come yet.",
    )
    buffer_memory: int = _setting(
        1024**2,
        "bytes",
        "How much of a body that is received before is held in memory; a longer one "
        "goes to a temporary file.",
    )
    on_disconnect: Literal["continue", "cancel"] = _setting(
        "continue",
        "choice",
        "What happens to a request whose client has gone: it may continue, or the "
        "wait it is in is cancelled by ClientDisconnected.",
        choices=("continue", "cancel"),
    )
    display_tracebacks: bool = _setting(
        False,
        "flag",
        "Show the traceback of a failed application to the client. It tells "
        "strangers about your code: for development only.",
    )
    add_header: tuple[tuple[str, str], ...] = _setting(
        (),
        "pairs",
        "A field to add to every response that does not have it. May be repeated.",
        form='"Name: value"',
        separator=":",
    )
    environ: tuple[tuple[str, str], ...] = _setting(
        (),
        "pairs",
        "A variable to put into the environ of every request. May be repeated.",
        form="NAME=VALUE",
        separator="=",
    )
    server_header: str = _setting(
        "txgreenwsgi",
        "text",
        "Value of the Server field of each response.",
        off="send none",
        form="TEXT",
    )
    url_scheme: str = _setting(
        "",
        "text",
        "Value of wsgi.url_scheme, where a proxy in front takes care of TLS.",
        off="https on a TLS connection, else http",
        form="SCHEME",
    )

    def __post_init__(self) -> None:
        """Check every value, and bring it into its one form."""
        for field in dataclasses.fields(self):
            setting: Setting = field.metadata["setting"]
            value = _checked(field.name, setting, getattr(self, field.name))
            # The one way to set a field of a frozen dataclass.
            object.__setattr__(self, field.name, value)

    @classmethod
    def from_keywords(cls, **keywords: Unpack[SettingsKeywords]) -> Settings:
        """Return settings made from keyword arguments, defaults for the rest.

        Raises:
            SettingError: there is no such setting (the nearest name is given),
                or its value is of the wrong type or out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name, value in keywords.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise SettingError(
                    f"{name}={value!r}",
                    "is not a setting",
                    f"did you mean {near[0]}?" if near else f"give {', '.join(known)}",
                )
        # The pairs may come in any form: `__post_init__` normalizes them.
        values: dict[str, Any] = {**keywords}
        return cls(**values)

    def changed(self) -> dict[str, object]:
        """Return the settings that differ from their defaults, by name."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }


class SettingsKeywords(TypedDict, total=False):
    """The fields of `Settings`, for `**settings: Unpack[SettingsKeywords]`.

    Editors and type checkers read it; `Settings` is the reference at run time. A
    test keeps both identical.
    """

    max_in_flight: int
    max_queued: int
    queue_timeout: float
    max_connections: int
    max_body: int
    request_timeout: float
    graceful_timeout: float
    keep_alive: float
    header_timeout: float
    body_timeout: float
    min_body_rate: int
    write_timeout: float
    max_header_size: int
    max_headers: int
    max_target: int
    max_trailer_size: int
    max_chunk_extensions: int
    input_window: int
    buffer_input: bool
    buffer_memory: int
    on_disconnect: Literal["continue", "cancel"]
    display_tracebacks: bool
    add_header: Pairs
    environ: Pairs
    server_header: str
    url_scheme: str


def refuse_settings(
    given: Mapping[str, object], remedies: Mapping[str, str], transport: str
) -> None:
    """Raise if a setting was given that a transport cannot honour.

    Args:
        given: the settings by name: keyword arguments, or `Settings.changed()`.
        remedies: the settings that the transport cannot honour, each with what to
            do instead.
        transport: the transport's name in the message, such as "twisted.web".

    Raises:
        SettingError: `given` has one of them. The message names it and the remedy.
    """
    for name, value in given.items():
        if name in remedies:
            raise SettingError(
                f"{name}={value!r}",
                f"cannot be honoured by {transport}",
                remedies[name],
            )


def described() -> list[tuple[str, Setting, Any]]:
    """Name, description and default of each setting, in reading order."""
    return [
        (field.name, field.metadata["setting"], field.default)
        for field in dataclasses.fields(Settings)
    ]


# RFC 9110 section 5.6.2 (token), 5.5 (field-value, here without obs-text).
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_FIELD_VALUE: Final = re.compile(r"([!-~]([ \t!-~]*[!-~])?)?\Z")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*\Z")  # RFC 3986 section 3.1
_VARIABLE: Final = re.compile(r"[^=\x00\s]+\Z")
# The server frames and dates every message: a field that says otherwise would
# corrupt it, or be there twice.
# RFC 9110 section 7.6.1 and PEP 3333, "Other HTTP Features".
_FRAMING: Final = frozenset(
    [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)


def _checked(name: str, setting: Setting, value: Any) -> Any:
    """The value in its one form, or `SettingError`."""
    if setting.kind in ("count", "bytes", "seconds"):
        return _checked_number(name, setting, value)
    if setting.kind == "pairs":
        return _checked_pairs(name, value)
    subject = f"{name}={value!r}"
    if setting.kind == "flag":
        if not isinstance(value, bool):
            raise SettingError(subject, "is not a flag", "give True or False")
        return value
    if not isinstance(value, str):
        raise SettingError(subject, "is not text", "give a str")
    if setting.kind == "choice" and value not in setting.choices:
        raise SettingError(
            subject, "is none of its values", f"give {' or '.join(setting.choices)}"
        )
    if name == "server_header" and not _FIELD_VALUE.match(value):
        raise SettingError(
            subject,
            "cannot stand in a header field",
            "give visible ASCII characters, or nothing to send no such field",
        )
    if name == "url_scheme" and value and not _SCHEME.match(value):
        raise SettingError(
            subject,
            "is not a URL scheme",
            "give https or http, or nothing to go by the connection",
        )
    return value


def _checked_number(name: str, setting: Setting, value: Any) -> int | float:
    """A number of the right type and not below the setting's minimum."""
    subject = f"{name}={value!r}"
    kind = {"count": "whole number", "bytes": "number of bytes"}.get(
        setting.kind, "number of seconds"
    )
    remedy = f"give a {kind}, at least {setting.minimum:g}"
    if setting.off:
        remedy += f" (0: {setting.off})"
    numbers = int | float if setting.kind == "seconds" else int
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise SettingError(subject, f"is not a {kind}", remedy)
    # "not in range" rather than "below it": that refuses nan as well.
    if not setting.minimum <= value < float("inf"):
        raise SettingError(subject, "is out of range", remedy)
    return float(value) if setting.kind == "seconds" else value


def _checked_pairs(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    """Pairs of text as tuples, from any iterable of pairs or a mapping."""
    try:
        given = value.items() if isinstance(value, Mapping) else value
        pairs = tuple((key, text) for key, text in given)
    except (TypeError, ValueError):
        pairs = ((None, None),)
    for key, text in pairs:
        if not isinstance(key, str) or not isinstance(text, str):
            raise SettingError(
                f"{name}={value!r}",
                "is not made of pairs of text",
                "give a list of (name, value) tuples of str",
            )
        if name == "add_header":
            _check_header(key, text)
        else:
            _check_variable(key, text)
    return pairs


def _check_header(name: str, value: str) -> None:
    """Refuse what would break a response, or contradict its framing."""
    subject = f"add_header {name!r}: {value!r}"
    if not _TOKEN.match(name):
        raise SettingError(
            subject,
            "has no field name",
            "give letters, digits and hyphens before the colon, as in "
            "'X-Frame-Options: DENY'",
        )
    if not _FIELD_VALUE.match(value):
        raise SettingError(
            subject,
            "cannot stand in a header field",
            "give visible ASCII characters, with no space at either end",
        )
    if name.lower() in _FRAMING:
        raise SettingError(
            subject,
            "is decided by the server for each response",
            "leave it out",
        )


def _check_variable(name: str, value: str) -> None:
    """Refuse what cannot be in an environ, or is not the deployer's to say."""
    subject = f"environ {name!r}={value!r}"
    if not _VARIABLE.match(name) or "\0" in value:
        raise SettingError(
            subject,
            "cannot be a variable",
            "give a name without spaces or '=', and a value without NUL",
        )
    if name.startswith("wsgi."):
        raise SettingError(
            subject,
            "is set by the server, as PEP 3333 says",
            "give a name that does not begin with 'wsgi.'",
        )


_SUFFIXES: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SIZE: Final = re.compile(r"([0-9]+)([kmg]?)(?:i?b)?\Z", re.IGNORECASE)
_COUNT: Final = re.compile(r"[0-9]+\Z")
_SECONDS: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)s?\Z", re.IGNORECASE)


def parse(setting: Setting, text: str) -> Any:
    """The value that a text on the command line stands for.

    Whether it is in range is for `Settings` to say.

    Raises:
        SettingError: the text cannot be read as such a value.
    """
    if setting.kind == "count":
        if not _COUNT.match(text):
            raise SettingError(
                repr(text), "is not a whole number", "give one in decimal digits"
            )
        return int(text)
    if setting.kind == "bytes":
        if not (size := _SIZE.match(text)):
            raise SettingError(
                repr(text), "is not a number of bytes", "give 65536, 64K, 10M or 1G"
            )
        return int(size[1]) * _SUFFIXES[size[2].lower()]
    if setting.kind == "seconds":
        if not (seconds := _SECONDS.match(text)):
            raise SettingError(
                repr(text), "is not a number of seconds", "give 30 or 0.5"
            )
        return float(seconds[1])
    if setting.kind == "pairs":
        name, separator, value = text.partition(setting.separator)
        if not separator:
            raise SettingError(
                repr(text), f"has no {setting.separator!r}", f"give {setting.form}"
            )
        if setting.separator == ":":
            # Space around a field's value is no part of it (RFC 9112 section 5).
            return name.strip(), value.strip()
        return name, value
    return text


def shown(setting: Setting, value: Any) -> str:
    """A value as one would write it on the command line."""
    if setting.kind == "bytes":
        for suffix in "gmk":
            count, rest = divmod(value, _SUFFIXES[suffix])
            if count and not rest:
                return f"{count}{suffix.upper()}"
    if setting.kind in ("count", "bytes", "seconds"):
        return f"{value:.15g}"
    if setting.kind == "pairs":
        space = " " if setting.separator == ":" else ""
        return ", ".join(
            f"{name}{setting.separator}{space}{text}" for name, text in value
        )
    if setting.kind == "flag":
        return "on" if value else "off"
    return str(value)
