"""WebSockets over HTTP/2 (RFC 8441)."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase
from wsproto.frame_protocol import FrameProtocol

from txgreenwsgi import websocket
from txgreenwsgi.testing import LeakCheckMixin

from .frames import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    RawClient,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.testing import MemoryServer

    Environ = dict[str, Any]
    Start = Callable[..., Any]


class WebSocketTests(LeakCheckMixin, SynchronousTestCase):
    """One WebSocket on a stream, beside other streams."""

    def setUp(self) -> None:
        """Create the client's side of the protocol."""
        self.protocol = FrameProtocol(client=True, extensions=[])
        self.environs: list[Environ] = []
        self.records: list[ExchangeRecord] = []

    def app(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Echo messages in upper case at /chat."""
        if environ["PATH_INFO"] != "/chat":
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"page"]
        self.environs.append(environ)
        with websocket(environ, subprotocols=["chat"]) as opened:
            for message in opened:
                opened.send(message.upper())
        return []

    def opened(self, **settings: Any) -> tuple[MemoryServer, RawClient]:
        """Return a server and a client that has opened a WebSocket on stream 1."""
        server = self.serve(self.app, [self.records.append], http2="h2c", **settings)
        client = RawClient(server)
        block = client.block(
            [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":path", "/chat"),
                (":authority", "test"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-protocol", "other, chat"),
            ]
        )
        client.send(frame(HEADERS, END_HEADERS, 1, block))
        self.assertEqual(client.responses(), {1: 200})
        return server, client

    def message(self, text: str) -> bytes:
        """Return a DATA frame with a message."""
        return frame(DATA, 0, 1, bytes(self.protocol.send_data(text, fin=True)))

    def received(self, client: RawClient) -> list[Any]:
        """Return the payloads that have arrived in all."""
        protocol = FrameProtocol(client=True, extensions=[])
        protocol.receive_bytes(client.body(1))
        return [each.payload for each in protocol.received_frames()]

    def test_echo(self) -> None:
        """Messages go both ways; the application sees a GET of a WebSocket."""
        _server, client = self.opened()
        client.send(self.message("one"))
        client.send(client.request(3) + self.message("two"))
        self.assertEqual(self.received(client), ["ONE", "TWO"])
        self.assertEqual(client.body(3), b"page")
        environ = self.environs[0]
        self.assertEqual(environ["REQUEST_METHOD"], "GET")
        self.assertEqual(environ["HTTP_UPGRADE"], "websocket")
        client.send(frame(DATA, 0, 1, bytes(self.protocol.close(1000))))
        self.assertEqual(client.of_kind(DATA)[-1].flags, END_STREAM)
        client.send(frame(DATA, END_STREAM, 1))
        self.assertEqual(client.resets(), [])
        self.assertIn((200, "finished"), [(r.status, r.outcome) for r in self.records])

    def test_reset(self) -> None:
        """A reset of the stream ends the WebSocket, and not the connection."""
        server, client = self.opened()
        client.send(frame(RST_STREAM, 0, 1, pack(">L", CANCEL)))
        self.assertEqual(server.tasks, [])
        client.send(client.request(3))
        self.assertEqual(client.body(3), b"page")

    def test_slow_reader(self) -> None:
        """A large message waits for the window of the client."""
        server, client = self.opened()
        for _ in range(10):
            client.send(self.message("x" * 10_000))
        self.assertEqual(len(client.body(1)), 65535)
        self.assertEqual(len(server.tasks), 1)

    def test_shutdown(self) -> None:
        """At shutdown the client gets the close code 1001."""
        server, client = self.opened()
        server.site.stop()
        server.settle()
        [payload] = self.received(client)
        self.assertEqual(payload[0], 1001)
        client.send(frame(DATA, 0, 1, bytes(self.protocol.close(1001))))
        client.send(frame(DATA, END_STREAM, 1))
        for _ in range(16):
            server.advance(0.25)
        self.assertEqual(server.tasks, [])
        self.assertTrue(client.memory.closed)
