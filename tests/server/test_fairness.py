"""One client with much work at hand does not delay the others.

The applications advance the clock themselves, as if they computed.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any
from unittest import skipUnless

from txgreenwsgi._http.chunked import MAX_CHUNKS
from txgreenwsgi._server.h1_channel import CLOSED
from txgreenwsgi._switching.greenlets import SLICE_SECONDS

from .pairs import PairClient
from .wire import WireTestCase, chunked, get

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start

#: Pipelined requests of one client.
MANY = 40


class Busy:
    """An application that takes a third of a time slice for each request.

    Attributes:
        served: the paths of the requests, in the order in which they were served.
    """

    def __init__(self) -> None:
        self.served: list[str] = []
        self.server: Any = None

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Serve a request."""
        self.served.append(environ["PATH_INFO"])
        self.server.reactor.rightNow += SLICE_SECONDS / 3
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]


class BusyTestCase(WireTestCase):
    """A server of `Busy`."""

    def busy(self, **settings: Any) -> MemoryServer:
        """Return the server; its application is `self.app`."""
        self.app = Busy()
        self.app.server = server = self.recorded(self.app, **settings)
        return server


class PipelineTests(BusyTestCase):
    """Pipelined requests on a connection that the reactor polls."""

    def test_pipelined_requests_take_turns(self) -> None:
        """Other clients are served between pipelined requests, which all succeed."""
        server = self.busy()
        client, other = server.connect(), server.connect()
        client.socket.to_server += get("/flood") * MANY
        server.reactor.turn()
        self.assertIn("/flood", self.app.served)
        self.assertLess(len(self.app.served), 5)
        other.send(get("/other"))
        self.assertLess(self.app.served.index("/other"), 15)
        client.settle()
        self.assertEqual(self.app.served.count("/flood"), MANY)
        self.assertEqual(client.received.count(b"200 OK"), MANY)

    def test_reading_pauses(self) -> None:
        """While received requests wait for their turn, no more are read."""
        server = self.busy()
        client = server.connect()
        client.socket.to_server += get("/flood") * MANY
        server.reactor.turn()
        client.socket.to_server += get("/late")
        self.assertTrue(client.channel.reading_paused)
        server.reactor.turn()
        self.assertIn(b"/late", client.socket.to_server)
        client.settle()
        self.assertEqual(self.app.served, ["/flood"] * MANY + ["/late"])
        self.assertFalse(client.channel.reading_paused)

    def test_end_of_file_behind_requests(self) -> None:
        """A client that ends its side after its requests gets all responses."""
        server = self.busy()
        client = server.connect()
        client.socket.to_server += get("/") * MANY
        client.socket.client_closed = True
        client.settle()
        self.assertEqual(client.received.count(b"200 OK"), MANY)
        self.assertTrue(client.closed)

    def test_disconnect(self) -> None:
        """Requests that wait for their turn are dropped when the client is gone."""
        server = self.busy()
        client = server.connect()
        client.socket.to_server += get("/") * MANY
        server.reactor.turn()
        client.disconnect()
        self.assertLess(len(self.app.served), 10)
        self.assertEqual(client.channel.state, CLOSED)

    def test_abort(self) -> None:
        """An aborted connection serves no postponed request."""
        server = self.busy()
        client = server.connect()
        client.socket.to_server += get("/") * MANY
        server.reactor.turn()
        client.channel.abort()
        served = len(self.app.served)
        client.settle()
        self.assertEqual(len(self.app.served), served)

    def test_deadlines(self) -> None:
        """The idle timeout does not apply while received requests wait."""
        server = self.busy(keep_alive=1)
        client = server.connect()
        client.socket.to_server += get("/") * MANY
        server.reactor.turn()
        client.channel.check(server.reactor.seconds() + 100)
        client.settle()
        self.assertEqual(client.received.count(b"200 OK"), MANY)

    def test_shutdown(self) -> None:
        """A shutdown answers the requests that were received."""
        server = self.busy()
        client = server.connect()
        client.socket.to_server += get("/") * MANY
        server.reactor.turn()
        stopped = server.site.stop()
        client.settle()
        self.assertEqual(client.received.count(b"200 OK"), MANY)
        self.assertEqual(client.received.count(b"Connection: close"), 1)
        client.end()
        self.successResultOf(stopped)

    def test_parked_request(self) -> None:
        """A disconnect is noticed while a postponed request waits."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            server.reactor.rightNow += SLICE_SECONDS
            if environ["PATH_INFO"] == "/slow":
                environ["txgreenwsgi.sleep"](10)
            start("200 OK", [("Content-Length", "0")])
            return []

        server = self.recorded(app)
        client = PairClient(server)
        client.send(get("/") * 5 + get("/slow") + get("/"))
        self.assertEqual(len(server.tasks), 1)
        client.close()
        self.assertEqual(client.channel.state, CLOSED)
        server.advance(10)
        self.assertEqual(self.outcomes()[-1][1], "disconnected")

    def test_invalid_request_behind(self) -> None:
        """An invalid request after postponed ones is refused in its turn."""
        server = self.busy()
        client = server.connect()
        client.send(get("/") * MANY + b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(client.received.count(b"200 OK"), MANY)
        self.assertEqual(client.received.count(b" 400 "), 1)


@skipUnless(hasattr(select, "epoll"), "this platform has no epoll")
class SharedSliceTests(BusyTestCase):
    """Ready connections in an epoll object share the slice of a turn."""

    def flooded(self, server: MemoryServer, count: int) -> list[PairClient]:
        """Return clients that have each sent many requests."""
        clients = [PairClient(server) for _ in range(count)]
        for client in clients:
            client.socket.send(get("/flood") * MANY)
        return clients

    def test_many_pipelining_clients(self) -> None:
        """The wait of another client does not grow with the number of clients."""
        for count in (5, 50):
            server = self.busy()
            clients = self.flooded(server, count)
            for _ in range(5):
                server.reactor.turn()
            other = PairClient(server)
            other.socket.send(get("/other"))
            served = len(self.app.served)
            while "/other" not in self.app.served:
                server.reactor.turn()
            # Postponed events, and the turns of other connections.
            self.assertLess(len(self.app.served) - served, 6 * count + 20)
            self.assertLess(len(self.app.served), count * MANY / 2)
            server.settle()
            for client in clients:
                self.assertEqual(client.read_all().count(b"200 OK"), MANY)
                client.close()
            other.close()

    def test_turn_ends_with_its_slice(self) -> None:
        """Ready connections that exceed a slice continue in the next turn, in order."""
        server = self.busy()
        clients = [PairClient(server) for _ in range(10)]
        for number, client in enumerate(clients):
            client.socket.send(get(f"/{number}"))
        server.reactor.turn()
        self.assertEqual(len(self.app.served), 4)
        server.reactor.turn()
        self.assertEqual(len(self.app.served), 8)
        server.settle()
        self.assertEqual(sorted(self.app.served), sorted(f"/{n}" for n in range(10)))
        for client in clients:
            client.close()

    def test_closed_before_its_turn(self) -> None:
        """A postponed event does not reach a later connection of its descriptor."""
        server = self.busy()
        clients = [PairClient(server) for _ in range(10)]
        for client in clients:
            client.socket.send(get("/"))
        server.reactor.turn()
        for client in clients:
            client.channel.abort()
        server.settle()
        self.assertEqual(len(self.app.served), 4)
        again = PairClient(server)
        again.send(get("/again"))
        self.assertIn(b"200 OK", again.read_all())
        for client in [*clients, again]:
            client.close()


class ChunkTests(WireTestCase):
    """Small chunks of a request body."""

    def lengths(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer with the length of the body."""
        body = environ["wsgi.input"].read()
        start("200 OK", [])
        return [b"%d" % len(body)]

    def test_small_chunks_take_turns(self) -> None:
        """Other clients are served while a body in tiny chunks is decoded."""
        order = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/other":
                order.append("other")
            elif environ["REQUEST_METHOD"] == "POST":
                while piece := environ["wsgi.input"].read(MAX_CHUNKS):
                    order.append(str(len(piece)))
                    server.reactor.rightNow += SLICE_SECONDS
            start("200 OK", [])
            return [b"ok"]

        server = self.recorded(app)
        client, other = server.connect(), server.connect()
        client.socket.to_server += chunked("/", *[b"x"] * (10 * MAX_CHUNKS))
        server.reactor.turn()
        other.send(get("/other"))
        self.assertLess(order.index("other"), 8)
        client.settle()
        self.assertEqual(sum(int(size) for size in order if size != "other"), 5120)
        self.assertIn(b"200 OK", client.received)

    def test_pipelined_behind_small_chunks(self) -> None:
        """A body that is decoded in steps ends where it ends."""
        count = 3 * MAX_CHUNKS
        for size in (0, 1000):
            client = self.connected(self.lengths)
            data = chunked("/", *[b"x"] * count) + chunked("/", b"yy") + get("/")
            client.send(data, size)
            bodies = [response.body for response in client.responses(["POST"] * 3)]
            self.assertEqual(bodies, [b"%d" % count, b"2", b"0"])

    def test_unread(self) -> None:
        """A received body in small chunks that is not read is discarded."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Length", "0")])
            return []

        server = self.recorded(app)
        client = server.connect()
        client.send(chunked("/", *[b"x"] * (5 * MAX_CHUNKS)))
        self.assertNotIn(b"Connection: close", client.received)
        client.send(get("/"))
        self.assertEqual(client.received.count(b"200 OK"), 2)

    def test_full_window(self) -> None:
        """With a full window decoding stops, and continues when the body is read."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            return self.lengths(environ, start)

        server = self.recorded(app, input_window=100, chunked="stream")
        client = PairClient(server)
        count = 6 * MAX_CHUNKS
        client.send(chunked("/", *[b"x"] * count))
        self.assertTrue(client.channel.reading_paused)
        self.assertLessEqual(client.channel.exchange.body.held, 2 * MAX_CHUNKS)
        server.advance(1)
        self.assertIn(b"%d" % count, client.read_all())
        client.close()

    def test_invalid_chunk_behind_many(self) -> None:
        """An invalid chunk after many valid ones is answered with 400."""
        client = self.connected(self.lengths)
        head, _, chunks = chunked("/", *[b"x"] * (3 * MAX_CHUNKS)).partition(
            b"\r\n\r\n"
        )
        client.send(head + b"\r\n\r\n" + chunks[:-5] + b"nonsense\r\n")
        self.assertEqual(self.only(client, "POST").status, 400)
