"""A process that receives SIGTERM while its clients wait for their responses."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).parents[2]

#: A test that takes longer than this many seconds has failed.
PATIENCE = 30


class SigtermCase(SynchronousTestCase):
    """A server process, and clients of it."""

    def start(self, kind: str) -> None:
        """Start a server of a kind."""
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
        """Kill a process if it still runs, and collect it."""
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
        """Return the length of the body that was received whole; else what was."""
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
        """Five clients that wait for a response all receive it."""
        clients = [self.request("/?seconds=0.5&size=10") for _ in range(5)]
        self.terminate()
        self.assertEqual([self.received(client) for client in clients], [10] * 5)
        self.assert_ended()

    def test_large_body(self) -> None:
        """A body of three megabytes is received whole."""
        client = self.request("/?seconds=0.3&size=3000000")
        self.terminate()
        self.assertEqual(self.received(client), 3_000_000)
        self.assert_ended()

    def test_client_that_reads_late(self) -> None:
        """The process lives until a slow client has received the last byte."""
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
        """With two resources in one tree, the later response is received too."""
        for first, second in (("one", "two"), ("two", "one")):
            self.start("resources")
            clients = [
                self.request(f"/{first}?seconds=0.3&size=10"),
                self.request(f"/{second}?seconds=0.8&size=20"),
            ]
            self.terminate()
            self.assertEqual([self.received(client) for client in clients], [10, 20])
            self.assert_ended()
