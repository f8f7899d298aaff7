"""Connections whose first bytes are read before their protocol exists.

Such a connection has a deadline, takes part in the shutdown and counts for
`max_connections`. When its first bytes are complete, its transport gets the protocol
that follows them; nothing is left in between.

This file knows connections. It must never know the format of the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from twisted.internet.protocol import Factory, Protocol

from .output import has_unread_bytes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi.settings import Settings

__all__ = ["FirstBytes", "FirstBytesFactory", "Site"]


class Site(Interface):
    """The interface of a `GreenSite` that this file uses."""

    @property
    def server(self) -> ApplicationServer:
        """The application server."""

    @property
    def settings(self) -> Settings:
        """The settings."""

    @property
    def stopping(self) -> bool:
        """Whether a shutdown has begun."""

    @property
    def is_full(self) -> bool:
        """Whether `max_connections` are open."""

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols for ALPN."""


class FirstBytesFactory(Factory):
    """A factory that passes connections to another one after their first bytes.

    Args:
        below: the factory of the protocols that follow.
        site: the site behind it.
    """

    noisy = False

    def __init__(self, below: Any, site: Site) -> None:
        self.below = below
        self.site = site

    def doStart(self) -> None:
        """Start the factory below."""
        self.below.doStart()

    def doStop(self) -> None:
        """Stop the factory below."""
        self.below.doStop()


class FirstBytes(Protocol):
    """A connection whose first bytes are not complete.

    Args:
        factory: the factory of this connection.
        addr: the address of the peer.
    """

    transport: Any

    def __init__(self, factory: FirstBytesFactory, addr: IAddress | None) -> None:
        self._below = factory.below
        self._site = factory.site
        self._addr = addr
        self._since = 0.0

    def connectionMade(self) -> None:
        """Register the connection for its deadline and the shutdown."""
        server = self._site.server
        server.bind()
        self._since = server.hub.reactor.seconds()
        server.connection_made(self)

    def _pass_on(self, addr: IAddress | None, data: bytes) -> None:
        """Continue with the protocol below on the same transport.

        Args:
            addr: the address of the peer for the protocol below.
            data: the bytes that it receives first.
        """
        self._site.server.connection_lost(self)
        transport = self.transport
        protocol = self._below.buildProtocol(addr)
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if data:
            protocol.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Unregister the connection."""
        self._site.server.connection_lost(self)

    # Called by the deadline clock and the shutdown.

    def stop(self) -> None:
        """Begin shutdown: the client has `drain_idle` to send its first bytes."""
        server = self._site.server
        self._since = max(self._since, server.shutdown.began)
        self._drain(server.hub.reactor.seconds())

    def _drain(self, now: float) -> None:
        idle = now - self._since
        if idle >= self._site.settings.drain_idle and not has_unread_bytes(
            self.transport
        ):
            self.transport.loseConnection()

    def check(self, now: float) -> None:
        """Close the connection at the deadline of its head."""
        settings = self._site.settings
        limit = settings.header_timeout or settings.keep_alive
        if limit and now - self._since >= limit:
            self.abort()
        elif self._site.stopping:
            self._drain(now)

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadline."""
        self._since = min(self._since + seconds, now)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abortConnection()

    end_of_grace = abort
