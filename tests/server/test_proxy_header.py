"""Connections that begin with a header of the PROXY protocol."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from tests.http.proxy_headers import LOCAL, binary, field, line
from tests.http2.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
)
from txgreenwsgi import StartError, service
from txgreenwsgi._http.proxy_protocol import SIGNATURE
from txgreenwsgi._server.client_hello import ClientHelloFactory
from txgreenwsgi._server.h1_channel import H1Channel
from txgreenwsgi._server.proxy_header import (
    LOG_SECONDS,
    ProxyHeaderFactory,
    ProxyPeers,
)
from txgreenwsgi._server.proxy_settings import unusable_setting
from txgreenwsgi._server.tls_transport import TLSTransport
from txgreenwsgi.settings import SettingError, Settings

from .application import application
from .tls import TLSClient, tls_factory
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi.testing import MemoryClient, MemoryServer

LINE = line("203.0.113.7", "198.51.100.2", 4321, 443)
BINARY = binary("2001:db8::1", "2001:db8::2", 4321, 443)


class ProxyCase(WireTestCase):
    """Servers in memory, whose clients are peers on a UNIX socket."""

    def setUp(self) -> None:
        """Keep the environs."""
        super().setUp()
        self.environs: list[dict[str, Any]] = []

    def app(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Keep the environ, and answer."""
        self.environs.append(environ)
        return application(environ, start)

    def proxied(
        self, version: Any = "auto", peers: str = "unix", **settings: Any
    ) -> ProxiedServer:
        """Return a server that reads the header."""
        server = self.recorded(self.app, **settings)
        return ProxiedServer(server, self.peers(server, version, peers))

    def peers(self, server: MemoryServer, version: Any, peers: str) -> ProxyPeers:
        """Return the peers that send the header."""
        settings = Settings.from_keywords(
            proxy_protocol=version, proxy_protocol_from=peers
        )
        return ProxyPeers(settings, server.site.server)


class ProxiedServer:
    """A server in memory that reads the header on new connections."""

    def __init__(self, server: MemoryServer, peers: ProxyPeers) -> None:
        self._server = server
        self.site = server.site
        self._factory = ProxyHeaderFactory(server.site, server.site, peers)
        self.advance = server.advance

    def connect(self) -> MemoryClient:
        """Open a connection."""
        carrier: Any = self._server
        carrier.site = self._factory
        try:
            return self._server.connect()
        finally:
            carrier.site = self.site


class PlainTests(ProxyCase):
    """Headers ahead of HTTP."""

    def test_client(self) -> None:
        """The header names the client and the server, in environ and record."""
        for data, address, server_name in (
            (LINE, "203.0.113.7", "198.51.100.2"),
            (BINARY, "2001:db8::1", "[2001:db8::2]"),
        ):
            server = self.proxied()
            client = server.connect()
            client.send(data + get("/"))
            self.assertEqual(self.only(client).status, 200)
            environ = self.environs[-1]
            self.assertEqual(environ["REMOTE_ADDR"], address)
            self.assertEqual(environ["REMOTE_PORT"], "4321")
            self.assertEqual(environ["SERVER_NAME"], server_name)
            self.assertEqual(environ["SERVER_PORT"], "443")
            self.assertEqual(environ["wsgi.url_scheme"], "http")
            record = self.records[-1]
            self.assertEqual(
                (record.remote_addr, record.remote_port), (address, "4321")
            )

    def test_any_pieces(self) -> None:
        """Header and request may arrive in any pieces."""
        for data in (LINE, BINARY):
            stream = data + get("/")
            for at in range(0, len(stream), 3):
                client = self.proxied().connect()
                client.send(stream[:at])
                client.send(stream[at:])
                self.assertEqual(self.only(client).status, 200)
            client = self.proxied().connect()
            client.send(stream, piece=1)
            self.assertEqual(self.only(client).status, 200)

    def test_nothing_in_between(self) -> None:
        """After the header the channel itself is the protocol of the transport."""
        client = self.proxied().connect()
        self.assertIs(client.transport.protocol, client.channel)
        client.send(LINE)
        self.assertIsInstance(client.transport.protocol, H1Channel)
        client.send(get("/"))
        client.send(get("/"))
        self.assertEqual(len(client.responses()), 2)
        self.assertEqual(
            [each["REMOTE_ADDR"] for each in self.environs], ["203.0.113.7"] * 2
        )

    def test_no_client(self) -> None:
        """UNKNOWN, LOCAL and an unspecified family keep the peer."""
        for data in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n",
            LOCAL,
            SIGNATURE + b"\x21\x00\x00\x00",
        ):
            client = self.proxied().connect()
            client.send(data + get("/"))
            self.assertEqual(self.only(client).status, 200)
            self.assertNotEqual(self.environs[-1]["REMOTE_ADDR"], "203.0.113.7")
            self.assertEqual(self.environs[-1]["SERVER_NAME"], "127.0.0.1")

    def test_unix_client(self) -> None:
        """A client of the proxy on a UNIX socket has no address."""
        client = self.proxied().connect()
        client.send(SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216) + get("/"))
        self.assertEqual(self.only(client).status, 200)
        self.assertEqual(self.environs[-1]["REMOTE_ADDR"], "")
        self.assertEqual(self.environs[-1]["REMOTE_PORT"], "")

    def test_tls_at_the_proxy(self) -> None:
        """If the client speaks TLS with the proxy, the scheme is https."""
        fields = field(0x20, b"\x01" + bytes(4))
        data = binary("192.0.2.1", "198.51.100.2", 1, 443, fields)
        for scheme, expected in (("", "https"), ("http", "http")):
            client = self.proxied(url_scheme=scheme).connect()
            client.send(data + get("/"))
            self.assertEqual(self.only(client).status, 200)
            self.assertEqual(self.environs[-1]["wsgi.url_scheme"], expected)

    def test_trusted_proxy(self) -> None:
        """Forwarded headers are believed if the client of the header is trusted."""
        forwarded = "X-Forwarded-For: 192.0.2.99"
        for trusted, expected in (
            ("203.0.113.0/24", "192.0.2.99"),
            ("unix,192.0.2.1", "203.0.113.7"),
        ):
            client = self.proxied(trusted_proxy=trusted).connect()
            client.send(LINE + get("/", forwarded))
            self.assertEqual(self.only(client).status, 200)
            self.assertEqual(self.environs[-1]["REMOTE_ADDR"], expected)
            self.assertEqual(
                "HTTP_X_FORWARDED_FOR" in self.environs[-1], expected == "192.0.2.99"
            )

    def test_refused_request(self) -> None:
        """The log and the record of a malformed request have the client's address."""
        client = self.proxied().connect()
        client.send(LINE + b"GET\r\n\r\n")
        self.assertEqual(self.only(client).status, 400)
        self.assert_logged("request refused: 203.0.113.7: 400")
        self.assertEqual(self.records[-1].remote_addr, "203.0.113.7")

    def test_second_header(self) -> None:
        """Only one header is read; another one is a malformed request."""
        client = self.proxied().connect()
        client.send(LINE + LINE + get("/"))
        self.assertEqual(self.only(client).status, 400)
        self.assertEqual(self.environs, [])

    def test_half_close(self) -> None:
        """The address also reaches connections that may be half-closed."""
        client = self.proxied(half_close="serve").connect()
        client.send(LINE + get("/"))
        client.end()
        self.assertEqual(self.only(client).status, 200)
        self.assertEqual(self.environs[-1]["REMOTE_ADDR"], "203.0.113.7")

    def test_http2(self) -> None:
        """The address also reaches connections of HTTP/2."""
        client = self.proxied(http2="h2c").connect()
        client.send(LINE + PREFACE + frame(SETTINGS))
        flags = END_STREAM | END_HEADERS
        client.send(frame(HEADERS, flags, 1, b"\x82\x86\x84\x01\x01x"))
        self.assertEqual(self.environs[-1]["REMOTE_ADDR"], "203.0.113.7")
        self.assertEqual(self.environs[-1]["SERVER_PROTOCOL"], "HTTP/2.0")

    def test_max_connections(self) -> None:
        """Connections without a complete header count."""
        server = self.proxied(max_connections=2)
        clients = [server.connect() for _ in range(3)]
        self.assertEqual([client.closed for client in clients], [False, False, True])
        for client in clients[:2]:
            client.send(LINE + get("/"))
            self.assertEqual(self.only(client).status, 200)


class PeerTests(ProxyCase):
    """Peers that send the header, and others."""

    def test_other_peer(self) -> None:
        """Another peer is served; a header from it is a malformed request."""
        server = self.proxied(peers="10.0.0.0/8")
        for data in (LINE, BINARY, b"PROXY UNKNOWN\r\n", LOCAL):
            client = server.connect()
            client.send(data + get("/"))
            self.assertEqual(self.only(client).status, 400)
        self.assertEqual(self.environs, [])
        client = server.connect()
        client.send(get("/"))
        self.assertEqual(self.only(client).status, 200)
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_no_header(self) -> None:
        """A peer that must send the header is closed without it, and logged."""
        server = self.proxied()
        for data in (get("/"), b"\x16\x03\x01", b"PROXY nonsense\r\n"):
            client = server.connect()
            client.send(data)
            self.assertTrue(client.closed)
            self.assertEqual(client.received, b"")
        self.assertEqual(self.environs, [])
        [warning] = self.logged(LogLevel.warn)
        self.assertEqual(
            warning,
            "PROXY protocol: connection closed, because the peer on a UNIX socket has "
            "sent no header: let it send the PROXY protocol, or remove it from "
            "--proxy-protocol-from",
        )

    def test_log_rate(self) -> None:
        """The warning comes once a minute, with the number of the others."""
        server = self.proxied("v1")
        for _ in range(50):
            server.connect().send(b"GET")
        server.advance(LOG_SECONDS)
        client = server.connect()
        client.send(BINARY)
        self.assertTrue(client.closed)
        first, second = self.logged(LogLevel.warn)
        self.assertIn("no header", first)
        self.assertIn("has sent a header of version 2: let it send version 1", second)
        self.assertIn("(49 more since the last line)", second)

    def test_malformed(self) -> None:
        """A malformed header is logged with its problem."""
        client = self.proxied().connect()
        client.send(SIGNATURE + b"\x51\x11\x00\x00")
        self.assertTrue(client.closed)
        self.assert_logged(
            "has sent a header with the unknown version or command 0x51: check its "
            "configuration",
            level=LogLevel.warn,
        )

    def test_versions(self) -> None:
        """Only the configured version is accepted."""
        for version, data, accepted in (
            ("v1", LINE, True),
            ("v1", BINARY, False),
            ("v2", BINARY, True),
            ("v2", LINE, False),
            ("auto", LINE, True),
            ("auto", BINARY, True),
        ):
            client = self.proxied(version).connect()
            client.send(data + get("/"))
            self.assertEqual(bool(client.received), accepted, (version, data))

    def test_addresses(self) -> None:
        """Peers are matched by address, network, UNIX socket, or all."""
        server = self.serve(application).site.server
        v4 = IPv4Address("TCP", "10.1.2.3", 1)
        mapped = IPv6Address("TCP", "::ffff:10.1.2.3", 1)
        v6 = IPv6Address("TCP", "2001:db8::1", 1)
        unix = UNIXAddress(None)
        for peers, expected in {
            "10.0.0.0/8": [True, True, False, False],
            "10.1.2.3,2001:db8::/32": [True, True, True, False],
            "10.1.2.4": [False, False, False, False],
            "unix": [False, False, False, True],
            "*": [True, True, True, True],
            "": [False, False, False, True],
        }.items():
            settings = Settings.from_keywords(
                proxy_protocol="auto", proxy_protocol_from=peers
            )
            found = ProxyPeers(settings, server)
            self.assertEqual(
                [found.send_header(each) for each in (v4, mapped, v6, unix)],
                expected,
                peers,
            )


class DeadlineTests(ProxyCase):
    """Connections whose header does not arrive."""

    def assert_closed_after(self, seconds: float, data: bytes, **settings: Any) -> None:
        """Fail unless the connection closes then."""
        server = self.proxied(**settings)
        client = server.connect()
        client.send(data)
        server.advance(seconds - 0.5)
        self.assertFalse(client.closed)
        server.advance(1)
        self.assertTrue(client.closed)
        self.assertEqual(client.received, b"")

    def test_deadline(self) -> None:
        """The header has the time of a head, or else that of an idle connection."""
        for data in (b"", b"PROXY ", BINARY[:-1]):
            self.assert_closed_after(20, data)
            self.assert_closed_after(5, data, header_timeout=5)
            self.assert_closed_after(7, data, header_timeout=0, keep_alive=7)
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_deadline_of_the_head(self) -> None:
        """A head after the header has its own time."""
        server = self.proxied(header_timeout=5)
        client = server.connect()
        client.send(LINE[:10])
        server.advance(4)
        client.send(LINE[10:] + b"GET /")
        server.advance(4)
        self.assertFalse(client.closed)
        server.advance(2)
        self.assertEqual(self.only(client).status, 408)
        self.assertEqual(self.records[-1].remote_addr, "203.0.113.7")

    def test_shutdown(self) -> None:
        """At a shutdown a connection without a header is closed after `drain_idle`."""
        server = self.proxied()
        client, late = server.connect(), server.connect()
        client.send(LINE[:10])
        stopped = server.site.stop()
        server.advance(1)
        late.send(LINE + get("/"))
        self.assertEqual(self.only(late).status, 200)
        self.assertFalse(client.closed)
        server.advance(2)
        self.assertTrue(client.closed)
        server.advance(2)
        self.successResultOf(stopped)

    def test_disconnect(self) -> None:
        """A peer that connects and leaves is not worth a log line."""
        for data in (b"", b"PROXY TCP4"):
            client = self.proxied().connect()
            client.send(data)
            client.disconnect()
        self.assertEqual(self.logged(LogLevel.warn), [])


class TLSTests(ProxyCase):
    """Headers ahead of the TLS handshake."""

    def served(self, early: bool, first: bytes) -> tuple[TLSClient, Any]:
        """Return a client that has sent a header and a request, and the server.

        Args:
            early: whether TLS begins when the ClientHello is complete.
            first: the header.
        """
        server = self.recorded(self.app)
        site = server.site
        below: Any = tls_factory(server)
        if early:
            below = ClientHelloFactory(below, site)
        factory = ProxyHeaderFactory(below, site, self.peers(server, "auto", "unix"))
        client = TLSClient(server, factory=factory, first=first)
        client.send(get("/"))
        return client, server

    def test_client(self) -> None:
        """The header names the client of a TLS connection; the scheme is https."""
        for early in (False, True):
            for first in (LINE, BINARY):
                client, _ = self.served(early, first)
                self.assertIn(b"200 OK", client.received)
                environ = self.environs[-1]
                self.assertIn(environ["REMOTE_ADDR"], ("203.0.113.7", "2001:db8::1"))
                self.assertEqual(environ["SERVER_PORT"], "443")
                self.assertEqual(environ["wsgi.url_scheme"], "https")

    def test_nothing_in_between(self) -> None:
        """After the header, TLS itself is the protocol of the transport."""
        client, _ = self.served(True, LINE)
        self.assertIsInstance(client.plain.transport.protocol, TLSTransport)

    def test_without_tls(self) -> None:
        """A header behind which no handshake follows is closed by TLS."""
        server = self.recorded(self.app)
        site = server.site
        tls = tls_factory(server)
        below = ClientHelloFactory(tls, site)
        carrier: Any = server
        peers = self.peers(server, "auto", "unix")
        carrier.site = ProxyHeaderFactory(below, site, peers)
        client = server.connect()
        carrier.site = site
        client.send(LINE + get("/"))
        self.assertTrue(client.closed)
        self.assertEqual(self.environs, [])


class SettingTests(SynchronousTestCase):
    """The settings, and the endpoints that they fit."""

    def unusable(self, *listen: Any, version: Any = "auto", peers: str = "") -> str:
        """Return the problem and the remedy; "" if there is none."""
        settings = Settings.from_keywords(
            proxy_protocol=version, proxy_protocol_from=peers
        )
        found = unusable_setting(settings, listen)
        if found is None:
            return ""
        return f"{found.name} {found.value} {found.problem}: {found.remedy}"

    def test_peers_are_required(self) -> None:
        """Without peers, all endpoints must be UNIX sockets."""
        reactor = MemoryReactorClock()
        listen: Any
        for listen in (
            "tcp:8080",
            "tcp6:8080",
            "ssl:443:privateKey=key.pem",
            TCP4ServerEndpoint(reactor, 80),
        ):
            for others in ((), ("unix:/run/web.sock",)):
                self.assertEqual(
                    self.unusable(*others, listen),
                    f"proxy_protocol auto needs proxy_protocol_from for the endpoint "
                    f"{listen!r}: a header from any peer would be believed: give the "
                    "addresses of your proxies, such as 10.0.0.0/8",
                )
                self.assertEqual(self.unusable(*others, listen, peers="10.0.0.1"), "")
        for listen in (
            "unix:/run/web.sock",
            "https:unix:/run/web.sock",
            UNIXServerEndpoint(reactor, "/run/web.sock"),
        ):
            self.assertEqual(self.unusable(listen), "")

    def test_inherited(self) -> None:
        """The family of an inherited socket counts, also below TLS."""
        with socket.create_server(("127.0.0.1", 0)) as inet:
            for text in (f"fd:{inet.fileno()}", f"https:fd:{inet.fileno()}:min=1.3"):
                self.assertIn("needs proxy_protocol_from", self.unusable(text))
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("\0" + self.id())
            unix.listen()
            for text in (f"fd:{unix.fileno()}", f"https:fd:{unix.fileno()}:min=1.3"):
                self.assertEqual(self.unusable(text), "")

    def test_off(self) -> None:
        """Peers without the protocol are an error."""
        self.assertEqual(self.unusable("tcp:80", version="off"), "")
        self.assertEqual(
            self.unusable("tcp:80", version="off", peers="10.0.0.1,unix"),
            "proxy_protocol_from 10.0.0.1,unix has no effect while proxy_protocol is "
            "off: give proxy_protocol auto, v1 or v2, or remove it",
        )

    def test_haproxy_endpoint(self) -> None:
        """The endpoint that reads a header itself cannot be combined with it."""
        self.assertEqual(
            self.unusable("haproxy:tcp:80", peers="10.0.0.1"),
            "proxy_protocol auto cannot be combined with the endpoint "
            "'haproxy:tcp:80', which reads a header too: give the endpoint 'tcp:80'",
        )
        self.assertEqual(self.unusable("haproxy:tcp:80", version="off"), "")

    def test_service(self) -> None:
        """`service()` raises the error."""
        error = self.assertRaises(
            SettingError,
            service,
            application,
            ["tcp:8080"],
            proxy_protocol="v2",
            reactor=MemoryReactorClock(),
        )
        self.assertIn("proxy_protocol='v2' needs proxy_protocol_from", str(error))

    def test_other_ports(self) -> None:
        """A port that is not Twisted's cannot be used; the start says so."""
        reactor = MemoryReactorClock()
        made = service(
            application,
            ["tcp:8080"],
            reactor=reactor,
            gc="unchanged",
            proxy_protocol="v2",
            proxy_protocol_from="*",
        )
        error = self.assertRaises(StartError, made.privilegedStartService)
        self.assertIn("proxy_protocol='v2' cannot be used with the port", str(error))
        self.assertEqual(made.ports, [])
