"""Malicious and very slow clients do not affect other clients.

The numbers are small enough for every run. TXGREENWSGI_ABUSE multiplies the numbers of
clients, up to the process's limit of descriptors, and TXGREENWSGI_FIGURES names a file
for the figures.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import ssl
import statistics
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.endurance.figures import note

from .processes import LOOPBACK, ServerProcess, serve, start
from .test_endpoints import write_certificate
from .usage import wait_idle

APP = "tests.integration.abuse_app:app"
FACTOR = float(os.environ.get("TXGREENWSGI_ABUSE", "1"))
KIB_IN_MIB = 1024


def many(number: int) -> int:
    """Return `number` times the requested factor; raise the descriptor limit."""
    wanted = int(number * FACTOR)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted


def fetch_seconds(server: ServerProcess) -> float:
    """Return the seconds of one request on a new connection."""
    began = time.monotonic()
    if server.fetch("/").body != b"short\n":
        raise AssertionError(f"a wrong answer; the log:\n{server.log()}")
    return time.monotonic() - began


class AbuseTests(SynchronousTestCase):
    """One kind of abuse per test, each with its own server."""

    def serve(self, *options: str) -> ServerProcess:
        """Start the server and send its first request."""
        server = serve(self, APP, *options)
        for _ in range(20):
            self.assertEqual(server.fetch("/").body, b"short\n")
        return server

    def connect(self, server: ServerProcess, number: int) -> list[socket.socket]:
        """Open a number of connections; the test's cleanup closes them."""
        clients = []
        for _ in range(number):
            client = socket.create_connection((LOOPBACK, server.port), timeout=15)
            self.addCleanup(client.close)
            clients.append(client)
        return clients

    def test_trickled_heads(self) -> None:
        """1,000 request heads at a byte per second delay no client and end in a 408."""
        server = self.serve("--header-timeout=3")
        usual = statistics.quantiles([fetch_seconds(server) for _ in range(50)], n=10)
        clients = self.connect(server, many(1000))
        head = b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Filler: xxxxxxxxxxxx\r\n"
        started = time.monotonic()
        delays = []
        for second in range(3):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(head[second : second + 1])
            while time.monotonic() < started + second + 1:
                delays.append(fetch_seconds(server))
                time.sleep(0.01)
        note(
            "trickled heads",
            clients=len(clients),
            requests_beside=len(delays),
            median_ms=round(1000 * statistics.median(delays), 2),
            nine_in_ten_ms=round(1000 * statistics.quantiles(delays, n=10)[-1], 2),
            slowest_ms=round(1000 * max(delays), 2),
        )
        # The ninth decile: a busy machine delays single requests.
        self.assertLess(
            statistics.quantiles(delays, n=10)[-1], max(0.25, 10 * usual[-1])
        )
        deadline = time.monotonic() + 20
        for client in clients:
            client.settimeout(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ConnectionResetError):
                answer = client.recv(65536)
                self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 408 "))
        self.assertLess(time.monotonic(), deadline)

    def test_clients_that_never_read(self) -> None:
        """An unread response of 1 GiB costs no memory, for 1 client or for 200."""
        server = self.serve()
        before = server.resident_kib()
        [client] = self.connect(server, 1)
        client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_idle(server)
        one = server.resident_kib() - before
        number = many(200)
        for client in self.connect(server, number):
            client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_idle(server)
        all_kib = server.resident_kib() - before
        note("clients that never read", clients=number, one_kib=one, all_kib=all_kib)
        self.assertLess(one, 1 * KIB_IN_MIB)
        self.assertLess(all_kib, number / 200 * 40 * KIB_IN_MIB)
        self.assertEqual(server.fetch("/").body, b"short\n")

    def test_clients_that_never_read_over_tls(self) -> None:
        """Over TLS, where a response passes more buffers, it costs little more."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        certificate, key = write_certificate(directory)
        endpoint = f"ssl:0:interface={LOOPBACK}:certKey={certificate}:privateKey={key}"
        server = start(self, "greenwsgi", f"--app={APP}", f"--listen={endpoint}")
        context = ssl.create_default_context(cafile=str(certificate))

        def connect() -> ssl.SSLSocket:
            [plain] = self.connect(server, 1)
            client = context.wrap_socket(plain, server_hostname=LOOPBACK)
            self.addCleanup(client.close)
            return client

        for _ in range(20):
            connect().sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_idle(server)
        before = server.resident_kib()
        number = many(100)
        clients = [connect() for _ in range(number)]
        wait_idle(server)
        idle = server.resident_kib() - before
        for client in clients:
            client.sendall(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_idle(server)
        all_kib = server.resident_kib() - before
        note(
            "clients that never read, over TLS",
            clients=number,
            idle_kib=idle,
            all_kib=all_kib,
        )
        # Half of it is OpenSSL's, which is also the part that varies.
        self.assertLess(all_kib, number / 100 * 40 * KIB_IN_MIB)

    def test_half_open_handshakes(self) -> None:
        """A TLS handshake that is not completed costs little, and has a limit."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        certificate, key = write_certificate(directory)
        endpoint = f"ssl:0:interface={LOOPBACK}:certKey={certificate}:privateKey={key}"
        limit = 100
        server = start(
            self,
            *("greenwsgi", f"--app={APP}", f"--listen={endpoint}"),
            f"--max-handshakes={limit}",
        )
        context = ssl.create_default_context(cafile=str(certificate))
        outgoing = ssl.MemoryBIO()
        tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=LOOPBACK)
        self.assertRaises(ssl.SSLWantReadError, tls.do_handshake)
        hello = outgoing.read()

        def fetch() -> bytes:
            [plain] = self.connect(server, 1)
            with context.wrap_socket(plain, server_hostname=LOOPBACK) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return client.recv(9)

        for _ in range(20):
            self.assertEqual(fetch(), b"HTTP/1.1 ")
        wait_idle(server)
        before = server.resident_kib()
        number = many(400)
        for client in self.connect(server, number):
            client.sendall(hello[:-1])
        wait_idle(server)
        silent = server.resident_kib() - before
        for client in self.connect(server, number):
            client.sendall(hello)
        wait_idle(server)
        all_kib = server.resident_kib() - before
        note("half-open TLS", clients=number, silent_kib=silent, all_kib=all_kib)
        self.assertLess(silent, number * 8)
        self.assertLess(all_kib, number * 16 + limit * 80)
        self.assertEqual(fetch(), b"HTTP/1.1 ")

    def test_uploads_to_an_application_that_does_not_read(self) -> None:
        """500 unread uploads of 10 MB cost the memory of a window each."""
        number = many(500)
        head = b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
        each = self.held_for_each("uploads", number, head, bytes(65536))
        # A window, the chunk that filled it, and the request itself.
        self.assertLess(each, (2 * 65536 + 16384) / 1024)

    def test_uploads_in_chunks_of_two_bytes(self) -> None:
        """Uploads in the smallest possible chunks do not cost more."""
        head = b"POST /deaf HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        name, block = "uploads in chunks of two bytes", b"2\r\nxy\r\n" * 9000
        each = self.held_for_each(name, many(100), head, block, "--chunked=stream")
        self.assertLess(each, (2 * 65536 + 16384) / 1024)

    def test_chunked_uploads_received_ahead(self) -> None:
        """Nor do bodies that are received before the application is called."""
        head = b"POST /deaf HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        name, block = "chunked uploads received ahead", b"2\r\nxy\r\n" * 9000
        most = 700_000  # a body of six windows
        each = self.held_for_each(name, many(100), head, block, most=most)
        self.assertLess(each, (2 * 65536 + 16384) / 1024)

    def test_requests_behind_one_that_waits(self) -> None:
        """Pipelined requests behind a waiting one cost their bytes until they start."""
        head = b"GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n"
        each = self.held_for_each("pipelined requests", many(100), head, head * 1500)
        self.assertLess(each, (2 * 65536 + 16384) / 1024)

    def held_for_each(
        self,
        name: str,
        number: int,
        head: bytes,
        block: bytes,
        *options: str,
        most: float = float("inf"),
    ) -> float:
        """Return the server's memory, in KiB, for each client that sends without end.

        Args:
            name: the name of the figures.
            number: the number of clients.
            head: the first bytes of each client.
            block: bytes that it then repeats, as long as the server accepts more.
            options: options of the server.
            most: number of bytes after which a client stops.
        """
        server = self.serve(*options)
        before = server.resident_kib()
        clients = self.connect(server, number)
        waiting = selectors.DefaultSelector()
        self.addCleanup(waiting.close)
        for client in clients:
            client.sendall(head)
            client.setblocking(False)
            waiting.register(client, selectors.EVENT_WRITE, client)
        # Until the server accepts no more from any client.
        quiet = time.monotonic() + 20
        sent = dict.fromkeys(clients, 0)
        while time.monotonic() < quiet and (ready := waiting.select(timeout=0.5)):
            for key, _ in ready:
                client = key.data
                with contextlib.suppress(BlockingIOError):
                    # Continue where the last send stopped: a valid stream.
                    sent[client] += client.send(block[sent[client] % len(block) :])
                if sent[client] >= most:
                    waiting.unregister(client)
        wait_idle(server)
        all_kib = server.resident_kib() - before
        note(name, clients=number, all_kib=all_kib, each_kib=round(all_kib / number, 1))
        self.assertEqual(server.fetch("/").body, b"short\n")
        return all_kib / number
