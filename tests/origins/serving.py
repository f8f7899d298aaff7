"""A test case that serves applications in memory and checks for leftovers."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.origins import pauses
from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi.testing import MemoryClient, MemoryServer

    Environ = dict[str, Any]
    StartResponse = Callable[..., Any]
    Application = Callable[[Environ, StartResponse], Iterable[Any]]

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
TEXT = [("Content-Type", "text/plain")]


class ServedTestCase(LeakCheckMixin, SynchronousTestCase):
    """Helpers that serve applications in memory; nothing may be left after a test."""

    def serve(self, app: Any, *args: Any, **settings: Any) -> MemoryServer:
        """Return a server; leftovers, readers and writers included, fail the test."""
        server = super().serve(app, *args, **settings)
        self.addCleanup(self._assert_nothing_watched, server)
        return server

    def _assert_nothing_watched(self, server: MemoryServer) -> None:
        server.close()
        watched = server.reactor.getReaders() + server.reactor.getWriters()
        self.assertEqual(watched, [])
        self.assertEqual(pauses.pauses_by_task, {})

    def get(self, server: MemoryServer) -> MemoryClient:
        """Return a client that has requested /."""
        client = server.connect()
        client.send(GET)
        return client

    def body(self, client: MemoryClient) -> str:
        """Return the body of the single response that the client has received."""
        (response,) = client.responses()
        return response.body.decode()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return two connected sockets, closed after the test."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            self.addCleanup(end.close)
        return ours, theirs

    def pipe(self) -> tuple[int, int]:
        """Return the descriptors of a pipe's read and write end, closed at the end."""
        ends = os.pipe()
        for fd in ends:
            self.addCleanup(self._close, fd)
        return ends

    @staticmethod
    def _close(fd: int) -> None:
        try:
            os.close(fd)
        except OSError:
            return  # the test has closed it

    def fill(self, sock: socket.socket) -> None:
        """Send to a socket until it would block."""
        try:
            while True:
                sock.send(bytes(65536))
        except BlockingIOError:
            return


def copies_environ(app: Application) -> Application:
    """Return middleware that passes on a copy of environ."""

    def copying(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        yield from app({**environ}, start_response)

    return copying
