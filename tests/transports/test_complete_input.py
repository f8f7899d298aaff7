"""Request bodies that are complete when the application is called."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.logger import formatEvent

from .harness import HTTP1, OWN, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import App, Environ, Server, Start
    from .harness_clients import Reply

#: Kept in memory, also twice.
LONG = bytes(range(256)) * 50

#: Transports without threads, which use the disk directly. On real sockets,
#: tests/integration/test_complete_input.py covers bodies in files.
WITHOUT_THREADS = ["Memory", "Tls"]


def by_length(environ: Environ, start: Start) -> Iterable[bytes]:
    """Echo CONTENT_LENGTH bytes, as applications that ignore `input_terminated` do."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start("200 OK", TEXT)
    return [body]


def by_end(environ: Environ, start: Start) -> Iterable[bytes]:
    """Echo each piece as it arrives, up to the end of the input."""
    write = start("200 OK", TEXT)
    write(b"ready ")
    while piece := environ["txgreenwsgi.recv"](environ, 65536):
        write(piece)
    return []


class UnsizedCases(Cases):
    """Bodies without a Content-Length: chunked, or by HTTP/2."""

    def send(self, server: Server, *pieces: bytes) -> Reply:
        """Send a request whose body has no Content-Length."""
        reply = server.begin("POST", unsized=True)
        for piece in pieces[:-1]:
            server.send_body(reply, piece)
        server.send_body(reply, pieces[-1], end=True)
        return reply

    def test_length(self) -> None:
        """A body of any size has a CONTENT_LENGTH and no transfer coding."""
        for pieces in ((b"a",), (b"abc", b"def"), (LONG, b"x", LONG)):
            server = self.serve(by_length)
            self.assert_complete(self.send(server, *pieces), b"".join(pieces))
            [environ] = server.app.environs
            self.assertEqual(environ["CONTENT_LENGTH"], str(len(b"".join(pieces))))
            self.assertNotIn("HTTP_TRANSFER_ENCODING", environ)
            self.assertIs(environ["wsgi.input_terminated"], True)

    def test_seek(self) -> None:
        """The input can seek."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            body = environ["wsgi.input"]
            self.assertTrue(body.seekable())
            whole = body.read()
            self.assertEqual((body.tell(), body.read(1)), (len(whole), b""))
            self.assertEqual(body.seek(0), 0)
            self.assertEqual(body.readline(5) + body.read(), whole)
            self.assertEqual(body.seek(-3, os.SEEK_END), len(whole) - 3)
            self.assertEqual(
                (body.read(2), body.tell()), (whole[-3:-1], len(whole) - 1)
            )
            self.assertEqual(body.seek(-2, os.SEEK_CUR), len(whole) - 3)
            self.assertEqual(body.read(9), whole[-3:])
            self.assertEqual(body.seek(len(whole) + 9), len(whole) + 9)
            self.assertEqual((body.read(), body.readlines()), (b"", []))
            for offset, whence in ((-1, 0), (-len(whole) - 1, 2), (0, 3)):
                self.assertRaises(ValueError, body.seek, offset, whence)
            body.seek(1)
            self.assertEqual(environ["txgreenwsgi.recv"](environ, 2), whole[1:3])
            self.assertEqual(body.tell(), 3)
            start("200 OK", TEXT)
            return [b"ok"]

        for pieces in ((b"line\n", b"abcdef"), (LONG, LONG)):
            self.assert_complete(self.send(self.serve(app), *pieces), b"ok")


class FileCases(UnsizedCases):
    """The same with bodies in temporary files."""

    def serve(self, app: App, **settings: Any) -> Server:
        """Return a server that keeps 5 bytes in memory."""
        return super().serve(app, **{"buffer_memory": 5, **settings})

    def test_beginning_in_a_file(self) -> None:
        """The beginning of a streamed body is read from its file before the rest."""
        server = self.serve(by_end)
        reply = server.begin("POST", unsized=True)
        beginning = LONG * 100
        server.send_body(reply, beginning)
        server.advance(1.5)
        self.assertEqual(reply.body, b"ready " + beginning)
        server.send_body(reply, b"end", end=True)
        self.assert_complete(reply, b"ready " + beginning + b"end")


class ChunkedCases(Cases):
    """Chunked bodies on HTTP/1.1."""

    def test_empty(self) -> None:
        """An empty chunked body has the CONTENT_LENGTH 0."""
        server = self.serve(by_length)
        reply = server.begin("POST", unsized=True)
        server.send_body(reply, b"", end=True)
        self.assert_complete(reply, b"")
        # The end arrives together with the head.
        reply = server.begin("POST", headers=[("Transfer-Encoding", "chunked")])
        self.assert_complete(reply, b"")
        self.assertEqual(len(server.app.environs), 2)
        for environ in server.app.environs:
            self.assertEqual(environ["CONTENT_LENGTH"], "0")
            self.assertNotIn("HTTP_TRANSFER_ENCODING", environ)
            self.assertTrue(environ["wsgi.input"].seekable())


class BufferedCases(Cases):
    """`buffer_input`, which twisted.web implies."""

    def test_rewind(self) -> None:
        """The input of every request can be rewound, also without a body."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            body = environ["wsgi.input"]
            first = body.read()
            self.assertEqual(body.seek(0), 0)
            start("200 OK", TEXT)
            return [first + b" " + body.read(), b" %d" % body.tell()]

        server = self.serve(app, buffer_input=True)
        self.assert_complete(server.begin("POST", body=b"abc"), b"abc abc 3")
        self.assert_complete(server.begin(), b"  0")


class AheadCases(Cases):
    """The start of the application under the values of `chunked`."""

    def test_slow_client(self) -> None:
        """A client that never pauses for a second has its body received ahead."""
        server = self.serve(by_length)
        reply = server.begin("POST", unsized=True)
        for _ in range(6):
            server.advance(0.75)
            server.send_body(reply, b"abc")
        self.assertEqual(server.app.environs, [])
        server.send_body(reply, b"", end=True)
        self.assert_complete(reply, b"abc" * 6)

    def test_conversation(self) -> None:
        """If the client waits, the application starts, and reads as pieces arrive."""
        for first in (b"", b"one "):
            server = self.serve(by_end)
            reply = server.begin("POST", unsized=True)
            if first:
                server.send_body(reply, first)
            server.advance(0.5)
            self.assertEqual(reply.body, b"")
            server.advance(1)
            self.assertEqual(reply.body, b"ready " + first)
            server.send_body(reply, b"two ")
            self.assertEqual(reply.body, b"ready " + first + b"two ")
            server.advance(5)
            server.send_body(reply, b"three", end=True)
            self.assert_complete(reply, b"ready " + first + b"two three")
            [environ] = server.app.environs
            self.assertNotIn("CONTENT_LENGTH", environ)
            if server.version == "HTTP/1.1":
                self.assertEqual(environ["HTTP_TRANSFER_ENCODING"], "chunked")
            self.assertFalse(hasattr(environ["wsgi.input"], "seek"))

    def test_stream(self) -> None:
        """With chunked=stream the application starts at once."""
        server = self.serve(by_end, chunked="stream")
        reply = server.begin("POST", unsized=True)
        self.assertEqual(reply.body, b"ready ")
        server.send_body(reply, b"one", end=True)
        self.assert_complete(reply, b"ready one")

    def test_buffer(self) -> None:
        """With chunked=buffer the application starts after the end of the body."""
        server = self.serve(by_length, chunked="buffer")
        reply = server.begin("POST", unsized=True)
        for _ in range(3):
            server.send_body(reply, b"abc")
            server.advance(20)
        self.assertEqual(server.app.environs, [])
        server.send_body(reply, b"", end=True)
        self.assert_complete(reply, b"abc" * 3)

    def test_sized_body_streams(self) -> None:
        """A body with a Content-Length starts the application at once."""
        server = self.serve(by_end)
        reply = server.begin("POST", body=b"one ", length=7)
        self.assertEqual(reply.body, b"ready one ")
        server.send_body(reply, b"two", end=True)
        self.assert_complete(reply, b"ready one two")

    def test_refused(self) -> None:
        """A body too long or too late is refused without the application."""
        server = self.serve(by_length, max_body=10, chunked="buffer", body_timeout=3)
        reply = server.begin("POST", unsized=True)
        server.send_body(reply, b"hello world")
        self.assert_complete(reply, status=413)
        reply = server.begin("POST", unsized=True)
        server.advance(4)
        self.assert_complete(reply, status=408)
        self.assertEqual(server.app.environs, [])

    def test_limit_behind_a_pause(self) -> None:
        """The maximum size counts the bytes received ahead."""
        server = self.serve(by_end, max_body=10)
        reply = server.begin("POST", unsized=True)
        server.send_body(reply, b"hello ")
        server.advance(1.5)
        self.assertEqual(reply.body, b"ready hello ")
        server.send_body(reply, b"world")
        self.assert_cut(reply, b"ready hello ")
        self.errors()

    def test_request_timeout(self) -> None:
        """The time limit of a request includes receiving its body."""
        server = self.serve(by_length, request_timeout=5, chunked="buffer")
        reply = server.begin("POST", unsized=True)
        server.advance(6)
        self.assert_complete(reply, status=504)
        self.assertEqual(server.app.environs, [])

    def test_disconnect(self) -> None:
        """If the client disconnects during its body, the application is not called."""
        server = self.serve(by_length)
        reply = server.begin("POST", unsized=True)
        server.send_body(reply, b"abc")
        server.disconnect(reply)
        self.assertEqual(server.app.environs, [])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])

    def test_ask_for_the_rest(self) -> None:
        """`txgreenwsgi.buffer_input` receives the rest of the body."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.buffer_input"](environ)
            self.assertEqual(environ["wsgi.input"].seek(0), 0)
            self.assertNotIn("HTTP_TRANSFER_ENCODING", environ)
            environ["txgreenwsgi.buffer_input"](environ)  # a no-op
            return by_length(environ, start)

        for chunked, strict in (("auto", False), ("stream", False), ("auto", True)):
            server = self.serve(app, chunked=chunked, strict=strict)
            reply = server.begin("POST", unsized=True)
            server.send_body(reply, b"abc")
            server.advance(1.5)
            self.assertEqual(reply.body, b"")
            server.send_body(reply, b"def", end=True)
            self.assert_complete(reply, b"abcdef")

    def test_ask_too_late(self) -> None:
        """It is a no-op after a read, or if middleware has replaced the input."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            given = environ["wsgi.input"]
            if environ["PATH_INFO"] == "/read":
                given.read(1)
            else:
                environ["wsgi.input"] = object()
            before = dict(environ)
            environ["txgreenwsgi.buffer_input"](environ)
            self.assertEqual(environ, before)
            start("200 OK", TEXT)
            return [given.read()]

        for target, rest in (("/read", b"bc"), ("/replaced", b"abc")):
            server = self.serve(app, chunked="stream")
            reply = server.begin("POST", target, unsized=True)
            server.send_body(reply, b"abc")
            server.send_body(reply, b"", end=True)
            self.assert_complete(reply, rest)

    def test_unread_body_is_logged(self) -> None:
        """An application that reads none of a body without a length is logged."""
        for beginning in (b"abc", b""):
            self.events.clear()
            server = self.serve(by_length)
            reply = server.begin("POST", unsized=True)
            if beginning:
                server.send_body(reply, beginning)
            server.advance(1.5)
            self.assert_complete(reply, b"")
            logged = [formatEvent(event) for event in self.events]
            self.assertIn("serve it with --chunked buffer", "".join(map(str, logged)))


class ExpectCases(Cases):
    """`Expect: 100-continue` with a body that is received ahead."""

    def test_continue(self) -> None:
        """The client is asked for the body before the application is called."""
        server = self.serve(by_length)
        reply = server.begin("POST", headers=[("Expect", "100-continue")], unsized=True)
        server.send_body(reply, b"abc")
        self.assertEqual(server.app.environs, [])
        server.send_body(reply, b"", end=True)
        self.assert_complete(reply, b"abc")


globals().update(on_every_transport(UnsizedCases, BufferedCases))
globals().update(on_every_transport(FileCases, only=WITHOUT_THREADS))
globals().update(on_every_transport(ChunkedCases, only=HTTP1))
globals().update(on_every_transport(AheadCases, ExpectCases, only=OWN))
