"""A connection on a pair of real sockets, without a reactor that waits.

For the tests that a socket in memory cannot serve: sendfile(), and hang-ups on
connections that are not read from. It knows sockets. It must never know HTTP.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.unix import Server

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryServer

__all__ = ["PairClient"]


class PairClient:
    """The client's end of a connection to a server whose reactor is in memory.

    Args:
        server: the server to connect to.
        buffer: the size of the kernel's buffers in bytes; the kernel rounds it.

    Attributes:
        received: all bytes that were read so far.
        ended: whether the server has closed or reset the connection.
    """

    def __init__(self, server: MemoryServer, buffer: int = 0) -> None:
        self.server = server
        self.received = b""
        self.ended = False
        self.socket, theirs = socket.socketpair()
        for each in (self.socket, theirs):
            if buffer:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.socket.setblocking(False)
        channel: Any = server.site.buildProtocol(None)
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

    def close(self) -> None:
        """Close the connection, and let the server react."""
        self.socket.close()
        self.server.settle()
