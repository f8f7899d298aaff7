"""Failures of applications, as seen by the client and in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .harness import Environ, Start

#: (description of the mistake, status, headers, body).
WRONG_RESPONSES: list[tuple[str, Any, Any, Any]] = [
    ("a status of two digits", "20", TEXT, [b"x"]),
    ("a status that is not a str", 200, TEXT, [b"x"]),
    ("an interim status", "100 Continue", TEXT, [b"x"]),
    ("a status with a line break", "200 OK\r\nX: y", TEXT, [b"x"]),
    ("headers that are not pairs", "200 OK", dict(TEXT), [b"x"]),
    ("a header that is not a pair", "200 OK", [["X", "y", "z"]], [b"x"]),
    ("a header value that is not a str", "200 OK", [("X", 5)], [b"x"]),
    ("a header value with a line break", "200 OK", [("X", "y\r\nZ: z")], [b"x"]),
    ("a header value beyond latin-1", "200 OK", [("X", "\u20ac")], [b"x"]),
    ("a header name with a space", "200 OK", [("X Y", "z")], [b"x"]),
    ("a transfer coding", "200 OK", [("Transfer-Encoding", "gzip")], [b"x"]),
    ("two lengths", "200 OK", [("Content-Length", "1")] * 2, [b"x"]),
    ("a length that is not a number", "200 OK", [("Content-Length", "one")], [b"x"]),
    ("a block that is a str", "200 OK", TEXT, ["text"]),
    ("a block that is a number", "200 OK", TEXT, [b"", 7]),
    ("a body that is a number", "200 OK", TEXT, 7),
    ("no body at all", "200 OK", TEXT, None),
]


class FailureCases(Cases):
    """Exceptions, and responses that break PEP 3333."""

    def test_before_the_head(self) -> None:
        """An exception is answered 500; its traceback appears only in the log."""

        def called(environ: Environ, start: Start) -> Iterable[bytes]:
            raise ZeroDivisionError("secret")

        def iterated(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            if environ:
                raise ZeroDivisionError("secret")
            yield b"never"

        for app in (called, iterated):
            self.assert_complete(self.ask(app), b"Internal Server Error\n", status=500)
            [error] = self.errors()
            self.assertIn("GET / ", error)
        self.assertEqual(self.outcomes(), [(500, "error")] * 2)

    def test_head_request(self) -> None:
        """The response to a failed HEAD request has no body."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            raise ZeroDivisionError

        self.assert_complete(self.ask(app, "HEAD"), b"", status=500)
        self.assertEqual(len(self.errors()), 1)

    def test_after_the_head(self) -> None:
        """A started response is truncated in a way that the client detects."""

        def iterated(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            raise ZeroDivisionError

        def declared(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "100")])
            yield b"part"
            raise ZeroDivisionError

        def written(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)(b"part")
            raise ZeroDivisionError

        for app in (iterated, declared, written):
            server = self.serve(app)
            reply = server.begin()
            server.advance(0)
            self.assert_cut(reply, b"part")
            self.assertEqual(reply.status, 200)
            self.assertEqual(len(self.errors()), 1)
        self.assertEqual(self.outcomes(), [(200, "error")] * 3)

    def test_in_close(self) -> None:
        """A failure of close() is logged; the response stays complete."""

        class Blocks:
            def __iter__(self) -> Iterator[bytes]:
                yield b"whole"

            def close(self) -> None:
                raise ZeroDivisionError("in close")

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return Blocks()

        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, b"whole")
        self.assertEqual(len(self.errors()), 1)

    def test_in_the_iteration_and_in_close(self) -> None:
        """The first failure determines the response; both are logged."""

        class Blocks:
            def __iter__(self) -> Iterator[bytes]:
                raise ZeroDivisionError("first")

            def close(self) -> None:
                raise ZeroDivisionError("second")

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return Blocks()

        self.assert_complete(self.ask(app), status=500)
        self.assertEqual(len(self.errors()), 2)

    def test_wrong_responses(self) -> None:
        """An invalid response is an error of the application."""
        for wrong, status, headers, returned in WRONG_RESPONSES:

            def app(
                environ: Environ,
                start: Start,
                status: Any = status,
                headers: Any = headers,
                returned: Any = returned,
            ) -> Iterable[bytes]:
                start(status, headers)
                answer: Iterable[bytes] = returned
                return answer

            server = self.serve(app)
            reply = server.begin()
            server.advance(0)
            self.assertEqual((reply.status, reply.state), (500, "complete"), wrong)
            self.assertEqual(len(self.errors()), 1, wrong)

    def test_wrong_block_after_the_head(self) -> None:
        """A block that is not bytes truncates a started response."""

        def app(environ: Environ, start: Start) -> Iterable[Any]:
            start("200 OK", TEXT)
            return [b"part", "text"]

        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_cut(reply, b"part")
        self.assertEqual(len(self.errors()), 1)

    def test_exits(self) -> None:
        """SystemExit and KeyboardInterrupt end the request, not the server."""
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit):

            def app(
                environ: Environ, start: Start, kind: type[BaseException] = kind
            ) -> Iterable[bytes]:
                if environ["PATH_INFO"] == "/exit":
                    raise kind
                start("200 OK", TEXT)
                return [b"alive"]

            server = self.serve(app)
            self.assert_complete(server.begin(target="/exit"), status=500)
            self.assertEqual(len(self.errors()), 1, kind)
            self.assert_complete(server.begin(), b"alive")

    def test_display_tracebacks(self) -> None:
        """With display_tracebacks the client sees the traceback."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            raise ZeroDivisionError("told \u20ac")

        reply = self.ask(app, display_tracebacks=True)
        self.assert_complete(reply, status=500)
        text = reply.body.decode("utf-8")
        self.assertTrue(text.startswith("Internal Server Error\n"), text)
        self.assertIn("ZeroDivisionError: told \u20ac", text)
        self.assertIn("test_failures.py", text)
        self.assertEqual(len(self.errors()), 1)

    def test_errors_stream(self) -> None:
        """Lines written to wsgi.errors are logged as errors, with the request's id."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.errors"].write("first line\nno end")
            start("200 OK", [*TEXT, ("X-Id", environ["txgreenwsgi.request_id"])])
            return [b"x"]

        reply = self.ask(app)
        self.assert_complete(reply, b"x")
        errors = self.errors()
        self.assertEqual(len(errors), 2, errors)
        for error, line in zip(errors, ["first line", "no end"], strict=True):
            self.assertTrue(error.startswith(line), error)
            self.assertIn(str(reply.header("X-Id")), error)

    def test_the_next_request(self) -> None:
        """A failure does not affect later requests."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            if environ["PATH_INFO"] == "/fail":
                raise ZeroDivisionError

        server = self.serve(app, max_in_flight=1, max_queued=0)
        for _ in range(3):
            failed = server.begin(target="/fail")
            server.advance(0)
            self.assert_cut(failed)
            whole = server.begin()
            server.advance(0)
            self.assert_complete(whole, b"part")
        self.assertEqual(len(self.errors()), 3)


globals().update(on_every_transport(FailureCases))
