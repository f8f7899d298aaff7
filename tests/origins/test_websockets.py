"""The WebSockets of gevent-websocket and uWSGI, in memory."""

from __future__ import annotations

import sys
from contextvars import Context
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import WebSocketRefused
from txgreenwsgi.origins import gevent_websocket, uwsgi
from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Iterable

Environ = dict[str, Any]


class GeventWebSocketTests(LeakCheckMixin, SynchronousTestCase):
    """`wsgi.websocket`."""

    def tearDown(self) -> None:
        """Remove the modules that `prepare` has provided."""
        for name in ("geventwebsocket", "geventwebsocket.exceptions"):
            sys.modules.pop(name, None)

    def test_echo(self) -> None:
        """Messages both ways; None at the end, then WebSocketError."""
        seen: list[object] = []

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            from geventwebsocket import WebSocketError

            ws = environ["wsgi.websocket"]
            seen.append((ws.path, ws.origin, ws.version, ws.protocol, ws.closed))
            while (message := ws.receive()) is not None:
                ws.send(message)
            self.assertTrue(ws.closed)
            self.assertRaises(WebSocketError, ws.receive)
            self.assertRaises(WebSocketError, ws.send, "more")
            seen.append(environ["wsgi.websocket_version"])
            start_response("200 OK", [])
            return [b"discarded"]

        server = self.serve(gevent_websocket.adapt(app))
        headers = [("Origin", "http://other.example")]
        client = server.websocket("/chat", headers)
        client.send("text")
        client.send(b"bytes")
        client.update()
        self.assertEqual(client.messages, ["text", b"bytes"])
        client.close(4000)
        self.assertEqual(client.close_code, 4000)
        first = ("/chat", "http://other.example", "13", None, False)
        self.assertEqual(seen, [first, "13"])

    def test_kinds_of_messages(self) -> None:
        """`binary` decides about the kind; None is an empty message."""

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            ws = environ["wsgi.websocket"]
            ws.send(b"text", binary=False)
            ws.send("bytes", binary=True)
            ws.send(None)
            ws.close(4001, b"enough")
            return []

        client = self.serve(gevent_websocket.adapt(app)).websocket()
        client.update()
        self.assertEqual(client.messages, ["text", b"bytes", ""])
        self.assertEqual((client.close_code, client.close_reason), (4001, "enough"))

    def test_plain_requests(self) -> None:
        """Other requests have no such key."""

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            return [b"%r" % ("wsgi.websocket" in environ)]

        self.assertEqual(
            self.serve(gevent_websocket.adapt(app)).request().body, b"False"
        )


class UwsgiTests(LeakCheckMixin, SynchronousTestCase):
    """The functions `websocket_*`."""

    def test_echo(self) -> None:
        """`websocket_recv` returns bytes, and raises OSError at the end."""
        seen: list[object] = []

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            key = environ["HTTP_SEC_WEBSOCKET_KEY"]
            uwsgi.websocket_handshake(key, environ.get("HTTP_ORIGIN", ""))
            try:
                while True:
                    message = uwsgi.websocket_recv()
                    seen.append(message)
                    uwsgi.websocket_send(message)
                    uwsgi.websocket_send_binary(message)
            except OSError as error:
                seen.append(type(error).__name__)
                raise

        server = self.serve(uwsgi.adapt(app))
        client = server.websocket(subprotocols=["a", "b"])
        self.assertEqual(client.subprotocol, "a")
        client.send("text")
        client.update()
        self.assertEqual(client.messages, ["text", b"text"])
        client.close()
        self.assertEqual(seen, [b"text", "WebSocketClosed"])
        self.assertEqual(server.tasks, [])

    def test_poll(self) -> None:
        """`connection_fd` with `wait_fd_read`, and `websocket_recv_nb`."""

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            uwsgi.websocket_handshake()
            fd = uwsgi.connection_fd()
            while True:
                uwsgi.wait_fd_read(fd, 3)
                uwsgi.suspend()
                if uwsgi.ready_fd() == fd:
                    while message := uwsgi.websocket_recv_nb():
                        uwsgi.websocket_send(message)
                else:
                    uwsgi.websocket_send("tick")

        server = self.serve(uwsgi.adapt(app))
        client = server.websocket()
        client.send("one")
        server.settle()
        self.assertEqual(client.receive(), "one")
        server.advance(3)
        self.assertEqual(client.receive(), "tick")
        client.close()
        server.settle()
        self.assertEqual(server.tasks, [])

    def test_misuse(self) -> None:
        """Calls outside of a request, before and without a handshake."""
        with self.assertRaisesRegex(OSError, "outside of a request"):
            Context().run(uwsgi.websocket_handshake)
        errors: list[str] = []

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            with self.assertRaisesRegex(OSError, "before uwsgi.websocket_handshake"):
                uwsgi.websocket_recv()
            try:
                uwsgi.websocket_handshake()
            except WebSocketRefused as error:
                errors.append(str(error))
                raise
            return []

        response = self.serve(uwsgi.adapt(app)).request()
        self.assertEqual(response.status, 400)
        self.assertIn("the request is not", errors[0])
