"""Every setting of gunicorn: its options, its kind, and its counterpart here.

The translation, the table of the documentation and the test of completeness use this
table. It knows gunicorn 23 to 27. It must never import gunicorn.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from . import gunicorn_values as values
from .entries import Key, Missing, Process, Variable

__all__ = ["SECTIONS", "SETTINGS", "GunicornSetting", "markdown_tables"]

Kind: TypeAlias = Literal["text", "number", "flag", "off", "list", "python"]


@dataclass(frozen=True)
class GunicornSetting:
    """One setting of gunicorn.

    Attributes:
        name: its name in a file.
        flags: its options.
        kind: the kind of its value on a command line; "off" is a flag that clears it,
            "python" exists in files only.
        note: a difference, or the reason or the remedy if there is no counterpart.
        ours: the counterpart, as Markdown; "" if there is none.
        convert: returns the translation of a value; None if there is no counterpart.
    """

    name: str
    flags: tuple[str, ...]
    kind: Kind
    note: str = ""
    ours: str = ""
    convert: values.Convert | None = None


_ONLY_WSGI = "ASGI applications are not served"
_NO_DIRTY = (
    "give slow calls to offload or threads_for, or to a job queue with processes of "
    "its own"
)
_IN_MODULE = "put the code at the top of the application's module"
_NO_MASTER_CODE = (
    "the master runs no code of the application; use a unit of systemd (ExecStartPre=, "
    "ExecReload=) or the script that deploys"
)

#: Every setting by the section of gunicorn's documentation, in its order.
SECTIONS: Final[dict[str, tuple[GunicornSetting, ...]]] = {
    "Files": (
        GunicornSetting(
            "config",
            ("-c", "--config"),
            "text",
            "a TOML file: `txgreenwsgi from-gunicorn gunicorn.conf.py` translates",
            ours="`--config`",
            convert=values.nothing,
        ),
        GunicornSetting(
            "wsgi_app",
            (),
            "text",
            "the same syntax",
            ours="`--app`",
            convert=values.key("app"),
        ),
    ),
    "Server socket": (
        GunicornSetting(
            "bind",
            ("-b", "--bind"),
            "list",
            "endpoint strings: `tcp:8000:interface=127.0.0.1`, "
            "`unix:/run/shop.sock:mode=660`, `fd:3`, `systemd:index=0`; the default is "
            "all addresses, port 8080",
            ours="`--listen`",
            convert=values.bind,
        ),
        GunicornSetting(
            "backlog",
            ("--backlog",),
            "number",
            "default 1024",
            ours="`--listen tcp:8000:backlog=2048`",
            convert=values.nothing,
        ),
    ),
    "Worker processes": (
        GunicornSetting(
            "workers",
            ("-w", "--workers"),
            "number",
            "one per core is enough; `auto` counts them",
            ours="`--workers`",
            convert=values.workers,
        ),
        GunicornSetting(
            "worker_class",
            ("-k", "--worker-class"),
            "text",
            "one concurrency model: a greenlet for each request",
            convert=values.worker_class,
        ),
        GunicornSetting(
            "threads",
            ("--threads",),
            "number",
            "not needed; `--threads` limits the requests that `--threads-for` runs in "
            "real threads",
            convert=values.threads,
        ),
        GunicornSetting(
            "worker_connections",
            ("--worker-connections",),
            "number",
            "counts requests, not connections; further requests are queued, then get "
            "503",
            ours="`--max-in-flight`",
            convert=values.key("max_in_flight"),
        ),
        GunicornSetting(
            "max_requests",
            ("--max-requests",),
            "number",
            "the replacement is ready before the worker stops",
            ours="`--max-requests`",
            convert=values.key("max_requests"),
        ),
        GunicornSetting(
            "max_requests_jitter",
            ("--max-requests-jitter",),
            "number",
            "",
            ours="`--max-requests-jitter`",
            convert=values.key("max_requests_jitter"),
        ),
        GunicornSetting(
            "timeout",
            ("-t", "--timeout"),
            "number",
            "replaces a worker that blocks. `--request-timeout` ends a slow request "
            "with an exception in its view and a 504",
            ours="`--worker-timeout`",
            convert=values.timeout,
        ),
        GunicornSetting(
            "graceful_timeout",
            ("--graceful-timeout",),
            "number",
            "",
            ours="`--graceful-timeout`",
            convert=values.key("graceful_timeout"),
        ),
        GunicornSetting(
            "keepalive",
            ("--keep-alive",),
            "number",
            "default 15",
            ours="`--keep-alive`",
            convert=values.key("keep_alive"),
        ),
    ),
    "Limits of requests": (
        GunicornSetting(
            "limit_request_line",
            ("--limit-request-line",),
            "number",
            "of the target alone; default 8192",
            ours="`--max-target`",
            convert=values.limit_line,
        ),
        GunicornSetting(
            "limit_request_fields",
            ("--limit-request-fields",),
            "number",
            "",
            ours="`--max-headers`",
            convert=values.limit_fields,
        ),
        GunicornSetting(
            "limit_request_field_size",
            ("--limit-request-field_size",),
            "number",
            "of the whole head; default 32 KiB",
            ours="`--max-header-size`",
            convert=values.limit_size,
        ),
    ),
    "Debugging": (
        GunicornSetting(
            "reload",
            ("--reload",),
            "flag",
            "the socket stays open",
            ours="`--reload`",
            convert=values.flag("reload"),
        ),
        GunicornSetting(
            "reload_engine",
            ("--reload-engine",),
            "text",
            "watchfiles is used if it is installed",
        ),
        GunicornSetting(
            "reload_extra_files",
            ("--reload-extra-file",),
            "list",
            "",
            ours="`--reload-extra`",
            convert=values.reload_extra,
        ),
        GunicornSetting(
            "spew",
            ("--spew",),
            "flag",
            "an option of the process",
            ours="`--spew`",
            convert=values.only(True, Process("--spew")),
        ),
        GunicornSetting(
            "check_config",
            ("--check-config",),
            "flag",
            "",
            ours="`--check-config`",
            convert=values.only(True, Process("--check-config")),
        ),
        GunicornSetting(
            "print_config",
            ("--print-config",),
            "flag",
            "with the origin of each value",
            ours="`--print-config`",
            convert=values.only(True, Process("--print-config")),
        ),
    ),
    "Server mechanics": (
        GunicornSetting(
            "preload_app",
            ("--preload",),
            "flag",
            "",
            ours="`--preload`",
            convert=values.flag("preload"),
        ),
        GunicornSetting(
            "sendfile",
            ("--no-sendfile",),
            "off",
            "files of `wsgi.file_wrapper` are always sent by sendfile",
            convert=values.only(
                False, Missing("files of wsgi.file_wrapper are always sent by sendfile")
            ),
        ),
        GunicornSetting(
            "reuse_port",
            ("--reuse-port",),
            "flag",
            "each worker has a socket with SO_REUSEPORT",
            convert=values.only(
                True, Missing("not needed: each worker has a socket with SO_REUSEPORT")
            ),
        ),
        GunicornSetting(
            "chdir",
            ("--chdir",),
            "text",
            "",
            ours="`--chdir`",
            convert=lambda value, source: [
                Key(
                    "chdir",
                    os.path.normpath(os.path.join(source.directory, str(value))),
                )
            ],
        ),
        GunicornSetting(
            "daemon",
            ("-D", "--daemon"),
            "flag",
            "without `-n` it runs in the background; systemd needs no daemon",
            ours="`twistd greenwsgi`",
            convert=values.only(
                True, Missing("start twistd greenwsgi, which runs in the background")
            ),
        ),
        GunicornSetting(
            "raw_env",
            ("-e", "--env"),
            "list",
            "`env NAME=VALUE txgreenwsgi ...`, or `Environment=` of systemd; for "
            "SCRIPT_NAME, `--prefix`. `--environ` sets a variable of WSGI",
            ours="the environment",
            convert=values.raw_env,
        ),
        GunicornSetting(
            "pidfile",
            ("-p", "--pid"),
            "text",
            "an option of the process",
            ours="`--pidfile`",
            convert=lambda value, source: [
                Process(f"--pidfile {source.path(str(value))}")
            ],
        ),
        GunicornSetting(
            "worker_tmp_dir", ("--worker-tmp-dir",), "text", "heartbeats are in memory"
        ),
        GunicornSetting(
            "user",
            ("-u", "--user"),
            "text",
            "an option of the process; the ports are opened before",
            ours="`--uid`",
            convert=values.process("--uid"),
        ),
        GunicornSetting(
            "group",
            ("-g", "--group"),
            "text",
            "an option of the process",
            ours="`--gid`",
            convert=values.process("--gid"),
        ),
        GunicornSetting(
            "umask",
            ("-m", "--umask"),
            "number",
            "an option of the process",
            ours="`--umask`",
            convert=values.umask,
        ),
        GunicornSetting(
            "initgroups",
            ("--initgroups",),
            "flag",
            "`--uid` sets the groups of the user",
            convert=values.only(
                True, Missing("not needed: --uid sets the groups of the user")
            ),
        ),
        GunicornSetting(
            "tmp_upload_dir",
            (),
            "text",
            "bodies above `--buffer-memory` go to a temporary file",
            ours="TMPDIR",
            convert=lambda value, source: (
                [Variable("TMPDIR", source.path(str(value)))] if value else []
            ),
        ),
        GunicornSetting(
            "secure_scheme_headers",
            (),
            "python",
            "X-Forwarded-Proto, or Forwarded",
            ours="`--trusted-proxy-headers`",
            convert=values.scheme_headers,
        ),
        GunicornSetting(
            "forwarded_allow_ips",
            ("--forwarded-allow-ips",),
            "text",
            "gunicorn believes the scheme alone, from 127.0.0.1 and from every UNIX "
            "socket, by default; here no peer is trusted by default, and the address "
            "is believed too: see [Reverse proxies](reverse-proxies.md)",
            ours="`--trusted-proxy`",
            convert=values.forwarded,
        ),
        GunicornSetting(
            "pythonpath",
            ("--pythonpath",),
            "text",
            "or `--chdir`",
            ours="PYTHONPATH",
            convert=values.python_path,
        ),
        GunicornSetting(
            "paste",
            ("--paste", "--paster"),
            "text",
            "",
            ours="`--app config:production.ini`",
            convert=values.paste,
        ),
        GunicornSetting(
            "raw_paste_global_conf",
            ("--paste-global",),
            "list",
            "put the variables into the section `[DEFAULT]` of the file",
        ),
        GunicornSetting(
            "proxy_protocol",
            ("--proxy-protocol",),
            "text",
            "needs the next option",
            ours="`--proxy-protocol`",
            convert=values.proxy_protocol,
        ),
        GunicornSetting(
            "proxy_allow_ips",
            ("--proxy-allow-from",),
            "text",
            "no peer is trusted by default",
            ours="`--proxy-protocol-from`",
            convert=values.proxy_from,
        ),
        GunicornSetting(
            "protocol",
            ("--protocol",),
            "text",
            "HTTP only: `proxy_pass` of nginx in place of `uwsgi_pass`",
            convert=values.protocol,
        ),
        GunicornSetting(
            "uwsgi_allow_ips",
            ("--uwsgi-allow-from",),
            "text",
            "there is no uwsgi protocol",
        ),
        GunicornSetting(
            "root_path",
            ("--root-path",),
            "text",
            "",
            ours="`--prefix`",
            convert=lambda value, _source: [Key("prefix", str(value))] if value else [],
        ),
        GunicornSetting(
            "permit_obsolete_folding",
            ("--permit-obsolete-folding",),
            "flag",
            "folded fields get 400",
        ),
        GunicornSetting(
            "strip_header_spaces",
            ("--strip-header-spaces",),
            "flag",
            "a space before the colon gets 400",
        ),
        GunicornSetting(
            "permit_unconventional_http_method",
            ("--permit-unconventional-http-method",),
            "flag",
            "`--methods` restricts the methods",
            ours="the default",
            convert=values.nothing,
        ),
        GunicornSetting(
            "permit_unconventional_http_version",
            ("--permit-unconventional-http-version",),
            "flag",
            "other versions than 1.0 and 1.1 get 505",
        ),
        GunicornSetting(
            "casefold_http_method",
            ("--casefold-http-method",),
            "flag",
            "methods reach the application as they are sent",
        ),
        GunicornSetting(
            "forwarder_headers",
            ("--forwarder-headers",),
            "text",
            "fields with an underscore in their name are dropped; `--prefix` sets "
            "SCRIPT_NAME",
        ),
        GunicornSetting(
            "header_map",
            ("--header-map",),
            "text",
            "fields with an underscore in their name are dropped, as by default in "
            "gunicorn",
        ),
        GunicornSetting(
            "http_parser", ("--http-parser",), "text", "there is one parser, in C"
        ),
    ),
    "Logging": (
        GunicornSetting(
            "accesslog",
            ("--access-logfile",),
            "text",
            "",
            ours="`--access-log`",
            convert=values.access_log,
        ),
        GunicornSetting(
            "disable_redirect_access_to_syslog",
            ("--disable-redirect-access-to-syslog",),
            "flag",
            "the access log goes to its own file only",
            ours="the default",
            convert=values.nothing,
        ),
        GunicornSetting(
            "access_log_format",
            ("--access-logformat",),
            "text",
            "`%h` in place of `%(h)s`: see [Logging](logging.md#formats-of-your-own)",
            ours="`--access-log-format`",
            convert=values.log_format,
        ),
        GunicornSetting(
            "errorlog",
            ("--error-logfile", "--log-file"),
            "text",
            "an option of the process; `--logfile` of twistd",
            ours="`--log-file`",
            convert=values.error_log,
        ),
        GunicornSetting(
            "loglevel",
            ("--log-level",),
            "text",
            "that of the server's own lines; the application sets the level of its "
            "messages with `logging`",
            ours="`--log-level txgreenwsgi=LEVEL`",
            convert=values.log_level,
        ),
        GunicornSetting(
            "capture_output",
            ("--capture-output",),
            "flag",
            "what the application prints is in the log, with the request's ID",
            ours="the default",
            convert=values.nothing,
        ),
        GunicornSetting(
            "logger_class",
            ("--logger-class",),
            "text",
            "`--logger` names a factory of Twisted's log observers; an observer of "
            "records replaces an access logger",
        ),
        GunicornSetting(
            "logconfig",
            ("--log-config",),
            "text",
            "call `logging.config.fileConfig` in the application's module",
        ),
        GunicornSetting(
            "logconfig_dict",
            (),
            "python",
            "call `logging.config.dictConfig` in the application's module, or use "
            "`LOGGING` of Django",
        ),
        GunicornSetting(
            "logconfig_json",
            ("--log-config-json",),
            "text",
            "call `logging.config.dictConfig` in the application's module",
        ),
        GunicornSetting(
            "syslog_addr", ("--log-syslog-to",), "text", "the local syslog is used"
        ),
        GunicornSetting(
            "syslog",
            ("--log-syslog",),
            "flag",
            "an option of the process",
            ours="`--syslog`",
            convert=values.only(True, Process("--syslog")),
        ),
        GunicornSetting(
            "syslog_prefix",
            ("--log-syslog-prefix",),
            "text",
            "an option of the process; `--prefix` of twistd",
            ours="`--syslog-prefix`",
            convert=values.process("--syslog-prefix"),
        ),
        GunicornSetting(
            "syslog_facility",
            ("--log-syslog-facility",),
            "text",
            "the facility is user",
        ),
        GunicornSetting(
            "enable_stdio_inheritance",
            ("-R", "--enable-stdio-inheritance"),
            "flag",
            "see [Standard streams](logging.md#standard-streams)",
            ours="the default",
            convert=values.nothing,
        ),
        GunicornSetting(
            "statsd_host",
            ("--statsd-host",),
            "text",
            "`--metrics` serves them to Prometheus: see "
            "[Observability](observability.md#metrics)",
        ),
        GunicornSetting(
            "dogstatsd_tags", ("--dogstatsd-tags",), "text", "as for `statsd_host`"
        ),
        GunicornSetting(
            "statsd_prefix", ("--statsd-prefix",), "text", "as for `statsd_host`"
        ),
        GunicornSetting(
            "enable_backlog_metric",
            ("--enable-backlog-metric",),
            "flag",
            "`ss -lt` shows the backlog",
        ),
        GunicornSetting(
            "proc_name",
            ("-n", "--name"),
            "text",
            "systemd names the processes of a unit; `txgreenwsgi status` lists them",
        ),
        GunicornSetting("default_proc_name", (), "text", "as for `proc_name`"),
    ),
    "Server hooks": (
        GunicornSetting("on_starting", (), "python", _NO_MASTER_CODE),
        GunicornSetting("on_reload", (), "python", _NO_MASTER_CODE),
        GunicornSetting(
            "when_ready",
            (),
            "python",
            "systemd is notified (`Type=notify`); `--health-path` tells load balancers",
        ),
        GunicornSetting("pre_fork", (), "python", _NO_MASTER_CODE),
        GunicornSetting("post_fork", (), "python", _IN_MODULE),
        GunicornSetting("post_worker_init", (), "python", _IN_MODULE),
        GunicornSetting(
            "worker_int",
            (),
            "python",
            'add a trigger: `reactor.addSystemEventTrigger("before", "shutdown", f)`',
        ),
        GunicornSetting(
            "worker_abort",
            (),
            "python",
            "the log has the stacks of a worker that hangs",
        ),
        GunicornSetting("pre_exec", (), "python", "the master is replaced in place"),
        GunicornSetting("pre_request", (), "python", "use a WSGI middleware"),
        GunicornSetting(
            "post_request",
            (),
            "python",
            "use a WSGI middleware, or an observer of records",
        ),
        GunicornSetting("child_exit", (), "python", _NO_MASTER_CODE),
        GunicornSetting("worker_exit", (), "python", "use `atexit` in the application"),
        GunicornSetting("nworkers_changed", (), "python", _NO_MASTER_CODE),
        GunicornSetting("on_exit", (), "python", "use `ExecStopPost=` of systemd"),
        GunicornSetting(
            "ssl_context", (), "python", "use the options of TLS: see [TLS](tls.md)"
        ),
    ),
    "TLS": (
        GunicornSetting(
            "keyfile",
            ("--keyfile",),
            "text",
            "",
            ours="`--tls-key`",
            convert=values.path("tls_key"),
        ),
        GunicornSetting(
            "certfile",
            ("--certfile",),
            "text",
            "with `--listen https:443`",
            ours="`--tls-cert`",
            convert=values.path("tls_cert"),
        ),
        GunicornSetting(
            "ssl_version",
            ("--ssl-version",),
            "python",
            "1.2 or 1.3",
            ours="`--tls-min`",
            convert=lambda _value, _source: [
                Missing("TLS 1.2 and 1.3 are served; tls_min raises the minimum")
            ],
        ),
        GunicornSetting(
            "cert_reqs",
            ("--cert-reqs",),
            "number",
            "",
            ours="`--tls-client`",
            convert=values.cert_reqs,
        ),
        GunicornSetting(
            "ca_certs",
            ("--ca-certs",),
            "text",
            "",
            ours="`--tls-client-ca`",
            convert=values.ca_certs,
        ),
        GunicornSetting(
            "suppress_ragged_eofs",
            ("--suppress-ragged-eofs",),
            "flag",
            "connections may end without a TLS close alert",
            ours="the default",
            convert=values.nothing,
        ),
        GunicornSetting(
            "do_handshake_on_connect",
            ("--do-handshake-on-connect",),
            "flag",
            "handshakes never block other connections",
        ),
        GunicornSetting(
            "ciphers",
            ("--ciphers",),
            "text",
            "",
            ours="`--tls-ciphers`",
            convert=values.key("tls_ciphers"),
        ),
    ),
    "HTTP/2": (
        GunicornSetting(
            "http_protocols",
            ("--http-protocols",),
            "text",
            "`tls` if it has `h2`; needs `txgreenwsgi[http2]`",
            ours="`--http2`",
            convert=values.http_protocols,
        ),
        GunicornSetting(
            "http2_cleartext",
            ("--http2-cleartext",),
            "text",
            "`h2c` is prior knowledge, for all peers; there is no upgrade",
            ours="`--http2 h2c`",
            convert=values.http2_cleartext,
        ),
        GunicornSetting(
            "http2_max_concurrent_streams",
            ("--http2-max-concurrent-streams",),
            "number",
            "",
            ours="`--http2-max-streams`",
            convert=values.key("http2_max_streams"),
        ),
        GunicornSetting(
            "http2_initial_window_size",
            ("--http2-initial-window-size",),
            "number",
            "of HTTP/1.1 too",
            ours="`--input-window`",
            convert=values.key("input_window"),
        ),
        GunicornSetting(
            "http2_max_frame_size",
            ("--http2-max-frame-size",),
            "number",
            "16384, the default of HTTP/2",
        ),
        GunicornSetting(
            "http2_max_header_list_size",
            ("--http2-max-header-list-size",),
            "number",
            "of HTTP/1.1 too",
            ours="`--max-header-size`",
            convert=values.key("max_header_size"),
        ),
    ),
    "ASGI": (
        GunicornSetting("asgi_loop", ("--asgi-loop",), "text", _ONLY_WSGI),
        GunicornSetting("asgi_lifespan", ("--asgi-lifespan",), "text", _ONLY_WSGI),
        GunicornSetting(
            "asgi_disconnect_grace_period",
            ("--asgi-disconnect-grace-period",),
            "number",
            "`--on-disconnect cancel` ends a WSGI request whose client has left",
        ),
        GunicornSetting(
            "websocket_max_message_size",
            ("--websocket-max-message-size",),
            "number",
            "a setting for ASGI; `txgreenwsgi.websocket()` takes `max_message`",
        ),
    ),
    "Dirty arbiters": (
        GunicornSetting("dirty_apps", ("--dirty-app",), "list", _NO_DIRTY),
        *(
            GunicornSetting(
                f"dirty_{name}",
                (f"--dirty-{name.replace('_', '-')}",),
                "number",
                _NO_DIRTY,
            )
            for name in ("workers", "timeout", "threads", "graceful_timeout")
        ),
        *(
            GunicornSetting(name, (), "python", _NO_DIRTY)
            for name in (
                "on_dirty_starting",
                "dirty_post_fork",
                "dirty_worker_init",
                "dirty_worker_exit",
            )
        ),
    ),
    "Control": (
        GunicornSetting(
            "control_socket",
            ("--control-socket",),
            "text",
            "for `txgreenwsgi status`, `reload`, `scale` and `stacks`",
            ours="`--control`",
            convert=values.control,
        ),
        GunicornSetting(
            "control_socket_mode",
            ("--control-socket-mode",),
            "number",
            "the mode is 0600",
        ),
        GunicornSetting(
            "control_socket_disable",
            ("--no-control-socket",),
            "flag",
            "",
            ours="`--control none`",
            convert=values.only(True, Key("control", "none")),
        ),
    ),
}

#: Every setting, in that order.
SETTINGS: Final = tuple(each for section in SECTIONS.values() for each in section)


def markdown_tables() -> str:
    """Return a table for each section, for the documentation."""
    lines: list[str] = []
    for section, settings in SECTIONS.items():
        lines += [
            *([""] if lines else []),
            f"### {section}",
            "",
            "| gunicorn | txgreenwsgi | Differences |",
            "|---|---|---|",
        ]
        for each in settings:
            names = ", ".join(f"`{name}`" for name in (each.name, *each.flags))
            row = f"| {names} | {each.ours or '-'} | {each.note} |"
            lines.append(row.replace("|  |", "| |"))
    return "\n".join(lines) + "\n"
