"""The requests in flight of one process, for the control socket and the status page.

It knows the table of requests. It must never know how the answer is sent.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, TypedDict, cast

from txgreenwsgi.monitoring.failures import failures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi._control.interface import (
        BlockedInformation,
        FailureInformation,
        RequestInformation,
        RouteInformation,
    )
    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi.monitoring.requests import RequestInFlight
    from txgreenwsgi.monitoring.routes import RouteStatistics

__all__ = [
    "WorkerDetails",
    "WorkerSnapshot",
    "describe_requests",
    "describe_route",
    "describe_snapshot",
]


class WorkerDetails(TypedDict):
    """The requests in flight of one process, and its counters."""

    in_flight: list[RequestInformation]
    connections: int
    served: int


class WorkerSnapshot(WorkerDetails):
    """The same with what is collected; `in_flight` has the oldest requests only.

    `requests` is the number of requests in flight. `failures` are those that have
    changed since the last change that the master knows, without `worker`;
    `last_change` is the number of the last one now.
    """

    requests: int
    queued: int
    lag: float
    watched_seconds: float
    routes: list[RouteInformation]
    blocked: list[BlockedInformation]
    failures: list[FailureInformation]
    last_change: int


def describe_requests(server: ApplicationServer) -> WorkerDetails:
    """Return the requests in flight, the oldest first.

    Call from the reactor greenlet; never parks.
    """
    return {
        "in_flight": _rows(server.requests()),
        "connections": server.open_connections,
        "served": server.table.ended,
    }


def _rows(requests: Iterable[RequestInFlight]) -> list[RequestInformation]:
    # Not `asdict`, which copies each value: there may be many rows.
    return [cast("RequestInformation", vars(each).copy()) for each in requests]


def describe_snapshot(server: ApplicationServer, known_change: int) -> WorkerSnapshot:
    """Return a snapshot; see `txgreenwsgi.monitoring.Requests`.

    Call from the reactor greenlet; never parks.

    Args:
        server: the server.
        known_change: the number of the last change of failures that the master knows.
    """
    found = server.live.snapshot()
    changed, last_change = failures.changed_after(known_change)
    return {
        "in_flight": _rows(found.requests),
        "connections": found.connections,
        "served": found.served,
        "requests": found.in_flight,
        "queued": found.queued,
        "lag": found.lag,
        "watched_seconds": found.watched_seconds,
        "routes": [describe_route(route) for route in found.routes],
        "blocked": [cast("BlockedInformation", asdict(line)) for line in found.blocked],
        "failures": [cast("FailureInformation", asdict(each)) for each in changed],
        "last_change": last_change,
    }


def describe_route(route: RouteStatistics) -> RouteInformation:
    """Return a route for JSON."""
    return {
        "method": route.method,
        "pattern": route.pattern,
        "requests": route.requests,
        "failures": route.failures,
        "seconds": route.seconds,
        "longest": route.longest,
        "durations": list(route.durations),
        "mean": route.mean,
        "p95": route.quantile(0.95),
    }
