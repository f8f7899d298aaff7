"""Requests by route: number, failures and durations.

A route is a method and a pattern of paths, in which `*` stands for a segment that names
one object, such as a number. `--threads-for` and `--access-log-skip` take the same
patterns. It knows paths and times. It must never know how a request is served.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MOST_ROUTES",
    "OTHER",
    "UNKNOWN_PATHS",
    "RouteStatistics",
    "Routes",
    "merged",
    "pattern_of",
]

#: Maximum number of routes. Requests of further ones are counted under `OTHER`.
MOST_ROUTES: Final = 500

#: The pattern of the routes beyond the maximum.
OTHER: Final = "(other)"

#: The pattern of all paths with the status 404: any client can make up more of them.
UNKNOWN_PATHS: Final = "(not found)"

#: Maximum number of paths whose routes are remembered.
_MOST_PATHS: Final = 5000

#: Number of classes of durations. Class n ends at 2**n ms, the last one has no end.
CLASSES: Final = 19

#: The ends of the classes that have one, in seconds.
_LIMITS: Final = [(1 << index) / 1000 for index in range(CLASSES - 1)]

# A segment that names one object: a number, a UUID, a hexadecimal digest, or a token
# with a digit and at least 16 characters.
_OBJECT: Final = re.compile(
    r"[0-9]+"
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|(?=[^0-9]*[0-9])[0-9a-fA-F]{8,}"
    r"|(?=[^0-9]*[0-9])[A-Za-z0-9_-]{16,}"
)
#: Longer patterns are cut, with a `*` at the end.
_MOST_CHARACTERS: Final = 120


def pattern_of(path: str) -> str:
    """Return the pattern for a decoded path, such as `/orders/*` for `/orders/17`."""
    pattern = "/".join(
        "*" if _OBJECT.fullmatch(segment) else segment for segment in path.split("/")
    )
    if len(pattern) > _MOST_CHARACTERS:
        pattern = f"{pattern[:_MOST_CHARACTERS]}*"
    return pattern


@dataclass(frozen=True)
class RouteStatistics:
    """The requests of one route.

    Text sent by the client is unchanged: escape it before output.

    Attributes:
        method: the request method; "" for `OTHER`.
        pattern: the pattern of the paths, such as `/orders/*`.
        requests: the number of requests that have ended.
        failures: those with a status of 500 or more, that raised, or that timed out.
        seconds: the duration of all requests.
        longest: the duration of the longest one, in seconds.
        durations: the number of requests by duration: below 1 ms, below 2 ms, below
            4 ms, and so on. The last number is that of requests of 131 s and more.
    """

    method: str
    pattern: str
    requests: int
    failures: int
    seconds: float
    longest: float
    durations: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The mean duration in seconds."""
        return self.seconds / self.requests if self.requests else 0.0

    def quantile(self, share: float) -> float:
        """Return a duration in seconds that this share of the requests stays below.

        The result is the upper limit of a class, so at most twice the true value.

        Args:
            share: such as 0.95.
        """
        wanted = share * self.requests
        for index, count in enumerate(self.durations[:-1]):
            wanted -= count
            if wanted <= 0:
                return min(_LIMITS[index], self.longest)
        return self.longest


class _Sums:
    """The sums of one route.

    `pending` has durations that are not added up yet: appending one is much cheaper,
    and many are added up at once.
    """

    __slots__ = ("durations", "failures", "longest", "pending", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.seconds = 0.0
        self.longest = 0.0
        self.durations = [0] * CLASSES
        self.pending: list[float] = []

    def add_up(self) -> None:
        """Add the pending durations."""
        pending = self.pending
        if not pending:
            return
        pending.sort()
        self.requests += len(pending)
        self.seconds += sum(pending)
        self.longest = max(self.longest, pending[-1])
        begin = 0
        for index, limit in enumerate(_LIMITS):
            end = bisect_left(pending, limit, begin)
            self.durations[index] += end - begin
            begin = end
            if end == len(pending):
                break
        else:
            self.durations[-1] += len(pending) - begin
        pending.clear()

    def statistics(self, method: str, pattern: str) -> RouteStatistics:
        """Return the sums for others."""
        self.add_up()
        return RouteStatistics(
            method=method,
            pattern=pattern,
            requests=self.requests,
            failures=self.failures,
            seconds=self.seconds,
            longest=self.longest,
            durations=tuple(self.durations),
        )


class Routes:
    """The sums of all routes. Call from the reactor's thread.

    Attributes:
        pending: by method and path, the list to which the duration of a request is
            appended that has succeeded; see `pending_of`. Call `add_up` at times.
    """

    def __init__(self) -> None:
        self.pending: dict[tuple[str, str], list[float]] = {}
        self._sums: dict[tuple[str, str], _Sums] = {}

    def pending_of(self, method: str, path: str) -> list[float]:
        """Return the list for a path that is not in `pending` yet."""
        if len(self.pending) >= _MOST_PATHS:
            self.pending.clear()
        pending = self._find(method, path).pending
        self.pending[method, path] = pending
        return pending

    def add(
        self, method: str, path: str, status: int, seconds: float, *, failed: bool
    ) -> None:
        """Add a request that has ended.

        Args:
            method: the request method.
            path: the decoded path.
            status: the status code sent; 0 for none.
            seconds: its duration.
            failed: whether the application raised, or a deadline expired.
        """
        sums = self._find(method, UNKNOWN_PATHS if status == 404 else path)
        sums.pending.append(seconds)
        if failed or status >= 500:
            sums.failures += 1

    def _find(self, method: str, path: str) -> _Sums:
        key = method, (path if path == UNKNOWN_PATHS else pattern_of(path))
        if key not in self._sums and len(self._sums) >= MOST_ROUTES:
            key = "", OTHER
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = _Sums()
        return sums

    def add_up(self) -> None:
        """Add up the durations so far, so that they take no memory."""
        for sums in self._sums.values():
            sums.add_up()

    def statistics(self) -> list[RouteStatistics]:
        """Return all routes, the one with the longest mean duration first."""
        return _slowest_first(
            sums.statistics(method, pattern)
            for (method, pattern), sums in self._sums.items()
        )


def merged(routes: Iterable[RouteStatistics]) -> list[RouteStatistics]:
    """Return the routes of several processes as those of one, the slowest first."""
    sums: dict[tuple[str, str], _Sums] = {}
    for route in routes:
        into = sums.setdefault((route.method, route.pattern), _Sums())
        into.requests += route.requests
        into.failures += route.failures
        into.seconds += route.seconds
        into.longest = max(into.longest, route.longest)
        for index, count in enumerate(route.durations[:CLASSES]):
            into.durations[index] += count
    return _slowest_first(
        into.statistics(method, pattern) for (method, pattern), into in sums.items()
    )


def _slowest_first(routes: Iterable[RouteStatistics]) -> list[RouteStatistics]:
    return sorted(routes, key=lambda route: route.mean, reverse=True)
