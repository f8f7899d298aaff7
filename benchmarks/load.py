"""Closed-loop HTTP load with a fixed number of requests.

wrk runs for a fixed time, so a faster server gets more requests. To compare the
CPU time of two servers, each must do the same work: this client sends exactly the
number of requests that it is told to. It knows sockets and response sizes, and
must never know which server answers.
"""

from __future__ import annotations

import re
import select
import socket
from typing import TYPE_CHECKING

from .process import CannotMeasure

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["KeepAliveLoad", "connection_per_request"]

_TIMEOUT_SECONDS = 30
_READ_BYTES = 65536
_OK = b"HTTP/1.1 200 "
_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*\r$", re.I | re.M)


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _response_bytes(port: int, request: bytes) -> int:
    """Return the size of the response to `request`, head included.

    Later responses are recognized by this size alone, which is much faster than
    parsing each of them.

    Raises:
        CannotMeasure: the response is not 200, has no Content-Length or is cut off.
    """
    with _connect(port) as connection:
        connection.sendall(request)
        data = b""
        total = None
        while total is None or len(data) < total:
            received = connection.recv(_READ_BYTES)
            if not received:
                raise CannotMeasure(f"the connection closed after {data!r:.60}")
            data += received
            head, end, _ = data.partition(b"\r\n\r\n")
            if total is None and end:
                length = _LENGTH.search(head + b"\r")
                if not head.startswith(_OK) or length is None:
                    raise CannotMeasure(f"answered {head!r:.60}")
                total = len(head) + len(end) + int(length[1])
    return total


class KeepAliveLoad:
    """Persistent connections that each send the next request after a response.

    A context manager: the connections are opened on entry and closed on exit, so
    that `run` causes requests and nothing else.

    Args:
        port: of the server on 127.0.0.1.
        request: builds request number N; all responses must have the same size.
        connections: number of connections.
    """

    def __init__(
        self, port: int, request: Callable[[int], bytes], connections: int
    ) -> None:
        self._port = port
        self._request = request
        self._connections = connections
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._response_bytes = 0
        self._sent = 0

    def __enter__(self) -> KeepAliveLoad:
        """Open all connections."""
        self._response_bytes = _response_bytes(self._port, self._request(0))
        for _ in range(self._connections):
            connection = _connect(self._port)
            self._sockets[connection.fileno()] = connection
            self._epoll.register(connection, select.EPOLLIN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        self._epoll.close()
        for connection in self._sockets.values():
            connection.close()

    def run(self, count: int) -> None:
        """Send `count` requests over all connections and read their responses.

        Raises:
            CannotMeasure: a response is missing, too long or not 200.
        """
        missing = dict.fromkeys(self._sockets, 0)
        unsent = count
        for fd in list(missing)[:count]:
            self._send(fd)
            missing[fd] = self._response_bytes
            unsent -= 1
        unanswered = count
        while unanswered:
            ready = self._epoll.poll(_TIMEOUT_SECONDS)
            if not ready:
                raise CannotMeasure(f"{unanswered} responses did not come")
            for fd, _ in ready:
                data = self._sockets[fd].recv(_READ_BYTES)
                left = missing[fd]
                if left == self._response_bytes and not data.startswith(_OK):
                    raise CannotMeasure(f"answered {data!r:.60}")
                left -= len(data)
                missing[fd] = left
                if left > 0 and data:
                    continue
                if left:
                    raise CannotMeasure(
                        f"a response of {self._response_bytes - left} bytes, where "
                        f"the first had {self._response_bytes}"
                    )
                unanswered -= 1
                if unsent:
                    unsent -= 1
                    self._send(fd)
                    missing[fd] = self._response_bytes

    def _send(self, fd: int) -> None:
        self._sent += 1
        request = self._request(self._sent)
        if self._sockets[fd].send(request) != len(request):
            raise CannotMeasure("a request does not fit into the socket's buffer")


def connection_per_request(
    port: int, request: Callable[[int], bytes], count: int, at_once: int
) -> None:
    """Send `count` requests, each on its own connection.

    Args:
        port: of the server on 127.0.0.1.
        request: builds request number N, which must ask for `Connection: close`.
        count: number of requests.
        at_once: number of connections that are open at the same time.

    Raises:
        CannotMeasure: a response is missing, of another size or not 200.
    """
    size = _response_bytes(port, request(0))
    open_: dict[int, tuple[socket.socket, list[bytes]]] = {}
    unsent = unanswered = count
    with select.epoll() as epoll:
        try:
            while unanswered:
                while unsent and len(open_) < at_once:
                    connection = _connect(port)
                    open_[connection.fileno()] = connection, []
                    epoll.register(connection, select.EPOLLIN)
                    connection.send(request(unsent))
                    unsent -= 1
                ready = epoll.poll(_TIMEOUT_SECONDS)
                if not ready:
                    raise CannotMeasure(f"{unanswered} responses did not come")
                for fd, _ in ready:
                    connection, received = open_[fd]
                    if data := connection.recv(_READ_BYTES):
                        received.append(data)
                        continue
                    response = b"".join(received)
                    if len(response) != size or not response.startswith(_OK):
                        raise CannotMeasure(f"answered {response!r:.60}")
                    connection.close()  # this removes it from the epoll object too
                    del open_[fd]
                    unanswered -= 1
        finally:
            for connection, _ in open_.values():
                connection.close()
