"""The counters of requests: this is the hot path of each request.

Every number is written to the shared memory at once, so the counts of a process that is
killed are not lost. Ordinary requests, which are fast GET requests with status 200,
cost one write: they are one number, which the reader adds to the series that it stands
for. Only the sums of their durations and sizes are written later, by `publish`.

It knows ended exchanges. It must never know where the memory is.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from txgreenwsgi._serving.body import NO_BODY

from .families import (
    DURATION,
    FIRST_BYTE,
    METHODS,
    ORDINARY,
    OTHER,
    RECEIVED_BYTES,
    REQUESTS,
    SENT_BYTES,
    SIZE,
    STATUS_CLASSES,
    series_of,
    start_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._serving.metering import Metered
    from txgreenwsgi._switching.greenlets import Hub

    from .families import Numbers

__all__ = ["RequestMeter", "with_ordinary"]

_ORDINARY: Final = start_of(ORDINARY)
_DURATION: Final = start_of(DURATION)
_DURATION_SUM: Final = _DURATION + DURATION.width - 1
_FIRST_BYTE: Final = start_of(FIRST_BYTE)
_FIRST_BYTE_SUM: Final = _FIRST_BYTE + FIRST_BYTE.width - 1
_SENT: Final = start_of(SENT_BYTES)
_RECEIVED: Final = start_of(RECEIVED_BYTES)
_PLACES: Final = {series.labels: series.place for series in series_of(REQUESTS)}
_GET_200: Final = _PLACES["GET", "2xx", "finished"]

#: An ordinary request is faster, so that it is in the first bucket.
_FAST: Final = DURATION.bounds[0]
assert DURATION.bounds == FIRST_BYTE.bounds

_METHODS: Final = frozenset(METHODS)
_CLASSES: Final = dict(enumerate(STATUS_CLASSES[:-1]))
_OUTCOMES: Final = frozenset(dict(REQUESTS.labels)["outcome"])


class RequestMeter:
    """The counters of the requests of one server.

    Call from the reactor greenlet, except `begun`, which is called in a task.

    Args:
        values: the numbers, in the layout of `families`.
        hub: the hub of the server's tasks.
    """

    __slots__ = ("_bytes", "_first_bytes", "_hub", "_ordinary", "_seconds", "_values")

    def __init__(self, values: Numbers, hub: Hub) -> None:
        self._values = values
        self._hub = hub
        self._ordinary = int(values[_ORDINARY])
        # Those of ordinary requests since the last `publish`.
        self._seconds = 0.0
        self._bytes = 0
        # When responses began whose requests have not ended, unless they consist of
        # one block. By the reactor's clock.
        self._first_bytes: dict[Metered, float] = {}

    def begun(self, exchange: Metered) -> None:
        """Note the first byte of a response; a no-op for further ones."""
        if exchange not in self._first_bytes:
            self._first_bytes[exchange] = self._hub.seconds()

    def ended(self, exchange: Metered) -> None:
        """Count a request that has ended."""
        hub = self._hub
        # If a task has ended, the hub has just read the clock.
        now = hub.seconds() if exchange.task is None else hub.ended_at
        seconds = now - exchange.started
        if (
            seconds < _FAST
            and exchange.code == 200
            and exchange.outcome == "finished"
            and exchange.head.method == "GET"
            and exchange.body is NO_BODY
            and not (self._first_bytes and exchange in self._first_bytes)
        ):
            self._ordinary = count = self._ordinary + 1
            self._values[_ORDINARY] = count
            self._seconds += seconds
            self._bytes += exchange.bytes_sent
            return
        first = self._first_bytes.pop(exchange, now) - exchange.started
        self._count(
            exchange.head.method,
            exchange.code,
            exchange.outcome,
            max(seconds, 0.0),
            max(first, 0.0),
            exchange.bytes_sent,
        )
        self._values[_RECEIVED] += exchange.body.received_bytes

    def refused(self, code: int, bytes_sent: int) -> None:
        """Count a request whose head could not be parsed."""
        self._count("", code, "refused", 0.0, 0.0, bytes_sent)

    def _count(
        self,
        method: str,
        code: int,
        outcome: str,
        seconds: float,
        first: float,
        bytes_sent: int,
    ) -> None:
        values = self._values
        labels = (
            method if method in _METHODS else OTHER,
            _CLASSES.get(code // 100, OTHER),
            outcome if outcome in _OUTCOMES else OTHER,
        )
        values[_PLACES[labels]] += 1
        values[_DURATION + bisect_left(DURATION.bounds, seconds)] += 1
        values[_DURATION_SUM] += seconds
        if code:
            values[_FIRST_BYTE + bisect_left(FIRST_BYTE.bounds, first)] += 1
            values[_FIRST_BYTE_SUM] += first
        values[_SENT] += bytes_sent

    def publish(self) -> None:
        """Write the sums that are not in the memory yet."""
        seconds, self._seconds = self._seconds, 0.0
        sent, self._bytes = self._bytes, 0
        values = self._values
        values[_DURATION_SUM] += seconds
        values[_FIRST_BYTE_SUM] += seconds
        values[_SENT] += sent


def with_ordinary(numbers: Sequence[float]) -> list[float]:
    """Return the numbers with ordinary requests added to the series they stand for."""
    found = list(numbers)
    assert len(found) == SIZE, "the numbers have the layout"
    ordinary, found[_ORDINARY] = found[_ORDINARY], 0.0
    found[_GET_200] += ordinary
    found[_DURATION] += ordinary
    found[_FIRST_BYTE] += ordinary
    return found
