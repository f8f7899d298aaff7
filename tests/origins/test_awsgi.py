"""Tests of AWSGI applications behind their adapter, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi.origins import awsgi

from .serving import TEXT, ServedTestCase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serving import Environ, StartResponse


class AwsgiTests(ServedTestCase):
    """AWSGI applications."""

    POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\n"

    def test_environ(self) -> None:
        """The environ has AWSGI's keys, and start_response returns None."""
        seen: Environ = {}

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            seen.update(environ)
            seen["write"] = start_response("200 OK", TEXT)
            return [b"done"]

        self.assertEqual(self.body(self.get(self.serve(awsgi.adapt(app)))), "done")
        self.assertEqual(seen["awsgi.version"], (1, 0))
        self.assertIs(bool(seen["awsgi.timeout"]), False)
        self.assertIsNone(seen["write"])
        self.assertNotIn("wsgi.version", seen)
        self.assertNotIn("wsgi.input", seen)

    def echo(self, timeout: float | None = None, size: int = 4) -> Any:
        """Return an application that echoes the body as it comes."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[Any]:
            body = environ["awsgi.input"]
            start_response("200 OK", TEXT)
            while True:
                yield environ["awsgi.readable"](body, timeout)
                if environ["awsgi.timeout"]:
                    yield b"(silence)"
                    return
                data = body.recv(size)
                if not data:
                    yield b"(end)"
                    return
                yield b"<%b>" % data

        return awsgi.adapt(app)

    def test_recv(self) -> None:
        """`recv` returns available bytes, up to the size; b"" only at the end."""
        client = self.serve(self.echo()).connect()
        client.send(self.POST + b"ab")
        client.send(b"cde")
        client.send(b"f")
        self.assertEqual(self.body(client), "<ab><cde><f>(end)")

    def test_recv_at_most(self) -> None:
        """`recv` returns at most `size` bytes and keeps the rest."""
        client = self.serve(self.echo(size=4)).connect()
        client.send(self.POST + b"abcdef")
        self.assertEqual(self.body(client), "<abcd><ef>(end)")

    def test_chunked(self) -> None:
        """A chunked body arrives decoded."""
        client = self.serve(self.echo(size=100)).connect()
        client.send(
            b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n"
        )
        self.assertEqual(self.body(client), "<abc>(end)")

    def test_silence(self) -> None:
        """A silent client times out the wait; later data is not lost."""
        server = self.serve(self.echo(1.0))
        client = server.connect()
        client.send(self.POST + b"abc")
        server.advance(1.0)
        self.assertEqual(self.body(client), "<abc>(silence)")

    def test_recv_without_asking(self) -> None:
        """`recv` without a yield before it waits."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[Any]:
            start_response("200 OK", TEXT)
            yield environ["awsgi.input"].recv(10)

        client = self.serve(awsgi.adapt(app)).connect()
        client.send(self.POST)
        client.send(b"abcdef")
        self.assertEqual(self.body(client), "abcdef")

    def test_disconnect(self) -> None:
        """For a disconnected client `recv` returns b"", as AWSGI defines."""
        got: list[bytes] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[Any]:
            body = environ["awsgi.input"]
            yield environ["awsgi.readable"](body)
            got.append(body.recv(10))
            yield environ["awsgi.readable"](body)
            got.append(body.recv(10))
            start_response("200 OK", TEXT)

        server = self.serve(awsgi.adapt(app))
        client = server.connect()
        client.send(self.POST + b"abc")
        client.disconnect()
        self.assertEqual(got, [b"abc", b""])

    def test_descriptors(self) -> None:
        """Descriptors can be waited for, with a timeout."""
        ours, theirs = self.pair()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[Any]:
            start_response("200 OK", TEXT)
            yield environ["awsgi.readable"](ours, 1.0)
            yield b"late " if environ["awsgi.timeout"] else b"ready "
            yield environ["awsgi.writable"](ours, 1.0)
            yield b"late " if environ["awsgi.timeout"] else b"ready "
            yield b""
            theirs.send(b"x")
            yield environ["awsgi.readable"](ours)
            yield b"late" if environ["awsgi.timeout"] else b"ready"

        server = self.serve(awsgi.adapt(app))
        client = self.get(server)
        server.advance(1.0)
        self.assertEqual(self.body(client), "late ready ready")

    def test_replaced_input(self) -> None:
        """Middleware that replaced wsgi.input causes an error, not a bypass."""

        def replacing(environ: Environ, start_response: StartResponse) -> Any:
            environ["wsgi.input"] = object()
            return self.echo()(environ, start_response)

        client = self.serve(replacing).connect()
        client.send(self.POST)
        self.assertEqual(client.responses()[0].status, 500)
        (error,) = self.flushLoggedErrors(RuntimeError)
        self.assertIn("middleware has replaced it", error.getErrorMessage())

    def test_time_limit_around_it(self) -> None:
        """An enclosing timeout is not taken for the application's."""

        def limited(environ: Environ, start_response: StartResponse) -> Iterator[Any]:
            with environ["txgreenwsgi.timeout"](0.5):
                yield from self.echo(5.0)(environ, start_response)

        server = self.serve(limited)
        client = server.connect()
        client.send(self.POST)
        server.advance(0.5)
        self.assertEqual(client.responses()[0].status, 500)
        (error,) = self.flushLoggedErrors(TimeoutError)
        self.assertIn("0.5 seconds", error.getErrorMessage())
