"""The locks and semaphores of `multiprocessing`, waited for by tasks.

Another process that releases one tells nobody, so a task asks again and again, at
growing intervals. Without it the C code would block the reactor's thread, for ever
if the other holder is a task of this process.

It knows semaphores. It must never know what a process does with one.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]
from time import monotonic
from typing import Any

from ._place import here, may_park
from .time import sleep

__all__ = ["SemLock"]

_FIRST_SECONDS = 0.001
_LONGEST_SECONDS = 0.05
_Standard: Any = _multiprocessing.SemLock


class SemLock(_Standard):  # type: ignore[misc]
    """What `Lock`, `Semaphore`, `Queue` ... of `multiprocessing` are made of."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it, waiting for it at most `timeout` seconds. May park.

        Returns:
            Whether it was taken. None is no limit.
        """
        if not block or here() is None or not may_park():
            return bool(super().acquire(block, timeout))
        deadline = None if timeout is None else monotonic() + timeout
        pause = _FIRST_SECONDS
        while not super().acquire(False):
            left = pause if deadline is None else deadline - monotonic()
            if left <= 0:
                return False
            sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_SECONDS)
        return True

    def __enter__(self) -> bool:
        return self.acquire()


SemLock.__module__ = "_multiprocessing"
