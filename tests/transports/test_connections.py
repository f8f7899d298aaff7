"""Several requests on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .harness import HTTP2, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .harness import Environ, Start


def nap(environ: Environ, start: Start) -> Iterable[bytes]:
    """Sleep for a second, then answer with the path."""
    environ["txgreenwsgi.sleep"](1)
    start("200 OK", TEXT)
    return [environ["PATH_INFO"].encode()]


class SuccessionCases(Cases):
    """One request after the other."""

    def test_reuse(self) -> None:
        """A connection serves further requests, with bodies and without."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            body = environ["wsgi.input"].read()
            start("200 OK", TEXT)
            blocks = [environ["PATH_INFO"].encode(), b" ", body]
            return blocks if environ["PATH_INFO"] == "/2" else [b"".join(blocks)]

        server = self.serve(app)
        reply = server.begin(target="/0")
        self.assert_complete(reply, b"/0 ")
        for number in range(1, 5):
            reply = server.begin("POST", f"/{number}", body=b"body", on=reply)
            server.advance(0)
            self.assert_complete(reply, b"/%d body" % number)
        self.assertEqual(len(server.connections), 1)
        self.assertEqual(self.outcomes(), [(200, "finished")] * 5)

    def test_body_cut_at_its_length(self) -> None:
        """A response truncated at its Content-Length leaves the connection open."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "3")])
            return iter([b"ab", b"cd", b"ef"])

        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, b"abc")
        again = server.begin(on=reply)
        server.advance(0)
        self.assert_complete(again, b"abc")
        self.assertEqual(len(self.errors()), 2)

    def test_head_before_get(self) -> None:
        """The response to a GET after a HEAD on the same connection has a body."""
        server = self.serve(nap)
        head = server.begin("HEAD", "/head")
        server.advance(1)
        self.assert_complete(head, b"")
        get = server.begin(target="/get", on=head)
        server.advance(1)
        self.assert_complete(get, b"/get")


class StreamCases(Cases):
    """Several streams of HTTP/2 at once."""

    def test_at_once(self) -> None:
        """Requests on one connection run concurrently."""
        server = self.serve(nap)
        first = server.begin(target="/0")
        replies = [first]
        replies += [server.begin(target=f"/{number}", on=first) for number in (1, 2)]
        self.assertEqual(len(server.app.requests()), 3)
        server.advance(1)
        for number, reply in enumerate(replies):
            self.assert_complete(reply, b"/%d" % number)

    def test_abandoned_stream(self) -> None:
        """A reset stream ends only its own request."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            environ["txgreenwsgi.sleep"](1)
            yield b"rest"

        server = self.serve(app)
        first = server.begin()
        second = server.begin(on=first)
        server.abandon(first)
        self.assertEqual(len(server.app.requests()), 1)
        server.advance(1)
        self.assert_complete(second, b"partrest")
        self.assert_cut(first, b"part")

    def test_failed_stream(self) -> None:
        """A truncated response resets only its own stream."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            environ["txgreenwsgi.sleep"](1)
            if environ["PATH_INFO"] == "/fail":
                raise ZeroDivisionError
            environ["txgreenwsgi.sleep"](1)
            yield b"rest"

        server = self.serve(app)
        failed = server.begin(target="/fail")
        whole = server.begin(on=failed)
        server.advance(1)
        self.assert_cut(failed, b"part")
        self.assertEqual(whole.state, "open")
        server.advance(1)
        self.assert_complete(whole, b"partrest")
        self.assertEqual(len(self.errors()), 1)

    def test_timed_out_stream(self) -> None:
        """A timeout ends only its own stream."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            if environ["PATH_INFO"] == "/short":
                environ["txgreenwsgi.set_request_timeout"](1)
            start("200 OK", TEXT)
            yield b"part"
            environ["txgreenwsgi.sleep"](2)
            yield b"rest"

        server = self.serve(app)
        short = server.begin(target="/short")
        whole = server.begin(on=short)
        server.advance(2.5)
        self.assert_cut(short, b"part")
        self.assert_complete(whole, b"partrest")

    def test_lost_connection(self) -> None:
        """The loss of a connection ends all of its requests."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            environ["txgreenwsgi.sleep"](3600)

        server = self.serve(app)
        first = server.begin()
        second = server.begin(on=first)
        server.disconnect(first)
        self.assertEqual(server.app.requests(), [])
        self.assert_cut(second, b"part")
        self.assertEqual(self.outcomes(), [(200, "disconnected")] * 2)

    def test_stalled_stream(self) -> None:
        """A stream whose window is full parks only its own task."""
        server = self.serve(self.sized)
        large = server.begin(target="/large", stalled=True)
        self.assertEqual(large.state, "open")
        small = server.begin(target="/small", on=large)
        self.assert_complete(small, b"x" * 100)
        self.assertEqual([each.path for each in server.app.requests()], ["/large"])
        server.read(large)
        self.assert_complete(large, b"x" * 300_000)

    def test_write_timeout(self) -> None:
        """A write_timeout resets only the stream whose window is full."""
        server = self.serve(self.sized, write_timeout=4)
        large = server.begin(target="/large", stalled=True)
        server.advance(3.5)
        self.assertEqual(large.state, "open")
        server.advance(1)
        self.assert_cut(large)
        self.assertEqual(server.app.requests(), [])
        small = server.begin(target="/small", on=large)
        self.assert_complete(small, b"x" * 100)
        self.assertEqual(self.outcomes(), [(200, "timeout"), (200, "finished")])

    def sized(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer with 300 kB or 100 bytes."""
        start("200 OK", TEXT)
        return [b"x" * (300_000 if environ["PATH_INFO"] == "/large" else 100)]

    def test_stop(self) -> None:
        """Shutdown waits for the requests of all streams."""
        server = self.serve(nap)
        first = server.begin(target="/first")
        server.advance(0.5)
        second = server.begin(target="/second", on=first)
        stop = server.stop()
        server.advance(1.5)
        self.assert_complete(first, b"/first")
        self.assert_complete(second, b"/second")
        self.assert_stopped(stop, 1)

    def test_stop_with_a_stalled_stream(self) -> None:
        """Shutdown waits until a stream with a full window has sent its last byte."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return [b"x" * 65536]  # one byte more than the window of a stream

        server = self.serve(app)
        reply = server.begin(stalled=True)
        server.advance(1)
        self.assertEqual((reply.state, len(reply.body)), ("open", 65535))
        stop = server.stop()
        server.advance(2)
        self.assertFalse(stop.done)
        server.read(reply)
        server.advance(1)
        self.assert_complete(reply, b"x" * 65536)
        self.assertTrue(stop.done)


globals().update(on_every_transport(SuccessionCases))
globals().update(on_every_transport(StreamCases, only=HTTP2))
