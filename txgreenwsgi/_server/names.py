"""What a connection calls its two ends, for environ and the log.

It knows transports' addresses. It must never know requests.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.tcp import Port, Server

__all__ = ["ServerAddresses", "names_of"]

#: The address of each port that listens on one address only.
ServerAddresses = WeakKeyDictionary[Port, tuple[str, str]]

_ANY = ("0.0.0.0", "::", "")


def names_of(
    transport: Any, url_scheme: str, addresses: ServerAddresses
) -> tuple[str, str, str, str, str]:
    """SERVER_NAME, SERVER_PORT, REMOTE_ADDR, REMOTE_PORT and the URL scheme.

    Args:
        transport: of the connection.
        url_scheme: the scheme, where the deployer knows better; else "".
        addresses: those of ports met before; others are added.
    """
    if type(transport) is Server and not transport.TLS:
        server = _server_of(transport, addresses)
        client: Any = transport.client
        host, port = client[:2]
        return (*server, host, str(port), url_scheme or "http")
    scheme = url_scheme or ("https" if ISSLTransport.providedBy(transport) else "http")
    address = transport.getHost()
    if isinstance(address, (IPv4Address, IPv6Address)):
        server = address.host, str(address.port)
    else:
        # A UNIX socket has neither, and neither may be empty (PEP 3333).
        server = "localhost", "443" if scheme == "https" else "80"
    peer = transport.getPeer()
    if isinstance(peer, (IPv4Address, IPv6Address)):
        remote = peer.host, str(peer.port)
    else:
        remote = "", ""
    return (*server, *remote, scheme)


def _server_of(transport: Server, addresses: ServerAddresses) -> tuple[str, str]:
    """The server's address, which a port on one address need be asked for once."""
    port: Any = transport.server
    known = None if port is None else addresses.get(port)
    if known is None:
        address = transport.getHost()
        known = address.host, str(address.port)
        if port is not None and port.interface not in _ANY:
            addresses[port] = known
    return known
