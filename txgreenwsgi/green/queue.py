"""Green `queue`: the standard classes on green locks; a SimpleQueue of its own."""

from __future__ import annotations

import queue as _standard
from collections import deque as _deque
from typing import TYPE_CHECKING, Any

from . import threading as _green_threading
from ._locks import Lock as _Lock
from ._mirror import run_again as _run_again

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


_Empty = _standard.Empty


class _SimpleQueue:
    """An unbounded queue, first in, first out; the shape of `queue.SimpleQueue`.

    `put` never parks and takes no lock, so it may be called from anywhere.
    """

    __slots__ = ("__weakref__", "_getters", "_items")

    def __init__(self) -> None:
        self._items: _deque[Any] = _deque()
        self._getters: _deque[_Lock] = _deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append `item`. The other arguments are there for `Queue`'s sake."""
        self._items.append(item)
        self._wake()

    def put_nowait(self, item: Any) -> None:
        """Append `item`."""
        self.put(item)

    def _wake(self) -> None:
        try:
            getter = self._getters.popleft()
        except IndexError:
            return
        getter.release()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next item, waited for at most `timeout` seconds. May park.

        Raises:
            Empty: there is none, or none came in time.
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
            # A lock that is held, until there may be something.
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
                turn._holder = None
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
            # The wake-up was for us: somebody else shall have it.
            if self._items:
                self._wake()

    def get_nowait(self) -> Any:
        """The next item.

        Raises:
            Empty: there is none.
        """
        return self.get(block=False)

    def empty(self) -> bool:
        """Is there nothing in it?"""
        return not self._items

    def qsize(self) -> int:
        """How many items are in it."""
        return len(self._items)

    def __class_getitem__(cls, item: Any) -> Any:
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
