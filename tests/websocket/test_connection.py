"""WebSockets in memory: messages, closing, limits, pings, backpressure, shutdown."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.matrices import assert_table, matrix
from tests.metrics.sums import series_by_label
from txgreenwsgi import (
    TimedOut,
    WebSocketClosed,
    WebSocketRefused,
    sleep,
    spawn,
    websocket,
)
from txgreenwsgi._metrics.families import SIZE
from txgreenwsgi._metrics.process import measure
from txgreenwsgi._websocket.connection import WEBSOCKET
from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi import WebSocket
    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.testing import MemoryServer, MemoryWebSocket

Environ = dict[str, Any]
Start = Any

HANDSHAKE = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGVzdGluZyBpbiBtZW1vcg=="),
]


def without(name: str, value: str = "") -> list[tuple[str, str]]:
    """Return a handshake without a field, or with another value."""
    fields = [field for field in HANDSHAKE if field[0] != name]
    return [*fields, (name, value)] if value else fields


def request(fields: list[tuple[str, str]] = HANDSHAKE) -> bytes:
    """Return a request with fields, by default those of a handshake."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"GET / HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode()


def masked(first: int, payload: bytes, length: int | None = None) -> bytes:
    """Return a frame of a client, with a mask of zeros.

    Args:
        first: the first byte: FIN, RSV bits and opcode.
        payload: the payload.
        length: the length that the frame announces.
    """
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + bytes(4) + payload


def deflated(data: bytes) -> bytes:
    """Return the payload of a compressed message."""
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Application:
    """An application that serves each request by `serve`, and keeps the facts.

    Attributes:
        sockets: the WebSockets, in order.
        errors: the exceptions that have ended a call.
        ended: the number of calls that have returned.
    """

    def __init__(self, serve: Callable[[WebSocket], object], **arguments: Any) -> None:
        self._serve = serve
        self._arguments = arguments
        self.sockets: list[WebSocket] = []
        self.errors: list[BaseException] = []
        self.ended = 0

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Serve a request."""
        try:
            opened = websocket(environ, **self._arguments)
            self.sockets.append(opened)
            self._serve(opened)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.ended += 1
        return []


def echo(opened: WebSocket) -> None:
    """Send each message back."""
    for message in opened:
        opened.send(message)


class WebSocketCase(LeakCheckMixin, SynchronousTestCase):
    """A server in memory with one application."""

    def open(
        self,
        serve: Callable[[WebSocket], object] = echo,
        settings: dict[str, Any] | None = None,
        room: float = float("inf"),
        **arguments: Any,
    ) -> MemoryWebSocket:
        """Return the client's end of a WebSocket."""
        self.app = Application(serve, **arguments)
        self.records: list[ExchangeRecord] = []
        self.server: MemoryServer = self.serve(
            self.app, [self.records.append], **(settings or {})
        )
        return self.server.websocket(room=room)

    def assert_closed(self, client: MemoryWebSocket, code: int) -> None:
        """Fail unless the server has closed with `code`, and the call has ended."""
        client.update()
        self.assertEqual(client.close_code, code, client.close_reason)
        self.assertTrue(client.closed)
        self.assertEqual(self.app.ended, 1)
        self.assertEqual(self.server.tasks, [])


class StateTests(SynchronousTestCase):
    """The table of states."""

    def test_table(self) -> None:
        """The table allows the listed events in each state, and no others."""
        expected = matrix(
            """
                    | close   | end
            open    | closing | closed
            closing | closing | closed
            closed  | closed  | closed
            """
        )
        assert_table(self, WEBSOCKET, expected)


class MessageTests(WebSocketCase):
    """Sending and receiving."""

    def test_echo(self) -> None:
        """Text and binary messages of all lengths arrive unchanged."""
        client = self.open()
        for size in (0, 1, 125, 126, 65535, 65536, 300_000):
            for message in ("ä" * (size // 2), b"\0\xff" * (size // 2)):
                client.send(message)
                self.assertEqual(client.receive(), message)

    def test_in_single_bytes(self) -> None:
        """The server does not depend on how frames are split into reads."""
        client = self.open()
        client.client.send(masked(0x81, "grün".encode()), piece=1)
        self.assertEqual(client.receive(), "grün")

    def test_many_in_one_read(self) -> None:
        """Messages in one read are received one by one."""
        client = self.open()
        client.client.send(b"".join(masked(0x81, b"%d" % n) for n in range(3000)))
        client.update()
        self.assertEqual(client.messages, [str(n) for n in range(3000)])

    def test_order_of_pongs(self) -> None:
        """Each ping is answered, before the answer to a message that ends later."""
        client = self.open()
        pings = b"".join(masked(0x89, b"%d" % number) for number in range(10))
        client.client.send(masked(0x01, b"te") + pings + masked(0x80, b"xt"))
        client.update()
        self.assertEqual(client.pongs, [b"%d" % number for number in range(10)])
        self.assertEqual(client.messages, ["text"])
        self.assertTrue(client.client.received.endswith(b"\x8a\x019\x81\x04text"))

    def test_fragments(self) -> None:
        """A fragmented message is one message; a ping in between is answered."""
        client = self.open()
        text = "grün".encode()
        client.client.send(masked(0x01, text[:3]))
        client.client.send(masked(0x89, b"here?"))
        client.update()
        self.assertEqual(client.pongs, [b"here?"])
        client.client.send(masked(0x00, b"") + masked(0x80, text[3:]))
        self.assertEqual(client.receive(), "grün")
        client.client.send(masked(0x02, b"a") + masked(0x00, b"b") + masked(0x80, b"c"))
        self.assertEqual(client.receive(), b"abc")

    def test_bytes_behind_the_head(self) -> None:
        """Frames that arrive with the head, or before the upgrade, are delivered."""

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            sleep(1)
            echo(websocket(environ))
            return []

        server = self.serve(app)
        client = server.connect()
        client.send(request() + masked(0x81, b"one"))
        client.send(masked(0x81, b"two"))
        server.advance(1)
        self.assertTrue(client.received.endswith(b"\x81\x03one\x81\x03two"))

    def test_types(self) -> None:
        """Bytes-like objects are binary messages; other objects are an error."""

        def serve(opened: WebSocket) -> None:
            opened.send(bytearray(b"a"))
            opened.send(memoryview(b"b"))
            with self.assertRaisesRegex(TypeError, "str for a text message .* not int"):
                opened.send(1)  # type: ignore[arg-type]

        client = self.open(serve)
        self.assertEqual([client.receive(), client.receive()], [b"a", b"b"])
        self.assertEqual(self.app.errors, [])

    def test_timeout(self) -> None:
        """`receive` with a timeout raises TimedOut, and can be called again."""
        seen: list[object] = []

        def serve(opened: WebSocket) -> None:
            try:
                opened.receive(timeout=5)
            except TimedOut as error:
                seen.append(str(error))
            seen.append(opened.receive(timeout=5))

        client = self.open(serve)
        self.server.advance(5)
        self.server.advance(4)
        client.send("late")
        self.assertEqual(seen, ["timed out after 5 seconds", "late"])

    def test_two_receivers(self) -> None:
        """A second task that receives is an error."""

        def serve(opened: WebSocket) -> None:
            spawn(opened.receive)
            sleep(1)
            with self.assertRaisesRegex(RuntimeError, "two tasks receive"):
                opened.receive()

        client = self.open(serve)
        self.server.advance(1)
        client.close()
        self.assertEqual(self.app.errors, [])
        self.flushLoggedErrors(WebSocketClosed)

    def test_several_senders(self) -> None:
        """Messages of several tasks are not mixed while the client is slow."""

        def serve(opened: WebSocket) -> None:
            tasks = [spawn(opened.send, letter * 100_000) for letter in "abc"]
            for task in tasks:
                task.wait()

        client = self.open(serve, room=1000)
        while not self.app.ended:
            self.assertTrue(client.client.read(1000))
        client.client.read()
        client.update()
        sent = [letter * 100_000 for letter in "abc"]
        self.assertEqual(client.messages, sent)
        client.close()

    def test_control_frames_between_messages(self) -> None:
        """A pong waits for a message that is being sent."""
        client = self.open(lambda opened: opened.send("x" * 5000), room=300)
        client.client.send(masked(0x89, b"first") + masked(0x89, b"second"))
        while client.client.read(300):
            pass
        client.client.read()
        client.update()
        self.assertEqual(client.messages, ["x" * 5000])
        client.close()


class HandshakeTests(WebSocketCase):
    """The opening handshake."""

    def refusal(
        self, headers: list[tuple[str, str]], method: str = "GET", **arguments: Any
    ) -> tuple[int, str]:
        """Return status and body of the response to a request."""
        app = Application(echo, **arguments)
        server = self.serve(app)
        response = server.request(method, headers=headers)
        self.assertIsInstance(app.errors[0], WebSocketRefused)
        self.flushLoggedErrors(WebSocketRefused)
        return response.status, response.body.decode()

    def test_accept(self) -> None:
        """The response is that of the example in RFC 6455 section 1.3."""
        server = self.serve(Application(echo))
        client = server.connect()
        fields = without("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        client.send(request(fields))
        head = client.received.decode().split("\r\n")
        self.assertEqual(head[0], "HTTP/1.1 101 Switching Protocols")
        self.assertIn("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", head)
        self.assertIn("Upgrade: websocket", head)
        self.assertIn("Connection: Upgrade", head)
        self.assertFalse([line for line in head if "Content" in line])

    def test_invalid(self) -> None:
        """Invalid handshakes are answered with 400 and the reason."""
        for headers, text in (
            ([], "the request is not"),
            (without("Upgrade"), "the request is not"),
            (without("Connection"), "has no Connection: Upgrade"),
            (without("Sec-WebSocket-Version"), "Sec-WebSocket-Version is ''"),
            (without("Sec-WebSocket-Version", "8"), "Sec-WebSocket-Version is '8'"),
            (without("Sec-WebSocket-Key"), "16 bytes in base64"),
            (without("Sec-WebSocket-Key", "c2hvcnQ="), "16 bytes in base64"),
            (without("Sec-WebSocket-Key", "!" * 24), "16 bytes in base64"),
            ([*HANDSHAKE, ("Content-Length", "3")], "has a body"),
        ):
            with self.subTest(headers):
                status, body = self.refusal(headers)
                self.assertEqual(status, 400)
                self.assertIn(text, body)
        status, body = self.refusal(HANDSHAKE, "POST")
        self.assertEqual(status, 400)

    def test_version_field(self) -> None:
        """A wrong version is answered with the right one."""
        server = self.serve(Application(echo))
        response = server.request(headers=without("Sec-WebSocket-Version", "7"))
        self.assertEqual(response.header("Sec-WebSocket-Version"), "13")

    def test_refused_by_a_framework(self) -> None:
        """A response of the application after a refusal is discarded."""

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            try:
                websocket(environ)
            except WebSocketRefused:
                start_response("500 Internal Server Error", [])
            return [b"an error page"]

        records: list[ExchangeRecord] = []
        server = self.serve(app, [records.append])
        response = server.request(headers=without("Sec-WebSocket-Key"))
        self.assertEqual(response.status, 400)
        self.assertEqual([(r.status, r.outcome) for r in records], [(400, "refused")])

    def test_plain_response(self) -> None:
        """A WebSocket request may get a plain response; the connection persists."""

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            start_response("404 Not Found", [("Content-Length", "2")])
            return [b"no"]

        server = self.serve(app)
        client = server.connect()
        client.send(request() + request())
        client.send(request())
        self.assertEqual([r.status for r in client.responses()], [404, 404, 404])

    def test_subprotocols(self) -> None:
        """The first subprotocol of the application that the client offers is chosen."""
        self.app = Application(echo, subprotocols=["v2", "v1"])
        server = self.serve(self.app)
        client = server.websocket(subprotocols=["v0", "v1", "v2"])
        self.assertEqual(client.subprotocol, "v2")
        self.assertEqual(self.app.sockets[0].subprotocol, "v2")
        client = server.websocket(subprotocols=["v3"])
        self.assertIsNone(client.subprotocol)
        self.assertIsNone(self.app.sockets[1].subprotocol)

    def test_fields(self) -> None:
        """Further fields are sent; a hop-by-hop one is dropped."""
        headers = [("Set-Cookie", "a=b"), ("Connection", "close")]
        client = self.open(headers=headers)
        self.assertEqual(client.response.header("Set-Cookie"), "a=b")
        self.assertEqual(client.response.header("Connection"), "Upgrade")

    def test_origins(self) -> None:
        """By default, only pages of the own host, and clients without Origin."""
        for arguments, origin, accepted in (
            ({}, "http://test", True),
            ({}, "https://test", True),
            ({}, "http://TEST:80", True),
            ({}, "http://test:8080", False),
            ({}, "http://evil.example", False),
            ({}, "http://test.evil.example", False),
            ({}, "http://test@evil.example", False),
            ({}, "null", False),
            ({"origins": None}, "http://evil.example", True),
            ({"origins": ["https://shop.example"]}, "https://shop.example", True),
            ({"origins": ["https://shop.example"]}, "http://test", False),
        ):
            with self.subTest(origin=origin, **arguments):
                headers = [("Origin", origin)]
                if accepted:
                    server = self.serve(Application(echo, **arguments))
                    server.websocket(headers=headers)
                else:
                    status, _ = self.refusal([*HANDSHAKE, *headers], **arguments)
                    self.assertEqual(status, 403)

    def test_arguments(self) -> None:
        """Invalid arguments are named."""
        for arguments, text in (
            ({"subprotocols": "chat"}, r"give a list of names, such as \['chat'\]"),
            ({"max_message": 0}, "at least 1 byte"),
            ({"max_message": 1.5}, "a number of bytes"),
            ({"max_message": True}, "a number of bytes"),
            ({"ping": -1}, "ping=.*>= 0"),
            ({"ping": "x"}, "ping=.*>= 0"),
            ({"origins": "https://a.example"}, "give a list of origins"),
        ):
            with (
                self.subTest(**arguments),
                self.assertRaisesRegex((TypeError, ValueError), text),
            ):
                websocket({}, **arguments)

    def test_other_servers(self) -> None:
        """An environ of another server is named as the error."""
        with self.assertRaisesRegex(RuntimeError, "serve the application with"):
            websocket({"HTTP_UPGRADE": "websocket", "REQUEST_METHOD": "GET"})

    def test_after_the_response(self) -> None:
        """A response that has begun cannot be upgraded."""

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            start_response("200 OK", [])(b"text")
            with self.assertRaisesRegex(RuntimeError, "the response has begun"):
                websocket(environ)
            return []

        response = self.serve(app).request(headers=HANDSHAKE)
        self.assertEqual((response.status, response.body), (200, b"text"))


class ClosingTests(WebSocketCase):
    """The closing handshake, and connections that end without one."""

    def test_by_the_client(self) -> None:
        """The close frame of the client is answered, and ends the iteration."""
        client = self.open()
        client.close(4000, "enough")
        self.assert_closed(client, 4000)
        closed = self.app.sockets[0]
        self.assertEqual((closed.close_code, closed.close_reason), (4000, "enough"))
        [record] = self.records
        self.assertEqual((record.status, record.outcome), (101, "finished"))

    def test_without_a_code(self) -> None:
        """A close frame without a code has the code 1005."""
        client = self.open()
        client.client.send(masked(0x88, b""))
        self.assert_closed(client, 1005)
        self.assertEqual(self.app.sockets[0].close_code, 1005)

    def test_at_the_end_of_the_call(self) -> None:
        """A call that returns closes with 1000."""
        client = self.open(lambda opened: opened.send("bye"))
        self.assertEqual(client.receive(), "bye")
        self.assert_closed(client, 1000)

    def test_after_an_error(self) -> None:
        """A call that raises closes with 1011, and the error is logged."""

        def serve(opened: WebSocket) -> None:
            raise ZeroDivisionError

        client = self.open(serve)
        self.assert_closed(client, 1011)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.records[0].outcome, "error")

    def test_by_the_application(self) -> None:
        """`close` sends code and reason; then `send` and `receive` raise."""

        def serve(opened: WebSocket) -> None:
            opened.close(4001, "r" * 200)
            opened.close()
            for call in (opened.receive, lambda: opened.send("more")):
                with self.assertRaises(WebSocketClosed) as raised:
                    call()
                self.assertEqual(raised.exception.code, 4001)

        client = self.open(serve)
        self.assert_closed(client, 4001)
        self.assertEqual(client.close_reason, "r" * 123)
        self.assertEqual(self.app.errors, [])

    def test_codes(self) -> None:
        """A code that must not be sent is an error."""

        def serve(opened: WebSocket) -> None:
            for code in (999, 1004, 1005, 1006, 1015, 5000):
                with self.assertRaisesRegex(ValueError, f"close.{code}.: give"):
                    opened.close(code)

        self.open(serve).close()
        self.assertEqual(self.app.errors, [])

    def test_unanswered(self) -> None:
        """`close` waits for the client for 2 seconds."""

        def serve(opened: WebSocket) -> None:
            opened.close()

        client = self.open(serve, room=1000).client
        self.server.advance(0.25)
        self.server.advance(1.5)
        self.assertEqual(self.app.ended, 0)
        self.server.advance(1)
        self.assertEqual(self.app.ended, 1)
        self.assertTrue(client.closed)

    def test_messages_before_the_end(self) -> None:
        """Messages before a close frame and the end of the connection are received."""
        received: list[object] = []

        def serve(opened: WebSocket) -> None:
            sleep(1)
            received.extend(opened)

        client = self.open(serve)
        client.client.send(masked(0x81, b"one") + masked(0x81, b"two"))
        client.client.disconnect()
        self.server.advance(1)
        self.assertEqual(received, ["one", "two"])
        self.assertEqual(self.app.sockets[0].close_code, 1006)
        self.assertEqual(self.records[0].outcome, "disconnected")

    def test_lost(self) -> None:
        """A lost connection ends the iteration; `send` raises."""
        seen: list[object] = []

        def serve(opened: WebSocket) -> None:
            seen.extend(opened)
            opened.send("more")

        client = self.open(serve)
        client.client.disconnect()
        self.assertIsInstance(self.app.errors[0], WebSocketClosed)
        self.assertEqual(seen, [])
        self.assertEqual(self.records[0].outcome, "disconnected")

    def test_other_waits_continue(self) -> None:
        """By default, the end of the connection does not end other waits."""
        stored: list[object] = []

        def serve(opened: WebSocket) -> None:
            for message in opened:
                sleep(1)
                stored.append(message)

        client = self.open(serve)
        client.send("important")
        client.close()
        self.server.advance(1)
        self.assertEqual(stored, ["important"])
        self.assertEqual(self.app.ended, 1)

    def test_interrupt(self) -> None:
        """With `interrupt`, it raises WebSocketClosed at any wait."""

        def serve(opened: WebSocket) -> None:
            while True:
                sleep(1000)

        for lose in (False, True):
            with self.subTest(lose=lose):
                client = self.open(serve, interrupt=True)
                if lose:
                    client.client.disconnect()
                else:
                    client.close(4002)
                [error] = self.app.errors
                assert isinstance(error, WebSocketClosed)
                self.assertEqual(error.code, 1006 if lose else 4002)

    def test_interrupt_once(self) -> None:
        """With `interrupt`, waits after the end of the iteration continue."""

        def serve(opened: WebSocket) -> None:
            for _ in opened:
                pass
            sleep(1)

        self.open(serve, interrupt=True).close()
        self.server.advance(1)
        self.assertEqual((self.app.ended, self.app.errors), (1, []))

    def test_with_block(self) -> None:
        """A `with` block closes, and ends at WebSocketClosed."""
        seen: list[object] = []

        def serve(opened: WebSocket) -> None:
            with opened:
                opened.receive()
                seen.append("not reached")
            seen.append(opened.closed)

        self.open(serve).close()
        self.assertEqual((seen, self.app.errors), ([True], []))

    def test_cancel_on_disconnect(self) -> None:
        """With on_disconnect="cancel", a lost connection ends other waits."""
        client = self.open(lambda _: sleep(1000), {"on_disconnect": "cancel"})
        client.client.disconnect()
        self.assertEqual(self.app.ended, 1)

    def test_response_after_the_upgrade(self) -> None:
        """Responses of all kinds are discarded."""

        def blocks() -> Iterable[bytes]:
            yield b""
            yield b"text"

        def stop() -> Iterable[bytes]:
            raise StopIteration

        def stop_in_generator() -> Iterable[bytes]:
            yield from blocks()
            raise RuntimeError from StopIteration()

        for start in (False, True):
            for answer in (
                list,
                lambda: [b"text"],
                lambda: [b"more", b"text"],
                blocks,
                stop,
                stop_in_generator,
            ):

                def app(
                    environ: Environ,
                    start_response: Start,
                    start: bool = start,
                    answer: Callable[[], Iterable[bytes]] = answer,
                ) -> Iterable[bytes]:
                    websocket(environ).send("hello")
                    if start:
                        start_response("200 OK", [("Content-Type", "text/plain")])
                    return answer()

                with self.subTest(start=start, answer=answer):
                    server = self.serve(app)
                    client = server.websocket()
                    client.update()
                    self.assertEqual(client.messages, ["hello"])
                    self.assertEqual(client.close_code, 1000)
                    self.assertEqual(server.tasks, [])
        self.assertEqual(self.flushLoggedErrors(), [])


class LimitTests(WebSocketCase):
    """Limits on what a client can send."""

    def assert_fails(self, data: bytes, code: int, **arguments: Any) -> None:
        """Fail unless the server closes with `code` when it gets `data`."""
        client = self.open(**arguments)
        client.client.send(data)
        client.update()
        self.assert_closed(client, code)

    def test_message_size(self) -> None:
        """A longer message closes with 1009, before it was received."""
        client = self.open(max_message=10)
        client.send("0123456789")
        self.assertEqual(client.receive(), "0123456789")
        self.assert_fails(masked(0x82, b"", length=11), 1009, max_message=10)
        fragments = masked(0x02, b"12345") + masked(0x00, b"", length=6)
        self.assert_fails(fragments, 1009, max_message=10)
        self.assert_fails(masked(0x82, b"", length=1 << 40), 1009)

    def test_protocol_errors(self) -> None:
        """Invalid frames close with 1002, invalid text with 1007."""
        for data, code in (
            (b"\x81\x01x", 1002),  # not masked
            (masked(0xC1, b"x"), 1002),  # RSV1 without compression
            (masked(0x83, b"x"), 1002),  # unknown opcode
            (masked(0x80, b"x"), 1002),  # continuation of nothing
            (masked(0x09, b"x"), 1002),  # fragmented ping
            (masked(0x89, b"", length=126), 1002),  # long ping
            (masked(0x01, b"x") + masked(0x81, b"x"), 1002),
            (masked(0x88, b"x"), 1002),
            (masked(0x88, b"\x03\xed"), 1002),  # code 1005
            (masked(0x81, b"\xff"), 1007),
            (masked(0x88, b"\x03\xe8\xff"), 1007),
        ):
            with self.subTest(data):
                self.assert_fails(data, code)

    def test_control_frames(self) -> None:
        """Too many pings, pongs or empty fragments close with 1008."""
        for frame in (masked(0x89, b"x"), masked(0x8A, b"")):
            with self.subTest(frame):
                self.assert_fails(frame * 101, 1008)
        self.assert_fails(masked(0x01, b"") + masked(0x00, b"") * 100, 1008)

    def test_slow_pings(self) -> None:
        """Ten control frames per second are answered for ever."""
        client = self.open()
        for number in range(500):
            client.ping(b"%d" % number)
            self.server.advance(0.1)
        self.assertEqual(len(client.pongs), 500)

    def test_tiny_fragments(self) -> None:
        """A message of a thousand fragments is one message."""
        client = self.open()
        data = masked(0x01, b"x") + masked(0x00, b"x") * 2000 + masked(0x80, b"x")
        client.client.send(data)
        self.assertEqual(client.receive(), "x" * 2002)

    def test_full_queue(self) -> None:
        """While the application takes no messages, reading pauses."""
        received: list[object] = []

        def serve(opened: WebSocket) -> None:
            sleep(10)
            received.extend(opened)

        client = self.open(serve)
        frame = masked(0x82, bytes(1000))
        client.client.send(frame * 1000)
        self.assertGreater(len(client.client.socket.to_server), 800_000)
        self.assertLess(self.app.sockets[0].held, 70_000)
        self.server.advance(10)
        client.close()
        self.assertEqual(len(received), 1000)
        self.assertEqual(self.app.ended, 1)

    def test_close_with_a_full_queue(self) -> None:
        """`close` completes although messages precede the client's close frame."""

        def serve(opened: WebSocket) -> None:
            sleep(10)
            opened.close(4003)

        client = self.open(serve)
        client.client.send(masked(0x82, bytes(1000)) * 1000)
        client.client.send(masked(0x88, b"\x0f\xa3"))
        self.server.advance(10)
        self.assertEqual(self.app.ended, 1)
        self.assertEqual(self.app.sockets[0].close_code, 4003)

    def test_slow_reader(self) -> None:
        """A client that reads slowly parks the sender."""
        sent: list[int] = []

        def serve(opened: WebSocket) -> None:
            for number in range(100):
                opened.send(bytes(1000))
                sent.append(number)

        client = self.open(serve, room=5000)
        self.assertLess(len(sent), 12)
        while client.client.read(5000):
            pass
        self.assertEqual(len(sent), 100)
        client.close()

    def test_write_timeout(self) -> None:
        """A client that accepts no byte for `write_timeout` is lost."""
        client = self.open(
            lambda opened: opened.send(bytes(10_000)), {"write_timeout": 5}, room=1000
        )
        for _ in range(6):
            self.server.advance(1)
        self.assertIsInstance(self.app.errors[0], WebSocketClosed)
        self.assertTrue(client.client.reset)
        self.assertEqual(self.records[0].outcome, "timeout")

    def test_request_timeout(self) -> None:
        """The request timeout ends at the upgrade; the application can set one."""
        client = self.open(settings={"request_timeout": 5}, ping=0)
        for _ in range(10):
            self.server.advance(1)
        client.send("alive")
        self.assertEqual(client.receive(), "alive")

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            opened = websocket(environ, ping=0)
            environ["txgreenwsgi.set_request_timeout"](5)
            echo(opened)
            return []

        records: list[ExchangeRecord] = []
        server = self.serve(app, [records.append])
        server.websocket()
        for _ in range(6):
            server.advance(1)
        self.assertEqual([record.outcome for record in records], ["timeout"])


class CompressionTests(WebSocketCase):
    """permessage-deflate (RFC 7692)."""

    def open_compressed(
        self, offer: str = "permessage-deflate", **arguments: Any
    ) -> MemoryWebSocket:
        """Return a client that has offered compression."""
        self.app = Application(echo, **arguments)
        self.server = self.serve(self.app)
        headers = [("Sec-WebSocket-Extensions", offer)]
        return self.server.websocket(headers=headers)

    def test_offers(self) -> None:
        """The first acceptable offer is accepted, without context takeover."""
        flags = "server_no_context_takeover; client_no_context_takeover"
        accepted = f"permessage-deflate; {flags}"
        for offer, answer in (
            ("permessage-deflate", accepted),
            ("permessage-deflate; client_max_window_bits", accepted),
            ("permessage-deflate; client_max_window_bits=10", accepted),
            ("x-other, permessage-deflate", accepted),
            ('permessage-deflate; server_max_window_bits="10"', accepted + "; 10"),
            ("permessage-deflate; server_max_window_bits=8", None),
            ("permessage-deflate; server_max_window_bits=016", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; unknown", None),
            ("permessage-deflate; unknown, permessage-deflate", accepted),
            (
                "permessage-deflate; client_max_window_bits; client_max_window_bits",
                None,
            ),
            ("permessage-deflate;;", None),
            ("permessage-deflate x", None),
            ("x-webkit-deflate-frame", None),
        ):
            with self.subTest(offer):
                client = self.open_compressed(offer)
                got = client.response.header("Sec-WebSocket-Extensions")
                if answer is not None:
                    answer = answer.replace("; 10", "; server_max_window_bits=10")
                self.assertEqual(got, answer)

    def test_metrics(self) -> None:
        """Metrics count the content of messages, not what is sent."""
        values = [0.0] * SIZE

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            server = environ["txgreenwsgi.stopping"].__self__.server
            self.sampler = measure(server, values, self.server.reactor)
            self.addCleanup(self.sampler.stop)
            echo(websocket(environ))
            return []

        self.server = self.serve(app)
        headers = [("Sec-WebSocket-Extensions", "permessage-deflate")]
        client = self.server.websocket(headers=headers)
        content = deflated(b"long " * 50_000)
        client.client.send(masked(0x42, content[:10]))
        client.client.send(masked(0x80, content[10:]))
        client.client.send(masked(0x82, b"short"))
        self.sampler.count()
        name = "txgreenwsgi_websocket_message_bytes_total"
        self.assertEqual(
            series_by_label(values, name), {"received": 250_005, "sent": 250_005}
        )
        client.client.disconnect()

    def test_refused(self) -> None:
        """compress=False refuses each offer."""
        client = self.open_compressed(compress=False)
        self.assertIsNone(client.response.header("Sec-WebSocket-Extensions"))

    def test_echo(self) -> None:
        """Compressed messages arrive; long answers are compressed, short ones not."""
        client = self.open_compressed()
        for message in (b"short", b"long " * 50_000, b""):
            before = len(client.client.received)
            client.client.send(masked(0xC2, deflated(message)))
            answer = client.client.received[before:]
            self.assertEqual(bool(answer[0] & 0x40), len(message) > 255)
            if len(message) > 255:
                self.assertLess(len(answer), 3000)
                start = 4 if answer[1] == 126 else 2
                inflater = zlib.decompressobj(-15)
                content = inflater.decompress(answer[start:] + b"\0\0\xff\xff")
                self.assertEqual(content, message)

    def test_fragments_and_pings(self) -> None:
        """A ping between compressed fragments does not disturb the message."""
        client = self.open_compressed()
        payload = deflated(b"abc" * 30)
        frames = masked(0x41, payload[:5]) + masked(0x89, b"!")
        client.client.send(frames + masked(0x80, payload[5:]))
        self.assertEqual(client.receive(), "abc" * 30)
        self.assertEqual(client.pongs, [b"!"])

    def test_final_blocks(self) -> None:
        """A message may consist of final blocks (RFC 7692 section 7.2.3.4)."""
        client = self.open_compressed()
        deflater = zlib.compressobj(wbits=-15)
        block = deflater.compress(b"Hello") + deflater.flush(zlib.Z_FINISH)
        for payload in (block + b"\0", block + deflated(b"")):
            client.client.send(masked(0xC1, payload))
            self.assertEqual(client.receive(), "Hello")

    def test_bomb(self) -> None:
        """A message that inflates beyond the limit closes with 1009."""
        client = self.open_compressed(max_message=100_000)
        client.client.send(masked(0xC2, deflated(bytes(90_000_000))))
        self.assert_closed(client, 1009)
        client = self.open_compressed(max_message=100_000)
        before = len(client.client.received)
        client.client.send(masked(0xC2, deflated(bytes(100_000))))
        self.assertEqual(client.client.received[before], 0xC2)

    def test_invalid(self) -> None:
        """Invalid compressed data closes with 1007."""
        client = self.open_compressed()
        client.client.send(masked(0xC2, b"\xff" * 20))
        self.assert_closed(client, 1007)

    def test_rsv1_in_continuation(self) -> None:
        """RSV1 in a continuation frame closes with 1002."""
        client = self.open_compressed()
        client.client.send(masked(0x42, b"") + masked(0xC0, b"x"))
        self.assert_closed(client, 1002)


class PingTests(WebSocketCase):
    """Pings of the server."""

    def test_interval(self) -> None:
        """Pings are sent at the interval; answers keep the connection open."""
        client = self.open(ping=10)
        for _ in range(45):
            self.server.advance(1)
            client.update()
        self.assertEqual(len(client.pings), 4)
        client.send("alive")
        self.assertEqual(client.receive(), "alive")

    def test_no_answer(self) -> None:
        """A client that answers no ping is lost after the second interval."""
        client = self.open(ping=10)
        for _ in range(30):
            self.server.advance(1)
        self.assertEqual(self.app.ended, 1)
        self.assertEqual(self.app.sockets[0].close_code, 1006)
        self.assertTrue(client.client.reset)
        self.assertEqual(self.records[0].outcome, "disconnected")

    def test_data_is_an_answer(self) -> None:
        """A message shows as well that the client lives."""
        client = self.open(ping=10)
        for _ in range(50):
            self.server.advance(1)
            client.client.send(masked(0x81, b"x"))
        self.assertEqual(self.app.ended, 0)

    def test_off(self) -> None:
        """With ping=0, no ping is sent."""
        client = self.open(ping=0)
        for _ in range(100):
            self.server.advance(1)
        client.update()
        self.assertEqual((client.pings, self.app.ended), ([], 0))

    def test_paused_reading(self) -> None:
        """A client whose messages wait in the queue is not lost."""

        def serve(opened: WebSocket) -> None:
            sleep(100)
            echo(opened)

        client = self.open(serve, ping=10)
        client.client.send(masked(0x82, bytes(1000)) * 100)
        for _ in range(60):
            self.server.advance(1)
        self.assertEqual(self.app.ended, 0)
        self.assertFalse(client.closed)
        self.server.advance(40)


class ShutdownTests(WebSocketCase):
    """WebSockets when the server stops."""

    def test_going_away(self) -> None:
        """The shutdown closes with 1001, and completes with the client's answer."""
        client = self.open()
        done = self.server.site.stop(30)
        self.server.settle()
        self.assert_closed(client, 1001)
        client.client.end()
        self.server.settle()
        self.assertTrue(done.called)

    def test_unanswered(self) -> None:
        """A client that does not answer delays the shutdown for 2 seconds."""
        client = self.open()
        done = self.server.site.stop(30)
        for _ in range(4):
            self.server.advance(0.75)
        self.assertEqual(self.app.ended, 1)
        client.client.disconnect()
        self.server.settle()
        self.assertTrue(done.called)

    def test_application_goes_on(self) -> None:
        """An application that does not notice the close is cancelled."""
        client = self.open(lambda _: sleep(1000))
        done = self.server.site.stop(5)
        self.server.settle()
        client.update()
        self.assertEqual(client.close_code, 1001)
        self.server.advance(6)
        client.client.disconnect()
        self.assertEqual(self.app.ended, 1)
        self.assertTrue(done.called)

    def test_new_ones(self) -> None:
        """During the shutdown, new WebSockets are refused with 503."""
        self.open(lambda _: sleep(1000))
        self.server.site.stop(30)
        with self.assertRaisesRegex(AssertionError, "503"):
            self.server.websocket()
        self.server.advance(31)


class DescriptorTests(WebSocketCase):
    """`fileno`, for code that waits with poll()."""

    def test_readable(self) -> None:
        """It is readable while a message waits, and when the WebSocket is closed."""
        import select

        seen: list[bool] = []

        def readable(opened: WebSocket) -> bool:
            return bool(select.select([opened], [], [], 0)[0])

        def serve(opened: WebSocket) -> None:
            seen.append(readable(opened))
            sleep(1)
            seen.append(readable(opened))
            opened.receive()
            seen.append(readable(opened))
            sleep(1)
            seen.append(readable(opened))

        client = self.open(serve)
        client.send("hello")
        self.server.advance(1)
        client.close()
        self.server.advance(1)
        self.assertEqual(seen, [False, True, False, True])
