"""The status of a worker, from its record in the shared page.

It must never know how the status is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .interface import WorkerStatus

if TYPE_CHECKING:
    from .page import Beat
    from .slots import Worker

__all__ = ["worker_status"]


def worker_status(
    worker: Worker, beat: Beat, seconds: float, monotonic: float
) -> WorkerStatus:
    """Return the status of one worker.

    Args:
        worker: the worker.
        beat: its last beat.
        seconds: the time of the reactor.
        monotonic: the time of the clock of the beats.
    """
    age = monotonic - beat.time if beat.beats else None
    return WorkerStatus(
        number=worker.number,
        slot=worker.slot.index,
        pid=0 if worker.process is None else worker.process.pid,
        state=worker.state,
        age=seconds - worker.started,
        slots=tuple(sorted(worker.accepts)),
        beat_age=age,
        lag=beat.lag,
        requests=beat.requests,
        connections=beat.connections,
        served=beat.served,
        current=beat.current,
    )
