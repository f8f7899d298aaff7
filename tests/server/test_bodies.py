"""Request bodies: 100 Continue, backpressure, draining, size limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel

from .application import TEXT, application
from .wire import WireTestCase, chunked, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txgreenwsgi.testing import MemoryClient

    from .application import Environ, Start

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def upload(target: str, size: int, *fields: str) -> bytes:
    """Return the head of a POST whose body has `length` bytes."""
    return get(target, *fields, f"Content-Length: {size}", method="POST")


class ArrivalTests(WireTestCase):
    """Bodies that arrive before, with and after the application's reads."""

    def test_application_starts_at_the_end_of_the_head(self) -> None:
        """The application starts before the body has arrived, and may respond first."""
        client = self.connected(application)
        client.send(upload("/echo-slices?size=3", 6))
        self.assertEqual(client.received, b"")
        client.send(b"abc")
        self.assertIn(b"\r\n\r\n3\r\nabc\r\n", client.received)
        client.send(b"def")
        self.assertEqual(self.only(client).body, b"abcdef")

    def test_body_that_came_with_the_head(self) -> None:
        """A body that came with the head can be read without parking."""
        waited: list[bool] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            task = environ["txgreenwsgi.current_task"]()
            body = environ["wsgi.input"].read()
            waited.append(task.parked_seconds > 0 or body != b"abc")
            start("200 OK", TEXT)
            return [body]

        server = self.serve(app)
        server.connect().send(post("/", b"abc"))
        self.assertEqual(waited, [False])

    def test_length_of_a_chunked_body(self) -> None:
        """Streamed, it has no CONTENT_LENGTH, but `wsgi.input_terminated`."""
        environ: Environ = {}

        def app(given: Environ, start: Start) -> Iterable[bytes]:
            environ.update(given)
            return application(given, start)

        client = self.connected(app, chunked="stream")
        client.send(chunked("/echo", b"abc", b"def"))
        self.assertEqual(self.only(client).body, b"abcdef")
        self.assertNotIn("CONTENT_LENGTH", environ)
        self.assertEqual(environ["HTTP_TRANSFER_ENCODING"], "chunked")
        self.assertIs(environ["wsgi.input_terminated"], True)

    def test_trailers(self) -> None:
        """Trailers are not fields of the request; the connection persists."""
        client = self.connected(application)
        trailers = b"X-Forwarded-For: 1.2.3.4\r\nContent-Length: 5\r\n"
        client.send(chunked("/environ", b"abc", trailers=trailers) + get("/"))
        environ, hello = client.responses()
        self.assertNotIn(b"1.2.3.4", environ.body)
        self.assertEqual(hello.body, b"hello\n")

    def test_recv(self) -> None:
        """recv() returns the bytes that have arrived, and b"" only at the end."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            while data := environ["txgreenwsgi.recv"](environ, 4):
                yield b"<%b>" % data

        client = self.connected(app)
        client.send(upload("/", 9))
        for piece in (b"a", b"bc", b"defghi"):
            client.send(piece)
        self.assertEqual(self.only(client).body, b"<a><bc><defg><hi>")

    def test_reading_at_the_end_takes_turns(self) -> None:
        """A loop that reads at the end of the body lets other tasks run."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/forever":
                while not environ["wsgi.input"].read(1):
                    pass
            return application(environ, start)

        server = self.serve(app)
        server.connect().send(get("/forever"))
        self.assertEqual(server.request().body, b"hello\n")

    def test_two_readers(self) -> None:
        """Two tasks that read one body at once get an error, and no parts."""
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            def read_too() -> None:
                try:
                    environ["wsgi.input"].read()
                except RuntimeError as error:
                    errors.append(str(error))

            other = environ["txgreenwsgi.spawn"](read_too)
            body = environ["wsgi.input"].read()
            other.wait()
            start("200 OK", TEXT)
            return [body]

        client = self.connected(app)
        client.send(upload("/", 3))
        client.send(b"abc")
        self.assertEqual(self.only(client).body, b"abc")
        self.assertEqual(
            errors, ["two tasks read the body of one request at the same time"]
        )

    def test_read_after_the_end_of_the_request(self) -> None:
        """A task that reads the body after the end of the request gets an error."""
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            def read_later() -> None:
                environ["txgreenwsgi.sleep"](1)
                try:
                    environ["wsgi.input"].read()
                except ValueError as error:
                    errors.append(str(error))

            environ["txgreenwsgi.spawn"](read_later)
            start("200 OK", TEXT)
            return [b"early\n"]

        server = self.serve(app)
        client = server.connect()
        client.send(post("/", b"abc") + upload("/", 3))
        client.send(b"ab")
        server.advance(1)
        client.send(b"c")
        self.assertEqual(
            errors, ["wsgi.input was read after the request had ended"] * 2
        )

    def test_reading_at_the_end_of_the_request(self) -> None:
        """A read that is parked at the end of the request raises an error."""
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            def read() -> None:
                try:
                    environ["wsgi.input"].read()
                except ValueError as error:
                    errors.append(str(error))

            environ["txgreenwsgi.spawn"](read)
            environ["txgreenwsgi.sleep"](0)
            start("200 OK", TEXT)
            return [b"early\n"]

        server = self.serve(app)
        client = server.connect()
        client.send(upload("/", 3))
        self.assertEqual(errors, ["wsgi.input was read after the request had ended"])
        client.send(b"abc" + get("/"))
        self.assertEqual([each.status for each in client.responses()], [200, 200])

    def test_close_reads_on_when_the_client_leaves(self) -> None:
        """A close() that reads the rest of the body gets ClientDisconnected."""
        errors: list[str] = []

        class Draining:
            def __init__(self, environ: Environ, start: Start) -> None:
                self.body = environ["wsgi.input"]
                start("200 OK", [*TEXT, ("Content-Length", "6")])

            def __iter__(self) -> Iterator[bytes]:
                yield b"early\n"

            def close(self) -> None:
                try:
                    self.body.read()
                except OSError as error:
                    errors.append(type(error).__name__)
                    raise

        server = self.recorded(Draining, body_timeout=0)
        client = server.connect()
        client.send(upload("/", 3))
        client.disconnect()
        self.assertEqual(errors, ["ClientDisconnected"])
        self.assertEqual(server.tasks, [])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_reader_of_another_task(self) -> None:
        """Another task of the application may read the body to its end."""
        errors: list[type] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            def read() -> None:
                try:
                    environ["wsgi.input"].read()
                except OSError as error:
                    errors.append(type(error))
                    raise

            environ["txgreenwsgi.spawn"](read).wait()
            return application(environ, start)

        client = self.connected(app)
        client.send(upload("/", 3))
        client.disconnect()
        self.assertEqual([each.__name__ for each in errors], ["ClientDisconnected"])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])


class ContinueTests(WireTestCase):
    """100 Continue (RFC 9110 section 10.1.1)."""

    def test_sent_when_the_application_reads(self) -> None:
        """100 Continue is sent at the application's first read, and once."""
        server = self.serve(application)
        client = server.connect()
        client.send(upload("/echo-slices?pause=1", 3, "Expect: 100-continue"))
        self.assertEqual(client.received, b"")
        server.advance(1)
        self.assertTrue(client.received.endswith(CONTINUE), client.received)
        client.send(b"abc")
        server.advance(1)
        server.advance(1)
        self.assertEqual(self.only(client).body, b"abc")
        self.assertEqual(client.received.count(CONTINUE), 1)

    def test_not_sent_without_a_read(self) -> None:
        """A response without a read of the body sends no 100, and closes."""
        client = self.connected(application)
        client.send(upload("/unread", 3, "Expect: 100-continue"))
        response = self.only(client)
        self.assertNotIn(CONTINUE, client.received)
        self.assertEqual(response.status, 403)
        self.assertEqual(response.header("Connection"), "close")
        self.assertTrue(client.closed)
        # The client sends the body nevertheless: it is not a request.
        client.send(b"abc" + get("/"))
        self.assertEqual(len(client.responses()), 1)

    def test_not_sent_after_the_response_has_begun(self) -> None:
        """A read after the start of the response sends no 100."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            yield b"go on: "
            yield environ["wsgi.input"].read()

        client = self.connected(app)
        client.send(upload("/", 3, "Expect: 100-continue"))
        client.send(b"abc")
        self.assertEqual(self.only(client).body, b"go on: abc")
        self.assertNotIn(CONTINUE, client.received)

    def test_not_sent_to_http_1_0(self) -> None:
        """HTTP/1.0 has no 100 Continue: the Expect field is ignored."""
        client = self.connected(application)
        head = upload("/echo", 3, "Expect: 100-continue")
        client.send(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assertEqual(client.received, b"")
        client.send(b"abc")
        self.assertEqual(self.only(client).body, b"abc")

    def test_not_sent_when_the_body_is_there(self) -> None:
        """A client that has sent its body without waiting gets no 100."""
        client = self.connected(application)
        client.send(upload("/echo", 3, "Expect: 100-continue") + b"abc")
        self.assertEqual(self.only(client).body, b"abc")
        self.assertNotIn(CONTINUE, client.received)

    def test_connection_persists(self) -> None:
        """After a body sent on 100 Continue, the next request is served."""
        client = self.connected(application)
        client.send(upload("/echo", 3, "Expect: 100-continue"))
        client.send(b"abc")
        client.send(get("/"))
        self.assertEqual(
            [each.body for each in client.responses()], [b"abc", b"hello\n"]
        )

    def test_too_large(self) -> None:
        """A body that is declared too large is refused before it is sent."""
        client = self.connected(application, max_body=10)
        client.send(upload("/echo", 11, "Expect: 100-continue"))
        self.assertEqual(self.only(client).status, 413)
        self.assertNotIn(CONTINUE, client.received)


class PressureTests(WireTestCase):
    """Backpressure: the part of a body that is held while it is not read."""

    def test_window(self) -> None:
        """Reading pauses at the window, and resumes when the application reads."""
        server = self.serve(application, input_window=1000)
        client = server.connect()
        client.send(upload("/echo-slices?size=100000&pause=1", 300_000))
        client.send(b"x" * 300_000, 10_000)
        self.assertTrue(client.channel.reading_paused)
        self.assertNotIn(client.transport, server.reactor.getReaders())
        body = client.channel.exchange.body
        self.assertLessEqual(body.held, 1000 + client.transport.bufferSize)
        server.advance(1)
        for _ in range(4):
            server.advance(1)
        self.assertEqual(self.only(client).body, b"x" * 300_000)

    def test_window_of_small_chunks(self) -> None:
        """Reading small pieces does not let many others in."""
        held: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            while environ["txgreenwsgi.recv"](environ, 1):
                held.append(client.channel.exchange.body.held)
                environ["txgreenwsgi.sleep"](0)
            start("200 OK", TEXT)
            return [b"%d" % len(held)]

        server = self.serve(app, input_window=1000, chunked="stream")
        client = server.connect()
        client.send(chunked("/", *[b"x"] * 15_000))
        self.assertTrue(client.channel.reading_paused)
        server.advance(1)
        for _ in range(100):
            server.settle()
        self.assertEqual(self.only(client).body, b"15000")
        self.assertLess(max(held), 1000 + client.transport.bufferSize // 6)

    def test_pipelined_requests_wait(self) -> None:
        """Behind a running request, only a limited part of the next ones is read."""
        server = self.serve(application)
        client = server.connect()
        client.send(get("/sleep") + get("/") * 5000)
        self.assertTrue(client.channel.reading_paused)
        self.assertGreater(len(client.socket.to_server), 80_000)
        server.advance(1)
        for _ in range(10):
            server.settle()
        self.assertEqual(len(client.responses()), 5001)

    def test_body_before_pipelined_requests(self) -> None:
        """Received bytes of later requests do not block the body before them."""
        server = self.serve(application, input_window=1000)
        client = server.connect()
        client.send(post("/echo-slices?size=500&pause=1", b"x" * 5000) + get("/"))
        for _ in range(12):
            server.advance(1)
        self.assertEqual(
            [each.body for each in client.responses()], [b"x" * 5000, b"hello\n"]
        )


class EarlyResponseTests(WireTestCase):
    """Responses to requests whose body is still arriving (RFC 9112 section 9.3)."""

    def test_short_rest_is_drained(self) -> None:
        """A short rest is drained, then the next request is served."""
        client = self.connected(application)
        client.send(upload("/unread", 50_000))
        self.assertEqual(self.only(client).status, 403)
        # The body looks like a request.
        client.send(get("/evil") + b"x" * (50_000 - len(get("/evil"))), 1000)
        client.send(get("/"))
        self.assertEqual([each.status for each in client.responses()], [403, 200])
        self.assertFalse(client.closed)

    def test_rest_is_drained_though_nothing_was_read(self) -> None:
        """The rest is drained even if reading was paused at the window."""
        server = self.serve(application)
        client = server.connect()
        client.send(upload("/sleep", 200_000) + b"x" * 200_000 + get("/"))
        self.assertTrue(client.channel.reading_paused)
        server.advance(1)
        self.assertEqual([each.status for each in client.responses()], [200, 200])

    def test_long_rest_closes(self) -> None:
        """With a long rest to come, the response says `close`, and arrives."""
        client = self.connected(application)
        client.send(upload("/unread", 10_000_000))
        response = self.only(client)
        self.assertEqual(response.header("Connection"), "close")
        self.assertTrue(client.closed)
        # The bytes are read: unread ones would reset the connection, and the response
        # would be lost (RFC 9112 section 9.6).
        client.send(b"x" * 5_000_000)
        self.assertFalse(client.reset)
        self.assertEqual(len(client.socket.to_server), 0)
        client.send(b"x" * 5_000_000 + get("/"))
        self.assertEqual(len(client.responses()), 1)

    def test_endless_rest(self) -> None:
        """A client that sends without end is cut off."""
        client = self.connected(application)
        client.send(get("/unread", "Transfer-Encoding: chunked", method="POST"))
        for _ in range(17):
            self.assertFalse(client.reset)
            client.send(b"x" * 1024 * 1024)
        self.assertTrue(client.reset)

    def test_unknown_rest_closes(self) -> None:
        """A chunked body has no known end, so its connection closes."""
        client = self.connected(application, chunked="stream")
        client.send(get("/unread", "Transfer-Encoding: chunked", method="POST"))
        self.assertEqual(self.only(client).header("Connection"), "close")
        self.assertTrue(client.closed)
        client.send(b"3\r\nabc\r\n0\r\n\r\n" + get("/"))
        self.assertEqual(len(client.responses()), 1)

    def test_rest_that_does_not_come(self) -> None:
        """A client that does not send the rest is closed after a while."""
        server = self.serve(application)
        client = server.connect()
        client.send(upload("/unread", 100) + b"x" * 50)
        self.assertFalse(client.closed)
        server.advance(4)
        self.assertFalse(client.closed)
        for _ in range(10):
            server.advance(0.5)
        self.assertTrue(client.closed)

    def test_lingering_ends(self) -> None:
        """A client that neither reads nor closes is cut off after a while."""
        server = self.serve(application)
        client = server.connect()
        client.send(upload("/unread", 10_000_000))
        self.assertEqual(len(server.site.server.shutdown.connections), 1)
        for _ in range(12):
            server.advance(0.5)
            client.send(b"x")
        self.assertEqual(len(server.site.server.shutdown.connections), 0)

    def test_response_while_the_body_comes(self) -> None:
        """An application may alternate between reading and writing."""
        client = self.connected(application)
        client.send(upload("/echo-slices?size=10", 30))
        for number in range(3):
            client.send(b"%d" % number * 10)
            self.assertIn(b"%d" % number * 10, client.received)
        client.send(get("/"))
        self.assertEqual(len(client.responses()), 2)


class MaxBodyTests(WireTestCase):
    """--max-body."""

    def ask(self, request: bytes, app: Any = application) -> MemoryClient:
        """Return a client that has sent a request; bodies are limited to 10 bytes."""
        client = self.connected(app, max_body=10)
        client.send(request)
        return client

    def test_at_the_limit(self) -> None:
        """A body of exactly the limit is accepted."""
        self.assertEqual(self.only(self.ask(post("/echo", b"x" * 10))).status, 200)
        self.assertEqual(
            self.only(self.ask(chunked("/echo", *[b"x"] * 10))).status, 200
        )

    def test_declared(self) -> None:
        """A longer body is refused by its length, without the application."""
        client = self.ask(post("/echo", b"x" * 11) + get("/"))
        self.assertEqual(self.only(client).status, 413)
        self.assertEqual(self.only(client).body, b"at most 10 bytes are accepted\n")
        self.assertTrue(client.closed)
        self.assertEqual(self.outcomes(), [(413, "refused")])

    def test_found_while_reading(self) -> None:
        """A chunked body is refused as soon as it exceeds the limit."""
        client = self.ask(chunked("/echo", b"x" * 6, b"x" * 6) + get("/"))
        self.assertEqual(self.only(client).status, 413)
        self.assertTrue(client.closed)
        self.assertEqual(self.outcomes(), [(413, "error")])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_application_that_catches_the_error(self) -> None:
        """An application may catch the error and respond by itself, later."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                environ["wsgi.input"].read()
            except OSError as error:
                environ["txgreenwsgi.sleep"](1)
                start("400 Bad Request", TEXT)
                return [f"{error}\n".encode()]
            raise AssertionError("the body was too long")

        server = self.serve(app, max_body=10, chunked="stream")
        client = server.connect()
        client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        client.send(b"b\r\n01234567890\r\n")
        # The rest is read and discarded, whatever its length.
        client.send(b"80000\r\n" + b"x" * 0x80000 + b"\r\n0\r\n\r\n")
        server.advance(1)
        response = self.only(client)
        self.assertEqual(response.status, 400)
        self.assertEqual(response.body, b"the body is longer than 10 bytes\n")
        self.assertTrue(client.closed)

    def test_no_limit(self) -> None:
        """0 is no limit."""
        client = self.connected(application, max_body=0)
        client.send(post("/echo", b"x" * 1_000_000))
        self.assertEqual(len(self.only(client).body), 1_000_000)
