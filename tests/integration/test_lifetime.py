"""The life of a process: many concurrent requests, its memory, its end."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .processes import serve, wait_for

if TYPE_CHECKING:
    from .processes import RawClient, ServerProcess

SLEEPER = "examples.flask_app:app"
CONCURRENT = 500
SLEEP = b"GET /sleep?seconds=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def sleep_together(server: ServerProcess, count: int) -> float:
    """Send that many requests that each sleep for a second; read all answers.

    Returns:
        Seconds from the first byte sent to the last byte received.
    """
    clients = [server.connect() for _ in range(count)]
    started = time.monotonic()
    for client in clients:
        client.send(SLEEP)
    for client in clients:
        with client:
            answer = client.read_all()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(f"{answer!r}; the log:\n{server.log()}")
    return time.monotonic() - started


class ConcurrencyTests(SynchronousTestCase):
    """Many waiting requests."""

    def test_five_hundred_sleepers(self) -> None:
        """500 requests that sleep for a second take little more than one second."""
        server = serve(self, SLEEPER)
        self.assertLess(sleep_together(server, CONCURRENT), 30.0)

    def test_memory_is_given_back(self) -> None:
        """The process is no larger after a second crowd of requests."""
        if not Path("/proc/self/status").exists():
            raise SkipTest(f"{sys.platform} has no /proc with a process's memory")
        server = serve(self, SLEEPER)
        sleep_together(server, CONCURRENT)  # imports, caches, the allocator's arenas
        before = server.resident_kib()
        sleep_together(server, CONCURRENT)
        after = server.resident_kib()
        self.assertLess(after, before * 1.10)


class StopTests(SynchronousTestCase):
    """SIGTERM."""

    def begin(self, server: ServerProcess, lines: int) -> RawClient:
        """Request one line per tenth of a second, and read the first."""
        client = server.connect()
        self.addCleanup(client.socket.close)
        client.send(b"GET /stream?lines=%d HTTP/1.1\r\nHost: x\r\n\r\n" % lines)
        client.read_until(b"line 1 of ")
        return client

    @staticmethod
    def refuses(server: ServerProcess) -> bool:
        """Return whether the server refuses a connection."""
        try:
            server.connect().socket.close()
        except ConnectionRefusedError:
            return True
        return False

    def test_request_in_flight_completes(self) -> None:
        """A request in flight is answered completely, then the process exits."""
        server = serve(self, SLEEPER)
        with server.connect() as idle:
            idle.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            idle.read_until(b"\r\n\r\n")
            client = self.begin(server, 8)
            started = time.monotonic()
            server.ask_to_stop()
            self.assertIn(b"line 8 of 8\n\r\n0\r\n\r\n", client.read_all())
            # An idle keep-alive connection delays nothing.
            self.assertEqual(idle.read_all(), b"")
            server.wait_ended()
        self.assertLess(time.monotonic() - started, 10.0)

    def test_new_connections_are_refused(self) -> None:
        """While requests in flight complete, the process no longer listens."""
        server = serve(self, SLEEPER)
        client = self.begin(server, 40)
        server.ask_to_stop()
        # Twisted logs the end of a port before it closes the socket.
        server.wait_logged(rf"Port {server.port} Closed")
        wait_for(lambda: self.refuses(server), "a refused connection")
        client.read_until(b"line 40 of 40\n")
        server.wait_ended()

    def test_grace_ends(self) -> None:
        """A request that exceeds the graceful timeout is ended."""
        server = serve(self, SLEEPER, "--graceful-timeout=0.5")
        client = self.begin(server, 100)
        started = time.monotonic()
        server.ask_to_stop()
        # The response is recognisably incomplete.
        self.assertNotIn(b"0\r\n\r\n", client.read_all())
        server.wait_ended()
        self.assertLess(time.monotonic() - started, 8.0)
