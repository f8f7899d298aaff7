"""Endpoint strings: parsing by Twisted, and errors that give a remedy.

It knows the syntax of Twisted, what is added to it (`fd:`, `https:`, `v6only=`), and
the address syntax of other servers. It must never listen.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from twisted.internet.endpoints import serverFromString

from txgreenwsgi._tls.options import TLSOptions

from .adopted import adopted_endpoint
from .endpoint_strings import tcp_endpoint
from .errors import EndpointError
from .https import (
    MISSING_PACKAGE,
    check_certificates,
    is_https,
    parse_https,
)
from .ports import listening_reactor

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamServerEndpoint

__all__ = ["BACKLOG", "check_endpoint", "make_endpoint"]

#: Twisted's default of 50 refuses connections in a burst.
BACKLOG: Final = 1024
_TAKES_BACKLOG: Final = re.compile(r"(tcp6?|ssl|unix):")

_ADDRESS: Final = re.compile(r"(?:(localhost|[0-9.]*|\[[0-9a-f:.]+\]):)?([0-9]{1,5})\Z")
_PORT: Final = re.compile(r"(?:tcp6?|ssl):(?:port=)?([0-9]+)(?::|\Z)")
# Not an argument of Twisted's endpoints.
_V6ONLY: Final = re.compile(r"(?<!\\):v6only=([^:]*)")
_IPV6: Final = re.compile(r"(tcp6|tls):|interface=[^:]*\\:")
# Twisted's endpoint for a directory of certificates, on all addresses by default.
_TWISTED_TLS: Final = re.compile(r"tls:(?:port=)?([0-9]+)(:.*)?\Z")

_NO_OPTIONS: Final = TLSOptions()


def make_endpoint(reactor: object, text: str) -> IStreamServerEndpoint:
    """Return the endpoint for a string, with a backlog of 1024 by default.

    Raises:
        EndpointError: the string is wrong, or needs a file or a package that is
            missing.
    """
    _check_address(text)
    endpoint = _parse(reactor, text)
    if _TAKES_BACKLOG.match(text) and ":backlog=" not in text:
        # Parsed a second time: an error must quote the string as given.
        endpoint = _parse(reactor, f"{text}:backlog={BACKLOG}")
    return endpoint


def check_endpoint(
    text: str, *, paths_are_final: bool = True, tls: TLSOptions | None = _NO_OPTIONS
) -> None:
    """Validate an endpoint string. Opens no socket.

    Args:
        text: the endpoint string.
        paths_are_final: False if paths may refer to other files when the server
            starts, because twistd changes the (root) directory or the user in
            between: unreadable files then pass.
        tls: the TLS options of the command, for `https:`; None while they are not
            known, so that only the syntax is checked.

    Raises:
        EndpointError: as `make_endpoint`.
    """
    if is_https(text):
        _check_https(text, paths_are_final, tls)
        return
    _check_address(text)
    try:
        # An endpoint uses its reactor when it listens, not before.
        _parse(object(), text)
    except EndpointError as error:
        if paths_are_final or not isinstance(error.__cause__, OSError):
            raise


def _check_https(text: str, paths_are_final: bool, tls: TLSOptions | None) -> None:
    inner = parse_https(text).inner
    try:
        check_endpoint(inner, paths_are_final=paths_are_final)
    except EndpointError as error:
        raise EndpointError(text, error.problem, error.remedy) from error
    if tls is not None:
        check_certificates(text, tls, paths_are_final=paths_are_final)


def _check_address(text: str) -> None:
    """Reject addresses in the syntax of other servers, and invalid ports."""
    address = _ADDRESS.match(text)
    if address:
        host, number = (address[1] or "").strip("[]"), address[2]
        raise EndpointError(
            text, "is not an endpoint string", f"give {tcp_endpoint(host, number)}"
        )
    port = _PORT.match(text)
    if port and int(port[1]) > 65535:
        raise EndpointError(
            text, "has no valid port number", "give one from 0 to 65535"
        )


def _without_v6only(text: str) -> tuple[bool, str]:
    """Return the value of `v6only` (default: True), and the string without it.

    Raises:
        EndpointError: the value is invalid, or the endpoint is not an IPv6 one.
    """
    given = _V6ONLY.findall(text)
    if not given:
        # The default interface of `tls:` stands for IPv4 and IPv6.
        return not text.startswith("tls:") or "interface=" in text, text
    if len(given) > 1 or given[0] not in ("0", "1"):
        raise EndpointError(
            text, "has no valid v6only", "give v6only=0 to accept IPv4 too, or v6only=1"
        )
    if not _IPV6.search(text):
        raise EndpointError(
            text, "has v6only but no IPv6 address", "remove it, or give tcp6:8080"
        )
    return given[0] == "1", _V6ONLY.sub("", text)


def _parse(reactor: object, text: str) -> IStreamServerEndpoint:
    """Return the endpoint for a string.

    Raises:
        EndpointError: as `make_endpoint`.
    """
    adopted = adopted_endpoint(reactor, text)
    if adopted is not None:
        return adopted
    port = _TWISTED_TLS.match(text)
    if port and not os.path.isdir(port[1]):
        raise EndpointError(
            text,
            f"is Twisted's endpoint for a directory of certificates, and {port[1]!r} "
            "is no directory",
            f"give https:{port[1]}{port[2] or ''} with --tls-cert or --tls-dir",
        )
    ipv6_only, plain = _without_v6only(text)
    try:
        endpoint: IStreamServerEndpoint = serverFromString(
            listening_reactor(reactor, ipv6_only=ipv6_only), plain
        )
        return endpoint
    except OSError as error:
        raise EndpointError(
            text,
            f"needs a file that cannot be read ({error})",
            "give the path of a readable file",
        ) from error
    except ImportError as error:
        raise EndpointError(
            text,
            f"needs a package that is not installed ({error})",
            MISSING_PACKAGE,
        ) from error
    except Exception as error:
        # Endpoint parsers are plug-ins and report an invalid string with any
        # exception: TypeError, KeyError, StopIteration ...
        if text.startswith("ssl:") and type(error).__module__.startswith("OpenSSL."):
            raise EndpointError(
                text,
                f"has a key or a certificate that cannot be used ({error})",
                "give a private key and its certificate, in PEM format",
            ) from error
        raise EndpointError(
            text,
            f"is not a valid endpoint string ({type(error).__name__}: {error})",
            "give one such as tcp:8080, tcp:8080:interface=127.0.0.1 or "
            "unix:/run/app.sock",
        ) from error
