"""Tests of the table of requests in flight, and of its observers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi import sleep
from txgreenwsgi._serving.registry import RequestInFlight, RequestTable, describe_wait
from txgreenwsgi.monitoring.records import ExchangeRecord

from .cases import STEP, ServingTestCase
from .memory_stream import MemoryStream, request_head

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def sleeping(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Sleep and return an empty response."""
    sleep(STEP)
    start_response("200 OK", [])
    return []


def record() -> ExchangeRecord:
    """Return a record."""
    return ExchangeRecord(
        remote_addr="",
        remote_port="",
        started=0.0,
        duration=0.0,
        method="GET",
        target="/",
        version="HTTP/1.1",
        status=200,
        bytes_sent=0,
        request_id="",
        referer="",
        user_agent="",
        outcome="finished",
    )


class RequestTableTests(ServingTestCase):
    """`RequestTable`."""

    def test_rows(self) -> None:
        """A row has the request, its age, state and wait; the oldest is first."""
        server = self.server_of(sleeping, max_in_flight=1)
        first = self.served(server, request_head("GET", "/first"))
        server.reactor.advance(1)  # type: ignore[attr-defined]
        second = self.served(server, request_head("PUT", "/second"))
        rows = server.table.rows(server.reactor.seconds() + 2)
        self.assertEqual(
            rows,
            [
                RequestInFlight(
                    request_id=first.exchange.request_id,
                    method="GET",
                    path="/first",
                    age=3,
                    state="parked",
                    waiting_on=f"sleep({STEP:g})",
                    waiting_seconds=1,
                    remote_addr="192.0.2.1",
                ),
                RequestInFlight(
                    request_id=second.exchange.request_id,
                    method="PUT",
                    path="/second",
                    age=2,
                    state="queued",
                    waiting_on="",
                    remote_addr="192.0.2.1",
                ),
            ],
        )
        self.assertEqual(server.requests()[0].age, 1)

    def test_own_row(self) -> None:
        """A running request has a row without a wait."""
        rows: list[RequestInFlight] = []

        def listing(
            environ: WSGIEnvironment, start_response: StartResponse
        ) -> list[bytes]:
            rows.extend(environ["txgreenwsgi.requests"]())
            start_response("200 OK", [])
            return []

        server = self.server_of(listing)
        self.served(server)
        self.assertEqual(
            [(row.state, row.waiting_on) for row in rows], [("running", "")]
        )
        self.assertEqual(server.requests(), [])

    def test_order_of_one_moment(self) -> None:
        """Requests of one moment are listed in the order of their arrival."""
        server = self.server_of(sleeping, max_in_flight=1)
        streams = [MemoryStream(server) for _ in range(20)]
        rows = server.requests()
        self.assertEqual(
            [row.request_id for row in rows],
            [stream.exchange.request_id for stream in streams],
        )
        for stream in streams:
            stream.leave()

    def test_ids(self) -> None:
        """Request ids are unique in a table and between tables."""
        tables = [RequestTable(()) for _ in range(2)]
        ids = [table.next_id() for table in tables for _ in range(100)]
        self.assertEqual(len(set(ids)), 200)
        prefixes = {request_id.split("-")[0] for request_id in ids}
        self.assertEqual({len(prefix) for prefix in prefixes}, {8})
        self.assertEqual(len(prefixes), 2)

    def test_observers(self) -> None:
        """Each observer gets the record, in order, although an earlier one fails."""
        seen: list[Any] = []

        for error in (ZeroDivisionError, SystemExit):

            def failing(
                record: ExchangeRecord, error: type[BaseException] = error
            ) -> None:
                seen.append("failing")
                raise error

            seen.clear()
            table = RequestTable([failing, seen.append])
            given = record()
            table.observe(given)
            self.assertEqual(seen, ["failing", given])
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            self.assert_logged("observer ", "failing", " failed")

    def test_describe_wait(self) -> None:
        """A wait is described by its text, or by the representation of its object."""
        self.assertEqual(describe_wait("sleep(1)"), "sleep(1)")
        self.assertEqual(describe_wait([1]), "[1]")
