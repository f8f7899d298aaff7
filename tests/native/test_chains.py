"""Chains of requests, and field lines that are kept with a template of the environ.

A chain runs the requests of connections that are ready at once in one greenlet. One
blocking request makes them ready at once: the others are sent while it runs.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

from hpack.hpack import Encoder
from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from tests.http2.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
)
from tests.integration.processes import ANSWER_SECONDS

from .pair import CLOSE, HOST, Pair, Side, reset

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

#: Field lines, around the places where a Cookie may be.
_AROUND = (
    (b"", b""),
    (b"Accept: */*\r\n", b""),
    (b"", b"Accept: */*\r\n"),
    (b"User-Agent: one\r\nReferer: /a\r\n", b"Accept-Language: nl\r\n"),
    (b"Traceparent: 00-%032x-%016x-01\r\n" % (1, 2), b""),
    (b"Connection: keep-alive\r\n", b"X-Same: a\r\n"),
)
_COOKIES = (
    *(b"", b"Cookie: a=1\r\n", b"Cookie: b=2\r\n", b"cookie: c=3\r\n"),
    *(b"Cookie:d=4\r\n", b"Cookie:  e=5 \r\n", b"Cookie: f=6\r\nCookie: g=7\r\n"),
    *(b"Cookie: \x00\r\n", b"Cookie: \r\n", b"CooKie: h=8\r\n"),
)
_LINES = (
    *(b"GET /environ HTTP/1.1", b"GET /environ?a=1 HTTP/1.1", b"GET /clear HTTP/1.1"),
    *(b"GET /other%20path HTTP/1.1", b"HEAD /environ HTTP/1.1"),
    *(b"POST /body HTTP/1.1", b"GET /environ HTTP/1.0", b"OPTIONS * HTTP/1.1"),
)


def requests(chance: random.Random, count: int) -> list[bytes]:
    """Return requests whose parts repeat in all combinations."""
    # Few at once, so that the same lines follow each other.
    around = chance.sample(_AROUND, 2)
    cookies = chance.sample(_COOKIES, 3)
    lines = chance.sample(_LINES, 2)
    found = []
    for _ in range(count):
        line = chance.choice(lines)
        before, after = chance.choice(around)
        body = b""
        if line.startswith(b"POST"):
            body = b"abc"
            after += b"Content-Length: 3\r\n"
        head = b"\r\n".join([line, HOST + before + chance.choice(cookies) + after, b""])
        found.append(head + body)
    return found


#: Of a request of HTTP/2.
_FIELDS = (
    *((":method", "GET"), (":path", "/hello")),
    *((":scheme", "http"), (":authority", "example.com")),
)


class TemplateTests(SynchronousTestCase):
    """Requests with the same field lines, in both modes."""

    def compare(self, *options: str, logged: bool = False) -> None:
        """Send random sequences of requests."""
        chance = random.Random(5)
        pair = Pair(self, options, logged=logged)
        for _ in range(60):
            pair.check(requests(chance, 12))
        for side in pair.sides:
            lanes = side.fetch_json("/lanes")
            if lanes:
                self.assertGreater(lanes["template"], 100, lanes)
        pair.finish()

    def test_default(self) -> None:
        """The environ is the same."""
        self.compare()

    def test_logged(self) -> None:
        """With an access log, whose records have some of the fields."""
        self.compare(logged=True)

    def test_script_name(self) -> None:
        """The environ of an application below a path."""
        self.compare("--prefix=/environ")

    def test_few_fields(self) -> None:
        """The limit on the number of fields counts the Cookie."""
        self.compare("--max-headers=3")

    def test_two_clients(self) -> None:
        """The variables of the connection are those of each client."""
        pair = Pair(self)
        head = b"GET /environ HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n\r\n"
        for side in pair.sides:
            found = set()
            for _ in range(4):
                with side.connect() as client:
                    port = client.getsockname()[1]
                    for _ in range(3):
                        client.sendall(head.replace(b"/environ", b"/port"))
                        self.assertEqual(_body_of(client), b"%d" % port)
                    found.add(port)
            self.assertEqual(len(found), 4)
        pair.finish()


class ChainTests(SynchronousTestCase):
    """Requests that are ready at once, in a compiled server."""

    def setUp(self) -> None:
        """Start a server."""
        self.side = Side(self, "compiled")
        self.before = self.side.fetch_json("/lanes")

    def chained(self) -> int:
        """Return the number of requests that a chain has begun."""
        taken: int = self.side.fetch_json("/lanes")["chain"] - self.before["chain"]
        return taken

    def block(self, connection: socket.socket) -> Path:
        """Block the server by a request, until the returned path exists."""
        flag = short_folder(self) / "flag"
        line = f"GET /until?{flag} HTTP/1.1\r\n".encode()
        connection.sendall(line + HOST + b"\r\n")
        return flag

    def at_once(self, paths: Sequence[str], fields: bytes = b"") -> list[bytes]:
        """Send a request on a connection each, so that all are ready at once.

        Returns:
            The bodies of the responses, in the order of the paths.
        """
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.side.connect()) for _ in paths]
            blocking = stack.enter_context(self.side.connect())
            self.side.in_flight()  # all are accepted
            flag = self.block(blocking)
            for client, path in zip(clients, paths, strict=True):
                line = f"GET {path} HTTP/1.1\r\n".encode()
                client.sendall(line + HOST + fields + b"\r\n")
            flag.touch()
            self.assertEqual(_body_of(blocking), b"in time\n")
            return [_body_of(client) for client in clients]

    def test_taken(self) -> None:
        """Requests that do not park share a greenlet."""
        found = self.at_once(["/hello"] * 40)
        self.assertEqual(found, [b"hello, world!\n"] * 40)
        self.assertGreaterEqual(self.chained(), 30)
        self.side.stop()

    def test_every_kind(self) -> None:
        """Requests that park, fail, stream and wait for each other between others."""
        kinds = {
            "/hello": b"hello, world!\n",
            "/sleep": b"slept\n",
            "/fail": b"Internal Server Error\n",
            "/chunks": b"".join(b"%d\n" % number for number in range(10)),
            "/wait": b"1\n",
            "/variable": b"outside",
        }
        chance = random.Random(7)
        for _ in range(6):
            paths = [*(list(kinds) * 6), "/set"]
            chance.shuffle(paths)
            found = self.at_once(paths)
            for path, body in zip(paths, found, strict=True):
                expected = kinds.get(path, b"set\n")
                if path == "/fail":
                    self.assertIn(b"Internal Server Error", body)
                else:
                    self.assertEqual(body, expected, path)
        self.assertGreaterEqual(self.chained(), 30)
        self.assertEqual(self.side.in_flight(), 0)
        self.side.stop()

    def test_last_requests(self) -> None:
        """Connections that end with their request are closed."""
        found = self.at_once(["/hello", "/sleep"] * 10, CLOSE)
        self.assertEqual(found, [b"hello, world!\n", b"slept\n"] * 10)
        self.assertEqual(self.side.in_flight(), 0)
        self.side.stop()

    def test_new_connections(self) -> None:
        """Requests of connections that are accepted at once share a greenlet."""
        with contextlib.ExitStack() as stack:
            blocking = stack.enter_context(self.side.connect())
            self.side.in_flight()
            flag = self.block(blocking)
            clients = []
            for number in range(40):
                client = stack.enter_context(self.side.connect())
                path = (b"/hello", b"/sleep", b"/variable")[number % 3]
                fields = CLOSE if number % 2 else b""
                client.sendall(b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, fields))
                clients.append(client)
            flag.touch()
            bodies = [_body_of(client) for client in clients]
            for number, body in enumerate(bodies):
                expected = (b"hello, world!\n", b"slept\n", b"outside")[number % 3]
                self.assertEqual(body, expected)
            # A connection that stays open serves the next request.
            for client in clients[::2]:
                client.sendall(b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n")
                self.assertEqual(_body_of(client), b"hello, world!\n")
            for client in clients[1::2]:
                self.assertEqual(client.recv(1), b"")
        self.assertGreaterEqual(self.chained(), 15)
        self.assertEqual(self.side.in_flight(), 0)
        self.side.stop()

    def test_clients_that_leave(self) -> None:
        """A client that has reset its connection does not stop the chain."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self.side.connect()) for _ in range(20)]
            blocking = stack.enter_context(self.side.connect())
            self.side.in_flight()
            flag = self.block(blocking)
            for number, client in enumerate(clients):
                client.sendall(b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n")
                if number % 2:
                    reset(client)
            flag.touch()
            for client in clients[::2]:
                self.assertEqual(_body_of(client), b"hello, world!\n")
        self.assertEqual(self.side.in_flight(), 0)
        self.side.stop()

    def test_context_of_the_reactor(self) -> None:
        """Callbacks for the end of a request run in the Context of the reactor."""
        self.at_once(["/end"] * 10)
        found = self.side.fetch_json("/ended")
        self.assertEqual(found, ["program"] + ["set at an end"] * 9)
        self.assertGreaterEqual(self.chained(), 2)
        self.side.stop()

    def test_http2(self) -> None:
        """A response of HTTP/2 leaves before the next connection is read."""
        flag = short_folder(self) / "flag"
        side = Side(self, "compiled", ["--http2=h2c"])
        head = Encoder().encode(_FIELDS)
        with side.connect() as first, side.connect() as other, side.connect() as block:
            first.sendall(PREFACE + frame(SETTINGS))
            first.recv(65536)
            for client in (other, block):
                client.sendall(b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n")
                self.assertEqual(_body_of(client), b"hello, world!\n")
            sent = self.block(block)
            first.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, head))
            line = f"GET /until?{flag} HTTP/1.1\r\n".encode()
            other.sendall(line + HOST + b"\r\n")
            sent.touch()
            received = b""
            while b"hello, world!\n" not in received:
                received += _received(first, received)
            flag.touch()
            self.assertEqual(_body_of(other), b"in time\n")
        side.stop()
        self.side.stop()


def _body_of(client: socket.socket) -> bytes:
    """Read one response, with a length or in chunks, and return its body."""
    client.settimeout(ANSWER_SECONDS)
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(client, data)
    head, _, body = data.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" in head:
        while not body.endswith(b"0\r\n\r\n"):
            body += _received(client, data)
        pieces = body.split(b"\r\n")
        return b"".join(pieces[1:-3:2])
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += _received(client, data)
    return body


def _received(client: socket.socket, before: bytes) -> bytes:
    data = client.recv(65536)
    if not data:
        raise AssertionError(f"the server closed the connection after {before!r}")
    return data
