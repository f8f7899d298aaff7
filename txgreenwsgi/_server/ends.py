"""Server and client address of a connection, for the environ and the log.

This file knows the addresses of transports. It must never know requests.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.tcp import Port, Server

from txgreenwsgi._native import lanes
from txgreenwsgi._serving.stream import Ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transports import StreamTransport

__all__ = ["ServerAddresses", "ends_of", "host_and_port", "server_name"]

#: Host and port of each listening port that is bound to one address.
ServerAddresses = WeakKeyDictionary[Port, tuple[str, str]]

# Half the cost of calling Ends(...), which is Python code: one per connection.
_make_ends: Callable[[tuple[str, str, str, str, str, None]], Ends] = partial(
    tuple.__new__, Ends
)

_MAPPED = "::ffff:"  # RFC 4291 section 2.5.5.2

_WILDCARDS = ("0.0.0.0", "::", "")

lanes.lend(Ends=Ends, wildcards=_WILDCARDS)


def ends_of(
    transport: StreamTransport, url_scheme: str, addresses: ServerAddresses
) -> Ends:
    """Return both ends of a connection.

    Args:
        transport: the transport of the connection.
        url_scheme: the scheme that the deployer set; "" to derive it from the
            transport.
        addresses: a cache of the addresses of listening ports; updated.
    """
    if type(transport) is Server and not transport.TLS:
        server = _server_of(transport, addresses)
        # With two more items for IPv6.
        client: tuple[str, int] = transport.client  # type: ignore[assignment]
        host, port = client[:2]
        if ":" in host:
            host = _without_mapping(host)
        return _make_ends((*server, host, str(port), url_scheme or "http", None))
    is_tls = ISSLTransport.providedBy(transport)
    scheme = url_scheme or ("https" if is_tls else "http")
    address = transport.getHost()
    if isinstance(address, (IPv4Address, IPv6Address)):
        server = server_name(address.host), str(address.port)
    else:
        # A UNIX socket has no name or port, and PEP 3333 forbids empty values.
        server = "localhost", "443" if scheme == "https" else "80"
    more = _tls_variables(transport) if is_tls else None
    return Ends(*server, *host_and_port(transport.getPeer()), scheme, more)


def _tls_variables(transport: Any) -> dict[str, str] | None:
    """Return the variables of a TLS connection; None if it is not pyOpenSSL's."""
    # Here, because pyOpenSSL is optional.
    from OpenSSL.SSL import Connection

    from txgreenwsgi._tls.variables import connection_variables

    handle = transport.getHandle()
    return connection_variables(handle) if isinstance(handle, Connection) else None


def host_and_port(address: object) -> tuple[str, str]:
    """Return the host and the port of an address; both "" for a UNIX socket."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        return _without_mapping(address.host), str(address.port)
    return "", ""


def server_name(host: str) -> str:
    """Return SERVER_NAME for an address: IPv6 in brackets (RFC 3875 section 4.1.14).

    Without the zone of a link-local address, which a URL cannot have (RFC 3986 section
    3.2.2).
    """
    host = _without_mapping(host)
    return f"[{host.partition('%')[0]}]" if ":" in host else host


def _without_mapping(host: str) -> str:
    """Return the IPv4 address of a client that an IPv6 socket has accepted."""
    if host.startswith(_MAPPED) and "." in host:
        return host[len(_MAPPED) :]
    return host


def _server_of(transport: Server, addresses: ServerAddresses) -> tuple[str, str]:
    """Return the server's address; cached for ports that are bound to one address."""
    port: Port | None = transport.server
    known = None if port is None else addresses.get(port)
    if known is None:
        address = transport.getHost()
        known = server_name(address.host), str(address.port)
        if port is not None and port.interface not in _WILDCARDS:
            addresses[port] = known
    return known
