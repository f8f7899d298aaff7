"""Graceful shutdown: requests finish, then connections close.

A connection whose client may still send a request stays open for a while: see
`docs/decisions/0023-lossless-shutdown.md`. Shutdown is complete when no request is in
flight and the last byte of every response has left the process. This file knows the
interface of connections. It must never know their protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txgreenwsgi._native import lanes

from .registry import describe_wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from .registry import InFlight, RequestTable

__all__ = ["Connection", "Shutdown"]

_log = Logger()

#: Seconds for cancelled requests to clean up after the grace period.
_CLEANUP_SECONDS = 1.0


class Connection(Protocol):
    """The interface of a connection that the shutdown uses."""

    def stop(self) -> None:
        """Close once no request is in flight or expected, and all bytes are sent."""

    def end_of_grace(self) -> None:
        """Close now if no request is in flight."""

    def abort(self) -> None:
        """Close at once; discard unsent bytes."""

    def check(self, now: float) -> None:
        """Apply the deadlines of the connection."""

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""


class Shutdown:
    """The shutdown of one server, and the connections it waits for.

    Call from the reactor greenlet.

    Args:
        table: the requests in flight.
        forget: removes a request that survived a kill.

    Attributes:
        stopping: whether a shutdown has begun.
        began: reactor time at which it began.
        connections: all open connections.
        on_stop: functions to call when a shutdown begins; they may add to
            `connections`.
    """

    def __init__(
        self, table: RequestTable, forget: Callable[[InFlight], object]
    ) -> None:
        self.stopping = False
        self.began = 0.0
        self.connections: set[Connection] = set()
        self.on_stop: list[Callable[[], object]] = []
        self._table = table
        self._forget = forget
        self._completed: list[Deferred[None]] = []
        self._call: IDelayedCall | None = None

    def begin(self, grace_seconds: float, reactor: IReactorTime) -> Deferred[None]:
        """Let requests in flight finish, then close; see `GreenSite.stop`."""
        if not self.stopping:
            self.stopping = True
            self.began = reactor.seconds()
        done: Deferred[None] = Deferred()
        self._completed.append(done)
        for function in self.on_stop:
            function()
        for connection in list(self.connections):
            connection.stop()
        for exchange in list(self._table.exchanges):
            exchange.server_stops()
        self.complete_if_idle()
        if not done.called and self._call is None:
            self._call = reactor.callLater(grace_seconds, self._end_requests, reactor)
        return done

    def end_grace_now(self) -> None:
        """End the grace period of a shutdown in progress."""
        if self._call is not None and self._call.active():
            self._call.reset(0)

    def complete_if_idle(self) -> None:
        """Fire the Deferreds of `begin` if no connection or request is left."""
        if not (self.connections or self._table.exchanges):
            self._complete()

    def call_off(self) -> None:
        """End a shutdown in progress: the server serves again.

        The Deferreds of `begin` fire, and the requests in flight go on.
        """
        self.stopping = False
        self._complete()

    def _complete(self) -> None:
        if self._call is not None:
            if self._call.active():
                self._call.cancel()
            self._call = None
        lanes.forget_fields()
        completed, self._completed = self._completed, []
        for done in completed:
            done.callback(None)

    def _end_requests(self, reactor: IReactorTime) -> None:
        self._call = reactor.callLater(_CLEANUP_SECONDS, self._end_connections)
        for exchange in list(self._table.exchanges):
            _log.warn(
                "shutdown: grace period over, cancelling {request}", request=exchange
            )
            exchange.cancel()
        for connection in list(self.connections):
            connection.end_of_grace()
        self.complete_if_idle()

    def _end_connections(self) -> None:
        for exchange in list(self._table.exchanges):
            task = exchange.task
            if task is not None:
                _log.warn(
                    "shutdown: {request} did not end after its cancellation, killing "
                    "it; waiting on {waiting_on}",
                    request=exchange,
                    waiting_on=describe_wait(task.waiting_on),
                )
                exchange.kill()
        # A task that survives a kill must not keep the process alive.
        for exchange in list(self._table.exchanges):
            self._forget(exchange)
        for connection in list(self.connections):
            connection.abort()
        self.complete_if_idle()
