"""Deadlines of connections and requests, by the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import LogLevel

from txgreenwsgi import ClientDisconnected, RequestTimeout

from .application import TEXT, application
from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txgreenwsgi.testing import MemoryClient, MemoryServer

    from .application import Environ, Start

#: The interval of the deadline checks, in seconds.
TICK = 0.25


def wait(server: MemoryServer, seconds: float) -> None:
    """Let time pass in small steps, as in production."""
    for _ in range(round(seconds / TICK)):
        server.advance(TICK)


class ConnectionTests(WireTestCase):
    """Clients that send nothing, or an incomplete request."""

    def closed_after(self, server: MemoryServer, client: MemoryClient) -> float:
        """Return the seconds until the server closes the connection."""
        before = server.reactor.seconds()
        while not client.closed:
            server.advance(TICK)
            self.assertLess(server.reactor.seconds() - before, 1000)
        return float(server.reactor.seconds() - before)

    def test_keep_alive(self) -> None:
        """An idle connection is closed without a response after --keep-alive."""
        server = self.recorded(application, keep_alive=7)
        client = server.connect()
        client.send(get("/"))
        self.assertEqual(self.closed_after(server, client), 7)
        self.assertEqual(len(client.responses()), 1)
        self.assertEqual(len(self.records), 1)

    def test_keep_alive_begins_anew(self) -> None:
        """The time counts from the end of the last response."""
        server = self.serve(application, keep_alive=7)
        client = server.connect()
        for _ in range(5):
            client.send(get("/sleep?seconds=9"))
            wait(server, 9 + 6)
            self.assertFalse(client.closed)
        self.assertEqual(self.closed_after(server, client), 1)

    def test_connection_without_a_request(self) -> None:
        """The same time applies to a connection without a first request."""
        server = self.serve(application, keep_alive=7)
        self.assertEqual(self.closed_after(server, server.connect()), 7)

    def test_connection_without_a_request_and_without_keep_alive(self) -> None:
        """Without keep-alive, --header-timeout applies to it."""
        server = self.serve(application, keep_alive=0, header_timeout=3)
        self.assertEqual(self.closed_after(server, server.connect()), 3)

    def test_head(self) -> None:
        """A head that is incomplete after --header-timeout is answered 408."""
        server = self.recorded(application, header_timeout=5)
        client = server.connect()
        wait(server, 4)
        for byte in get("/")[:16]:
            client.send(bytes([byte]))
            wait(server, TICK)
        self.assertFalse(client.closed)
        self.assertEqual(self.closed_after(server, client), 1)
        self.assertEqual(self.only(client).status, 408)
        self.assertEqual(self.outcomes(), [(408, "refused")])

    def test_second_head(self) -> None:
        """The time for the head of a later request counts from its first byte."""
        server = self.serve(application, header_timeout=5)
        client = server.connect()
        client.send(get("/") + b"GET")
        wait(server, 4)
        client.send(b" / HTTP/1.1\r\n")
        self.assertEqual(self.closed_after(server, client), 1)
        self.assertEqual([each.status for each in client.responses()], [200, 408])

    def test_head_behind_a_request_that_waits(self) -> None:
        """The time for a head does not count while another request runs."""
        server = self.serve(application, header_timeout=5)
        client = server.connect()
        client.send(get("/sleep?seconds=9") + b"GET")
        wait(server, 9)
        self.assertEqual(self.only(client).status, 200)
        wait(server, 4)
        client.send(get("/")[3:])
        self.assertEqual(len(client.responses()), 2)

    def test_no_limits(self) -> None:
        """0 is no limit."""
        server = self.serve(application, header_timeout=0, body_timeout=0, keep_alive=0)
        idle, head, body = server.connect(), server.connect(), server.connect()
        head.send(b"GET")
        body.send(get("/echo", "Content-Length: 3", method="POST"))
        wait(server, 1000)
        self.assertEqual([idle.closed, head.closed, body.closed], [False] * 3)

    def test_body(self) -> None:
        """A read that gets no byte for --body-timeout fails; the status is 408."""
        server = self.recorded(application, body_timeout=5)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 9", method="POST"))
        for _ in range(3):
            wait(server, 4)
            client.send(b"x")
        self.assertEqual(client.received, b"")
        self.assertEqual(self.closed_after(server, client), 5)
        self.assertEqual(self.only(client).status, 408)
        self.assertIn(b"no byte of the body in 5 seconds", client.received)
        self.assertEqual(self.outcomes(), [(408, "error")])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_body_while_the_application_is_busy(self) -> None:
        """The time counts only while the application is parked in a read."""
        server = self.serve(application, body_timeout=5)
        client = server.connect()
        client.send(get("/sleep?seconds=50", "Content-Length: 9", method="POST"))
        wait(server, 50)
        self.assertEqual(self.only(client).status, 200)

    def test_body_after_the_head_of_the_response(self) -> None:
        """A response that has begun is truncated."""
        server = self.serve(application, body_timeout=5)
        client = server.connect()
        client.send(
            get("/echo-slices?size=1", "Content-Length: 9", method="POST") + b"x"
        )
        self.assertTrue(client.received.endswith(b"1\r\nx\r\n"))
        self.assertEqual(self.closed_after(server, client), 5)
        self.assertTrue(client.received.endswith(b"1\r\nx\r\n"))


class WriteTests(WireTestCase):
    """Clients that do not read."""

    def test_client_that_takes_nothing(self) -> None:
        """A client that accepts no byte for --write-timeout is cut off."""
        for by in ("write", "yield"):
            errors: list[str] = []

            def app(
                environ: Environ,
                start: Start,
                by: str = by,
                errors: list[str] = errors,
            ) -> Iterable[bytes]:
                write = start("200 OK", TEXT)
                if by == "yield":
                    return [b"x" * 100_000] * 2
                try:
                    write(b"x" * 100_000)
                except ClientDisconnected as error:
                    errors.append(str(error))
                    raise
                return []

            server = self.recorded(app, write_timeout=5)
            client = server.connect(room=1000)
            client.send(get("/"))
            for _ in range(3):
                wait(server, 4.5)
                client.read(500)
            self.assertFalse(client.closed)
            wait(server, 5)
            self.assertTrue(client.reset)
            self.assertEqual(server.tasks, [])
            self.assert_logged("GET /", "accepted no byte for 5 seconds")
            if by == "write":
                self.assertEqual(errors, ["the client accepted no byte for 5 seconds"])
        self.assertEqual(self.outcomes(), [(200, "timeout")] * 2)
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_client_that_reads_and_writes(self) -> None:
        """A parked read and a parked write have separate deadlines."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            environ["txgreenwsgi.spawn"](environ["wsgi.input"].read)
            yield b"x" * 100_000

        server = self.recorded(app, write_timeout=5, body_timeout=50)
        client = server.connect(room=1000)
        client.send(get("/", "Content-Length: 3", method="POST"))
        wait(server, 5.25)
        self.assertTrue(client.reset)
        self.assertEqual(server.tasks, [])
        self.flushLoggedErrors(ClientDisconnected)

    def test_no_limit(self) -> None:
        """0 is no limit."""
        server = self.serve(application, write_timeout=0)
        client = server.connect(room=1000)
        client.send(get("/stream?size=100000&count=1"))
        wait(server, 1000)
        while client.read():
            pass
        self.assertEqual(len(self.only(client).body), 100_000)


class RequestTests(WireTestCase):
    """--request-timeout."""

    def setUp(self) -> None:
        """Create a list for the events that applications notice."""
        super().setUp()
        self.noticed: list[object] = []

    def test_waiting(self) -> None:
        """The wait raises RequestTimeout, and the client gets 504."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                environ["txgreenwsgi.sleep"](100)
            except TimeoutError as error:
                self.noticed.append(type(error))
                raise
            return []

        server = self.recorded(app, request_timeout=5)
        client = server.connect()
        client.send(get("/slow") + get("/"))
        wait(server, 4.75)
        self.assertEqual(client.received, b"")
        wait(server, 0.25)
        self.assertEqual(self.only(client).status, 504)
        self.assertTrue(client.closed)
        self.assertEqual(self.noticed, [RequestTimeout])
        self.assertEqual(server.tasks, [])
        self.assertEqual(self.outcomes(), [(504, "timeout")])
        self.assert_logged(
            "GET /slow (request ", "took longer than 5.0", level=LogLevel.warn
        )

    def test_reading(self) -> None:
        """A read of the body raises it too."""
        server = self.recorded(application, request_timeout=5)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 9", method="POST"))
        wait(server, 5)
        self.assertEqual(self.only(client).status, 504)
        self.assertEqual(self.outcomes(), [(504, "timeout")])

    def test_response_has_begun(self) -> None:
        """A response that has begun is truncated, which the client can detect."""
        for request in (
            get("/stream?count=100&pause=1"),
            get("/stream?count=100&pause=1", version="HTTP/1.0"),
        ):
            server = self.recorded(application, request_timeout=5)
            client = server.connect()
            client.send(request)
            wait(server, 5)
            self.assertTrue(client.reset)
            self.assertEqual(server.tasks, [])
        self.assertEqual(self.outcomes(), [(200, "timeout")] * 2)

    def test_client_does_not_read(self) -> None:
        """A parked write raises it too."""
        server = self.recorded(application, request_timeout=5)
        client = server.connect(room=1000)
        client.send(get("/stream?size=100000"))
        wait(server, 5)
        self.assertTrue(client.reset)
        self.assertEqual(self.outcomes(), [(200, "timeout")])

    def test_application_that_goes_on(self) -> None:
        """An application that ignores the timeout can send no more."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                environ["txgreenwsgi.sleep"](100)
            except TimeoutError:
                environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return [b"too late"]

        server = self.recorded(app, request_timeout=5)
        client = server.connect()
        client.send(get("/"))
        wait(server, 10)
        self.assertEqual(self.only(client).status, 504)
        self.assertEqual(self.outcomes(), [(504, "timeout")])
        self.assertEqual(server.tasks, [])

    def test_shielded(self) -> None:
        """The client gets 504 in time, and the shielded block completes."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            with environ["txgreenwsgi.shield"]():
                environ["txgreenwsgi.sleep"](10)
                self.noticed.append("whole")
            environ["txgreenwsgi.sleep"](100)
            return []

        server = self.recorded(app, request_timeout=5)
        client = server.connect()
        client.send(get("/"))
        wait(server, 5)
        self.assertEqual(self.only(client).status, 504)
        self.assertEqual(self.noticed, [])
        wait(server, 5)
        self.assertEqual(self.noticed, ["whole"])
        self.assertEqual(server.tasks, [])

    def test_client_is_gone(self) -> None:
        """A request that continues without its client has the same deadline."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                environ["txgreenwsgi.suspend"]().wait()
            except RequestTimeout:
                self.noticed.append("timed out")
                raise
            return []

        server = self.recorded(app, request_timeout=5)
        client = server.connect()
        client.send(get("/"))
        client.disconnect()
        self.assertEqual(server.site.server.shutdown.connections, set())
        wait(server, 5)
        self.assertEqual(self.noticed, ["timed out"])
        self.assertEqual(server.tasks, [])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assertEqual(server.reactor.getDelayedCalls(), [])

    def test_client_leaves_while_it_is_answered(self) -> None:
        """A disconnect that is found while the 504 is sent is harmless."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                environ["txgreenwsgi.sleep"](100)
            except RequestTimeout:
                self.noticed.append("timed out")
                raise
            return []

        server = self.recorded(app, request_timeout=5)
        client = server.connect()
        client.send(get("/"))
        wait(server, 4.75)
        server.reactor.removeReader(client.transport)  # it goes unnoticed
        client.socket.client_gone = True
        wait(server, 0.25)
        self.assertEqual(self.noticed, ["timed out"])
        self.assertEqual(server.tasks, [])

    def test_close_takes_too_long(self) -> None:
        """A close() that does not end is interrupted; the response is complete."""

        class Stuck:
            def __init__(stuck, environ: Environ) -> None:  # noqa: N805
                stuck.environ = environ

            def __iter__(stuck) -> Iterator[bytes]:  # noqa: N805
                return iter([b"whole"])

            def close(stuck) -> None:  # noqa: N805
                stuck.environ["txgreenwsgi.suspend"]().wait()

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return Stuck(environ)

        server = self.recorded(app, request_timeout=5)
        client = server.connect()
        client.send(get("/stuck"))
        wait(server, 15)
        self.assertEqual(self.only(client).body, b"whole")
        self.assertFalse(client.closed)
        self.assertEqual(server.tasks, [])
        self.assertEqual(len(self.flushLoggedErrors(RequestTimeout)), 1)
        lines = [
            line for line in self.logged(LogLevel.warn) if "request timeout" in line
        ]
        self.assertEqual(len(lines), 1)

    def test_own_limit(self) -> None:
        """A request may set its own limit, counted from the call, or none."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            limit = environ["txgreenwsgi.set_request_timeout"]
            environ["txgreenwsgi.sleep"](4)
            limit({"/more": 10, "/less": 0.5, "/none": None}[environ["PATH_INFO"]])
            environ["txgreenwsgi.sleep"](7)
            start("200 OK", TEXT)
            return []

        for target, status in (("/more", 200), ("/less", 504), ("/none", 200)):
            server = self.serve(app, request_timeout=5)
            client = server.connect()
            client.send(get(target))
            wait(server, 4.75)
            self.assertEqual(client.received != b"", target == "/less")
            wait(server, 20)
            self.assertEqual(self.only(client).status, status)

    def test_own_limit_that_is_none(self) -> None:
        """An invalid limit is refused, and the old one stays."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            for wrong in (0, -1, float("nan")):
                error = self.assertRaises(
                    ValueError, environ["txgreenwsgi.set_request_timeout"], wrong
                )
                self.assertIn("give a number above 0, or None for no limit", str(error))
            start("200 OK", TEXT)
            return [b"fine"]

        self.assertEqual(self.serve(app).request().body, b"fine")

    def test_in_time(self) -> None:
        """A request that ends in time is not interrupted, nor is the next."""
        server = self.serve(application, request_timeout=5)
        client = server.connect()
        for _ in range(4):
            client.send(post("/sleep?seconds=4", b"abc"))
            wait(server, 4)
        self.assertEqual([each.status for each in client.responses()], [200] * 4)
