"""The memory that a client can make the server hold is bounded.

A few bytes on the wire may take many in memory: a request line, a chunk of one byte.
Even a client that sends the most expensive ones makes the server hold little more
than a window.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KIB = 1024
#: Maximum size of one read from a socket.
READ = 64 * KIB
#: Maximum memory: the window, its pieces, the objects of a request and connection.
EACH = 2 * READ + 64 * KIB

GET = b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /sleep HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH = b"POST /sleep HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"

#: The bytes that a client sends first, and those that it then repeats.
COSTLY: dict[str, tuple[bytes, bytes]] = {
    "requests behind one that takes its time": (GET, GET),
    "requests with many fields": (
        GET,
        GET[:-2] + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(90)) + b"\r\n",
    ),
    "chunks of one byte": (CHUNKED, b"1\r\nx\r\n"),
    "chunks of two bytes": (CHUNKED, b"2\r\nxy\r\n"),
    "chunks with an extension": (CHUNKED, b"2;a=b\r\nxy\r\n"),
    "a body by its length": (LENGTH, bytes(1000)),
    "requests that are refused": (GET, b"what?\r\n\r\n"),
    "an endless head": (b"GET /", b"x"),
    "endless fields": (GET[:-2], b"X: y\r\n"),
    "an endless field": (GET[:-2] + b"X: ", b"y"),
    "endless digits of a chunk size": (CHUNKED, b"0"),
    "endless trailers": (CHUNKED + b"0\r\n", b"X: y\r\n"),
    "empty lines": (b"", b"\r\n"),
}


def _app(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    environ["txgreenwsgi.sleep"](3600)
    start_response("200 OK", [])
    return [b"awake"]


class MemoryTests(LeakCheckMixin, SynchronousTestCase):
    """Clients that send the most expensive bytes as fast as they are accepted."""

    def held(
        self,
        first: bytes,
        piece: bytes,
        times: int,
        window: int = READ,
        clients: int = 2,
    ) -> int:
        """Return the memory that the server holds for each client, in bytes.

        Args:
            first: the bytes that each client sends before the measurement begins.
            piece: the bytes that it sends repeatedly.
            times: the number of times, as long as all of them are accepted.
            window: the server's `input_window`.
            clients: the number of clients.
        """
        server = self.serve(_app, input_window=window)
        sockets = [server.connect() for _ in range(clients)]
        for client in sockets:
            client.send(first)
        gc.collect()
        tracemalloc.start()
        try:
            unread = 0
            before, _ = tracemalloc.get_traced_memory()
            for client in sockets:
                for _ in range(times):
                    client.send(piece)
                    if client.socket.to_server or client.closed:
                        break
                unread += len(client.socket.to_server) + len(client.received)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        server.close()
        server.advance(3600)  # wakes the applications, which find it gone
        return (after - before - unread) // clients

    def test_in_large_pieces(self) -> None:
        """Bytes in large pieces take little more memory than the window."""
        held = {
            sentence: self.held(first, repeated * (READ // len(repeated)), 4)
            for sentence, (first, repeated) in COSTLY.items()
        }
        self.assertEqual({s: n for s, n in held.items() if n > EACH}, {})
        # The bytes were indeed held: the measurement is valid.
        self.assertGreater(held["a body by its length"], READ)

    def test_in_small_pieces(self) -> None:
        """The memory is bounded too for bytes in small packets."""
        window = 8 * KIB
        for sentence, first, piece in (
            ("a body by its length", LENGTH, b"xy"),
            ("chunks of two bytes", CHUNKED, b"2\r\nxy\r\n"),
        ):
            held = self.held(first, piece, window, window, clients=1)
            self.assertLess(held, 2 * window + 80 * KIB, sentence)
