"""Conversions of gunicorn's values to parts of a configuration file.

It knows what each setting of gunicorn means. It must never know where a value comes
from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .addresses import AddressError, endpoint_for, is_unix
from .entries import Entry, Key, Missing, Process, Variable
from .log_formats import translated_format

__all__ = [
    "Convert",
    "Source",
    "access_log",
    "bind",
    "ca_certs",
    "cert_reqs",
    "control",
    "error_log",
    "flag",
    "forwarded",
    "http2_cleartext",
    "http_protocols",
    "key",
    "limit_fields",
    "limit_line",
    "limit_size",
    "log_format",
    "nothing",
    "only",
    "paste",
    "path",
    "process",
    "protocol",
    "proxy_from",
    "proxy_protocol",
    "python_path",
    "raw_env",
    "reload_extra",
    "scheme_headers",
    "strings",
    "threads",
    "timeout",
    "umask",
    "worker_class",
    "workers",
]


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


#: Returns the translation of a value.
Convert: TypeAlias = Callable[[Any, Source], Iterable[Entry]]


def strings(value: Any) -> list[str]:
    """Return a list of texts, from one or from a text with commas."""
    if isinstance(value, str):
        return [text.strip() for text in value.split(",") if text.strip()]
    return [str(one) for one in value]


def nothing(_value: Any, _source: Source) -> Iterable[Entry]:
    """Return no entries: the value is the default here, or part of another one."""
    return ()


def key(name: str) -> Convert:
    """Return the conversion to a key with the same value."""
    return lambda value, _source: [Key(name, value)]


def flag(name: str) -> Convert:
    """Return the conversion to a key that is true or false."""
    return lambda value, _source: [Key(name, bool(value))]


def path(name: str) -> Convert:
    """Return the conversion to a key with an absolute path."""
    return lambda value, source: [Key(name, source.path(str(value)))] if value else []


def process(option: str) -> Convert:
    """Return the conversion to an option of the process."""
    return lambda value, _source: [Process(f"{option} {value}")] if value else []


def bind(_value: Any, source: Source) -> Iterable[Entry]:
    """Translate `bind`, with `backlog` and `certfile`."""
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


def http_protocols(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `http_protocols`."""
    if "h2" in strings(value) and not _is_cleartext(source):
        yield Key("http2", "tls")


def http2_cleartext(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `http2_cleartext`, which has an effect with `h2` only."""
    if _is_cleartext(source):
        yield Key("http2", "h2c")
    elif value == "upgrade":
        yield Missing("let the proxy use HTTP/2 with prior knowledge, and give http2")


def _is_cleartext(source: Source) -> bool:
    """Return whether gunicorn accepts HTTP/2 with prior knowledge."""
    protocols = strings(source.values.get("http_protocols") or "h1")
    accepted = source.values.get("http2_cleartext")
    return "h2" in protocols and accepted in ("prior-knowledge", "both")


def workers(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `workers`."""
    many = int(value) > (os.cpu_count() or 1)
    yield Key("workers", value, "one per core is enough" if many else "")


def threads(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `threads`."""
    if int(value) > 1:
        yield Missing(
            "requests run in greenlets; threads limits those that threads_for runs in "
            "real threads"
        )


def worker_class(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `worker_class`."""
    name = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    if "uvicorn" in name.lower() or "asgi" in name.lower():
        yield Missing("ASGI applications are not served: keep a server for ASGI")
    elif name != "sync":
        yield Missing("not needed: each request has a greenlet")


def timeout(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `timeout`."""
    yield Key("worker_timeout", value)
    if source.values.get("worker_class", "sync") == "sync":
        yield Missing(
            "a sync worker is also killed by one slow request; here only one that "
            "blocks: give request_timeout to limit requests"
        )


def limit_line(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `limit_request_line`."""
    # 0 is no limit in gunicorn.
    yield Key("max_target", max(int(value), 16) if int(value) else 1024**2)


def limit_fields(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `limit_request_fields`."""
    # gunicorn reads 0 as its maximum.
    yield Key("max_headers", int(value) or 32768)


def limit_size(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `limit_request_field_size`."""
    size = int(value)
    if not size or size > 16384:
        yield Key("max_header_size", max(4 * size, 128 * 1024), "of the whole head")
    else:
        yield Missing("only the whole head is limited, by max_header_size: 32 KiB")


def reload_extra(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `reload_extra_files`."""
    yield Key("reload_extra", [source.path(one) for one in strings(value)])


def only(wanted: bool, entry: Entry) -> Convert:
    """Return a conversion that gives an entry for one value of a flag only."""
    return lambda value, _source: [entry] if bool(value) is wanted else []


def raw_env(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `raw_env`."""
    for text in [value] if isinstance(value, str) else value:
        name, _, content = str(text).partition("=")
        if name == "SCRIPT_NAME":
            yield Key("prefix", content, "paths without the prefix are served too")
        else:
            yield Variable(name, content)


def umask(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `umask`."""
    number = int(value, 0) if isinstance(value, str) else int(value)
    yield Process(f"--umask {number:04o}")


def forwarded(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `forwarded_allow_ips`, to which gunicorn adds UNIX sockets."""
    peers = strings(value)
    if peers and peers != ["*"] and any(map(is_unix, source.addresses())):
        peers.append("unix")
    yield Key(
        "trusted_proxy",
        peers,
        "the address is taken from X-Forwarded-For too: remove ProxyFix and the like",
    )


def scheme_headers(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `secure_scheme_headers`."""
    headers = {str(name).upper(): text for name, text in dict(value).items()}
    if headers.pop("X-FORWARDED-PROTO", "") != "https" or headers:
        yield Missing(
            "the scheme is taken from X-Forwarded-Proto or Forwarded: let the proxy "
            "set one of them"
        )


def proxy_protocol(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `proxy_protocol`, with the default of `proxy_allow_ips`."""
    mode = {True: "auto", False: "off"}.get(value, str(value).lower())
    if mode == "off":
        return
    yield Key("proxy_protocol", mode)
    if not source.values.get("proxy_allow_ips"):
        yield Key("proxy_protocol_from", _peers("127.0.0.1,::1", source))


def proxy_from(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `proxy_allow_ips`."""
    yield Key("proxy_protocol_from", _peers(value, source))


def _peers(value: Any, source: Source) -> list[str]:
    """Return the peers of gunicorn's lists, which contain every UNIX socket."""
    peers = [
        network
        for one in strings(value)
        for network in (("0.0.0.0/0", "::/0") if one == "*" else (one,))
    ]
    return [*peers, "unix"] if any(map(is_unix, source.addresses())) else peers


def log_format(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `access_log_format`."""
    if source.values.get("accesslog"):
        yield Key("access_log_format", translated_format(str(value)))


def access_log(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `accesslog`."""
    if not value:
        return
    comment = ""
    if not source.values.get("access_log_format"):
        comment = "gunicorn's default format, then duration and request id"
    path = str(value)
    yield Key("access_log", path if path == "-" else source.path(path), comment)


def error_log(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `errorlog`."""
    if value and value != "-":
        yield Process(f"--log-file {source.path(str(value))}")


def log_level(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `loglevel`, which is that of gunicorn's own lines."""
    level = str(value).lower() if value else ""
    if level in ("debug", "info", "warning", "error", "critical"):
        level = level.removesuffix("ing")
        yield Key("log_level", [f"txgreenwsgi={level}"])
    elif level:
        yield Missing(f"{level!r} is no level")


def python_path(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `pythonpath`."""
    paths = [source.path(one) for one in strings(value)]
    if paths:
        yield Variable("PYTHONPATH", ":".join(paths))


def paste(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `paste`."""
    path, hash_mark, name = str(value).partition("#")
    yield Key("app", f"config:{source.path(path)}{hash_mark}{name}")


def cert_reqs(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `cert_reqs`."""
    if source.values.get("ca_certs") and int(value):
        yield Key("tls_client", "optional" if int(value) == 1 else "required")


def ca_certs(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `ca_certs`."""
    if not value:
        return
    if int(source.values.get("cert_reqs") or 0):
        yield Key("tls_client_ca", source.path(str(value)))
    else:
        yield Missing("without cert_reqs it verifies nothing: leave it out")


def protocol(value: Any, _source: Source) -> Iterable[Entry]:
    """Translate `protocol`."""
    if value != "http":
        yield Missing("let the proxy speak HTTP: proxy_pass in place of uwsgi_pass")


def control(value: Any, source: Source) -> Iterable[Entry]:
    """Translate `control_socket`."""
    yield Key("control", source.path(str(value)))
