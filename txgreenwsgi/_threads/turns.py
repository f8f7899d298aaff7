"""The time for which tasks have held up the reactor.

A turn of a task lasts from the switch into it to its next wait. Nothing else runs
meanwhile. The hub reports long turns; this module takes from them what is not the
task's: the time in the run queue (`schedstat`), the garbage collection, and, while
threads compute, the wait for the GIL.

It knows clocks. It must never know what a task is for.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from time import monotonic, thread_time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from txgreenwsgi._switching.tasks import LONG_TURN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Hub, Task

__all__ = ["TurnMeter"]


class TurnMeter:
    """Adds up the long turns of each task of a hub.

    Args:
        hub: its long turns are observed.
        threads_run: returns whether real threads run calls.
    """

    def __init__(self, hub: Hub, threads_run: Callable[[], bool]) -> None:
        self._hub = hub
        self._threads_run = threads_run
        self._seconds: WeakKeyDictionary[Task[object], float] = WeakKeyDictionary()
        # The clocks at the beginning of this turn; valid while `precise` is set.
        self._cpu = self._queued = self._collected = 0.0
        self._collections = _Collections()
        self._run_queue = _run_queue_clock()
        hub.on_long_turn = self._add

    @property
    def precise(self) -> bool:
        """Whether the clocks are read at each turn, which costs 3 us.

        If not, a long turn counts in full, from the switch to the wait.
        """
        return self._hub.on_turn is not None

    @precise.setter
    def precise(self, value: bool) -> None:
        if value:
            self._collections.start()
            self._begin()
            self._hub.on_turn = self._begin
        else:
            self._collections.stop()
            self._hub.on_turn = None

    def _begin(self) -> None:
        self._cpu = thread_time()
        self._queued = self._run_queue()
        self._collected = self._collections.seconds

    def _add(self, task: Task[object], seconds: float) -> None:
        net = self._net(seconds)
        if net > LONG_TURN_SECONDS:
            self._seconds[task] = self._seconds.get(task, 0.0) + net

    def _net(self, seconds: float) -> float:
        """Return the part of a turn that its task is responsible for."""
        if not self.precise:
            return seconds
        collected = self._collections.seconds - self._collected
        if self._threads_run():
            return thread_time() - self._cpu - collected
        return seconds - (self._run_queue() - self._queued) - collected

    def has(self, task: Task[object]) -> bool:
        """Return whether a task has long turns that `take` has not returned."""
        return bool(self._seconds) and task in self._seconds

    def take(self, task: Task[object]) -> float:
        """Return and forget the seconds of a task, its turn in progress included."""
        turn = self._hub.seconds() - self._hub.resumed_at
        if turn > LONG_TURN_SECONDS:
            self._add(task, turn)
        return self._seconds.pop(task, 0.0)


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


def _run_queue_clock() -> Callable[[], float]:
    """Return a clock of the time that the reactor's thread was ready but did not run.

    It stands still where the kernel does not tell.
    """
    try:
        fd = os.open(f"/proc/self/task/{os.getpid()}/schedstat", os.O_RDONLY)
        os.pread(fd, 128, 0).split()[1]
    except (OSError, IndexError):
        return lambda: 0.0
    # proc(5): nanoseconds on the CPU, nanoseconds in the run queue, time slices.
    return lambda: int(os.pread(fd, 128, 0).split()[1]) / 1e9
