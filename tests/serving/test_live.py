"""Snapshots, stacks and cancellations of requests in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi import Cancelled, sleep
from txgreenwsgi._serving.live import LAG_SECONDS
from txgreenwsgi.monitoring.failures import failures
from txgreenwsgi.monitoring.requests import MOST_REQUESTS, WATCH_SECONDS

from .cases import STEP, ServingTestCase
from .memory_stream import MemoryStream, request_head

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi._serving.application_server import ApplicationServer


def sleeping(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Sleep and return an empty response."""
    sleep(STEP)
    start_response("200 OK", [])
    return []


def at_once(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Return a response."""
    start_response("500 Internal Server Error", [])
    return [b"x"]


class LiveTests(ServingTestCase):
    """`LiveRequests`."""

    def advance(self, server: ApplicationServer, seconds: float) -> None:
        """Move the clock, in steps of the lag measurement."""
        for _ in range(round(seconds / LAG_SECONDS)):
            server.reactor.advance(LAG_SECONDS)  # type: ignore[attr-defined]

    def test_snapshot(self) -> None:
        """A snapshot has the requests in flight and the counters."""
        server = self.server_of(sleeping, max_in_flight=1)
        first = self.served(server, request_head("GET", "/a"))
        second = self.served(server, request_head("GET", "/b"))
        found = server.live.snapshot()
        self.assertEqual(found.in_flight, 2)
        self.assertEqual(found.queued, 1)
        self.assertEqual(found.served, 0)
        self.assertEqual(
            [row.request_id for row in found.requests],
            [first.exchange.request_id, second.exchange.request_id],
        )
        self.assertEqual(list(found.requests), server.live())

    def test_routes(self) -> None:
        """Routes are collected from the first snapshot on."""
        server = self.server_of(at_once)
        self.served(server, request_head("GET", "/a/1"))
        self.assertEqual(server.live.snapshot().routes, ())
        self.served(server, request_head("GET", "/a/2"))
        self.served(server, request_head("GET", "/a/3"))
        (route,) = server.live.snapshot().routes
        self.assertEqual((route.pattern, route.requests), ("/a/*", 2))
        self.assertEqual(route.failures, 2)

    def test_disconnected(self) -> None:
        """A client that disconnects is no failure: that is how event streams end."""
        server = self.server_of(sleeping)
        server.live.snapshot()
        self.served(server, request_head("GET", "/events")).leave()
        self.advance(server, STEP / 2)
        server.live.snapshot()
        self.advance(server, STEP / 2)
        (route,) = server.live.snapshot().routes
        self.assertEqual((route.requests, route.failures), (1, 0))
        self.advance(server, WATCH_SECONDS + 1)

    def test_no_cost_later(self) -> None:
        """Some seconds after the last snapshot, requests are not watched any more."""
        server = self.server_of(at_once)
        self.assertIsNone(server.table.watcher)
        server.live.snapshot()
        self.assertIsNotNone(server.table.watcher)
        self.advance(server, WATCH_SECONDS - 1)
        server.live.snapshot()
        self.advance(server, WATCH_SECONDS - 1)
        self.assertIsNotNone(server.table.watcher)
        self.advance(server, 2)
        self.assertIsNone(server.table.watcher)
        reactor: Any = server.reactor
        self.assertEqual(reactor.getDelayedCalls(), [])
        self.served(server)
        self.assertEqual(server.live.snapshot().routes, ())

    def test_lag(self) -> None:
        """The lag is the longest delay since the last snapshot."""
        server = self.server_of(at_once)
        self.assertEqual(server.live.snapshot().lag, 0.0)
        self.advance(server, 1)
        server.reactor.advance(0.75)  # type: ignore[attr-defined]
        self.advance(server, 1)
        self.assertAlmostEqual(server.live.snapshot().lag, 0.75 - LAG_SECONDS)
        self.advance(server, 1)
        self.assertAlmostEqual(server.live.snapshot().lag, 0.0)
        self.advance(server, WATCH_SECONDS + 1)

    def test_many_requests(self) -> None:
        """A snapshot has the oldest requests."""
        server = self.server_of(sleeping)
        streams = [MemoryStream(server) for _ in range(MOST_REQUESTS + 50)]
        found = server.live.snapshot()
        self.assertEqual(found.in_flight, MOST_REQUESTS + 50)
        self.assertEqual(
            [row.request_id for row in found.requests],
            [stream.exchange.request_id for stream in streams[:MOST_REQUESTS]],
        )
        for stream in streams:
            stream.leave()

    def test_stack(self) -> None:
        """The stack of a parked request ends with its wait."""
        server = self.server_of(sleeping, max_in_flight=1)
        parked = self.served(server)
        queued = self.served(server)
        stack = server.live.stack(parked.exchange.request_id)
        self.assertIn("in sleeping\n    sleep(STEP)", stack)
        self.assertEqual(server.live.stack(queued.exchange.request_id), "")
        error = self.assertRaises(LookupError, server.live.stack, "1f-1")
        self.assertEqual(str(error), "there is no request 1f-1 in flight")

    def test_own_stack(self) -> None:
        """An application sees its own stack, up to the call."""
        stacks: list[str] = []

        def asking(
            environ: WSGIEnvironment, start_response: StartResponse
        ) -> list[bytes]:
            requests = environ["txgreenwsgi.requests"]
            stacks.append(requests.stack(environ["txgreenwsgi.request_id"]))
            start_response("200 OK", [])
            return []

        self.served(self.server_of(asking))
        self.assertIn("in asking", stacks[0])

    def test_cancel(self) -> None:
        """A cancelled request gets the exception at its wait, and is answered 503."""
        seen: list[str] = []

        def cleaning(
            environ: WSGIEnvironment, start_response: StartResponse
        ) -> list[bytes]:
            try:
                sleep(STEP)
            except Cancelled as error:
                seen.append(str(error))
                raise
            return []

        server = self.server_of(cleaning, max_in_flight=1)
        stream = self.served(server)
        queued = self.served(server)
        server.live.cancel(queued.exchange.request_id)
        server.live.cancel(stream.exchange.request_id)
        server.reactor.advance(0)  # type: ignore[attr-defined]
        self.assertEqual(seen, ["the request was cancelled by an operator"])
        self.assertEqual([stream.exchange.code, queued.exchange.code], [503, 503])
        self.assertEqual(stream.exchange.outcome, "cancelled")
        self.assertEqual(server.requests(), [])
        self.assertRaises(LookupError, server.live.cancel, "1f-1")


class FailureTests(ServingTestCase):
    """Failures that reach the server."""

    def setUp(self) -> None:
        """Forget earlier failures."""
        super().setUp()
        failures.reset()
        self.addCleanup(failures.reset)

    def test_exception(self) -> None:
        """An exception of the application is a recent failure."""

        def failing(
            environ: WSGIEnvironment, start_response: StartResponse
        ) -> list[bytes]:
            raise ZeroDivisionError("oh")

        stream = self.served(self.server_of(failing), request_head("PUT", "/a"))
        self.flushLoggedErrors(ZeroDivisionError)
        (entry,) = failures.entries()
        self.assertEqual(entry.error, "ZeroDivisionError: oh")
        self.assertIn("in failing", entry.place)
        self.assertEqual(
            (entry.request_id, entry.method, entry.path),
            (stream.exchange.request_id, "PUT", "/a"),
        )

    def test_timeout(self) -> None:
        """A request timeout is one, with the stack of the request."""
        server = self.server_of(sleeping, request_timeout=STEP / 4)
        stream = self.served(server)
        server.reactor.advance(STEP / 2)  # type: ignore[attr-defined]
        stream.exchange.check(server.reactor.seconds())
        (entry,) = failures.entries()
        self.assertEqual(entry.error, "request timeout")
        self.assertIn("in sleeping\n    sleep(STEP)", entry.traceback)

    def test_cancelled(self) -> None:
        """A cancelled request is no failure."""
        server = self.server_of(sleeping)
        stream = self.served(server)
        server.live.cancel(stream.exchange.request_id)
        server.reactor.advance(0)  # type: ignore[attr-defined]
        self.assertEqual(failures.entries(), [])
