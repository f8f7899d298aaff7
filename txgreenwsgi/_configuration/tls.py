"""The TLS options together with the endpoints that use them.

It knows the options of the command. It must never know how certificates are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._server.errors import EndpointError
from txgreenwsgi._server.https import check_certificates, is_https, options_of
from txgreenwsgi._tls.errors import TLSError
from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi.settings import SettingError

from .options import DEFAULT_TLS_LISTEN

if TYPE_CHECKING:
    from .options import Command, Conditions
    from .sources import Configuration

__all__ = [
    "check_tls",
    "listener_options",
    "tls_options",
    "unused_tls",
    "uses_tls",
]


def tls_options(command: Command) -> TLSOptions:
    """Return the TLS options of the command."""
    return TLSOptions(
        cert=command.tls_cert or "",
        key=command.tls_key or "",
        dir=command.tls_dir or "",
        client_ca=command.tls_client_ca or "",
        client=command.tls_client or "",
        min=command.tls_min,
        ciphers=command.tls_ciphers or "",
    )


def listener_options(command: Command) -> list[TLSOptions]:
    """Return the TLS options of each `https:` endpoint, with absolute paths."""
    return options_of(command.listen, tls_options(command))


def uses_tls(command: Command) -> bool:
    """Return whether an endpoint uses the TLS options."""
    return any(is_https(text) for text in command.listen)


def check_tls(command: Command, conditions: Conditions) -> tuple[str, ...]:
    """Validate the TLS options and the files that they name. Opens no socket.

    Returns:
        Findings that do not prevent the server from starting, such as a certificate
        that has expired, as sentences.

    Raises:
        SettingError: an option or a file cannot be used. The message is complete.
    """
    options = tls_options(command)
    try:
        options.check()
    except TLSError as error:
        raise SettingError(error.subject, error.problem, error.remedy) from None
    findings = [
        finding
        for text in command.listen
        if is_https(text)
        for finding in _check(text, options, conditions.paths_are_final)
    ]
    return tuple(dict.fromkeys(findings))


def unused_tls(configuration: Configuration) -> tuple[str, ...]:
    """Return a warning about a TLS option that no endpoint uses, or raise.

    To override the endpoints of a file on the command line is no mistake.

    Raises:
        SettingError: the option has no effect, and probably should have. The message
            is complete.
    """
    command = configuration.command()
    options = tls_options(command)
    if uses_tls(command) or not options.given:
        return ()
    name = options.given[0]
    origin = configuration.given[f"tls_{name}"].origin
    listen = configuration.given["listen"]
    label, problem = options.label(name), "is used by no endpoint"
    if listen.origin == "--listen" and not origin.startswith("--"):
        return (f"{label} (from {origin}) {problem}",)
    raise SettingError(
        label,
        problem,
        f"give --listen {DEFAULT_TLS_LISTEN} in place of --listen {listen.value[0]}, "
        "or beside it",
    )


def _check(text: str, options: TLSOptions, paths_are_final: bool) -> list[str]:
    try:
        return check_certificates(text, options, paths_are_final=paths_are_final)
    except EndpointError as error:
        raise SettingError(f"--listen {text!r}", error.problem, error.remedy) from None
