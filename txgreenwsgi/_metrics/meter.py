"""The counters of requests: this is the hot path of each request.

Every count is written to the shared memory at once, so the counts of a process that is
killed are not lost. Fast requests cost one write, or two: the number of those in the
first bucket of each histogram, which the reader adds to the series that it stands for;
and the place of their labels, unless they are GET requests with status 200. Only the
sums of their durations and sizes are written later, by `publish`.

It knows ended exchanges. It must never know where the memory is.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from txgreenwsgi._native import lanes
from txgreenwsgi._serving.body import NO_BODY
from txgreenwsgi._serving.metering import FAST_SECONDS
from txgreenwsgi._serving.metering import ORDINARY as ORDINARY_PLACE
from txgreenwsgi.monitoring.records import OUTCOMES

from .families import (
    CLOSES,
    DURATION,
    FAST,
    FIRST_BYTE,
    MESSAGE_BYTES,
    MESSAGES,
    METHODS,
    ORDINARY,
    OTHER,
    RECEIVED_BYTES,
    REQUESTS,
    SENT_BYTES,
    SIZE,
    STATUS_CLASSES,
    UPGRADED_RECEIVED_BYTES,
    UPGRADED_SECONDS,
    UPGRADED_SENT_BYTES,
    UPGRADES,
    series_of,
    start_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._serving.metering import Metered
    from txgreenwsgi._switching.greenlets import Hub

    from .families import Numbers

__all__ = ["MessageMeter", "RequestMeter", "with_ordinary"]

_ORDINARY: Final = start_of(ORDINARY)
_FAST: Final = start_of(FAST)
_DURATION: Final = start_of(DURATION)
_DURATION_SUM: Final = _DURATION + DURATION.width - 1
_FIRST_BYTE: Final = start_of(FIRST_BYTE)
_FIRST_BYTE_SUM: Final = _FIRST_BYTE + FIRST_BYTE.width - 1
_SENT: Final = start_of(SENT_BYTES)
_RECEIVED: Final = start_of(RECEIVED_BYTES)
_UPGRADES: Final = {series.labels[0]: series.place for series in series_of(UPGRADES)}
_UPGRADED_SECONDS: Final = start_of(UPGRADED_SECONDS)
_UPGRADED_SENT: Final = start_of(UPGRADED_SENT_BYTES)
_UPGRADED_RECEIVED: Final = start_of(UPGRADED_RECEIVED_BYTES)
_MESSAGES: Final = {series.labels[0]: series.place for series in series_of(MESSAGES)}
_MESSAGE_BYTES: Final = {
    series.labels[0]: series.place for series in series_of(MESSAGE_BYTES)
}
_CLOSES: Final = {series.labels[0]: series.place for series in series_of(CLOSES)}

# A fast request is in the first bucket.
assert DURATION.bounds[0] == FIRST_BYTE.bounds[0] == FAST_SECONDS
assert _ORDINARY == ORDINARY_PLACE

_SERIES: Final = {series.labels: series.place for series in series_of(REQUESTS)}
_METHODS: Final = frozenset(METHODS)
_CLASSES: Final = dict(enumerate(STATUS_CLASSES[:-1]))
_OUTCOMES: Final = frozenset(dict(REQUESTS.labels)["outcome"])


def _place_of(method: str, code: int, outcome: str) -> int:
    """Return the place of the count of a request."""
    return _SERIES[
        method if method in _METHODS else OTHER,
        _CLASSES.get(code // 100, OTHER),
        outcome if outcome in _OUTCOMES else OTHER,
    ]


_CODES: Final = (
    *(0, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308),
    *(400, 401, 403, 404, 405, 408, 409, 410, 413, 422, 429, 500, 502, 503, 504),
)

#: The places of frequent requests.
_PLACES: Final = {
    (method, code, outcome): _place_of(method, code, outcome)
    for method in METHODS
    for code in _CODES
    for outcome in OUTCOMES
}


class MessageMeter:
    """The counters of the messages of WebSockets. See `MessageCounts`.

    A message costs two additions of integers; `publish` writes them.

    Args:
        values: the numbers, in the layout of `families`.
    """

    __slots__ = (
        "_closes",
        "_values",
        "received",
        "received_bytes",
        "sent",
        "sent_bytes",
    )

    def __init__(self, values: Numbers) -> None:
        self._values = values
        # By the place of the code.
        self._closes: dict[int, int] = {}
        self.received = self.received_bytes = 0
        self.sent = self.sent_bytes = 0

    def closed(self, code: int) -> None:
        """Count a WebSocket that is closed."""
        place = _CLOSES.get(str(code))
        if place is None:
            place = _CLOSES.get(f"{code // 1000}xxx", _CLOSES[OTHER])
        self._closes[place] = self._closes.get(place, 0) + 1

    def publish(self) -> None:
        """Write what was counted since the last call."""
        values = self._values
        if self.received:
            values[_MESSAGES["received"]] += self.received
            values[_MESSAGE_BYTES["received"]] += self.received_bytes
            self.received = self.received_bytes = 0
        if self.sent:
            values[_MESSAGES["sent"]] += self.sent
            values[_MESSAGE_BYTES["sent"]] += self.sent_bytes
            self.sent = self.sent_bytes = 0
        if self._closes:
            for place, count in self._closes.items():
                values[place] += count
            self._closes.clear()


class RequestMeter(lanes.RequestMeterState):
    """The counters of the requests of one server. See `RequestMetrics`.

    Call from the reactor greenlet, except `begun`, which is called in a task.

    Args:
        values: the numbers, in the layout of `families`.
        hub: the hub of the server's tasks.
    """

    __slots__ = lanes.slots(
        lanes.RequestMeterState,
        (
            "_fast",
            "_hub",
            "first_bytes",
            "messages",
            "ordinary",
            "seconds",
            "sent",
            "values",
        ),
    )

    def __init__(self, values: Numbers, hub: Hub) -> None:
        self.values = values
        self._hub = hub
        self.messages = MessageMeter(values)
        # Floating-point numbers, as in the memory.
        self.ordinary = float(values[_ORDINARY])
        self._fast = float(values[_FAST])
        # Those of fast requests since the last `publish`.
        self.seconds = 0.0
        self.sent = 0
        # When responses began whose requests have not ended, unless they consist of
        # one block. By the reactor's clock.
        self.first_bytes: dict[Metered, float] = {}

    def begun(self, exchange: Metered) -> None:
        """Note the first byte of a response; a no-op for further ones."""
        if exchange not in self.first_bytes:
            self.first_bytes[exchange] = self._hub.seconds()

    def ended(self, exchange: Metered) -> None:
        """Count a request that has ended, and that its server has not counted."""
        code = exchange.code
        now = self._hub.seconds() if exchange.task is None else self._hub.ended_at
        seconds = now - exchange.started
        first = self.first_bytes.pop(exchange, now) - exchange.started
        if exchange.body is not NO_BODY:
            if exchange.is_upgraded:
                self._upgraded_ended(exchange, seconds, first)
                return
            self.values[_RECEIVED] += exchange.body.received_bytes
        if seconds < FAST_SECONDS and code:
            # Its first byte was sent in that time too.
            self._fast = count = self._fast + 1.0
            self.values[_FAST] = count
            self._count(exchange.head.method, code, exchange.outcome)
            self.seconds += seconds
            self.sent += exchange.bytes_sent
            return
        values = self.values
        self._count(exchange.head.method, code, exchange.outcome)
        values[_DURATION + bisect_left(DURATION.bounds, seconds)] += 1
        values[_DURATION_SUM] += max(seconds, 0.0)
        if code:
            self._add_first_byte(first)
        values[_SENT] += exchange.bytes_sent

    def _upgraded_ended(self, exchange: Metered, seconds: float, first: float) -> None:
        """Count a connection that was switched to another protocol, and has ended.

        It may have been open for hours, so it is in no histogram of durations.
        """
        values = self.values
        outcome = exchange.outcome
        self._count(exchange.head.method, exchange.code, outcome)
        if exchange.code:
            self._add_first_byte(first)
        values[_UPGRADES[outcome if outcome in _OUTCOMES else OTHER]] += 1
        values[_UPGRADED_SECONDS] += max(seconds, 0.0)
        values[_UPGRADED_SENT] += exchange.bytes_sent
        values[_UPGRADED_RECEIVED] += exchange.body.received_bytes

    def _add_first_byte(self, seconds: float) -> None:
        values = self.values
        values[_FIRST_BYTE + bisect_left(FIRST_BYTE.bounds, seconds)] += 1
        values[_FIRST_BYTE_SUM] += max(seconds, 0.0)

    def refused(self, code: int, bytes_sent: int) -> None:
        """Count a request whose head could not be parsed."""
        self._fast = count = self._fast + 1.0
        self.values[_FAST] = count
        self._count("", code, "refused")
        self.sent += bytes_sent

    def _count(self, method: str, code: int, outcome: str) -> None:
        place = _PLACES.get((method, code, outcome))
        if place is None:
            place = _place_of(method, code, outcome)
        self.values[place] += 1.0

    def publish(self) -> None:
        """Write the sums that are not in the memory yet."""
        seconds, self.seconds = self.seconds, 0.0
        sent, self.sent = self.sent, 0
        values = self.values
        values[_DURATION_SUM] += seconds
        values[_FIRST_BYTE_SUM] += seconds
        values[_SENT] += sent
        self.messages.publish()


def with_ordinary(numbers: Sequence[float]) -> list[float]:
    """Return the numbers with ordinary requests added to the series they stand for."""
    found = list(numbers)
    assert len(found) == SIZE, "the numbers have the layout"
    ordinary, fast = found[_ORDINARY], found[_FAST]
    found[_ORDINARY] = found[_FAST] = 0.0
    found[_place_of("GET", 200, "finished")] += ordinary
    found[_DURATION] += ordinary + fast
    found[_FIRST_BYTE] += ordinary + fast
    return found
