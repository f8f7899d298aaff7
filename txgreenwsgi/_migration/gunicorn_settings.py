"""Every setting of gunicorn: its options, its kind, and its counterpart here.

The translation, the table of the documentation and the test of completeness use this
table. It knows gunicorn 23 to 27. It must never import gunicorn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from .addresses import AddressError, endpoint_for, is_unix
from .entries import Entry, Key, Missing, Process, Variable
from .log_formats import translated_format

__all__ = ["SETTINGS", "GunicornSetting", "Source", "markdown_tables"]

Kind: TypeAlias = Literal["text", "number", "flag", "off", "list", "python"]


@dataclass(frozen=True)
class Source:
    """A configuration of gunicorn.

    Attributes:
        values: the values that were given, by name.
        directory: the directory that gunicorn starts in.
    """

    values: Mapping[str, Any]
    directory: str

    def path(self, path: str) -> str:
        """Return the absolute path for one that is relative to gunicorn's `chdir`."""
        chdir = os.path.join(self.directory, str(self.values.get("chdir") or ""))
        return os.path.normpath(os.path.join(chdir, path))

    def addresses(self) -> list[str]:
        """Return the addresses of `bind`, by default gunicorn's."""
        return strings(self.values.get("bind") or "127.0.0.1:8000")


Convert: TypeAlias = Callable[[Any, Source], Iterable[Entry]]


@dataclass(frozen=True)
class GunicornSetting:
    """One setting of gunicorn.

    Attributes:
        section: the section of gunicorn's documentation.
        name: its name in a file.
        flags: its options.
        kind: the kind of its value on a command line; "off" is a flag that clears it,
            "python" exists in files only.
        ours: the counterpart, as Markdown; "" if there is none.
        note: a difference, or the reason or the remedy if there is no counterpart.
        convert: returns the translation of a value; None if there is no counterpart.
    """

    section: str
    name: str
    flags: tuple[str, ...]
    kind: Kind
    ours: str = ""
    note: str = ""
    convert: Convert | None = None


def strings(value: Any) -> list[str]:
    """Return a list of texts, from one or from a text with commas."""
    if isinstance(value, str):
        return [text.strip() for text in value.split(",") if text.strip()]
    return [str(one) for one in value]


def _key(name: str) -> Convert:
    """Return the conversion to a key with the same value."""
    return lambda value, _source: [Key(name, value)]


def _flag(name: str) -> Convert:
    return lambda value, _source: [Key(name, bool(value))]


def _path(name: str) -> Convert:
    return lambda value, source: [Key(name, source.path(str(value)))] if value else []


def _process(option: str) -> Convert:
    return lambda value, _source: [Process(f"{option} {value}")] if value else []


def _bind(_value: Any, source: Source) -> Iterable[Entry]:
    tls = bool(source.values.get("certfile"))
    backlog = source.values.get("backlog") or 0
    endpoints = []
    for address in source.addresses():
        endpoint, problem = _endpoint(address, tls=tls, backlog=backlog)
        if problem:
            yield Missing(f"{problem}: correct it, and give listen")
        else:
            endpoints.append(endpoint)
    if endpoints:
        yield Key("listen", endpoints)


def _endpoint(address: str, *, tls: bool, backlog: int) -> tuple[str, str]:
    """Return the endpoint string and "", or "" and the problem."""
    try:
        return endpoint_for(address, tls=tls, backlog=backlog), ""
    except AddressError as error:
        return "", str(error)


def _threads(value: Any, _source: Source) -> Iterable[Entry]:
    if int(value) > 1:
        yield Missing(
            "requests run in greenlets; threads limits those that threads_for runs in "
            "real threads"
        )


def _worker_class(value: Any, _source: Source) -> Iterable[Entry]:
    name = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    if "uvicorn" in name.lower() or "asgi" in name.lower():
        yield Missing("ASGI applications are not served: keep a server for ASGI")
    elif name != "sync":
        yield Missing("not needed: each request has a greenlet")


def _timeout(value: Any, source: Source) -> Iterable[Entry]:
    yield Key("worker_timeout", value)
    if source.values.get("worker_class", "sync") == "sync":
        yield Missing(
            "a sync worker is also killed by one slow request; here only one that "
            "blocks: give request_timeout to limit requests"
        )


def _limit_line(value: Any, _source: Source) -> Iterable[Entry]:
    # 0 is no limit in gunicorn.
    yield Key("max_target", max(int(value), 16) if int(value) else 1024**2)


def _limit_fields(value: Any, _source: Source) -> Iterable[Entry]:
    # gunicorn reads 0 as its maximum.
    yield Key("max_headers", int(value) or 32768)


def _limit_size(value: Any, _source: Source) -> Iterable[Entry]:
    size = int(value)
    if not size or size > 16384:
        yield Key("max_header_size", max(4 * size, 128 * 1024), "of the whole head")
    else:
        yield Missing("only the whole head is limited, by max_header_size: 32 KiB")


def _reload_extra(value: Any, source: Source) -> Iterable[Entry]:
    yield Key("reload_extra", [source.path(one) for one in strings(value)])


def _only(wanted: bool, entry: Entry) -> Convert:
    """Return a conversion that gives an entry for one value of a flag only."""
    return lambda value, _source: [entry] if bool(value) is wanted else []


def _raw_env(value: Any, _source: Source) -> Iterable[Entry]:
    for text in [value] if isinstance(value, str) else value:
        name, _, content = str(text).partition("=")
        if name == "SCRIPT_NAME":
            yield Key("prefix", content, "paths without the prefix are served too")
        else:
            yield Variable(name, content)


def _umask(value: Any, _source: Source) -> Iterable[Entry]:
    number = int(value, 0) if isinstance(value, str) else int(value)
    yield Process(f"--umask {number:04o}")


def _forwarded(value: Any, source: Source) -> Iterable[Entry]:
    peers = strings(value)
    if peers and peers != ["*"] and any(map(is_unix, source.addresses())):
        peers.append("unix")
    yield Key(
        "trusted_proxy",
        peers,
        "the address is taken from X-Forwarded-For too: remove ProxyFix and the like",
    )


def _scheme_headers(value: Any, _source: Source) -> Iterable[Entry]:
    headers = {str(name).upper(): text for name, text in dict(value).items()}
    if headers.pop("X-FORWARDED-PROTO", "") != "https" or headers:
        yield Missing(
            "the scheme is taken from X-Forwarded-Proto or Forwarded: let the proxy "
            "set one of them"
        )


def _proxy_protocol(value: Any, source: Source) -> Iterable[Entry]:
    mode = {True: "auto", False: "off"}.get(value, str(value).lower())
    if mode == "off":
        return
    yield Key("proxy_protocol", mode)
    if not source.values.get("proxy_allow_ips"):
        yield Key("proxy_protocol_from", _peers("127.0.0.1,::1", source))


def _proxy_from(value: Any, source: Source) -> Iterable[Entry]:
    yield Key("proxy_protocol_from", _peers(value, source))


def _peers(value: Any, source: Source) -> list[str]:
    """Return the peers of gunicorn's lists, which contain every UNIX socket."""
    peers = [
        network
        for one in strings(value)
        for network in (("0.0.0.0/0", "::/0") if one == "*" else (one,))
    ]
    return [*peers, "unix"] if any(map(is_unix, source.addresses())) else peers


def _format(value: Any, source: Source) -> Iterable[Entry]:
    if source.values.get("accesslog"):
        yield Key("access_log_format", translated_format(str(value)))


def _access_log(value: Any, source: Source) -> Iterable[Entry]:
    if not value:
        return
    comment = ""
    if not source.values.get("access_log_format"):
        comment = "gunicorn's default format, then duration and request id"
    path = str(value)
    yield Key("access_log", path if path == "-" else source.path(path), comment)


def _error_log(value: Any, source: Source) -> Iterable[Entry]:
    if value and value != "-":
        yield Process(f"--log-file {source.path(str(value))}")


def _python_path(value: Any, source: Source) -> Iterable[Entry]:
    paths = [source.path(one) for one in strings(value)]
    if paths:
        yield Variable("PYTHONPATH", ":".join(paths))


def _paste(value: Any, source: Source) -> Iterable[Entry]:
    path, hash_mark, name = str(value).partition("#")
    yield Key("app", f"config:{source.path(path)}{hash_mark}{name}")


def _cert_reqs(value: Any, source: Source) -> Iterable[Entry]:
    if source.values.get("ca_certs") and int(value):
        yield Key("tls_client", "optional" if int(value) == 1 else "required")


def _ca_certs(value: Any, source: Source) -> Iterable[Entry]:
    if not value:
        return
    if int(source.values.get("cert_reqs") or 0):
        yield Key("tls_client_ca", source.path(str(value)))
    else:
        yield Missing("without cert_reqs it verifies nothing: leave it out")


def _protocol(value: Any, _source: Source) -> Iterable[Entry]:
    if value != "http":
        yield Missing("let the proxy speak HTTP: proxy_pass in place of uwsgi_pass")


def _control(value: Any, source: Source) -> Iterable[Entry]:
    yield Key("control", source.path(str(value)))


_SOCKET = "Server socket"
_WORKERS = "Worker processes"
_SECURITY = "Limits of requests"
_DEBUGGING = "Debugging"
_MECHANICS = "Server mechanics"
_LOGGING = "Logging"
_HOOKS = "Server hooks"
_TLS = "TLS"
_HTTP2 = "HTTP/2"
_ASGI = "ASGI"
_DIRTY = "Dirty arbiters"
_CONTROL = "Control"

_ONLY_WSGI = "ASGI applications and WebSockets are not served"
_ONLY_HTTP1 = "HTTP/1.1 is served: let the proxy accept HTTP/2"
_STRICT = "the message is refused, as by default in gunicorn"
_NO_DIRTY = (
    "give slow calls to offload or threads_for, or to a job queue with processes of "
    "its own"
)
_IN_MODULE = "put the code at the top of the application's module"
_NO_MASTER_CODE = (
    "the master runs no code of the application; use a unit of systemd "
    "(ExecStartPre=, ExecReload=) or the script that deploys"
)

#: Every setting, in the order of gunicorn's documentation.
SETTINGS: Final[tuple[GunicornSetting, ...]] = (
    GunicornSetting(
        "Files",
        "config",
        ("-c", "--config"),
        "text",
        "`--config`",
        "a TOML file: `txgreenwsgi from-gunicorn gunicorn.conf.py` translates",
        lambda _value, _source: [],
    ),
    GunicornSetting(
        "Files", "wsgi_app", (), "text", "`--app`", "the same syntax", _key("app")
    ),
    GunicornSetting(
        _SOCKET,
        "bind",
        ("-b", "--bind"),
        "list",
        "`--listen`",
        "endpoint strings: `tcp:8000:interface=127.0.0.1`, "
        "`unix:/run/shop.sock:mode=660`, `fd:3`, `systemd:index=0`; the default is all "
        "addresses, port 8080",
        _bind,
    ),
    GunicornSetting(
        _SOCKET,
        "backlog",
        ("--backlog",),
        "number",
        "`--listen tcp:8000:backlog=2048`",
        "default 1024",
        lambda _value, _source: [],
    ),
    GunicornSetting(
        _WORKERS,
        "workers",
        ("-w", "--workers"),
        "number",
        "`--workers`",
        "one per core is enough; `auto` counts them",
        _key("workers"),
    ),
    GunicornSetting(
        _WORKERS,
        "worker_class",
        ("-k", "--worker-class"),
        "text",
        "",
        "one concurrency model: a greenlet for each request",
        _worker_class,
    ),
    GunicornSetting(
        _WORKERS,
        "threads",
        ("--threads",),
        "number",
        "",
        "not needed; `--threads` limits the requests that `--threads-for` runs in real "
        "threads",
        _threads,
    ),
    GunicornSetting(
        _WORKERS,
        "worker_connections",
        ("--worker-connections",),
        "number",
        "`--max-in-flight`",
        "counts requests, not connections; further requests are queued, then get 503",
        _key("max_in_flight"),
    ),
    GunicornSetting(
        _WORKERS,
        "max_requests",
        ("--max-requests",),
        "number",
        "`--max-requests`",
        "the replacement is ready before the worker stops",
        _key("max_requests"),
    ),
    GunicornSetting(
        _WORKERS,
        "max_requests_jitter",
        ("--max-requests-jitter",),
        "number",
        "`--max-requests-jitter`",
        "",
        _key("max_requests_jitter"),
    ),
    GunicornSetting(
        _WORKERS,
        "timeout",
        ("-t", "--timeout"),
        "number",
        "`--worker-timeout`",
        "replaces a worker that blocks. `--request-timeout` ends a slow request with "
        "an exception in its view and a 504",
        _timeout,
    ),
    GunicornSetting(
        _WORKERS,
        "graceful_timeout",
        ("--graceful-timeout",),
        "number",
        "`--graceful-timeout`",
        "",
        _key("graceful_timeout"),
    ),
    GunicornSetting(
        _WORKERS,
        "keepalive",
        ("--keep-alive",),
        "number",
        "`--keep-alive`",
        "default 15",
        _key("keep_alive"),
    ),
    GunicornSetting(
        _SECURITY,
        "limit_request_line",
        ("--limit-request-line",),
        "number",
        "`--max-target`",
        "of the target alone; default 8192",
        _limit_line,
    ),
    GunicornSetting(
        _SECURITY,
        "limit_request_fields",
        ("--limit-request-fields",),
        "number",
        "`--max-headers`",
        "",
        _limit_fields,
    ),
    GunicornSetting(
        _SECURITY,
        "limit_request_field_size",
        ("--limit-request-field_size",),
        "number",
        "`--max-header-size`",
        "of the whole head; default 32 KiB",
        _limit_size,
    ),
    GunicornSetting(
        _DEBUGGING,
        "reload",
        ("--reload",),
        "flag",
        "`--reload`",
        "the socket stays open",
        _flag("reload"),
    ),
    GunicornSetting(
        _DEBUGGING,
        "reload_engine",
        ("--reload-engine",),
        "text",
        "",
        "watchfiles is used if it is installed",
    ),
    GunicornSetting(
        _DEBUGGING,
        "reload_extra_files",
        ("--reload-extra-file",),
        "list",
        "`--reload-extra`",
        "",
        _reload_extra,
    ),
    GunicornSetting(
        _DEBUGGING,
        "spew",
        ("--spew",),
        "flag",
        "`--spew`",
        "an option of the process",
        _only(True, Process("--spew")),
    ),
    GunicornSetting(
        _DEBUGGING,
        "check_config",
        ("--check-config",),
        "flag",
        "`--check-config`",
        "",
        _only(True, Process("--check-config")),
    ),
    GunicornSetting(
        _DEBUGGING,
        "print_config",
        ("--print-config",),
        "flag",
        "`--print-config`",
        "with the origin of each value",
        _only(True, Process("--print-config")),
    ),
    GunicornSetting(
        _MECHANICS,
        "preload_app",
        ("--preload",),
        "flag",
        "`--preload`",
        "",
        _flag("preload"),
    ),
    GunicornSetting(
        _MECHANICS,
        "sendfile",
        ("--no-sendfile",),
        "off",
        "",
        "files of `wsgi.file_wrapper` are always sent by sendfile",
        _only(False, Missing("files of wsgi.file_wrapper are always sent by sendfile")),
    ),
    GunicornSetting(
        _MECHANICS,
        "reuse_port",
        ("--reuse-port",),
        "flag",
        "",
        "each worker has a socket with SO_REUSEPORT",
        _only(True, Missing("not needed: each worker has a socket with SO_REUSEPORT")),
    ),
    GunicornSetting(
        _MECHANICS,
        "chdir",
        ("--chdir",),
        "text",
        "`--chdir`",
        "",
        lambda value, source: [
            Key("chdir", os.path.normpath(os.path.join(source.directory, str(value))))
        ],
    ),
    GunicornSetting(
        _MECHANICS,
        "daemon",
        ("-D", "--daemon"),
        "flag",
        "`twistd greenwsgi`",
        "without `-n` it runs in the background; systemd needs no daemon",
        _only(True, Missing("start twistd greenwsgi, which runs in the background")),
    ),
    GunicornSetting(
        _MECHANICS,
        "raw_env",
        ("-e", "--env"),
        "list",
        "the environment",
        "`env NAME=VALUE txgreenwsgi ...`, or `Environment=` of systemd; for "
        "SCRIPT_NAME, `--prefix`. `--environ` sets a variable of WSGI",
        _raw_env,
    ),
    GunicornSetting(
        _MECHANICS,
        "pidfile",
        ("-p", "--pid"),
        "text",
        "`--pidfile`",
        "an option of the process",
        lambda value, source: [Process(f"--pidfile {source.path(str(value))}")],
    ),
    GunicornSetting(
        _MECHANICS,
        "worker_tmp_dir",
        ("--worker-tmp-dir",),
        "text",
        "",
        "heartbeats are in memory",
    ),
    GunicornSetting(
        _MECHANICS,
        "user",
        ("-u", "--user"),
        "text",
        "`--uid`",
        "an option of the process; the ports are opened before",
        _process("--uid"),
    ),
    GunicornSetting(
        _MECHANICS,
        "group",
        ("-g", "--group"),
        "text",
        "`--gid`",
        "an option of the process",
        _process("--gid"),
    ),
    GunicornSetting(
        _MECHANICS,
        "umask",
        ("-m", "--umask"),
        "number",
        "`--umask`",
        "an option of the process",
        _umask,
    ),
    GunicornSetting(
        _MECHANICS,
        "initgroups",
        ("--initgroups",),
        "flag",
        "",
        "`--uid` sets the groups of the user",
        _only(True, Missing("not needed: --uid sets the groups of the user")),
    ),
    GunicornSetting(
        _MECHANICS,
        "tmp_upload_dir",
        (),
        "text",
        "TMPDIR",
        "bodies above `--buffer-memory` go to a temporary file",
        lambda value, source: (
            [Variable("TMPDIR", source.path(str(value)))] if value else []
        ),
    ),
    GunicornSetting(
        _MECHANICS,
        "secure_scheme_headers",
        (),
        "python",
        "`--trusted-proxy-headers`",
        "X-Forwarded-Proto, or Forwarded",
        _scheme_headers,
    ),
    GunicornSetting(
        _MECHANICS,
        "forwarded_allow_ips",
        ("--forwarded-allow-ips",),
        "text",
        "`--trusted-proxy`",
        "gunicorn believes the scheme alone, from 127.0.0.1 and from every UNIX "
        "socket, by default; here no peer is trusted by default, and the address is "
        "believed too: see [Reverse proxies](reverse-proxies.md)",
        _forwarded,
    ),
    GunicornSetting(
        _MECHANICS,
        "pythonpath",
        ("--pythonpath",),
        "text",
        "PYTHONPATH",
        "or `--chdir`",
        _python_path,
    ),
    GunicornSetting(
        _MECHANICS,
        "paste",
        ("--paste", "--paster"),
        "text",
        "`--app config:production.ini`",
        "",
        _paste,
    ),
    GunicornSetting(
        _MECHANICS,
        "raw_paste_global_conf",
        ("--paste-global",),
        "list",
        "",
        "put the variables into the section `[DEFAULT]` of the file",
    ),
    GunicornSetting(
        _MECHANICS,
        "proxy_protocol",
        ("--proxy-protocol",),
        "text",
        "`--proxy-protocol`",
        "needs the next option",
        _proxy_protocol,
    ),
    GunicornSetting(
        _MECHANICS,
        "proxy_allow_ips",
        ("--proxy-allow-from",),
        "text",
        "`--proxy-protocol-from`",
        "no peer is trusted by default",
        _proxy_from,
    ),
    GunicornSetting(
        _MECHANICS,
        "protocol",
        ("--protocol",),
        "text",
        "",
        "HTTP only: `proxy_pass` of nginx in place of `uwsgi_pass`",
        _protocol,
    ),
    GunicornSetting(
        _MECHANICS,
        "uwsgi_allow_ips",
        ("--uwsgi-allow-from",),
        "text",
        "",
        "there is no uwsgi protocol",
    ),
    GunicornSetting(
        _MECHANICS,
        "root_path",
        ("--root-path",),
        "text",
        "`--prefix`",
        "",
        lambda value, _source: [Key("prefix", str(value))] if value else [],
    ),
    GunicornSetting(
        _MECHANICS,
        "permit_obsolete_folding",
        ("--permit-obsolete-folding",),
        "flag",
        "",
        "folded fields get 400",
    ),
    GunicornSetting(
        _MECHANICS,
        "strip_header_spaces",
        ("--strip-header-spaces",),
        "flag",
        "",
        "a space before the colon gets 400",
    ),
    GunicornSetting(
        _MECHANICS,
        "permit_unconventional_http_method",
        ("--permit-unconventional-http-method",),
        "flag",
        "the default",
        "`--methods` restricts the methods",
        lambda _value, _source: [],
    ),
    GunicornSetting(
        _MECHANICS,
        "permit_unconventional_http_version",
        ("--permit-unconventional-http-version",),
        "flag",
        "",
        "other versions than 1.0 and 1.1 get 505",
    ),
    GunicornSetting(
        _MECHANICS,
        "casefold_http_method",
        ("--casefold-http-method",),
        "flag",
        "",
        "methods reach the application as they are sent",
    ),
    GunicornSetting(
        _MECHANICS,
        "forwarder_headers",
        ("--forwarder-headers",),
        "text",
        "",
        "fields with an underscore in their name are dropped; `--prefix` sets "
        "SCRIPT_NAME",
    ),
    GunicornSetting(
        _MECHANICS,
        "header_map",
        ("--header-map",),
        "text",
        "",
        "fields with an underscore in their name are dropped, as by default in "
        "gunicorn",
    ),
    GunicornSetting(
        _MECHANICS,
        "http_parser",
        ("--http-parser",),
        "text",
        "",
        "there is one parser, in C",
    ),
    GunicornSetting(
        _LOGGING,
        "accesslog",
        ("--access-logfile",),
        "text",
        "`--access-log`",
        "",
        _access_log,
    ),
    GunicornSetting(
        _LOGGING,
        "disable_redirect_access_to_syslog",
        ("--disable-redirect-access-to-syslog",),
        "flag",
        "the default",
        "the access log goes to its own file only",
        lambda _value, _source: [],
    ),
    GunicornSetting(
        _LOGGING,
        "access_log_format",
        ("--access-logformat",),
        "text",
        "`--access-log-format`",
        "`%h` in place of `%(h)s`: see [Logging](logging.md#formats-of-your-own)",
        _format,
    ),
    GunicornSetting(
        _LOGGING,
        "errorlog",
        ("--error-logfile", "--log-file"),
        "text",
        "`--log-file`",
        "an option of the process; `--logfile` of twistd",
        _error_log,
    ),
    GunicornSetting(
        _LOGGING,
        "loglevel",
        ("--log-level",),
        "text",
        "",
        "the application sets the level of its messages with `logging`; those of the "
        "server have one level",
    ),
    GunicornSetting(
        _LOGGING,
        "capture_output",
        ("--capture-output",),
        "flag",
        "the default",
        "what the application prints is in the log, with the request's ID",
        lambda _value, _source: [],
    ),
    GunicornSetting(
        _LOGGING,
        "logger_class",
        ("--logger-class",),
        "text",
        "",
        "`--logger` names a factory of Twisted's log observers; an observer of records "
        "replaces an access logger",
    ),
    GunicornSetting(
        _LOGGING,
        "logconfig",
        ("--log-config",),
        "text",
        "",
        "call `logging.config.fileConfig` in the application's module",
    ),
    GunicornSetting(
        _LOGGING,
        "logconfig_dict",
        (),
        "python",
        "",
        "call `logging.config.dictConfig` in the application's module, or use "
        "`LOGGING` of Django",
    ),
    GunicornSetting(
        _LOGGING,
        "logconfig_json",
        ("--log-config-json",),
        "text",
        "",
        "call `logging.config.dictConfig` in the application's module",
    ),
    GunicornSetting(
        _LOGGING,
        "syslog_addr",
        ("--log-syslog-to",),
        "text",
        "",
        "the local syslog is used",
    ),
    GunicornSetting(
        _LOGGING,
        "syslog",
        ("--log-syslog",),
        "flag",
        "`--syslog`",
        "an option of the process",
        _only(True, Process("--syslog")),
    ),
    GunicornSetting(
        _LOGGING,
        "syslog_prefix",
        ("--log-syslog-prefix",),
        "text",
        "`--syslog-prefix`",
        "an option of the process; `--prefix` of twistd",
        _process("--syslog-prefix"),
    ),
    GunicornSetting(
        _LOGGING,
        "syslog_facility",
        ("--log-syslog-facility",),
        "text",
        "",
        "the facility is user",
    ),
    GunicornSetting(
        _LOGGING,
        "enable_stdio_inheritance",
        ("-R", "--enable-stdio-inheritance"),
        "flag",
        "the default",
        "see [Standard streams](logging.md#standard-streams)",
        lambda _value, _source: [],
    ),
    GunicornSetting(
        _LOGGING,
        "statsd_host",
        ("--statsd-host",),
        "text",
        "",
        "an observer of records sends metrics: see [Logging](logging.md#observers)",
    ),
    GunicornSetting(
        _LOGGING,
        "dogstatsd_tags",
        ("--dogstatsd-tags",),
        "text",
        "",
        "as for `statsd_host`",
    ),
    GunicornSetting(
        _LOGGING,
        "statsd_prefix",
        ("--statsd-prefix",),
        "text",
        "",
        "as for `statsd_host`",
    ),
    GunicornSetting(
        _LOGGING,
        "enable_backlog_metric",
        ("--enable-backlog-metric",),
        "flag",
        "",
        "`ss -lt` shows the backlog",
    ),
    GunicornSetting(
        _LOGGING,
        "proc_name",
        ("-n", "--name"),
        "text",
        "",
        "systemd names the processes of a unit; `txgreenwsgi status` lists them",
    ),
    GunicornSetting(
        _LOGGING, "default_proc_name", (), "text", "", "as for `proc_name`"
    ),
    GunicornSetting(_HOOKS, "on_starting", (), "python", "", _NO_MASTER_CODE),
    GunicornSetting(_HOOKS, "on_reload", (), "python", "", _NO_MASTER_CODE),
    GunicornSetting(
        _HOOKS,
        "when_ready",
        (),
        "python",
        "",
        "systemd is notified (`Type=notify`); `--health-path` tells load balancers",
    ),
    GunicornSetting(_HOOKS, "pre_fork", (), "python", "", _NO_MASTER_CODE),
    GunicornSetting(_HOOKS, "post_fork", (), "python", "", _IN_MODULE),
    GunicornSetting(_HOOKS, "post_worker_init", (), "python", "", _IN_MODULE),
    GunicornSetting(
        _HOOKS,
        "worker_int",
        (),
        "python",
        "",
        'add a trigger: `reactor.addSystemEventTrigger("before", "shutdown", f)`',
    ),
    GunicornSetting(
        _HOOKS,
        "worker_abort",
        (),
        "python",
        "",
        "the log has the stacks of a worker that hangs",
    ),
    GunicornSetting(
        _HOOKS, "pre_exec", (), "python", "", "the master is replaced in place"
    ),
    GunicornSetting(_HOOKS, "pre_request", (), "python", "", "use a WSGI middleware"),
    GunicornSetting(
        _HOOKS,
        "post_request",
        (),
        "python",
        "",
        "use a WSGI middleware, or an observer of records",
    ),
    GunicornSetting(_HOOKS, "child_exit", (), "python", "", _NO_MASTER_CODE),
    GunicornSetting(
        _HOOKS, "worker_exit", (), "python", "", "use `atexit` in the application"
    ),
    GunicornSetting(_HOOKS, "nworkers_changed", (), "python", "", _NO_MASTER_CODE),
    GunicornSetting(
        _HOOKS, "on_exit", (), "python", "", "use `ExecStopPost=` of systemd"
    ),
    GunicornSetting(
        _HOOKS,
        "ssl_context",
        (),
        "python",
        "",
        "use the options of TLS: see [TLS](tls.md)",
    ),
    GunicornSetting(
        _TLS,
        "keyfile",
        ("--keyfile",),
        "text",
        "`--tls-key`",
        "",
        _path("tls_key"),
    ),
    GunicornSetting(
        _TLS,
        "certfile",
        ("--certfile",),
        "text",
        "`--tls-cert`",
        "with `--listen https:443`",
        _path("tls_cert"),
    ),
    GunicornSetting(
        _TLS,
        "ssl_version",
        ("--ssl-version",),
        "python",
        "`--tls-min`",
        "1.2 or 1.3",
        lambda _value, _source: [
            Missing("TLS 1.2 and 1.3 are served; tls_min raises the minimum")
        ],
    ),
    GunicornSetting(
        _TLS,
        "cert_reqs",
        ("--cert-reqs",),
        "number",
        "`--tls-client`",
        "",
        _cert_reqs,
    ),
    GunicornSetting(
        _TLS,
        "ca_certs",
        ("--ca-certs",),
        "text",
        "`--tls-client-ca`",
        "",
        _ca_certs,
    ),
    GunicornSetting(
        _TLS,
        "suppress_ragged_eofs",
        ("--suppress-ragged-eofs",),
        "flag",
        "the default",
        "connections may end without a TLS close alert",
        lambda _value, _source: [],
    ),
    GunicornSetting(
        _TLS,
        "do_handshake_on_connect",
        ("--do-handshake-on-connect",),
        "flag",
        "",
        "handshakes never block other connections",
    ),
    GunicornSetting(
        _TLS,
        "ciphers",
        ("--ciphers",),
        "text",
        "`--tls-ciphers`",
        "",
        _key("tls_ciphers"),
    ),
    GunicornSetting(
        _HTTP2,
        "http_protocols",
        ("--http-protocols",),
        "text",
        "",
        _ONLY_HTTP1,
        lambda value, _source: (
            [] if strings(value) == ["h1"] else [Missing(_ONLY_HTTP1)]
        ),
    ),
    GunicornSetting(
        _HTTP2, "http2_cleartext", ("--http2-cleartext",), "text", "", _ONLY_HTTP1
    ),
    *(
        GunicornSetting(
            _HTTP2,
            f"http2_{name}",
            (f"--http2-{name.replace('_', '-')}",),
            "number",
            "",
            _ONLY_HTTP1,
        )
        for name in (
            "max_concurrent_streams",
            "initial_window_size",
            "max_frame_size",
            "max_header_list_size",
        )
    ),
    GunicornSetting(_ASGI, "asgi_loop", ("--asgi-loop",), "text", "", _ONLY_WSGI),
    GunicornSetting(
        _ASGI, "asgi_lifespan", ("--asgi-lifespan",), "text", "", _ONLY_WSGI
    ),
    GunicornSetting(
        _ASGI,
        "asgi_disconnect_grace_period",
        ("--asgi-disconnect-grace-period",),
        "number",
        "",
        "`--on-disconnect cancel` ends a WSGI request whose client has left",
    ),
    GunicornSetting(
        _ASGI,
        "websocket_max_message_size",
        ("--websocket-max-message-size",),
        "number",
        "",
        _ONLY_WSGI,
    ),
    GunicornSetting(_DIRTY, "dirty_apps", ("--dirty-app",), "list", "", _NO_DIRTY),
    *(
        GunicornSetting(
            _DIRTY,
            f"dirty_{name}",
            (f"--dirty-{name.replace('_', '-')}",),
            "number",
            "",
            _NO_DIRTY,
        )
        for name in ("workers", "timeout", "threads", "graceful_timeout")
    ),
    *(
        GunicornSetting(_DIRTY, name, (), "python", "", _NO_DIRTY)
        for name in (
            "on_dirty_starting",
            "dirty_post_fork",
            "dirty_worker_init",
            "dirty_worker_exit",
        )
    ),
    GunicornSetting(
        _CONTROL,
        "control_socket",
        ("--control-socket",),
        "text",
        "`--control`",
        "for `txgreenwsgi status`, `reload`, `scale` and `stacks`",
        _control,
    ),
    GunicornSetting(
        _CONTROL,
        "control_socket_mode",
        ("--control-socket-mode",),
        "number",
        "",
        "the mode is 0600",
    ),
    GunicornSetting(
        _CONTROL,
        "control_socket_disable",
        ("--no-control-socket",),
        "flag",
        "`--control none`",
        "",
        _only(True, Key("control", "none")),
    ),
)


def markdown_tables() -> str:
    """Return a table for each section, for the documentation."""
    lines: list[str] = []
    section = ""
    for each in SETTINGS:
        if each.section != section:
            section = each.section
            lines += [
                *([""] if lines else []),
                f"### {section}",
                "",
                "| gunicorn | txgreenwsgi | Differences |",
                "|---|---|---|",
            ]
        names = ", ".join(f"`{name}`" for name in (each.name, *each.flags))
        ours = each.ours or "-"
        lines.append(f"| {names} | {ours} | {each.note} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"
