"""Clients that mean harm, or merely are very slow: others do not notice them.

The numbers are small enough for every run; TXGREENWSGI_ABUSE multiplies the
numbers of clients, within what the system allows a process to open.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import statistics
import time

from twisted.trial.unittest import SynchronousTestCase

from .processes import LOOPBACK, ServerProcess, serve

APP = "tests.integration.abuse_app:app"
FACTOR = float(os.environ.get("TXGREENWSGI_ABUSE", "1"))
KIB_IN_MIB = 1024


def many(number: int) -> int:
    """That many clients, by the factor asked for; all descriptors allowed first."""
    wanted = int(number * FACTOR)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted


class AbuseTests(SynchronousTestCase):
    """One server, one kind of abuse each."""

    def serve(self, *options: str) -> ServerProcess:
        """The abused server, after its first request."""
        server = serve(self, APP, *options)
        for _ in range(20):
            self.assertEqual(server.fetch("/").body, b"short\n")
        return server

    def connect(self, server: ServerProcess, number: int) -> list[socket.socket]:
        """That many connections, closed when the test ends."""
        clients = []
        for _ in range(number):
            client = socket.create_connection((LOOPBACK, server.port), timeout=15)
            self.addCleanup(client.close)
            clients.append(client)
        return clients

    def test_trickled_heads(self) -> None:
        """1,000 heads of a byte a second delay nobody, and end at their deadline."""
        server = self.serve("--header-timeout=3")
        clients = self.connect(server, many(1000))
        head = b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Filler: xxxxxxxxxxxx\r\n"
        started = time.monotonic()
        delays = []
        for second in range(3):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(head[second : second + 1])
            while time.monotonic() < started + second + 1:
                asked = time.monotonic()
                self.assertEqual(server.fetch("/").body, b"short\n")
                delays.append(time.monotonic() - asked)
                time.sleep(0.01)
        # Nine of ten: a busy machine delays one of them by itself.
        self.assertLess(statistics.quantiles(delays, n=10)[-1], 0.050)
        deadline = time.monotonic() + 5
        for client in clients:
            client.settimeout(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ConnectionResetError):
                answer = client.recv(65536)
                self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 408 "))
        self.assertLess(time.monotonic(), deadline)

    def test_clients_that_never_read(self) -> None:
        """1 GiB that nobody reads costs no memory: not once, not 200 times."""
        server = self.serve()
        before = server.resident_kib()
        [client] = self.connect(server, 1)
        client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
        self.settle(server)
        self.assertLess(server.resident_kib() - before, 1 * KIB_IN_MIB)
        number = many(200)
        for client in self.connect(server, number):
            client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
        self.settle(server)
        self.assertLess(server.resident_kib() - before, number / 200 * 40 * KIB_IN_MIB)
        self.assertEqual(server.fetch("/").body, b"short\n")

    def test_uploads_to_an_application_that_does_not_read(self) -> None:
        """500 uploads of 10 MB that nobody reads cost a window each, and no more."""
        server = self.serve()
        before = server.resident_kib()
        number = many(500)
        head = b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
        clients = self.connect(server, number)
        waiting = selectors.DefaultSelector()
        self.addCleanup(waiting.close)
        block = bytes(65536)
        for client in clients:
            client.sendall(head)
            client.setblocking(False)
            waiting.register(client, selectors.EVENT_WRITE)
        # Until no client gets rid of anything more.
        quiet = time.monotonic() + 20
        while time.monotonic() < quiet and (ready := waiting.select(timeout=0.5)):
            for key, _ in ready:
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.send(block)  # type: ignore[union-attr]
        # A window, the piece that filled it, and the request itself.
        each = (2 * 65536 + 16384) / 1024
        self.assertLess(server.resident_kib() - before, number * each)
        self.assertEqual(server.fetch("/").body, b"short\n")

    def settle(self, server: ServerProcess) -> None:
        """Wait until the server has nothing to do: its memory no longer changes."""
        last = -1
        for _ in range(100):
            time.sleep(0.1)
            now = server.resident_kib()
            if now == last:
                return
            last = now
