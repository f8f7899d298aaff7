"""The metrics of a server: names, labels, bounds, and their places in memory.

All values of one process are numbers in one array of fixed layout, so a process counts
without locks and another one reads without a message. It knows names and numbers. It
must never know what is counted.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from txgreenwsgi._serving.metering import FAST_SECONDS
from txgreenwsgi.monitoring.records import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "BLOCKS",
    "BLOCK_SECONDS",
    "BUILD",
    "CLOSES",
    "CLOSE_CODES",
    "CONNECTIONS",
    "CONNECTION_STATES",
    "DURATION",
    "FAMILIES",
    "FAST",
    "FIRST_BYTE",
    "INTERNAL",
    "IN_FLIGHT",
    "LAG",
    "LAYOUT",
    "MASTER_FAMILIES",
    "MESSAGES",
    "MESSAGE_BYTES",
    "METHODS",
    "ORDINARY",
    "OTHER",
    "POOL_CONNECTIONS",
    "POOL_TIMEOUTS",
    "POOL_WAITING",
    "POOL_WAITS",
    "POOL_WAIT_SECONDS",
    "QUEUED",
    "RECEIVED_BYTES",
    "RELOADS",
    "REQUESTS",
    "RESIDENT",
    "RESTARTS",
    "RESTART_REASONS",
    "SENT_BYTES",
    "SIZE",
    "STATUS_CLASSES",
    "TASKS",
    "TASK_STATES",
    "UPGRADED",
    "UPGRADED_RECEIVED_BYTES",
    "UPGRADED_SECONDS",
    "UPGRADED_SENT_BYTES",
    "UPGRADES",
    "WORKERS",
    "WORKER_STATES",
    "Family",
    "Kind",
    "Numbers",
    "Series",
    "all_names",
    "folded",
    "series_of",
    "start_of",
    "summed",
]

Kind = Literal["counter", "gauge", "histogram"]

#: The value of a label for everything that is not listed.
OTHER: Final = "other"

#: RFC 9110 section 9 and RFC 5789. Clients can make up others.
METHODS: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"),
    OTHER,
)

#: "none" if no response was sent.
STATUS_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx", OTHER)

#: The states of connections; "other" for protocols with states of their own.
CONNECTION_STATES: Final = (
    *("idle", "head", "serving", "upgraded", "draining", "lingering", "closed"),
    *("open", "announced", "finishing"),  # of HTTP/2
    OTHER,
)

#: Close codes of WebSockets (RFC 6455 section 7.4). Those of libraries and applications
#: are too many: they are counted by their range.
CLOSE_CODES: Final = (*map(str, range(1000, 1016)), "3xxx", "4xxx", OTHER)

#: The states of tasks that have not ended.
TASK_STATES: Final = ("new", "ready", "running", "parked", OTHER)

#: The states of workers.
WORKER_STATES: Final = ("booting", "ready", "draining")

#: Why the master has replaced a worker.
RESTART_REASONS: Final = (
    "crash",  # it has ended without being told to
    "hang",  # its reactor was blocked for --worker-timeout
    "reload",  # SIGHUP, `txgreenwsgi reload`, or a change of a file with --reload
    "recycle",  # --max-requests, --max-lifetime or --max-rss
    "signal",  # it was told to end by a signal of its own
)

_SECONDS: Final = (
    *(FAST_SECONDS, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_LAG_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)


class Numbers(Protocol):
    """The numbers of one process: a list, or shared memory."""

    def __getitem__(self, place: int, /) -> float:
        """Return a number."""

    def __setitem__(self, place: int, number: float, /) -> None:
        """Set a number."""


class Series(NamedTuple):
    """One series of a family: the values of its labels, and its place.

    Attributes:
        labels: the values, in the order of the names.
        place: the index of its first number.
    """

    labels: tuple[str, ...]
    place: int


@dataclass(frozen=True)
class Family:
    """The series with one name.

    Attributes:
        name: without the suffix that the kind of metric adds, such as "_total".
        kind: the kind of metric.
        meaning: the description in a sentence.
        labels: the names of the labels, each with its possible values.
        bounds: the upper bounds of a histogram's buckets, each inclusive.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """The number of numbers of each series.

        A histogram has one for each bucket, one for the values above all bounds, and
        their sum.
        """
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels."""
        return tuple(name for name, _ in self.labels)

    def sample_names(self) -> set[str]:
        """Return the names of the samples, as a query uses them."""
        if self.kind == "counter":
            return {f"{self.name}_total"}
        if self.kind == "gauge":
            return {self.name}
        return {f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum")}


REQUESTS: Final = Family(
    "txgreenwsgi_requests",
    "counter",
    "Requests that have ended.",
    (
        ("method", METHODS),
        ("status_class", STATUS_CLASSES),
        ("outcome", (*OUTCOMES, OTHER)),
    ),
)
#: Two numbers that the reader adds to the series that they stand for: see `meter`.
ORDINARY: Final = Family(
    "ordinary", "counter", "GET requests with status 200 that were fast."
)
FAST: Final = Family(
    "fast", "counter", "Other requests that were fast: in the first buckets."
)
DURATION: Final = Family(
    "txgreenwsgi_request_duration_seconds",
    "histogram",
    "Time from the end of the request head to the end of the request; not of a "
    "WebSocket.",
    bounds=_SECONDS,
)
FIRST_BYTE: Final = Family(
    "txgreenwsgi_response_first_byte_seconds",
    "histogram",
    "Time from the end of the request head to the first byte of the response.",
    bounds=_SECONDS,
)
SENT_BYTES: Final = Family(
    "txgreenwsgi_response_body_bytes",
    "counter",
    "Bytes of response bodies sent, without framing.",
)
RECEIVED_BYTES: Final = Family(
    "txgreenwsgi_request_body_bytes",
    "counter",
    "Bytes of request bodies received, without framing.",
)
IN_FLIGHT: Final = Family(
    "txgreenwsgi_requests_in_flight",
    "gauge",
    "Requests that have not ended, queued ones included.",
)
QUEUED: Final = Family(
    "txgreenwsgi_requests_queued",
    "gauge",
    "Requests that wait for a slot (--max-in-flight).",
)
UPGRADED: Final = Family(
    "txgreenwsgi_websockets_open", "gauge", "WebSockets that have not ended."
)
UPGRADES: Final = Family(
    "txgreenwsgi_websockets_ended",
    "counter",
    "WebSockets that have ended; each is also in txgreenwsgi_requests_total.",
    (("outcome", (*OUTCOMES, OTHER)),),
)
UPGRADED_SECONDS: Final = Family(
    "txgreenwsgi_websocket_seconds",
    "counter",
    "Duration of these WebSockets.",
)
UPGRADED_SENT_BYTES: Final = Family(
    "txgreenwsgi_websocket_sent_bytes",
    "counter",
    "Bytes sent on these WebSockets, with their framing.",
)
UPGRADED_RECEIVED_BYTES: Final = Family(
    "txgreenwsgi_websocket_received_bytes",
    "counter",
    "Bytes received on these WebSockets, with their framing.",
)
_DIRECTIONS: Final = ("direction", ("received", "sent"))
MESSAGES: Final = Family(
    "txgreenwsgi_websocket_messages",
    "counter",
    "Messages of WebSockets; not of those on gunicorn.socket.",
    (_DIRECTIONS,),
)
MESSAGE_BYTES: Final = Family(
    "txgreenwsgi_websocket_message_bytes",
    "counter",
    "Bytes of these messages, without framing and compression.",
    (_DIRECTIONS,),
)
CLOSES: Final = Family(
    "txgreenwsgi_websocket_closes",
    "counter",
    "WebSockets that were closed, by close code; not those on gunicorn.socket.",
    (("code", CLOSE_CODES),),
)
CONNECTIONS: Final = Family(
    "txgreenwsgi_connections",
    "gauge",
    "Open connections by state.",
    (("state", CONNECTION_STATES),),
)
TASKS: Final = Family(
    "txgreenwsgi_tasks",
    "gauge",
    "Tasks by state: those of requests, and those that the application has started.",
    (("state", TASK_STATES),),
)
LAG: Final = Family(
    "txgreenwsgi_reactor_lag_seconds",
    "histogram",
    "Delay of a timer of the reactor, which is measured four times a second.",
    bounds=_LAG_SECONDS,
)
BLOCKS: Final = Family(
    "txgreenwsgi_reactor_blocked",
    "counter",
    "Blocks of the reactor that lasted longer than --blocked-after.",
)
BLOCK_SECONDS: Final = Family(
    "txgreenwsgi_reactor_blocked_seconds",
    "counter",
    "Duration of these blocks.",
)
POOL_WAITS: Final = Family(
    "txgreenwsgi_pool_waits",
    "counter",
    "Waits for a free connection of a connection pool that have ended.",
)
POOL_WAIT_SECONDS: Final = Family(
    "txgreenwsgi_pool_wait_seconds",
    "counter",
    "Duration of these waits.",
)
POOL_TIMEOUTS: Final = Family(
    "txgreenwsgi_pool_timeouts",
    "counter",
    "Requests for a connection that raised PoolTimeout.",
)
POOL_WAITING: Final = Family(
    "txgreenwsgi_pool_waiting",
    "gauge",
    "Tasks and threads that wait for a free connection of a connection pool.",
)
POOL_CONNECTIONS: Final = Family(
    "txgreenwsgi_pool_connections",
    "gauge",
    "Open connections of the connection pools by state.",
    (("state", ("in_use", "idle")),),
)

#: Not shown: they are added to others.
INTERNAL: Final = (ORDINARY, FAST)

#: The metrics of each process that serves, in the order of the layout.
FAMILIES: Final = (
    *(ORDINARY, FAST, REQUESTS, DURATION, FIRST_BYTE, SENT_BYTES, RECEIVED_BYTES),
    *(IN_FLIGHT, QUEUED, UPGRADED, UPGRADES, UPGRADED_SECONDS),
    *(UPGRADED_SENT_BYTES, UPGRADED_RECEIVED_BYTES),
    *(MESSAGES, MESSAGE_BYTES, CLOSES),
    *(CONNECTIONS, TASKS, LAG, BLOCKS, BLOCK_SECONDS),
    *(POOL_WAITS, POOL_WAIT_SECONDS, POOL_TIMEOUTS, POOL_WAITING, POOL_CONNECTIONS),
)

WORKERS: Final = Family(
    "txgreenwsgi_workers",
    "gauge",
    "Worker processes by state.",
    (("state", WORKER_STATES),),
)
RESTARTS: Final = Family(
    "txgreenwsgi_worker_restarts",
    "counter",
    "Workers that have ended and were replaced, by reason.",
    (("reason", RESTART_REASONS),),
)
RELOADS: Final = Family("txgreenwsgi_reloads", "counter", "Reloads that were begun.")
RESIDENT: Final = Family(
    "txgreenwsgi_resident_memory_bytes",
    "gauge",
    "Resident memory of each process that serves, by the slot of the worker.",
    (("slot", ()),),
)
BUILD: Final = Family(
    "txgreenwsgi_build_info",
    "gauge",
    "1, with the version of the server.",
    (("version", ()),),
)

#: Further metrics, which are no part of the layout.
MASTER_FAMILIES: Final = (WORKERS, RESTARTS, RELOADS, RESIDENT, BUILD)


def _places() -> tuple[dict[str, int], int]:
    """Return the first place of each family, and the number of places."""
    places: dict[str, int] = {}
    place = 0
    for family in FAMILIES:
        places[family.name] = place
        count = 1
        for _, values in family.labels:
            count *= len(values)
        place += count * family.width
    return places, place


_STARTS, SIZE = _places()

#: Differs for each layout: processes of different versions have different ones.
LAYOUT: Final = 1 | zlib.crc32(
    repr([(each.name, each.labels, each.bounds) for each in FAMILIES]).encode()
)


def start_of(family: Family) -> int:
    """Return the place of the first number of a family in the layout."""
    return _STARTS[family.name]


def series_of(family: Family) -> Iterator[Series]:
    """Return the series of a family in the layout, in the order of their places."""
    place = start_of(family)
    for labels in product(*(values for _, values in family.labels)):
        yield Series(labels, place)
        place += family.width


def _accumulates() -> list[bool]:
    """Return, for each place, whether its number only grows."""
    found = []
    for family in FAMILIES:
        for _ in series_of(family):
            found += [family.kind != "gauge"] * family.width
    return found


_ACCUMULATES: Final = _accumulates()


def summed(arrays: Sequence[Sequence[float]]) -> list[float]:
    """Return the sums of the numbers of several processes.

    Args:
        arrays: the numbers of each process.
    """
    if not arrays:
        return [0.0] * SIZE
    return [float(sum(numbers)) for numbers in zip(*arrays, strict=True)]


def folded(totals: Sequence[float], ended: Sequence[float]) -> list[float]:
    """Return totals with those numbers of an ended process that only grow."""
    return [
        total + number if accumulates else total
        for total, number, accumulates in zip(totals, ended, _ACCUMULATES, strict=True)
    ]


def all_names() -> set[str]:
    """Return the names of all samples, as a query uses them."""
    shown = (each for each in FAMILIES if each not in INTERNAL)
    families = (*shown, *MASTER_FAMILIES)
    return set().union(*(family.sample_names() for family in families))
