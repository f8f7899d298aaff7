"""Test clients and servers in memory, on a clock that the test moves.

No sockets, no processes, no waiting: requests pass through the server's own code,
down to Twisted's TCP connection class; only the socket is replaced. A test can send
bytes in any pieces, let hours pass, read slowly and disconnect at any moment, and
then assert that no task, connection or file is left.

    class GreetingTests(LeakCheckMixin, SynchronousTestCase):
        def test_greeting(self):
            server = self.serve(my_app)
            self.assertEqual(server.request("GET", "/").body, b"hello")
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from zope.interface import implementer

from ._server.site import GreenSite
from ._switching.greenlets import Hub, Task, hub_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import (
        IProtocol,
        IReadDescriptor,
        IWriteDescriptor,
    )
    from typing_extensions import Unpack

    from ._wsgi.gateway import Application
    from .monitoring.records import ExchangeRecord
    from .settings import SettingsKeywords

__all__ = [
    "LeakCheckMixin",
    "MemoryClient",
    "MemoryReactor",
    "MemoryServer",
    "MemoryWebSocket",
    "Response",
]

#: Maximum number of turns at one moment of the clock: a task that keeps the reactor
#: busy for longer would never let a test end.
_MOST_TURNS = 1000


class _MemorySocket:
    """The server's end of a connection: a `socket.socket` in memory.

    Attributes:
        to_server: bytes that the client sent and the server has not received.
        to_client: bytes that the server sent and the client has not read.
        room: number of bytes in `to_client` from which on a send would block.
        sent: number of bytes that the server has sent in total.
        client_closed: whether the client has closed its sending side.
        client_gone: whether the client has left; a send to it fails.
        server_closed: whether the server has closed its sending side.
        server_reset: whether the server has cut the connection.
    """

    def __init__(self, room: float) -> None:
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.room = room
        self.sent = 0
        self.client_closed = False
        self.client_gone = False
        self.server_closed = False
        self.server_reset = False

    def readable(self) -> bool:
        return bool(self.to_server) or self.client_closed or self.client_gone

    def writable(self) -> bool:
        return len(self.to_client) < self.room or self.client_gone

    def setblocking(self, blocking: bool) -> None:
        pass

    def fileno(self) -> int:
        return -1  # no descriptor: the kernel can neither watch it nor send files

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.client_gone:
            raise ConnectionResetError("the client has reset the connection")
        if not self.to_server:
            if self.client_closed:
                return b""
            raise BlockingIOError
        data = bytes(self.to_server[:size])
        if not flags & socket.MSG_PEEK:
            del self.to_server[:size]
        return data

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        if self.client_gone:
            raise BrokenPipeError("the client has reset the connection")
        if not len(data):
            return 0
        free = self.room - len(self.to_client)
        if free <= 0:
            raise BlockingIOError
        taken = bytes(data) if free >= len(data) else bytes(data[: int(free)])
        self.to_client += taken
        self.sent += len(taken)
        return len(taken)

    def sendmsg(self, parts: Iterable[bytes]) -> int:
        return self.send(b"".join(parts))

    def setsockopt(self, level: int, option: int, value: object) -> None:
        if option == socket.SO_LINGER:
            self.server_reset = True

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def shutdown(self, how: int) -> None:
        self.server_closed = True

    def close(self) -> None:
        self.server_closed = True


class _MemoryConnection(TCPConnection):
    """Twisted's TCP connection, on a socket in memory.

    Attributes:
        memory: that socket.
    """

    def __init__(
        self, skt: _MemorySocket, protocol: IProtocol, reactor: MemoryReactor
    ) -> None:
        super().__init__(skt, protocol, reactor)  # type: ignore[arg-type]
        self.memory = skt
        self.logstr = "memory"

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 4321)


@implementer(IReactorFDSet)
class MemoryReactor(Clock):
    """A Clock that also serves connections in memory.

    It watches real descriptors too, such as a pipe, but never waits for them: each
    turn polls them once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[IReadDescriptor] = []
        self._writers: list[IWriteDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        """Watch a connection in memory, or a descriptor, for bytes to read."""
        if reader not in self._readers:
            self._readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Stop watching `reader` for bytes to read."""
        if reader in self._readers:
            self._readers.remove(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Watch a connection in memory, or a descriptor, for room to write."""
        if writer not in self._writers:
            self._writers.append(writer)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Stop watching `writer` for room to write."""
        if writer in self._writers:
            self._writers.remove(writer)

    def getReaders(self) -> list[IReadDescriptor]:
        """Return the objects that are watched for bytes to read."""
        return list(self._readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        """Return the objects that are watched for room to write."""
        return list(self._writers)

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """Stop watching all objects, and return them."""
        watched: list[IReadDescriptor | IWriteDescriptor]
        watched = list({*self._readers, *self._writers})
        self._readers.clear()
        self._writers.clear()
        return watched

    def settle(self) -> None:
        """Run turns until nothing is left to do at this moment of the clock."""
        for _ in range(_MOST_TURNS):
            if not self.turn():
                return

    def advance(self, amount: float) -> None:
        """Move the clock, and run the delayed calls that are due then.

        Calls that they schedule without a delay are due in the next turn, as in a
        real reactor: `sleep(0)` takes a whole turn here too.

        Args:
            amount: seconds.
        """
        self.rightNow += amount
        for call in sorted(self.calls, key=lambda call: call.getTime()):
            if call.active() and call.getTime() <= self.rightNow:
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

    def turn(self) -> bool:
        """Run one turn of the reactor; return whether anything was done in it."""
        done = any(call.getTime() <= self.rightNow for call in self.getDelayedCalls())
        self.advance(0)
        for reader in list(self._readers):
            if reader in self._readers and _is_readable(reader):
                done = True
                self._lost(reader, reader.doRead(), reading=True)
        for writer in list(self._writers):
            if writer in self._writers and _is_writable(writer):
                done = True
                self._lost(writer, writer.doWrite(), reading=False)
        return done

    def _lost(self, connection: Any, why: BaseException | None, reading: bool) -> None:
        """Do as a reactor does with the result of `doRead` and `doWrite`."""
        if why is None:
            return
        self.removeReader(connection)
        if reading and isinstance(why, ConnectionDone):
            connection.readConnectionLost(Failure(why))
        else:
            self.removeWriter(connection)
            connection.connectionLost(Failure(why))


def _is_readable(reader: IReadDescriptor) -> bool:
    if isinstance(reader, _MemoryConnection):
        return reader.memory.readable()
    return bool(select.select([reader], [], [], 0)[0])


def _is_writable(writer: IWriteDescriptor) -> bool:
    if isinstance(writer, _MemoryConnection):
        return writer.memory.writable()
    return bool(select.select([], [writer], [], 0)[1])


@dataclass(frozen=True)
class Response:
    """A response, decoded.

    Attributes:
        status: the status code.
        reason: the reason phrase.
        headers: (name, value) pairs, in order.
        body: the content, without chunked coding.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the values of a field, joined by ", "; None without such a field."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


class MemoryClient:
    """The client's end of one connection, as `MemoryServer.connect` returns it.

    The server reacts to each call before the call returns.

    Attributes:
        server: as given.
        received: all bytes that the client has read so far.
        socket: the server's end of the connection.
        channel: the server's protocol; None if the server has refused the
            connection (`max_connections`).
    """

    def __init__(self, server: MemoryServer, room: float) -> None:
        self.server = server
        self._reads_by_itself = room == float("inf")
        self._disconnect_after = float("inf")
        self.received = b""
        self.socket = _MemorySocket(room)
        self.channel: Any = server.site.buildProtocol(None)
        if self.channel is None:
            self.socket.server_closed = True
            return
        self.transport = _MemoryConnection(self.socket, self.channel, server.reactor)
        self.transport.connected = 1
        self.channel.makeConnection(self.transport)
        self.transport.startReading()  # type: ignore[no-untyped-call]

    @property
    def closed(self) -> bool:
        """Whether the server has closed its sending side."""
        return self.socket.server_closed

    @property
    def reset(self) -> bool:
        """Whether the server has cut the connection instead of closing it."""
        return self.socket.server_reset

    def send(self, data: bytes, piece: int = 0) -> None:
        """Send bytes to the server, in pieces of `piece` bytes; 0 for one piece."""
        step = piece or max(1, len(data))
        for start in range(0, len(data), step):
            self.socket.to_server += data[start : start + step]
            self.settle()

    def settle(self) -> None:
        """Let the server do all that is possible now, and read the bytes it sends."""
        for _ in range(_MOST_TURNS):
            worked = self.server.reactor.turn()
            read = self._reads_by_itself and self._take(len(self.socket.to_client))
            if not worked and not read:
                return

    def _take(self, size: int) -> bool:
        pipe = self.socket.to_client
        size = int(min(size, self._disconnect_after - len(self.received)))
        self.received += pipe[:size]
        del pipe[:size]
        if len(self.received) >= self._disconnect_after:
            self.disconnect()
        return size > 0

    def read(self, size: int | None = None) -> bytes:
        """Read at most `size` bytes, by default all; for clients with limited `room`.

        Returns:
            The bytes read.
        """
        before = len(self.received)
        self._take(len(self.socket.to_client) if size is None else size)
        self.settle()
        return self.received[before:]

    def disconnect(self) -> None:
        """Disconnect: each send of the server fails from now on."""
        self._disconnect_after = float("inf")
        self.socket.client_gone = True
        self.socket.to_server.clear()
        self.socket.to_client.clear()
        self.server.reactor.settle()

    def disconnect_after(self, size: int) -> None:
        """Disconnect as soon as `size` bytes were read in total."""
        self._disconnect_after = size
        self._take(0)

    def end(self) -> None:
        """Close the sending side and continue to read (a half-close)."""
        self.socket.client_closed = True
        self.settle()

    def responses(self, methods: Sequence[str] = ()) -> list[Response]:
        """Return the received responses, without interim ones.

        Args:
            methods: the methods of their requests, in order; GET by default. They
                determine whether a body follows (RFC 9112 section 6.3).

        Raises:
            http.client.HTTPException: the received bytes are not a sequence of
                complete responses.
        """
        stream = BytesIO(self.received)
        responses: list[Response] = []
        while stream.tell() < len(self.received):
            if self.received.find(b"\r\n\r\n", stream.tell()) < 0:
                raise IncompleteRead(self.received[stream.tell() :])
            method = methods[len(responses)] if len(responses) < len(methods) else "GET"
            parsed = HTTPResponse(_Unclosable(stream), method=method)  # type: ignore[arg-type]
            parsed.begin()
            body = parsed.read()
            if parsed.status >= 200:
                responses.append(
                    Response(parsed.status, parsed.reason, parsed.getheaders(), body)
                )
        return responses


class _Unclosable:
    """The socket of an `HTTPResponse`, on a stream that holds several responses."""

    def __init__(self, stream: BytesIO) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> Any:
        return self

    def close(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class MemoryServer:
    """A server in memory: an application behind the server's real HTTP/1.1 code.

    Args:
        app: the WSGI application.
        observers: each is called with the record of each finished exchange.
        settings: see `txgreenwsgi.settings`.

    Attributes:
        reactor: its reactor and clock; time passes only in `advance`.
        site: the factory of connections, as behind a real endpoint.
        clients: the clients that have connected.
    """

    def __init__(
        self,
        app: Application,
        observers: Sequence[Callable[[ExchangeRecord], object]] = (),
        **settings: Unpack[SettingsKeywords],
    ) -> None:
        self.reactor = MemoryReactor()
        self.site = GreenSite(
            app, observers=observers, reactor=self.reactor, **settings
        )
        self.clients: list[MemoryClient] = []

    @property
    def hub(self) -> Hub:
        """The hub of this server's tasks."""
        return hub_of(self.reactor)

    @property
    def tasks(self) -> list[Task[Any]]:
        """The tasks that have begun and not ended, the application's own included."""
        return list(self.hub.tasks)

    def connect(self, room: float = float("inf")) -> MemoryClient:
        """Open a connection.

        Args:
            room: number of bytes that the server can send before the client calls
                `read()`; by default the client reads everything at once.
        """
        client = MemoryClient(self, room)
        self.clients.append(client)
        return client

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Response:
        """Send one request on a new connection and return its response.

        Adds a Host field, and Content-Length if there is a body. The connection is
        closed at the end.

        Raises:
            AssertionError: the application waits, so there is no response at this
                moment of the clock. Use `connect` and `advance` for such requests.
        """
        lines = [f"{method} {target} HTTP/1.1", "Host: test"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        client = self.connect()
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        responses = client.responses([method])
        client.disconnect()
        if len(responses) != 1:
            raise AssertionError(
                f"there are {len(responses)} responses to {method} {target}; tasks: "
                f"{[(task, task.waiting_on) for task in self.tasks]}"
            )
        return responses[0]

    def websocket(
        self,
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        room: float = float("inf"),
    ) -> MemoryWebSocket:
        """Open a WebSocket on a new connection. Needs `txgreenwsgi[websocket]`.

        Args:
            target: the request target.
            headers: further fields of the request, such as Origin and Cookie.
            subprotocols: the subprotocols of the client.
            room: as for `connect`.

        Raises:
            AssertionError: the server has not switched to WebSocket.
        """
        fields = [
            ("Host", "test"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGVzdGluZyBpbiBtZW1vcg=="),
        ]
        if subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        lines = [f"GET {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in [*fields, *headers]]
        client = self.connect(room)
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if room != float("inf"):
            client.read()
        return MemoryWebSocket(client)

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`, and let the server do all that is due."""
        self.reactor.advance(seconds)
        self.settle()

    def settle(self) -> None:
        """Let the server and all clients do all that is possible now."""
        self.reactor.settle()
        for client in self.clients:
            client.settle()

    def close(self) -> None:
        """Disconnect all clients."""
        for client in self.clients:
            client.disconnect()
        self.settle()


class MemoryWebSocket:
    """The client's end of a WebSocket, as `MemoryServer.websocket` returns it.

    It answers pings and close frames. The server reacts to each call before the call
    returns.

    Attributes:
        client: the connection.
        response: the server's response to the handshake.
        subprotocol: the subprotocol that the server has chosen; None for none.
        messages: the messages received and not returned by `receive`.
        pings: the payloads of the pings received.
        pongs: the payloads of the pongs received.
        close_code: the code of the server's close frame, 1005 if it has none; None
            before.
        close_reason: the reason in that frame; "" for none.
    """

    def __init__(self, client: MemoryClient) -> None:
        from wsproto.frame_protocol import FrameProtocol

        self.client = client
        head, _, _ = client.received.partition(b"\r\n\r\n")
        parsed = HTTPResponse(_Unclosable(BytesIO(head + b"\r\n\r\n")))  # type: ignore[arg-type]
        parsed.begin()
        self.response = Response(parsed.status, parsed.reason, parsed.getheaders(), b"")
        if parsed.status != 101:
            raise AssertionError(
                f"the server has not switched to WebSocket: {client.received!r:.300}"
            )
        self.subprotocol = self.response.header("Sec-WebSocket-Protocol")
        self.messages: list[str | bytes] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self._protocol = FrameProtocol(client=True, extensions=[])
        self._parsed = len(head) + 4
        # The fragments of a message so far; None between messages.
        self._part: Any = None
        self._closing = False

    def send(self, message: str | bytes) -> None:
        """Send a message: str as text, bytes as binary."""
        self.client.send(bytes(self._protocol.send_data(message, fin=True)))
        self.update()

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping."""
        self.client.send(bytes(self._protocol.ping(payload)))
        self.update()

    def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            AssertionError: there is none at this moment of the clock.
        """
        self.update()
        if not self.messages:
            raise AssertionError(
                "the server has sent no message"
                if self.close_code is None
                else f"the server has closed the WebSocket, code {self.close_code}"
            )
        return self.messages.pop(0)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame, unless one was sent."""
        self.update()
        if not self._closing:
            self._closing = True
            self.client.send(bytes(self._protocol.close(code, reason)))
            self.update()

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self.client.closed

    def update(self) -> None:
        """Parse the bytes that the client has read."""
        data = self.client.received[self._parsed :]
        self._parsed += len(data)
        self._protocol.receive_bytes(data)
        for frame in self._protocol.received_frames():
            name = frame.opcode.name
            payload: Any = frame.payload
            if name == "PING":
                self.pings.append(bytes(payload))
                if not self._closing and not self.closed:
                    self.client.send(bytes(self._protocol.pong(bytes(payload))))
            elif name == "PONG":
                self.pongs.append(bytes(payload))
            elif name == "CLOSE":
                self.close_code, self.close_reason = int(payload[0]), payload[1] or ""
                if not self._closing:
                    self._closing = True
                    self.client.send(bytes(self._protocol.close(self.close_code)))
            else:
                piece = payload if name == "TEXT" else bytes(payload)
                self._part = piece if self._part is None else self._part + piece
                if frame.message_finished:
                    self.messages.append(self._part)
                    self._part = None


class LeakCheckMixin:
    """A mixin for trial's test cases: servers in memory, checked for leaks.

    At the end of a test all clients disconnect. After that a live task, an
    exchange, a connection, a pending delayed call, or a file that the test has
    opened and not closed fails the test.
    """

    def serve(
        self,
        app: Application,
        observers: Sequence[Callable[[ExchangeRecord], object]] = (),
        **settings: Unpack[SettingsKeywords],
    ) -> MemoryServer:
        """Return a `MemoryServer` that is checked for leaks at the end of the test."""
        files = _open_files()
        server = MemoryServer(app, observers, **settings)
        self.addCleanup(self._assert_nothing_left, server, files)  # type: ignore[attr-defined]
        return server

    def _assert_nothing_left(self, server: MemoryServer, files: set[str]) -> None:
        server.close()
        self.assert_nothing_left(server)
        new = _open_files() - files
        if new:
            raise AssertionError(f"these files were left open: {sorted(new)}")

    def assert_nothing_left(self, server: MemoryServer) -> None:
        """Fail if `server` has a task, an exchange, a connection or a delayed call."""
        left: list[object] = [
            (task, f"waits on {task.waiting_on}") for task in server.tasks
        ]
        left += server.site.server.table.exchanges
        left += server.site.server.shutdown.connections
        left += server.reactor.getDelayedCalls()
        if left:
            raise AssertionError(f"these were left behind: {left}")


def _open_files() -> set[str]:
    """Return the open descriptors with their targets, as Linux lists them."""
    files: set[str] = set()
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return files
    for number in numbers:
        # The descriptor of listdir itself is closed already.
        with suppress(OSError):
            files.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
    return files
