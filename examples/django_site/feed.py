"""Publish messages to all subscribers in this process, by Deferreds.

It knows Twisted. It must never know the content or the source of a message.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from twisted.internet.defer import DeferredQueue, QueueOverflow

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Feed"]

T = TypeVar("T")

#: Maximum number of unread messages. A subscriber with more is unsubscribed and has to
#: subscribe again.
MAX_UNREAD = 100


class Feed(Generic[T]):
    """A publisher. Call from the reactor's thread."""

    def __init__(self) -> None:
        self._queues: set[DeferredQueue[T | None]] = set()

    def __len__(self) -> int:
        """Return the number of subscribers."""
        return len(self._queues)

    @contextmanager
    def subscription(self) -> Iterator[DeferredQueue[T | None]]:
        """Return a queue of the messages sent during the block; None ends it."""
        queue: DeferredQueue[T | None] = DeferredQueue(size=MAX_UNREAD)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    def send(self, message: T) -> None:
        """Put `message` into all queues. Never parks."""
        for queue in list(self._queues):
            try:
                queue.put(message)
            except QueueOverflow:  # noqa: PERF203 - per queue
                self._queues.discard(queue)
                queue.pending[-1] = None

    def close(self) -> None:
        """End all subscriptions. Never parks."""
        for queue in list(self._queues):
            self._queues.discard(queue)
            if len(queue.pending) >= MAX_UNREAD:
                queue.pending.pop()
            queue.put(None)
