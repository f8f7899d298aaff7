"""Disconnects, by closing the connection or by resetting the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi import ClientDisconnected

from .harness import STREAMING, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .harness import Environ, Server, Start
    from .harness_clients import Reply


class DisconnectCases(Cases):
    """Effects of a disconnect on the application."""

    def setUp(self) -> None:
        """Create a list for the exceptions and results of the applications."""
        super().setUp()
        self.noticed: list[object] = []

    def ways(self, server: Server) -> list[Callable[[Reply], None]]:
        """Return the ways in which a client can abort a request."""
        return [server.disconnect, server.abandon]

    def test_sleeping_view(self) -> None:
        """By default, a disconnect while the view sleeps does not cancel the view."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](5)
            self.noticed.append("slept")
            start("200 OK", TEXT)
            return [b"never sent"]

        server = self.serve(app)
        for leave in self.ways(server):
            self.noticed.clear()
            reply = server.begin()
            leave(reply)
            self.assertEqual(len(server.app.requests()), 1)
            server.advance(5)
            self.assertEqual(self.noticed, ["slept"])
            self.assertEqual(server.app.requests(), [])
        self.assertEqual(self.outcomes(), [(0, "disconnected")] * 2)
        self.assertEqual(self.errors(), [])

    def test_cancel(self) -> None:
        """With on_disconnect=cancel the wait raises ClientDisconnected."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                environ["txgreenwsgi.sleep"](3600)
            except ClientDisconnected:
                self.noticed.append("disconnected")
                raise
            return []

        server = self.serve(app, on_disconnect="cancel")
        for leave in self.ways(server):
            self.noticed.clear()
            leave(server.begin())
            self.assertEqual(self.noticed, ["disconnected"])
            self.assertEqual(server.app.requests(), [])
        self.assertEqual(self.outcomes(), [(0, "disconnected")] * 2)
        self.assertEqual(self.errors(), [])

    def test_iteration(self) -> None:
        """The iteration of a response ends when its client disconnects."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            try:
                yield b"first"
                environ["txgreenwsgi.sleep"](3600)
            except ClientDisconnected:
                self.noticed.append("disconnected")
                raise
            finally:
                self.noticed.append("closed")

        for on_disconnect in ("continue", "cancel"):
            server = self.serve(app, on_disconnect=on_disconnect)
            for leave in self.ways(server):
                self.noticed.clear()
                leave(server.begin())
                self.assertEqual(self.noticed, ["disconnected", "closed"])
        self.assertEqual(self.outcomes(), [(200, "disconnected")] * 4)
        self.assertEqual(self.errors(), [])

    def test_close_after_a_disconnect(self) -> None:
        """After a disconnect, close() is called once, and may wait."""

        class Blocks:
            def __init__(self, environ: Environ, noticed: list[object]) -> None:
                self._sleep = environ["txgreenwsgi.sleep"]
                self._noticed = noticed

            def __iter__(self) -> Iterator[bytes]:
                yield b"first"
                self._sleep(3600)

            def close(self) -> None:
                self._sleep(1)
                self._noticed.append("closed")

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return Blocks(environ, self.noticed)

        server = self.serve(app)
        for leave in self.ways(server):
            self.noticed.clear()
            leave(server.begin())
            server.advance(0.5)
            self.assertEqual(self.noticed, [])
            server.advance(0.5)
            self.assertEqual(self.noticed, ["closed"])
        self.assertEqual(self.errors(), [])

    def test_parked_writer(self) -> None:
        """A disconnect resumes a task that waits for a slow client."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            try:
                while True:
                    write(b"x" * 65536)
            except ClientDisconnected:
                self.noticed.append("disconnected")
                raise
            return []

        server = self.serve(app)
        for leave in self.ways(server):
            self.noticed.clear()
            reply = server.begin(slow=True)
            self.assertEqual(self.noticed, [])
            leave(reply)
            self.assertEqual(self.noticed, ["disconnected"])
        self.assertEqual(self.outcomes(), [(200, "disconnected")] * 2)
        self.assertEqual(self.errors(), [])

    def test_write_after_a_disconnect(self) -> None:
        """write() raises ClientDisconnected after a disconnect."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            environ["txgreenwsgi.sleep"](1)
            for _ in range(2):
                self.try_to(lambda: write(b"block"))
            return []

        server = self.serve(app)
        for leave in self.ways(server):
            self.noticed.clear()
            leave(server.begin())
            server.advance(1)
            self.assertEqual(self.noticed, [ClientDisconnected] * 2)
        self.assertEqual(self.errors(), [])

    def test_read_after_a_disconnect(self) -> None:
        """Reading wsgi.input raises ClientDisconnected after a disconnect."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            for _ in range(2):
                self.try_to(environ["wsgi.input"].read)
            start("200 OK", TEXT)
            return []

        server = self.serve(app)
        for leave in self.ways(server):
            for body in (b"", b"a whole body"):
                self.noticed.clear()
                leave(server.begin("POST", body=body))
                server.advance(1)
                self.assertEqual(self.noticed, [ClientDisconnected] * 2, body)
        self.assertEqual(self.errors(), [])

    def try_to(self, call: Callable[[], object]) -> None:
        """Record the result or exception of `call`."""
        try:
            self.noticed.append(call())
        except OSError as error:
            self.noticed.append(type(error))

    def test_client_disconnected(self) -> None:
        """The environ shows whether the client has disconnected."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            for _ in range(2):
                self.noticed.append(environ["txgreenwsgi.client_disconnected"]())
                self.noticed.append(environ["waitress.client_disconnected"]())
                environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return [b"x"]

        server = self.serve(app)
        for leave in self.ways(server):
            self.noticed.clear()
            reply = server.begin()
            leave(reply)
            server.advance(1)
            server.advance(1)
            self.assertEqual(self.noticed, [False, False, True, True])

    def test_queued_request(self) -> None:
        """A queued request whose client disconnects never reaches the application."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.noticed.append(environ["PATH_INFO"])
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return [b"done"]

        server = self.serve(app, max_in_flight=1, max_queued=5)
        for leave in self.ways(server):
            self.noticed.clear()
            first = server.begin(target="/first")
            second = server.begin(target="/second")
            third = server.begin(target="/third")
            leave(second)
            server.advance(1)
            server.advance(1)
            self.assertEqual(self.noticed, ["/first", "/third"])
            self.assert_complete(first, b"done")
            self.assert_complete(third, b"done")
            self.assertEqual(server.app.requests(), [])

    def test_failure_after_a_disconnect(self) -> None:
        """A later error of the request is logged once."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            raise ZeroDivisionError

        server = self.serve(app)
        for leave in self.ways(server):
            leave(server.begin())
            server.advance(1)
            self.assertEqual(len(self.errors()), 1)

    def test_client_that_leaves_after_the_response(self) -> None:
        """The outcome of a complete response is "finished", regardless of close()."""

        class Blocks:
            def __init__(self, environ: Environ, noticed: list[object]) -> None:
                self._environ = environ
                self._noticed = noticed

            def __iter__(self) -> Iterator[bytes]:
                yield b"whole"

            def close(self) -> None:
                self._environ["txgreenwsgi.sleep"](1)
                self._noticed.append("closed")

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "5")])
            return Blocks(environ, self.noticed)

        server = self.serve(app)
        reply = server.begin()
        self.assert_complete(reply, b"whole")
        server.disconnect(reply)
        self.assertEqual(self.noticed, [])
        server.advance(1)
        self.assertEqual(self.noticed, ["closed"])
        self.assertEqual(self.outcomes(), [(200, "finished")])
        self.assertEqual(self.errors(), [])


class BodyDisconnectCases(Cases):
    """Disconnects in the middle of the request body."""

    def test_parked_reader(self) -> None:
        """A read that waits for the body raises ClientDisconnected."""
        noticed: list[object] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            noticed.append(environ["wsgi.input"].read(3))
            try:
                environ["wsgi.input"].read(3)
            except ClientDisconnected:
                noticed.append("disconnected")
                raise
            return []

        server = self.serve(app)
        reply = server.begin("POST", body=b"abc", length=9)
        self.assertEqual(noticed, [b"abc"])
        server.disconnect(reply)
        self.assertEqual(noticed, [b"abc", "disconnected"])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assertEqual(self.errors(), [])


class IncompleteBodyCases(Cases):
    """Requests with a truncated body."""

    def test_incomplete_body(self) -> None:
        """No transport treats a truncated body as complete."""
        read: list[bytes] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            read.append(environ["wsgi.input"].read())
            start("200 OK", TEXT)
            return [b"never"]

        server = self.serve(app)
        for leave in (server.disconnect, server.abandon):
            leave(server.begin("POST", body=b"abc", length=9))
            server.advance(1)
        self.assertEqual(read, [])
        self.assertEqual(server.app.requests(), [])
        self.assertEqual(self.errors(), [])


globals().update(on_every_transport(DisconnectCases, IncompleteBodyCases))
globals().update(on_every_transport(BodyDisconnectCases, only=STREAMING))
