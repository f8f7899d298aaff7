"""Servers for the examples to talk to: threads of the test's own process.

They use plain sockets. They must never know the tests.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from unittest import TestCase

LOOPBACK = "127.0.0.1"


class Upstream:
    """A TCP server that calls a function for each connection, in a thread each.

    Args:
        test: its cleanup stops the server.
        serve: called with each connection, which is closed when it returns.
    """

    def __init__(
        self, test: TestCase, serve: Callable[[socket.socket], object]
    ) -> None:
        self._serve = serve
        self._listening = socket.create_server((LOOPBACK, 0))
        self._connections: list[socket.socket] = []
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        test.addCleanup(self._stop)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{LOOPBACK}:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # the test is over
            self._connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._serve(connection)
        except OSError:
            return  # the client has disconnected

    def _stop(self) -> None:
        # close() does not wake a thread in accept().
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5.0)
        for connection in self._connections:
            connection.close()


def http_site(connection: socket.socket) -> None:
    """Answer one HTTP/1.0 request, in the way that its path selects."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(4096)
        if not data:
            return
        received += data
    path = received.split(b" ")[1]
    if path == b"/silent":
        connection.recv(1)  # until the client disconnects
    elif path == b"/slow":
        for part in (b"HTTP/1.0 200 OK\r\nContent-Ty", b"pe: text/html\r\n\r\n", b"ok"):
            time.sleep(0.2)
            connection.sendall(part)
    elif path == b"/long":
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        connection.sendall(bytes(range(256)) * 8192)
    elif path == b"/nonsense":
        connection.sendall(b"what?")
    else:
        connection.sendall(
            b"HTTP/1.0 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno %b" % path
        )


def database(connection: socket.socket) -> None:
    """Answer lines with lines, some of them slowly, in pieces, or not at all."""
    lines = connection.makefile("rb")
    for line in lines:
        query = line.strip()
        if query == b"HANG":
            connection.recv(1)
            return
        if query == b"GO AWAY":
            return
        answer = query.upper() + b"\n"
        for start in range(0, len(answer), 3):
            time.sleep(0.02)
            connection.sendall(answer[start : start + 3])
