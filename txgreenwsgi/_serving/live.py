"""Snapshots of a server while it runs, and what is collected for them.

Routes and lag are collected only while snapshots are taken, so requests pay nothing at
other times. It knows the table of requests. It must never know how a snapshot is shown.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final, Protocol

from txgreenwsgi._switching.thread_calls import crossing
from txgreenwsgi.monitoring.blocked import blocked_lines
from txgreenwsgi.monitoring.failures import recent_failures
from txgreenwsgi.monitoring.requests import (
    MOST_BLOCKED,
    MOST_REQUESTS,
    MOST_SHOWN_ROUTES,
    WATCH_SECONDS,
    ProcessSnapshot,
)
from txgreenwsgi.monitoring.routes import Routes

from .request_stacks import stack_of_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from txgreenwsgi.monitoring.requests import RequestInFlight

    from .registry import InFlight, RequestTable

__all__ = ["LAG_SECONDS", "LiveRequests"]

#: Interval at which the lag of the reactor is measured.
LAG_SECONDS: Final = 0.25


class Watchable(Protocol):
    """The part of an application's server that this file uses."""

    table: RequestTable

    @property
    def reactor(self) -> IReactorTime:
        """The reactor."""

    @property
    def open_connections(self) -> int:
        """The number of open connections."""

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""

    def requests(self) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first."""


class LiveRequests:
    """The requests of one server. See `txgreenwsgi.monitoring.Requests`.

    Args:
        server: the server.
    """

    def __init__(self, server: Watchable) -> None:
        self._server = server
        self._watch: _Watch | None = None

    def __call__(self) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first. Never parks."""
        return self._server.requests()

    @crossing
    def snapshot(self) -> ProcessSnapshot:
        """Return the state of this server, and collect routes and lag for a while."""
        server = self._server
        now = server.reactor.seconds()
        watch = self._watch
        if watch is None:
            watch = self._watch = _Watch(server, self._forget_watch)
        lag = watch.renew(now)
        table = server.table
        return ProcessSnapshot(
            time=time(),
            in_flight=len(table.exchanges),
            queued=server.queued,
            connections=server.open_connections,
            served=table.ended,
            watched_seconds=now - watch.began,
            lag=lag,
            requests=tuple(table.rows(now, MOST_REQUESTS)),
            routes=tuple(watch.routes.statistics()[:MOST_SHOWN_ROUTES]),
            blocked=tuple(blocked_lines()[:MOST_BLOCKED]),
            failures=tuple(recent_failures()),
        )

    @crossing
    def stack(self, request_id: str) -> str:
        """Return the Python stack of a request; "" if it is queued.

        Raises:
            LookupError: there is no such request in flight.
        """
        task = self._find(request_id).task
        return "" if task is None else stack_of_task(task)

    @crossing
    def cancel(self, request_id: str) -> None:
        """Raise `Cancelled` at the current wait of a request.

        Raises:
            LookupError: there is no such request in flight.
        """
        self._find(request_id).cancel("the request was cancelled by an operator")

    def _find(self, request_id: str) -> InFlight:
        for exchange in self._server.table.exchanges:
            if exchange.request_id == request_id:
                return exchange
        raise LookupError(f"there is no request {request_id} in flight")

    def _forget_watch(self) -> None:
        self._watch = None


class _Watch:
    """Collects routes and lag until it is no longer renewed.

    Args:
        server: the server.
        ended: called at the end.

    Attributes:
        began: reactor time at which it began.
        routes: the routes of the requests that have ended since.
    """

    def __init__(self, server: Watchable, ended: Callable[[], object]) -> None:
        self._server = server
        self._seconds = server.reactor.seconds
        self._ended = ended
        self.began = server.reactor.seconds()
        self.routes = Routes()
        self._lag = 0.0
        self._due = self._until = self.began
        self._call: IDelayedCall | None = None

    def renew(self, now: float) -> float:
        """Go on for another while.

        Returns:
            The longest delay since the last call.
        """
        self._until = now + WATCH_SECONDS
        if self._call is None:
            self._server.table.watcher = self._watcher()
            self._server.table.pending = self.routes.pending
            self._schedule(now)
        lag = max(self._lag, now - self._due)
        self._lag = 0.0
        return max(lag, 0.0)

    def _schedule(self, now: float) -> None:
        self._due = now + LAG_SECONDS
        self._call = self._server.reactor.callLater(LAG_SECONDS, self._measure)

    def _measure(self) -> None:
        now = self._server.reactor.seconds()
        self._lag = max(self._lag, now - self._due)
        self.routes.add_up()
        if now < self._until:
            self._schedule(now)
            return
        self._server.table.watcher = self._server.table.pending = None
        self._ended()

    def _watcher(self) -> Callable[[InFlight], None]:
        """Return the function that is called with each ended exchange.

        Its cost is that of the page: it does the least for requests that succeed.
        """
        seconds = self._seconds
        routes = self.routes
        pending = routes.pending

        def add(exchange: InFlight) -> None:
            head = exchange.head
            duration = seconds() - exchange.started
            code = exchange.code
            if code < 400 and exchange.outcome == "finished":
                try:
                    pending[head.method, head.path].append(duration)
                except KeyError:
                    routes.pending_of(head.method, head.path).append(duration)
                return
            # Not a client that disconnects: that is how streams of events end.
            failed = exchange.outcome in ("error", "timeout")
            routes.add(head.method, head.path, code, duration, failed=failed)

        return add
