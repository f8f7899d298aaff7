"""News for all who listen in this process, handed on by Deferreds.

It knows Twisted. It must never know what the news is, or where it comes from.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from twisted.internet.defer import DeferredQueue, QueueOverflow

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Feed"]

T = TypeVar("T")

#: How much one may be behind. Who is more so is let go, and asks again.
MOST_UNREAD = 100


class Feed(Generic[T]):
    """What is sent goes to everybody who has subscribed. One thread, the reactor's."""

    def __init__(self) -> None:
        self._queues: set[DeferredQueue[T | None]] = set()

    def __len__(self) -> int:
        """How many listen."""
        return len(self._queues)

    @contextmanager
    def subscription(self) -> Iterator[DeferredQueue[T | None]]:
        """A queue of what is sent during the `with` block; None is its end."""
        queue: DeferredQueue[T | None] = DeferredQueue(size=MOST_UNREAD)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    def send(self, news: T) -> None:
        """Give `news` to all who listen. Never parks."""
        for queue in list(self._queues):
            try:
                queue.put(news)
            except QueueOverflow:  # noqa: PERF203 - one each
                self._queues.discard(queue)
                queue.pending[-1] = None

    def close(self) -> None:
        """Tell all who listen that nothing more comes. Never parks."""
        for queue in list(self._queues):
            self._queues.discard(queue)
            if len(queue.pending) >= MOST_UNREAD:
                queue.pending.pop()
            queue.put(None)
