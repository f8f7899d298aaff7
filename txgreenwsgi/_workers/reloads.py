"""Reloads: every slot gets a successor, and the first failure ends it.

It knows slots. It must never know how a worker is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from .interface import ReloadResult
from .slots import BootCancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.python.failure import Failure

    from .slots import Slot, Worker

__all__ = ["Reload"]


class Reload:
    """One reload.

    Args:
        slots: the slots to renew, in order.
        parallel: the number of successors that boot at the same time.
        boot: starts the successor of a slot.

    Attributes:
        done: fires when all successors are ready or one has failed.
        booting: the successors that boot, by slot.
    """

    def __init__(
        self, slots: Iterable[Slot], parallel: int, boot: Callable[[Slot], Worker]
    ) -> None:
        self.done: Deferred[ReloadResult] = Deferred()
        self.booting: dict[Slot, Worker] = {}
        self._waiting = list(slots)
        self._parallel = parallel
        self._boot = boot
        self._replaced = 0
        self._ended = False

    def proceed(self) -> None:
        """Start as many successors as possible now.

        A slot whose last worker still drains has to wait, so that frequent reloads do
        not pile up processes.
        """
        while not self._ended and len(self.booting) < self._parallel:
            slot = next((each for each in self._waiting if not each.draining), None)
            if slot is None:
                break
            self._waiting.remove(slot)
            if slot.retired:
                continue
            worker = self._boot(slot)
            self.booting[slot] = worker
            worker.booted.addCallbacks(
                self._ready, self._failed, callbackArgs=(slot,), errbackArgs=(slot,)
            )
        if not self._ended and not self._waiting and not self.booting:
            self._end(ReloadResult(True, self._replaced))

    def abandon(self, reason: str) -> None:
        """End the reload now."""
        if not self._ended:
            self._end(ReloadResult(False, self._replaced, reason))

    def _ready(self, _: object, slot: Slot) -> None:
        self.booting.pop(slot, None)
        self._replaced += 1
        self.proceed()

    def _failed(self, failure: Failure, slot: Slot) -> None:
        self.booting.pop(slot, None)
        # Scaled down in the meantime, and perhaps up again, with a new worker.
        if slot.retired or failure.check(BootCancelled):
            self.proceed()
            return
        self.abandon(str(failure.value))

    def _end(self, result: ReloadResult) -> None:
        self._ended = True
        self.done.callback(result)
