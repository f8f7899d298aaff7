"""Priorities of responses (RFC 9218), and turns of streams by them.

Streams of the same urgency take turns, one piece each, whether they are incremental
or not: a slow stream must not stall its neighbours. This file must never know frames.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEFAULT_URGENCY", "Turns", "urgency_of"]

T = TypeVar("T")

#: Urgency of a request without one (RFC 9218 section 4.1).
DEFAULT_URGENCY: Final = 3

# The member of a dictionary (RFC 9651 section 3.2); of several, the last one counts.
_URGENCY: Final = re.compile(r"(?:^|,)[ \t]*u=([0-7])[ \t]*(?=[;,]|$)")


def urgency_of(value: str) -> int:
    """Return the urgency in a Priority field value; the default if it has none.

    Invalid values count as absent (RFC 9218 section 4).
    """
    found = _URGENCY.findall(value)
    return int(found[-1]) if found else DEFAULT_URGENCY


class Turns(Generic[T]):
    """The streams that have data to send, in the order of their turns.

    The most urgent streams come first; those of one urgency take turns.
    """

    __slots__ = ("_queues", "_urgencies")

    def __init__(self) -> None:
        # By urgency: the streams in order. Without empty ones.
        self._queues: dict[int, dict[T, None]] = {}
        self._urgencies: dict[T, int] = {}

    def __bool__(self) -> bool:
        return bool(self._urgencies)

    def __contains__(self, stream: T) -> bool:
        return stream in self._urgencies

    def __iter__(self) -> Iterator[T]:
        """Iterate over the streams, in any order."""
        return iter(self._urgencies)

    def add(self, stream: T, urgency: int) -> None:
        """Add a stream behind those of its urgency; a no-op if it is there."""
        if stream not in self._urgencies:
            self._urgencies[stream] = urgency
            self._queues.setdefault(urgency, {})[stream] = None

    def remove(self, stream: T) -> None:
        """Remove a stream; a no-op if it is not there."""
        urgency = self._urgencies.pop(stream, None)
        if urgency is not None:
            queue = self._queues[urgency]
            del queue[stream]
            if not queue:
                del self._queues[urgency]

    def move(self, stream: T, urgency: int) -> None:
        """Give a stream another urgency; a no-op if it is not there."""
        if stream in self._urgencies:
            self.remove(stream)
            self.add(stream, urgency)

    def next(self) -> T:
        """Return the stream whose turn it is, and put it behind those of its urgency.

        Raises:
            ValueError: there is none.
        """
        queue = self._queues[min(self._queues)]
        stream = next(iter(queue))
        del queue[stream]
        queue[stream] = None
        return stream
