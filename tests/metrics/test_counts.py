"""Requests and the state of a server, as numbers and as metrics."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from tests.serving.cases import STEP, ServingTestCase
from tests.serving.memory_stream import MemoryStream, request_head
from txgreenwsgi import sleep
from txgreenwsgi._metrics.exposition import metrics_of
from txgreenwsgi._metrics.families import (
    FAMILIES,
    IN_FLIGHT,
    LAYOUT,
    ORDINARY,
    REQUESTS,
    SIZE,
    all_names,
    folded,
    series_of,
    start_of,
    summed,
)
from txgreenwsgi._metrics.meter import RequestMeter
from txgreenwsgi._metrics.process import measure
from txgreenwsgi._metrics.sampler import TICK_SECONDS, Sampler
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._workers.page import METRICS_BYTES
from txgreenwsgi.monitoring.blocked import BlockedReport
from txgreenwsgi.monitoring.stacks import CodeLine
from txgreenwsgi.pools import ConnectionPool, PoolTimeout
from txgreenwsgi.testing import MemoryServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TEXT = [("Content-Type", "text/plain")]


def samples(numbers: list[float]) -> dict[str, float]:
    """Return the samples that are not 0, by name and labels as in a query."""
    found = {}
    for metric in metrics_of(numbers):
        for sample in metric.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            if sample.value:
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Answer in the way that the path names."""
    path = environ["PATH_INFO"]
    if path == "/sleep":
        sleep(STEP)
    if path == "/fail":
        raise ZeroDivisionError
    if path == "/read":
        environ["wsgi.input"].read()
    start("404 Not Found" if path == "/missing" else "200 OK", TEXT)
    if path == "/stream":
        return streamed()
    return [b"hello"]


def streamed() -> Iterator[bytes]:
    """Send one block, and another one later."""
    yield b"one"
    sleep(STEP)
    yield b"two"


class CountTests(ServingTestCase):
    """The counters of requests."""

    def setUp(self) -> None:
        """Start a server with metrics."""
        super().setUp()
        self.server = self.server_of(application, max_in_flight=2, max_queued=1)
        self.values = [0.0] * SIZE
        self.sampler = measure(self.server, self.values, self.server.reactor)
        self.addCleanup(self.sampler.stop)

    def request(self, path: str = "/", method: str = "GET", **more: Any) -> Any:
        """Send a request without a body."""
        return self.served(self.server, request_head(method, path, **more))

    def counted(self) -> dict[str, float]:
        """Return all samples that are not 0."""
        self.sampler.count()
        return samples(self.values)

    def requests(self) -> dict[str, float]:
        """Return the samples of `txgreenwsgi_requests`, by their labels."""
        name = f"{REQUESTS.name}_total"
        return {
            key[len(name) + 1 : -1]: value
            for key, value in self.counted().items()
            if key.startswith(name)
        }

    def test_labels(self) -> None:
        """Requests are counted by method, class of the status and outcome."""
        for _ in range(3):
            self.request()
        self.request("/missing")
        self.request("/", "POST")
        self.request("/", "BREW")
        self.request("/fail")
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(
            self.requests(),
            {
                "method=GET,outcome=finished,status_class=2xx": 3,
                "method=GET,outcome=finished,status_class=4xx": 1,
                "method=POST,outcome=finished,status_class=2xx": 1,
                "method=other,outcome=finished,status_class=2xx": 1,
                "method=GET,outcome=error,status_class=5xx": 1,
            },
        )
        found = self.counted()
        self.assertEqual(found["txgreenwsgi_request_duration_seconds_count{}"], 7)
        self.assertEqual(found["txgreenwsgi_response_first_byte_seconds_count{}"], 7)
        self.assertEqual(found["txgreenwsgi_response_body_bytes_total{}"], 52)

    def test_same_number_of_records(self) -> None:
        """Each request with a record is counted, however it ends."""
        streams = [self.request("/sleep") for _ in range(4)]
        self.assertEqual(
            self.requests(), {"method=GET,outcome=refused,status_class=5xx": 1}
        )
        streams[0].leave()
        streams[2].leave()  # it is queued
        self.step(self.server)
        self.step(self.server)
        self.assertEqual(sum(self.requests().values()), len(self.records))
        self.assertEqual(
            self.requests(),
            {
                "method=GET,outcome=refused,status_class=5xx": 1,
                "method=GET,outcome=disconnected,status_class=none": 2,
                "method=GET,outcome=finished,status_class=2xx": 1,
            },
        )

    def test_unreadable_head(self) -> None:
        """A request whose head cannot be parsed is counted, as it is logged."""
        records: list[object] = []
        server = MemoryServer(application, [records.append])
        values = [0.0] * SIZE
        sampler = measure(server.site.server, values, server.reactor)
        client = server.connect()
        client.send(b"nonsense\r\n\r\n")
        server.settle()
        self.assertEqual(len(records), 1)
        sampler.stop()
        labels = "{method=other,outcome=refused,status_class=4xx}"
        self.assertEqual(samples(values)[f"txgreenwsgi_requests_total{labels}"], 1)

    def test_durations(self) -> None:
        """A stream's first byte is earlier than its end."""
        self.request("/stream")
        self.step(self.server)
        found = self.counted()
        name = "txgreenwsgi_request_duration_seconds"
        self.assertEqual(found[f"{name}_sum{{}}"], STEP)
        self.assertNotIn(f"{name}_bucket{{le=5.0}}", found)
        self.assertEqual(found[f"{name}_bucket{{le=10.0}}"], 1)
        self.assertEqual(found[f"{name}_bucket{{le=+Inf}}"], 1)
        name = "txgreenwsgi_response_first_byte_seconds"
        self.assertNotIn(f"{name}_sum{{}}", found)
        self.assertEqual(found[f"{name}_bucket{{le=0.001}}"], 1)
        self.request("/sleep")
        self.step(self.server)
        self.assertEqual(self.counted()[f"{name}_sum{{}}"], STEP)

    def test_body(self) -> None:
        """The bytes of request bodies are counted, also of a fast request."""
        stream = MemoryStream(self.server, request_head("POST", "/read", 5))
        stream.exchange.body.received(b"01234")
        stream.exchange.body.ended()
        stream.exchange.admit()
        found = self.counted()
        self.assertEqual(found["txgreenwsgi_request_body_bytes_total{}"], 5)

    def test_state(self) -> None:
        """Requests in flight, the queue and tasks are counted now and then."""
        for _ in range(3):
            self.request("/sleep")
        found = self.counted()
        self.assertEqual(found["txgreenwsgi_requests_in_flight{}"], 3)
        self.assertEqual(found["txgreenwsgi_requests_queued{}"], 1)
        self.assertEqual(found["txgreenwsgi_tasks{state=parked}"], 2)
        self.step(self.server)
        self.step(self.server)
        found = self.counted()
        self.assertNotIn("txgreenwsgi_requests_in_flight{}", found)
        self.assertNotIn("txgreenwsgi_tasks{state=parked}", found)

    def test_killed_process(self) -> None:
        """The count of each request is in the memory as soon as it has ended."""
        self.request()
        self.request("/", "POST")
        found = samples(self.values)
        self.assertEqual(found["txgreenwsgi_request_duration_seconds_count{}"], 2)
        self.assertEqual(
            sum(
                found[key] for key in found if key.startswith("txgreenwsgi_requests_t")
            ),
            2,
        )

    def test_off(self) -> None:
        """Without metrics, nothing is counted."""
        self.server.metrics = None
        self.request()
        self.assertEqual(self.requests(), {})


class SamplerTests(ServingTestCase):
    """The sampler on its own."""

    def setUp(self) -> None:
        """Make a sampler."""
        super().setUp()
        self.server = self.server_of(application)
        self.values = [0.0] * SIZE
        self.blocked = BlockedReport()
        self.pools: list[Any] = []
        hub = hub_of(self.server.reactor)
        self.sampler = Sampler(
            self.values,
            self.server,
            RequestMeter(self.values, hub),
            hub,
            self.blocked,
            lambda: self.pools,
        )

    def test_lag(self) -> None:
        """The delay of the reactor is measured four times a second."""
        self.sampler.start()
        reactor: Any = self.server.reactor
        reactor.advance(TICK_SECONDS)
        reactor.rightNow += 1.0  # in which the reactor does nothing
        reactor.advance(0)
        self.sampler.stop()
        found = samples(self.values)
        name = "txgreenwsgi_reactor_lag_seconds"
        self.assertEqual(found[f"{name}_count{{}}"], 2)
        self.assertEqual(found[f"{name}_sum{{}}"], 0.75)
        self.assertEqual(found[f"{name}_bucket{{le=0.5}}"], 1)
        self.assertEqual(found[f"{name}_bucket{{le=1.0}}"], 2)

    def test_blocks(self) -> None:
        """Blocks of the reactor are counted, with their duration."""
        for seconds in (0.5, 1.5):
            line = CodeLine("shop.py", 1, "view")
            self.blocked.add(line, "", seconds, "GET /")
        self.sampler.count()
        found = samples(self.values)
        self.assertEqual(found["txgreenwsgi_reactor_blocked_total{}"], 2)
        self.assertEqual(found["txgreenwsgi_reactor_blocked_seconds_total{}"], 2.0)

    def test_pools(self) -> None:
        """Waits for connections stay counted when the pool is gone."""
        now = [0.0]
        pool = ConnectionPool(object, max_size=2, clock=lambda: now[0])
        self.pools.append(pool)
        first = pool.take()
        pool.take()
        self.assertRaises(PoolTimeout, pool.take, 0)
        pool.give_back(first)
        self.sampler.count()
        found = samples(self.values)
        self.assertEqual(found["txgreenwsgi_pool_timeouts_total{}"], 1)
        self.assertEqual(found["txgreenwsgi_pool_connections{state=in_use}"], 1)
        self.assertEqual(found["txgreenwsgi_pool_connections{state=idle}"], 1)
        self.pools.clear()
        del pool
        gc.collect()
        self.sampler.count()
        found = samples(self.values)
        self.assertEqual(found["txgreenwsgi_pool_timeouts_total{}"], 1)
        self.assertNotIn("txgreenwsgi_pool_connections{state=in_use}", found)


class LayoutTests(ServingTestCase):
    """The places of the numbers."""

    def test_places(self) -> None:
        """Each series has places of its own, and all fit into the page."""
        taken: set[int] = set()
        for family in FAMILIES:
            for series in series_of(family):
                places = set(range(series.place, series.place + family.width))
                self.assertFalse(places & taken, family.name)
                taken |= places
        self.assertEqual(taken, set(range(SIZE)))
        self.assertLess(8 * SIZE, METRICS_BYTES - 16)
        self.assertNotEqual(LAYOUT, 0)

    def test_sums(self) -> None:
        """An ended worker leaves its counts, and not its state."""
        one, two = [1.0] * SIZE, [2.0] * SIZE
        self.assertEqual(set(summed([one, two])), {3.0})
        self.assertEqual(summed([]), [0.0] * SIZE)
        totals = folded(one, two)
        self.assertEqual(totals[start_of(ORDINARY)], 3.0)
        self.assertEqual(totals[start_of(IN_FLIGHT)], 1.0)

    def test_names(self) -> None:
        """All names begin with that of the server; internal numbers are not shown."""
        names = all_names()
        self.assertIn("txgreenwsgi_requests_total", names)
        self.assertIn("txgreenwsgi_request_duration_seconds_bucket", names)
        for name in names:
            self.assertTrue(name.startswith("txgreenwsgi_"), name)
