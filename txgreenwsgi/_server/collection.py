"""The garbage collector of a server process: exclude the loaded application from it.

A full collection visits every object that the process has created and kept: with
Django about 75,000, in 25 ms or more, while no request is served. `gc.freeze` excludes
them. It knows the collector. It must never know an application.
"""

from __future__ import annotations

import gc
from time import perf_counter
from typing import Final

__all__ = ["FREEZES", "PAUSE_SECONDS", "Freezer"]

#: A full collection that takes longer is followed by a freeze.
PAUSE_SECONDS: Final = 0.01
#: Maximum number of these freezes. Each of them keeps the cyclic garbage of the
#: requests in flight, and of what the application replaces later.
FREEZES: Final = 4

#: The started freezers of this process.
started: set[Freezer] = set()
# True if the program had frozen objects itself before the first freezer started. They
# remain frozen.
_frozen_by_program = False


class Freezer:
    """Excludes long-lived objects from garbage collection.

    Objects are frozen when the application is loaded, and after the first slow full
    collections: applications import modules and fill caches in their first requests.
    The objects that survive a full collection are known to be in use, so this costs
    nothing. Frozen objects are still freed by reference counting; only cycles of them
    are kept. Thresholds stay as they are.
    """

    def __init__(self) -> None:
        self._left = 0
        self._began = 0.0

    def start(self) -> None:
        """Collect garbage, freeze all other objects and watch collections."""
        global _frozen_by_program
        if self in started:
            return
        if not started:
            _frozen_by_program = gc.get_freeze_count() > 0
        started.add(self)
        self._left = FREEZES
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._watch)

    def stop(self) -> None:
        """Stop watching; the last freezer returns the objects to the collector."""
        if self not in started:
            return
        started.discard(self)
        gc.callbacks.remove(self._watch)
        if not started and not _frozen_by_program:
            gc.unfreeze()

    def _watch(self, phase: str, info: dict[str, int]) -> None:
        """Freeze the survivors of a slow full collection. Called by the collector."""
        if info["generation"] != 2 or not self._left:
            return
        if phase == "start":
            self._began = perf_counter()
        elif perf_counter() - self._began > PAUSE_SECONDS:
            self._left -= 1
            gc.freeze()
