"""What a connection calls its two ends, for environ and the log.

It knows transports' addresses. It must never know requests.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ISSLTransport

__all__ = ["names_of"]


def names_of(transport: Any, url_scheme: str = "") -> tuple[str, str, str, str, str]:
    """SERVER_NAME, SERVER_PORT, REMOTE_ADDR, REMOTE_PORT and the URL scheme.

    Args:
        transport: of the connection.
        url_scheme: the scheme, where the deployer knows better.
    """
    scheme = url_scheme or ("https" if ISSLTransport.providedBy(transport) else "http")
    host = transport.getHost()
    if isinstance(host, (IPv4Address, IPv6Address)):
        server = host.host, str(host.port)
    else:
        # A UNIX socket has neither, and neither may be empty (PEP 3333).
        server = "localhost", "443" if scheme == "https" else "80"
    peer = transport.getPeer()
    if isinstance(peer, (IPv4Address, IPv6Address)):
        remote = peer.host, str(peer.port)
    else:
        remote = "", ""
    return (*server, *remote, scheme)
