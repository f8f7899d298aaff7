"""The header of the PROXY protocol, read before anything else on a connection.

A connection from a peer that sends the header gets its channel, or its TLS, when the
header is complete; from then on nothing is in between. Other peers are served as if the
protocol was off, so that a header from them is a malformed request.

This file knows peers and connections. It must never know the layout of the header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.tcp import Port
from twisted.logger import Logger

from txgreenwsgi._http.proxy_protocol import ProxyHeaderError, ProxyHeaderReader
from txgreenwsgi._serving.proxies import TrustedProxies
from txgreenwsgi.monitoring.log_limit import LogLimit

from .ends import host_and_port
from .errors import StartError
from .first_bytes import FirstBytes, FirstBytesFactory
from .proxied_address import ProxiedAddress

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IListeningPort
    from twisted.internet.protocol import Protocol

    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi.settings import Settings

    from .site import GreenSite

__all__ = [
    "LOG_SECONDS",
    "ProxyHeaderFactory",
    "ProxyPeers",
    "read_proxy_headers",
]

_log = Logger()

#: Minimum time between two log lines about peers without a valid header.
LOG_SECONDS: Final = 60.0


class ProxyPeers:
    """The peers that send the header, and the versions that are accepted from them.

    Args:
        settings: of the server; its `proxy_protocol` is not "off".
        server: its clock limits the rate of log lines.
    """

    def __init__(self, settings: Settings, server: ApplicationServer) -> None:
        self._peers = TrustedProxies(settings.proxy_protocol_from or ("unix",), 1, ())
        self._v1 = settings.proxy_protocol in ("v1", "auto")
        self._v2 = settings.proxy_protocol in ("v2", "auto")
        self._log_rate = LogLimit(server.reactor.seconds, LOG_SECONDS)

    def send_header(self, address: IAddress | None) -> bool:
        """Return whether the peer at an address sends the header."""
        return self._peers.is_trusted(host_and_port(address)[0])

    def reader(self) -> ProxyHeaderReader:
        """Return a reader for the header of one connection."""
        return ProxyHeaderReader(self._v1, self._v2)

    def log_error(self, address: IAddress | None, error: ProxyHeaderError) -> None:
        """Log that a connection was closed, unless another one was a moment ago."""
        if not self._log_rate.may_log():
            return
        more = self._log_rate.suppressed
        peer = host_and_port(address)[0]
        remedy = error.remedy or "check its configuration"
        _log.warn(
            "PROXY protocol: connection closed, because the peer {peer} {error}: "
            "{remedy}, or remove it from --proxy-protocol-from{others}",
            peer=peer or "on a UNIX socket",
            error=error,
            remedy=remedy,
            others=f" ({more} more since the last line)" if more else "",
        )


class ProxyHeaderFactory(FirstBytesFactory):
    """A factory that passes connections to another one after their header.

    Args:
        below: the factory of the protocols that follow the header.
        site: the site behind it.
        peers: the peers that send the header.
    """

    def __init__(self, below: Any, site: GreenSite, peers: ProxyPeers) -> None:
        super().__init__(below, site)
        self.peers = peers

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Return the protocol of a new connection; None above `max_connections`."""
        if not self.peers.send_header(addr):
            below: Protocol | None = self.below.buildProtocol(addr)
            return below
        return None if self.site.is_full else _ProxyHeader(self, addr)


class _ProxyHeader(FirstBytes):
    """A connection whose header is not complete."""

    def __init__(self, factory: ProxyHeaderFactory, addr: IAddress | None) -> None:
        super().__init__(factory, addr)
        self._peers = factory.peers
        self._reader = factory.peers.reader()

    def dataReceived(self, data: bytes) -> None:
        """Collect the header, then pass the connection on."""
        try:
            header = self._reader.feed(data)
        except ProxyHeaderError as error:
            self._peers.log_error(self._addr, error)
            self.abort()
            return
        if header is not None:
            addr = self._addr if header.source is None else ProxiedAddress(header)
            self._pass_on(addr, self._reader.rest)


def read_proxy_headers(port: IListeningPort, site: GreenSite) -> None:
    """Read the header on the connections of `port`.

    Raises:
        StartError: the port does not accept connections of its own.
    """
    if not isinstance(port, Port):
        raise StartError(
            f"proxy_protocol={site.settings.proxy_protocol!r} cannot be used with the "
            f"port {port!r}: listen on an endpoint such as tcp:8080"
        )
    peers = ProxyPeers(site.settings, site.server)
    port.factory = ProxyHeaderFactory(port.factory, site, peers)
