"""The limits: servers that read no request, and answer the same bytes to each.

`epoll` is what CPython can do at all, `twisted` what a protocol of Twisted's can
do by `transport.write`. Neither parses, calls an application or sees to a
timeout, so nothing that serves WSGI can be expected to reach them.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any

from .apps import HELLO

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

_CLOSE = b"Connection: close\r\n"
_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"Server: canned\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" % len(HELLO)
)
_RESPONSE = _HEAD + b"\r\n" + HELLO
_LAST_RESPONSE = _HEAD + _CLOSE + b"\r\n" + HELLO
_BACKLOG = 1024


def serve_by_epoll(port: int) -> None:
    """Answer for ever, in a loop of our own. One read is one request."""
    listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setblocking(False)
                connections[connection.fileno()] = connection
                epoll.register(connection, select.EPOLLIN)
                continue
            connection = connections[fd]
            try:
                request = connection.recv(65536)
                if request:
                    if _CLOSE not in request:
                        connection.send(_RESPONSE)
                        continue
                    connection.send(_LAST_RESPONSE)
            except ConnectionError:
                pass  # it is closed below, like one that ended well
            del connections[fd]
            connection.close()


def serve_by_twisted(port: int, certificate: str | None, key: str | None) -> None:
    """Answer for ever, from a protocol on the default reactor."""
    from twisted.internet import reactor as installed
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.protocol import Protocol, ServerFactory

    class Canned(Protocol):
        def connectionMade(self) -> None:  # noqa: N802 (Twisted calls it)
            transport: Any = self.transport
            transport.setTcpNoDelay(True)

        def dataReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted calls it)
            transport: Any = self.transport
            if _CLOSE not in data:
                transport.write(_RESPONSE)
            else:
                transport.write(_LAST_RESPONSE)
                transport.loseConnection()

    class Factory(ServerFactory):
        noisy = False

        def buildProtocol(self, addr: IAddress | None) -> Canned:  # noqa: N802 (Twisted's)
            return Canned()

    reactor: Any = installed
    where = f"{port}:interface=127.0.0.1:backlog={_BACKLOG}"
    if certificate is None:
        where = f"tcp:{where}"
    else:
        where = f"ssl:{where}:privateKey={key}:certKey={certificate}"
    serverFromString(reactor, where).listen(Factory())
    reactor.run()
