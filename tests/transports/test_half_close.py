"""Clients that close their sending side and wait for the response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import GreenWSGIResource
from txgreenwsgi.settings import SettingError
from txgreenwsgi.testing import MemoryReactor

from .harness import HTTP1, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Server, Start
    from .harness_clients import Reply

#: Transports whose clients can half-close.
PLAIN = ["Memory", "Sockets"]


def slow(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer after 5 seconds, in two blocks 5 seconds apart."""
    sleep = environ["txgreenwsgi.sleep"]
    sleep(5)
    yield from _blocks(environ, start)
    sleep(5)
    yield b"second"


def _blocks(environ: Environ, start: Start) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    start("200 OK", TEXT)
    yield b"first "


class ServeCases(Cases):
    """`half_close="serve"`."""

    def half_closed(self, server: Server, method: str = "GET", **more: bytes) -> Reply:
        """Send a request, and close the sending side."""
        reply = server.begin(method, **more)  # type: ignore[arg-type]
        server.end_input(reply)
        return reply

    def test_slow_response(self) -> None:
        """A response that begins, and continues, later is sent completely."""
        server = self.serve(slow, half_close="serve")
        reply = self.half_closed(server)
        self.assertFalse(server.app.environs[0]["txgreenwsgi.client_disconnected"]())
        server.advance(5)
        self.assertEqual(reply.body, b"first ")
        server.advance(5)
        self.assert_complete(reply, b"first second")
        self.assertEqual(dict(reply.headers).get("connection"), "close")
        self.assertEqual(self.outcomes(), [(200, "finished")])
        self.assertTrue(reply.connection.link.ended)

    def test_request_body(self) -> None:
        """The body of the request is available."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](5)
            start("200 OK", TEXT)
            return [environ["wsgi.input"].read()]

        server = self.serve(app, half_close="serve")
        reply = self.half_closed(server, "POST", body=b"abc" * 30_000)
        server.advance(5)
        self.assert_complete(reply, b"abc" * 30_000)

    def test_long_response(self) -> None:
        """A response larger than all buffers is sent while the client reads."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return [bytes(server.large)]

        server = self.serve(app, half_close="serve")
        reply = server.begin(slow=True)
        server.end_input(reply)
        server.advance(1)
        self.assertEqual(reply.state, "waiting")
        server.read(reply)
        self.assert_complete(reply)
        self.assertEqual(len(reply.body), server.large)

    def test_incomplete_body(self) -> None:
        """If the body is incomplete, the end of the input is a disconnect."""
        server = self.serve(slow, half_close="serve")
        reply = server.begin("POST", body=b"abc", length=9)
        server.end_input(reply)
        server.advance(6)
        self.assert_cut(reply)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])

    def test_between_requests(self) -> None:
        """Between two requests, the end of the input closes the connection."""
        server = self.serve(
            lambda environ, start: _blocks(environ, start), half_close="serve"
        )
        reply = server.begin()
        self.assert_complete(reply, b"first ")
        server.end_input(reply)
        self.assertTrue(reply.connection.link.ended)

    def test_pipelined(self) -> None:
        """Requests received before the end of the input are answered in order."""
        server = self.serve(slow, half_close="serve")
        reply = server.begin()
        reply.connection.link.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        server.settle()
        server.end_input(reply)
        for _ in range(3):
            self.assertEqual(len(server.app.requests()), 1)
            server.advance(10)
        self.assertEqual(self.outcomes(), [(200, "finished")] * 3)
        self.assertTrue(reply.connection.link.ended)
        self.assertEqual(reply.connection.stray.count(b"HTTP/1.1 200 OK"), 2)
        reply.connection.stray = b""

    def test_pipelined_incomplete_body(self) -> None:
        """A pipelined request with an incomplete body is a disconnect."""
        server = self.serve(slow, half_close="serve", chunked="stream")
        reply = server.begin()
        reply.connection.link.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
        )
        server.settle()
        server.end_input(reply)
        server.advance(10)
        self.assert_complete(reply, b"first second")
        server.advance(10)
        self.assertEqual(self.outcomes(), [(200, "finished"), (0, "disconnected")])
        self.assertTrue(reply.connection.link.ended)

    def test_pipelined_incomplete_head(self) -> None:
        """An incomplete head behind the last request is dropped."""
        server = self.serve(slow, half_close="serve")
        reply = server.begin()
        reply.connection.link.send(b"GET / HT")
        server.settle()
        server.end_input(reply)
        server.advance(10)
        self.assert_complete(reply, b"first second")
        self.assertTrue(reply.connection.link.ended)

    def test_client_leaves_later(self) -> None:
        """A client that leaves after its half-close is detected by a send."""
        server = self.serve(slow, half_close="serve")
        reply = self.half_closed(server)
        server.disconnect(reply)
        server.advance(11)
        self.assertEqual(server.app.requests(), [])
        self.assertEqual(self.outcomes()[0][1], "disconnected")
        self.assertEqual(self.errors(), [])

    def test_request_timeout(self) -> None:
        """The time limit of a request applies."""
        server = self.serve(slow, half_close="serve", request_timeout=2)
        reply = self.half_closed(server)
        server.advance(3)
        self.assert_complete(reply, status=504)
        self.assertTrue(reply.connection.link.ended)

    def test_shutdown(self) -> None:
        """A shutdown waits for the response."""
        server = self.serve(slow, half_close="serve")
        reply = self.half_closed(server)
        stop = server.stop()
        self.assertFalse(stop.done)
        server.advance(11)
        self.assert_complete(reply, b"first second")
        self.assertTrue(stop.done)


class DisconnectCases(Cases):
    """`half_close="disconnect"`, the default."""

    def test_disconnect(self) -> None:
        """The end of the input during a request is a disconnect."""
        server = self.serve(slow)
        reply = server.begin()
        server.end_input(reply)
        self.assertTrue(server.app.environs[0]["txgreenwsgi.client_disconnected"]())
        server.advance(11)
        self.assert_cut(reply)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])


class TlsCases(Cases):
    """`half_close="serve"` on TLS."""

    def test_disconnect(self) -> None:
        """A close_notify closes the connection: Twisted ends both directions."""
        server = self.serve(slow, half_close="serve")
        reply = server.begin()
        server.end_input(reply)
        server.advance(11)
        self.assert_cut(reply)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])


class WebSettingTests(SynchronousTestCase):
    """`half_close` with twisted.web."""

    def test_refused(self) -> None:
        """The setting raises: twisted.web closes at the end of the input."""
        with self.assertRaises(SettingError) as raised:
            GreenWSGIResource(slow, reactor=MemoryReactor(), half_close="serve")
        self.assertIn("half_close", str(raised.exception))
        self.assertIn("twisted.web closes", str(raised.exception))


globals().update(on_every_transport(ServeCases, only=PLAIN))
globals().update(on_every_transport(TlsCases, only=["Tls"]))
globals().update(on_every_transport(DisconnectCases, only=HTTP1))
