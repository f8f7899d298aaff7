"""Clients that read so slowly that no send to them succeeds for a long time.

The kernel buffers what the server sends, and reports the socket as writable only when a
third of the buffer is free. Until then a client is not idle: it accepts bytes.
"""

from __future__ import annotations

import ssl
from struct import pack
from typing import TYPE_CHECKING

from hpack.hpack import Encoder
from twisted.web.server import Site

from tests.http2.frames import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GREATEST_WINDOW,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from txgreenwsgi import GreenWSGIResource

from .application import TEXT
from .pairs import PairClient, SlowTCPClient
from .tls import tls_factory
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start

#: Size of a response that the buffers of both ends do not hold.
SIZE = 1_000_000

#: Size of a response that the kernel of the server holds.
SHORT_SIZE = 250_000

#: Size of the server's send buffer; the kernel doubles it.
BUFFER = 200_000

#: Bytes that a client of a UNIX socket reads at a time. They free one of the pieces in
#: which the kernel holds the response, and five times as many do not make the server's
#: socket writable.
PART = 40_000

#: Bytes that a TCP client reads at a time: more than its kernel has buffered.
TCP_PART = 20_000

#: SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
_INITIAL_WINDOW_SIZE = 4


def large(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with `SIZE` bytes."""
    start("200 OK", [*TEXT, ("Content-Length", str(SIZE))])
    return [b"x" * SIZE]


def short(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with `SHORT_SIZE` bytes."""
    start("200 OK", [*TEXT, ("Content-Length", str(SHORT_SIZE))])
    return [b"x" * SHORT_SIZE]


class SlowReaderTestCase(WireTestCase):
    """A case with one server and its slow client.

    Most clients use a UNIX socket, whose buffers change only when they read: TCP also
    has timers of its own.
    """

    server: MemoryServer

    def connect(self, factory: Any = None) -> PairClient:
        """Return a client of a UNIX socket, closed at the end of the test."""
        return self.closed_later(PairClient(self.server, BUFFER, factory))

    def closed_later(self, client: PairClient) -> PairClient:
        """Close a client and its server at the end of the test; return the client."""
        self.addCleanup(self.server.close)
        self.addCleanup(client.close)
        return client

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps, as in production."""
        for _ in range(round(seconds * 4)):
            self.server.advance(0.25)


def http2_request(*paths: str, window: int = GREATEST_WINDOW) -> bytes:
    """Return a preface with large windows, and a request for each path."""
    initial = pack(">HL", _INITIAL_WINDOW_SIZE, window)
    more = pack(">L", GREATEST_WINDOW - 65535)
    encoder = Encoder()
    heads = [
        encoder.encode(
            [
                (":method", "GET"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "test"),
            ]
        )
        for path in paths
    ]
    return b"".join(
        [
            PREFACE,
            frame(SETTINGS, 0, 0, initial),
            frame(WINDOW_UPDATE, 0, 0, more),
            *(
                frame(HEADERS, END_STREAM | END_HEADERS, 2 * place + 1, head)
                for place, head in enumerate(heads)
            ),
        ]
    )


def say_over_tls(client: PairClient, data: bytes) -> None:
    """Shake hands, and send bytes; what the client reads later stays encrypted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.send(outgoing.read())
            client.wait_readable()
            incoming.write(client.read())
    tls.write(data)
    client.send(outgoing.read())


class WriteTimeoutTests(SlowReaderTestCase):
    """write_timeout is the time in which the client accepts no byte."""

    def check(self, client: PairClient, outcomes: int = 1) -> None:
        """Read a little every 3 seconds, and then nothing for longer than 4."""
        for _ in range(5):
            client.read_part(PART)
            self.assertFalse(client.server_may_send)
            self.pass_time(3)
            self.assertTrue(client.transport.connected)
        self.pass_time(0.5)
        self.assertTrue(client.transport.connected)
        self.pass_time(1)
        self.assertFalse(client.transport.connected)
        self.assertEqual(self.outcomes(), [(200, "timeout")] * outcomes)
        for record in self.records:
            self.assertEqual(record.waiting, record.duration)

    def test_http1(self) -> None:
        """A response of HTTP/1.1."""
        self.server = self.recorded(large, slow_after=1, write_timeout=4)
        client = self.connect()
        client.send(get("/"))
        self.check(client)

    def test_our_tls(self) -> None:
        """A response of HTTP/1.1 over our own TLS."""
        self.server = self.recorded(large, slow_after=1, write_timeout=4)
        client = self.connect(tls_factory(self.server))
        say_over_tls(client, get("/"))
        self.check(client)

    def test_tls_of_twisted(self) -> None:
        """A response of HTTP/1.1 over Twisted's TLS."""
        self.server = self.recorded(large, slow_after=1, write_timeout=4)
        client = self.connect(tls_factory(self.server, own=False))
        say_over_tls(client, get("/"))
        self.check(client)

    def test_http2(self) -> None:
        """Two responses of HTTP/2: the connection is blocked, not their windows."""
        self.server = self.recorded(large, slow_after=1, write_timeout=4, http2="h2c")
        client = self.connect()
        client.send(http2_request("/", "/"))
        self.check(client, 2)

    def test_resource(self) -> None:
        """A response of twisted.web."""
        self.server = self.recorded(large)
        resource = GreenWSGIResource(
            large,
            reactor=self.server.reactor,
            observers=[self.records.append],
            slow_after=1,
            write_timeout=4,
        )
        site = Site(resource, reactor=self.server.reactor, timeout=None)
        client = self.connect(site)
        client.send(get("/"))
        self.check(client)

    def test_tcp(self) -> None:
        """A response over TCP, whose client's kernel acknowledges what it accepts."""
        self.server = self.recorded(large, write_timeout=4)
        client = SlowTCPClient(self.server, BUFFER)
        self.closed_later(client)
        client.send(get("/"))
        for _ in range(5):
            client.accept_part(TCP_PART)
            self.assertFalse(client.server_may_send)
            self.pass_time(3)
            self.assertTrue(client.transport.connected)
        self.assertEqual(self.outcomes(), [])


class LingeringTests(SlowReaderTestCase):
    """The end of a connection whose client has sent more than was read."""

    def test_response_in_the_kernel(self) -> None:
        """The rest of the response is not discarded while the client accepts it."""
        self.server = self.recorded(short)
        client = self.connect()
        client.send(get("/", "Content-Length: 9000000", method="POST"))
        self.assertEqual(self.outcomes(), [(200, "finished")])
        for _ in range(5):
            client.read_part(PART)
            self.pass_time(4)
        body = client.read_rest().partition(b"\r\n\r\n")[2]
        self.assertEqual(len(body), SHORT_SIZE)

    def assert_closed_after(self, client: PairClient, seconds: float) -> None:
        """Fail unless the connection closes after that time, with some tolerance."""
        self.pass_time(seconds - 0.5)
        self.assertTrue(client.transport.connected)
        self.pass_time(1)
        self.assertFalse(client.transport.connected)

    def test_silent_client(self) -> None:
        """A client that accepts nothing is disconnected."""
        self.server = self.recorded(short)
        client = self.connect()
        client.send(get("/", "Content-Length: 9000000", method="POST"))
        self.assertEqual(self.outcomes(), [(200, "finished")])
        self.assert_closed_after(client, 5)

    def test_silent_client_of_our_tls(self) -> None:
        """TLS, which may buffer a part of the response, has the time of write_timeout.

        No more than that.
        """
        self.server = self.recorded(short, write_timeout=20)
        client = self.connect(tls_factory(self.server))
        say_over_tls(client, get("/", "Content-Length: 9000000", method="POST"))
        self.assertEqual(self.outcomes(), [(200, "finished")])
        self.assert_closed_after(client, 20)

    def test_silent_client_of_http2(self) -> None:
        """An HTTP/2 client that accepts nothing is disconnected, after its error.

        Without a write_timeout too.
        """
        self.server = self.recorded(large, write_timeout=0, http2="h2c")
        client = self.connect()
        client.send(http2_request("/", window=SHORT_SIZE))
        client.send(frame(WINDOW_UPDATE, 0, 0, pack(">L", 0)))
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assert_closed_after(client, 5)

    def test_slow_client_of_http2(self) -> None:
        """An HTTP/2 client receives the last bytes, if it accepts some."""
        self.server = self.recorded(short, http2="h2c")
        client = self.connect()
        client.send(http2_request("/") + frame(GOAWAY, 0, 0, bytes(8)))
        self.assertEqual(self.outcomes(), [(200, "finished")])
        for _ in range(5):
            client.read_part(PART)
            self.pass_time(4)
        self.assertGreater(len(client.read_rest()), SHORT_SIZE)
