"""The TLS options together with the endpoints that use them.

It knows the options of the command. It must never know how certificates are used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from txgreenwsgi._server.errors import EndpointError
from txgreenwsgi._server.https import check_certificates, is_https
from txgreenwsgi._tls.errors import TLSError
from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi.settings import SettingError

from .options import DEFAULT_LISTEN

if TYPE_CHECKING:
    from .options import Command, Conditions

__all__ = [
    "DEFAULT_TLS_LISTEN",
    "check_tls",
    "tls_options",
    "uses_tls",
    "with_tls_listener",
]

#: The default endpoint if a certificate is given.
DEFAULT_TLS_LISTEN: Final = "https:8443"


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


def uses_tls(command: Command) -> bool:
    """Return whether an endpoint uses the TLS options."""
    return any(is_https(text) for text in command.listen)


def with_tls_listener(command: Command) -> Command:
    """Return the command with the default endpoint for TLS.

    Call if no endpoint was given: the command is returned unchanged without a
    certificate.
    """
    if not tls_options(command).has_certificate:
        return command
    return replace(command, listen=(DEFAULT_TLS_LISTEN,))


def check_tls(command: Command, conditions: Conditions) -> list[str]:
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
    endpoints = [text for text in command.listen if is_https(text)]
    if options.given and not endpoints:
        raise SettingError(
            options.label(options.given[0]),
            "is used by no endpoint",
            f"give --listen {DEFAULT_TLS_LISTEN} in place of --listen "
            f"{command.listen[0] if command.listen else DEFAULT_LISTEN}, or beside it",
        )
    findings = [
        finding
        for text in endpoints
        for finding in _check(text, options, conditions.paths_are_final)
    ]
    return list(dict.fromkeys(findings))


def _check(text: str, options: TLSOptions, paths_are_final: bool) -> list[str]:
    try:
        return check_certificates(text, options, paths_are_final=paths_are_final)
    except EndpointError as error:
        raise SettingError(f"--listen {text!r}", error.problem, error.remedy) from None
