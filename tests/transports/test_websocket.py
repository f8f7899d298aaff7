"""WebSockets and taken-over sockets, over each transport of ours."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from wsproto.frame_protocol import FrameProtocol

from tests.metrics.sums import series_by_label, sums_of
from txgreenwsgi import Cancelled, ClientDisconnected, WebSocketClosed, websocket
from txgreenwsgi._metrics.families import SIZE
from txgreenwsgi._metrics.process import measure

from .harness import OWN, TEXT, TRANSPORTS, WEB, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi import WebSocket

    from .harness import Environ, Server, Start
    from .harness_links import Link

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: test.example\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGVzdGluZyBpbiBtZW1vcg==\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Client:
    """A connection that was upgraded; the server pumps it like others.

    Attributes:
        link: the carrier of its bytes.
        received: all bytes received.
    """

    def __init__(self, server: Server, slow: bool = False) -> None:
        self.link: Link = server.connect(slow)
        self.received = bytearray()
        self.replies: list[object] = []
        self.stray = b""
        self.makes_room = True
        self._server = server
        self._protocol = FrameProtocol(client=True, extensions=[])
        self._parsed = 0
        server.connections.append(self)  # type: ignore[arg-type]

    def pump(self) -> bool:
        """Read; return whether there was anything."""
        data = self.link.take()
        self.received += data
        return bool(data)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.link.send(data)
        self._server.settle()

    def message(self, text: str | bytes, fin: bool = True) -> None:
        """Send a message, or a fragment of one."""
        self.send(bytes(self._protocol.send_data(text, fin=fin)))

    def close(self, code: int) -> None:
        """Send a close frame."""
        self.send(bytes(self._protocol.close(code)))

    def frames(self) -> list[Any]:
        """Return the payloads of the frames since the last call."""
        if not self._parsed:
            self._parsed = self.received.index(b"\r\n\r\n") + 4
        data = bytes(self.received[self._parsed :])
        self._parsed += len(data)
        self._protocol.receive_bytes(data)
        return [frame.payload for frame in self._protocol.received_frames()]


class WebSocketCases(Cases):
    """WebSockets, over any transport of ours."""

    def websocket(self, app: Any, **settings: Any) -> Client:
        """Return a client that has sent its handshake."""
        self.server = self.serve(app, **settings)
        client = Client(self.server)
        client.send(HANDSHAKE)
        self.assertIn(b" 101 ", client.received)
        return client

    def measure(self, environ: Environ) -> None:
        """Count the requests of a server, from the one with this environ on."""
        self.values = [0.0] * SIZE
        server = environ["txgreenwsgi.stopping"].__self__.server
        self.sampler = measure(server, self.values, self.server.reactor)
        self.addCleanup(self.sampler.stop)

    def sum_of(self, name: str) -> float:
        """Return the sum of the samples with a name, given without its prefix."""
        self.sampler.count()
        return sums_of(self.values).get(f"txgreenwsgi_{name}", 0.0)

    def by_label(self, name: str) -> dict[str, float]:
        """Return the samples with a name, given without its prefix, by their label."""
        self.sampler.count()
        return series_by_label(self.values, f"txgreenwsgi_{name}")

    def test_echo(self) -> None:
        """Messages of all lengths are sent back, then the client closes."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            with websocket(environ) as opened:
                for message in opened:
                    opened.send(message)
            return []

        client = self.websocket(app)
        for size in (0, 10, 1000, 100_000):
            client.message("x" * size)
            self.assertEqual("".join(client.frames()), "x" * size)
        client.close(4000)
        self.assertEqual(client.frames(), [(4000, "")])
        self.assertTrue(client.link.ended)
        self.assertEqual(self.outcomes(), [(101, "finished")])

    def test_metrics(self) -> None:
        """An open WebSocket is a gauge, an ended one has counts of its own."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.measure(environ)
            with websocket(environ) as opened:
                for message in opened:
                    opened.send(message)
            return []

        client = self.websocket(app)
        self.assertEqual(self.sum_of("websockets_open"), 1)
        self.server.advance(2)
        client.message("x" * 1000)
        self.assertEqual(self.sum_of("websockets_ended_total"), 0)
        client.close(1000)
        self.assertEqual(self.sum_of("websockets_open"), 0)
        self.assertEqual(self.sum_of("websockets_ended_total"), 1)
        self.assertEqual(self.sum_of("requests_total"), 1)
        self.assertAlmostEqual(self.sum_of("websocket_seconds_total"), 2, 3)
        # The header of a frame has 4 bytes, the mask 4; and the frames that close.
        self.assertEqual(self.sum_of("websocket_received_bytes_total"), 1008 + 8)
        self.assertEqual(self.sum_of("websocket_sent_bytes_total"), 1004 + 4)
        self.assertEqual(self.sum_of("request_duration_seconds_count"), 0)
        self.assertEqual(self.sum_of("response_first_byte_seconds_count"), 1)
        self.assertEqual(self.sum_of("response_body_bytes_total"), 0)
        self.assertEqual(self.sum_of("request_body_bytes_total"), 0)

    def test_metrics_of_messages(self) -> None:
        """Messages are counted while the WebSocket is open, in both directions."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.measure(environ)
            with websocket(environ, ping=0.5) as opened:
                for message in opened:
                    opened.send(message)
                    opened.send("more")
            return []

        client = self.websocket(app)
        for message in ("ü" * 10, b"\0" * 100_000, ""):
            client.message(message)
        client.message("frag", fin=False)
        self.assertEqual(
            self.by_label("websocket_messages_total"), {"received": 3, "sent": 6}
        )
        client.message("ments")
        sizes = 20 + 100_000 + 9
        self.assertEqual(
            self.by_label("websocket_messages_total"), {"received": 4, "sent": 8}
        )
        self.assertEqual(
            self.by_label("websocket_message_bytes_total"),
            {"received": sizes, "sent": sizes + 4 * 4},
        )
        # Pings and pongs are no messages.
        self.server.advance(1)
        self.assertEqual(self.by_label("websocket_closes_total"), {})
        client.close(1000)
        self.assertEqual(
            self.by_label("websocket_messages_total"), {"received": 4, "sent": 8}
        )
        self.assertEqual(self.by_label("websocket_closes_total"), {"1000": 1})

    def test_metrics_of_closes(self) -> None:
        """Each WebSocket is counted once, by the code with which it was closed."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.measure(environ)
            with websocket(environ, max_message=10) as opened:
                for message in opened:
                    opened.close(int(message))
            return []

        mask = b"\x80\0\0\0\0"
        for send, code in (
            (lambda client: client.close(3000), "3xxx"),
            (lambda client: client.close(4999), "4xxx"),
            (lambda client: client.send(b"\x88" + mask), "1005"),
            (lambda client: client.send(b"\xf1" + mask), "1002"),
            (lambda client: client.message("x" * 11), "1009"),
            (lambda client: client.link.disconnect(), "1006"),
            (lambda client: (client.message("1001"), client.close(1001)), "1001"),
        ):
            client = self.websocket(app)
            send(client)
            self.server.settle()
            self.assertEqual(self.by_label("websocket_closes_total"), {code: 1})
            # The rest of the closing handshake changes nothing.
            client.link.disconnect()
            self.server.advance(3)
            self.assertEqual(self.by_label("websocket_closes_total"), {code: 1})

    def test_metrics_at_shutdown(self) -> None:
        """WebSockets that the shutdown closes are counted."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.measure(environ)
            with websocket(environ) as opened:
                for _ in opened:
                    pass
            return []

        client = self.websocket(app)
        stop = self.server.stop()
        self.server.settle()
        client.close(1001)
        client.link.disconnect()
        self.server.advance(2)
        self.assertTrue(stop.done)
        self.assertEqual(self.by_label("websocket_closes_total"), {"1001": 1})

    def test_metrics_of_failed_sends(self) -> None:
        """A message that the client cannot get is not counted as sent."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.measure(environ)
            with websocket(environ) as opened:
                opened.send("first")
                environ["txgreenwsgi.sleep"](1)
                opened.send("second")
            return []

        client = self.websocket(app)
        client.link.disconnect()
        self.server.advance(1)
        self.assertEqual(self.by_label("websocket_messages_total"), {"sent": 1})
        self.assertEqual(self.by_label("websocket_closes_total"), {"1006": 1})

    def test_metrics_of_sockets(self) -> None:
        """On a taken-over socket, the server sees bytes only."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.measure(environ)
            skt = environ["gunicorn.socket"]
            skt.sendall(SWITCH)
            skt.sendall(skt.recv(100))
            raise StopIteration

        client = self.websocket(app)
        client.message("hello")
        client.link.disconnect()
        self.server.settle()
        self.assertEqual(self.sum_of("websockets_ended_total"), 1)
        self.assertEqual(self.sum_of("websocket_messages_total"), 0)
        self.assertEqual(self.sum_of("websocket_closes_total"), 0)

    def test_metrics_of_refused(self) -> None:
        """A refused handshake is a request like any other."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.measure(environ)
            websocket(environ, origins=["https://other.example"])
            return []

        self.server = self.serve(app)
        origin = b"Origin: https://test.example\r\n\r\n"
        Client(self.server).send(HANDSHAKE[:-2] + origin)
        self.assertEqual(self.sum_of("request_duration_seconds_count"), 1)
        self.assertEqual(self.sum_of("websockets_ended_total"), 0)

    def test_pushes(self) -> None:
        """Messages of the server arrive at once, while the application waits."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            opened = websocket(environ)
            for number in range(3):
                opened.send(f"{number}")
                environ["txgreenwsgi.sleep"](1)
            return []

        client = self.websocket(app)
        for number in range(3):
            self.assertEqual(client.frames(), [f"{number}"])
            self.server.advance(1)
        self.assertEqual(client.frames(), [(1000, "")])
        client.close(1000)
        self.assertEqual(self.outcomes(), [(101, "finished")])

    def test_client_leaves(self) -> None:
        """A lost client ends `receive`, and no task is left."""
        errors: list[object] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                websocket(environ).receive()
            except WebSocketClosed as error:
                errors.append(error.code)
                raise
            return []

        client = self.websocket(app)
        client.link.disconnect()
        self.server.settle()
        self.assertEqual(errors, [1006])
        self.assertEqual(self.outcomes(), [(101, "disconnected")])

    def test_slow_reader(self) -> None:
        """A client that does not read parks the sender; others are served."""
        sent: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if "HTTP_UPGRADE" not in environ:
                start("200 OK", TEXT)
                return [b"ok"]
            opened = websocket(environ)
            for _ in range(40):
                opened.send(bytes(500_000))
                sent.append(1)
            return []

        server = self.serve(app, request_timeout=1, write_timeout=100)
        client = Client(server, slow=True)
        client.send(HANDSHAKE)
        server.advance(5)
        self.assertLess(len(sent), 40)
        self.assert_complete(server.begin(), b"ok")
        client.link.reading = True
        server.settle()
        self.assertEqual(len(sent), 40)
        client.close(1000)
        server.settle()

    def test_write_timeout(self) -> None:
        """A client that accepts no byte for `write_timeout` is lost."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            opened = websocket(environ)
            while True:
                opened.send(bytes(1_000_000))

        server = self.serve(app, write_timeout=3)
        client = Client(server, slow=True)
        client.send(HANDSHAKE)
        server.advance(5)
        self.assertEqual(self.outcomes(), [(101, "timeout")])

    def test_shutdown(self) -> None:
        """The shutdown closes with 1001, and waits for the answer."""
        self.ended: list[WebSocket] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            opened = websocket(environ)
            for _ in opened:
                pass
            self.ended.append(opened)
            return []

        client = self.websocket(app)
        stop = self.server.stop()
        self.server.settle()
        self.assertEqual(client.frames(), [(1001, "the server is stopping")])
        self.assertFalse(stop.done)
        client.close(1001)
        self.assertEqual([each.close_code for each in self.ended], [1001])
        client.link.disconnect()
        self.server.advance(2)
        self.assertTrue(stop.done)

    def test_socket(self) -> None:
        """The socket of the request carries bytes both ways."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            skt = environ["gunicorn.socket"]
            skt.sendall(SWITCH)
            while data := skt.recv(100_000):
                skt.sendall(data)
            raise StopIteration

        server = self.serve(app)
        client = Client(server)
        client.send(HANDSHAKE + b"early")
        self.assertEqual(client.received, SWITCH + b"early")
        client.send(bytes(100_000))
        self.assertEqual(len(client.received), len(SWITCH) + 100_005)
        client.link.disconnect()
        server.settle()
        self.assertEqual(self.outcomes(), [(101, "finished")])

    def test_socket_half_closed(self) -> None:
        """After SHUT_WR the client reads the end, and the application its bytes."""
        seen: list[bytes] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            skt = environ["gunicorn.socket"]
            skt.sendall(SWITCH + bytes(100_000))
            skt.shutdown(socket.SHUT_WR)
            while data := skt.recv(100_000):
                seen.append(data)
            raise StopIteration

        server = self.serve(app)
        client = Client(server)
        client.link.stays_open = True
        client.send(HANDSHAKE)
        server.settle()
        self.assertEqual(len(client.received), len(SWITCH) + 100_000)
        self.assertTrue(client.link.ended)
        self.assertEqual(self.outcomes(), [])
        client.send(b"one")
        client.send(b"two")
        self.assertEqual(b"".join(seen), b"onetwo")
        client.link.end()
        server.settle()
        self.assertEqual(self.outcomes(), [(101, "finished")])

    def test_socket_at_shutdown(self) -> None:
        """A taken-over request is cancelled at the end of the grace period."""
        errors: list[BaseException] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            skt = environ["gunicorn.socket"]
            skt.sendall(SWITCH)
            try:
                skt.recv(1)
            except BaseException as error:
                errors.append(error)
                raise
            return []

        server = self.serve(app, graceful_timeout=3)
        client = Client(server)
        client.send(HANDSHAKE)
        stop = server.stop()
        server.advance(2)
        self.assertFalse(stop.done)
        server.advance(2)
        self.assertIsInstance(errors[0], Cancelled)
        client.link.disconnect()
        server.advance(5)
        self.assertTrue(stop.done)
        self.assertEqual(self.outcomes(), [(101, "cancelled")])

    def test_no_websocket(self) -> None:
        """A request that is no handshake gets 400."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            websocket(environ)
            return []

        reply = self.ask(app)
        self.assert_complete(reply, status=400)
        self.assertIn(b"this address is a WebSocket", reply.body)
        self.assertEqual(self.outcomes(), [(400, "refused")])


class HalfCloseCases(Cases):
    """Clients that close their sending side only, where the transport supports it."""

    def test_by_client(self) -> None:
        """After the end of the client's bytes, the application may send."""
        self.check_by_client()

    def test_by_client_of_http(self) -> None:
        """The same, where clients of HTTP may close their sending side too."""
        self.check_by_client(half_close="serve", on_disconnect="cancel")

    def check_by_client(self, **settings: Any) -> None:
        """Fail unless a client receives an answer behind the end of its bytes."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            skt = environ["gunicorn.socket"]
            skt.sendall(SWITCH)
            total = b""
            while data := skt.recv(100):
                total += data
            environ["txgreenwsgi.sleep"](1)
            skt.sendall(total)
            raise StopIteration

        server = self.serve(app, **settings)
        client = Client(server)
        client.send(HANDSHAKE)
        client.send(b"all")
        client.link.end()
        server.settle()
        self.assertEqual(self.outcomes(), [])
        server.advance(1)
        self.assertEqual(client.received, SWITCH + b"all")
        self.assertTrue(client.link.ended)
        self.assertEqual(self.outcomes(), [(101, "finished")])

    def test_by_both(self) -> None:
        """When both have ended their bytes, the call goes on, and closes at its end."""
        seen: list[object] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            skt = environ["gunicorn.socket"]
            skt.sendall(SWITCH)
            skt.shutdown(socket.SHUT_WR)
            environ["txgreenwsgi.sleep"](1)
            while data := skt.recv(100):
                seen.append(data)
            environ["txgreenwsgi.sleep"](1)
            seen.append(environ["txgreenwsgi.client_disconnected"]())
            raise StopIteration

        server = self.serve(app)
        client = Client(server)
        client.link.stays_open = True
        client.send(HANDSHAKE)
        client.send(b"all")
        client.link.end()
        server.settle()
        self.assertEqual(seen, [])
        server.advance(1)
        self.assertEqual(seen, [b"all"])
        server.advance(1)
        self.assertEqual(seen, [b"all", False])
        self.assertEqual(self.outcomes(), [(101, "finished")])
        stop = server.stop()
        server.settle()
        self.assertTrue(stop.done)

    def test_cancel(self) -> None:
        """Where a disconnect cancels requests, the end of the bytes does."""
        errors: list[BaseException] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            skt = environ["gunicorn.socket"]
            skt.sendall(SWITCH)
            try:
                environ["txgreenwsgi.sleep"](9)
            except BaseException as error:
                errors.append(error)
                raise
            return []

        server = self.serve(app, on_disconnect="cancel")
        client = Client(server)
        client.send(HANDSHAKE)
        client.link.end()
        server.settle()
        self.assertIsInstance(errors[0], ClientDisconnected)
        self.assertEqual(self.outcomes(), [(101, "disconnected")])


class RefusalCases(Cases):
    """WebSockets on twisted.web, which has none."""

    def test_error(self) -> None:
        """`websocket` names the classes that have WebSockets."""
        if self.transport.version != "HTTP/1.1":
            handshake: list[tuple[str, str]] = []
        else:
            handshake = [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGVzdGluZyBpbiBtZW1vcg=="),
            ]
        seen: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.assertNotIn("gunicorn.socket", environ)
            try:
                websocket(environ)
            except Exception as error:
                seen.append(str(error))
            start("200 OK", TEXT)
            return [b"a page"]

        reply = self.serve(app).begin(headers=handshake)
        self.assert_complete(reply, b"a page")
        wanted = "GreenWSGIResource serves HTTP only" if handshake else "is a WebSocket"
        self.assertIn(wanted, seen[0])


OWN_HTTP1 = [name for name in OWN if TRANSPORTS[name].version == "HTTP/1.1"]

# Twisted's TLS ends both directions at the client's close_notify.
HALF_CLOSE = [name for name in OWN_HTTP1 if name != "TwistedTls"]

globals().update(on_every_transport(WebSocketCases, only=OWN_HTTP1))
globals().update(on_every_transport(HalfCloseCases, only=HALF_CLOSE))
globals().update(on_every_transport(RefusalCases, only=WEB))
