"""A test case with an application server and streams in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.server.wire import WireTestCase
from txgreenwsgi._serving.application_server import ApplicationServer
from txgreenwsgi.settings import Settings
from txgreenwsgi.testing import MemoryReactor

from .memory_stream import MemoryStream

if TYPE_CHECKING:
    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["STEP", "ServingTestCase"]

#: Seconds that applications sleep.
STEP = 10.0

#: No application sleeps more often.
_MOST_STEPS = 5


class ServingTestCase(WireTestCase):
    """A case with servers whose exchanges leave nothing behind.

    Attributes:
        servers: those of `server_of`.
    """

    def setUp(self) -> None:
        """Begin without servers."""
        super().setUp()
        self.servers: list[ApplicationServer] = []

    def server_of(self, application: Application, **settings: Any) -> ApplicationServer:
        """Return a server on a reactor in memory; records go to `self.records`."""
        reactor = MemoryReactor()
        server = ApplicationServer(
            application,
            Settings.from_keywords(**settings),
            [self.records.append],
            reactor,
        )
        server.bind()
        self.servers.append(server)
        self.addCleanup(self._end, server, reactor)
        return server

    def _end(self, server: ApplicationServer, reactor: MemoryReactor) -> None:
        for _ in range(_MOST_STEPS):
            reactor.advance(STEP)
            reactor.settle()
        self.assertEqual(server.table.exchanges, set())
        self.assertEqual(server.admission.running, 0)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def step(self, server: ApplicationServer) -> None:
        """Let `STEP` seconds pass."""
        reactor = server.reactor
        assert isinstance(reactor, MemoryReactor)
        reactor.advance(STEP)
        reactor.settle()

    def settle(self, server: ApplicationServer) -> None:
        """Let the server do all that is possible now."""
        reactor = server.reactor
        assert isinstance(reactor, MemoryReactor)
        reactor.settle()

    def served(
        self, server: ApplicationServer, head: RequestHead | None = None
    ) -> MemoryStream:
        """Return the stream of a new request that was admitted."""
        stream = MemoryStream(server, head)
        stream.exchange.admit()
        return stream
