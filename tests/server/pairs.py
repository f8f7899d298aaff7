"""A connection on a pair of real sockets, without a reactor that waits.

For the tests that a socket in memory cannot serve: sendfile(), hang-ups on
connections that are not read from, and what the kernel buffers. It knows sockets. It
must never know HTTP.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.tcp import Server as TCPServer
from twisted.internet.unix import Server

from txgreenwsgi._server.output import unaccepted_bytes

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryServer

__all__ = ["PairClient", "SlowTCPClient"]

#: Receive buffer of a slow client, in bytes; the kernel doubles it.
_RECEIVE_BUFFER = 8192

#: Maximum time for bytes to pass the loopback interface, in seconds.
_ARRIVAL_SECONDS = 30


class PairClient:
    """The client's end of a connection to a server whose reactor is in memory.

    Args:
        server: the server to connect to, or only the one whose reactor is used.
        buffer: the size of the kernel's buffers in bytes; the kernel rounds it.
        factory: the factory of the server's protocols; by default the server's site.

    Attributes:
        received: all bytes that were read so far.
        ended: whether the server has closed or reset the connection.
        transport: the server's end of the connection.
    """

    def __init__(
        self, server: MemoryServer, buffer: int = 0, factory: Any = None
    ) -> None:
        self.server = server
        self.received = b""
        self.ended = False
        self.socket, theirs = socket.socketpair()
        for each in (self.socket, theirs):
            if buffer:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.socket.setblocking(False)
        channel: Any = (factory or server.site).buildProtocol(None)
        self.channel = channel
        reactor: Any = server.reactor
        self.transport: Any = Server(theirs, channel, "a client", None, 1, reactor)
        channel.makeConnection(self.transport)

    def send(self, data: bytes) -> int:
        """Send the bytes that the kernel accepts, and let the server react."""
        sent = 0
        with suppress(BlockingIOError):
            sent = self.socket.send(data)
        self.server.settle()
        return sent

    def read(self, size: int = 65536) -> bytes:
        """Read the available bytes, and let the server react."""
        data = b""
        try:
            data = self.socket.recv(size)
            self.ended = not data
        except BlockingIOError:
            pass
        except ConnectionError:
            self.ended = True
        self.received += data
        self.server.settle()
        return data

    def read_all(self) -> bytes:
        """Read until no more bytes arrive."""
        while self.read() or (self.readable() and not self.ended):
            pass
        return self.received

    def readable(self) -> bool:
        """Return whether a read would return bytes or the end."""
        return bool(select.select([self.socket], [], [], 0)[0])

    @property
    def server_may_send(self) -> bool:
        """Whether the kernel reports the server's socket as writable."""
        return bool(select.select([], [self.transport], [], 0)[1])

    def wait_readable(self) -> None:
        """Wait until bytes, or the end, have arrived."""
        if not select.select([self.socket], [], [], _ARRIVAL_SECONDS)[0]:
            raise AssertionError("nothing arrives from the server")

    def read_part(self, size: int) -> None:
        """Read `size` bytes, as soon as they arrive; the server reacts at the end."""
        left = size
        while left and not self.ended:
            self.wait_readable()
            data = self.socket.recv(left)
            self.ended = not data
            self.received += data
            left -= len(data)
        self.server.settle()

    def read_rest(self) -> bytes:
        """Read to the end of the connection, also if it is reset."""
        while not self.ended:
            self.server.settle()
            self.wait_readable()
            self.read()
        return self.received

    def close(self) -> None:
        """Close the connection, and let the server react."""
        self.socket.close()
        self.server.settle()


class SlowTCPClient(PairClient):
    """The client's end of a TCP connection with a small receive buffer.

    Args:
        server: the server to connect to.
        buffer: the size of the server's send buffer in bytes; the kernel doubles it.
    """

    def __init__(self, server: MemoryServer, buffer: int) -> None:
        self.server = server
        self.received = b""
        self.ended = False
        self.socket = socket.socket()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self.socket.connect(listener.getsockname())
            theirs, address = listener.accept()
        theirs.setblocking(False)
        self.socket.setblocking(False)
        self.channel = server.site.buildProtocol(None)
        port: Any = None
        reactor: Any = server.reactor
        self.transport = TCPServer(theirs, self.channel, address, port, 1, reactor)
        self.channel.makeConnection(self.transport)
        server.settle()

    def accept_part(self, size: int) -> None:
        """Read `size` bytes, and wait until the server knows that some were accepted.

        The kernel acknowledges them up to 40 ms later.
        """
        before = unaccepted_bytes(self.transport)
        self.read_part(size)
        end = monotonic() + _ARRIVAL_SECONDS
        while unaccepted_bytes(self.transport) == before:
            if monotonic() > end:
                raise AssertionError("the client's kernel acknowledges nothing")
