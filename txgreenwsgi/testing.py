"""Call an application in memory, through the real channel, on a Clock.

No sockets, no processes, no time: what the server does with a request is what
it does in production, down to Twisted's own TCP connection class, of which only
the socket is replaced. A test feeds bytes as it likes, lets hours pass, reads
slowly, hangs up in the middle, and then asserts that nothing is left.

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
from http.client import HTTPResponse
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

    from ._wsgi.gateway import Application
    from .monitoring.records import ExchangeRecord

__all__ = [
    "LeakCheckMixin",
    "MemoryClient",
    "MemoryReactor",
    "MemoryServer",
    "Response",
]

#: So many turns without an end mean that a task never lets the reactor rest.
_MOST_TURNS = 1000


class _MemorySocket:
    """The server's end of a connection: what `socket.socket` does, in memory.

    Attributes:
        to_server: what the client sent and the server has not received.
        to_client: what the server sent and the client has not read.
        room: how many bytes `to_client` holds before a send would block.
        sent: how many bytes the server has sent in all.
    """

    def __init__(self, room: float) -> None:
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.room = room
        self.sent = 0
        self.client_closed = False  # the client sends no more
        self.client_gone = False  # sending to it fails
        self.server_closed = False  # the server sends no more
        self.server_reset = False

    def readable(self) -> bool:
        return bool(self.to_server) or self.client_closed or self.client_gone

    def writable(self) -> bool:
        return len(self.to_client) < self.room or self.client_gone

    def setblocking(self, blocking: bool) -> None:
        pass

    def fileno(self) -> int:
        return -1  # no file: nothing of it can be watched or sent by the kernel

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

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if option == socket.SO_LINGER:
            self.server_reset = True

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def shutdown(self, how: int) -> None:
        self.server_closed = True

    def close(self) -> None:
        self.server_closed = True


class _MemoryConnection(TCPConnection):
    """Twisted's TCP connection, on a socket in memory."""

    def __init__(self, skt: _MemorySocket, protocol: Any, reactor: Any) -> None:
        super().__init__(skt, protocol, reactor)  # type: ignore[arg-type]
        self.ends_at = skt
        self.logstr = "memory"

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 4321)


@implementer(IReactorFDSet)
class MemoryReactor(Clock):
    """A Clock that also turns the connections in memory.

    It watches real descriptors too, a pipe of the test's own for instance, but
    never waits for one: it looks at them when it turns.
    """

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[Any] = []
        self._writers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """Watch a connection for bytes from the client; or a descriptor."""
        if reader not in self._readers:
            self._readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Stop that."""
        if reader in self._readers:
            self._readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        """Watch a connection for room towards the client; or a descriptor."""
        if writer not in self._writers:
            self._writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        """Stop that."""
        if writer in self._writers:
            self._writers.remove(writer)

    def getReaders(self) -> list[Any]:
        """What is watched to be read from."""
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        """What is watched to be written to."""
        return list(self._writers)

    def removeAll(self) -> list[Any]:
        """Stop watching everything."""
        watched = list({*self._readers, *self._writers})
        self._readers.clear()
        self._writers.clear()
        return watched

    def settle(self) -> None:
        """Turn until nothing is left to do at this moment of the clock."""
        for _ in range(_MOST_TURNS):
            if not self.turn():
                return

    def advance(self, amount: float) -> None:
        """Let time pass, and make the calls that are due then.

        As in a real reactor's turn, what those calls put off to "now" is due in
        the next turn: `sleep(0)` is a whole turn here too.
        """
        self.rightNow += amount
        for call in sorted(self.calls, key=lambda call: call.getTime()):
            if call.active() and call.getTime() <= self.rightNow:
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

    def turn(self) -> bool:
        """One turn; whether anything was done in it."""
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

    def _lost(self, connection: Any, why: Any, reading: bool) -> None:
        # What a reactor does with the answer of doRead and doWrite.
        if why is None:
            return
        self.removeReader(connection)
        if reading and isinstance(why, ConnectionDone):
            connection.readConnectionLost(Failure(why))
        else:
            self.removeWriter(connection)
            connection.connectionLost(Failure(why))


def _is_readable(reader: Any) -> bool:
    if isinstance(reader, _MemoryConnection):
        return reader.ends_at.readable()
    return bool(select.select([reader], [], [], 0)[0])


def _is_writable(writer: Any) -> bool:
    if isinstance(writer, _MemoryConnection):
        return writer.ends_at.writable()
    return bool(select.select([], [writer], [], 0)[1])


@dataclass(frozen=True)
class Response:
    """A response as a client understands it.

    Attributes:
        status: the code.
        reason: what stands behind it.
        headers: (name, value) pairs in order.
        body: the content, chunked coding taken off.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a field, several joined by ", "; None without it."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


class MemoryClient:
    """The client's end of one connection; made by `MemoryServer.connect`.

    Whatever is done here, the server reacts to before the call returns.

    Attributes:
        received: all that the client has read so far.
    """

    def __init__(self, server: MemoryServer, room: float) -> None:
        self._server = server
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
        """Whether the server has closed its side."""
        return self.socket.server_closed

    @property
    def reset(self) -> bool:
        """Whether the server has cut the connection instead of closing it."""
        return self.socket.server_reset

    def send(self, data: bytes, piece: int = 0) -> None:
        """Send bytes to the server, `piece` at a time if that is not 0."""
        step = piece or max(1, len(data))
        for start in range(0, len(data), step):
            self.socket.to_server += data[start : start + step]
            self.settle()

    def settle(self) -> None:
        """Let the server do what it can do now; read what it sends."""
        for _ in range(_MOST_TURNS):
            worked = self._server.reactor.turn()
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
        """Read at most `size` bytes, all there is by default; for slow readers."""
        before = len(self.received)
        self._take(len(self.socket.to_client) if size is None else size)
        self.settle()
        return self.received[before:]

    def disconnect(self) -> None:
        """Go away: what the server sends from now on is refused."""
        self._disconnect_after = float("inf")
        self.socket.client_gone = True
        self.socket.to_server.clear()
        self.socket.to_client.clear()
        self._server.reactor.settle()

    def disconnect_after(self, size: int) -> None:
        """Go away once `size` bytes were read."""
        self._disconnect_after = size
        self._take(0)

    def end(self) -> None:
        """Send no more, but go on reading (a half-close)."""
        self.socket.client_closed = True
        self.settle()

    def responses(self, methods: Sequence[str] = ()) -> list[Response]:
        """The responses in what was received, interim ones left out.

        Args:
            methods: of the requests they answer, in order; GET by default. They
                decide whether a body follows (RFC 9112 section 6.3).

        Raises:
            http.client.HTTPException: it is no sequence of whole responses.
        """
        stream = BytesIO(self.received)
        responses: list[Response] = []
        while stream.tell() < len(self.received):
            method = methods[len(responses)] if len(responses) < len(methods) else "GET"
            parsed = HTTPResponse(_Unclosable(stream), method=method)  # type: ignore[arg-type]
            parsed.begin()
            body = parsed.read()
            responses.append(
                Response(parsed.status, parsed.reason, parsed.getheaders(), body)
            )
        return responses


class _Unclosable:
    """What HTTPResponse takes for a socket; one stream holds many responses."""

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
    """An application behind the real channel, in memory.

    Args:
        app: the WSGI application.
        observers: each is called with the record of each finished exchange.
        settings: see `txgreenwsgi.settings`.

    Attributes:
        reactor: its clock; time passes by `advance` alone.
        site: the factory, as it is behind a real endpoint.
    """

    def __init__(
        self,
        app: Application,
        observers: Sequence[Callable[[ExchangeRecord], object]] = (),
        **settings: Any,
    ) -> None:
        self.reactor = MemoryReactor()
        self.site = GreenSite(
            app, observers=observers, reactor=self.reactor, **settings
        )
        self._clients: list[MemoryClient] = []

    @property
    def hub(self) -> Hub:
        """The tasks of this server."""
        return hub_of(self.reactor)

    @property
    def tasks(self) -> list[Task[Any]]:
        """The tasks that have begun and not ended."""
        return list(self.hub.tasks)

    def connect(self, room: float = float("inf")) -> MemoryClient:
        """A new connection.

        Args:
            room: how many bytes the server may send before the client must
                `read()`; without it the client reads all by itself.
        """
        client = MemoryClient(self, room)
        self._clients.append(client)
        return client

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Response:
        """The response to one request on a connection of its own.

        A Host field is added, and a Content-Length where there is a body. The
        connection is closed at the end.

        Raises:
            AssertionError: there is no response at this moment of the clock: the
                application waits. Use `connect` and `advance` for such.
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

    def advance(self, seconds: float) -> None:
        """Let time pass, and let the server do what is due."""
        self.reactor.advance(seconds)
        self.settle()

    def settle(self) -> None:
        """Let the server and all its clients do what they can do now."""
        self.reactor.settle()
        for client in self._clients:
            client.settle()

    def close(self) -> None:
        """Every client goes away."""
        for client in self._clients:
            client.disconnect()
        self.settle()


class LeakCheckMixin:
    """For trial's test cases: servers in memory that must leave nothing behind.

    When the test has ended, every client of its servers goes away, and then no
    task may be alive, no delayed call pending, no file open that was not before.
    """

    def serve(
        self,
        app: Application,
        observers: Sequence[Callable[[ExchangeRecord], object]] = (),
        **settings: Any,
    ) -> MemoryServer:
        """A `MemoryServer` whose leftovers fail the test."""
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
        """Fail if `server` has a live task, an exchange or a pending call."""
        left: list[object] = [
            (task, f"waits on {task.waiting_on}") for task in server.tasks
        ]
        left += server.site.server.table.exchanges
        left += server.site.server.shutdown.connections
        left += server.reactor.getDelayedCalls()
        if left:
            raise AssertionError(f"these were left behind: {left}")


def _open_files() -> set[str]:
    """What the descriptors of this process refer to, where the system tells."""
    files: set[str] = set()
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return files
    for number in numbers:
        # The descriptor that listdir used itself is closed by now.
        with suppress(OSError):
            files.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
    return files
