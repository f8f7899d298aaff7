"""The task of a request, and the tasks that the application starts."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .harness import Environ, Start

#: A context variable of the application.
seen: ContextVar[str] = ContextVar("seen", default="nothing")


class TaskCases(Cases):
    """Waits, and the use of one request by several tasks."""

    def setUp(self) -> None:
        """Create a list for the exceptions and results of the applications."""
        super().setUp()
        self.noticed: list[Any] = []

    def try_to(self, call: Callable[[], object]) -> None:
        """Record the result or exception of `call`."""
        try:
            self.noticed.append(call())
        except Exception as error:
            self.noticed.append(type(error))

    def test_wait(self) -> None:
        """While an application waits for a Deferred, other requests are served."""
        deferred: Deferred[bytes] = Deferred()

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            if environ["PATH_INFO"] == "/other":
                return [b"other"]
            return [environ["txgreenwsgi.wait"](deferred)]

        server = self.serve(app)
        reply = server.begin()
        self.assert_complete(server.begin(target="/other"), b"other")
        self.assertEqual(reply.state, "waiting")
        deferred.callback(b"fired")
        server.settle()
        self.assert_complete(reply, b"fired")

    def test_one_context(self) -> None:
        """A request has one context, for the call, the iteration and close()."""

        class Blocks:
            def __init__(self, noticed: list[Any]) -> None:
                self._noticed = noticed

            def __iter__(self) -> Iterator[bytes]:
                self._noticed.append(seen.get())
                yield b"x"

            def close(self) -> None:
                self._noticed.append(seen.get())

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.noticed.append(seen.get())
            seen.set(environ["PATH_INFO"])
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return Blocks(self.noticed)

        server = self.serve(app)
        server.begin(target="/a")
        server.advance(1)
        server.begin(target="/b")
        server.advance(1)
        self.assertEqual(self.noticed, ["nothing", "/a", "/a", "nothing", "/b", "/b"])
        self.assertEqual(seen.get(), "nothing")

    def test_write_after_the_end(self) -> None:
        """write() raises ValueError once the response is complete."""
        writes: list[Callable[[bytes], object]] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/late":
                self.try_to(lambda: writes[0](b"late"))
                start("200 OK", TEXT)
                return [b"other"]
            writes.append(start("200 OK", TEXT))
            writes[0](b"whole")
            return []

        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, b"whole")
        late = server.begin(target="/late", on=reply)
        server.advance(0)
        self.assertEqual(self.noticed, [ValueError])
        self.assert_complete(late, b"other")

    def test_two_writers(self) -> None:
        """A write raises an error while another task waits for the client."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)

            def intrude() -> None:
                environ["txgreenwsgi.sleep"](1)
                self.try_to(lambda: write(b"intruder"))

            environ["txgreenwsgi.spawn"](intrude)
            write(b"x" * self.transport.large)
            return []

        server = self.serve(app)
        reply = server.begin(slow=True)
        server.advance(1.5)
        self.assertEqual(self.noticed, [RuntimeError])
        server.read(reply)
        server.advance(1)
        self.assert_complete(reply)
        self.assertEqual(len(reply.body), self.transport.large)

    def test_writer_that_is_left_behind(self) -> None:
        """A task that waits for the client gets an error when its request ends."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            environ["txgreenwsgi.spawn"](
                self.try_to, lambda: write(b"x" * self.transport.large)
            )
            environ["txgreenwsgi.sleep"](1)
            return []

        server = self.serve(app)
        reply = server.begin(slow=True)
        server.advance(0.5)
        self.assertEqual(self.noticed, [])
        server.advance(1)
        self.assertEqual(len(self.noticed), 1)
        self.assertTrue(issubclass(self.noticed[0], Exception), self.noticed)
        self.assertEqual(server.app.requests(), [])
        server.read(reply)
        server.advance(1)
        self.assert_cut(reply)
        self.errors()

    def test_read_after_the_end(self) -> None:
        """The unread rest of a body cannot be read after the response."""
        bodies: list[Any] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/later":
                self.try_to(bodies[0].read)
            bodies.append(environ["wsgi.input"])
            start("200 OK", TEXT)
            return [b"x"]

        server = self.serve(app)
        server.begin("POST", body=b"unread")
        server.advance(0)
        server.begin(target="/later")
        server.advance(0)
        self.assertEqual(self.noticed, [ValueError])

    def test_block_after_block(self) -> None:
        """An empty block lets the other requests run."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            for _ in range(3):
                self.noticed.append(environ["PATH_INFO"])
                yield b""
            yield b"x"

        gate: Deferred[None] = Deferred()

        def gated(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.wait"](gate)
            return app(environ, start)

        server = self.serve(gated)
        replies = [server.begin(target="/a"), server.begin(target="/b")]
        gate.callback(None)
        server.advance(0)
        for reply in replies:
            self.assert_complete(reply, b"x")
        turns = ["/a", "/b"] * 3
        if server.in_order:
            self.assertEqual(self.noticed, turns)
        else:
            self.assertCountEqual(self.noticed, turns)


globals().update(on_every_transport(TaskCases))
