"""The time for which tasks have held up the reactor.

A turn of a task lasts from the switch into it to its next wait. Nothing else runs
meanwhile. The hub reports long turns; this module takes from them what is not the
task's: the time in the run queue (`schedstat`), the garbage collection, the time slice
of a task that sends or reads block after block and yields at its end, and, while
threads compute, the wait for the GIL.

It knows clocks. It must never know what a task is for.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from threading import get_ident, get_native_id
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, ref

from txgreenwsgi._parking.thread_load import ThreadLoad
from txgreenwsgi._switching.greenlets import SLICE_SECONDS
from txgreenwsgi._switching.tasks import LONG_TURN_SECONDS

from .pool import pool_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Hub, Task

__all__ = ["Life", "LongTurns", "TurnMeter", "meter_of"]

#: Other requests are held up if long turns follow each other for longer than this: six
#: requests of 5 ms at a time delay the others as much as one of 30 ms.
_HELD_UP_SECONDS: Final = 0.02
#: Turns follow each other if the reactor is free for less than this between them.
_GAP_SECONDS: Final = 0.001


class Life(NamedTuple):
    """The clocks of a reactor at the beginning of a request.

    Attributes:
        total: `TurnMeter.total`.
        busy: seconds for which the reactor's thread has run or was ready to; 0 if not
            measured.
    """

    total: float
    busy: float


class LongTurns(NamedTuple):
    """The long turns of a task.

    Attributes:
        blocked: seconds for which the task has held up the reactor.
        total: seconds from the beginnings of the turns to their ends.
    """

    blocked: float
    total: float


_NO_TURNS: Final = LongTurns(0.0, 0.0)


class TurnMeter:
    """Adds up the long turns of each task of a hub. Made by `meter_of`.

    Args:
        hub: its long turns are observed.
        threads_contend: returns whether real threads hold the GIL.

    Attributes:
        total: seconds of all long turns, of all tasks.
    """

    def __init__(self, hub: Hub, threads_contend: Callable[[], bool]) -> None:
        self.total = 0.0
        # Not the hub, which has the meter: `_meters` must not keep it alive.
        self._hub = ref(hub)
        self._threads_contend = threads_contend
        self._turns: WeakKeyDictionary[Task[object], LongTurns] = WeakKeyDictionary()
        # The long turns in a row: their sum, and the end of the last one.
        self._row = self._row_end = 0.0
        # The clocks at the beginning of this turn; valid while `precise`.
        self._cpu = self._queued = self._collected = 0.0
        self._collections = _Collections()
        self._load = ThreadLoad(get_ident(), get_native_id())
        self._users: WeakSet[object] = WeakSet()
        hub.on_long_turn = self._add

    @property
    def precise(self) -> bool:
        """Whether the clocks are read at each turn, which costs 3 us.

        If not, a long turn counts in full, from the switch to the wait.
        """
        return bool(self._users)

    def measure_for(self, user: object, wanted: bool) -> None:
        """Be precise for `user`, or no longer. Several servers may use one reactor."""
        if wanted is (user in self._users):
            return
        hub = self._hub()
        assert hub is not None, "a request runs in its hub"
        if wanted:
            self._users.add(user)
            self._collections.start()
            self._begin()
            hub.on_turn = self._begin
        else:
            self._users.discard(user)
            if not self._users:
                self._collections.stop()
                hub.on_turn = None

    def _begin(self) -> None:
        self._cpu = thread_time()
        self._queued = self._load.delay()
        self._collected = self._collections.seconds

    def _add(self, task: Task[object], seconds: float) -> None:
        hub = task.hub
        net = self._net(seconds)
        if hub.yielded_at == hub.resumed_at:
            # A stream of blocks: in a thread, it would delay the others no less.
            net -= SLICE_SECONDS
        self.total += seconds
        blocked = 0.0
        if net > LONG_TURN_SECONDS:
            if hub.resumed_at - self._row_end > _GAP_SECONDS:
                self._row = 0.0
            self._row += net
            self._row_end = hub.seconds()
            if self._row > _HELD_UP_SECONDS:
                blocked = net
        earlier = self._turns.get(task, _NO_TURNS)
        task.measured = True
        self._turns[task] = LongTurns(
            blocked=earlier.blocked + blocked, total=earlier.total + seconds
        )

    def _net(self, seconds: float) -> float:
        """Return the part of a turn that its task is responsible for."""
        if not self.precise:
            return seconds
        collected = self._collections.seconds - self._collected
        if self._threads_contend():
            return thread_time() - self._cpu - collected
        queued = self._load.delay() - self._queued
        return seconds - queued - collected

    def begin_life(self) -> Life:
        """Return the beginning of the life of a request, for `waited`."""
        busy = sum(self._load.read()) if self.precise else 0.0
        return Life(self.total, busy)

    def waited(self, life: Life, seconds: float) -> float:
        """Return the time for which a request waited while the reactor was free.

        Args:
            life: the result of `begin_life`.
            seconds: the time since then.

        Returns:
            Seconds; 0 if the reactor was busy for half of the time or more: the
            request has then waited for other requests, as far as is known.
        """
        busy = self.total - life.total
        if life.busy:
            busy = max(busy, sum(self._load.read()) - life.busy)
        return seconds - busy if busy < seconds / 2 else 0.0

    def take(self, task: Task[object]) -> LongTurns:
        """Return and forget the turns of a task that has ended."""
        return self._turns.pop(task, _NO_TURNS)


class _Collections:
    """The time of garbage collections.

    Attributes:
        seconds: the sum, while started.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def start(self) -> None:
        """Begin to measure. A no-op if it has begun."""
        if self._note not in gc.callbacks:
            gc.callbacks.append(self._note)

    def stop(self) -> None:
        """Stop measuring."""
        with suppress(ValueError):
            gc.callbacks.remove(self._note)

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = monotonic()
        else:
            self.seconds += monotonic() - self._began


_meters: WeakKeyDictionary[Hub, TurnMeter] = WeakKeyDictionary()


def meter_of(hub: Hub) -> TurnMeter:
    """Return the meter of a hub. Call in the reactor's thread."""
    meter = _meters.get(hub)
    if meter is None:
        meter = _meters[hub] = TurnMeter(hub, pool_of(hub).contends)
    return meter
