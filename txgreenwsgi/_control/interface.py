"""The functions of a server behind its control socket, and their results.

It must never know the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypedDict

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = [
    "CANCEL_REFUSED",
    "BlockedInformation",
    "ControlError",
    "Controlled",
    "FailureInformation",
    "ReloadOutcome",
    "RequestInformation",
    "RouteInformation",
    "ServerInformation",
    "SnapshotInformation",
    "WorkerInformation",
]


#: The answer to a cancellation that no option allows.
CANCEL_REFUSED: Final = (
    "requests cannot be cancelled: start the server with --status-cancel"
)


class ControlError(Exception):
    """A command cannot be carried out. The message gives the reason and the remedy."""


class RequestInformation(TypedDict):
    """One request in flight: see `txgreenwsgi.monitoring.RequestInFlight`."""

    request_id: str
    method: str
    path: str
    age: float
    state: str
    waiting_on: str
    waiting_seconds: float
    status: int
    bytes_sent: int
    remote_addr: str
    user_agent: str


class WorkerInformation(TypedDict):
    """One process that serves. Times are in seconds, `rss` is in bytes.

    `in_flight` is None if the process has not answered in time: `requests`, and
    `current`, the request that it runs, are then from the master's last notice. Numbers
    that are unknown are None.
    """

    worker: int
    slot: int
    pid: int
    state: str
    age: float
    requests: int | None
    connections: int | None
    served: int | None
    lag: float | None
    beat_age: float | None
    rss: int | None
    current: str
    in_flight: list[RequestInformation] | None


class RouteInformation(TypedDict):
    """One route: see `txgreenwsgi.monitoring.RouteStatistics`.

    `mean` and `p95` are its mean duration and its quantile of 95 %, in seconds.
    """

    method: str
    pattern: str
    requests: int
    failures: int
    seconds: float
    longest: float
    durations: list[int]
    mean: float
    p95: float


class BlockedInformation(TypedDict):
    """A line that blocked reactors: see `txgreenwsgi.monitoring.BlockedLine`."""

    filename: str
    line: int
    function: str
    kind: str
    blocks: int
    seconds: float
    longest: float
    request: str


class FailureInformation(TypedDict):
    """Equal failures: see `txgreenwsgi.monitoring.RecentFailure`.

    `worker` is the number of the process. In a snapshot, `traceback` is "".
    """

    failure_id: str
    error: str
    place: str
    count: int
    first: float
    last: float
    request_id: str
    method: str
    path: str
    traceback: str
    worker: int


class ReloadOutcome(TypedDict):
    """The end of a reload; `reason` is "" for success."""

    succeeded: bool
    replaced: int
    reason: str


class ServerInformation(TypedDict):
    """A server. `target` is the wanted number of workers, 0 for a single process."""

    version: str
    app: str
    pid: int
    age: float
    listening: list[str]
    target: int
    stopping: bool
    reloading: bool
    restarts: int
    reloads: int
    last_reload: ReloadOutcome | None
    workers: list[WorkerInformation]


class SnapshotInformation(ServerInformation):
    """A server with what is collected while snapshots are taken.

    `in_flight` of each worker has its oldest requests, and `lag` is the longest delay
    of its reactor since the last snapshot: see
    `txgreenwsgi.monitoring.ProcessSnapshot`.
    """

    time: float
    can_cancel: bool
    queued: int
    watched_seconds: float
    routes: list[RouteInformation]
    blocked: list[BlockedInformation]
    failures: list[FailureInformation]


class Controlled(Protocol):
    """A server. Called from the reactor greenlet; never parks.

    Each Deferred fails with `ControlError` if there is no such thing.
    """

    def status(self) -> Deferred[ServerInformation]:
        """Return the state of the server.

        Returns:
            A Deferred that fires within a few seconds, whatever the workers do.
        """

    def reload(self) -> Deferred[ReloadOutcome]:
        """Replace the workers. The Deferred fires when that has ended."""

    def scale(self, number: int, *, relative: bool) -> Deferred[int]:
        """Change the number of workers.

        Args:
            number: the new number, or the difference.
            relative: whether it is the difference.

        Returns:
            The new number.
        """

    def stacks(self, of: str) -> Deferred[str]:
        """Return stacks as text.

        Args:
            of: the number of a worker, the id of a request, or "" for all workers.

        Returns:
            A Deferred that fires within a few seconds.
        """

    def snapshot(self) -> Deferred[SnapshotInformation]:
        """Return the state of the server with routes, blocked lines and failures.

        The server collects them for some seconds more.

        Returns:
            A Deferred that fires within a few seconds, whatever the workers do.
        """

    def failure(self, of: str) -> Deferred[FailureInformation]:
        """Return a failure with its traceback.

        Args:
            of: its `failure_id`.
        """

    def cancel(self, of: str) -> Deferred[str]:
        """Raise `Cancelled` in a request, if `--status-cancel` allows it.

        Args:
            of: the id of the request, which is returned.
        """
