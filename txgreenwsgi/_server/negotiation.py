"""Connections whose version of HTTP is not known yet.

TLS names the version by ALPN (RFC 9113 section 3.2). A plain connection is HTTP/2 if it
begins with the preface (section 3.4), where that is allowed.

This file knows connections. It must never know requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from zope.interface import implementer

from txgreenwsgi._http2.connection import PREFACE

from .first_bytes import FirstBytes, FirstBytesFactory, Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IProtocol
    from twisted.python.failure import Failure

    from .handshakes import Handshakes

__all__ = ["ALPN", "Negotiation", "NegotiationFactory"]

#: The name of HTTP/2 over TLS.
ALPN = b"h2"


class NegotiationFactory(FirstBytesFactory):
    """A factory of connections that become HTTP/1.1 or HTTP/2.

    Args:
        site: the site.
        handshakes: the TLS handshakes in progress on its connections.
        make: returns the protocol of a connection, for its address and whether it is
            HTTP/2.
        cleartext: whether plain connections may be HTTP/2.
    """

    def __init__(
        self,
        site: Site,
        handshakes: Handshakes,
        make: Callable[[IAddress | None, bool], IProtocol],
        cleartext: bool,
    ) -> None:
        super().__init__(None, site)
        self.handshakes = handshakes
        self.make = make
        self.cleartext = cleartext


@implementer(IHandshakeListener)
class Negotiation(FirstBytes):
    """A connection whose version is not known.

    Args:
        factory: the factory of this connection.
        addr: the address of the peer.
    """

    def __init__(self, factory: NegotiationFactory, addr: IAddress | None) -> None:
        super().__init__(factory, addr)
        self._handshakes = factory.handshakes
        self._make = factory.make
        self._cleartext = factory.cleartext
        self._data = b""
        self._tls = False

    def connectionMade(self) -> None:
        """Wait for the handshake or the first bytes, unless the version is clear."""
        self._tls = ISSLTransport.providedBy(self.transport)
        super().connectionMade()
        if self._tls:
            self._handshakes.begin(self)
        elif not self._cleartext:
            self._become(False)

    def handshakeCompleted(self) -> None:
        """Use the version that the handshake has chosen."""
        self._become(self.transport.negotiatedProtocol == ALPN)

    def dataReceived(self, data: bytes) -> None:
        """Compare the first bytes with the preface of HTTP/2."""
        if self._tls:  # on a transport that does not report the end of the handshake
            self._data = data
            self._become(self.transport.negotiatedProtocol == ALPN)
            return
        self._data += data
        # No other version has the method PRI.
        start = self._data[: len(PREFACE)]
        if PREFACE.startswith(start) and len(start) < len(PREFACE):
            return
        self._become(start == PREFACE)

    def _become(self, http2: bool) -> None:
        """Continue as HTTP/1.1 or HTTP/2 on the same transport."""
        if self._tls:
            self._handshakes.end(self)
        self._site.server.connection_lost(self)
        transport: Any = self.transport
        protocol: Any = self._make(self._addr, http2)
        # A layer such as TLS calls its protocol by another name than a socket.
        if hasattr(transport, "wrappedProtocol"):
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
        protocol.makeConnection(transport)
        if self._tls and not http2:
            protocol.handshakeCompleted()
        if self._data:
            protocol.dataReceived(self._data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Unregister the connection."""
        self._handshakes.end(self)
        super().connectionLost(reason)
