"""Exhaustion: of descriptors, of connections, of disk space.

The server keeps serving the clients that it can, logs it once, and does not busy-loop.
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

from .processes import LOOPBACK, RawClient, ServerProcess, serve, wait_for
from .usage import cpu_seconds

APP = "tests.integration.abuse_app:app"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Crowd:
    """Many connections of one test, and one that was opened before them.

    Args:
        test: its cleanup closes the connections.
        server: where to connect.
    """

    def __init__(self, test: SynchronousTestCase, server: ServerProcess) -> None:
        self._test = test
        self._server = server
        self.early = server.connect()
        test.addCleanup(self.early.socket.close)
        self.ask(self.early)

    def connect(self, number: int) -> list[socket.socket]:
        """Open more connections and send a request on each."""
        clients = []
        for _ in range(number):
            client = socket.create_connection((LOOPBACK, self._server.port), timeout=15)
            self._test.addCleanup(client.close)
            with contextlib.suppress(ConnectionError):
                client.sendall(REQUEST)
            clients.append(client)
        return clients

    def ask(self, client: RawClient) -> float:
        """Send one request on an open connection; return the seconds it takes."""
        started = time.monotonic()
        client.send(REQUEST)
        client.read_until(b"short\n")
        return time.monotonic() - started

    def answered(
        self, clients: list[socket.socket], seconds: float, least: int = 0
    ) -> int:
        """Return the number of answered requests, once it is stable.

        Args:
            clients: the connections.
            seconds: the time without a change after which it is stable.
            least: wait for so many answers first.
        """
        wait_for(
            lambda: self._count_answers(clients) >= least,
            lambda: f"{least} answers: {self._count_answers(clients)}",
        )
        while True:
            before = self._count_answers(clients)
            time.sleep(seconds)
            if self._count_answers(clients) == before:
                return before

    @staticmethod
    def _count_answers(clients: list[socket.socket]) -> int:
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
        """Connected clients are served, further ones wait, and the process idles."""
        if not hasattr(resource, "prlimit"):
            raise SkipTest("this platform cannot limit another process")
        server = serve(self, APP)
        crowd = Crowd(self, server)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (self.limit, self.limit))
        clients = crowd.connect(2 * self.limit - 10)
        served = crowd.answered(clients, 1.0, self.limit // 2)
        # The process itself uses some, and an eighth is reserved for the application.
        self.assertGreater(served, self.limit // 2)
        self.assertLess(served, self.limit - self.limit // 8)
        before, began = cpu_seconds(server), time.monotonic()
        delays = []
        for _ in range(10):
            delays.append(crowd.ask(crowd.early))
            time.sleep(0.2)
        spent = cpu_seconds(server) - before
        elapsed = time.monotonic() - began
        note(
            "out of descriptors",
            limit=self.limit,
            clients=len(clients) + 1,
            served=served + 1,
            cpu_percent=round(100 * spent / elapsed, 1),
            slowest_ms=round(1000 * max(delays), 1),
        )
        self.assertLess(spent, 0.2 * elapsed)
        self.assertEqual(crowd.answered(clients, 0), served)
        open_files = len(os.listdir(f"/proc/{server.pid}/fd"))
        self.assertLessEqual(open_files, self.limit - self.limit // 8 + 1)
        lines = re.findall(r".*descriptor.*", server.log())
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("the limit is 100", lines[0])
        # Waiting clients are served as others disconnect; none is lost.
        for client in clients[:served]:
            client.close()
        rest = clients[served:]
        self.assertEqual(crowd.answered(rest[:50], 0, 50), 50)
        for client in rest[:50]:
            client.close()
        left = len(rest) - 50
        self.assertEqual(crowd.answered(rest[50:], 0, left), left)
        crowd.ask(crowd.early)
        self.assertNotIn("Traceback", server.log())
        self.assertEqual(len(re.findall(r".*descriptor.*", server.log())), 1)
        server.ask_to_stop()
        server.wait_ended()

    def test_stops_while_out_of_descriptors(self) -> None:
        """A server out of descriptors can be stopped like any other."""
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
        """Connections above the limit are closed at once; the others are unaffected."""
        server = serve(self, APP, "--max-connections=20")
        crowd = Crowd(self, server)
        clients = crowd.connect(100)
        self.assertEqual(crowd.answered(clients, 1.0, 19), 19)
        for client in clients[19:]:
            client.settimeout(15)
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.recv(1), b"")
        self.assertLess(crowd.ask(crowd.early), 5.0)
        clients[0].close()
        # Until the server has noticed, it closes further connections.
        wait_for(
            lambda: crowd.answered(crowd.connect(1), 0.5) == 1, "a free connection"
        )
        self.assertNotIn("Traceback", server.log())


class DiskTests(SynchronousTestCase):
    """No disk space for the access log."""

    def test_disk_full(self) -> None:
        """Requests are answered as before; the log of the process reports it once."""
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
