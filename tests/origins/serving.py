"""A test case that serves applications in memory and looks for leftovers.

It knows the public test tools; it must never look into the server.
"""

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
    """Serves applications in memory; nothing may be left when a test has ended."""

    def serve(self, app: Any, *args: Any, **settings: Any) -> MemoryServer:
        """A server whose leftovers, readers and writers too, fail the test."""
        server = super().serve(app, *args, **settings)
        self.addCleanup(self._assert_nothing_watched, server)
        return server

    def _assert_nothing_watched(self, server: MemoryServer) -> None:
        server.close()
        watched = server.reactor.getReaders() + server.reactor.getWriters()
        self.assertEqual(watched, [])
        self.assertEqual(pauses.pauses_by_task, {})

    def get(self, server: MemoryServer) -> MemoryClient:
        """A client that has asked for /, and waits for what comes."""
        client = server.connect()
        client.send(GET)
        return client

    def body(self, client: MemoryClient) -> str:
        """The body of the one response that the client has by now."""
        (response,) = client.responses()
        return response.body.decode()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two sockets, connected with each other, closed when the test ends."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            self.addCleanup(end.close)
        return ours, theirs

    def pipe(self) -> tuple[int, int]:
        """The descriptors of a pipe's read and write end, closed at the end."""
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
        """Send to a socket until it takes no more."""
        try:
            while True:
                sock.send(bytes(65536))
        except BlockingIOError:
            return


def copies_environ(app: Application) -> Application:
    """Middleware that gives its application an environ of its own."""

    def copying(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        yield from app({**environ}, start_response)

    return copying
