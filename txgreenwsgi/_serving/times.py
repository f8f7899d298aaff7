"""Where the time of requests goes: the queue, the application, its waits.

Measured only if a setting or an observer needs it. It knows exchanges and the waits of
their tasks. It must never know how the times are shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from twisted.logger import Logger

from txgreenwsgi._threads.calls import ThreadCall

from .blocks import seconds_so_far
from .registry import describe_wait

if TYPE_CHECKING:
    from collections.abc import Hashable

    from txgreenwsgi._switching.greenlets import Hub

    from .blocks import Block

__all__ = ["RequestTimes", "Timed", "Times"]

_log = Logger()

#: The longest wait of a request is described if it is at least so long.
_DESCRIBED_SECONDS: Final = 0.05


class Timed(Protocol):
    """The interface of an exchange that this file uses.

    Attributes:
        outcome: the outcome so far.
        code: the status code that was sent; 0 before.
        started: reactor time at which the head was complete.
        request_id: identity of the request in log lines.
        blocks: the blocks of the reactor by this request; None if there are none.
    """

    outcome: str
    code: int
    started: float
    request_id: str
    blocks: list[Block] | None

    @property
    def task(self) -> Hashable | None:
        """The task of the application; None if it was not called."""


class Times(NamedTuple):
    """Where the time of a request has gone so far, in seconds.

    Attributes:
        queued: in the queue behind `max_in_flight`.
        application: in the application, its waits excluded. In a request thread, waits
            that the thread has made without its task are included.
        waiting: in waits of the application: for a sleep, a socket, a lock, the client.
        blocked: the part of `application` for which the request held up all others, in
            blocks that lasted longer than `blocked_after`.
    """

    queued: float
    application: float
    waiting: float
    blocked: float


class _Waits:
    """The waits of one request.

    Attributes:
        seconds: their duration.
        longest: the duration of the longest one.
        waiting_on: its description; "" for a short one.
    """

    __slots__ = ("longest", "seconds", "waiting_on")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.longest = 0.0
        self.waiting_on = ""


class RequestTimes:
    """The times of the requests of one server.

    Args:
        hub: the hub of their tasks.
        slow_after: seconds from which on the end of a request is logged; 0 for never.
    """

    def __init__(self, hub: Hub, slow_after: float = 0.0) -> None:
        self._hub = hub
        self._slow_after = slow_after
        # Only of requests in flight.
        self._queued: dict[object, float] = {}
        self._waits: dict[object, _Waits] = {}
        self._others = hub.on_wait
        hub.on_wait = self._waited

    def dequeued(self, exchange: Timed) -> None:
        """Note the end of the time in the queue."""
        self._queued[exchange] = self._hub.seconds() - exchange.started

    def _waited(self, owner: object, waiting_on: object, seconds: float) -> None:
        """Add a wait. Called in the task that has waited."""
        if getattr(getattr(owner, "server", None), "times", None) is not self:
            if self._others is not None:
                self._others(owner, waiting_on, seconds)
            return
        if isinstance(waiting_on, ThreadCall):
            return  # the application runs in a thread meanwhile
        waits = self._waits.get(owner)
        if waits is None:
            waits = self._waits[owner] = _Waits()
        seconds = max(seconds, 0.0)
        waits.seconds += seconds
        if seconds > waits.longest:
            waits.longest = seconds
            waits.waiting_on = (
                describe_wait(waiting_on) if seconds >= _DESCRIBED_SECONDS else ""
            )

    def of(self, exchange: Timed) -> Times:
        """Return the times of a request in flight, or of one that ends now."""
        total = self._hub.seconds() - exchange.started
        queued = self._queued.get(exchange, 0.0)
        if exchange.task is None:
            return Times(max(total, 0.0), 0.0, 0.0, 0.0)
        waits = self._waits.get(exchange)
        waiting = 0.0 if waits is None else waits.seconds
        blocked = 0.0 if exchange.blocks is None else seconds_so_far(exchange.blocks)
        return Times(queued, max(total - queued - waiting, 0.0), waiting, blocked)

    def ended(self, exchange: Timed) -> None:
        """Forget a request that has ended; log it if it was slow."""
        if self._slow_after and exchange.task is not None:
            seconds = self._hub.seconds() - exchange.started
            if seconds >= self._slow_after:
                self._log_slow(exchange, seconds)
        if self._waits:
            self._waits.pop(exchange, None)
        if self._queued:
            self._queued.pop(exchange, None)

    def _log_slow(self, exchange: Timed, seconds: float) -> None:
        times = self.of(exchange)
        waits = self._waits.get(exchange)
        longest = ""
        if waits is not None and waits.waiting_on:
            longest = f", longest {waits.longest:.2f} s on {waits.waiting_on}"
        _log.warn(
            "slow request: {request} took {seconds:.2f} s ({outcome}, status "
            "{status:03d}): {queued:.2f} s queued, {application:.2f} s in the "
            "application, {waiting:.2f} s waiting{longest}; it blocked the reactor for "
            "{blocked:.2f} s",
            request=exchange,
            request_id=exchange.request_id,
            seconds=seconds,
            outcome=exchange.outcome,
            status=exchange.code,
            queued=times.queued,
            application=times.application,
            waiting=times.waiting,
            longest=longest,
            blocked=times.blocked,
        )
