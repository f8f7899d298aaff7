"""Green connections over real sockets, and clients that were written for Twisted."""

from __future__ import annotations

import csv
import hashlib
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.enterprise import adbapi
from twisted.internet import reactor as installed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.trial.unittest import TestCase

from tests.folders import short_folder
from tests.origins.snippets import snippets
from txgreenwsgi import TimedOut, in_greenlet, sleep, spawn, timeout
from txgreenwsgi.net import BUFFER_BYTES, Connection, Listener, connect, listen
from txgreenwsgi.proxy import GreenProxy

from .processes import LOOPBACK, shared
from .test_endpoints import write_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

reactor: Any = installed
LISTEN = f"tcp:0:interface={LOOPBACK}"


def port_of(listener: Listener) -> int:
    """Where a listener listens."""
    address: Any = listener.address
    port: int = address.port
    return port


def echo(connection: Connection) -> None:
    """Send everything back."""
    while data := connection.recv(65536):
        connection.write(data)


class NetTests(TestCase):
    """`txgreenwsgi.net` on the installed reactor."""

    timeout = 20

    def talk(
        self,
        serve: Callable[[Connection], object],
        client: Callable[[Connection], Any],
        where: str = LISTEN,
    ) -> Any:
        """Listen, connect, let both talk, and close everything. Parks."""
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
        """Lines go to and fro over TCP."""

        def shout(connection: Connection) -> None:
            for line in connection:
                connection.write(line.upper())

        def client(connection: Connection) -> list[bytes]:
            connection.write(b"one\ntwo\n")
            return [connection.readline(), connection.readline()]

        self.assertEqual(self.talk(shout, client), [b"ONE\n", b"TWO\n"])

    @in_greenlet
    def test_unix(self) -> None:
        """The same over a UNIX socket."""
        path = short_folder(self) / "socket"

        def client(connection: Connection) -> bytes:
            connection.write(b"hello")
            return connection.read(5)

        self.assertEqual(self.talk(echo, client, f"unix:{path}"), b"hello")

    @in_greenlet
    def test_tls(self) -> None:
        """The same over TLS, with a certificate that is checked; long data too."""
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
    def test_pressure_both_ways(self) -> None:
        """A peer that does not read stops the writer; the bytes are all there later."""
        sent = []
        data = hashlib.sha256(b"x").digest() * 32768

        def pour(connection: Connection) -> None:
            for _ in range(20):
                connection.write(data)
                sent.append(len(data))

        def client(connection: Connection) -> str:
            sleep(0.5)
            # What both kernels hold, and no more than the buffer here.
            self.assertLess(sum(sent), 20 * len(data))
            self.assertLess(len(connection._buffer), 3 * BUFFER_BYTES)
            digest = hashlib.sha256()
            for _ in range(20):
                digest.update(connection.read(len(data)))
            self.assertEqual(connection.read(1), b"")
            return digest.hexdigest()

        self.assertEqual(self.talk(pour, client), hashlib.sha256(data * 20).hexdigest())

    @in_greenlet
    def test_timeout_of_a_read(self) -> None:
        """`with timeout()` ends a read; the connection goes on."""

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
        """A client that sends no more, as netcat does, still gets its answer."""

        def count(connection: Connection) -> None:
            connection.write(b"%d\n" % len(connection.read()))

        def client(connection: Connection) -> bytes:
            connection.write(b"x" * 1000)
            connection._transport.loseWriteConnection()
            return connection.read()

        self.assertEqual(self.talk(count, client), b"1000\n")

    @in_greenlet
    def test_refused(self) -> None:
        """Where nobody listens it is Python's own ConnectionRefusedError."""
        listener = listen(TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK), echo)
        port = port_of(listener)
        with self.assertRaises(OSError):
            listen(f"tcp:{port}:interface={LOOPBACK}", echo)
        listener.wait_closed()
        with self.assertRaises(ConnectionRefusedError):
            connect(f"tcp:{LOOPBACK}:{port}")

    @in_greenlet
    def test_reset(self) -> None:
        """A peer that cuts the connection is an error for whoever reads."""

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
        """Two hundred conversations at once."""
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
        """http.client fetches pages of a real server, several by one connection."""
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
    """What docs/origins.md says of connections."""

    timeout = 20

    @in_greenlet
    def test_snippets(self) -> None:
        """Each `main()` on the page returns what the page says."""
        mains = [snippet for snippet in snippets() if not snippet.requests]
        self.assertGreater(len(mains), 0)
        for snippet in mains:
            self.assertEqual(str(snippet.run()["main"]()), snippet.answer)
            sleep(0.05)


class ProxyTests(TestCase):
    """`GreenProxy` with a client that was written for Twisted."""

    timeout = 20

    @in_greenlet
    def test_adbapi(self) -> None:
        """A pool of database connections is used as if it blocked."""
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
