"""Connections on real sockets behind the PROXY protocol, polled as all others.

The cases about connections run unchanged: after the header nothing is different.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.http.proxy_headers import LOCAL, binary, line
from txgreenwsgi._server.h1_channel import H1Channel

from .harness import TEXT, TRANSPORTS, Cases, TransportCase
from .test_connections import SuccessionCases
from .test_disconnects import BodyDisconnectCases, DisconnectCases
from .test_half_close import ServeCases
from .test_shutdown import DrainCases, ShutdownCases

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .harness import Environ, Observer, Start
    from .harness_links import Link

    class Sockets:
        """Our HTTP/1.1 on real sockets."""

        _service: Any

        def connect(self, slow: bool) -> Link:
            """Return a new connection."""

        def set_up(
            self, observers: Sequence[Observer], settings: dict[str, Any]
        ) -> None:
            """Build the server."""

else:
    Sockets = TRANSPORTS["Sockets"]

HEADER = binary("192.0.2.1", "198.51.100.2", 4321, 443)


class ProxiedTransport(Sockets):
    """Our HTTP/1.1 on real sockets, with a header on each connection."""

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Start the service on a free port."""
        proxied = {"proxy_protocol": "auto", "proxy_protocol_from": "127.0.0.1"}
        super().set_up(observers, {**proxied, **settings})

    def connect(self, slow: bool) -> Link:
        """Return a new connection, whose header was sent."""
        link = super().connect(slow)
        link.send(HEADER)
        return link

    @property
    def site(self) -> Any:
        """The site."""
        return self._service.site


def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with the client's address."""
    start("200 OK", TEXT)
    return [f"{environ['REMOTE_ADDR']} {environ['REMOTE_PORT']}".encode()]


class HeaderCases(Cases):
    """The header."""

    def test_client(self) -> None:
        """The client's address is in the environ and in the record."""
        server = self.serve(hello)
        reply = server.begin()
        self.assert_complete(reply, b"192.0.2.1 4321")
        self.assert_complete(server.begin(on=reply), b"192.0.2.1 4321")
        self.assertEqual([each.remote_addr for each in self.records], ["192.0.2.1"] * 2)

    def test_polled(self) -> None:
        """The site's poller watches the channel, as without a header."""
        server: Any = self.serve(hello)
        server.begin()
        [channel] = server.site.server.shutdown.connections
        self.assertIs(type(channel), H1Channel)
        self.assertIs(channel.transport.protocol, channel)
        self.assertIs(channel.transport.reactor, server.site.sockets)
        self.assertNotIn(channel.transport, server.reactor.getReaders())

    def test_untrusted(self) -> None:
        """A header from another peer gets 400."""
        server = self.serve(hello, proxy_protocol_from="192.0.2.0/24,unix")
        for header in (HEADER, LOCAL, line("192.0.2.1", "192.0.2.2", 1, 2)):
            link = TRANSPORTS["Sockets"].connect(server, False)
            link.send(header + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            server.settle()
            self.assertTrue(link.take().startswith(b"HTTP/1.1 400 "))
            link.disconnect()
        server.settle()
        self.assertEqual(server.app.environs, [])


def _tests() -> dict[str, type[TransportCase]]:
    made: dict[str, type[TransportCase]] = {}
    for cases in (
        HeaderCases,
        SuccessionCases,
        DisconnectCases,
        BodyDisconnectCases,
        ServeCases,
        ShutdownCases,
        DrainCases,
    ):
        name = cases.__name__.replace("Cases", "BehindProxyTests")
        made[name] = type(
            name,
            (cases, TransportCase),
            {
                "__module__": __name__,
                "__doc__": cases.__doc__,
                "transport": ProxiedTransport,
            },
        )
    return made


globals().update(_tests())
