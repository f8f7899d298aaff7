"""gunicorn's configuration as settings of this server.

gunicorn's own options decide about everything that both servers have. The other options
of this server are environment variables such as TXGREENWSGI_MAX_BODY, or keys in the
file that TXGREENWSGI_CONFIG names. They also override what follows from gunicorn's
options.

It knows names and values. It must never know a socket or a request.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from txgreenwsgi._configuration import (
    DEFAULT_ORIGIN,
    PLATFORM,
    Command,
    Conditions,
    ConfigurationError,
    resolve,
)
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi.settings import SettingError, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["WorkerConfiguration", "configuration_for", "is_changed"]

#: Time between the end of the grace period and the end of the process. gunicorn sends
#: SIGKILL at its own graceful timeout.
_EXIT_SECONDS: Final = 2.0

#: The options of the command that a worker uses.
_USED: Final = frozenset({"config", "gc", "offload", "origin", "patch", "tls_min"})

#: By `ssl.VerifyMode`, the modes of `TLSOptions.client`.
_CLIENT_MODES: Final = ("", "optional", "required")

# gunicorn's options without an effect here, with the remedy. One is logged if its value
# differs from the default.
_IGNORED: Final = {
    "threads": "requests run in greenlets; TXGREENWSGI_THREADS limits those in threads",
    "sendfile": "files are always sent by sendfile",
    "tmp_upload_dir": "set TMPDIR",
    "limit_request_field_size": "TXGREENWSGI_MAX_HEADER_SIZE limits the whole head",
    "http_protocols": "TXGREENWSGI_HTTP2 selects HTTP/2",
    "http2_cleartext": "TXGREENWSGI_HTTP2=h2c accepts it",
    "permit_obsolete_folding": "folded fields get 400",
    "strip_header_spaces": "spaces before the colon get 400",
    "permit_unconventional_http_version": "other versions get 505",
    "casefold_http_method": "methods reach the application as sent",
    "header_map": "fields with an underscore in their name are dropped",
    "forwarder_headers": "fields with an underscore in their name are dropped",
    "suppress_ragged_eofs": "connections may end without a TLS close alert",
    "do_handshake_on_connect": "handshakes never block other connections",
    "ssl_version": "TXGREENWSGI_TLS_MIN is the minimum version",
}
#: Values of gunicorn 23, which knows one version.
_PROXY_PROTOCOLS: Final = {False: "off", True: "v1"}
#: gunicorn's maximum of `limit_request_fields`, for which 0 stands.
_MAX_FIELDS: Final = 32768


@dataclass(frozen=True)
class WorkerConfiguration:
    """The configuration of a worker.

    Attributes:
        settings: the settings of the server.
        command: the options that are not settings; only some of them apply.
        tls: the TLS options; None without TLS.
        warnings: messages about options without an effect.
    """

    settings: Settings
    command: Command
    tls: TLSOptions | None
    warnings: tuple[str, ...]


def configuration_for(cfg: Any, environ: Mapping[str, str]) -> WorkerConfiguration:
    """Return the configuration of a worker.

    Args:
        cfg: gunicorn's configuration.
        environ: the environment of the worker.

    Raises:
        StartError: a variable or the file is invalid, or an option of gunicorn cannot
            be applied.
    """
    _refuse(cfg)
    # gunicorn reads the variables of platforms itself.
    ours = {name: value for name, value in environ.items() if name not in PLATFORM}
    try:
        resolved = resolve({}, ours, Conditions(), lambda key, value: "remove it")
        settings = resolved.settings()
        command = resolved.command()
        own = {
            name: given
            for name, given in resolved.given.items()
            if given.origin != DEFAULT_ORIGIN
        }
        settings = replace(
            settings,
            **{
                name: value
                for name, value in _from_options(cfg, environ).items()
                if name not in own
            },
        )
    except (ConfigurationError, SettingError) as error:
        raise StartError(str(error)) from None
    unused = {field.name for field in fields(Command)} - _USED
    warnings = [
        f"{given.origin} has no effect: gunicorn has an option for it"
        for name, given in own.items()
        if name in unused
    ]
    warnings += [
        f"gunicorn's option {name} has no effect: {remedy}"
        for name, remedy in _IGNORED.items()
        if is_changed(cfg, name)
    ]
    return WorkerConfiguration(
        settings, command, _tls_options(cfg, command), (*resolved.warnings, *warnings)
    )


def _tls_options(cfg: Any, command: Command) -> TLSOptions | None:
    """Return the TLS options that follow from gunicorn's; None without TLS."""
    if not cfg.is_ssl:
        return None
    mode = _CLIENT_MODES[int(cfg.cert_reqs)]
    return TLSOptions(
        cert=cfg.certfile or cfg.keyfile,
        key=cfg.keyfile or "",
        client_ca=(cfg.ca_certs or "") if mode else "",
        client=mode,
        min=command.tls_min,
        ciphers=cfg.ciphers or "",
    )


def _from_options(cfg: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that follow from gunicorn's options."""
    grace = float(cfg.graceful_timeout)
    values: dict[str, Any] = {
        "keep_alive": float(cfg.keepalive),
        "graceful_timeout": max(grace - _EXIT_SECONDS, grace / 2),
        "max_connections": cfg.worker_connections,
        "max_headers": cfg.limit_request_fields or _MAX_FIELDS,
    }
    head = Settings().max_header_size
    line, field = cfg.limit_request_line, cfg.limit_request_field_size
    # gunicorn limits each line of a head, this server the sum. If one of its limits was
    # raised, there are requests with such a line.
    if not field or field > head // 2:
        values["max_header_size"] = head = max(4 * head, line + 2 * field)
    # 0 is gunicorn's maximum.
    values["max_target"] = max(line, 16) if line else head
    version = _PROXY_PROTOCOLS.get(cfg.proxy_protocol, cfg.proxy_protocol)
    if version != "off":
        values["proxy_protocol"] = version
        # gunicorn believes every UNIX socket.
        values["proxy_protocol_from"] = [*cfg.proxy_allow_ips, "unix"]
    prefix = environ.get("SCRIPT_NAME", "").rstrip("/")
    if prefix:
        values["prefix"] = prefix
    return values


def _refuse(cfg: Any) -> None:
    """Raise if an option of gunicorn is necessary and has no counterpart."""
    if getattr(cfg, "protocol", "http") != "http":
        raise StartError(
            f"gunicorn's option protocol={cfg.protocol!r} is not supported by this "
            "worker: let the proxy speak HTTP (http-socket, proxy_pass)"
        )
    if is_changed(cfg, "ssl_context"):
        raise StartError(
            "gunicorn's hook ssl_context is not supported by this worker, which does "
            "not use the ssl module: give certfile, keyfile, ca_certs and cert_reqs"
        )


def is_changed(cfg: Any, name: str) -> bool:
    """Return whether an option differs from its default. False if there is none."""
    setting = cfg.settings.get(name)
    return setting is not None and bool(setting.get() != type(setting)().get())
