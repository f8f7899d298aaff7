"""Responses that break PEP 3333 without harm: accepted by default, errors if strict."""

from __future__ import annotations

from collections import deque
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel, formatEvent

from .harness import HTTP1, HTTP2, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .harness import App, Environ, Start, TransportCase
    from .harness_clients import Reply

#: The fields that belong to the connection, each with an ordinary value.
HOP_BY_HOP = {
    "Connection": "keep-alive",
    "Keep-Alive": "timeout=5",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authorization": "Basic eA==",
    "Proxy-Connection": "keep-alive",
    "TE": "trailers",
    "Trailer": "Expires",
    "Trailers": "Expires",
    "Transfer-Encoding": "chunked",
    "Upgrade": "websocket",
}


def answering(
    fields: Any = TEXT, *blocks: Any, status: Any = "200 OK", kind: Any = list
) -> App:
    """Return an application with that response, whose body is "body" by default."""

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start(status, fields)
        answer: Iterable[bytes] = kind(blocks or [b"body"])
        return answer

    return app


def warnings(case: TransportCase) -> list[str]:
    """Return the warnings of the server in the log.

    Without those about a blocked reactor, which a busy machine causes.
    """
    return [
        formatEvent(event)
        for event in case.events
        if event.get("log_level") is LogLevel.warn
        and event["log_namespace"].startswith("txgreenwsgi")
        and event["log_namespace"] != "txgreenwsgi._serving.monitor"
    ]


class LenientCases(Cases):
    """Heads and blocks in other forms than PEP 3333 requires."""

    def assert_sent(self, app: App, body: bytes = b"body", status: int = 200) -> Reply:
        """Fail unless the response is complete and nothing was logged."""
        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, body, status)
        self.assertEqual((self.errors(), warnings(self)), ([], []))
        return reply

    def test_status_without_reason(self) -> None:
        """A status may be three digits."""
        for status in (200, 201, 299, 404, 500, 999):
            self.assert_sent(answering(status=str(status)), status=status)

    def test_iterables_of_headers(self) -> None:
        """The headers may be any iterable of pairs."""
        pairs = [("Content-Type", "text/x"), ("X-One", "1")]
        for fields in (
            tuple(pairs),
            iter(pairs),
            dict(pairs).items(),
            deque(pairs),
            [list(pair) for pair in pairs],
            (list(pair) for pair in pairs),
            zip(*zip(*pairs, strict=True), strict=True),
        ):
            reply = self.assert_sent(answering(fields))
            self.assertEqual(reply.header("Content-Type"), "text/x")
            self.assertEqual(reply.header("X-One"), "1")

    def test_bytes_like_blocks(self) -> None:
        """A block may be any bytes-like object, in an iterable of any kind."""
        for kind in (list, tuple, iter, deque):
            for block in (bytearray(b"body"), memoryview(b"body")):
                self.assert_sent(answering(TEXT, block, kind=kind))
                self.assert_sent(
                    answering(TEXT, b"any", bytearray(), block, b"", kind=kind),
                    b"anybody",
                )

    def test_bytes_like_writes(self) -> None:
        """write() takes any bytes-like object, and copies it."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            block = bytearray(b"x" * 100_000)
            write(block)
            block[:] = b"y"
            write(memoryview(block))
            write(bytearray())
            return []

        self.assert_sent(app, b"x" * 100_000 + b"y")

    def test_files(self) -> None:
        """A wrapped file may return bytearrays."""

        class File(BytesIO):
            def read(self, size: int | None = -1, /) -> Any:
                return bytearray(super().read(size))

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](File(b"body"))
            return wrapped

        self.assert_sent(app)


class HopByHopCases(Cases):
    """Response fields that belong to the connection."""

    def test_dropped(self) -> None:
        """Each is dropped with a warning, and the connection persists."""
        for name, value in HOP_BY_HOP.items():
            for spelt in (name, name.upper()):
                self.events.clear()
                fields = [(spelt, value), ("X-One", "1"), *TEXT]
                server = self.serve(answering(fields))
                reply = server.begin()
                self.assert_complete(reply, b"body")
                self.assertEqual(reply.values(name), [])
                self.assertEqual(reply.header("X-One"), "1")
                self.assert_complete(server.begin(on=reply), b"body")
                [warning] = warnings(self)
                self.assertIn(f"field dropped: {spelt}, set at ", warning)
                self.assertIn(f"{__file__}:", warning)
                self.assertIn("for GET / (request ", warning)
        self.assertEqual(self.errors(), [])

    def test_one_warning_for_each_place(self) -> None:
        """A place in the application is logged once for each field."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            name = "Keep-Alive" if path == "/other" else "Upgrade"
            if path == "/there":
                start("200 OK", [(name, "x"), *TEXT])
            else:
                start("200 OK", [(name, "x"), *TEXT])
            return [b"body"]

        server = self.serve(app)
        for path, count in (
            *(("/", 1), ("/", 1), ("/again", 1), ("/there", 2), ("/there", 2)),
            *(("/other", 3), ("/other", 3), ("/", 3)),
        ):
            self.assert_complete(server.begin(target=path), b"body")
            self.assertEqual(len(warnings(self)), count, path)

    def test_streamed_events(self) -> None:
        """A stream of events with `Connection: keep-alive` arrives block by block."""
        blocks = deque([b"data: 1\n\n", b"data: 2\n\n"])

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start(
                "200 OK",
                [
                    ("Content-Type", "text/event-stream"),
                    ("Connection", "keep-alive"),
                    ("Transfer-Encoding", "chunked"),
                ],
            )
            while blocks:
                yield blocks.popleft()
                environ["txgreenwsgi.sleep"](1)

        server = self.serve(app)
        reply = server.begin()
        self.assertEqual((reply.status, reply.body), (200, b"data: 1\n\n"))
        server.advance(1)
        self.assertEqual(reply.body, b"data: 1\n\ndata: 2\n\n")
        server.advance(1)
        self.assert_complete(reply)
        self.assertEqual(len(warnings(self)), 2)

    def test_transfer_encoding_with_a_length(self) -> None:
        """Content-Length alone delimits a body whose Transfer-Encoding is dropped."""
        chunks = b"4\r\nbody\r\n0\r\n\r\n"
        for extra, body in ((b"", b"body"), (chunks, b"body" + chunks)):
            fields = [
                ("Transfer-Encoding", "chunked"),
                ("Content-Length", str(4 + len(extra))),
                *TEXT,
            ]
            server = self.serve(answering(fields, b"body", extra, kind=iter))
            reply = server.begin()
            server.advance(0)
            self.assert_complete(reply, body)
            self.assertEqual(reply.values("Transfer-Encoding"), [])
            again = server.begin(on=reply)
            server.advance(0)
            self.assert_complete(again, body)

    def test_other_transfer_codings(self) -> None:
        """A coding that changes the body is an error: its client could not read it."""
        for coding in ("gzip", "gzip, chunked", "chunked, br"):
            reply = self.ask(answering([("Transfer-Encoding", coding), *TEXT]))
            self.assert_complete(reply, b"Internal Server Error\n", status=500)
            self.assertEqual(len(self.errors()), 1)

    def test_splitting(self) -> None:
        """A line break in a field that would be dropped is an error."""
        reply = self.ask(answering([("Connection", "x\r\nX-Evil: 1"), *TEXT]))
        self.assert_complete(reply, status=500)
        self.assertIsNone(reply.header("X-Evil"))
        self.assertEqual(len(self.errors()), 1)


class CloseCases(Cases):
    """`Connection: close` of the application, over HTTP/1.1."""

    def test_closes(self) -> None:
        """The connection closes after the response, however the body is framed."""
        for method in ("GET", "HEAD"):
            for value in ("close", "CLOSE", "keep-alive, close"):
                for kind in (list, iter):
                    fields = [("Connection", value), *TEXT]
                    server = self.serve(answering(fields, b"bo", b"dy", kind=kind))
                    reply = server.begin(method)
                    server.advance(0)
                    self.assert_complete(reply, b"body" if method == "GET" else b"")
                    self.assertEqual(reply.values("Connection"), ["close"])
                    self.assertTrue(reply.connection.link.ended)
        self.assertEqual(self.errors(), [])

    def test_pipelined(self) -> None:
        """A request behind such a response is not served."""
        server = self.serve(answering([("Connection", "close"), *TEXT]))
        link = server.connect(slow=False)
        link.send(
            b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        server.settle()
        data = link.take()
        self.assertEqual(data.count(b"HTTP/1.1 200 OK"), 1)
        self.assertEqual([each["PATH_INFO"] for each in server.app.environs], ["/1"])
        link.disconnect()


class Http2CloseCases(Cases):
    """`Connection: close` of the application, over HTTP/2."""

    def test_ignored(self) -> None:
        """It is dropped: HTTP/2 has no such field (RFC 9113 section 8.2.2)."""
        server = self.serve(answering([("Connection", "close"), *TEXT]))
        reply = server.begin()
        self.assert_complete(reply, b"body")
        self.assertEqual(reply.values("Connection"), [])
        self.assert_complete(server.begin(on=reply), b"body")


class StrictCases(Cases):
    """The setting `strict`."""

    def test_conforming(self) -> None:
        """An application that conforms to PEP 3333 is served as without the setting."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            body = environ["wsgi.input"].read(2)
            body += environ["txgreenwsgi.recv"](environ, 100)
            body += b"".join(environ["wsgi.input"])
            environ["wsgi.errors"].write("line\n")
            write = start("200 OK", TEXT)
            write(b"written ")
            yield b""
            yield body

        server = self.serve(app, strict=True)
        reply = server.begin("POST", body=b"uploaded")
        server.advance(0)
        self.assert_complete(reply, b"written uploaded")
        for kind in (list, tuple, deque):
            reply = self.ask(answering(TEXT, b"one", kind=kind), strict=True)
            self.assert_complete(reply, b"one")
            self.assertEqual(reply.header("Content-Length"), "3")
        self.assertEqual([line for line in self.errors() if "line" not in line], [])

    def test_violations(self) -> None:
        """Everything that is accepted by default is an error, and so is more."""
        for app in (
            answering(status="200"),
            answering(tuple(TEXT)),
            answering(iter(TEXT)),
            answering([list(TEXT[0])]),
            answering([]),
            answering([*TEXT, ("Status", "200 OK")]),
            answering([*TEXT, ("X_", "1")]),
            answering([*TEXT, ("X-Tab", "a\tb")]),
            *(answering([*TEXT, field]) for field in HOP_BY_HOP.items()),
            *(
                answering(TEXT, block, kind=kind)
                for block in (bytearray(b"x"), memoryview(b"x"), "", "x", 1, None)
                for kind in (list, tuple, iter, deque)
            ),
        ):
            server = self.serve(app, strict=True)
            reply = server.begin()
            server.advance(0)
            self.assert_complete(reply, b"Internal Server Error\n", status=500)
            self.assertEqual(len(self.errors()), 1)
            self.assertEqual(warnings(self), [])


globals().update(on_every_transport(LenientCases, HopByHopCases, StrictCases))
globals().update(on_every_transport(CloseCases, only=HTTP1))
globals().update(on_every_transport(Http2CloseCases, only=HTTP2))
