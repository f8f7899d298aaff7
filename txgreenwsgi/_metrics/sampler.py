"""The state of a server, written to the memory of its metrics now and then.

Four times a second the delay of the reactor is measured, and sums are published; once a
second the state is counted: connections, tasks, pools. A scrape of a single process
counts it too.

It knows one server and the parts whose state it counts. It must never know the reader.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary

from txgreenwsgi._switching.running import current_task
from txgreenwsgi.monitoring.blocked import BlockedReport, report
from txgreenwsgi.pools import live_pools

from .families import (
    BLOCK_SECONDS,
    BLOCKS,
    CONNECTIONS,
    IN_FLIGHT,
    LAG,
    OTHER,
    POOL_CONNECTIONS,
    POOL_TIMEOUTS,
    POOL_WAIT_SECONDS,
    POOL_WAITING,
    POOL_WAITS,
    QUEUED,
    TASKS,
    UPGRADED,
    series_of,
    start_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from twisted.internet.interfaces import IDelayedCall

    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._switching.greenlets import Hub
    from txgreenwsgi.pools import ConnectionPool

    from .families import Family, Numbers
    from .meter import RequestMeter

__all__ = ["TICK_SECONDS", "Sampler"]

#: Interval between two measurements of the reactor's delay.
TICK_SECONDS: Final = 0.25

#: Number of ticks between two counts of the state.
_TICKS_OF_STATE: Final = 4

_LAG: Final = start_of(LAG)
_LAG_SUM: Final = _LAG + LAG.width - 1

_PoolSums: TypeAlias = tuple[int, float, int]
_POOL_SUMS: Final = tuple(map(start_of, (POOL_WAITS, POOL_WAIT_SECONDS, POOL_TIMEOUTS)))
_NO_SUMS: Final = (0, 0.0, 0)


class Sampler:
    """The state of one server, as metrics. Call from the reactor greenlet.

    Args:
        values: the numbers, in the layout of `families`.
        server: the server.
        meter: the counters of its requests.
        hub: the hub of its tasks.
        blocked: where blocks of the reactor are added up.
        pools: returns the connection pools of the process.
    """

    def __init__(
        self,
        values: Numbers,
        server: ApplicationServer,
        meter: RequestMeter,
        hub: Hub,
        blocked: BlockedReport = report,
        pools: Callable[[], Sequence[ConnectionPool[Any]]] = live_pools,
    ) -> None:
        self._values = values
        self._server = server
        self._meter = meter
        self._hub = hub
        self._reactor = hub.reactor
        self._blocked = blocked
        self._pools = pools
        # The sums that were counted of each pool, in the order of `_POOL_SUMS`: a pool
        # may be freed, and its counts stay.
        self._counted: WeakKeyDictionary[ConnectionPool[Any], _PoolSums]
        self._counted = WeakKeyDictionary()
        self._due = 0.0
        self._ticks = 0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Measure from now on. Call when the reactor runs. A no-op if it does."""
        if self._call is None:
            self._due = self._reactor.seconds() + TICK_SECONDS
            self._call = self._reactor.callLater(TICK_SECONDS, self._tick)
            self.count()

    def stop(self) -> None:
        """End, and publish the last sums."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        self.count()

    def _tick(self) -> None:
        now = self._reactor.seconds()
        late = max(now - self._due, 0.0)
        values = self._values
        values[_LAG + bisect_left(LAG.bounds, late)] += 1
        values[_LAG_SUM] += late
        self._meter.publish()
        self._ticks += 1
        if self._ticks % _TICKS_OF_STATE == 0:
            self.count()
        self._due = now + TICK_SECONDS
        self._call = self._reactor.callLater(TICK_SECONDS, self._tick)

    def count(self) -> None:
        """Write the state of this moment. The caller's task does not count."""
        self._meter.publish()
        server = self._server
        values = self._values
        values[start_of(IN_FLIGHT)] = len(server.table.exchanges)
        values[start_of(QUEUED)] = server.admission.queued
        upgraded = (each for each in server.table.exchanges if each.is_upgraded)
        values[start_of(UPGRADED)] = sum(1 for _ in upgraded)
        connections: Iterable[object] = server.shutdown.connections
        self._write(CONNECTIONS, (_state_of(each) for each in connections))
        own = current_task()
        self._write(TASKS, (task.state for task in self._hub.tasks if task is not own))
        values[start_of(BLOCKS)] = self._blocked.blocks
        values[start_of(BLOCK_SECONDS)] = self._blocked.seconds
        self._count_pools()

    def _write(self, family: Family, states: Iterable[str]) -> None:
        """Write the numbers of objects in each state."""
        counts = Counter(states)
        for (state,), place in series_of(family):
            self._values[place] = counts.pop(state, 0)
        if counts:
            # The last series is that of all other states.
            self._values[place] += counts.total()

    def _count_pools(self) -> None:
        values = self._values
        waiting = in_use = idle = 0
        for pool in self._pools():
            new = pool.statistics()
            sums = new.waits, new.waited, new.timeouts
            known = self._counted.get(pool, _NO_SUMS)
            self._counted[pool] = sums
            for place, now, before in zip(_POOL_SUMS, sums, known, strict=True):
                values[place] += now - before
            waiting += new.waiting
            in_use += new.in_use
            idle += new.idle
        values[start_of(POOL_WAITING)] = waiting
        place = start_of(POOL_CONNECTIONS)
        values[place], values[place + 1] = in_use, idle


def _state_of(connection: object) -> str:
    state = getattr(connection, "state", OTHER)
    return state if isinstance(state, str) else OTHER
