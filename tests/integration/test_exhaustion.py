"""A server that has run out: of descriptors, of connections, of room on its disk.

It goes on serving whom it can, says so once, and does not turn in circles.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.endurance.figures import note

from .processes import LOOPBACK, RawClient, ServerProcess, serve
from .usage import cpu_seconds

APP = "tests.integration.abuse_app:app"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Crowd:
    """Many connections of one test, with one that was there before them.

    Args:
        test: closes what is left.
        server: where to.
    """

    def __init__(self, test: SynchronousTestCase, server: ServerProcess) -> None:
        self._test = test
        self._server = server
        self.early = server.connect()
        test.addCleanup(self.early.socket.close)
        self.ask(self.early)

    def connect(self, number: int) -> list[socket.socket]:
        """That many more, each with a request sent."""
        clients = []
        for _ in range(number):
            client = socket.create_connection((LOOPBACK, self._server.port), timeout=15)
            self._test.addCleanup(client.close)
            with contextlib.suppress(ConnectionError):
                client.sendall(REQUEST)
            clients.append(client)
        return clients

    def ask(self, client: RawClient) -> float:
        """One request on a connection that is there: the seconds it takes."""
        started = time.monotonic()
        client.send(REQUEST)
        client.read_until(b"short\n")
        return time.monotonic() - started

    def answered(self, clients: list[socket.socket], seconds: float) -> int:
        """How many of those have an answer after so long."""
        time.sleep(seconds)
        count = 0
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                count += b"short\n" in client.recv(65536, socket.MSG_PEEK)
            client.setblocking(True)
        return count


class DescriptorTests(SynchronousTestCase):
    """More clients than the process may have file descriptors."""

    limit = 100

    def test_out_of_descriptors(self) -> None:
        """Who is connected is served, who is not waits, and the process rests."""
        if not hasattr(resource, "prlimit"):
            raise SkipTest("this platform cannot limit another process")
        server = serve(self, APP)
        crowd = Crowd(self, server)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (self.limit, self.limit))
        clients = crowd.connect(2 * self.limit)
        served = crowd.answered(clients, 1.0)
        # Some are used by the process itself, and an eighth is left to the application.
        self.assertGreater(served, self.limit // 2)
        self.assertLess(served, self.limit - self.limit // 8)
        before = cpu_seconds(server)
        delays = []
        for _ in range(10):
            delays.append(crowd.ask(crowd.early))
            time.sleep(0.2)
        spent = cpu_seconds(server) - before
        note(
            "out of descriptors",
            limit=self.limit,
            clients=len(clients) + 1,
            served=served + 1,
            cpu_percent=round(100 * spent / 2, 1),
            slowest_ms=round(1000 * max(delays), 1),
        )
        self.assertLess(spent, 0.2)
        self.assertEqual(crowd.answered(clients, 0), served)
        open_files = len(os.listdir(f"/proc/{server.pid}/fd"))
        self.assertLessEqual(open_files, self.limit - self.limit // 8 + 1)
        lines = re.findall(r".*descriptor.*", server.log())
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("the limit is 100", lines[0])
        # Those that waited have their turn when others leave, none is lost.
        for client in clients[:served]:
            client.close()
        rest = clients[served:]
        self.assertEqual(crowd.answered(rest[:50], 1.0), 50)
        for client in rest[:50]:
            client.close()
        self.assertEqual(crowd.answered(rest[50:], 1.0), len(rest) - 50)
        crowd.ask(crowd.early)
        self.assertNotIn("Traceback", server.log())
        self.assertEqual(len(re.findall(r".*descriptor.*", server.log())), 1)
        server.ask_to_stop()
        server.wait_ended()

    def test_stops_while_out_of_descriptors(self) -> None:
        """A server that has run out can be told to stop like any other."""
        if not hasattr(resource, "prlimit"):
            raise SkipTest("this platform cannot limit another process")
        server = serve(self, APP)
        crowd = Crowd(self, server)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (self.limit, self.limit))
        crowd.answered(crowd.connect(2 * self.limit), 0.5)
        server.wait_logged("descriptors run short")
        server.ask_to_stop()
        server.wait_ended()
        self.assertNotIn("Traceback", server.log())


class ConnectionTests(SynchronousTestCase):
    """More clients than --max-connections."""

    def test_too_many_connections(self) -> None:
        """Those beyond the limit are closed at once; the others do not notice."""
        server = serve(self, APP, "--max-connections=20")
        crowd = Crowd(self, server)
        clients = crowd.connect(100)
        self.assertEqual(crowd.answered(clients, 1.0), 19)
        for client in clients[19:]:
            client.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.recv(1), b"")
        self.assertLess(crowd.ask(crowd.early), 1.0)
        clients[0].close()
        self.assertEqual(crowd.answered(crowd.connect(1), 0.5), 1)
        self.assertNotIn("Traceback", server.log())


class DiskTests(SynchronousTestCase):
    """No room on the disk for the access log."""

    def test_disk_full(self) -> None:
        """Requests are answered as ever; the log of the process says it once."""
        if not Path("/dev/full").exists():
            raise SkipTest("there is no /dev/full here")
        server = serve(self, APP, "--access-log=/dev/full")
        for _ in range(200):
            self.assertEqual(server.fetch("/").body, b"short\n")
        lines = re.findall(r".*access log:.*", server.log())
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("cannot write to", lines[0])
        self.assertNotIn("Traceback", server.log())
        server.ask_to_stop()
        server.wait_ended()
        lines = re.findall(r".*access log: (\d+) lines of .* were lost.*", server.log())
        self.assertEqual(lines, ["200"])
