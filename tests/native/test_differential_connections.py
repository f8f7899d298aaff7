"""Connections that end in all ways, through a compiled and a pure server.

The lanes accept, read and close without a transport. Whatever else happens, Python code
makes the transport and goes on; the client sees the same bytes and the same end.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import connection_per_request
from tests.integration.processes import ANSWER_SECONDS, LOOPBACK, wait_for

from .pair import CLOSE, FREES_MEMORY, HOST, Pair, Side, reset

if TYPE_CHECKING:
    from collections.abc import Sequence

HELLO = b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /hello HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
POST = b"POST /unread HTTP/1.1\r\n" + HOST + CLOSE + b"Content-Length: 40000\r\n\r\n"
SLEEP = b"GET /sleep HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"

#: Memory of the process that may be new after the connections, in KiB.
MOST_KIB = 2048
CONNECTIONS = 10_000

#: What a client sends, piece by piece, each after the server has handled the last.
STREAMS: dict[str, Sequence[bytes]] = {
    "one request": [LAST],
    "a request after others": [HELLO, HELLO, LAST],
    "a request in pieces": [LAST[:7], LAST[7:30], LAST[30:]],
    "more after the last request": [LAST + b"x" * 100],
    "a request after the last one": [LAST + HELLO],
    "a late request after the last one": [LAST, HELLO],
    "an unread body": [POST + bytes(40000)],
    "an unread body in two pieces": [POST + bytes(30000), bytes(10000)],
    "an incomplete body": [POST + bytes(10)],
    "a parked request": [SLEEP],
    "a parked request and more": [SLEEP + HELLO],
    "no request": [],
    "an empty line": [b"\r\n"],
    "a part of a head": [LAST[:20]],
    "HTTP/1.0": [b"GET /hello HTTP/1.0\r\n\r\n"],
    "HTTP/1.0, kept": [b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"],
    "a bad head": [b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"],
    "a failure": [LAST.replace(b"/hello", b"/fail")],
    "chunks": [LAST.replace(b"/hello", b"/chunks")],
    "the environ": [LAST.replace(b"/hello", b"/environ")],
    "HEAD": [LAST.replace(b"GET", b"HEAD")],
}


class ConnectionTests(SynchronousTestCase):
    """Connections to both servers."""

    def test_streams(self) -> None:
        """Clients that wait for the end, and those that close their side, see it."""
        pair = Pair(self)
        # Twice: most lanes need lines that are known.
        for leave in (False, True, False):
            for name, pieces in STREAMS.items():
                seen = pair.check(pieces, leave=leave)
                if b"close" in b"".join(pieces) and name != "an incomplete body":
                    self.assertIn(seen.end, ("closed", "reset"), name)
        pair.finish()

    def test_observed(self) -> None:
        """With an access log, each request has the same record."""
        pair = Pair(self, logged=True)
        for name in ("one request", "a request after others", "an unread body"):
            for _ in range(2):
                pair.check(STREAMS[name])
        pair.finish()

    def test_aborts(self) -> None:
        """Clients that reset the connection at any point end only their own."""
        pair = Pair(self)
        for side in pair.sides:
            for _ in range(3):
                for pieces in STREAMS.values():
                    for closes in (reset, socket.socket.close):
                        connection = side.connect()
                        with contextlib.suppress(OSError):
                            for piece in pieces:
                                connection.sendall(piece)
                        closes(connection)
                while side.in_flight():
                    pass
            self.assertEqual(side.server.fetch("/hello").status, 200)
        pair.finish()

    def test_limit(self) -> None:
        """Connections above max_connections are closed; a free place is used again."""
        # One connection of the pair itself, and one of the test.
        pair = Pair(self, ["--max-connections=2"])
        for side in pair.sides:
            for _ in range(3):
                with side.connect() as first, side.connect() as second:
                    first.sendall(HELLO)
                    self.assertIn(b"200 OK", first.recv(65536))
                    with contextlib.suppress(ConnectionResetError):
                        self.assertEqual(second.recv(1), b"")
                side.in_flight()
                with side.connect() as again:
                    again.sendall(LAST)
                    self.assertIn(b"200 OK", again.recv(65536))
        pair.finish()

    def test_fork(self) -> None:
        """A connection closes although a process forked from the server has it."""
        pair = Pair(self)
        for side in pair.sides:
            for _ in range(2):
                with side.connect() as connection:
                    connection.settimeout(ANSWER_SECONDS)
                    connection.sendall(LAST.replace(b"/hello", b"/fork"))
                    received = b""
                    while data := connection.recv(65536):
                        received += data
                    self.assertIn(b"200 OK", received)
                self.assertEqual(side.server.fetch("/joined").status, 200)
        pair.finish()


class LaneTests(SynchronousTestCase):
    """The lanes of a connection."""

    def taken(self, side: Side, count: int) -> dict[str, int]:
        """Return how often lanes are taken for this many connections."""
        before = side.fetch_json("/lanes")
        connection_per_request(side.server.port, lambda _: LAST, count, at_once=20)
        after = side.fetch_json("/lanes")
        return {name: after[name] - before[name] for name in after}

    def test_lanes(self) -> None:
        """Connections with one request each are accepted and closed by lanes."""
        side = Side(self, "compiled")
        found = self.taken(side, 200)
        for name in ("accept", "close", "head", "response", "end"):
            self.assertGreaterEqual(found[name], 195, (name, found))
        side.stop()

    def test_late_request(self) -> None:
        """A request that comes after its connection is served by lanes too."""
        side = Side(self, "compiled")
        self.taken(side, 5)
        before = side.fetch_json("/lanes")
        for _ in range(10):
            with side.connect() as connection:
                side.in_flight()
                connection.sendall(LAST)
                while connection.recv(65536):
                    pass
        after = side.fetch_json("/lanes")
        self.assertGreaterEqual(after["close"] - before["close"], 10)
        side.stop()

    def test_idle_connection_is_closed(self) -> None:
        """An idle connection without a request ends after its time."""
        pair = Pair(self, ["--keep-alive=1", "--header-timeout=1"])
        for side in pair.sides:
            with socket.create_connection((LOOPBACK, side.server.port)) as connection:
                connection.settimeout(ANSWER_SECONDS)
                self.assertEqual(connection.recv(1), b"")

    def test_nothing_is_left(self) -> None:
        """10,000 connections leave no descriptor, object or memory behind."""
        side = Side(self, "compiled")
        self.taken(side, CONNECTIONS // 4)
        side.fetch_json("/state")
        before, open_before, kib = _state_of(side)
        self.taken(side, CONNECTIONS)
        for _ in range(500):
            reset(side.connect())
            side.connect().close()
        # The server closes a connection when it has read its end.
        wait_for(lambda: _open_descriptors(side) <= open_before, f"{open_before} open")
        after, _, kib_after = _state_of(side)
        self.assertLess(after["blocks"] - before["blocks"], 1000)
        self.assertLess(after["objects"] - before["objects"], 100)
        if FREES_MEMORY:
            self.assertLess(kib_after - kib, MOST_KIB)
        side.stop()


def _state_of(side: Side) -> tuple[dict[str, int], int, int]:
    """Return counts of objects, open descriptors and memory in KiB."""
    state = side.fetch_json("/state")
    return state, _open_descriptors(side), side.server.resident_kib()


def _open_descriptors(side: Side) -> int:
    return len(os.listdir(f"/proc/{side.server.pid}/fd"))
