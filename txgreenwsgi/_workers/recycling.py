"""Recycling: a reload of single slots, whose worker has reached a limit.

It knows slots. It must never know the limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .slots import Slot, Worker

__all__ = ["Recycling"]

_log = Logger()


class Recycling:
    """The workers of one master that wait for a successor.

    Args:
        parallel: the number of successors that boot at the same time.
        boot: starts the successor of a slot.
    """

    def __init__(self, parallel: int, boot: Callable[[Slot], Worker]) -> None:
        self._parallel = parallel
        self._boot = boot
        self._waiting: list[Worker] = []

    def add(self, worker: Worker, reason: str) -> bool:
        """Replace a worker that has reached a limit. It serves until then.

        Returns:
            Whether it waits for a successor from now on.
        """
        if not worker.is_ready or worker.recycling:
            return False
        worker.recycling = True
        _log.info("recycling {worker}: {reason}", worker=worker, reason=reason)
        self._waiting.append(worker)
        return True

    def proceed(self, slots: Sequence[Slot]) -> None:
        """Start successors, as many at a time as during a reload."""
        self._waiting = [each for each in self._waiting if each.is_ready]
        waiting = [each for each in self._waiting if each.slot.successor is None]
        booting = sum(slot.successor is not None for slot in slots)
        for worker in waiting[: max(self._parallel - booting, 0)]:
            booted = self._boot(worker.slot).booted
            booted.addErrback(self._not_recycled, worker)

    def _not_recycled(self, _failure: object, worker: Worker) -> None:
        """Keep a worker whose successor cannot start. It asks again."""
        worker.recycling = False
        if worker in self._waiting:
            self._waiting.remove(worker)
