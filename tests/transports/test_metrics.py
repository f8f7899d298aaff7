"""The counters of requests, over our own transports."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.metrics.sums import sums_of
from txgreenwsgi._metrics.exposition import metrics_of
from txgreenwsgi._metrics.families import METHODS, SIZE
from txgreenwsgi._metrics.process import measure

from .harness import OWN, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .harness import Environ, Server, Start


def answer(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer in the way that the path names."""
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    if path == "/fail":
        raise ZeroDivisionError
    if path == "/sleep":
        environ["txgreenwsgi.sleep"](2)
    start("404 Not Found" if path == "/missing" else "200 OK", TEXT)
    return streamed(environ) if path == "/stream" else [body or b"hello"]


def streamed(environ: Environ) -> Iterator[bytes]:
    """Sleep between two blocks."""
    yield b"one"
    environ["txgreenwsgi.sleep"](3)
    yield b"two"


class MetricsCases(Cases):
    """Counts, compared with records."""

    def measured(self, **settings: Any) -> Server:
        """Return a server with metrics that has answered one request before."""
        server = self.serve(answer, **settings)
        server.begin()
        # The exchange of a request knows its server.
        exchange = server.app.environs[0]["txgreenwsgi.stopping"].__self__
        self.values = [0.0] * SIZE
        application_server = exchange.server
        self.sampler = measure(application_server, self.values, server.reactor)
        self.addCleanup(self.sampler.stop)
        self.records.clear()
        return server

    def found(self) -> dict[str, float]:
        """Return the sums of all samples by name."""
        self.sampler.count()
        self.labels: dict[tuple[str, ...], float] = {}
        for metric in metrics_of(self.values):
            for sample in metric.samples:
                if sample.name == "txgreenwsgi_requests_total" and sample.value:
                    labels = sample.labels
                    key = labels["method"], labels["status_class"], labels["outcome"]
                    self.labels[key] = sample.value
        return sums_of(self.values)

    def check(self) -> dict[str, float]:
        """Fail unless the counts are those of the records; return the sums."""
        found = self.found()
        expected = Counter(
            (
                record.method if record.method in METHODS else "other",
                f"{record.status // 100}xx" if record.status else "none",
                record.outcome,
            )
            for record in self.records
        )
        self.assertEqual(self.labels, expected)
        count = len(self.records)
        self.assertEqual(found["txgreenwsgi_request_duration_seconds_count"], count)
        self.assertAlmostEqual(
            found["txgreenwsgi_request_duration_seconds_sum"],
            sum(record.duration for record in self.records),
            3,
        )
        self.assertEqual(
            found["txgreenwsgi_response_body_bytes_total"],
            sum(record.bytes_sent for record in self.records),
        )
        return found

    def test_requests(self) -> None:
        """All kinds of requests are counted as they are recorded."""
        server = self.measured(methods="GET,HEAD,POST,BREW")
        for method, path in (
            *(("GET", "/"), ("GET", "/"), ("HEAD", "/"), ("BREW", "/")),
            *(("GET", "/missing"), ("GET", "/fail"), ("DELETE", "/")),
            *(("GET", "/sleep"), ("GET", "/stream")),
        ):
            server.begin(method, path)
        server.begin("POST", "/", body=b"0123456789")
        server.advance(3)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(len(self.records), 10)
        found = self.check()
        self.assertEqual(found["txgreenwsgi_request_body_bytes_total"], 10)
        name = "txgreenwsgi_response_first_byte_seconds"
        self.assertEqual(found[f"{name}_count"], 10)
        self.assertAlmostEqual(found[f"{name}_sum"], 2, 3)

    def test_on_one_connection(self) -> None:
        """Requests on one connection are counted one by one."""
        server = self.measured()
        reply = server.begin()
        for _ in range(4):
            reply = server.begin(on=reply)
        self.assertEqual(self.check()["txgreenwsgi_requests_total"], 5)

    def test_disconnect(self) -> None:
        """A request whose client has left is counted when its task ends."""
        server = self.measured()
        reply = server.begin(target="/sleep")
        server.disconnect(reply)
        self.assertEqual(self.found()["txgreenwsgi_requests_total"], 0)
        self.assertEqual(self.found()["txgreenwsgi_requests_in_flight"], 1)
        server.advance(2)
        self.assertEqual(self.check()["txgreenwsgi_requests_total"], 1)

    def test_connections(self) -> None:
        """Open connections are counted."""
        server = self.measured()
        before = self.found()["txgreenwsgi_connections"]
        server.begin(target="/sleep")
        self.assertEqual(self.found()["txgreenwsgi_connections"], before + 1)
        server.advance(2)


globals().update(on_every_transport(MetricsCases, only=OWN))
