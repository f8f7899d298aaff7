"""Tests of `Shutdown`, with connections that are fakes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel

from txgreenwsgi import Cancelled, shield, sleep

from .cases import ServingTestCase
from .memory_stream import MemoryStream, request_head

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from twisted.internet.defer import Deferred

    from txgreenwsgi._serving.application_server import ApplicationServer

#: The grace period of the tests.
GRACE = 30.0
#: The time that cancelled requests have to clean up.
CLEANUP = 1.0


class FakeConnection:
    """A connection that records its calls.

    Args:
        server: the server that it belongs to.
        closes_at: the calls at which it closes.

    Attributes:
        calls: the names of the calls, in order.
    """

    def __init__(self, server: ApplicationServer, *closes_at: str) -> None:
        self.calls: list[str] = []
        self._closes_at = closes_at
        self._server = server
        server.connection_made(self)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self._closes_at:
            self.close()

    def close(self) -> None:
        """Close gracefully."""
        self._server.connection_lost(self)

    def stop(self) -> None:
        """Record the call."""
        self._called("stop")

    def end_of_grace(self) -> None:
        """Record the call."""
        self._called("end_of_grace")

    def abort(self) -> None:
        """Record the call, and close."""
        self.calls.append("abort")
        self.close()

    def check(self, now: float) -> None:
        """No-op: the connection has no deadlines."""

    def postpone(self, seconds: float, now: float) -> None:
        """No-op: the connection has no deadlines."""


def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Sleep forever, in the way that the path names."""
    path = environ["PATH_INFO"]
    if path == "/shielded":
        with shield():
            sleep(1000)
    while path == "/stubborn":
        with contextlib.suppress(Cancelled):
            sleep(1000)
    sleep(1000)
    start_response("200 OK", [])
    return []


class ShutdownTests(ServingTestCase):
    """`Shutdown`."""

    def setUp(self) -> None:
        """Create a server."""
        super().setUp()
        self.server = self.server_of(application)
        self.reactor: Any = self.server.reactor

    def stop(self, grace_seconds: float = GRACE) -> Deferred[None]:
        """Begin the shutdown."""
        return self.server.stop(grace_seconds)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.advance(seconds)
        self.reactor.settle()

    def test_nothing_to_wait_for(self) -> None:
        """Without connections and requests, the shutdown is complete at once."""
        self.successResultOf(self.stop())
        self.assertTrue(self.server.shutdown.stopping)

    def test_idle_connection(self) -> None:
        """An idle connection closes at the stop, and no call stays scheduled."""
        connection = FakeConnection(self.server, "stop")
        self.successResultOf(self.stop())
        self.assertEqual(connection.calls, ["stop"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_last_connection(self) -> None:
        """The shutdown is complete when the last connection has closed."""
        connections = [FakeConnection(self.server) for _ in range(2)]
        done = self.stop()
        connections[0].close()
        self.assertNoResult(done)
        connections[1].close()
        self.successResultOf(done)
        self.assertEqual([c.calls for c in connections], [["stop"], ["stop"]])

    def test_last_request(self) -> None:
        """The shutdown waits for a request whose connection is lost."""
        stream = MemoryStream(self.server)
        done = self.stop()
        self.assertNoResult(done)
        stream.leave()
        self.successResultOf(done)

    def test_end_of_grace(self) -> None:
        """After the grace period, connections close and requests are cancelled."""
        idle = FakeConnection(self.server, "end_of_grace")
        stream = self.served(self.server)
        done = self.stop()
        self.pass_time(GRACE - 0.5)
        self.assertEqual(idle.calls, ["stop"])
        self.assertEqual(stream.exchange.state, "running")
        self.pass_time(0.5)
        self.assertEqual(idle.calls, ["stop", "end_of_grace"])
        self.assertEqual(stream.exchange.state, "ended")
        self.successResultOf(done)
        self.assert_logged("shutdown: grace period over, cancelling GET /")

    def test_connection_that_does_not_close(self) -> None:
        """A connection that does not close is aborted after the cleanup."""
        connection = FakeConnection(self.server)
        done = self.stop()
        self.pass_time(GRACE)
        self.assertNoResult(done)
        self.pass_time(CLEANUP)
        self.assertEqual(connection.calls, ["stop", "end_of_grace", "abort"])
        self.successResultOf(done)

    def test_shielded_request(self) -> None:
        """A shielded request is killed after the cleanup."""
        stream = self.served(self.server, request_head("GET", "/shielded"))
        done = self.stop()
        self.pass_time(GRACE)
        self.assertNoResult(done)
        self.pass_time(CLEANUP)
        self.successResultOf(done)
        self.assertEqual(stream.exchange.state, "ended")
        self.assert_logged(
            "did not end after its cancellation, killing it; waiting on sleep(1000)",
            level=LogLevel.warn,
        )

    def test_request_that_ignores_its_cancellation(self) -> None:
        """A request that continues after its cancellation is killed."""
        stream = self.served(self.server, request_head("GET", "/stubborn"))
        done = self.stop()
        self.pass_time(GRACE)
        self.assertNoResult(done)
        self.pass_time(CLEANUP)
        self.successResultOf(done)
        self.assertEqual(stream.exchange.state, "ended")
        self.assertEqual(self.server.table.exchanges, set())

    def test_end_grace_now(self) -> None:
        """The grace period can be ended; it is a no-op without a shutdown."""
        shutdown = self.server.shutdown
        shutdown.end_grace_now()
        connection = FakeConnection(self.server, "end_of_grace")
        done = self.stop()
        shutdown.end_grace_now()
        self.pass_time(0)
        self.assertEqual(connection.calls, ["stop", "end_of_grace"])
        self.successResultOf(done)
        shutdown.end_grace_now()

    def test_begun_twice(self) -> None:
        """A second stop shares the grace period of the first; both complete."""
        connection = FakeConnection(self.server)
        first = self.stop()
        second = self.stop(2 * GRACE)
        self.pass_time(GRACE)
        self.assertEqual(connection.calls, ["stop", "stop", "end_of_grace"])
        connection.close()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_on_stop(self) -> None:
        """Functions of `on_stop` may add connections, which are also stopped."""
        connections: list[FakeConnection] = []
        self.server.shutdown.on_stop.append(
            lambda: connections.append(FakeConnection(self.server, "stop"))
        )
        self.successResultOf(self.stop())
        self.assertEqual([c.calls for c in connections], [["stop"]])

    def test_resume(self) -> None:
        """After `resume`, connections persist again and can be stopped again."""
        self.successResultOf(self.stop())
        self.assertFalse(self.server.keeps_alive)
        self.server.resume()
        self.assertTrue(self.server.keeps_alive)
        self.assertFalse(self.server.shutdown.stopping)
        FakeConnection(self.server, "stop")
        self.successResultOf(self.stop())
