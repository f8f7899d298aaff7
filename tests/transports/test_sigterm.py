"""SIGTERM to a process whose clients wait for their responses."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .harness_clients import Http2Connection

if TYPE_CHECKING:
    from .harness_clients import Reply

CHECKOUT = Path(__file__).parents[2]

#: Timeout of a test in seconds.
PATIENCE = 30


class SigtermCase(SynchronousTestCase):
    """A server process and its clients."""

    def start(self, kind: str) -> None:
        """Start a server of the given kind."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.transports.sigterm_program", kind],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.end, self.process)
        self.port = int(self.line())

    def end(self, process: subprocess.Popen[str]) -> None:
        """Kill a process if it still runs, and reap it."""
        if process.poll() is None:
            process.kill()
        process.communicate()

    def line(self) -> str:
        """Return the next line that the server prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def request(self, target: str) -> socket.socket:
        """Send a request, and wait until the application is called."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.addCleanup(connection.close)
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.assertEqual(self.line(), target.partition("?")[0])
        return connection

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def received(self, connection: socket.socket) -> int | str:
        """Return the length of a complete body, or else the received bytes."""
        response = HTTPResponse(connection)
        try:
            response.begin()
            return len(response.read())
        except (HTTPException, OSError) as error:
            return repr(error)

    def assert_ended(self) -> None:
        """Fail unless the process ends by itself."""
        self.assertEqual(self.process.wait(PATIENCE), 0)


if TYPE_CHECKING:
    Cases = SigtermCase
else:
    Cases = object


class SigtermCases(Cases):
    """Clients of one server."""

    kind = ""

    def setUp(self) -> None:
        """Start the server."""
        super().setUp()
        self.start(self.kind)

    def test_five_clients(self) -> None:
        """Five waiting clients all receive their response."""
        clients = [self.request("/?seconds=0.5&size=10") for _ in range(5)]
        self.terminate()
        self.assertEqual([self.received(client) for client in clients], [10] * 5)
        self.assert_ended()

    def test_large_body(self) -> None:
        """A body of three megabytes is received completely."""
        client = self.request("/?seconds=0.3&size=3000000")
        self.terminate()
        self.assertEqual(self.received(client), 3_000_000)
        self.assert_ended()

    def test_client_that_reads_late(self) -> None:
        """The process does not exit before a slow client has received the last byte."""
        client = self.request("/?seconds=0.1&size=20000000")
        self.terminate()
        time.sleep(0.5)
        self.assertIsNone(self.process.poll())
        self.assertEqual(self.received(client), 20_000_000)
        self.assert_ended()


class ServiceTests(SigtermCases, SigtermCase):
    """Our own HTTP/1.1, as a service."""

    kind = "service"


class ResourceTests(SigtermCases, SigtermCase):
    """A GreenWSGIResource at the root of twisted.web's tree."""

    kind = "resource"


class TreeTests(SigtermCase):
    """Two resources in one tree."""

    def test_two_resources(self) -> None:
        """With two resources in one tree, the later response is also received."""
        for first, second in (("one", "two"), ("two", "one")):
            self.start("resources")
            clients = [
                self.request(f"/{first}?seconds=0.3&size=10"),
                self.request(f"/{second}?seconds=0.8&size=20"),
            ]
            self.terminate()
            self.assertEqual([self.received(client) for client in clients], [10, 20])
            self.assert_ended()


class Http2Tests(SigtermCase):
    """A GreenWSGIResource over HTTP/2, negotiated by twisted.web in TLS."""

    def connect(self) -> Http2Connection:
        """Return an HTTP/2 connection."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection = context.wrap_socket(plain)
        self.addCleanup(connection.close)
        self.assertEqual(connection.selected_alpn_protocol(), "h2")
        return Http2Connection(BlockingLink(connection))

    def begin(self, connection: Http2Connection, target: str) -> Reply:
        """Send a request, and wait until the application is called."""
        reply = connection.request("GET", target, [("Host", "x")], b"", False)
        self.assertEqual(self.line(), target.partition("?")[0])
        return reply

    def assert_complete(self, reply: Reply, size: int) -> None:
        """Read until the reply ends; fail unless it is complete."""
        while not reply.over:
            reply.connection.pump()
        self.assertEqual((reply.state, len(reply.body)), ("complete", size))

    def test_streams(self) -> None:
        """Requests on the streams of two connections are all answered."""
        self.start("tls")
        connections = [self.connect(), self.connect()]
        replies = [
            self.begin(connection, "/?seconds=0.5&size=10")
            for connection in connections
            for _ in range(3)
        ]
        self.terminate()
        for reply in replies:
            self.assert_complete(reply, 10)
        self.assert_ended()

    def test_large_body(self) -> None:
        """A body of three megabytes is received completely."""
        self.start("tls")
        reply = self.begin(self.connect(), "/?seconds=0.3&size=3000000")
        self.terminate()
        self.assert_complete(reply, 3_000_000)
        self.assert_ended()


class BlockingLink:
    """A connection on a blocking socket.

    Args:
        connection: the socket, with a timeout.

    Attributes:
        ended: whether the server has closed it.
        stays_open: False.
        in_sips: ignored.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.reading = True
        self.stays_open = False
        self.in_sips = False
        self.ended = False

    @property
    def arrived(self) -> int:
        """Not available for a blocking socket."""
        raise AssertionError("not known of a blocking socket")

    def send(self, data: bytes) -> None:
        """Send bytes; discard those that the server no longer accepts."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self._socket.sendall(data)

    def take(self) -> bytes:
        """Wait for bytes, or for the end of the connection."""
        data = b""
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            data = self._socket.recv(65536)
        self.ended = not data
        return data

    def end(self) -> None:
        """Close the sending side."""
        self._socket.shutdown(socket.SHUT_WR)

    def disconnect(self) -> None:
        """Close the connection."""
        self._socket.close()
