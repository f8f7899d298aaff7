"""Admission control: a bounded number of running requests, and a bounded queue.

This file must never know what it admits.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from txgreenwsgi._native import lanes

__all__ = ["AdmissionQueue"]

T = TypeVar("T")


class AdmissionQueue(Generic[T], lanes.AdmissionQueueState):
    """Slots for `limit` requests, and a queue of at most `max_queued` behind them.

    Call all methods from the reactor's thread; none parks.

    Attributes:
        limit: the number of slots.
        max_queued: the length of the queue.
        running: the number of slots in use.
    """

    __slots__ = lanes.slots(
        lanes.AdmissionQueueState,
        (
            "_queue",
            "limit",
            "max_queued",
            "running",
        ),
    )

    def __init__(self, limit: int, max_queued: int) -> None:
        self.limit = limit
        self.max_queued = max_queued
        self.running = 0
        self._queue: deque[T] = deque()

    @property
    def queued(self) -> int:
        """The number of requests in the queue."""
        return len(self._queue)

    def acquire(self) -> bool:
        """Take a slot if one is free; return whether it was taken."""
        if self.running < self.limit:
            self.running += 1
            return True
        return False

    def enqueue(self, request: T) -> bool:
        """Append `request` to the queue, or return False if the queue is full."""
        if len(self._queue) >= self.max_queued:
            return False
        self._queue.append(request)
        return True

    def remove(self, request: T) -> bool:
        """Remove `request` from the queue; return whether it was there."""
        try:
            self._queue.remove(request)
        except ValueError:
            return False
        return True

    def release(self) -> T | None:
        """Free a slot, or pass it to the head of the queue.

        Returns:
            The request that now has the slot, for the caller to start; None if the
            queue is empty.
        """
        if self._queue and self.running <= self.limit:
            return self._queue.popleft()
        self.running -= 1
        return None
