"""Tests of `Limits`: from the settings, and replaced for one request."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from txgreenwsgi import ClientDisconnected, RequestTimeout
from txgreenwsgi._serving.limits import Limits, limits_from
from txgreenwsgi.settings import Settings

from .cases import STEP, ServingTestCase
from .memory_stream import MemoryStream, request_head

if TYPE_CHECKING:
    from typing import Any

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._serving.application_server import ApplicationServer


class LimitsFromTests(ServingTestCase):
    """`limits_from`."""

    def test_settings(self) -> None:
        """Each limit has the value of its setting."""
        limits = limits_from(
            Settings.from_keywords(
                request_timeout=1,
                queue_timeout=2,
                write_timeout=3,
                max_body=4,
                body_timeout=5,
                min_body_rate=6,
                input_window=7000,
                on_disconnect="cancel",
            )
        )
        self.assertEqual(
            limits,
            Limits(
                request_seconds=1,
                queue_seconds=2,
                write_seconds=3,
                body_bytes=4,
                body_seconds=5,
                body_rate=6,
                input_window=7000,
                cancel_on_disconnect=True,
            ),
        )

    def test_shared(self) -> None:
        """All requests of a server refer to the same limits, which are read-only."""
        server = self.server_of(application)
        streams = [MemoryStream(server) for _ in range(2)]
        for stream in streams:
            self.assertIs(stream.exchange.limits, server.limits)
            stream.leave()
        for field in fields(Limits):
            self.assertRaises(AttributeError, setattr, server.limits, field.name, 1)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Return the request body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [body]


class ReplacedLimitsTests(ServingTestCase):
    """`Exchange.replace_limits`: other limits for one request."""

    def both(
        self, server: ApplicationServer, head: RequestHead, **changes: Any
    ) -> tuple[MemoryStream, MemoryStream]:
        """Return the streams of two admitted requests; the first has other limits."""
        # The exchange of the second takes the variables of its own head.
        streams = MemoryStream(server, replace(head)), MemoryStream(server, head)
        exchange = streams[0].exchange
        exchange.replace_limits(replace(exchange.limits, **changes))
        for stream in streams:
            stream.exchange.admit()
        return streams

    def status(self, stream: MemoryStream) -> int:
        """Return the status of the response; 0 without one."""
        return stream.head.code if stream.head is not None else 0

    def end(self, *streams: MemoryStream) -> None:
        """Let the clients leave."""
        for stream in streams:
            stream.leave()
        self.flushLoggedErrors(ClientDisconnected)

    def test_declared_body(self) -> None:
        """A declared length is compared with the limit of its request."""
        server = self.server_of(application)
        streams = self.both(server, request_head("POST", length=4), body_bytes=3)
        self.assertEqual([self.status(stream) for stream in streams], [413, 0])
        self.assertEqual(
            server.limits.body_bytes, streams[1].exchange.limits.body_bytes
        )
        self.end(*streams)

    def test_received_body(self) -> None:
        """Received bytes are compared with the limit of their request."""
        server = self.server_of(application)
        streams = self.both(server, request_head("POST", length=None), body_bytes=3)
        for stream in streams:
            stream.exchange.body.received(b"abcd")
        self.settle(server)
        self.assertEqual([self.status(stream) for stream in streams], [413, 0])
        self.assertIn("stop_receiving", streams[0].calls)
        self.assertNotIn("stop_receiving", streams[1].calls)
        self.end(*streams)

    def test_input_window(self) -> None:
        """Reading pauses at the window of the request."""
        server = self.server_of(application, max_in_flight=1)
        server.admission.acquire()
        streams = self.both(server, request_head("POST", length=9), input_window=3)
        for stream in streams:
            stream.exchange.body.received(b"abcd")
        full = [stream.exchange.body.full for stream in streams]
        self.assertEqual(full, [True, False])
        self.end(*streams)
        server.release_slot()

    def test_body_seconds(self) -> None:
        """A silent client gets 408 after the time of its request."""
        server = self.server_of(application)
        streams = self.both(server, request_head("POST", length=4), body_seconds=STEP)
        now = server.reactor.seconds() + STEP
        server.reactor.advance(STEP)  # type: ignore[attr-defined]
        for stream in streams:
            stream.exchange.check(now)
        self.settle(server)
        self.assertEqual([self.status(stream) for stream in streams], [408, 0])
        self.end(*streams)

    def test_request_seconds(self) -> None:
        """The time of a request counts from its start, and 0 is no limit."""
        server = self.server_of(application, request_timeout=2 * STEP)
        for seconds, passed, statuses in (
            (STEP, STEP, [504, 0]),
            (0, 2 * STEP, [0, 504]),
        ):
            streams = self.both(
                server, request_head("POST", length=4), request_seconds=seconds
            )
            now = server.reactor.seconds() + passed
            for stream in streams:
                stream.exchange.check(now)
            self.assertEqual([self.status(stream) for stream in streams], statuses)
            self.end(*streams)
        self.flushLoggedErrors(RequestTimeout)

    def test_own_timeout_is_kept(self) -> None:
        """Other limits keep the time that the application has set for its request."""
        server = self.server_of(application)
        stream = MemoryStream(server)
        exchange = stream.exchange
        exchange.set_request_timeout(STEP)
        deadline = exchange.deadline
        exchange.replace_limits(replace(exchange.limits, body_bytes=1))
        self.assertEqual(exchange.deadline, deadline)
        self.end(stream)

    def test_queue_seconds(self) -> None:
        """A request waits in the queue for as long as its limit allows."""
        server = self.server_of(application, max_in_flight=1)
        server.admission.acquire()
        streams = self.both(server, request_head(), queue_seconds=STEP)
        now = server.reactor.seconds() + STEP
        for stream in streams:
            stream.exchange.check(now)
        states = [stream.exchange.state for stream in streams]
        self.assertEqual(states, ["ended", "queued"])
        self.assertEqual(self.status(streams[0]), 503)
        self.end(*streams)
        server.release_slot()

    def test_write_seconds(self) -> None:
        """A client that accepts no byte is cut off after the time of its request."""
        server = self.server_of(application, write_timeout=9 * STEP)
        streams = self.both(server, request_head("POST", length=4), write_seconds=STEP)
        for stream in streams:
            stream.backpressure.blocked = True
            stream.exchange.body.received(b"abcd")
            stream.exchange.body.ended()
        self.settle(server)
        now = server.reactor.seconds() + STEP
        for stream in streams:
            self.assertIsNotNone(stream.output.waiting)
            stream.exchange.check(now)
        self.assertEqual([stream.connected for stream in streams], [False, True])
        streams[1].backpressure.unblock()
        self.settle(server)
        self.assertEqual(streams[1].body, b"abcd")
        self.assertTrue(streams[1].finished)
        outcomes = [record.outcome for record in self.records]
        self.assertEqual(outcomes, ["timeout", "finished"])

    def test_cancel_on_disconnect(self) -> None:
        """A lost client interrupts the application where its request says so."""

        def waiting(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
            from txgreenwsgi import sleep

            sleep(STEP)
            start_response("200 OK", [])
            return []

        server = self.server_of(waiting)
        streams = self.both(server, request_head(), cancel_on_disconnect=True)
        self.end(*streams)
        self.settle(server)
        states = [stream.exchange.state for stream in streams]
        self.assertEqual(states, ["ended", "cut"])
