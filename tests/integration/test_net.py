"""Green connections over real sockets, and clients written for Twisted."""

from __future__ import annotations

import csv
import hashlib
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.enterprise import adbapi
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.trial.unittest import TestCase

from tests.folders import short_folder
from tests.origins.snippets import snippets
from txgreenwsgi import TimedOut, in_greenlet, sleep, spawn, timeout, wait
from txgreenwsgi.net import BUFFER_BYTES, Connection, Listener, connect, listen
from txgreenwsgi.proxy import GreenProxy

from .processes import LOOPBACK, shared
from .test_endpoints import write_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

reactor: Any = installed
LISTEN = f"tcp:0:interface={LOOPBACK}"


def port_of(listener: Listener) -> int:
    """Return the port of a listener."""
    address: Any = listener.address
    port: int = address.port
    return port


def echo(connection: Connection) -> None:
    """Send everything back."""
    while data := connection.recv(65536):
        connection.write(data)


class _HalfClosing(Protocol):
    """A client that sends 1000 bytes and closes its sending half."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Send, and close the sending half."""
        transport: Any = self.transport
        transport.write(b"x" * 1000)
        transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Collect the response."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fire `ended` with the response."""
        self.ended.callback(self.received)


class NetTests(TestCase):
    """`txgreenwsgi.net` on the installed reactor."""

    timeout = 60

    def talk(
        self,
        serve: Callable[[Connection], object],
        client: Callable[[Connection], Any],
        where: str = LISTEN,
    ) -> Any:
        """Listen, connect, run both ends, and close everything. Parks."""
        listener = listen(where, serve)
        try:
            target = where
            if where.startswith("tcp:"):
                target = f"tcp:{LOOPBACK}:{port_of(listener)}"
            with connect(target, timeout=5.0) as connection:
                result = client(connection)
            connection.wait_closed()
        finally:
            listener.wait_closed()
        while listener.tasks:
            sleep(0.01)
        return result

    @in_greenlet
    def test_conversation(self) -> None:
        """Both ends exchange lines over TCP."""

        def shout(connection: Connection) -> None:
            for line in connection:
                connection.write(line.upper())

        def client(connection: Connection) -> list[bytes]:
            connection.write(b"one\ntwo\n")
            return [connection.readline(), connection.readline()]

        self.assertEqual(self.talk(shout, client), [b"ONE\n", b"TWO\n"])

    @in_greenlet
    def test_unix(self) -> None:
        """Both ends exchange bytes over a UNIX socket."""
        path = short_folder(self) / "socket"

        def client(connection: Connection) -> bytes:
            connection.write(b"hello")
            return connection.read(5)

        self.assertEqual(self.talk(echo, client, f"unix:{path}"), b"hello")

    @in_greenlet
    def test_tls(self) -> None:
        """TLS with a verified certificate, and more data than the buffers hold."""
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        certificate, key = write_certificate(directory)
        where = (
            f"ssl:0:interface={LOOPBACK}:certKey={certificate.absolute()}"
            f":privateKey={key.absolute()}"
        )
        listener = listen(where, echo)
        trusted = trustRootFromCertificates(
            [Certificate.loadPEM(certificate.read_bytes())]
        )
        below = TCP4ClientEndpoint(reactor, LOOPBACK, port_of(listener))
        endpoint = wrapClientTLS(optionsForClientTLS(LOOPBACK, trusted), below)
        data = bytes(range(256)) * 8192
        try:
            with connect(endpoint, timeout=5.0) as connection:
                writer = spawn(connection.write, data)
                self.assertEqual(connection.read(len(data)), data)
                self.assertEqual(writer.wait(), len(data))
            connection.wait_closed()
            distrusting = connect(
                wrapClientTLS(optionsForClientTLS(LOOPBACK), below), timeout=5.0
            )
            with self.assertRaisesRegex(ConnectionResetError, "lost"):
                distrusting.read(1)
            distrusting.close()
        finally:
            listener.wait_closed()
        while listener.tasks:
            sleep(0.01)

    @in_greenlet
    def test_backpressure(self) -> None:
        """The writer is parked while the peer does not read; no byte is lost."""
        sent = []
        data = hashlib.sha256(b"x").digest() * 32768

        def pour(connection: Connection) -> None:
            for _ in range(20):
                connection.write(data)
                sent.append(len(data))

        def client(connection: Connection) -> str:
            sleep(0.5)
            # The kernels' buffers are full, and the connection's is bounded.
            self.assertLess(sum(sent), 20 * len(data))
            self.assertLess(connection.buffered, 3 * BUFFER_BYTES)
            digest = hashlib.sha256()
            for _ in range(20):
                digest.update(connection.read(len(data)))
            self.assertEqual(connection.read(1), b"")
            return digest.hexdigest()

        self.assertEqual(self.talk(pour, client), hashlib.sha256(data * 20).hexdigest())

    @in_greenlet
    def test_timeout_of_a_read(self) -> None:
        """`with timeout()` ends a read; the connection remains usable."""

        def slow(connection: Connection) -> None:
            connection.write(b"ab")
            connection.readline()
            connection.write(b"cd")

        def client(connection: Connection) -> bytes:
            with self.assertRaises(TimedOut), timeout(0.1):
                connection.read(4)
            connection.write(b"go on\n")
            return connection.read(4)

        self.assertEqual(self.talk(slow, client), b"abcd")

    @in_greenlet
    def test_half_closed(self) -> None:
        """A client that closes its sending half, as netcat does, gets a response."""

        def count(connection: Connection) -> None:
            connection.write(b"%d\n" % len(connection.read()))

        listener = listen(LISTEN, count)
        endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, port_of(listener))
        client = wait(connectProtocol(endpoint, _HalfClosing()))
        self.assertEqual(wait(client.ended), b"1000\n")
        listener.wait_closed()

    @in_greenlet
    def test_refused(self) -> None:
        """A refused connection raises ConnectionRefusedError."""
        listener = listen(TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK), echo)
        port = port_of(listener)
        with self.assertRaises(OSError):
            listen(f"tcp:{port}:interface={LOOPBACK}", echo)
        listener.wait_closed()
        with self.assertRaises(ConnectionRefusedError):
            connect(f"tcp:{LOOPBACK}:{port}")

    @in_greenlet
    def test_reset(self) -> None:
        """A connection aborted by the peer raises ConnectionResetError in a read."""

        def cut(connection: Connection) -> None:
            connection.read(1)
            connection.abort()

        def client(connection: Connection) -> None:
            connection.write(b"x")
            with self.assertRaises(ConnectionResetError):
                connection.read(1)

        self.talk(cut, client)

    @in_greenlet
    def test_many(self) -> None:
        """Two hundred concurrent conversations."""
        listener = listen(LISTEN, echo)

        def one(number: int) -> bytes:
            with connect(f"tcp:{LOOPBACK}:{port_of(listener)}") as connection:
                connection.write(b"%d\n" % number)
                line = connection.readline()
            connection.wait_closed()
            return line

        tasks = [spawn(one, number) for number in range(200)]
        self.assertEqual(
            [task.wait() for task in tasks], [b"%d\n" % n for n in range(200)]
        )
        listener.wait_closed()
        while listener.tasks:
            sleep(0.01)

    @in_greenlet
    def test_http_client(self) -> None:
        """http.client sends several requests over one connection to a real server."""
        server = shared("examples.hello:app")
        connection = connect(f"tcp:{LOOPBACK}:{server.port}")
        http = HTTPConnection(LOOPBACK)
        http.sock = connection
        for _ in range(3):
            http.request("GET", "/")
            self.assertEqual(http.getresponse().read(), b"Hello, world!\n")
        http.close()
        connection.wait_closed()

    @in_greenlet
    def test_csv(self) -> None:
        """The csv module reads rows from a connection."""

        def rows(connection: Connection) -> None:
            with connection.makefile("w", newline="") as file:
                csv.writer(file).writerows([["a", "b, c"], ["ü", ""]])

        def client(connection: Connection) -> list[list[str]]:
            with connection.makefile("r", encoding="utf-8", newline="") as file:
                return list(csv.reader(file))

        self.assertEqual(self.talk(rows, client), [["a", "b, c"], ["ü", ""]])


class PageTests(TestCase):
    """The examples of connections in docs/origins.md."""

    timeout = 60

    @in_greenlet
    def test_snippets(self) -> None:
        """Each `main()` on the page returns what the page says."""
        mains = [snippet for snippet in snippets() if not snippet.requests]
        self.assertGreater(len(mains), 0)
        for snippet in mains:
            self.assertEqual(str(snippet.run()["main"]()), snippet.answer)
            sleep(0.05)


class ProxyTests(TestCase):
    """`GreenProxy` with a client written for Twisted."""

    timeout = 60

    @in_greenlet
    def test_adbapi(self) -> None:
        """`adbapi` is used as if it were a blocking pool of connections."""
        path = Path(self.mktemp()).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        pool: Any = GreenProxy(
            adbapi.ConnectionPool("sqlite3", str(path), check_same_thread=False),
            timeout=10.0,
        )
        try:
            pool.runOperation("CREATE TABLE note (text TEXT)")

            def insert(transaction: Any) -> int:
                transaction.execute("INSERT INTO note VALUES ('hello')")
                return int(transaction.rowcount)

            self.assertEqual(pool.runInteraction(insert), 1)
            self.assertEqual(pool.runQuery("SELECT text FROM note"), [("hello",)])
            with self.assertRaisesRegex(Exception, "no such table"):
                pool.runQuery("SELECT * FROM nowhere")
        finally:
            pool.close()
