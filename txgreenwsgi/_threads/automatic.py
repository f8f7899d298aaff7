"""The automatic choice of the routes that run in threads.

A route whose requests have repeatedly held up the reactor runs in threads from then on,
and returns to tasks when its requests are quick again. Each change is one log line.

It knows durations. It must never know how they are measured.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from txgreenwsgi._native import lanes
from txgreenwsgi._switching.tasks import LONG_TURN_SECONDS

from .routes import readable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AutomaticRoutes"]

_log = Logger()

#: Number of requests that must have held up the reactor before their route moves. A
#: move costs each request 40 us, so a low number does little harm.
_SLOW_REQUESTS: Final = 3
#: A request counts once for each such time, so that a route of very long ones moves
#: sooner.
_SLOW_SECONDS: Final = 0.05
#: Minimum share of them among the requests of the route.
_SLOW_SHARE: Final = 0.25
#: A request that waits for more than so many times the time it holds up the reactor
#: stays in its task: a waiting thread costs more than the blocked reactor.
_WAITING_FACTOR: Final = 2.0
#: Number of quick requests in a row after which a route returns to tasks.
_QUICK_REQUESTS: Final = 50
#: A request in a thread is quick if it runs for less than this. Time, not CPU time: a
#: call that waits in a C library would block the reactor. Beside threads that compute,
#: the time is longer than it would be in a task.
_QUICK_SECONDS: Final = LONG_TURN_SECONDS / 2
#: Seconds after its last slow request for which a route is observed.
_OBSERVED_SECONDS: Final = 60.0
#: Number of requests after which a route that is rarely slow is no longer observed:
#: observing all routes costs 3 us a turn.
_OBSERVED_REQUESTS: Final = 20
#: Number of requests after a move in which a failure returns the route to tasks.
_TRIED_REQUESTS: Final = 10
#: Maximum number of routes in each table.
_MAX_ROUTES: Final = 1000


class _Suspect:
    """A route that has held up the reactor.

    Attributes:
        requests: the number of its requests since then.
        slow: the number of those that have held up the reactor.
        failed: whether one of them failed.
        weight: the same, long ones counted several times.
        last_slow: the time of the last one.
        needed: the weight at which it moves.
    """

    __slots__ = ("failed", "last_slow", "needed", "requests", "slow", "weight")

    def __init__(self, needed: int) -> None:
        self.requests = 0
        self.slow = 0
        self.failed = False
        self.weight = 0.0
        self.last_slow = 0.0
        self.needed = needed


class _Moved:
    """A route that runs in threads.

    Attributes:
        quick: the number of its quick requests in a row.
        tried: the number of requests left in which a failure returns it to tasks.
        needed: the weight at which it moved.
    """

    __slots__ = ("needed", "quick", "tried")

    def __init__(self, needed: int, tried: int) -> None:
        self.needed = needed
        self.tried = tried
        self.quick = 0


@lanes.with_lanes
class AutomaticRoutes(lanes.AutomaticRoutesState):
    """The routes that run in threads, by experience. Call from the reactor's thread.

    Args:
        clock: returns the time in seconds.

    Attributes:
        moved: the routes that run in threads.
        suspects: the routes that are observed. While there are some, `ended` must be
            called for each request, otherwise for slow ones.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.moved: dict[str, _Moved] = {}
        self._clock = clock
        self.suspects: dict[str, _Suspect] = {}
        # The number of slow requests that a route needs, if it has returned once.
        self._needed: dict[str, int] = {}
        self._pinned: set[str] = set()

    @property
    def observes(self) -> bool:
        """Whether `ended` must be called for each request, not only for slow ones."""
        return bool(self.suspects)

    def ended(
        self, route: str, blocked: float, life: float | None, failed: bool = False
    ) -> None:
        """Note the end of a request that ran in a task.

        Args:
            route: the route of the request.
            blocked: seconds for which it has held up the reactor.
            life: seconds from its start to its end, without those for which other
                requests, threads or processes have held it up. None if this was not
                measured, because the request began before its route was observed: it
                can only begin the observation.
            failed: whether the application raised or sent a 500.
        """
        now = self._clock()
        suspect = self.suspects.get(route)
        slow = blocked > LONG_TURN_SECONDS and route not in self._pinned
        if suspect is None:
            if slow and len(self.suspects) < _MAX_ROUTES:
                # The first one does not count: it may have imported modules. How long
                # it waited is not measured yet.
                suspect = _Suspect(self._needed.get(route, _SLOW_REQUESTS))
                suspect.last_slow = now
                self.suspects[route] = suspect
            return
        if life is None:
            return
        suspect.requests += 1
        suspect.failed |= failed
        if slow and life - blocked <= _WAITING_FACTOR * blocked:
            suspect.slow += 1
            suspect.weight += max(1.0, blocked / _SLOW_SECONDS)
            suspect.last_slow = now
            if (
                suspect.weight >= suspect.needed
                and suspect.slow >= _SLOW_SHARE * suspect.requests
            ):
                self._move(route, suspect, blocked)
        elif now - suspect.last_slow > _OBSERVED_SECONDS or (
            suspect.requests >= _OBSERVED_REQUESTS
            and suspect.slow < _SLOW_SHARE * suspect.requests
        ):
            del self.suspects[route]

    def _move(self, route: str, suspect: _Suspect, blocked: float) -> None:
        del self.suspects[route]
        if len(self.moved) >= _MAX_ROUTES:
            return
        # A route that fails in tasks too may fail in threads.
        tried = 0 if suspect.failed else _TRIED_REQUESTS
        self.moved[route] = _Moved(suspect.needed, tried)
        _log.warn(
            "{route} has held up all other requests {count} times, the last time for "
            "{milliseconds:.0f} ms: its requests run in threads from now on; "
            "--threads-for {pattern} makes this permanent",
            route=readable(route),
            pattern=quote(readable(route)),
            count=suspect.slow + 1,
            milliseconds=blocked * 1000,
        )

    def ended_in_thread(self, route: str, seconds: float, failed: bool = False) -> None:
        """Note the end of a request that ran for `seconds` in a thread.

        Args:
            route: the route of the request.
            seconds: the time, without its waits in the task.
            failed: whether the application raised or sent a 500.
        """
        moved = self.moved.get(route)
        if moved is None:
            return
        if moved.tried:
            moved.tried -= 1
            if failed:
                # Its code may depend on the thread, such as a connection to SQLite
                # that was made at import.
                self.pin(route, "has failed in a thread")
                return
        moved.quick = moved.quick + 1 if seconds <= _QUICK_SECONDS else 0
        if moved.quick < _QUICK_REQUESTS:
            return
        del self.moved[route]
        # A higher bar next time: a route must not move to and fro.
        self._needed[route] = 2 * moved.needed
        _log.info(
            "{route} was quick {count} times in a row: its requests run in tasks again",
            route=readable(route),
            count=_QUICK_REQUESTS,
        )

    def pin(self, route: str, reason: str) -> None:
        """Keep the requests of a route in tasks. A no-op if it is kept there."""
        if route in self._pinned or len(self._pinned) >= _MAX_ROUTES:
            return
        self._pinned.add(route)
        self.suspects.pop(route, None)
        if self.moved.pop(route, None) is not None:
            _log.warn(
                "{route} {reason}: its requests run in tasks again",
                route=readable(route),
                reason=reason,
            )
