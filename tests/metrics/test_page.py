"""The page of metrics, and the application's own registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parsed_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import StartError
from txgreenwsgi._metrics.application import (
    ApplicationMetrics,
    collected,
    registry_at,
)
from txgreenwsgi._metrics.exposition import MetricsPage, given_metric, metrics_of
from txgreenwsgi._metrics.families import FAMILIES, RESTARTS, SIZE, all_names
from txgreenwsgi.testing import MemoryServer, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

OPENMETRICS = [("Accept", "application/openmetrics-text; version=1.0.0")]


def by_name(metrics: Iterable[Metric]) -> dict[tuple[str, str], float]:
    """Return all samples by name and labels."""
    return {
        (
            sample.name,
            ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())),
        ): sample.value
        for metric in metrics
        for sample in metric.samples
    }


class PageTests(SynchronousTestCase):
    """The listener's application."""

    def setUp(self) -> None:
        """Serve the page."""
        self.numbers = [float(number) for number in range(SIZE)]
        self.collecting: Deferred[list[Metric]] | None = None
        self.server = MemoryServer(MetricsPage(self.collect))
        self.addCleanup(self.server.close)

    def collect(self) -> Deferred[list[Metric]]:
        """Return the metrics."""
        if self.collecting is not None:
            return self.collecting
        restarts = given_metric(RESTARTS, {("crash",): 2.0})
        return succeed([*metrics_of(self.numbers), restarts])

    def get(self, target: str = "/metrics", **more: Any) -> Response:
        """Return the response to a request."""
        return self.server.request("GET", target, **more)

    def test_text(self) -> None:
        """Without a preference, the format is Prometheus' text."""
        response = self.get()
        self.assertEqual(response.status, 200)
        self.assertEqual(
            response.header("Content-Type"), "text/plain; version=0.0.4; charset=utf-8"
        )
        families = list(text_string_to_metric_families(response.body.decode()))
        names = {sample.name for family in families for sample in family.samples}
        self.assertLessEqual(names, all_names())
        kinds = {family.name: family.type for family in families}
        for family in FAMILIES[2:]:
            self.assertEqual(kinds[family.name], family.kind)
        found = by_name(families)
        self.assertEqual(found["txgreenwsgi_worker_restarts_total", "reason=crash"], 2)

    def test_openmetrics(self) -> None:
        """OpenMetrics is sent to clients that accept it, and it is valid."""
        response = self.get(headers=OPENMETRICS)
        kind = response.header("Content-Type") or ""
        self.assertIn("application/openmetrics-text", kind)
        # The parser is strict: about the order of samples, and about buckets.
        found = by_name(parsed_openmetrics(response.body.decode()))
        plain = by_name(text_string_to_metric_families(self.get().body.decode()))
        self.assertEqual(found, plain)

    def test_chosen_names(self) -> None:
        """A scrape may ask for single metrics."""
        target = "/metrics?name[]=txgreenwsgi_requests_in_flight"
        lines = self.get(target).body.decode().splitlines()
        self.assertEqual(
            [line.split()[0] for line in lines if line[0] != "#"],
            ["txgreenwsgi_requests_in_flight"],
        )

    def test_other_requests(self) -> None:
        """Other paths are not found, and other methods not allowed."""
        self.assertEqual(self.get("/").status, 200)
        response = self.get("/other")
        self.assertEqual(
            (response.status, response.body[-8:]), (404, b"etrics.\n"[-9:])
        )
        response = self.server.request("POST", "/metrics", body=b"x")
        self.assertEqual(
            (response.status, response.header("Allow")), (405, "GET, HEAD")
        )
        response = self.server.request("HEAD", "/metrics")
        self.assertEqual((response.status, response.body), (200, b""))

    def test_failure(self) -> None:
        """A failure of the collection is a failure of the scrape."""
        self.collecting = Deferred()
        self.collecting.errback(ZeroDivisionError())
        self.assertEqual(self.get().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Shop:
    """The metrics of one worker's application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        more: Any = {"registry": self.registry}
        self.orders = Counter("shop_orders", "Orders.", ["kind"], **more)
        self.seconds = Histogram("shop_seconds", "Time.", buckets=(1, 2), **more)
        self.sizes = Summary("shop_size", "Size.", **more)
        self.users = Gauge("shop_users", "Users.", **more)
        self.about = Info("shop", "About.", **more)
        self.about.info({"version": "1"})


class ApplicationTests(SynchronousTestCase):
    """Registries of several workers, merged."""

    def setUp(self) -> None:
        """Make the registries of two workers."""
        self.shops = [Shop(), Shop()]
        self.merged = ApplicationMetrics()

    def receive(self) -> dict[tuple[str, str], float]:
        """Receive the metrics of all workers, and return the sums."""
        for number, shop in enumerate(self.shops, 1):
            self.merged.received(number, number - 1, collected(shop.registry))
        return by_name(self.merged.metrics())

    def test_sums(self) -> None:
        """Counters, histograms and summaries are added; others get a slot."""
        one, two = self.shops
        one.orders.labels("book").inc(3)
        two.orders.labels("book").inc(4)
        two.orders.labels("film").inc()
        one.seconds.observe(0.5)
        two.seconds.observe(1.5)
        two.sizes.observe(10)
        one.users.set(5)
        two.users.set(6)
        found = self.receive()
        for (name, labels), value in {
            ("shop_orders_total", "kind=book"): 7,
            ("shop_orders_total", "kind=film"): 1,
            ("shop_seconds_bucket", "le=1.0"): 1,
            ("shop_seconds_bucket", "le=+Inf"): 2,
            ("shop_seconds_sum", ""): 2.0,
            ("shop_size_count", ""): 1,
            ("shop_users", "worker_slot=1"): 5,
            ("shop_users", "worker_slot=2"): 6,
            ("shop_info", "version=1,worker_slot=2"): 1,
        }.items():
            self.assertEqual(found[name, labels], value, (name, labels))
        created = found["shop_seconds_created", ""]
        self.assertLess(abs(created - found["shop_size_created", ""]), 60)

    def test_format(self) -> None:
        """The merged families are valid in both formats."""
        for shop in self.shops:
            shop.orders.labels("book").inc()
            shop.orders.labels("film").inc()
            shop.seconds.observe(1)
        self.receive()
        page = MetricsPage(lambda: succeed(self.merged.metrics()))
        server = MemoryServer(page)
        self.addCleanup(server.close)
        response = server.request("GET", "/metrics", headers=OPENMETRICS)
        found = by_name(parsed_openmetrics(response.body.decode()))
        self.assertEqual(found["shop_seconds_count", ""], 2)
        text = server.request("GET", "/metrics").body.decode()
        self.assertTrue(list(text_string_to_metric_families(text)))

    def test_ended_worker(self) -> None:
        """Sums do not go backwards when a worker is replaced."""
        one, two = self.shops
        one.orders.labels("book").inc(3)
        two.orders.labels("book").inc(4)
        one.users.set(5)
        self.receive()
        self.merged.ended(1)
        found = by_name(self.merged.metrics())
        self.assertEqual(found["shop_orders_total", "kind=book"], 7)
        self.assertNotIn(("shop_users", "worker_slot=1"), found)
        self.shops[0] = successor = Shop()
        successor.orders.labels("book").inc()
        self.merged.received(3, 0, collected(successor.registry))
        found = by_name(self.merged.metrics())
        self.assertEqual(found["shop_orders_total", "kind=book"], 8)
        self.merged.ended(2)
        self.merged.ended(3)
        self.merged.ended(4)  # it has sent nothing
        found = by_name(self.merged.metrics())
        self.assertEqual(found["shop_orders_total", "kind=book"], 8)

    def test_same_as_one_registry(self) -> None:
        """The families of a single worker are those of its registry."""
        shop = self.shops[0]
        shop.orders.labels("book").inc()
        shop.seconds.observe(1)
        self.merged.received(1, 0, collected(shop.registry))
        found = by_name(self.merged.metrics())
        text = generate_latest(shop.registry).decode()
        for (name, labels), value in by_name(
            text_string_to_metric_families(text)
        ).items():
            if name.startswith(("shop_orders", "shop_seconds", "shop_size")):
                self.assertEqual(found[name, labels], value)

    def test_place(self) -> None:
        """The registry is found by its name; the error names the remedy."""
        registry = registry_at("prometheus_client:REGISTRY")
        self.assertTrue(hasattr(registry, "collect"))
        for place in ("nosuchmodule:x", "prometheus_client:missing", "os:path"):
            error = self.assertRaises(StartError, registry_at, place)
            self.assertIn(f"--metrics-application '{place}'", str(error))
            self.assertIn("give", str(error))
