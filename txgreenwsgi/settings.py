"""Every setting: its name, default, unit, meaning and limits.

The options of the command, their table in the documentation and the keywords of
`txgreenwsgi.service` and `GreenSite` are generated from this module, so they cannot
drift apart. It imports only the standard library, and must never know where a setting
is used.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
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
    "typed",
]

#: Names with their values, as `add_header` and `environ` take them.
Pairs: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

Kind: TypeAlias = Literal[
    "count",
    "bytes",
    "seconds",
    "flag",
    "choice",
    "text",
    "names",
    "pairs",
    "words",
]


class SettingError(ValueError):
    """A setting does not exist or has an invalid value.

    Attributes:
        problem: the reason, as a clause that continues "the value ...".
        remedy: the correction, as an imperative.
    """

    def __init__(self, subject: str, problem: str, remedy: str) -> None:
        super().__init__(f"{subject} {problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class Setting:
    """The description of one setting, without its name and default.

    Attributes:
        kind: the syntax of its value on a command line.
        meaning: a sentence or two for `--help` and the documentation.
        minimum: the smallest valid number.
        off: the meaning of the value 0 (or of the empty text or list); "" if it has
            no special meaning.
        choices: the valid words of a "choice"; of a "count", the words that are valid
            beside numbers.
        form: the placeholder of the value in `--help`, for "names", "pairs", "words"
            and "text".
        separator: the character between name and value of a pair.
        path: the value, or the value of a pair, is the path of a file or directory.
    """

    kind: Kind
    meaning: str
    minimum: float = 0
    off: str = ""
    choices: tuple[str, ...] = ()
    form: str = ""
    separator: str = ""
    path: bool = False


def _setting(default: object, kind: Kind, meaning: str, **more: Any) -> Any:
    """Return a field of `Settings` with its description in the metadata."""
    return dataclasses.field(
        default=default, metadata={"setting": Setting(kind, meaning, **more)}
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of a server. Sizes are in bytes, times in seconds.

    Raises:
        SettingError: a value is of the wrong type or out of range.
    """

    max_in_flight: int = _setting(
        10000,
        "count",
        "Maximum number of concurrent requests, each in its own greenlet.",
        minimum=1,
    )
    threads_for: tuple[str, ...] = _setting(
        (),
        "words",
        "Serve requests that match this pattern in real threads, because they compute "
        "or block: a path such as '/reports/*', a method and a path such as "
        "'POST /upload', 'all', 'none', or 'auto': the paths that have repeatedly held "
        "up other requests. May be repeated. The command's default is auto.",
        form="PATTERN",
    )
    threads: int = _setting(
        8,
        "count",
        "Maximum number of requests that run in threads at a time; requests that wait "
        "do not count.",
        minimum=1,
    )
    max_queued: int = _setting(
        1000,
        "count",
        "Maximum number of queued requests; further ones get 503 with Retry-After.",
    )
    queue_timeout: float = _setting(
        30.0,
        "seconds",
        "Maximum time a request waits in the queue; then it gets 503 with Retry-After.",
        off="no limit",
    )
    max_connections: int = _setting(
        0,
        "count",
        "Maximum number of open connections; further ones are closed immediately.",
        off="no limit",
    )
    max_handshakes: int = _setting(
        1000,
        "count",
        "Maximum number of TLS handshakes in progress; above it, the oldest one is "
        "closed for each new one.",
        off="no limit",
    )
    max_body: int = _setting(
        1024**3,
        "bytes",
        "Maximum size of a request body; a larger one gets 413.",
        off="no limit",
    )
    request_timeout: float = _setting(
        0.0,
        "seconds",
        "Maximum duration of a request. When it expires, the current wait of the "
        "application raises RequestTimeout, and the client gets 504 or, if the "
        "response has begun, a closed connection.",
        off="no limit",
    )
    graceful_timeout: float = _setting(
        30.0,
        "seconds",
        "Grace period for requests in flight when the server stops.",
        off="they are cancelled immediately",
    )
    drain_idle: float = _setting(
        2.0,
        "seconds",
        "Time that an idle connection stays open when the server stops, so that a "
        "request which is on its way is answered.",
        off="close idle connections immediately",
    )
    drain_delay: float = _setting(
        0.0,
        "seconds",
        "Time for which the server accepts connections after SIGTERM, so that load "
        "balancers see its health check fail before it stops.",
        off="stop accepting immediately",
    )
    keep_alive: float = _setting(
        15.0,
        "seconds",
        "Maximum idle time of a connection between two requests.",
        off="close after each response",
    )
    header_timeout: float = _setting(
        20.0,
        "seconds",
        "Maximum time from the first to the last byte of a request head; then the "
        "client gets 408.",
        off="no limit",
    )
    body_timeout: float = _setting(
        30.0,
        "seconds",
        "Maximum time the application waits for the next byte of a request body; "
        "then its read raises an exception, and the client gets 408.",
        off="no limit",
    )
    min_body_rate: int = _setting(
        240,
        "bytes",
        "Minimum transfer rate of a request body in bytes per second, averaged over "
        "the time that the application has waited for it. Slower clients get 408, "
        "but not in the first minute, and never if body_timeout is 0.",
        off="no limit",
    )
    write_timeout: float = _setting(
        60.0,
        "seconds",
        "Maximum time without progress in sending a response to the client; then the "
        "connection is closed.",
        off="no limit",
    )
    blocked_after: float = _setting(
        0.25,
        "seconds",
        "Time for which a request may block the reactor, and with it all others, until "
        "the log names the request and the line of code.",
        off="no monitor",
    )
    slow_after: float = _setting(
        0.0,
        "seconds",
        "Log a line at the end of each request that takes this time, which says where "
        "its time went: queue, application, waits, blocked reactor.",
        off="no such lines",
    )
    server_timing: bool = _setting(
        False,
        "flag",
        "Add a Server-Timing header to responses, with the time in the queue, in the "
        "application, in its waits, and for which it blocked the reactor. For "
        "development and trusted clients: it tells clients about the server.",
    )
    methods: tuple[str, ...] = _setting(
        (),
        "names",
        "Request methods that reach the application, separated by commas; others get "
        "405. CONNECT always gets 501.",
        off="all methods",
        form="LIST",
    )
    max_header_size: int = _setting(
        32768,
        "bytes",
        "Maximum size of a request head; a larger one gets 431.",
        minimum=256,
    )
    max_headers: int = _setting(
        100,
        "count",
        "Maximum number of header fields in a request; more get 431.",
        minimum=1,
    )
    max_target: int = _setting(
        8192,
        "bytes",
        "Maximum length of a request target (path and query); a longer one gets 414.",
        minimum=16,
    )
    max_trailer_size: int = _setting(
        8192,
        "bytes",
        "Maximum total size of the trailer fields of a chunked request body; larger "
        "ones get 431.",
    )
    max_chunk_extensions: int = _setting(
        4096,
        "bytes",
        "Maximum total size of the chunk extensions of a request body; larger ones "
        "get 400.",
    )
    input_window: int = _setting(
        65536,
        "bytes",
        "Size of the buffer between client and application for a request body; when "
        "it is full, reading from the client pauses.",
        minimum=1,
    )
    buffer_input: bool = _setting(
        False,
        "flag",
        "Receive the complete request body before the application is called; "
        "CONTENT_LENGTH is set and wsgi.input can seek. Otherwise, reading wsgi.input "
        "waits for data that has not arrived; --chunked decides for bodies without "
        "a length.",
    )
    chunked: Literal["auto", "buffer", "stream"] = _setting(
        "auto",
        "choice",
        "When to call the application for a chunked request body, whose length is "
        "unknown: auto, when the body is complete or the client has paused for a "
        "second; buffer, when the body is complete; stream, at once. A complete body "
        "has a CONTENT_LENGTH.",
        choices=("auto", "buffer", "stream"),
    )
    buffer_memory: int = _setting(
        1024**2,
        "bytes",
        "Maximum size in memory of a body that is received before the application is "
        "called; without buffer_input, at most half of input_window. A larger one "
        "goes to a temporary file.",
    )
    on_disconnect: Literal["continue", "cancel"] = _setting(
        "continue",
        "choice",
        "Effect of a disconnect of the client on its request: the request continues, "
        "or its current wait raises ClientDisconnected.",
        choices=("continue", "cancel"),
    )
    half_close: Literal["disconnect", "serve"] = _setting(
        "disconnect",
        "choice",
        "Effect of the end of the client's input during a request: it counts as a "
        "disconnect, or the requests received before it are answered. With serve, a "
        "client that has left is detected only by sending to it. TLS connections "
        "always disconnect.",
        choices=("disconnect", "serve"),
    )
    http2: Literal["off", "tls", "h2c"] = _setting(
        "off",
        "choice",
        "HTTP/2: tls, for TLS connections whose client prefers it (ALPN); h2c, also "
        "for plain connections that begin with it, such as those of a proxy. Needs the "
        "extra txgreenwsgi[http2].",
        choices=("off", "tls", "h2c"),
    )
    http2_max_streams: int = _setting(
        100,
        "count",
        "Maximum number of concurrent requests of an HTTP/2 connection; further ones "
        "are refused, and the client may repeat them.",
        minimum=1,
    )
    strict: bool = _setting(
        False,
        "flag",
        "Treat every violation of PEP 3333 by the application as an error. By "
        "default, harmless ones are accepted, and hop-by-hop response headers are "
        "dropped with a warning.",
    )
    display_tracebacks: bool = _setting(
        False,
        "flag",
        "Send the traceback of a failed application to the client. For development "
        "only: it reveals your code.",
    )
    add_header: tuple[tuple[str, str], ...] = _setting(
        (),
        "pairs",
        "Add this response header unless the application sets it. May be repeated.",
        form='"Name: value"',
        separator=":",
    )
    environ: tuple[tuple[str, str], ...] = _setting(
        (),
        "pairs",
        "Add this variable to the environ of every request. May be repeated.",
        form="NAME=VALUE",
        separator="=",
    )
    server_header: str = _setting(
        "txgreenwsgi",
        "text",
        "Value of the Server response header.",
        off="send no such header",
        form="TEXT",
    )
    prefix: str = _setting(
        "",
        "text",
        "Path below which the application is mounted, such as /app: the value of "
        "SCRIPT_NAME, removed from the beginning of PATH_INFO. Other paths are passed "
        "on unchanged, because a proxy may have removed the prefix.",
        off="the root",
        form="PATH",
    )
    health_path: str = _setting(
        "",
        "text",
        "Path below which the server itself answers health checks, such as /-: "
        "/-/live gets 200, and /-/ready gets 200 or, from SIGTERM on, 503.",
        off="all paths are the application's",
        form="PATH",
    )
    static: tuple[tuple[str, str], ...] = _setting(
        (),
        "pairs",
        "Serve the files of this directory below this path, without the application. "
        "May be repeated.",
        form="/PATH=DIRECTORY",
        separator="=",
        path=True,
    )
    static_expires: float = _setting(
        86400.0,
        "seconds",
        "Time for which clients may use a static file without asking whether it has "
        "changed.",
        off="they ask each time",
    )
    trusted_proxy: tuple[str, ...] = _setting(
        (),
        "names",
        "Reverse proxies whose forwarded headers are believed: addresses and networks "
        "separated by commas, unix for UNIX sockets, or * for every peer. From other "
        "peers, Forwarded, X-Forwarded-* and X-Real-IP are removed.",
        off="forwarded headers are passed on and not believed",
        form="LIST",
    )
    trusted_proxy_count: int = _setting(
        1,
        "count",
        "Number of trusted proxies that a request passes one after the other; the "
        "client's address is that many entries from the end of the header.",
        minimum=1,
    )
    trusted_proxy_headers: tuple[str, ...] = _setting(
        ("x-forwarded-for", "x-forwarded-proto"),
        "names",
        "Headers that the trusted proxies set on every request: forwarded, or some of "
        "x-forwarded-for, x-forwarded-proto (by default, these two), "
        "x-forwarded-host, x-forwarded-port and x-forwarded-by. The others of these "
        "are removed.",
        form="LIST",
    )
    proxy_protocol: Literal["off", "v1", "v2", "auto"] = _setting(
        "off",
        "choice",
        "PROXY protocol: the version that the peers in proxy_protocol_from send ahead "
        "of each connection, and of TLS, to name the client; auto: either version.",
        choices=("off", "v1", "v2", "auto"),
    )
    proxy_protocol_from: tuple[str, ...] = _setting(
        (),
        "names",
        "Peers that must send the PROXY protocol: addresses and networks separated by "
        "commas, unix for UNIX sockets, or * for every peer. Others are served as with "
        "off.",
        off="UNIX sockets, if the server listens on no other",
        form="LIST",
    )
    url_scheme: str = _setting(
        "",
        "text",
        "Value of wsgi.url_scheme, for a server behind a proxy that terminates TLS.",
        off="https on a TLS connection, else http",
        form="SCHEME",
    )

    def __post_init__(self) -> None:
        """Validate and normalize every value."""
        for field in dataclasses.fields(self):
            setting: Setting = field.metadata["setting"]
            value = _checked(field.name, setting, getattr(self, field.name))
            # The only way to set a field of a frozen dataclass.
            object.__setattr__(self, field.name, value)

    @classmethod
    def from_keywords(cls, **keywords: Unpack[SettingsKeywords]) -> Settings:
        """Return settings made from keyword arguments, defaults for the rest.

        Raises:
            SettingError: there is no such setting (the message gives the most
                similar name), or its value is of the wrong type or out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name, value in keywords.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                if near:
                    remedy = f"did you mean {near[0]}?"
                else:
                    remedy = _NOT_SETTINGS.get(name, f"give one of {', '.join(known)}")
                raise SettingError(f"{name}={value!r}", "is not a setting", remedy)
        # `__post_init__` normalizes the pairs.
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
    threads_for: Iterable[str]
    threads: int
    max_queued: int
    queue_timeout: float
    max_connections: int
    max_handshakes: int
    max_body: int
    request_timeout: float
    graceful_timeout: float
    drain_idle: float
    drain_delay: float
    keep_alive: float
    header_timeout: float
    body_timeout: float
    min_body_rate: int
    write_timeout: float
    blocked_after: float
    slow_after: float
    server_timing: bool
    methods: Iterable[str]
    max_header_size: int
    max_headers: int
    max_target: int
    max_trailer_size: int
    max_chunk_extensions: int
    input_window: int
    buffer_input: bool
    chunked: Literal["auto", "buffer", "stream"]
    buffer_memory: int
    on_disconnect: Literal["continue", "cancel"]
    half_close: Literal["disconnect", "serve"]
    http2: Literal["off", "tls", "h2c"]
    http2_max_streams: int
    strict: bool
    display_tracebacks: bool
    add_header: Pairs
    environ: Pairs
    server_header: str
    prefix: str
    health_path: str
    static: Pairs
    static_expires: float
    trusted_proxy: Iterable[str]
    trusted_proxy_count: int
    trusted_proxy_headers: Iterable[str]
    proxy_protocol: Literal["off", "v1", "v2", "auto"]
    proxy_protocol_from: Iterable[str]
    url_scheme: str


def refuse_settings(
    given: Mapping[str, object], remedies: Mapping[str, str], transport: str
) -> None:
    """Raise if `given` contains a setting that a transport does not support.

    Args:
        given: the settings by name: keyword arguments, or `Settings.changed()`.
        remedies: the unsupported settings, each with its remedy.
        transport: the transport's name in the message, such as "twisted.web".

    Raises:
        SettingError: a setting is not supported. The message gives the remedy.
    """
    for name, value in given.items():
        if name in remedies:
            raise SettingError(
                f"{name}={value!r}",
                f"is not supported by {transport}",
                remedies[name],
            )


def described() -> list[tuple[str, Setting, Any]]:
    """Return name, description and default of each setting, in display order."""
    return [
        (field.name, field.metadata["setting"], field.default)
        for field in dataclasses.fields(Settings)
    ]


_PROXY_HEADERS: Final = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-by",
)
#: Keywords that users expect, each with what to do instead.
_NOT_SETTINGS: Final = {
    "chdir": "change the directory and sys.path in your program",
    "host": "give txgreenwsgi.service() listen=['tcp:8080:interface=127.0.0.1']",
    "listen": "listen on an endpoint of Twisted, or use txgreenwsgi.service()",
    "port": "give txgreenwsgi.service() listen=['tcp:8080']",
}
# RFC 9110 section 5.6.2 (token), 5.5 (field-value, here without obs-text).
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_FIELD_VALUE: Final = re.compile(r"([!-~]([ \t!-~]*[!-~])?)?\Z")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*\Z")  # RFC 3986 section 3.1
_PREFIX: Final = re.compile(r"(/(?!\.{1,2}(?:/|\Z))[^/?#%\x00-\x1f\x7f]+)+\Z")
# RFC 9110 section 5.6.2 (token), then a path.
_ROUTE: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+ )?/.*\Z", re.DOTALL)
# RFC 9110 section 9.3 and RFC 5789.
_METHODS: Final = frozenset(
    ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"]
)
_VARIABLE: Final = re.compile(r"[^=\x00\s]+\Z")
# The server frames and dates every message: a field that contradicts it would
# corrupt the message or appear twice.
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


def typed(name: str, setting: Setting, value: Any) -> Any:
    """Return a value as the type of its kind: lists as tuples, seconds as a float.

    Raises:
        SettingError: the value has another type, is out of range, or is none of the
            choices.
    """
    if setting.kind in ("count", "bytes", "seconds"):
        return _checked_number(name, setting, value)
    if setting.kind == "pairs":
        return _pairs(name, value)
    if setting.kind in ("names", "words"):
        return _strings(name, setting, value)
    subject = f"{name}={value!r}"
    if setting.kind == "flag":
        if not isinstance(value, bool):
            raise SettingError(subject, "is not a flag", "give True or False")
        return value
    if not isinstance(value, str):
        raise SettingError(subject, "is not a string", "give a str")
    if setting.kind == "choice" and value not in setting.choices:
        raise SettingError(
            subject, "is not a valid value", f"give {' or '.join(setting.choices)}"
        )
    return value


def _checked(name: str, setting: Setting, value: Any) -> Any:
    """Return the normalized value, or raise `SettingError`."""
    subject = f"{name}={value!r}"
    value = typed(name, setting, value)
    if setting.kind == "pairs":
        return _checked_pairs(name, value)
    if setting.kind == "words":
        return _checked_words(name, subject, value)
    if name == "methods":
        return _checked_methods(subject, value)
    if setting.kind == "names":
        return _checked_proxies(name, subject, value)
    if name == "server_header" and not _FIELD_VALUE.match(value):
        raise SettingError(
            subject,
            "is not a valid header value",
            "give visible ASCII characters, or an empty string to send no such header",
        )
    if name == "prefix":
        return _checked_prefix(subject, value)
    if name == "health_path":
        return _checked_health_path(subject, value)
    if name == "url_scheme" and value and not _SCHEME.match(value):
        raise SettingError(
            subject,
            "is not a URL scheme",
            "give https or http, or an empty string for the connection's scheme",
        )
    return value


def _checked_prefix(subject: str, path: str) -> str:
    """Return SCRIPT_NAME for a prefix: "" for the root, else "/app"."""
    path = path.rstrip("/")
    if path and not _PREFIX.match(path):
        raise SettingError(
            subject,
            "is not the path of a URL",
            "give a path such as /app, decoded, without '?', '#' or '//'",
        )
    return path


def _checked_health_path(subject: str, path: str) -> str:
    """Return the path without a slash at its end; "" for no health checks."""
    if not path:
        return ""
    given, path = path, path.rstrip("/")
    if not path or not _PREFIX.match(path):
        problem = "is the root" if given.startswith("/") and not path else ""
        raise SettingError(
            subject,
            problem or "is not the path of a URL",
            "give a path that the application does not use, such as /-",
        )
    return path


def _checked_number(name: str, setting: Setting, value: Any) -> int | float:
    """Return a number of the right type, at or above the minimum."""
    if setting.choices and value in setting.choices:
        return value  # type: ignore[no-any-return]
    subject = f"{name}={value!r}"
    kind, remedy = _number_form(setting)
    numbers = int | float if setting.kind == "seconds" else int
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise SettingError(subject, f"is not a {kind}", remedy)
    # Not `value < minimum`: this form also rejects NaN.
    if not setting.minimum <= value < float("inf"):
        raise _out_of_range(subject, setting)
    return float(value) if setting.kind == "seconds" else value


def _number_form(setting: Setting) -> tuple[str, str]:
    """Return the kind of number, and the remedy for a wrong one."""
    kind = {"count": "whole number", "bytes": "number of bytes"}.get(
        setting.kind, "number of seconds"
    )
    remedy = f"give a {kind}, at least {setting.minimum:g}"
    if setting.choices:
        remedy += f", or {' or '.join(setting.choices)}"
    if setting.off:
        remedy += f" (0: {setting.off})"
    return kind, remedy


def _out_of_range(subject: str, setting: Setting) -> SettingError:
    return SettingError(subject, "is out of range", _number_form(setting)[1])


def _strings(name: str, setting: Setting, value: Any) -> tuple[str, ...]:
    """Return strings as a tuple, from any iterable, one word, or names with commas."""
    if isinstance(value, str):
        value = _split_names(value) if setting.kind == "names" else (value,)
    try:
        strings = tuple(value)
    except TypeError:
        strings = (None,)
    if not all(isinstance(each, str) for each in strings):
        raise SettingError(
            f"{name}={value!r}", "does not consist of strings", "give a list of str"
        )
    return strings


def _checked_words(name: str, subject: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return valid patterns of routes."""
    for word in words:
        if word not in ("all", "auto", "none") and not _ROUTE.match(word):
            raise SettingError(
                f"{name} {word!r}",
                "is not a route pattern",
                "give a path such as '/reports/*', a method and a path such as "
                "'POST /upload', 'all', 'auto' or 'none'",
            )
    if "none" in words and len(words) > 1:
        raise SettingError(subject, "contains none and other patterns", "remove one")
    return words


def _pairs(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    """Return pairs of strings as tuples, from any iterable of pairs or a mapping."""
    try:
        given = value.items() if isinstance(value, Mapping) else value
        pairs = tuple((key, text) for key, text in given)
    except (TypeError, ValueError):
        pairs = ((None, None),)
    if not all(isinstance(each, str) for pair in pairs for each in pair):
        raise SettingError(
            f"{name}={value!r}",
            "does not consist of pairs of strings",
            "give a list of (name, value) tuples of str",
        )
    return pairs


def _checked_pairs(
    name: str, pairs: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """Return valid headers, variables or static files."""
    if name == "static":
        return _checked_static(pairs)
    for key, text in pairs:
        if name == "add_header":
            _check_header(key, text)
        else:
            _check_variable(key, text)
    return pairs


def _checked_static(
    pairs: tuple[tuple[str, str], ...],
) -> tuple[tuple[str, str], ...]:
    """Return paths without a slash at their ends, and their directories."""
    checked: dict[str, str] = {}
    for given, directory in pairs:
        subject = f"static {f'{given}={directory}'!r}"
        path = given.rstrip("/")
        if given.startswith("/") and not path:
            raise SettingError(
                subject,
                "is the root, and would hide the application",
                "give a path such as /static",
            )
        if not _PREFIX.match(path):
            raise SettingError(
                subject,
                "does not begin with the path of a URL",
                "give a path and a directory, such as /static=/srv/shop/static",
            )
        if not directory or "\0" in directory:
            raise SettingError(
                subject, "names no directory", "give one, such as /static=static"
            )
        if path in checked:
            raise SettingError(
                subject, "repeats a path", "give each path one directory"
            )
        checked[path] = directory
    return tuple(checked.items())


def _checked_methods(subject: str, methods: tuple[str, ...]) -> tuple[str, ...]:
    """Return valid request methods."""
    for method in methods:
        if not _TOKEN.match(method):
            raise SettingError(
                subject,
                "does not consist of request methods",
                "give names such as GET,HEAD,POST",
            )
        if method in ("CONNECT", "PRI"):
            raise SettingError(
                subject,
                f"contains {method}, which no application can serve",
                "remove it",
            )
        if method != method.upper() and method.upper() in _METHODS:
            raise SettingError(
                subject,
                f"contains {method}, but methods are case-sensitive",
                f"give {method.upper()}",
            )
    return methods


def _checked_proxies(
    name: str, subject: str, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return valid addresses of proxies, or valid names of their headers."""
    if name in ("trusted_proxy", "proxy_protocol_from"):
        for each in names:
            _check_peer(subject, each)
        return names
    names = tuple(each.lower() for each in names)
    wrong = [each for each in names if each not in _PROXY_HEADERS]
    if wrong or not names:
        raise SettingError(
            subject,
            f"contains {wrong[0]!r}, which is unknown" if wrong else "is empty",
            f"give some of {', '.join(_PROXY_HEADERS)}",
        )
    if "forwarded" in names and len(names) > 1:
        raise SettingError(
            subject,
            "contains forwarded and older headers, which could contradict each other",
            "give those that the proxy sets, and let it remove the others",
        )
    return names


def _check_peer(subject: str, peer: str) -> None:
    if peer in ("*", "unix"):
        return
    try:
        ip_network(peer, strict=False)
    except ValueError:
        raise SettingError(
            subject,
            f"contains {peer!r}, which is no address or network",
            "give addresses such as 127.0.0.1 or 10.0.0.0/8, unix or *",
        ) from None


def _split_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")] if text.strip() else []


def _check_header(name: str, value: str) -> None:
    """Reject a header that would split a response or contradict its framing."""
    subject = f"add_header {name!r}: {value!r}"
    if not _TOKEN.match(name):
        raise SettingError(
            subject,
            "has no valid header name",
            "give letters, digits and hyphens before the colon, as in "
            "'X-Frame-Options: DENY'",
        )
    if not _FIELD_VALUE.match(value):
        raise SettingError(
            subject,
            "is not a valid header value",
            "give visible ASCII characters, without a space at either end",
        )
    if name.lower() in _FRAMING:
        raise SettingError(
            subject,
            "is set by the server for each response",
            "remove it",
        )


def _check_variable(name: str, value: str) -> None:
    """Reject invalid variables, and those that only the server may set."""
    subject = f"environ {name!r}={value!r}"
    if not _VARIABLE.match(name) or "\0" in value:
        raise SettingError(
            subject,
            "is not a valid variable",
            "give a name without spaces or '=', and a value without NUL",
        )
    if name == "SCRIPT_NAME":
        raise SettingError(
            subject,
            "would leave the prefix in PATH_INFO",
            f"use --prefix {value or '/app'} (prefix={value or '/app'!r}), which "
            "removes it",
        )
    if name.startswith("wsgi."):
        raise SettingError(
            subject,
            "is reserved for the server (PEP 3333)",
            "give a name that does not begin with 'wsgi.'",
        )


_SUFFIXES: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SIZE: Final = re.compile(r"([0-9]+)([kmg]?)(?:i?b)?\Z", re.IGNORECASE)
_COUNT: Final = re.compile(r"[0-9]+\Z")
_SECONDS: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)s?\Z", re.IGNORECASE)
#: Maximum number of digits; Python converts no more than 4300.
_MAX_DIGITS: Final = 100
_NUMBERS: Final = {"count": _COUNT, "bytes": _SIZE, "seconds": _SECONDS}


def parse(setting: Setting, text: str) -> Any:
    """Parse the text of a command-line value.

    Checks only the syntax: `Settings` checks the range.

    Raises:
        SettingError: the text has the wrong syntax, or is a negative number.
    """
    number = _NUMBERS.get(setting.kind)
    if number is not None and text.startswith("-") and number.match(text[1:]):
        raise _out_of_range(repr(text), setting)
    if (
        setting.kind in ("count", "bytes")
        and len(text) > _MAX_DIGITS
        and _NUMBERS[setting.kind].match(text)
    ):
        raise _out_of_range(repr(text), setting)
    if setting.kind == "count":
        if text in setting.choices:
            return text
        if not _COUNT.match(text):
            raise SettingError(
                repr(text),
                "is not a whole number",
                " or ".join(("give decimal digits", *setting.choices)),
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
                repr(text), f"contains no {setting.separator!r}", f"give {setting.form}"
            )
        if setting.separator == ":":
            # Whitespace around a field value is not part of it (RFC 9112 section 5).
            return name.strip(), value.strip()
        return name, value
    if setting.kind == "names":
        return tuple(_split_names(text))
    return text


def shown(setting: Setting, value: Any) -> str:
    """Format a value as on the command line."""
    if setting.kind == "bytes":
        for suffix in "gmk":
            count, rest = divmod(value, _SUFFIXES[suffix])
            if count and not rest:
                return f"{count}{suffix.upper()}"
    if setting.kind in ("count", "bytes", "seconds") and not isinstance(value, str):
        return f"{value:.15g}"
    if setting.kind == "words":
        return ", ".join(value)
    if setting.kind == "pairs":
        space = " " if setting.separator == ":" else ""
        return ", ".join(
            f"{name}{setting.separator}{space}{text}" for name, text in value
        )
    if setting.kind == "names":
        return ",".join(value)
    if setting.kind == "flag":
        return "on" if value else "off"
    return str(value)
