"""Upper limits: servers that answer canned bytes without parsing the request.

`epoll` is the limit of CPython, `twisted` the limit of a Twisted protocol that uses
`transport.write`. Neither parses a request, calls an application or keeps a
timeout, so no WSGI server can reach them.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, cast

from .apps import HELLO

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorCore, ITCPTransport

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
    """Serve forever in an epoll loop. Each read counts as one request."""
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
                pass  # closed below, as after a normal end
            del connections[fd]
            connection.close()


def serve_by_twisted(port: int, certificate: str | None, key: str | None) -> None:
    """Serve forever from a protocol on the default reactor."""
    from twisted.internet import reactor as installed
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.protocol import Protocol, ServerFactory

    class Canned(Protocol):
        def connectionMade(self) -> None:  # noqa: N802 (Twisted calls it)
            cast("ITCPTransport", self.transport).setTcpNoDelay(True)

        def dataReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted calls it)
            transport = cast("ITCPTransport", self.transport)
            if _CLOSE not in data:
                transport.write(_RESPONSE)
            else:
                transport.write(_LAST_RESPONSE)
                transport.loseConnection()

    class Factory(ServerFactory):
        noisy = False

        def buildProtocol(self, addr: IAddress | None) -> Canned:  # noqa: N802 (Twisted's)
            return Canned()

    reactor = cast("IReactorCore", installed)
    where = f"{port}:interface=127.0.0.1:backlog={_BACKLOG}"
    if certificate is None:
        where = f"tcp:{where}"
    else:
        where = f"ssl:{where}:privateKey={key}:certKey={certificate}"
    serverFromString(reactor, where).listen(Factory())
    reactor.run()
