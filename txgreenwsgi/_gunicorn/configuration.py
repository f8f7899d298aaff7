"""gunicorn's configuration as settings of this server.

gunicorn's own options decide about everything that both servers have. Options of this
server alone are environment variables such as TXGREENWSGI_MAX_BODY. Such a variable
also overrides what follows from gunicorn's options.

It knows names and values. It must never know a socket or a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from txgreenwsgi._launch.collecting import GC
from txgreenwsgi._launch.patching import PATCHABLE, parse_patch
from txgreenwsgi._server.errors import StartError
from txgreenwsgi.origins import NAMES
from txgreenwsgi.settings import SettingError, Settings, described, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PREFIX", "Configuration", "configuration_for", "ignored_options"]

#: The prefix of the environment variables with options of this server.
PREFIX: Final = "TXGREENWSGI_"

#: Time between the end of the grace period and the end of the process. gunicorn sends
#: SIGKILL at its own graceful timeout.
_EXIT_SECONDS: Final = 2.0

# gunicorn's options without an effect here, with the remedy. One is logged if its value
# differs from the default.
_IGNORED: Final = {
    "threads": "requests run in greenlets; TXGREENWSGI_THREADS limits those in threads",
    "sendfile": "files are always sent by sendfile",
    "tmp_upload_dir": "set TMPDIR",
    "limit_request_field_size": "TXGREENWSGI_MAX_HEADER_SIZE limits the whole head",
    "http_protocols": "HTTP/1.1 is served",
    "http2_cleartext": "HTTP/1.1 is served",
    "permit_obsolete_folding": "folded fields get 400",
    "strip_header_spaces": "spaces before the colon get 400",
    "permit_unconventional_http_version": "other versions get 505",
    "casefold_http_method": "methods reach the application as sent",
    "header_map": "fields with an underscore in their name are dropped",
    "forwarder_headers": "fields with an underscore in their name are dropped",
    "suppress_ragged_eofs": "connections may end without a TLS close alert",
    "do_handshake_on_connect": "handshakes never block other connections",
    "ssl_version": "TLS 1.2 and later are accepted",
}


@dataclass(frozen=True)
class Configuration:
    """The configuration of a worker.

    Attributes:
        settings: the settings of the server.
        patch: modules of the standard library to patch.
        offload: names of functions that run in threads.
        origin: names of servers to emulate.
        gc: the mode of garbage collection.
    """

    settings: Settings
    patch: tuple[str, ...]
    offload: list[str]
    origin: list[str]
    gc: str


def configuration_for(cfg: Any, environ: Mapping[str, str]) -> Configuration:
    """Return the configuration of a worker.

    Args:
        cfg: gunicorn's configuration.
        environ: the environment of the worker.

    Raises:
        StartError: an environment variable is invalid, or an option of gunicorn
            cannot be applied.
    """
    _refuse(cfg)
    given = {
        name.removeprefix(PREFIX).lower(): text
        for name, text in environ.items()
        if name.startswith(PREFIX)
    }
    patch = given.pop("patch", "all")
    try:
        modules = parse_patch(patch)
    except ValueError as error:
        raise StartError(
            f"{PREFIX}PATCH={patch!r}: {error}; give all, none, or a comma-separated "
            f"list of {', '.join(PATCHABLE)}"
        ) from None
    gc = _choice(given.pop("gc", "freeze"), "GC", GC)
    origin = [
        _choice(name, "ORIGIN", NAMES) for name in _words(given.pop("origin", ""))
    ]
    offload = _words(given.pop("offload", ""))
    values = {**_from_options(cfg, environ), **_from_variables(given)}
    try:
        settings = Settings.from_keywords(**values)
    except SettingError as error:
        raise StartError(str(error)) from None
    return Configuration(settings, modules, offload, origin, gc)


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _choice(text: str, name: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise StartError(
            f"{PREFIX}{name}={text!r} is unknown: give {' or '.join(choices)}"
        )
    return text


def _from_options(cfg: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that follow from gunicorn's options."""
    grace = float(cfg.graceful_timeout)
    values: dict[str, Any] = {
        "threads_for": ["auto"],
        "keep_alive": float(cfg.keepalive),
        "graceful_timeout": max(grace - _EXIT_SECONDS, grace / 2),
        "max_connections": cfg.worker_connections,
        "max_headers": max(cfg.limit_request_fields, 1),
    }
    default = Settings().max_header_size
    line, field = cfg.limit_request_line, cfg.limit_request_field_size
    # gunicorn limits each line of a head, this server the sum. Whoever raises a limit
    # of gunicorn has requests with such a line.
    if not field or field > default // 2:
        values["max_header_size"] = default = max(4 * default, line + 2 * field)
    # With 0 as "no limit", which is gunicorn's maximum too, the head is the limit.
    values["max_target"] = line if line else default
    prefix = environ.get("SCRIPT_NAME", "").rstrip("/")
    if prefix:
        values["prefix"] = prefix
    return values


def _from_variables(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that environment variables give."""
    known = {name: setting for name, setting, _default in described()}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            # The variables of the command: a list of them is shared by both.
            continue
        setting = known[name]
        try:
            if setting.kind in ("pairs", "words"):
                values[name] = [parse(setting, word) for word in _words(text)]
            else:
                values[name] = parse(setting, text)
            Settings.from_keywords(**{name: values[name]})
        except SettingError as error:
            raise StartError(
                f"{PREFIX}{name.upper()}={text!r} {error.problem}: {error.remedy}"
            ) from None
    return values


def _refuse(cfg: Any) -> None:
    """Raise if an option of gunicorn is necessary and has no counterpart."""
    if getattr(cfg, "protocol", "http") != "http":
        raise StartError(
            f"gunicorn's option protocol={cfg.protocol!r} is not supported by this "
            "worker: let the proxy speak HTTP (http-socket, proxy_pass)"
        )
    if _changed(cfg, "ssl_context"):
        raise StartError(
            "gunicorn's hook ssl_context is not supported by this worker, which does "
            "not use the ssl module: give certfile, keyfile, ca_certs and cert_reqs"
        )


def ignored_options(cfg: Any) -> list[tuple[str, str]]:
    """Return the options of gunicorn that are set but have no effect, with remedies."""
    return [(name, remedy) for name, remedy in _IGNORED.items() if _changed(cfg, name)]


def _changed(cfg: Any, name: str) -> bool:
    """Return whether an option differs from its default. False if there is none."""
    if name not in cfg.settings:
        return False
    fresh = type(cfg)()
    return bool(cfg.settings[name].get() != fresh.settings[name].get())
