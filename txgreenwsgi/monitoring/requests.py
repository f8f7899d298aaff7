"""Requests while they run: the rows of the table, and the snapshot of a process.

These types are the public interface to a running server. The status page, `txgreenwsgi
top`, and applications that read `environ["txgreenwsgi.requests"]` use nothing else. It
knows names and units. It must never know how the facts are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .blocked import BlockedLine
    from .failures import RecentFailure
    from .routes import RouteStatistics

__all__ = [
    "MOST_BLOCKED",
    "MOST_REQUESTS",
    "MOST_SHOWN_ROUTES",
    "WATCH_SECONDS",
    "ProcessSnapshot",
    "RequestInFlight",
    "Requests",
]

#: Time after the last snapshot for which routes and lag are still collected.
WATCH_SECONDS: Final = 10.0

#: Maximum numbers of rows in a snapshot.
MOST_REQUESTS: Final = 200
MOST_SHOWN_ROUTES: Final = 50
MOST_BLOCKED: Final = 20


@dataclass(frozen=True)
class RequestInFlight:
    """One request that has not ended.

    Text sent by the client is unchanged, one latin-1 character for each byte: escape it
    before output.

    Attributes:
        request_id: identity of the request in log lines.
        method: the request method, such as "GET".
        path: the percent-decoded path, as in PATH_INFO.
        age: seconds since the head was complete.
        state: the task's state, "parked", "running" or "ready"; or "queued".
        waiting_on: description of a parked task's wait; "" otherwise.
        waiting_seconds: the duration of that wait so far; 0.0 otherwise.
        status: the status code sent; 0 before the response begins.
        bytes_sent: the size of the response body sent so far, without framing.
        remote_addr: the client's address; "" on a UNIX socket.
        user_agent: the value of the User-Agent field. While the application runs, it is
            "" unless the server has an observer, such as an access log.
    """

    request_id: str
    method: str
    path: str
    age: float
    state: str
    waiting_on: str
    waiting_seconds: float = 0.0
    status: int = 0
    bytes_sent: int = 0
    remote_addr: str = ""
    user_agent: str = ""


@dataclass(frozen=True)
class ProcessSnapshot:
    """One server in one process, at one moment.

    Routes and lag are collected while snapshots are taken: from the first one on, until
    10 seconds after the last one. Requests pay nothing at other times.

    Attributes:
        time: seconds since 1970 (UTC).
        in_flight: the number of requests that have not ended.
        queued: those of them that wait for a slot (`--max-in-flight`).
        connections: the number of open connections.
        served: the number of requests that have ended.
        watched_seconds: the time for which routes and lag have been collected.
        lag: the longest delay of the reactor's clock since the last snapshot, in
            seconds; 0.0 in the first one.
        requests: the oldest requests in flight, at most 200.
        routes: the slowest routes, at most 50, the one with the longest mean duration
            first.
        blocked: the lines that blocked the reactor for the longest time since the
            process started, at most 20.
        failures: recent failures of the application, the latest first.
    """

    time: float
    in_flight: int
    queued: int
    connections: int
    served: int
    watched_seconds: float
    lag: float
    requests: tuple[RequestInFlight, ...]
    routes: tuple[RouteStatistics, ...]
    blocked: tuple[BlockedLine, ...]
    failures: tuple[RecentFailure, ...]


class Requests(Protocol):
    """The requests of a server: the type of `environ["txgreenwsgi.requests"]`.

    `GreenSite.live` is another one. Call from the reactor's thread, from a task, or
    from a request's thread. Never parks.
    """

    def __call__(self) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first."""

    def snapshot(self) -> ProcessSnapshot:
        """Return the state of this server, and collect routes and lag for a while."""

    def stack(self, request_id: str) -> str:
        """Return the Python stack of a request, as in a traceback.

        It ends with the line at which the request waits, or runs.

        Returns:
            "" if the request is queued.

        Raises:
            LookupError: there is no such request in flight.
        """

    def cancel(self, request_id: str) -> None:
        """Raise `txgreenwsgi.Cancelled` at the current wait of a request.

        A response that has not begun becomes 503, any other one is broken off. The
        application may catch the exception to clean up.

        Raises:
            LookupError: there is no such request in flight.
        """
