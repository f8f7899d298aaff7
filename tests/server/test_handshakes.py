"""TLS handshakes that do not end: their number and their deadline."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.certificate import TLS_OPTIONS
from txgreenwsgi._server.handshakes import LOG_SECONDS, Handshakes

from .application import application
from .logged import Logged
from .tls import TLSClient
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryClient, MemoryServer


def client_hello(*protocols: str) -> bytes:
    """Return the first message of a client that offers these protocols by ALPN."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake needs a reply")


class Channel:
    """A connection in its handshake."""

    aborted = False

    def abort(self) -> None:
        """Record the call."""
        self.aborted = True


class HandshakesTests(SynchronousTestCase):
    """The handshakes of one site."""

    def setUp(self) -> None:
        """Collect the log, and make four connections."""
        self.logged = Logged(self)
        self.clock = Clock()
        self.channels = [Channel() for _ in range(4)]

    def aborted(self) -> list[bool]:
        """Return which of the connections were aborted."""
        return [channel.aborted for channel in self.channels]

    def test_oldest_makes_room(self) -> None:
        """Above the limit, each new handshake closes the oldest one."""
        handshakes = Handshakes(2, self.clock)
        for channel in self.channels:
            handshakes.begin(channel)
        self.assertEqual(self.aborted(), [True, True, False, False])
        self.assertNotIn(self.channels[0], handshakes)
        self.assertIn(self.channels[3], handshakes)

    def test_completed(self) -> None:
        """A completed handshake does not count, and is not closed."""
        handshakes = Handshakes(2, self.clock)
        for channel in self.channels:
            handshakes.begin(channel)
            handshakes.end(channel)
        handshakes.end(self.channels[0])
        self.assertEqual(self.aborted(), [False] * 4)

    def test_no_limit(self) -> None:
        """0 is no limit."""
        handshakes = Handshakes(0, self.clock)
        for channel in self.channels:
            handshakes.begin(channel)
        self.assertEqual(self.aborted(), [False] * 4)

    def test_log(self) -> None:
        """The limit is logged once a minute, and names the option."""
        handshakes = Handshakes(1, self.clock)
        for _ in range(100):
            handshakes.begin(Channel())
        (line,) = self.logged.lines()
        self.assertIn("--max-handshakes", line)
        self.clock.advance(LOG_SECONDS)
        handshakes.begin(Channel())
        self.assertEqual(len(self.logged.lines()), 1)


class HalfOpenTests(WireTestCase):
    """Clients that begin a handshake and do not complete it."""

    def half_open(self, server: MemoryServer, data: bytes = b"") -> MemoryClient:
        """Return a TCP client of the TLS server that has sent `data`."""
        plain, carrier = server.site, server
        tls: Any = TLSMemoryBIOFactory(TLS_OPTIONS, False, plain, clock=server.reactor)
        carrier.site = tls
        try:
            client = server.connect()
        finally:
            carrier.site = plain
        client.send(data)
        return client

    def test_deadline(self) -> None:
        """A handshake has `header_timeout` seconds, whatever was sent of it."""
        hello = client_hello()
        server = self.recorded(application, header_timeout=3, keep_alive=100)
        clients = [
            self.half_open(server, data) for data in (b"", hello[:1], hello[:50], hello)
        ]
        server.advance(2)
        for client in clients:
            client.settle()
            self.assertFalse(client.closed)
        server.advance(1.5)
        for client in clients:
            client.settle()
            self.assertTrue(client.closed)
        self.assertEqual(server.site.server.shutdown.connections, set())

    def test_no_header_timeout(self) -> None:
        """Without `header_timeout`, a handshake has `keep_alive` seconds."""
        server = self.recorded(application, header_timeout=0, keep_alive=3)
        client = self.half_open(server)
        server.advance(3.5)
        client.settle()
        self.assertTrue(client.closed)

    def test_idle_after_the_handshake(self) -> None:
        """The deadline of the handshake does not apply after it."""
        server = self.recorded(application, header_timeout=3, keep_alive=100)
        client = TLSClient(server)
        server.advance(10)
        client.send(get("/"))
        self.assertIn(b"200 OK", client.received)

    def test_limit(self) -> None:
        """Half-open connections do not lock out others, and are limited."""
        server = self.recorded(application, max_handshakes=5)
        halves = [self.half_open(server, client_hello()) for _ in range(20)]
        whole = [TLSClient(server) for _ in range(20)]
        halves += [self.half_open(server) for _ in range(20)]
        for client in whole:
            client.send(get("/"))
            self.assertIn(b"200 OK", client.received)
        for half in halves:
            half.settle()
        self.assertEqual(sum(not half.closed for half in halves), 5)
        self.assert_logged("more than 5 TLS handshakes", level=LogLevel.warn)
