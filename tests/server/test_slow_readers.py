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
    GREATEST_WINDOW,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from txgreenwsgi import GreenWSGIResource

from .application import TEXT
from .pairs import SlowTCPClient
from .tls import tls_factory
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start

#: Size of a response that the buffers of both ends do not hold.
SIZE = 1_000_000

#: Bytes that a client reads at a time. Five times as many do not make the server's
#: socket writable; with fewer, the client's kernel would not always report room.
PART = 20_000

#: SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
_INITIAL_WINDOW_SIZE = 4


def large(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with `SIZE` bytes."""
    start("200 OK", [*TEXT, ("Content-Length", str(SIZE))])
    return [b"x" * SIZE]


class SlowReaderTestCase(WireTestCase):
    """A case with one server and its slow client."""

    server: MemoryServer

    def connect(self, factory: Any = None) -> SlowTCPClient:
        """Return a client that is closed at the end of the test."""
        client = SlowTCPClient(self.server, factory)
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


def say_over_tls(client: SlowTCPClient, data: bytes) -> None:
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

    def check(self, client: SlowTCPClient, outcomes: int = 1) -> None:
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


class LingeringTests(SlowReaderTestCase):
    """The end of a connection whose client has sent more than was read."""

    def test_response_in_the_kernel(self) -> None:
        """The rest of the response is not discarded while the client accepts it."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "150000")])
            return [b"x" * 150_000]

        self.server = self.recorded(app)
        client = self.connect()
        client.send(get("/", "Content-Length: 9000000", method="POST"))
        self.assertEqual(self.outcomes(), [(200, "finished")])
        for _ in range(5):
            client.read_part(PART)
            self.pass_time(4)
        body = client.read_rest().partition(b"\r\n\r\n")[2]
        self.assertEqual(len(body), 150_000)

    def test_silent_client(self) -> None:
        """A client that accepts nothing is disconnected."""
        self.server = self.recorded(large, write_timeout=4)
        client = self.connect()
        client.send(get("/", "Content-Length: 9000000", method="POST"))
        self.pass_time(20)
        self.assertFalse(client.transport.connected)
