"""The table of requests in flight, and the observers of finished ones.

This file knows the requests of one server. It must never know how they are served.
"""

from __future__ import annotations

import os
from heapq import nsmallest
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from twisted.logger import Logger

from txgreenwsgi._native import lanes
from txgreenwsgi.monitoring.records import Observer, needs_of
from txgreenwsgi.monitoring.requests import RequestInFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._switching.greenlets import Task
    from txgreenwsgi.monitoring.records import ExchangeRecord

    from .blocks import Block
    from .stream import Ends

__all__ = ["InFlight", "Observer", "RequestInFlight", "RequestTable", "describe_wait"]

_log = Logger()


class InFlight(Protocol):
    """The interface of an exchange that the table uses."""

    head: RequestHead
    request_id: str
    started: float
    task: Task[None] | None
    blocks: list[Block] | None
    ends: Ends
    code: int
    bytes_sent: int
    outcome: str

    @property
    def is_upgraded(self) -> bool:
        """Whether the connection was switched to another protocol."""

    def server_stops(self) -> None:
        """Notify the application that a shutdown has begun, if it has asked for it."""

    def cancel(self, reason: str = ...) -> None:
        """Raise `Cancelled` at the current wait, with this text."""

    def kill(self) -> None:
        """End the task without waiting for it; only for a process that exits."""

    def check(self, now: float) -> None:
        """Apply the deadlines of the request."""

    def leave_to_parent(self) -> None:
        """Send nothing more. Called in the child of a fork."""

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""


_tables: WeakSet[RequestTable] = WeakSet()


class RequestTable(lanes.RequestTableState):
    """The requests in flight of one server, and its observers.

    Attributes:
        exchanges: all exchanges in progress.
        observers: callables that receive the record of every finished exchange.
        needs: the optional fields of records that an observer needs.
        watcher: called with each ended exchange while snapshots are taken; None
            otherwise.
        pending: meanwhile, the durations of requests that have succeeded, by method and
            path: the compiled fast path appends to a list that is there, in place of
            calling `watcher`. None otherwise.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self.exchanges: set[InFlight] = set()
        self.observers = list(observers)
        self.needs = frozenset[str]().union(*map(needs_of, self.observers))
        self.watcher: Callable[[InFlight], object] | None = None
        self.pending: dict[tuple[str, str], list[float]] | None = None
        self._id_prefix = ""
        self._last_id = 0
        _tables.add(self)

    @property
    def ended(self) -> int:
        """The number of requests that have ended."""
        return self._last_id - len(self.exchanges)

    def next_id(self) -> str:
        """Return an identity that is unique across processes."""
        if not self._id_prefix:
            # Drawn at the first request, not at start: workers fork in between.
            self._id_prefix = os.urandom(4).hex()
        self._last_id += 1
        return f"{self._id_prefix}-{self._last_id:x}"

    @property
    def count(self) -> int:
        """The number of requests so far."""
        return self._last_id

    def observe(self, record: ExchangeRecord) -> None:
        """Pass `record` to the observers; log exceptions that they raise."""
        for observer in self.observers:
            try:
                observer(record)
            except BaseException:  # SystemExit too: the connection must continue
                _log.failure("observer {observer} failed", observer=observer)

    def rows(self, now: float, limit: int | None = None) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first. Never parks.

        Args:
            now: the reactor's clock.
            limit: maximum number of rows; None for all.
        """
        if limit is None:
            exchanges = sorted(self.exchanges, key=_by_age)
        else:
            exchanges = nsmallest(limit, self.exchanges, _by_age)
        return [_row(exchange, now) for exchange in exchanges]


def _row(exchange: InFlight, now: float) -> RequestInFlight:
    task = exchange.task
    waiting_on = None if task is None else task.waiting_on
    return RequestInFlight(
        request_id=exchange.request_id,
        method=exchange.head.method,
        path=exchange.head.path,
        age=now - exchange.started,
        state="queued" if task is None else task.state,
        waiting_on="" if waiting_on is None else describe_wait(waiting_on),
        waiting_seconds=0.0 if task is None else task.parked_seconds,
        status=exchange.code,
        bytes_sent=exchange.bytes_sent,
        remote_addr=exchange.ends.remote_addr,
        user_agent=exchange.head.variables.get("HTTP_USER_AGENT", ""),
    )


def _by_age(exchange: InFlight) -> tuple[float, int, str]:
    # Identities count up, so they order requests that started at the same time.
    return exchange.started, len(exchange.request_id), exchange.request_id


def describe_wait(waiting_on: object) -> str:
    """Return the target of a wait as text."""
    return waiting_on if isinstance(waiting_on, str) else repr(waiting_on)


def _leave_to_parent() -> None:
    """Leave all clients to the parent process. Called in the child of a fork."""
    for table in list(_tables):
        for exchange in table.exchanges:
            exchange.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
