"""Graceful shutdown: every started response is sent completely.

When the server reports that it has stopped, the harness closes all connections at once,
as at the end of a process: bytes not sent by then are lost.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.web.resource import Resource

from txgreenwsgi import Cancelled, GreenWSGIResource, Stopping

from .harness import (
    HTTP1,
    HTTP2,
    TEXT,
    WEB,
    Cases,
    WebTransport,
    on_every_transport,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .harness import Environ, Start

#: Maximum delay in seconds until a server notices that the last byte was sent.
SLACK = 0.5

#: After the last response, a client that expects the connection to persist has this
#: many seconds (drain_idle) to send a request, or slightly more.
DRAIN_SECONDS = 2.5

#: After graceful_timeout, requests have this many seconds to clean up.
LAST_SECONDS = 1


def nap(environ: Environ, start: Start) -> Iterable[bytes]:
    """Sleep for three seconds, then answer with the path."""
    environ["txgreenwsgi.sleep"](3)
    start("200 OK", TEXT)
    return [environ["PATH_INFO"].encode()]


class ShutdownCases(Cases):
    """Stopping while requests run."""

    def test_nothing_in_flight(self) -> None:
        """A server without requests stops at once, whether or not it was used."""
        server = self.serve(nap)
        stop = server.stop()
        server.advance(SLACK)
        self.assert_stopped(stop, 0)
        server = self.serve(nap)
        reply = server.begin(target="/before")
        server.advance(3)
        self.assert_complete(reply, b"/before")
        server.disconnect(reply)
        stop = server.stop()
        server.advance(SLACK)
        self.assert_stopped(stop, 0)

    def test_request_in_flight(self) -> None:
        """A running request is answered; then the server has stopped."""
        server = self.serve(nap)
        reply = server.begin(target="/path")
        server.advance(1)
        stop = server.stop()
        server.advance(1.5)
        self.assertFalse(stop.done)
        server.advance(1)
        self.assert_complete(reply, b"/path")
        self.assert_stopped(stop, 2)
        self.assertEqual(self.outcomes(), [(200, "finished")])
        self.assertEqual(self.errors(), [])

    def test_five_requests(self) -> None:
        """Five waiting clients receive their responses."""
        server = self.serve(nap)
        replies = [server.begin(target=f"/{number}") for number in range(5)]
        stop = server.stop()
        server.advance(3.5)
        for number, reply in enumerate(replies):
            self.assert_complete(reply, b"/%d" % number)
        self.assert_stopped(stop, 3)

    def test_queued_requests(self) -> None:
        """A queued request is also answered."""
        server = self.serve(nap, max_in_flight=1)
        replies = [server.begin(target=f"/{number}") for number in range(3)]
        stop = server.stop()
        server.advance(8.5)
        self.assertFalse(stop.done)
        server.advance(1)
        for number, reply in enumerate(replies):
            self.assert_complete(reply, b"/%d" % number)
        self.assertTrue(stop.done)

    def test_stream(self) -> None:
        """A started response is sent to its end."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            for _ in range(4):
                yield b"block"
                environ["txgreenwsgi.sleep"](1)

        server = self.serve(app)
        reply = server.begin()
        self.assertEqual(reply.body, b"block")
        stop = server.stop()
        server.advance(3.5)
        self.assertFalse(stop.done)
        server.advance(1)
        self.assert_complete(reply, b"block" * 4)
        server.advance(DRAIN_SECONDS)
        self.assertTrue(stop.done)

    def test_large_response(self) -> None:
        """A body of three megabytes is sent completely."""
        content = os.urandom(3_000_000)

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return [content]

        server = self.serve(app)
        reply = server.begin()
        stop = server.stop()
        server.advance(1 + SLACK)
        self.assert_complete(reply)
        self.assertTrue(reply.body == content)
        server.advance(SLACK)
        self.assertTrue(stop.done)

    def test_client_that_reads_late(self) -> None:
        """The server stops only after the last byte was sent."""
        for size in (30_000, self.transport.large):
            content = os.urandom(size)

            def app(
                environ: Environ, start: Start, content: bytes = content
            ) -> Iterable[bytes]:
                environ["txgreenwsgi.sleep"](1)
                start("200 OK", TEXT)
                return [content]

            server = self.serve(app)
            reply = server.begin(slow=True)
            stop = server.stop()
            server.advance(5)
            if size == self.transport.large:
                self.assertFalse(stop.done)
            server.read(reply)
            server.advance(1)
            self.assertTrue(stop.done)
            self.assert_complete(reply)
            self.assertTrue(reply.body == content)

    def test_response_that_has_not_left(self) -> None:
        """Shutdown waits for a complete response that is still buffered."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return [b"x" * 50_000]

        server = self.serve(app)
        reply = server.begin(slow=True)
        server.advance(1)
        stop = server.stop()
        server.advance(1)
        server.read(reply)
        server.advance(DRAIN_SECONDS)
        self.assertTrue(stop.done)
        self.assert_complete(reply)
        self.assertEqual(len(reply.body), 50_000)

    def test_failure(self) -> None:
        """The response to a request that fails during the shutdown is also sent."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            raise ZeroDivisionError

        server = self.serve(app)
        reply = server.begin()
        stop = server.stop()
        server.advance(1.5)
        self.assert_complete(reply, b"Internal Server Error\n", status=500)
        self.assertTrue(stop.done)
        self.assertEqual(len(self.errors()), 1)

    def test_client_that_is_gone(self) -> None:
        """Shutdown also waits for a request whose client has disconnected."""
        server = self.serve(nap)
        reply = server.begin()
        server.disconnect(reply)
        stop = server.stop()
        server.advance(2.5)
        self.assertFalse(stop.done)
        server.advance(1)
        self.assertTrue(stop.done)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])


class DrainCases(Cases):
    """Idle HTTP/1.1 connections, whose clients may be about to send."""

    def test_next_request(self) -> None:
        """The next request on an idle connection is answered, and is its last."""
        server = self.serve(nap)
        reply = server.begin(target="/before")
        server.advance(3)
        self.assertIsNone(reply.header("Connection"))
        stop = server.stop()
        server.advance(1.5)
        self.assertFalse(stop.done)
        reply = server.begin(target="/after", on=reply)
        server.advance(3)
        self.assert_complete(reply, b"/after")
        self.assertEqual(reply.header("Connection"), "close")
        server.advance(SLACK)
        self.assert_stopped(stop, 4.5)
        self.assertEqual(self.outcomes(), [(200, "finished")] * 2)

    def test_silent_client(self) -> None:
        """Without a request the connection closes after drain_idle."""
        server = self.serve(nap)
        reply = server.begin()
        server.advance(3)
        stop = server.stop()
        server.advance(DRAIN_SECONDS)
        self.assert_complete(reply, b"/")
        self.assert_stopped(stop, 2)

    def test_no_drain(self) -> None:
        """With drain_idle=0 an idle connection closes at once."""
        server = self.serve(nap, drain_idle=0)
        server.begin()
        server.advance(3)
        stop = server.stop()
        server.advance(SLACK)
        self.assert_stopped(stop, 0)

    def test_response_that_has_promised(self) -> None:
        """The drain follows a response that began before the shutdown."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"begun"
            environ["txgreenwsgi.sleep"](1)
            yield b" ended"

        server = self.serve(app)
        reply = server.begin()
        stop = server.stop()
        server.advance(1)
        self.assert_complete(reply, b"begun ended")
        self.assertIsNone(reply.header("Connection"))
        server.advance(1.5)
        self.assertFalse(stop.done)
        reply = server.begin(on=reply)
        server.advance(1)
        self.assert_complete(reply, b"begun ended")
        self.assertEqual(reply.header("Connection"), "close")
        server.advance(SLACK)
        self.assert_stopped(stop, 3.5)

    def test_end_of_grace(self) -> None:
        """The graceful timeout ends the drain."""
        server = self.serve(nap, graceful_timeout=1, drain_idle=10)
        server.begin()
        server.advance(3)
        stop = server.stop()
        server.advance(1 + LAST_SECONDS + SLACK)
        self.assertTrue(stop.done)

    def test_pipelined_requests(self) -> None:
        """Requests that were received are answered; the last response says close."""
        server = self.serve(nap)
        reply = server.begin(target="/first")
        reply.connection.link.send(b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
        server.settle()
        server.stop()
        server.advance(3)
        self.assert_complete(reply, b"/first")
        self.assertIsNone(reply.header("Connection"))
        server.advance(3 + SLACK)
        self.assertIn(b"Connection: close", reply.connection.stray)
        self.assertTrue(reply.connection.stray.endswith(b"/second"))
        reply.connection.stray = b""
        self.assertEqual(self.outcomes(), [(200, "finished")] * 2)


class BacklogCases(Cases):
    """Connections that the server has not accepted."""

    def test_backlog(self) -> None:
        """A stop accepts and answers the connections that the kernel has queued."""
        server = self.serve(nap)
        server.settle()
        replies = []
        for _ in range(30):
            connection = server.connection_class(server.connect(False))
            server.connections.append(connection)
            fields = [("Host", "test.example")]
            replies.append(connection.request("GET", "/", fields, b"", False))
        stop = server.stop()
        server.advance(3 + SLACK)
        for reply in replies:
            self.assert_complete(reply, b"/")
            self.assertEqual(reply.header("Connection"), "close")
        self.assertTrue(stop.done)


class GoawayCases(Cases):
    """Idle HTTP/2 connections."""

    def test_idle(self) -> None:
        """The client gets GOAWAY, after which it uses another connection."""
        server = self.serve(nap)
        reply = server.begin()
        server.advance(3)
        self.assertFalse(reply.connection.link.ended)
        stop = server.stop()
        server.advance(SLACK)
        self.assertTrue(reply.connection.link.ended)
        self.assert_stopped(stop, 0)

    def test_request_in_flight(self) -> None:
        """The client gets GOAWAY after the response."""
        server = self.serve(nap)
        reply = server.begin()
        stop = server.stop()
        server.advance(3 + SLACK)
        self.assert_complete(reply, b"/")
        self.assert_stopped(stop, 3)


class StoppingCases(Cases):
    """environ["txgreenwsgi.stopping"], for endless responses."""

    def setUp(self) -> None:
        """Create a list for the results of `stopping`."""
        super().setUp()
        self.results: list[object] = []

    def feed(self, environ: Environ, start: Start) -> Iterator[bytes]:
        """Send a block every 20 seconds, and one when the server stops."""
        self.results.append(environ["txgreenwsgi.stopping"]())
        start("200 OK", TEXT)
        try:
            while True:
                yield b"event;"
                environ["txgreenwsgi.sleep"](20)
        except Stopping:
            self.results.append(environ["txgreenwsgi.stopping"]())
            yield b"last;"

    def test_endless_response(self) -> None:
        """The wait raises Stopping; the response ends before the graceful timeout."""
        server = self.serve(self.feed)
        reply = server.begin()
        server.disconnect(server.begin(target="/disconnected"))
        server.advance(5)
        stop = server.stop()
        server.advance(SLACK)
        self.assert_complete(reply, b"event;last;")
        self.assertEqual(self.results, [False, False, True])
        server.disconnect(reply)
        server.advance(20)
        self.assertTrue(stop.done)
        self.assertEqual(self.errors(), [])

    def test_not_asked_for(self) -> None:
        """A request that does not call `stopping` is not interrupted."""
        server = self.serve(nap)
        reply = server.begin()
        server.stop()
        server.advance(3 + SLACK)
        self.assert_complete(reply, b"/")

    def test_slow_client(self) -> None:
        """Stopping is not raised while the server sends: no block is truncated."""
        content = os.urandom(self.transport.large)

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            environ["txgreenwsgi.stopping"]()
            start("200 OK", TEXT)
            try:
                yield content
                environ["txgreenwsgi.sleep"](20)
            except Stopping:
                yield b"last"

        server = self.serve(app)
        reply = server.begin(slow=True)
        server.stop()
        server.advance(2)
        server.read(reply)
        server.advance(1)
        self.assert_complete(reply)
        self.assertTrue(reply.body == content + b"last")

    def test_shield(self) -> None:
        """Stopping is deferred to a wait after the shield."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.stopping"]()
            start("200 OK", TEXT)
            with environ["txgreenwsgi.shield"]():
                environ["txgreenwsgi.sleep"](3)
            try:
                environ["txgreenwsgi.sleep"](20)
            except Stopping:
                return [b"stopped"]
            return [b"slept"]

        server = self.serve(app)
        reply = server.begin()
        server.stop()
        server.advance(2)
        self.assertEqual(reply.state, "waiting")
        server.advance(1 + SLACK)
        self.assert_complete(reply, b"stopped")

    def test_asked_in_the_shutdown(self) -> None:
        """During a shutdown `stopping` returns True, and nothing is raised."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            self.results.append(environ["txgreenwsgi.stopping"]())
            environ["txgreenwsgi.sleep"](3)
            start("200 OK", TEXT)
            return [b"whole"]

        server = self.serve(app)
        reply = server.begin()
        server.stop()
        server.advance(4 + SLACK)
        self.assert_complete(reply, b"whole")
        self.assertEqual(self.results, [True])

    def test_not_caught(self) -> None:
        """Without a handler the client gets 503; a begun response is truncated."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            environ["txgreenwsgi.stopping"]()
            start("200 OK", TEXT)
            if environ["PATH_INFO"] == "/begun":
                yield b"begun"
            environ["txgreenwsgi.sleep"](20)

        server = self.serve(app)
        silent, begun = server.begin(), server.begin(target="/begun")
        stop = server.stop()
        server.advance(SLACK)
        self.assert_complete(silent, b"the server is stopping\n", status=503)
        self.assert_cut(begun, b"begun")
        server.disconnect(silent)
        server.advance(SLACK)
        self.assertTrue(stop.done)
        self.assertEqual(
            sorted(self.outcomes()), [(200, "cancelled"), (503, "cancelled")]
        )
        self.assertEqual(self.errors(), [])


class GraceCases(Cases):
    """graceful_timeout."""

    def setUp(self) -> None:
        """Create a list for the exceptions and results of the applications."""
        super().setUp()
        self.noticed: list[type[BaseException]] = []

    def sleeping(self, environ: Environ, start: Start) -> Iterator[bytes]:
        """Send a block if the path requests it, then sleep for an hour."""
        start("200 OK", TEXT)
        if environ["PATH_INFO"] == "/begun":
            yield b"part"
        try:
            environ["txgreenwsgi.sleep"](3600)
        except Exception as error:
            self.noticed.append(type(error))
            raise

    def test_cancelled(self) -> None:
        """After the grace period the wait raises Cancelled, and the client gets 503."""
        server = self.serve(self.sleeping, graceful_timeout=4)
        reply = server.begin()
        stop = server.stop()
        server.advance(3.5)
        self.assertEqual((stop.done, self.noticed), (False, []))
        server.advance(1)
        self.assertEqual(self.noticed, [Cancelled])
        self.assert_complete(reply, status=503)
        self.assert_stopped(stop, 4)
        self.assertEqual(self.outcomes(), [(503, "cancelled")])
        self.assertEqual(self.errors(), [])

    def test_cancelled_after_the_head(self) -> None:
        """After the grace period, a started response is truncated."""
        server = self.serve(self.sleeping, graceful_timeout=4)
        reply = server.begin(target="/begun")
        stop = server.stop()
        server.advance(4.5)
        self.assertEqual(self.noticed, [Cancelled])
        self.assert_cut(reply, b"part")
        self.assert_stopped(stop, 4)
        self.assertEqual(self.outcomes(), [(200, "cancelled")])
        self.assertEqual(self.errors(), [])

    def test_cancelled_without_a_client(self) -> None:
        """A request whose client has disconnected is also cancelled."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            return list(self.sleeping(environ, start))

        server = self.serve(app, graceful_timeout=4)
        server.disconnect(server.begin())
        stop = server.stop()
        server.advance(4.5)
        self.assertEqual(self.noticed, [Cancelled])
        self.assert_stopped(stop, 4)

    def test_no_grace(self) -> None:
        """With graceful_timeout=0 requests are cancelled at once."""
        server = self.serve(self.sleeping, graceful_timeout=0)
        reply = server.begin()
        stop = server.stop()
        self.assertEqual(self.noticed, [Cancelled])
        server.advance(SLACK)
        self.assert_complete(reply, status=503)
        self.assert_stopped(stop, 0)

    def test_queued_request(self) -> None:
        """After the grace period, a queued request gets 503."""
        server = self.serve(self.sleeping, graceful_timeout=4, max_in_flight=1)
        server.begin()
        queued = server.begin(target="/queued")
        stop = server.stop()
        server.advance(4.5)
        self.assert_complete(queued, status=503)
        self.assertEqual(len(server.app.environs), 1)
        self.assertTrue(stop.done)

    def test_application_that_goes_on(self) -> None:
        """A request that ignores Cancelled is killed a second after the grace."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            while True:
                sleep(environ["txgreenwsgi.sleep"])

        def sleep(wait: Callable[[float], object]) -> None:
            try:
                wait(3600)
            except Exception as error:
                self.noticed.append(type(error))

        server = self.serve(app, graceful_timeout=4)
        server.begin()
        stop = server.stop()
        server.advance(4 + LAST_SECONDS + 0.5)
        self.assertEqual(self.noticed, [Cancelled])
        self.assert_stopped(stop, 4 + LAST_SECONDS)

    def test_client_that_does_not_read(self) -> None:
        """A client that never reads does not extend the grace period."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return [b"x" * self.transport.large]

        server = self.serve(app, graceful_timeout=4, write_timeout=0)
        reply = server.begin(slow=True)
        stop = server.stop()
        server.advance(3.5)
        self.assertFalse(stop.done)
        server.advance(LAST_SECONDS + 1)
        self.assertTrue(stop.done)
        server.read(reply)
        self.assert_cut(reply)


class TreeShutdownCases(Cases):
    """Several resources in one tree of twisted.web."""

    def test_two_resources(self) -> None:
        """The reactor waits for the requests of all resources."""

        def later(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](5)
            start("200 OK", TEXT)
            return [b"later"]

        for names in ((b"one", b"two"), (b"two", b"one")):
            server = self.serve(nap)
            assert isinstance(server, WebTransport)
            root = Resource()
            root.putChild(names[0], server.resource)
            second = GreenWSGIResource(later, reactor=server.reactor)
            root.putChild(names[1], second)
            server.serve_tree(root)
            replies = [
                server.begin(target="/" + names[0].decode()),
                server.begin(target="/" + names[1].decode()),
            ]
            stop = server.stop()
            server.advance(4)
            self.assertFalse(stop.done)
            server.advance(1.5)
            self.assertTrue(stop.done)
            self.assert_complete(replies[0], b"")
            self.assert_complete(replies[1], b"later")


globals().update(on_every_transport(ShutdownCases, StoppingCases, GraceCases))
globals().update(on_every_transport(DrainCases, only=HTTP1))
globals().update(on_every_transport(BacklogCases, only=["Sockets", "Threads"]))
globals().update(on_every_transport(GoawayCases, only=HTTP2))
globals().update(on_every_transport(TreeShutdownCases, only=WEB))
