"""Many clients in one event loop: normal, slow, and disconnecting early.

Each client has a connection and sends random requests one after the other; it reads
and checks each complete response. This file knows sockets and the client's side of
HTTP; it must never know the server.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from .soak_app import FAILING, LENGTHS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Load"]

_ABORTED = 0.05
_SLOW = 0.05
_MOST_HELD = 40
_UPLOAD = bytes(70_000)
_RESET = struct.pack("ii", 1, 0)
_LAST_CHUNK = b"0\r\n\r\n"

# Relative frequency of each path.
_WEIGHTS = {
    "/hello": 40,
    "/echo": 15,
    "/sleep": 10,
    "/tasks": 3,
    "/chunks": 10,
    "/large": 3,
    "/file": 5,
    "/write": 5,
    "/early": 4,
    "/error": 2,
    "/error-late": 1,
}


def _request(path: str, chance: random.Random) -> bytes:
    head = f"GET {path}?n={chance.randrange(10**9)} HTTP/1.1\r\nHost: soak\r\n"
    cookie = f"Cookie: session={chance.randrange(10**12)}\r\n"
    body = b""
    fields = ""
    if path in ("/echo", "/early"):
        head = "POST" + head[3:]
        body = _UPLOAD[: chance.choice((0, 10, 2000, 70_000))]
        if chance.random() < 0.3 and body:
            fields = "Transfer-Encoding: chunked\r\n"
            body = b"%x\r\n%b\r\n%b" % (len(body), body, _LAST_CHUNK)
        else:
            fields = f"Content-Length: {len(body)}\r\n"
    return f"{head}{cookie}{fields}\r\n".encode() + body


class _Client:
    """One client, driven by `Load`.

    Args:
        load: has the counters and the random generator.
        number: decides whether the client reads slowly.
    """

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._chance = load.chance
        self._slow = number < load.slow
        self._socket: socket.socket | None = None
        self._to_send = memoryview(b"")
        self._paths: list[str] = []
        self._received = b""
        self._abort_after = -1
        self._hold = False
        self.writing = False

    def begin(self) -> None:
        """Send the next request, on a new connection if there is none."""
        load = self._load
        if load.left <= 0:
            self.close()
            return
        if self._socket is None:
            self._connect()
        chance = self._chance
        # Sometimes two pipelined requests.
        count = 2 if chance.random() < 0.05 else 1
        self._paths = chance.choices(load.paths, load.weights, k=count)
        data = b"".join(_request(path, chance) for path in self._paths)
        load.left -= count
        for path in self._paths:
            load.sent[path] += 1
        self._abort_after = -1
        self._hold = False
        if chance.random() < _ABORTED:
            load.aborted += count
            if chance.random() < 0.3:
                # Leave in the middle of the request: half of the clients at once, half
                # later.
                data = data[: chance.randrange(1, len(data))]
                self._abort_after = 0
                self._hold = chance.random() < 0.5
            else:
                self._abort_after = chance.choice((0, 1, 50, 500, 5000, 50_000))
        self._to_send = memoryview(data)
        self._received = b""
        self._write()

    def _connect(self) -> None:
        self._socket = sock = socket.socket()
        if self._slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(self._load.address)
        sock.setblocking(False)
        self._load.selector.register(sock, selectors.EVENT_READ, self)
        self.writing = False

    def close(self, reset: bool = False) -> None:
        """Close the connection, with a reset if asked for."""
        sock, self._socket = self._socket, None
        if sock is not None:
            self._load.selector.unregister(sock)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()

    def _write(self) -> None:
        sock = self._socket
        assert sock is not None
        try:
            while self._to_send:
                self._to_send = self._to_send[sock.send(self._to_send) :]
        except BlockingIOError:
            self._want(selectors.EVENT_READ | selectors.EVENT_WRITE)
            return
        except (BrokenPipeError, ConnectionResetError):
            # The server answered and closed before the request was complete: the
            # response can still be read.
            self._to_send = memoryview(b"")
        if self.writing:
            self._want(selectors.EVENT_READ)
        if self._abort_after == 0:
            self._leave()

    def _want(self, events: int) -> None:
        assert self._socket is not None
        self.writing = bool(events & selectors.EVENT_WRITE)
        self._load.selector.modify(self._socket, events, self)

    def _leave(self) -> None:
        if self._hold and self._socket is not None:
            self._load.hold(self._socket)
            self._socket = None
        else:
            self.close(reset=self._chance.random() < 0.5)
        self.begin()

    def turn(self, events: int) -> None:
        """Handle a ready socket."""
        if events & selectors.EVENT_WRITE:
            self._write()
            if self._socket is None or not events & selectors.EVENT_READ:
                return
        sock = self._socket
        assert sock is not None
        try:
            data = sock.recv(2048 if self._slow else 262_144)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._ended()
            return
        self._received += data
        if 0 < self._abort_after <= len(self._received):
            self._leave()
        else:
            self._read()

    def _read(self) -> None:
        """Consume complete responses from the received data."""
        while self._paths:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            path = self._paths[0]
            expected = 500 if path == "/error" else 200
            if not head.startswith(b"HTTP/1.1 %d " % expected):
                raise AssertionError(f"{path} was answered with {head!r}")
            if b"Transfer-Encoding: chunked" in head:
                length = _chunked_length(rest)
                if length < 0:
                    return
            else:
                start = head.index(b"Content-Length: ") + 16
                length = int(head[start:].split(b"\r\n", 1)[0])
                if len(rest) < length:
                    return
                if path in LENGTHS and length != LENGTHS[path]:
                    raise AssertionError(f"{path} has {length} bytes: {head!r}")
            self._received = rest[length:]
            self._done(path)
            if b"Connection: close" in head:
                # The server does not answer pipelined requests after it.
                self._load.unanswered += len(self._paths)
                self._paths.clear()
                self._ended()
                return
        if not self._received:
            self.begin()

    def _done(self, path: str) -> None:
        del self._paths[0]
        self._load.answered[path] += 1

    def _ended(self) -> None:
        """Handle the end of the stream, or a response with `Connection: close`."""
        if self._paths and self._abort_after < 0:
            # Only the response of /error-late may be truncated.
            if self._paths[0] != "/error-late" or not self._received:
                raise AssertionError(f"no answer to {self._paths}: {self._received!r}")
            self._done("/error-late")
            self._load.unanswered += len(self._paths)
        self.close()
        self.begin()


def _chunked_length(data: bytes) -> int:
    """Return the length of a chunked body on the wire, -1 if it is incomplete."""
    position = 0
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return -1
        size = int(data[position:end], 16)
        position = end + 2 + size + 2
        if size == 0:
            return position if len(data) >= position else -1
        if len(data) < position:
            return -1


class Load:
    """Clients that together send a number of requests.

    Args:
        address: address of the server.
        requests: total number of requests.
        clients: number of concurrent clients.
        seed: seed of the random generator.

    Attributes:
        sent: number of requests by path.
        answered: number of correct responses by path.
        aborted: number of requests whose client left early.
        unanswered: number of requests pipelined after one that ended the connection.
    """

    def __init__(
        self, address: tuple[str, int], requests: int, clients: int, seed: int
    ) -> None:
        self.address = address
        self.left = requests
        self.chance = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.paths = list(_WEIGHTS)
        self.weights = list(_WEIGHTS.values())
        self.slow = int(clients * _SLOW)
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.aborted = 0
        self.unanswered = 0
        self._total = requests
        self._held: deque[socket.socket] = deque()
        self._clients = [_Client(self, number) for number in range(clients)]
        assert set(self.paths) == {*LENGTHS, *FAILING}

    def hold(self, sock: socket.socket) -> None:
        """Keep a connection with an incomplete request open for a while."""
        self.selector.unregister(sock)
        self._held.append(sock)
        if len(self._held) > _MOST_HELD:
            self._held.popleft().close()

    def run(self, seconds: float, every: int, sample: Callable[[int], None]) -> None:
        """Send all requests and read the responses.

        Args:
            seconds: time limit.
            every: number of requests between calls of `sample`.
            sample: called with the number of requests sent so far.

        Raises:
            AssertionError: a response is wrong or missing.
        """
        end = time.monotonic() + seconds
        sampled = 0
        for client in self._clients:
            client.begin()
        while self.selector.get_map():
            for key, events in self.selector.select(1.0):
                key.data.turn(events)
            done = self._total - self.left
            if done - sampled >= every:
                sampled = done
                sample(done)
            if time.monotonic() > end:
                raise AssertionError(
                    f"{done} requests in {seconds:g} seconds; answered: {self.answered}"
                )
        self.selector.close()
        for sock in self._held:
            sock.close()
