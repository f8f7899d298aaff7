"""Green `queue`: the standard classes on green locks, and a green SimpleQueue."""

from __future__ import annotations

import queue as _standard
from collections import deque as _deque
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking.locks import Lock as _Lock

from . import threading as _green_threading
from .mirror import run_again as _run_again

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


_Empty = _standard.Empty


class _SimpleQueue:
    """An unbounded FIFO queue; the API of `queue.SimpleQueue`.

    `put` never parks and takes no lock, so finalizers and signal handlers may call it.
    """

    __slots__ = ("__weakref__", "_getters", "_items")

    def __init__(self) -> None:
        self._items: _deque[object] = _deque()
        self._getters: _deque[_Lock] = _deque()

    def put(
        self, item: object, block: bool = True, timeout: float | None = None
    ) -> None:
        """Append `item`. The other arguments are ignored, as in the original."""
        self._items.append(item)
        self._wake()

    def put_nowait(self, item: object) -> None:
        """Append `item`."""
        self.put(item)

    def _wake(self) -> None:
        try:
            getter = self._getters.popleft()
        except IndexError:
            return
        getter.release()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Remove and return the next item. May park.

        Args:
            block: False does not wait.
            timeout: seconds to wait; None for no limit.

        Raises:
            Empty: no item was available in time.
        """
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        try:
            return self._items.popleft()
        except IndexError:
            if not block:
                raise _Empty from None
        from time import monotonic

        deadline = None if timeout is None else monotonic() + timeout
        while True:
            # Held until `put` releases it.
            turn = _Lock()
            turn.acquire()
            self._getters.append(turn)
            try:
                return self._taken(turn)
            except IndexError:
                pass
            left = -1.0 if deadline is None else max(0.0, deadline - monotonic())
            woken = False
            try:
                turn.forget_holder()
                woken = turn.acquire(True, left)
            finally:
                if not woken:
                    self._leave(turn)
            try:
                return self._items.popleft()
            except IndexError:
                if not woken:
                    raise _Empty from None

    def _taken(self, turn: _Lock) -> Any:
        item = self._items.popleft()
        self._leave(turn)
        return item

    def _leave(self, turn: _Lock) -> None:
        try:
            self._getters.remove(turn)
        except ValueError:
            # `put` has woken this getter: pass the wake-up on to the next one.
            if self._items:
                self._wake()

    def get_nowait(self) -> Any:
        """Remove and return the next item. Never parks.

        Raises:
            Empty: the queue is empty.
        """
        return self.get(block=False)

    def empty(self) -> bool:
        """Return whether the queue is empty."""
        return not self._items

    def qsize(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def __class_getitem__(cls, item: object) -> Any:
        from types import GenericAlias

        return GenericAlias(cls, item)


_SimpleQueue.__name__ = _SimpleQueue.__qualname__ = "SimpleQueue"
_mine = {name: value for name, value in globals().items() if name.startswith("__")}
_run_again("queue", globals(), {"threading": _green_threading})
globals().update(_mine)
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
)
SimpleQueue: Any = _SimpleQueue
