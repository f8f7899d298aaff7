"""TLS: differences to plain connections, with our own TLS and with Twisted's."""

from __future__ import annotations

import contextlib
import gc
import ssl
import tempfile
from collections import Counter
from http.client import HTTPResponse, IncompleteRead
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from OpenSSL._util import lib
from twisted.internet.interfaces import INegotiated, IProtocol, ISSLTransport
from twisted.internet.tcp import Port
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface.verify import verifyObject

from tests.certificate import TLS_OPTIONS
from tests.matrices import assert_table, matrix
from tests.tls.handshakes import client_context
from txgreenwsgi._server import tls_transport
from txgreenwsgi._server.client_hello import ClientHelloFactory, read_client_hellos
from txgreenwsgi._server.https import HTTPSEndpoint
from txgreenwsgi._server.tls_transport import (
    TLS_CONNECTION,
    TLSFactory,
    TLSTransport,
    own_factory,
)
from txgreenwsgi._tls import records
from txgreenwsgi.testing import MemoryReactor

from .application import TEXT, application
from .test_routes import CASES
from .tls import PlainClient, TLSClient, tls_factory
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .application import Environ, Start


class TLSTests(WireTestCase):
    """The server behind our own TLS."""

    own = True

    def secure(
        self, app: Any = application, room: float = float("inf"), **settings: Any
    ) -> TLSClient:
        """Return a client of a new server."""
        self.server = self.recorded(app, **settings)
        return TLSClient(
            self.server, room, factory=tls_factory(self.server, own=self.own)
        )

    def body(self, client: TLSClient, method: str = "GET") -> bytes:
        """Return the body of the first response."""

        class Sock:
            def makefile(self, mode: str) -> BytesIO:
                return BytesIO(client.received)

        response = HTTPResponse(Sock(), method=method)  # type: ignore[arg-type]
        response.begin()
        return response.read()

    def test_routes(self) -> None:
        """Every route responds as without TLS."""
        for name, case in CASES.items():
            client = self.secure()
            client.send(case.request)
            self.assertEqual(self.body(client, case.method), case.body, name)

    def test_file(self) -> None:
        """A file is read and encrypted, up to its Content-Length."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(range(250)) * 1000)
            file.flush()
            for length, expected in (("", 249_997), ("70000", 70_000)):
                client = self.secure()
                client.send(get(f"/file?path={file.name}&offset=3&length={length}"))
                body = self.body(client)
                self.assertEqual(body, (bytes(range(250)) * 1000)[3 : 3 + expected])
        self.assertEqual(
            [record.bytes_sent for record in self.records], [249_997, 70_000]
        )

    def test_environ(self) -> None:
        """wsgi.url_scheme is https."""
        client = self.secure()
        client.send(get("/environ"))
        self.assertIn(b'"wsgi.url_scheme": "https"', self.body(client))

    def test_close(self) -> None:
        """The server ends with close_notify, and does not wait for the client's."""
        client = self.secure()
        client.send(get("/", "Connection: close"))
        self.assertEqual(self.body(client), b"hello\n")
        self.assertTrue(client.goodbye)
        self.assertTrue(client.closed)

    def test_cut(self) -> None:
        """A truncated response ends without close_notify (RFC 8446 section 6.1)."""
        client = self.secure(request_timeout=5)
        client.send(get("/stream?count=100&pause=1", version="HTTP/1.0"))
        for _ in range(6):
            self.server.advance(1)
            client.read()
        self.assertTrue(client.received.endswith(b"AAAABBBBCCCCDDDD"))
        self.assertTrue(client.closed)
        self.assertFalse(client.goodbye)

    def test_broken_stream(self) -> None:
        """A failure within a stream truncates the response visibly."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"some"
            raise KeyError

        client = self.secure(app)
        client.send(get("/"))
        self.assertRaises(IncompleteRead, self.body, client)
        self.flushLoggedErrors(KeyError)

    def test_each_block_is_handed_over(self) -> None:
        """A block is sent before the application goes on (PEP 3333, Buffering)."""
        seen: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            sent = [client.plain.socket.sent]
            for _ in range(3):
                write(b"block")
                sent.append(client.plain.socket.sent)
            seen.extend(after - before for before, after in pairwise(sent))
            return []

        client = self.secure(app)
        client.send(get("/"))
        self.assertEqual(len(seen), 3)
        self.assertGreater(min(seen), 5)

    def test_slow_reader(self) -> None:
        """A client that does not read gets a bounded number of blocks."""
        taken: list[int] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            for number in range(30):
                taken.append(number)
                yield b"x" * 65536

        client = self.secure(app, room=100_000)
        client.send(get("/"))
        self.assertLess(len(taken), 6)
        (task,) = self.server.tasks
        self.assertEqual(task.waiting_on, "the client to take more")
        while client.read(50_000):
            pass
        self.assertEqual(len(self.body(client)), 30 * 65536)

    def test_slow_reader_of_one_block(self) -> None:
        """A large block is passed on piece by piece, as the client reads."""
        size = 1_000_000
        client = self.secure(room=100_000, write_timeout=5)
        client.send(get(f"/stream?count=1&size={size}"))
        transport = client.plain.transport
        for _ in range(40):
            held = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
            self.assertLess(held, 300_000)
            self.server.advance(1)
            client.read(30_000)
        self.assertEqual(len(self.body(client)), size)

    def test_last_bytes_to_a_slow_reader(self) -> None:
        """The end of a response is not cut if the client reads slowly."""
        client = self.secure(room=10_000, write_timeout=60)
        client.send(get("/stream?count=1&size=60000", "Connection: close"))
        for _ in range(30):
            self.server.advance(1)
            client.read(3000)
        self.assertEqual(self.records[0].outcome, "finished")
        self.assertEqual(len(self.body(client)), 60_000)
        self.assertTrue(client.goodbye)

    def test_reader_that_stops(self) -> None:
        """A client that takes nothing for --write-timeout is cut off."""
        client = self.secure(room=100_000, write_timeout=5)
        client.send(get("/stream?count=100&size=100000"))
        for _ in range(6):
            self.server.advance(1)
        self.assertEqual(self.outcomes(), [(200, "timeout")])
        self.assertTrue(client.closed)
        self.assertEqual(self.server.tasks, [])

    def test_client_leaves(self) -> None:
        """A disconnect interrupts a stream, in a write or in another wait."""
        for room in (100_000, float("inf")):
            client = self.secure(room=room)
            client.send(get("/stream?count=100&size=100000&pause=1"))
            self.server.advance(1)
            client.disconnect()
            self.assertEqual(self.server.tasks, [])
            self.assert_nothing_left(self.server)
        self.assertEqual(self.outcomes(), [(200, "disconnected")] * 2)

    def test_early_response(self) -> None:
        """An early response arrives although the client continues to send."""
        client = self.secure()
        client.send(get("/unread", "Content-Length: 5000000", method="POST"))
        client.send(b"x" * 1_000_000)
        client.send(b"x" * 1_000_000)
        self.assertEqual(self.body(client), b"no\n")
        self.assertFalse(client.plain.reset)

    def test_paused_upload(self) -> None:
        """An upload that is not read is held up to the window."""
        client = self.secure(input_window=1000)
        size = 500_000
        client.send(get("/sleep", f"Content-Length: {size}", method="POST"))
        client.send(b"x" * size)
        self.assertTrue(client.channel.reading_paused)
        self.assertGreater(len(client.plain.socket.to_server), 300_000)
        self.server.advance(1)
        client.read()
        self.assertEqual(self.body(client), b"slept\n")

    def test_two_writers(self) -> None:
        """Two tasks that write at once get an error."""
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)

            def write_too() -> None:
                error = self.assertRaises(RuntimeError, write, b"b")
                errors.append(str(error))

            environ["txgreenwsgi.spawn"](write_too)
            write(b"a" * 500_000)
            return []

        client = self.secure(app, room=100_000)
        client.send(get("/"))
        self.assertEqual(len(errors), 1)
        while client.read():
            pass
        self.assertEqual(self.body(client), b"a" * 500_000)

    def test_interrupted_in_a_block(self) -> None:
        """A block that was sent in part cuts the connection there."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"first")
            with self.assertRaises(TimeoutError), environ["txgreenwsgi.timeout"](1):
                write(b"x" * 1_000_000)
            self.assertRaises(ConnectionResetError, write, b"second")
            return [b"third"]

        client = self.secure(app, room=1000)
        client.send(get("/"))
        while not client.closed:
            self.server.advance(0.5)
            client.read(1)
        self.assertEqual(self.server.tasks, [])
        self.assertFalse(client.goodbye)

    def test_interrupted_behind_a_block(self) -> None:
        """After a block that was passed on whole, others may follow."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"first")
            for _ in range(3):
                with (
                    contextlib.suppress(TimeoutError),
                    environ["txgreenwsgi.timeout"](1),
                ):
                    write(b"x" * 40_000)
            return [b"last"]

        client = self.secure(app, room=1000)
        client.send(get("/"))
        for _ in range(4):
            self.server.advance(1)
        for _ in range(200):
            client.read()
        self.assertEqual(self.body(client), b"first" + b"x" * 120_000 + b"last")

    def test_refusal(self) -> None:
        """Invalid bytes are refused, and the connection closes."""
        client = self.secure()
        client.send(b"nonsense\r\n\r\n" + get("/"))
        self.assertIn(b"HTTP/1.1 400", client.received)
        self.assertEqual(client.received.count(b"HTTP/1.1"), 1)
        self.server.advance(100)
        self.assertTrue(client.closed)


class TwistedTLSTests(TLSTests):
    """The server behind Twisted's TLS, as on the endpoints of other programs."""

    own = False


class CountedCalls:
    """A library whose calls are counted.

    Attributes:
        calls: number of calls by the name of the function.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        """Count the use of a name, and return the original."""
        self.calls[name] += 1
        return getattr(self._library, name)


class Below:
    """An endpoint.

    Attributes:
        factory: the factory that it was told to listen for.
    """

    factory: Any

    def listen(self, protocolFactory: Any) -> Any:
        """Record the factory."""
        self.factory = protocolFactory


class OwnTLSTests(WireTestCase):
    """What only our own TLS does."""

    def secure(
        self, app: Any = application, room: float = float("inf"), **settings: Any
    ) -> TLSClient:
        """Return a client of a new server."""
        self.server = self.recorded(app, **settings)
        return TLSClient(self.server, room)

    def transport(self, client: TLSClient) -> TLSTransport:
        """Return the transport of the channel."""
        transport: Any = client.plain.transport.protocol
        assert isinstance(transport, TLSTransport)
        return transport

    def test_sent_at_once(self) -> None:
        """A block has left the process when write() returns, without a reactor turn."""
        sent: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            turns: list[None] = []
            self.server.reactor.callLater(0, turns.append, None)
            for size in (1, 100, 100_000, 300_000):
                before = client.plain.socket.sent
                write(b"x" * size)
                sent.append(client.plain.socket.sent - before - size)
            self.assertEqual(turns, [])
            return []

        client = self.secure(app)
        client.send(get("/"))
        self.assertEqual(len(sent), 4)
        # Framing, records and tags.
        self.assertGreater(min(sent), 20)
        self.assertLess(max(sent), 1000)
        self.assertIn(b"x" * 300_000, client.received)

    def test_slow_and_steady(self) -> None:
        """A client that accepts a few bytes a second is not cut off."""
        client = self.secure(room=1000, write_timeout=5)
        client.send(get("/stream?count=1&size=60000"))
        for _ in range(70):
            self.server.advance(1)
            client.read(1000)
        self.assertEqual(self.outcomes(), [(200, "finished")])
        while client.read():
            pass
        self.assertIn(b"A" * 60_000, client.received)

    def test_nothing_buffered(self) -> None:
        """The plain transport's buffer stays empty while the client is slow."""
        client = self.secure(room=1000)
        client.send(get("/stream?count=1&size=60000"))
        transport = client.plain.transport
        self.assertEqual(len(transport.dataBuffer) + transport._tempDataLen, 0)
        client.disconnect()

    def test_nothing_kept(self) -> None:
        """Ciphertext that a slow client has accepted is not kept."""
        client = self.secure(room=1000)
        client.send(get("/stream?count=1&size=60000"))
        transport = self.transport(client)

        def kept() -> list[memoryview]:
            return [
                each
                for each in gc.get_referents(transport)
                if isinstance(each, memoryview)
            ]

        self.assertEqual(len(kept()), 1)
        for _ in range(100):
            client.read()
        self.assertEqual(client.received.count(b"A"), 60_000)
        self.assertEqual(kept(), [])

    def test_long_pieces(self) -> None:
        """Requests in one piece with many records are served in order."""
        client = self.secure()
        requests = [get(f"/stream?count=1&size={size}") for size in (10, 20_000, 30)]
        pieces = [client.encrypted(request) for request in requests]
        padding = "Padding: " + "p" * 7000
        pieces += [client.encrypted(get("/", padding)) for _ in range(30)]
        client.plain.send(b"".join(pieces))
        client.read()
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 33)
        self.assertTrue(client.received.endswith(b"hello\n"))

    def test_record_in_pieces(self) -> None:
        """A request is served when the last byte of its record arrives."""
        client = self.secure()
        record = client.encrypted(get("/"))
        client.plain.send(record[:-1], piece=1)
        client.read()
        self.assertEqual(client.received, b"")
        client.plain.send(record[-1:])
        client.read()
        self.assertIn(b"hello", client.received)

    def test_corrupt_record(self) -> None:
        """A record that was changed on its way ends the connection with an alert."""
        client = self.secure()
        record = bytearray(client.encrypted(get("/")))
        record[-1] ^= 1
        client.plain.send(bytes(record))
        self.assertRaises(ssl.SSLError, client.read)
        self.assertTrue(client.closed)
        self.assertEqual(self.records, [])
        # OpenSSL's queue of errors is empty: another connection is not affected.
        other = TLSClient(self.server)
        other.send(get("/"))
        self.assertIn(b"hello", other.received)

    def test_close_notify_behind_a_request(self) -> None:
        """A request that arrives with close_notify is served; then both ends close."""
        client = self.secure()
        client.plain.send(client.encrypted(get("/")) + client.goodbye_record())
        client.read()
        self.assertIn(b"hello", client.received)
        self.assertTrue(client.goodbye)
        self.assertTrue(client.closed)

    def test_close_notify_of_a_slow_reader(self) -> None:
        """A client that says goodbye within a response ends its request."""
        client = self.secure(room=1000)
        client.send(get("/stream?count=100&size=60000"))
        client.plain.send(client.goodbye_record())
        while client.plain.socket.to_client:
            client.plain.read()
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assert_nothing_left(self.server)

    def test_order_at_the_end(self) -> None:
        """An alert behind close_notify does not overtake it."""
        client = self.secure()
        record = bytearray(client.encrypted(get("/")))
        record[-1] ^= 1
        transport = self.transport(client)
        transport.loseConnection()
        transport.dataReceived(bytes(record))
        client.read()
        self.assertTrue(client.goodbye)
        self.assertTrue(client.closed)

    def test_versions(self) -> None:
        """Both versions of TLS work, with every size of a response."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            server = self.recorded(application)
            client = TLSClient(server, context=client_context(version=version))
            for size in (0, 1, 16384, 16385, 65536, 65537, 1_000_000):
                before = client.received.count(b"A")
                client.send(get(f"/stream?count=1&size={size}"))
                self.assertEqual(client.received.count(b"A") - before, size)
            client.disconnect()

    def test_memory_after_long_messages(self) -> None:
        """Long requests and responses leave no memory in OpenSSL's buffers."""
        client = self.secure()
        counted = CountedCalls(lib)
        self.patch(records, "lib", counted)

        def replaced(request: bytes) -> int:
            """Return how many times a request makes the connection replace buffers."""
            counted.calls.clear()
            client.send(request)
            return counted.calls["SSL_set_bio"]

        long_request = get("/", "Content-Length: 10000", method="POST") + b"x" * 10_000
        self.assertEqual(replaced(get("/")), 0)
        self.assertEqual(replaced(get("/stream?count=1&size=100000")), 1)
        self.assertEqual(replaced(get("/")), 0)
        # The input is read where it is, and then replaced by an empty one.
        self.assertEqual(replaced(long_request), 2)
        self.assertEqual(replaced(get("/")), 0)

    def test_producers(self) -> None:
        """One producer at a time is accepted, and it must be a push producer."""
        client = self.secure()
        transport = self.transport(client)
        error = self.assertRaises(
            RuntimeError, transport.registerProducer, object(), True
        )
        self.assertIn("give one IPushProducer at a time", str(error))
        transport.unregisterProducer()
        self.assertRaises(RuntimeError, transport.registerProducer, object(), False)

    def test_endpoints(self) -> None:
        """Our own TLS serves `https:` endpoints, and ports with Twisted's TLS."""
        site = self.recorded(application).site
        below: Any = Below()
        tls: Any = TLS_OPTIONS
        HTTPSEndpoint(below, tls).listen(site)
        self.assertIsInstance(below.factory, ClientHelloFactory)
        self.assertIsInstance(below.factory.below, TLSFactory)
        reactor: Any = MemoryReactor()
        twisted = TLSMemoryBIOFactory(TLS_OPTIONS, False, site, clock=reactor)
        port = Port(0, twisted, reactor=reactor)
        read_client_hellos(port, site)
        factory: Any = port.factory
        self.assertIsInstance(factory, ClientHelloFactory)
        self.assertIsInstance(factory.below, TLSFactory)

    def test_other_factories(self) -> None:
        """Twisted's TLS stays in front of other sites, and with other pyOpenSSL."""
        server = self.recorded(application)
        other = self.recorded(application).site
        given = tls_factory(server, own=False)
        self.assertIs(own_factory(given, other), given)
        self.assertIsInstance(own_factory(given, server.site), TLSFactory)
        self.patch(tls_transport, "is_supported", lambda: False)
        self.assertIs(own_factory(given, server.site), given)

    def test_supported(self) -> None:
        """A pyOpenSSL that lacks a function is not supported."""
        self.addCleanup(records.is_supported.cache_clear)
        self.assertTrue(records.is_supported())
        records.is_supported.cache_clear()
        self.patch(records, "lib", object())
        self.assertFalse(records.is_supported())

    def test_interface(self) -> None:
        """The transport provides Twisted's interfaces of a TLS transport."""
        client = self.secure()
        transport = self.transport(client)
        for interface in (ISSLTransport, INegotiated, IProtocol):
            self.assertTrue(verifyObject(interface, transport))
        self.assertIsNone(transport.negotiatedProtocol)
        self.assertIsNone(transport.getPeerCertificate())
        self.assertEqual(transport.getPeer(), client.plain.transport.getPeer())
        self.assertEqual(transport.getHost(), client.plain.transport.getHost())

    def test_states(self) -> None:
        """The states of a connection and their events."""
        assert_table(
            self,
            TLS_CONNECTION,
            matrix(
                """
                              | complete | close   | lose
                shaking hands | open     | closing | closed
                open          | -        | closing | closed
                closing       | -        | closing | closed
                closed        | -        | -       | closed
                """
            ),
        )

    def test_write_in_the_handshake(self) -> None:
        """Nothing can be written before the end of the handshake."""
        server = self.recorded(application)
        client = PlainClient(server, tls_factory(server))
        self.assertRaises(RuntimeError, client.channel.write, b"early")
        client.disconnect()
