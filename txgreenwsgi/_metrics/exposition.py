"""The page of metrics: text for Prometheus, written by its own client library.

It knows families and their numbers, and `prometheus_client`, which formats them. It
must never know how the numbers are collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from txgreenwsgi._switching.waiting import wait

from .families import FAMILIES, INTERNAL, REQUESTS, Family, series_of
from .meter import with_ordinary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from twisted.internet.defer import Deferred

    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["MetricsPage", "given_metric", "metrics_of"]

#: The paths of the page.
PATHS: Final = ("/metrics", "/")

#: A family whose series are shown even if they are 0: a family must not be empty.
_ALWAYS: Final = ("GET", "2xx", "finished")


def metrics_of(numbers: Sequence[float]) -> list[Metric]:
    """Return the metrics for the numbers of one or more processes.

    Args:
        numbers: in the layout of `families`.
    """
    values = with_ordinary(numbers)
    return [
        _metric(
            family,
            {
                labels: values[place : place + family.width]
                for labels, place in series_of(family)
                # Most combinations of labels never occur.
                if family is not REQUESTS or values[place] or labels == _ALWAYS
            },
        )
        for family in FAMILIES
        if family not in INTERNAL
    ]


def given_metric(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a counter or gauge with one number for each series."""
    return _metric(family, {labels: [value] for labels, value in values.items()})


def _metric(
    family: Family, series: Mapping[tuple[str, ...], Sequence[float]]
) -> Metric:
    names = list(family.label_names)
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=names)
        for labels, numbers in series.items():
            *counts, total = numbers
            buckets = []
            below = 0.0
            bounds = (*map(str, family.bounds), "+Inf")
            for bound, count in zip(bounds, counts, strict=True):
                below += count
                buckets.append((bound, below))
            histogram.add_metric(list(labels), buckets, total)
        return histogram
    metric: CounterMetricFamily | GaugeMetricFamily
    if family.kind == "counter":
        metric = CounterMetricFamily(family.name, family.meaning, labels=names)
    else:
        metric = GaugeMetricFamily(family.name, family.meaning, labels=names)
    for labels, (value,) in series.items():
        metric.add_metric(list(labels), value)
    return metric


class _Collected(Collector):
    """Metrics that were collected already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._metrics


class MetricsPage:
    """The application of the listener of `--metrics`. Its page parks.

    The format is negotiated: Prometheus' text format, or OpenMetrics.

    Args:
        collect: returns a Deferred with the metrics. Called for each scrape, in its
            task.
    """

    def __init__(self, collect: Callable[[], Deferred[list[Metric]]]) -> None:
        self._collect = collect

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a scrape."""
        if environ["PATH_INFO"] not in PATHS:
            text = b"The metrics are at /metrics.\n"
            start_response("404 Not Found", _head_of(text))
            return [text]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            text = b"Use GET.\n"
            fields = [*_head_of(text), ("Allow", "GET, HEAD")]
            start_response("405 Method Not Allowed", fields)
            return [text]
        metrics = wait(self._collect())
        registry = CollectorRegistry(auto_describe=True)
        registry.register(_Collected(metrics))
        page: Application = make_wsgi_app(registry)
        return page({**environ, "REQUEST_METHOD": "GET"}, start_response)


def _head_of(text: bytes) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(text))),
    ]
