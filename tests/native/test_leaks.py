"""No request leaves an object, a reference or memory behind.

Requests of many kinds are sent to a compiled server. The number of allocated blocks
and objects, and the reference counts of objects that every request uses, must be the
same after many requests as after some. TXGREENWSGI_LEAKS sets the number of requests,
for example 1000000; TXGREENWSGI_FIGURES names a file for the figures.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import KeepAliveLoad
from tests.endurance.figures import note
from tests.integration.processes import LOOPBACK

from .app import SHARED, encode
from .pair import FREES_MEMORY, Side

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS: Final = int(os.environ.get("TXGREENWSGI_LEAKS", "20000"))
#: Most periods of so many requests, until one has no growth.
PERIODS: Final = 3
#: The share of requests on connections that stay open.
KEPT_ALIVE: Final = 0.6
CONNECTIONS: Final = 20
#: Most growth: objects of a moment. One object for each request of one kind is more.
MOST_BLOCKS: Final = 300 + REQUESTS // 2000
MOST_OBJECTS: Final = 100
#: Most growth of the caches of lines, which replace half of their lines at once.
MOST_CACHED: Final = 2500
NEW_LINES: Final = 6000
MOST_REFERENCES: Final = 60
MOST_KIB: Final = 2048

_HOST: Final = b"Host: example.com\r\n"
_BROWSER: Final = (
    b"GET /hello?n=%d HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/125.0\r\n"
    b"Accept: text/html,*/*;q=0.8\r\nAccept-Encoding: gzip, br\r\n"
    b"Cookie: session=%016d; theme=dark\r\n\r\n"
)
_POST: Final = (
    b"POST /unread HTTP/1.1\r\n" + _HOST + b"Content-Length: 1024\r\n\r\n" + bytes(1024)
)
_READ: Final = (
    b"POST /body HTTP/1.1\r\n" + _HOST + b"Content-Length: 9\r\n\r\nbody body"
)

#: Requests on a connection that stays open.
KEPT: Final[dict[str, Callable[[int], bytes]]] = {
    "hello": lambda _: b"GET /hello HTTP/1.1\r\n" + _HOST + b"\r\n",
    "browser": lambda number: _BROWSER % (number % 10, number),
    "post": lambda _: _POST,
    "read": lambda _: _READ,
    "sleep": lambda _: b"GET /sleep HTTP/1.1\r\n" + _HOST + b"\r\n",
}


def _get(path: str, *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return f"GET {path} HTTP/1.1\r\n".encode() + _HOST + lines + b"\r\n"


def _respond(**spec: Any) -> bytes:
    whole = {"status": "200 OK", "fields": [], "blocks": [], "by": "list", **spec}
    return _get(f"/respond?{encode(whole)}")


_CLOSE: Final = b"Connection: close"
_HELLO: Final = [{"bytes": "hello"}]

#: Streams on a connection of their own: what is sent before the client waits.
ONCE: Final[dict[str, bytes]] = {
    "close": _get("/hello", _CLOSE),
    "chunks": _get("/chunks", _CLOSE),
    "chunked body": b"POST /body HTTP/1.1\r\n"
    + _HOST
    + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"5\r\nhello\r\n0\r\n\r\n",
    "pipelined": _get("/hello") * 3 + _READ + _get("/chunks") + _get("/x", _CLOSE),
    "HEAD": b"HEAD /hello HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n",
    "bad field": _get("/hello", b"No colon"),
    "bad line": b"GET /a b HTTP/1.1\r\n" + _HOST + b"\r\n",
    "error": _get("/fail") + _get("/hello", _CLOSE),
    "bad status": _respond(status="2xx") + _get("/hello", _CLOSE),
    "bad header": _respond(fields=[["X", "a\r\nb"]]) + _get("/hello", _CLOSE),
    "bad block": _respond(blocks=["text"]) + _get("/hello", _CLOSE),
    "short": _respond(blocks=_HELLO, fields=[["Content-Length", "9"]]),
    "long": _respond(blocks=_HELLO, fields=[["Content-Length", "2"]])
    + _get("/hello", _CLOSE),
    "write": _respond(blocks=_HELLO * 2, by="write") + _get("/hello", _CLOSE),
    "failing": _respond(blocks=_HELLO, by="failing"),
    "closing": _respond(blocks=_HELLO, by="closing", close_fails=True)
    + _get("/hello", _CLOSE),
    "again": _respond(blocks=_HELLO, again="exc_info") + _get("/hello", _CLOSE),
}


class LeakTests(SynchronousTestCase):
    """One compiled server and many requests."""

    #: The number of lines that were sent by `send_new_lines`.
    lines = 0

    def test_leaks(self) -> None:
        """Objects, references and memory are the same after many requests."""
        side = Side(self, "compiled")
        self.send_all(side, max(2000, REQUESTS // 10))
        # Once more: the first answer of a path fills caches of its own.
        side.fetch_json("/state")
        # A leak grows in each period; caches that fill late do so in one.
        for _ in range(PERIODS):
            before, kib = side.fetch_json("/state"), side.server.resident_kib()
            started = time.monotonic()
            sent = self.send_all(side, REQUESTS)
            seconds = time.monotonic() - started
            side.fetch_json("/state")
            after, kib_after = side.fetch_json("/state"), side.server.resident_kib()
            if after["blocks"] - before["blocks"] < MOST_BLOCKS:
                break
        growth = {
            repr(each): second - first
            for each, first, second in zip(
                SHARED, before["references"], after["references"], strict=True
            )
        }
        note(
            "leaks",
            requests=sent,
            seconds=round(seconds, 1),
            blocks=after["blocks"] - before["blocks"],
            objects=after["objects"] - before["objects"],
            most_references=max(growth.values(), key=abs),
            kib=kib_after - kib,
        )
        self.assertLess(after["blocks"] - before["blocks"], MOST_BLOCKS)
        self.assertLess(after["objects"] - before["objects"], MOST_OBJECTS)
        # A reference too few is worse: the object is freed while it is in use.
        for name, change in growth.items():
            self.assertLess(abs(change), MOST_REFERENCES, name)
        if FREES_MEMORY:
            self.assertLess(kib_after - kib, MOST_KIB)
        side.stop()

    def send_new_lines(self, side: Side, count: int) -> None:
        """Send this number of field lines that the server has not seen before."""
        for _ in range(count // 50):
            heads = [
                _get("/hello", b"X-New: %d" % number)
                for number in range(self.lines, self.lines + 50)
            ]
            self.lines += 50
            self.send_once(side, b"".join(heads) + _get("/hello", _CLOSE), 0)

    def test_new_lines(self) -> None:
        """Lines that are in no cache, and those that fall out of it, are freed."""
        side = Side(self, "compiled")
        self.send_new_lines(side, NEW_LINES // 3)
        before = side.fetch_json("/state")
        self.send_new_lines(side, NEW_LINES)
        after = side.fetch_json("/state")
        self.assertLess(abs(after["blocks"] - before["blocks"]), MOST_CACHED)
        self.assertLess(after["objects"] - before["objects"], MOST_CACHED)
        side.stop()

    def send_all(self, side: Side, requests: int) -> int:
        """Send about this many requests of all kinds; return their number."""
        sent = 0
        each = int(requests * KEPT_ALIVE) // len(KEPT)
        for request in KEPT.values():
            with KeepAliveLoad(side.server.port, request, CONNECTIONS) as load:
                load.run(each)
                sent += each
        each = max(1, int(requests * (1 - KEPT_ALIVE)) // len(ONCE))
        for stream in ONCE.values():
            for number in range(each):
                self.send_once(side, stream.replace(b"%d", b"%d" % number), number)
                sent += 1
        while side.in_flight():
            time.sleep(0.01)
        return sent

    def send_once(self, side: Side, stream: bytes, number: int) -> None:
        """Send a stream on a new connection; every fourth client leaves early."""
        with socket.create_connection((LOOPBACK, side.server.port), 30) as connection:
            if number % 4 == 3:
                connection.sendall(stream[: len(stream) * (number % 7) // 7])
                return
            connection.sendall(stream)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass
