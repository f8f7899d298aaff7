"""`txgreenwsgi.testing`: connections in memory, and the detection of leaks."""

from __future__ import annotations

import os
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import FileDescriptor
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import sleep, spawn, suspend
from txgreenwsgi.testing import LeakCheckMixin, MemoryReactor, MemoryServer, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    """Echo the body; or wait a second; or leave something behind."""
    path = environ["PATH_INFO"]
    if path == "/sleep":
        sleep(1)
    elif path == "/task":
        spawn(lambda: suspend().wait())
    elif path == "/file":
        environ["keep"](os.pipe())
    start("200 OK", [("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")])
    return [environ["REQUEST_METHOD"].encode() + b" ", environ["wsgi.input"].read()]


class MemoryServerTests(LeakCheckMixin, SynchronousTestCase):
    """`MemoryServer` and `MemoryClient`."""

    def test_request(self) -> None:
        """request() sends one request on a connection of its own."""
        server = self.serve(app)
        response = server.request("POST", "/", [("X-B", "1")], b"body")
        self.assertIsInstance(response, Response)
        self.assertEqual((response.status, response.reason), (200, "OK"))
        self.assertEqual(response.body, b"POST body")
        self.assertEqual(response.header("content-type"), "text/plain")
        self.assertEqual(response.header("X-A"), "1, 2")
        self.assertIsNone(response.header("X-B"))
        self.assertEqual(server.site.server.shutdown.connections, set())
        self.assertEqual(server.request("HEAD").body, b"")

    def test_request_that_waits(self) -> None:
        """A response that is not ready raises, with the wait of the request."""
        server = self.serve(app)
        error = self.assertRaises(AssertionError, server.request, "GET", "/sleep")
        self.assertIn("0 responses to GET /sleep", str(error))
        self.assertIn("sleep(1)", str(error))
        server.advance(1)

    def test_time(self) -> None:
        """Time passes only in advance()."""
        server = self.serve(app)
        client = server.connect()
        client.send(GET.replace(b"/ ", b"/sleep "))
        server.advance(0.5)
        server.settle()
        self.assertEqual(client.received, b"")
        self.assertEqual(len(server.tasks), 1)
        self.assertEqual(server.hub.tasks, set(server.tasks))
        server.advance(0.5)
        self.assertEqual(client.responses()[0].body, b"GET ")

    def test_pieces(self) -> None:
        """Bytes can be sent one by one."""
        client = self.serve(app).connect()
        client.send(GET, 1)
        client.send(GET, 7)
        self.assertEqual(len(client.responses()), 2)

    def test_slow_reader(self) -> None:
        """A client can read slowly, in pieces."""
        client = self.serve(app).connect(room=10)
        client.send(GET)
        self.assertEqual(client.received, b"")
        self.assertEqual(client.read(4), b"HTTP")
        self.assertEqual(client.read(), b"/1.1 200 O"[:10])
        while client.read():
            pass
        self.assertEqual(len(client.responses()), 1)

    def test_disconnect(self) -> None:
        """A client can disconnect, at once or after a number of bytes."""
        server = self.serve(app)
        client = server.connect()
        client.disconnect()
        self.assertEqual(server.site.server.shutdown.connections, set())
        client = server.connect()
        client.disconnect_after(4)
        client.send(GET)
        self.assertEqual(client.received, b"HTTP")
        self.assertEqual(server.site.server.shutdown.connections, set())
        client = server.connect()
        client.disconnect_after(0)
        self.assertEqual(server.site.server.shutdown.connections, set())

    def test_end(self) -> None:
        """A half-close counts as a disconnect, as on real connections."""
        client = self.serve(app).connect()
        client.end()
        self.assertTrue(client.closed)
        self.assertFalse(client.reset)

    def test_responses(self) -> None:
        """Received bytes are decoded; an incomplete response is an error."""
        client = self.serve(app).connect()
        self.assertEqual(client.responses(), [])
        client.send(b"HEAD" + GET[3:] + GET)
        head, get = client.responses(["HEAD", "GET"])
        self.assertEqual((head.body, get.body), (b"", b"GET "))
        whole = client.received
        for cut in (1, 2, 9, 40):  # in the body and in the head
            client.received = whole[:-cut]
            self.assertRaises(HTTPException, client.responses, ["HEAD", "GET"])

    def test_interim_responses(self) -> None:
        """Interim responses are not among the responses."""

        def hinting(environ: dict[str, Any], start: Any) -> list[bytes]:
            environ["wsgi.early_hints"]([("Link", "</a>")])
            start("200 OK", [])
            return [environ["REQUEST_METHOD"].encode()]

        client = self.serve(hinting).connect()
        client.send(b"HEAD" + GET[3:] + GET)
        self.assertEqual(client.received.count(b"103 Early Hints"), 2)
        head, get = client.responses(["HEAD", "GET"])
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual((get.status, get.body), (200, b"GET"))

    def test_refused_connection(self) -> None:
        """A connection that the server refuses is closed at once."""
        server = self.serve(app, max_connections=1)
        server.connect()
        self.assertTrue(server.connect().closed)

    def test_settings_and_observers(self) -> None:
        """Settings and observers are those of a real server."""
        seen: list[object] = []
        server = self.serve(app, observers=[seen.append], server_header="mine")
        self.assertEqual(server.request().header("Server"), "mine")
        self.assertEqual(len(seen), 1)

    def test_close(self) -> None:
        """close() disconnects all clients."""
        server = self.serve(app)
        for _ in range(3):
            server.connect()
        server.close()
        self.assertEqual(server.site.server.shutdown.connections, set())


class MemoryReactorTests(SynchronousTestCase):
    """`MemoryReactor`."""

    def test_turns(self) -> None:
        """A call that is scheduled for now, within a turn, runs in the next turn."""
        reactor = MemoryReactor()
        done: list[str] = []

        def first() -> None:
            done.append("first")
            reactor.callLater(0, done.append, "second")

        reactor.callLater(0, first)
        self.assertTrue(reactor.turn())
        self.assertEqual(done, ["first"])
        self.assertTrue(reactor.turn())
        self.assertEqual(done, ["first", "second"])
        self.assertFalse(reactor.turn())

    def test_settle_gives_up(self) -> None:
        """settle() returns even if calls are scheduled without end."""
        reactor = MemoryReactor()
        turns: list[int] = []

        def again() -> None:
            turns.append(1)
            reactor.callLater(0, again)

        again()
        reactor.settle()
        self.assertGreater(len(turns), 100)

    def test_descriptors(self) -> None:
        """Real descriptors are polled once a turn."""
        reactor = MemoryReactor()
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)

        class Reader(FileDescriptor):
            def fileno(self) -> int:
                return reader

            def doRead(self) -> None:
                read.append(os.read(reader, 100))

        read: list[bytes] = []
        watched = Reader(reactor)
        reactor.addReader(watched)
        reactor.settle()
        self.assertEqual(read, [])
        os.write(writer, b"abc")
        reactor.settle()
        self.assertEqual(read, [b"abc"])
        self.assertEqual(reactor.getReaders(), [watched])
        self.assertEqual(reactor.removeAll(), [watched])
        self.assertEqual((reactor.getReaders(), reactor.getWriters()), ([], []))


class LeakCheckTests(SynchronousTestCase):
    """`LeakCheckMixin`."""

    def check(self, target: str, **settings: Any) -> str:
        """Return the failures of a test that has requested a target."""
        kept: list[tuple[int, int]] = []

        class Case(LeakCheckMixin, SynchronousTestCase):
            def test(self) -> None:
                server = self.serve(app, environ=[("A", "b")], **settings)
                server.site.server.environ["keep"] = kept.append
                server.connect().send(GET.replace(b"/ ", target.encode() + b" "))

        result = TestResult()
        Case("test").run(result)
        for pair in kept:
            for descriptor in pair:
                os.close(descriptor)
        return "".join(str(error) for _, error in result.errors)

    def test_nothing(self) -> None:
        """A test that leaves nothing behind passes."""
        self.assertEqual(self.check("/"), "")

    def test_request_in_flight(self) -> None:
        """A request that continues without its client is reported."""
        message = self.check("/sleep")
        self.assertIn("these were left behind", message)
        self.assertIn("waits on sleep(1)", message)
        self.assertIn("GET /sleep", message)

    def test_cancelled_request(self) -> None:
        """A request that ends with its client is no leak."""
        self.assertEqual(self.check("/sleep", on_disconnect="cancel"), "")

    def test_task(self) -> None:
        """A task that a request has left running is reported."""
        self.assertIn("suspend()", self.check("/task"))

    def test_open_file(self) -> None:
        """A file that a request has left open is reported, on Linux."""
        message = self.check("/file")
        if os.path.isdir("/proc/self/fd"):
            self.assertIn("left open", message)
            self.assertIn("pipe:", message)

    def test_without_a_case(self) -> None:
        """A server can be used, and checked, without the mixin."""
        server = MemoryServer(app)
        self.assertEqual(server.request().status, 200)
        LeakCheckMixin().assert_nothing_left(server)
        client = server.connect()
        self.assertRaises(AssertionError, LeakCheckMixin().assert_nothing_left, server)
        client.disconnect()
