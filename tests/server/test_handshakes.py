"""TLS handshakes that do not end: their number and their deadline."""

from __future__ import annotations

import contextlib
import ssl
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server.client_hello import (
    NO_APPLICATION_PROTOCOL,
    ClientHelloFactory,
    Incomplete,
    offered_protocols,
)
from txgreenwsgi._server.handshakes import LOG_SECONDS, Handshakes
from txgreenwsgi._server.tls_transport import TLSTransport

from .application import application
from .logged import Logged
from .tls import TLSClient, tls_factory
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

    def factory(self, server: MemoryServer) -> Any:
        """Return the factory of the connections."""
        return tls_factory(server)

    def half_open(self, server: MemoryServer, data: bytes = b"") -> MemoryClient:
        """Return a TCP client of the TLS server that has sent `data`."""
        plain, carrier = server.site, server
        carrier.site = self.factory(server)
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
        halves += [self.half_open(server, client_hello()) for _ in range(20)]
        for client in whole:
            client.send(get("/"))
            self.assertIn(b"200 OK", client.received)
        for half in halves:
            half.settle()
        self.assertEqual(sum(not half.closed for half in halves), 5)
        self.assert_logged("more than 5 TLS handshakes", level=LogLevel.warn)


class ClientHelloTests(HalfOpenTests):
    """The same, with TLS that begins when the first message is complete."""

    def factory(self, server: MemoryServer) -> Any:
        """Return the factory of the connections."""
        return ClientHelloFactory(super().factory(server), server.site)

    def test_no_state_before_the_message(self) -> None:
        """TLS begins with the last byte of the first message."""
        hello = client_hello("http/1.1")
        server = self.recorded(application)
        client = self.half_open(server)
        for byte in hello[:-1]:
            client.send(bytes([byte]))
            self.assertIs(client.transport.protocol, client.channel)
        self.assertEqual(client.received, b"")
        client.send(hello[-1:])
        self.assertIsInstance(client.transport.protocol, TLSTransport)
        self.assertEqual(client.received[:1], b"\x16", "a handshake record")
        client.disconnect()

    def test_protocols(self) -> None:
        """A client gets the alert if no protocol that it offers is known."""
        for offered, refused in {
            (): False,
            ("http/1.1",): False,
            ("h2", "http/1.1"): False,
            ("h2",): True,
            ("spdy/3", "acme-tls/1"): True,
        }.items():
            client = self.half_open(self.recorded(application), client_hello(*offered))
            got_alert = client.received == NO_APPLICATION_PROTOCOL
            self.assertEqual((got_alert, client.closed), (refused, refused), offered)
            client.disconnect()
        self.assert_logged("TLS refused: 192.0.2.1: no common protocol", "h2")

    def test_plain_http(self) -> None:
        """Bytes that are not TLS go to OpenSSL, which refuses them."""
        client = self.half_open(self.recorded(application), get("/"))
        self.assertTrue(client.closed)
        self.assertNotIn(b"HTTP", client.received)

    def test_disconnect(self) -> None:
        """A client that disconnects within the message leaves nothing behind."""
        server = self.recorded(application)
        client = self.half_open(server, client_hello()[:20])
        self.assertEqual(len(server.site.server.shutdown.connections), 1)
        client.disconnect()
        self.assertEqual(server.site.server.shutdown.connections, set())

    def test_stop(self) -> None:
        """A shutdown closes a connection that does not send its message."""
        server = self.recorded(application)
        client = self.half_open(server, client_hello()[:20])
        server.advance(1)
        stopped = server.site.stop()
        server.advance(1.75)
        self.assertFalse(client.closed)
        server.advance(0.25)
        self.successResultOf(stopped)
        self.assertTrue(client.closed)

    def test_handshake_in_a_shutdown(self) -> None:
        """A handshake that continues after the stop ends in a request."""
        server = self.recorded(application)
        client = self.half_open(server, client_hello()[:20])
        stopped = server.site.stop()
        server.advance(1)
        client.send(client_hello()[20:])
        self.assertIsInstance(client.transport.protocol, TLSTransport)
        server.advance(1.5)
        self.assertFalse(client.closed)
        client.disconnect()
        self.successResultOf(stopped)

    def test_max_connections(self) -> None:
        """Connections that have not sent their message count."""
        server = self.recorded(application, max_connections=2)
        clients = [self.half_open(server) for _ in range(3)]
        self.assertEqual(
            [client.channel is None for client in clients], [False, False, True]
        )
        clients[0].send(client_hello())
        self.assertEqual(clients[0].received[:1], b"\x16")
        for client in clients[:2]:
            client.disconnect()


class OfferedProtocolsTests(SynchronousTestCase):
    """The protocols in a ClientHello."""

    def test_incomplete(self) -> None:
        """Each part of a message is incomplete; bytes after it do not matter."""
        hello = client_hello("h2", "http/1.1")
        for size in range(len(hello)):
            self.assertRaises(Incomplete, offered_protocols, hello[:size])
        self.assertEqual(offered_protocols(hello), [b"h2", b"http/1.1"])
        self.assertEqual(offered_protocols(hello + b"more"), [b"h2", b"http/1.1"])
        self.assertIsNone(offered_protocols(client_hello()))

    def test_many_records(self) -> None:
        """A message may be divided into records of any size."""
        message = client_hello("h2")[5:]
        for size in (1, 3, 4, 100):
            records = b"".join(
                b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
                for start in range(0, len(message), size)
                if (part := message[start : start + size])
            )
            self.assertEqual(offered_protocols(records), [b"h2"])
            self.assertRaises(Incomplete, offered_protocols, records[:-1])

    def test_endless(self) -> None:
        """A message that is too long, or never begins, is not waited for."""
        for data in (
            b"\x16\x03\x01\x00\x00" * 10_000,
            b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(50),
            b"\x16\x03\x01\x00\x01\x02",
            b"GET / HTTP/1.1\r\n",
        ):
            self.assertIsNone(offered_protocols(data))

    def test_mutations(self) -> None:
        """No bytes raise anything but `Incomplete`."""
        hello = client_hello("h2")
        source = Random(22)
        for _ in range(3000):
            data = bytearray(hello)
            for _ in range(source.randrange(1, 6)):
                data[source.randrange(len(data))] = source.randrange(256)
            with contextlib.suppress(Incomplete):
                offered_protocols(bytes(data[: source.randrange(len(data)) + 1]))
