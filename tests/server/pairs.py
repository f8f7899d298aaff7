"""A connection on a pair of real sockets, without a reactor that waits.

What a socket in memory cannot do is tested on this: sendfile(), and
hang-ups that nobody reads. It knows sockets. It must never know HTTP.
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
        server: whose site is connected to.
        buffer: the size of the kernel's buffers; the kernel rounds it.

    Attributes:
        received: all that was read so far.
        ended: whether the server has closed, or reset, the connection.
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
        """Send what the kernel takes, and let the server react."""
        sent = 0
        with suppress(BlockingIOError):
            sent = self.socket.send(data)
        self.server.settle()
        return sent

    def read(self, size: int = 65536) -> bytes:
        """Read what is there, and let the server react."""
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
        """Read as long as anything comes."""
        while self.read() or (self.readable() and not self.ended):
            pass
        return self.received

    def readable(self) -> bool:
        """Whether a read would give something, or the end."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def close(self) -> None:
        """Hang up, and let the server react."""
        self.socket.close()
        self.server.settle()
