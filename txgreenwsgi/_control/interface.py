"""The functions of a server behind its control socket, and their results.

It must never know the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypedDict

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = [
    "ControlError",
    "Controlled",
    "ReloadOutcome",
    "RequestInformation",
    "ServerInformation",
    "WorkerInformation",
]


class ControlError(Exception):
    """A command cannot be carried out. The message gives the reason and the remedy."""


class RequestInformation(TypedDict):
    """One request in flight. Its age is in seconds."""

    request_id: str
    method: str
    path: str
    age: float
    state: str
    waiting_on: str


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
