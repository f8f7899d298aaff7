"""Green `_multiprocessing.SemLock`: tasks park for semaphores shared by processes.

No event reports a release by another process, so a waiting task polls at increasing
intervals. The original would block the reactor's thread, and deadlock if another task
of this process holds the semaphore.

It knows semaphores. It must never know their use.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]
from time import monotonic
from typing import Any

from txgreenwsgi._parking.waits import may_park
from txgreenwsgi._switching.running import current_task

from .time import sleep

__all__ = ["SemLock"]

_MIN_POLL_SECONDS = 0.001
_MAX_POLL_SECONDS = 0.05
_Standard: Any = _multiprocessing.SemLock


class SemLock(_Standard):  # type: ignore[misc]
    """The semaphore that `Lock`, `Queue` etc. of `multiprocessing` are built on."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the semaphore; return whether that succeeded. May park.

        Args:
            block: False returns at once.
            timeout: seconds to wait; None for no limit.
        """
        if not block or current_task() is None or not may_park():
            return bool(super().acquire(block, timeout))
        deadline = None if timeout is None else monotonic() + timeout
        pause = _MIN_POLL_SECONDS
        while not super().acquire(False):
            left = pause if deadline is None else deadline - monotonic()
            if left <= 0:
                return False
            sleep(min(pause, left))
            pause = min(pause * 2, _MAX_POLL_SECONDS)
        return True

    def __enter__(self) -> bool:
        return self.acquire()


SemLock.__module__ = "_multiprocessing"
