"""Connections whose deadline has passed while their input was unread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi._server.channel import CLOSE_SECONDS

from .application import application
from .tls import TLSClient
from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryClient, MemoryServer


class UnreadInputTests(WireTestCase):
    """Input that has arrived, and that the reactor has not read."""

    def arrive(self, client: MemoryClient, data: bytes) -> None:
        """Put bytes into the kernel's buffer of the server's socket."""
        client.socket.to_server += data

    def test_idle(self) -> None:
        """A request that has arrived on an idle connection is served."""
        server = self.recorded(application, keep_alive=5)
        client = server.connect()
        client.send(get("/"))
        self.arrive(client, get("/"))
        server.advance(60)
        self.assertEqual([r.status for r in client.responses()], [200, 200])
        self.assertFalse(client.closed)

    def test_part_of_a_head(self) -> None:
        """The arrival of a part of a head starts the time of the head."""
        server = self.serve(application, keep_alive=5, header_timeout=10)
        client = server.connect()
        client.send(get("/"))
        self.arrive(client, get("/")[:10])
        server.advance(60)
        self.assertFalse(client.closed)
        client.send(get("/")[10:])
        self.assertEqual(len(client.responses()), 2)

    def test_empty_lines(self) -> None:
        """Empty lines before a request do not keep an idle connection open."""
        server = self.serve(application, keep_alive=5)
        client = server.connect()
        client.send(get("/"))
        self.arrive(client, b"\r\n")
        server.advance(60)
        self.assertTrue(client.closed)

    def test_end_of_input(self) -> None:
        """The end of the input is no input."""
        server = self.serve(application, keep_alive=5)
        client = server.connect()
        client.send(get("/"))
        client.socket.client_closed = True
        server.advance(60)
        self.assertTrue(client.closed)

    def test_rest_of_a_head(self) -> None:
        """A head whose rest has arrived is served."""
        server = self.serve(application, header_timeout=5)
        client = server.connect()
        client.send(get("/")[:10])
        self.arrive(client, get("/")[10:])
        server.advance(60)
        self.assertEqual([r.status for r in client.responses()], [200])

    def test_head_that_is_still_incomplete(self) -> None:
        """Bytes that do not complete a head do not extend its time."""
        server = self.serve(application, header_timeout=5)
        client = server.connect()
        client.send(get("/")[:10])
        self.arrive(client, get("/")[10:12])
        server.advance(60)
        self.assertEqual([r.status for r in client.responses()], [408])

    def test_invalid_rest(self) -> None:
        """An invalid rest of a head is refused once."""
        server = self.serve(application, header_timeout=5)
        client = server.connect()
        client.send(get("/")[:10])
        self.arrive(client, b"\0\r\n\r\n")
        server.advance(60)
        self.assertEqual([r.status for r in client.responses()], [400])

    def test_next_request(self) -> None:
        """The head of a second request has its own time."""
        server = self.serve(application, header_timeout=5)
        client = server.connect()
        client.send(get("/")[:10])
        self.arrive(client, get("/")[10:] + get("/")[:10])
        server.advance(60)
        self.assertEqual([r.status for r in client.responses()], [200])
        self.assertFalse(client.closed)

    def test_body(self) -> None:
        """A body whose rest has arrived is complete."""
        server = self.serve(application, body_timeout=5)
        client = server.connect()
        client.send(post("/echo", b"abcdef")[:-3])
        self.arrive(client, b"def")
        server.advance(60)
        self.assertEqual([r.body for r in client.responses()], [b"abcdef"])

    def test_body_that_is_too_slow(self) -> None:
        """Bytes that have arrived count for min_body_rate, and do not suspend it."""
        server = self.serve(application, body_timeout=50, min_body_rate=1)
        client = server.connect()
        client.send(post("/echo", b"x" * 1000)[:-999])
        for _ in range(3):
            server.advance(30)
            client.send(b"x")
        self.assertEqual([r.status for r in client.responses()], [408])

    def test_connection_that_is_reset(self) -> None:
        """A connection that was reset is closed."""
        server = self.serve(application, keep_alive=5)
        client = server.connect()
        client.send(get("/"))
        client.socket.client_gone = True
        server.advance(60)
        self.assertTrue(client.closed)


class TLSUnreadInputTests(WireTestCase):
    """The same over TLS, where the input is encrypted."""

    def arrive(self, client: TLSClient, data: bytes) -> None:
        """Put an encrypted record into the buffer of the server's socket."""
        client.plain.socket.to_server += client.encrypted(data)

    def secure(self, **settings: Any) -> tuple[MemoryServer, TLSClient]:
        """Return a new server and a client that has sent one request."""
        server = self.recorded(application, **settings)
        client = TLSClient(server)
        client.send(get("/"))
        return server, client

    def test_idle(self) -> None:
        """A request that has arrived on an idle connection is served."""
        server, client = self.secure(keep_alive=5)
        self.arrive(client, get("/"))
        server.advance(60)
        client.read()
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 2)
        self.assertFalse(client.closed)

    def test_rest_of_a_head(self) -> None:
        """A head whose rest has arrived is served."""
        server, client = self.secure(header_timeout=5)
        client.send(get("/")[:10])
        self.arrive(client, get("/")[10:])
        server.advance(60)
        client.read()
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 2)

    def test_shutdown(self) -> None:
        """The shutdown serves a request that has arrived before it."""
        server, client = self.secure()
        self.arrive(client, get("/"))
        stopped = server.site.stop()
        server.settle()
        client.read()
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 2)
        client.disconnect()
        self.successResultOf(stopped)

    def test_nothing_arrived(self) -> None:
        """Without input, an idle connection is closed in time."""
        server, client = self.secure(keep_alive=5)
        server.advance(5)
        self.assertTrue(client.closed)


class StallTests(WireTestCase):
    """Connections without a request, during a stall of the reactor."""

    def stall(self, server: MemoryServer, seconds: float) -> None:
        """Let time pass in which the server does nothing."""
        server.hub.detects_stalls = True
        server.reactor.rightNow += seconds
        server.settle()
        server.hub.detects_stalls = False

    def wait(self, server: MemoryServer, seconds: float) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / 0.25)):
            server.advance(0.25)

    def test_idle(self) -> None:
        """An idle connection gets the rest of its time."""
        server = self.serve(application, keep_alive=5)
        client = server.connect()
        client.send(get("/"))
        self.wait(server, 2)
        self.stall(server, 60)
        self.wait(server, 2.5)
        self.assertFalse(client.closed)
        self.wait(server, 1)
        self.assertTrue(client.closed)

    def test_head(self) -> None:
        """A client that is sending a head gets the rest of its time."""
        server = self.serve(application, header_timeout=5)
        client = server.connect()
        client.send(get("/")[:10])
        self.wait(server, 2)
        self.stall(server, 60)
        self.wait(server, 2.5)
        self.assertEqual(client.received, b"")
        self.wait(server, 1)
        self.assertEqual([r.status for r in client.responses()], [408])

    def test_new_connection(self) -> None:
        """A connection that is made after a stall gets no more time than others."""
        server = self.serve(application, keep_alive=5)
        first = server.connect()
        server.hub.detects_stalls = True
        server.reactor.rightNow += 60
        second = server.connect()
        server.settle()
        server.hub.detects_stalls = False
        self.wait(server, 5.25)
        self.assertEqual((first.closed, second.closed), (True, True))

    def test_lingering(self) -> None:
        """A lingering connection is kept for its time after a stall, and no longer."""
        server = self.serve(application)
        client = server.connect()
        client.send(b"x\r\n\r\n")
        self.stall(server, 60)
        self.wait(server, CLOSE_SECONDS - 0.5)
        self.assertFalse(client.channel.transport is None)
        self.wait(server, 1)
        self.assertTrue(client.reset)
