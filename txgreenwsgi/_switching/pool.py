"""At most so many tasks at once: started now, queued, or refused.

It knows nothing of what it starts.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pool"]


class Pool:
    """Places for `limit` at once, and a queue of at most `most_queued` behind them.

    Call all methods from the reactor's thread; none parks.

    Attributes:
        running: how many places are taken.
    """

    __slots__ = ("_queue", "limit", "most_queued", "running")

    def __init__(self, limit: int, most_queued: int) -> None:
        self.limit = limit
        self.most_queued = most_queued
        self.running = 0
        self._queue: deque[Callable[[], object]] = deque()

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    def take(self) -> bool:
        """Take a place if one is free; whether it was."""
        if self.running < self.limit:
            self.running += 1
            return True
        return False

    def queue(self, begin: Callable[[], object]) -> bool:
        """Put `begin` in line for a place; False if the queue is full."""
        if len(self._queue) >= self.most_queued:
            return False
        self._queue.append(begin)
        return True

    def leave(self, begin: Callable[[], object]) -> bool:
        """Take `begin` out of the queue; False if it is not there."""
        try:
            self._queue.remove(begin)
        except ValueError:
            return False
        return True

    def give_back(self) -> Callable[[], object] | None:
        """Give a place back; what comes next from the queue, its place taken.

        The caller calls it, from the reactor greenlet.
        """
        if self._queue and self.running <= self.limit:
            return self._queue.popleft()
        self.running -= 1
        return None
