"""The interface of the master for the other parts of the command.

`Master` implements `MasterControl`. The control socket, the notification of systemd and
the development reload use nothing else of it. All functions are called from the reactor
greenlet and never park.

It knows no process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from .details import WorkerDetails, WorkerSnapshot

__all__ = [
    "EndedWorker",
    "MasterControl",
    "MasterObserver",
    "MasterStatus",
    "ReloadResult",
    "WorkerStatus",
]


@dataclass(frozen=True)
class ReloadResult:
    """The end of a reload.

    Attributes:
        succeeded: whether all workers were replaced.
        replaced: the number of workers that were replaced.
        reason: why the reload ended early, with the traceback of the worker if there is
            one; "" for success.
    """

    succeeded: bool
    replaced: int
    reason: str = ""


@dataclass(frozen=True)
class WorkerStatus:
    """One worker process.

    Attributes:
        number: counts all workers of the master, from 1.
        slot: the index of its slot, from 0.
        pid: the process id.
        state: "booting", "ready" or "draining".
        age: seconds since its start.
        slots: the slots that it accepts for: its own, and those of neighbours.
        beat_age: seconds since the last beat of its reactor; None before the first.
        lag: delay of the last beat, in seconds.
        requests: the number of requests in flight.
        connections: the number of open connections.
        served: the number of requests that have ended.
        current: the request that its reactor runs at this moment, such as
            "1f6a-2b GET /reports"; "" if none.
    """

    number: int
    slot: int
    pid: int
    state: str
    age: float
    slots: tuple[int, ...]
    beat_age: float | None = None
    lag: float = 0.0
    requests: int = 0
    connections: int = 0
    served: int = 0
    current: str = ""


@dataclass(frozen=True)
class MasterStatus:
    """The master and its workers.

    Attributes:
        pid: the process id of the master.
        target: the wanted number of workers.
        listening: the addresses of the listening sockets.
        reloading: whether a reload is in progress.
        stopping: whether the server shuts down.
        workers: all live workers, by slot and number.
        restarts: the number of workers that were replaced because they had ended
            unexpectedly.
        reloads: the number of reloads that were begun.
        last_reload: the result of the last one that has ended.
    """

    pid: int
    target: int
    listening: tuple[str, ...]
    reloading: bool
    stopping: bool
    workers: tuple[WorkerStatus, ...]
    restarts: int
    reloads: int
    last_reload: ReloadResult | None = None


@dataclass(frozen=True)
class EndedWorker:
    """A worker that has ended.

    Attributes:
        number: counts all workers of the master, from 1.
        record: the index of its record in the shared page.
        reason: why it is replaced: "crash", "hang", "reload", "recycle" or "signal"; ""
            if it has never served, or is not replaced.
    """

    number: int
    record: int
    reason: str


class MasterObserver:
    """The notifications of a master; no-ops. See `MasterControl.observe`."""

    def ready(self) -> None:
        """Called once, when a worker is ready in each slot."""

    def reloading(self) -> None:
        """Called when a reload begins."""

    def reloaded(self, result: ReloadResult) -> None:
        """Called when a reload has ended."""

    def failed(self, slot: int, reason: str) -> None:
        """Called when a worker could not start, with the index of its slot.

        The reason is a message, or a traceback of several lines.
        """

    def ended(self, worker: EndedWorker) -> None:
        """Called when a worker has ended, before its record is used again."""

    def stopping(self) -> None:
        """Called once, when the server begins to shut down."""

    def changed(self, text: str) -> None:
        """Called when the workers have changed, with a line such as "4 workers"."""


class MasterControl(Protocol):
    """The master, as other parts of the command see it."""

    def reload(self) -> Deferred[ReloadResult]:
        """Replace all workers by new ones, with new code and configuration.

        Each slot's successor is ready before its worker drains. The first failure ends
        the reload, and the remaining workers stay. A call during a reload is merged
        with other such calls into one more reload.

        Returns:
            A Deferred that fires when all successors are ready or one has failed. It
            never fails. During a shutdown it fires at once.
        """

    def scale(self, count: int) -> None:
        """Set the number of workers.

        Args:
            count: 1 or more.

        Raises:
            ValueError: `count` is below 1, or above it in development.
        """

    def status(self) -> MasterStatus:
        """Return the state of all workers."""

    def details(self, worker: int) -> Deferred[WorkerDetails | None]:
        """Return the requests in flight of a worker.

        Args:
            worker: its number (`WorkerStatus.number`).

        Returns:
            A Deferred with None if there is no such worker, it is not ready, or it
            does not answer in time. It never fails.
        """

    def snapshot(
        self, worker: int, known_change: int
    ) -> Deferred[WorkerSnapshot | None]:
        """Return a snapshot of a worker, which then collects routes for a while.

        Args:
            worker: its number (`WorkerStatus.number`).
            known_change: see `describe_snapshot`.

        Returns:
            A Deferred with None if there is no such worker, it is not ready, its
            reactor is blocked, or it does not answer in time. It never fails.
        """

    def cancel(self, worker: int, request: str) -> Deferred[bool | None]:
        """Raise `Cancelled` in a request of a worker.

        Args:
            worker: its number (`WorkerStatus.number`).
            request: the id of the request.

        Returns:
            A Deferred with whether the worker has such a request; None if it does not
            answer in time. It never fails.
        """

    def stacks(self, worker: int, request: str = "") -> Deferred[str]:
        """Return the stacks of a worker's requests and threads, as text.

        Args:
            worker: its number (`WorkerStatus.number`).
            request: the id of a request, to return its stack alone; "" if the worker
                has no such request.

        Returns:
            A Deferred that fails with LookupError if there is no such worker. For a
            worker whose reactor is blocked the text is that of `faulthandler`.
        """

    def restart_slot(
        self, slot: int, grace_seconds: float = 0.0
    ) -> Deferred[ReloadResult]:
        """End the worker of a slot, then start its successor.

        For development: connections made in between wait in the backlog of the slot.
        A call during a restart begins it again.

        Args:
            slot: the index of the slot.
            grace_seconds: time for requests in flight to end.

        Returns:
            A Deferred that fires when the successor is ready or has failed. After a
            failure the slot stays empty until `reload` or `restart_slot`.
        """

    def observe(self, observer: MasterObserver) -> None:
        """Add an observer. Its exceptions are logged."""
