"""HTTP/2 connections: states, shutdown, the rest of request bodies, any bytes."""

from __future__ import annotations

import random
import sys
from struct import pack
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.matrices import assert_table, matrix
from txgreenwsgi import GreenSite, service
from txgreenwsgi._server.h2_channel import (
    ANNOUNCED,
    CLOSED,
    CONNECTION,
    FINISHING,
    LINGERING,
    OPEN,
    H2Channel,
)
from txgreenwsgi.settings import SettingError
from txgreenwsgi.testing import LeakCheckMixin

from .frames import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.logger import ILogObserver, LogEvent

    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.testing import MemoryServer

    Environ = dict[str, Any]
    Start = Callable[..., Any]

REFUSED_STREAM = 7
LAST = 2**31 - 1


class ChannelTestCase(LeakCheckMixin, SynchronousTestCase):
    """A server of HTTP/2 in memory.

    Attributes:
        called: the paths of the requests that reached the application.
        records: the records of all exchanges.
    """

    def setUp(self) -> None:
        """Start without requests."""
        self.called: list[str] = []
        self.records: list[ExchangeRecord] = []

    def app(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer; /sleep/N after N seconds, /read after the body."""
        path = environ["PATH_INFO"]
        self.called.append(path)
        if path.startswith("/sleep/"):
            environ["txgreenwsgi.sleep"](int(path[7:]))
        if path == "/read":
            environ["wsgi.input"].read()
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"body"]

    def server_of(self, **settings: Any) -> MemoryServer:
        """Return a server."""
        return self.serve(self.app, [self.records.append], http2="h2c", **settings)

    def channel(self, client: RawClient) -> H2Channel:
        """Return the channel of a client."""
        [channel] = [
            each
            for each in client.memory.server.site.server.shutdown.connections
            if isinstance(each, H2Channel)
        ]
        return channel

    def goaways(self, client: RawClient) -> list[tuple[int, int]]:
        """Return last stream and error of each GOAWAY."""
        found = []
        for each in client.of_kind(GOAWAY):
            last, error = int.from_bytes(each.payload[:4], "big"), each.payload[7]
            found.append((last, error))
        return found


class StateTests(ChannelTestCase):
    """The states of a connection."""

    def test_table(self) -> None:
        """The table."""
        assert_table(
            self,
            CONNECTION,
            matrix(
                """
                          | announce  | finish    | close     | lose
                open      | announced | finishing | lingering | closed
                announced | -         | finishing | lingering | closed
                finishing | -         | -         | lingering | closed
                lingering | -         | -         | -         | closed
                closed    | -         | -         | -         | closed
                """
            ),
        )

    def test_idle_connection(self) -> None:
        """At shutdown an idle connection is told, serves what comes, and closes."""
        server = self.server_of(drain_idle=2)
        client = RawClient(server)
        channel = self.channel(client)
        self.assertEqual(channel.state, OPEN)
        server.advance(0.25)
        done = server.site.stop()
        server.settle()
        self.assertEqual(channel.state, ANNOUNCED)
        self.assertEqual(self.goaways(client), [(LAST, 0)])
        server.advance(1)
        client.send(client.request(1))
        self.assertEqual(client.responses(), {1: 200})
        server.advance(1)
        self.assertEqual(channel.state, ANNOUNCED)
        for _ in range(5):
            server.advance(0.25)
        self.assertEqual(self.goaways(client), [(LAST, 0), (1, 0)])
        self.assertEqual(channel.state, LINGERING)
        self.assertTrue(client.memory.closed)
        client.memory.disconnect()
        self.assertEqual(channel.state, CLOSED)
        self.successResultOf(done)

    def test_busy_connection(self) -> None:
        """A connection with a request in progress closes after its response."""
        server = self.server_of(drain_idle=2)
        client = RawClient(server)
        client.send(client.request(1, "/sleep/10"))
        server.site.stop()
        for _ in range(36):
            server.advance(0.25)
        self.assertEqual(self.goaways(client), [])
        for _ in range(12):
            server.advance(0.25)
        self.assertEqual(client.responses(), {1: 200})
        self.assertEqual(self.goaways(client), [(LAST, 0), (1, 0)])
        self.assertTrue(client.memory.closed)

    def test_announced_after_the_response(self) -> None:
        """The client has time to handle the last response before the announcement."""
        server = self.server_of(drain_idle=2)
        client = RawClient(server)
        client.send(client.request(1, "/sleep/10"))
        server.site.stop()
        server.advance(10)
        self.assertEqual(client.responses(), {1: 200})
        self.assertEqual(self.goaways(client), [])
        server.advance(0.25)
        self.assertEqual(self.goaways(client), [(LAST, 0)])

    def test_client_that_goes_on(self) -> None:
        """A client that opens streams after the announcement is refused in the end."""
        server = self.server_of(drain_idle=2)
        client = RawClient(server)
        channel = self.channel(client)
        client.send(client.request(1, "/sleep/10"))
        server.site.stop()
        server.advance(1)
        client.send(client.request(3))
        self.assertEqual(self.goaways(client), [])
        server.advance(1)
        client.send(client.request(5))
        self.assertEqual(self.goaways(client), [(LAST, 0)])
        client.send(client.request(7))
        for _ in range(9):
            server.advance(0.25)
        self.assertEqual(channel.state, FINISHING)
        self.assertEqual(self.goaways(client), [(LAST, 0), (7, 0)])
        client.send(client.request(9))
        self.assertEqual(client.resets(), [(9, REFUSED_STREAM)])
        self.assertEqual(client.responses(), {3: 200, 5: 200, 7: 200})
        for _ in range(24):
            server.advance(0.25)
        self.assertEqual(client.responses()[1], 200)
        self.assertTrue(client.memory.closed)
        self.assertEqual(len(self.called), 4)

    def test_no_keep_alive(self) -> None:
        """With `keep_alive=0` the connection closes when no request is left."""
        client = RawClient(self.server_of(keep_alive=0))
        self.assertFalse(client.memory.closed)
        client.send(client.request(1) + client.request(3))
        self.assertEqual(client.responses(), {1: 200, 3: 200})
        self.assertEqual(self.goaways(client), [(3, 0)])
        self.assertTrue(client.memory.closed)

    def test_cancelled(self) -> None:
        """The end of the grace period cancels requests, and closes the connection."""
        server = self.server_of(graceful_timeout=3)
        client = RawClient(server)
        client.send(client.request(1, "/sleep/100"))
        server.site.stop()
        for _ in range(24):
            server.advance(0.25)
        self.assertEqual(client.responses(), {1: 503})
        self.assertTrue(client.memory.closed)
        self.flushLoggedErrors()


class RestOfBodyTests(ChannelTestCase):
    """Request bodies whose application has not read them."""

    def test_small_rest(self) -> None:
        """A small rest is dropped, and its window opens."""
        client = RawClient(self.server_of())
        client.send(client.upload(1, [("content-length", "100000")]))
        self.assertEqual(client.responses(), {1: 200})
        for size in (16384,) * 6 + (1696,):
            client.send(frame(DATA, 0, 1, bytes(size)))
        client.send(frame(DATA, END_STREAM, 1))
        self.assertEqual(client.resets(), [])
        client.send(client.request(3))
        self.assertEqual(client.responses(), {1: 200, 3: 200})

    def test_large_rest(self) -> None:
        """A large rest is not awaited: NO_ERROR after the response."""
        client = RawClient(self.server_of())
        client.send(client.upload(1, [("content-length", "1000000")]))
        self.assertEqual(client.responses(), {1: 200})
        self.assertEqual(client.resets(), [(1, 0)])
        client.send(frame(DATA, 0, 1, bytes(16384)))
        client.send(client.request(3))
        self.assertEqual(client.responses(), {1: 200, 3: 200})

    def test_rest_without_end(self) -> None:
        """A rest of unknown length is dropped up to a limit of size and time."""
        server = self.server_of(chunked="stream")
        client = RawClient(server)
        client.send(client.upload(1) + client.upload(3))
        self.assertEqual(client.responses(), {1: 200, 3: 200})
        for _ in range(17):
            client.send(frame(DATA, 0, 1, bytes(16384)))
        self.assertEqual(client.resets(), [(1, 0)])
        for _ in range(22):
            server.advance(0.25)
        self.assertEqual(client.resets(), [(1, 0), (3, 0)])

    def test_trailers(self) -> None:
        """Trailers above the limit end the body with an error."""
        client = RawClient(self.server_of(max_trailer_size=100))
        for stream, size in ((1, 50), (3, 200)):
            block = client.head("/read", [("content-length", "1")], "POST")
            client.send(frame(HEADERS, END_HEADERS, stream, block))
            client.send(frame(DATA, 0, stream, b"x"))
            trailers = client.block([("checksum", "y" * size)])
            flags = END_STREAM | END_HEADERS
            client.send(frame(HEADERS, flags, stream, trailers))
        self.assertEqual(client.responses(), {1: 200, 3: 431})


class ContinueTests(ChannelTestCase):
    """`Expect: 100-continue`."""

    def test_read_after_the_response(self) -> None:
        """A read behind the head of the response does not send 100 Continue."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Length", "2")])
            yield b"ok"
            environ["wsgi.input"].read()

        server = self.serve(app, http2="h2c", body_timeout=3)
        client = RawClient(server)
        fields = [("expect", "100-continue"), ("content-length", "1")]
        client.send(client.upload(1, fields))
        self.assertEqual(client.responses(), {1: 200})
        self.assertEqual(len(client.of_kind(HEADERS)), 1)
        client.send(frame(DATA, END_STREAM, 1, b"x"))
        client.send(client.upload(3, fields))
        for _ in range(16):
            server.advance(0.25)
        self.assertEqual(len(client.of_kind(HEADERS)), 2)


class RecordTests(ChannelTestCase):
    """Records of exchanges and of refused requests."""

    def test_records(self) -> None:
        """A record has the version; a refused request has one too."""
        client = RawClient(self.server_of(max_headers=2))
        client.send(client.request(1, "/a?b"))
        client.send(client.request(3, more=[("a", "b")] * 3))
        client.send(client.request(5, method="HEAD"))
        found = [
            (each.method, each.target, each.version, each.status, each.outcome)
            for each in self.records
        ]
        self.assertEqual(
            found,
            [
                ("GET", "/a?b", "HTTP/2.0", 200, "finished"),
                ("", "", "", 431, "refused"),
                ("HEAD", "/", "HTTP/2.0", 200, "finished"),
            ],
        )
        self.assertEqual(client.body(1), b"body")
        self.assertEqual(client.body(5), b"")

    def test_status_of_requests(self) -> None:
        """The table of requests shows those of HTTP/2."""
        server = self.server_of()
        client = RawClient(server)
        client.send(client.request(1, "/sleep/1") + client.request(3, "/sleep/1"))
        rows = [(row.method, row.path) for row in server.site.requests()]
        self.assertEqual(rows, [("GET", "/sleep/1")] * 2)
        server.advance(1)


class LeftoverTests(ChannelTestCase):
    """Connections that end at any moment."""

    def test_aborts(self) -> None:
        """Hundreds of connects and aborts leave nothing behind."""
        server = self.server_of()
        for number in range(300):
            client = RawClient(server)
            client.send(client.request(1, "/sleep/1"))
            client.send(client.upload(3, [("content-length", "9")]))
            client.send(frame(DATA, 0, 3, b"part"))
            if number % 3 == 0:
                client.send(frame(RST_STREAM, 0, 1, pack(">L", CANCEL)))
            if number % 2:
                client.memory.disconnect()
            else:
                client.memory.end()
            server.clients.clear()
        server.advance(1)
        server.advance(0.25)
        self.assert_nothing_left(server)

    def test_any_bytes(self) -> None:
        """Changed, cut and repeated frames never make the server fail."""
        events: list[LogEvent] = []
        observer: ILogObserver = events.append  # type: ignore[assignment]
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        server = self.server_of()
        for seed in range(150):
            chance = random.Random(seed)
            client = RawClient(server, room=chance.choice([2000, float("inf")]))
            stream = 1
            for _ in range(chance.randrange(1, 12)):
                client.send(self._piece(chance, client, stream))
                stream += 2 * chance.randrange(2)
                if chance.random() < 0.1:
                    server.advance(0.25)
                if chance.random() < 0.2:
                    client.memory.read()
            client.memory.disconnect()
            server.clients.clear()
        for _ in range(5):
            server.advance(1)
        failures = [
            event for event in events if event.get("log_level") == LogLevel.critical
        ]
        self.assertEqual(failures, [])
        self.assert_nothing_left(server)

    def _piece(self, chance: random.Random, client: RawClient, stream: int) -> bytes:
        """Return one frame, which may be damaged."""
        path = chance.choice(["/", "/read", "/sleep/1"])
        kinds: list[Callable[[], bytes]] = [
            lambda: client.request(stream, path),
            lambda: frame(
                HEADERS,
                END_HEADERS,
                stream,
                client.head(path, [("content-length", str(chance.randrange(99)))]),
            ),
            lambda: frame(
                DATA, chance.choice([0, 1, 8, 9]), stream, bytes(chance.randrange(60))
            ),
            lambda: frame(RST_STREAM, 0, stream, pack(">L", CANCEL)),
            lambda: frame(
                WINDOW_UPDATE, 0, stream, pack(">L", chance.randrange(2**31))
            ),
            lambda: frame(SETTINGS, 0, 0, pack(">HL", 4, chance.randrange(2**17))),
            lambda: frame(PING, 0, 0, bytes(8)),
            lambda: frame(CONTINUATION, 4, stream, bytes(chance.randrange(9))),
            lambda: frame(
                chance.randrange(18),
                chance.randrange(256),
                chance.randrange(9),
                chance.randbytes(chance.randrange(40)),
            ),
        ]
        piece = bytearray(chance.choice(kinds)())
        if chance.random() < 0.15:
            piece[chance.randrange(len(piece))] = chance.randrange(256)
        if chance.random() < 0.05:
            del piece[chance.randrange(len(piece)) :]
        return bytes(piece)


class NegotiationTests(ChannelTestCase):
    """The choice of the version of a connection."""

    def test_http1(self) -> None:
        """A plain connection without the preface is HTTP/1.1."""
        server = self.server_of()
        response = server.request("GET", "/")
        self.assertEqual((response.status, response.body), (200, b"body"))
        # The method PRI differs from POST and PUT in its second byte.
        for method in ("POST", "PUT", "PATCH", "PRIVATE"):
            self.assertEqual(server.request(method, "/").status, 200)

    def test_only_over_tls(self) -> None:
        """With `tls`, the preface on a plain connection is refused."""
        server = self.serve(self.app, http2="tls")
        client = server.connect()
        client.send(PREFACE)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 505 "))
        self.assertEqual(server.request("GET", "/").status, 200)

    def test_off(self) -> None:
        """By default, HTTP/2 is refused."""
        client = self.serve(self.app).connect()
        client.send(PREFACE)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 505 "))

    def test_offered_protocols(self) -> None:
        """ALPN offers HTTP/2 first, if it is on."""
        for http2, offered in (
            ("off", [b"http/1.1"]),
            ("tls", [b"h2", b"http/1.1"]),
            ("h2c", [b"h2", b"http/1.1"]),
        ):
            site = GreenSite(self.app, http2=http2)  # type: ignore[arg-type]
            self.assertEqual(site.acceptableProtocols(), offered)

    def test_most_connections(self) -> None:
        """Connections that are not negotiated count for `max_connections`."""
        server = self.server_of(max_connections=2)
        waiting = server.connect()
        client = RawClient(server)
        self.assertTrue(server.connect().closed)
        waiting.disconnect()
        client.send(client.request(1))
        self.assertEqual(client.responses(), {1: 200})

    def test_shutdown_before_the_version(self) -> None:
        """A connection that has sent nothing closes after `drain_idle`."""
        server = self.server_of(drain_idle=1)
        client = server.connect()
        done = server.site.stop()
        server.advance(0.5)
        self.assertFalse(client.closed)
        for _ in range(4):
            server.advance(0.25)
        self.assertTrue(client.closed)
        self.successResultOf(done)

    def test_missing_package(self) -> None:
        """Without h2, the error names the package and the remedy."""
        makers: tuple[Callable[..., object], ...] = (GreenSite, service)
        with patch.dict(sys.modules, {"h2": None}):
            for make in makers:
                error = self.assertRaises(SettingError, make, self.app, http2="tls")
                self.assertIn("http2='tls' needs a package", str(error))
                self.assertIn("pip install 'txgreenwsgi[http2]'", str(error))

    def test_settings(self) -> None:
        """Other values are refused."""
        self.assertRaises(SettingError, GreenSite, self.app, http2="on")
        self.assertRaises(SettingError, GreenSite, self.app, http2_max_streams=0)
