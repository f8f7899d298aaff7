"""Plain connections in an epoll object of the server's own."""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any
from unittest import skipUnless

from twisted.internet.error import ConnectionDone
from twisted.internet.unix import Server
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from txgreenwsgi._http.parser import RequestParser
from txgreenwsgi._server import sockets
from txgreenwsgi._server.sockets import Sockets

from .application import TEXT, application
from .pairs import PairClient
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi._http.parser import Event
    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start


@skipUnless(hasattr(select, "epoll"), "this platform has no epoll")
class SocketsTests(WireTestCase):
    """Connections on real sockets, under a reactor that the test turns."""

    def watched(self, server: MemoryServer) -> list[Any]:
        """Return the objects that the reactor itself watches."""
        return [*server.reactor.getReaders(), *server.reactor.getWriters()]

    def test_one_reader_for_all(self) -> None:
        """The reactor watches one object, however many connections there are."""
        server = self.serve(application)
        clients = [PairClient(server) for _ in range(20)]
        self.assertEqual(self.watched(server), [server.site.sockets])
        for client in clients:
            client.send(get("/"))
            self.assertIn(b"200 OK", client.read_all())
        for client in clients:
            client.close()
        self.assertEqual(self.watched(server), [])
        self.assertEqual(server.site.sockets.fileno(), -1)

    def test_more_than_max_events(self) -> None:
        """All are answered when more are ready than one turn of ours sees to."""
        self.patch(sockets, "MAX_EVENTS", 3)
        server = self.serve(application)
        clients = [PairClient(server) for _ in range(20)]
        for client in clients:
            client.socket.send(get("/"))
        server.settle()
        for client in clients:
            self.assertIn(b"200 OK", client.read_all())
            client.close()

    def test_client_leaves_while_its_request_waits(self) -> None:
        """With reading paused by pipelined bytes, a disconnect is noticed."""
        gone: list[bool] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            gone.append(environ["txgreenwsgi.client_disconnected"]())
            start("200 OK", TEXT)
            return [b""]

        server = self.serve(app)
        client = PairClient(server)
        client.send(get("/") * 2)
        self.assertTrue(client.channel.reading_paused)
        client.close()
        server.advance(1)
        self.assertEqual(gone, [True])
        self.assertEqual(self.watched(server), [])

    def test_reset_in_the_midst(self) -> None:
        """A connection that breaks is lost once, whatever other events it has."""
        server = self.recorded(application)
        for sent in (b"", b"GET / HT", get("/sleep?seconds=1"), get("/") * 2):
            client = PairClient(server)
            client.send(sent)
            client.socket.shutdown(2)
            client.close()
        server.advance(2)
        self.assertEqual(server.site.server.shutdown.connections, set())
        self.assertEqual(self.watched(server), [])
        self.assertEqual(self.logged(LogLevel.error), [])

    def reporting(self) -> list[tuple[int, int]]:
        """Return a list of events that epoll objects report before real ones."""
        epoll = select.epoll

        class Reporting:
            def __init__(self) -> None:
                self._real = epoll()

            def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
                injected, pending[:] = list(pending), []
                return injected + self._real.poll(timeout, most)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

        pending: list[tuple[int, int]] = []
        self.patch(sockets, "kernel_epoll", Reporting)
        return pending

    def test_errors_without_input(self) -> None:
        """An error or a hang-up that is reported without input ends a connection."""
        for event, sent, outcomes in (
            (select.EPOLLERR, b"", []),
            (select.EPOLLHUP, get("/sleep?seconds=1"), [(0, "disconnected")]),
        ):
            pending = self.reporting()
            self.records.clear()
            server = self.recorded(application)
            client = PairClient(server)
            client.send(sent)
            pending.append((client.transport.fileno(), event))
            server.site.sockets.doRead()
            self.assertEqual(server.site.server.shutdown.connections, set())
            server.advance(1)
            self.assertEqual(self.outcomes(), outcomes)
            client.close()

    def test_events_after_the_loss(self) -> None:
        """Events of a connection that an earlier event has closed are ignored."""
        pending = self.reporting()
        server = self.recorded(application)
        client, other = PairClient(server), PairClient(server)
        fd = client.transport.fileno()
        pending += [
            (fd, select.EPOLLERR),
            (fd, select.EPOLLIN),
            (fd, select.EPOLLOUT),
            (fd, select.EPOLLIN | select.EPOLLHUP),
        ]
        server.site.sockets.doRead()
        self.assertEqual(len(server.site.server.shutdown.connections), 1)
        other.send(get("/"))
        self.assertIn(b"200 OK", other.read_all())
        client.close()
        other.close()
        self.assertEqual(self.logged(LogLevel.error), [])

    def test_false_report(self) -> None:
        """A connection that is reported readable without input stays open."""
        pending = self.reporting()
        server = self.recorded(application)
        client = PairClient(server)
        pending.append((client.transport.fileno(), select.EPOLLIN))
        server.site.sockets.doRead()
        client.send(get("/"))
        self.assertIn(b"200 OK", client.read_all())
        client.close()

    def test_failure_in_a_mixed_event(self) -> None:
        """A failing read in a mixed event is logged, and ends its connection."""
        pending = self.reporting()
        server = self.recorded(application)
        client = PairClient(server)

        def fail(parser: RequestParser, data: bytes, one: bool = False) -> None:
            raise ZeroDivisionError

        self.patch(RequestParser, "feed", fail)
        # A field that is not known yet: known ones do not pass `feed`.
        client.socket.send(get("/", "X-Unknown: mixed event"))
        both = select.EPOLLIN | select.EPOLLHUP
        pending.append((client.transport.fileno(), both))
        server.site.sockets.doRead()
        self.assertEqual(server.site.server.shutdown.connections, set())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        client.close()

    def test_names_in_the_log(self) -> None:
        """Twisted's log lines name the package."""
        server = self.serve(application)
        client = PairClient(server)
        self.assertEqual(server.site.sockets.logPrefix(), "txgreenwsgi")
        self.assertEqual(client.channel.logPrefix(), "txgreenwsgi")
        client.close()

    def test_failure_ends_one_connection(self) -> None:
        """An error of the server itself is logged, and ends one connection only."""
        server = self.serve(application)
        broken, sound = PairClient(server), PairClient(server)

        feed = RequestParser.feed

        def fail(parser: RequestParser, data: bytes, one: bool = False) -> list[Event]:
            if b"broken" in data:
                raise ZeroDivisionError("a defect")
            return feed(parser, data, one)

        self.patch(RequestParser, "feed", fail)
        # A field that is not known yet: known ones do not pass `feed`.
        broken.send(get("/", "X-Unknown: broken"))
        sound.send(get("/"))
        self.assertEqual(broken.read_all(), b"")
        self.assertTrue(broken.ended)
        self.assertIn(b"200 OK", sound.read_all())
        [error] = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(str(error.value), "a defect")
        broken.close()
        sound.close()

    def test_reactor_stops(self) -> None:
        """Connections that are open when the reactor stops are lost."""
        server = self.serve(application)
        client = PairClient(server)
        for reader in server.reactor.removeAll():
            reader.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(server.site.server.shutdown.connections, set())
        client.read_all()
        self.assertTrue(client.ended)

    def test_no_descriptor_for_it(self) -> None:
        """Without a descriptor for epoll, the reactor watches the connections."""

        def no_epoll() -> None:
            raise OSError(errno.EMFILE, "too many open files")

        self.patch(sockets, "kernel_epoll", no_epoll)
        server = self.serve(application)
        client = PairClient(server)
        self.assertEqual(self.watched(server), [client.transport])
        client.send(get("/"))
        self.assertIn(b"200 OK", client.read_all())
        client.close()
        self.assertEqual(self.watched(server), [])

    def test_no_descriptor_for_it_any_more(self) -> None:
        """If the epoll object cannot be opened again, the reactor watches."""
        server = self.serve(application)
        client = PairClient(server)
        client.transport.stopReading()
        self.assertEqual(self.watched(server), [])

        def no_epoll() -> None:
            raise OSError(errno.EMFILE, "too many open files")

        self.patch(sockets, "kernel_epoll", no_epoll)
        client.transport.startWriting()
        client.transport.startReading()
        self.assertEqual(self.watched(server), [client.transport] * 2)
        client.send(get("/"))
        self.assertIn(b"200 OK", client.read_all())
        client.close()

    def test_closed_behind_what_was_left(self) -> None:
        """A connection closes after its buffered bytes were sent."""
        server = self.serve(application)
        client = PairClient(server, buffer=4096)
        client.transport.write(b"x" * 100_000)
        client.transport.loseConnection()
        self.assertEqual(client.read_all(), b"x" * 100_000)
        self.assertTrue(client.ended)
        self.assertEqual(server.site.server.shutdown.connections, set())
        self.assertEqual(self.watched(server), [])
        client.close()

    def test_layer_in_between(self) -> None:
        """A transport with a layer above the socket, such as TLS, reads by itself."""
        server = self.serve(application)
        client = PairClient(server)
        received: list[bytes] = []
        lost: list[Failure] = []

        class Layer:
            """A layer between the socket and a channel."""

            def dataReceived(self, data: bytes) -> None:
                received.append(data)

            def connectionLost(self, reason: Failure) -> None:
                lost.append(reason)

        ours, theirs = self.pair()
        reactor: Any = server.site.sockets
        layer: Any = Layer()
        transport = Server(theirs, layer, "a client", None, 1, reactor)
        ours.send(b"in a cipher")
        server.settle()
        transport.write(b"in a cipher too")
        server.settle()
        self.assertEqual(received, [b"in a cipher"])
        self.assertEqual(ours.recv(100), b"in a cipher too")
        ours.close()
        server.settle()
        self.assertEqual(len(lost), 1)
        client.close()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return two connected sockets."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        return ours, theirs


class NoEpollTests(WireTestCase):
    """Platforms and reactors without epoll."""

    def test_reactor_watches(self) -> None:
        """Without epoll, the reactor watches each connection, as in Twisted."""
        self.patch(sockets, "kernel_epoll", None)
        server = self.serve(application)
        client = PairClient(server)
        self.assertEqual(server.reactor.getReaders(), [client.transport])
        client.send(get("/"))
        self.assertIn(b"200 OK", client.read_all())
        client.close()

    def test_reactor_without_descriptors(self) -> None:
        """A reactor that watches no descriptors is not used for them."""
        self.assertFalse(Sockets(object()).adopt(None, None))  # type: ignore[arg-type]


class ReadBodyTests(WireTestCase):
    """Bodies that arrive while their reader runs."""

    def test_without_a_turn(self) -> None:
        """Bytes that have arrived are read without a turn of the reactor."""
        server = self.serve(application)
        client = PairClient(server)
        pieces: list[bytes] = []
        tasks_parked: list[object] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            read = environ["wsgi.input"].read
            for number in range(4):
                client.socket.send(bytes([65 + number]) * 1000)
                pieces.append(read(1000))
                tasks_parked.extend(t for t in server.tasks if t.waiting_on)
            start("200 OK", TEXT)
            return [b"done"]

        server.site.application = app
        client.send(get("/", "Content-Length: 4000", method="POST"))
        self.assertEqual(pieces, [bytes([65 + n]) * 1000 for n in range(4)])
        self.assertEqual(tasks_parked, [])
        self.assertIn(b"done", client.read_all())
        client.close()

    def test_limits_hold(self) -> None:
        """A chunked body beyond the limit is refused here too."""
        server = self.serve(application, max_body=2000, chunked="stream")
        client = PairClient(server)
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            read = environ["wsgi.input"].read
            try:
                while True:
                    client.socket.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                    read(1000)
            except OSError as error:
                errors.append(str(error))
                raise
            return []

        server.site.application = app
        client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        self.assertEqual(errors, ["the body is longer than 2000 bytes"])
        self.assertIn(b"413 Content Too Large", client.read_all())
        client.close()

    def test_next_request_behind_the_body(self) -> None:
        """A request received together with the end of a body is served next."""
        server = self.serve(application)
        client = PairClient(server)
        bodies: list[bytes] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] == "POST":
                client.socket.send(b"the body" + get("/second"))
                bodies.append(environ["wsgi.input"].read())
            start("200 OK", TEXT)
            return [environ["PATH_INFO"].encode()]

        server.site.application = app
        client.send(get("/first", "Content-Length: 8", method="POST"))
        self.assertEqual(bodies, [b"the body"])
        received = client.read_all()
        self.assertIn(b"/first", received)
        self.assertTrue(received.endswith(b"/second"))
        client.close()

    def test_fast_client_lets_others_run(self) -> None:
        """A client that sends without a pause does not starve the others."""
        server = self.serve(application)
        client = PairClient(server)
        turns: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            read = environ["wsgi.input"].read
            for number in range(5):
                client.socket.send(b"x" * 1000)
                server.reactor.rightNow += 0.02  # time passes in the application
                server.reactor.callLater(0, turns.append, number)
                read(1000)
                self.assertIn(number, turns)
            start("200 OK", TEXT)
            return []

        server.site.application = app
        client.send(get("/", "Content-Length: 5000", method="POST"))
        self.assertEqual(turns, [0, 1, 2, 3, 4])
        client.close()
