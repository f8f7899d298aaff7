"""The table of requests in flight, and the observers of finished ones.

This file knows the requests of one server. It must never know how they are served.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from twisted.logger import Logger

from txgreenwsgi._native import lanes
from txgreenwsgi.monitoring.records import Observer, needs_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._switching.greenlets import Task
    from txgreenwsgi.monitoring.records import ExchangeRecord

    from .blocks import Block

__all__ = ["InFlight", "Observer", "RequestInFlight", "RequestTable", "describe_wait"]

_log = Logger()


class InFlight(Protocol):
    """The interface of an exchange that the table uses."""

    head: RequestHead
    request_id: str
    started: float
    task: Task[None] | None
    blocks: list[Block] | None

    def server_stops(self) -> None:
        """Notify the application that a shutdown has begun, if it has asked for it."""

    def cancel(self) -> None:
        """Cancel the request at the end of the shutdown's grace period."""

    def kill(self) -> None:
        """End the task without waiting for it; only for a process that exits."""

    def check(self, now: float) -> None:
        """Apply the deadlines of the request."""

    def leave_to_parent(self) -> None:
        """Send nothing more. Called in the child of a fork."""

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""


@dataclass(frozen=True)
class RequestInFlight:
    """One row of the table of requests, as `txgreenwsgi.requests` returns it.

    Attributes:
        request_id: identity of the request in log lines.
        method: the request method, such as "GET".
        path: the percent-decoded path, as in PATH_INFO.
        age: seconds since the head was complete.
        state: the task's state, "parked", "running" or "ready"; or "queued".
        waiting_on: description of a parked task's wait; "" otherwise.
    """

    request_id: str
    method: str
    path: str
    age: float
    state: str
    waiting_on: str


_tables: WeakSet[RequestTable] = WeakSet()


@lanes.with_lanes
class RequestTable(lanes.RequestTableState):
    """The requests in flight of one server, and its observers.

    Attributes:
        exchanges: all exchanges in progress.
        observers: callables that receive the record of every finished exchange.
        needs: the optional fields of records that an observer needs.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self.exchanges: set[InFlight] = set()
        self.observers = list(observers)
        self.needs = frozenset[str]().union(*map(needs_of, self.observers))
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

    def rows(self, now: float) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first. Never parks.

        Args:
            now: the reactor's clock.
        """
        return [_row(exchange, now) for exchange in sorted(self.exchanges, key=_by_age)]


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
