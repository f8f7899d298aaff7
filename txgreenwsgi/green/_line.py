"""Those who stand in line for a connection, and what they can be given.

A task parks in line, a real thread blocks; whoever gives does not see a difference.
It knows tasks and threads. It must never know the line itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from txgreenwsgi._switching.greenlets import Suspension

from ._locks import _real_lock
from ._place import park

if TYPE_CHECKING:
    from txgreenwsgi._switching.greenlets import Task

__all__ = ["DISCARDED", "PLACE", "REFUSED", "Entry", "Mark", "Waiter"]

C = TypeVar("C")


class Mark:
    """A thing that is only itself."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


#: One connection may be made.
PLACE: Final = Mark("place")
#: The same, of a connection that was closed.
DISCARDED: Final = Mark("discarded")
#: None will ever be.
REFUSED: Final = Mark("refused")


class Entry(Generic[C]):
    """One connection, and what the pool knows of it."""

    __slots__ = ("connection", "holder", "idle_since", "made_at")

    def __init__(self, connection: C, made_at: float) -> None:
        self.connection = connection
        self.made_at = made_at
        # None: it was in use until just now.
        self.idle_since: float | None = None
        # The task that took it last, for one clear error instead of a deadlock.
        self.holder: Task[Any] | None = None


class Waiter(Generic[C]):
    """One who stands in line: a task, parked, or a thread, blocked."""

    __slots__ = ("_lock", "_suspension", "_task", "grant")

    def __init__(self, task: Task[Any] | None, waiting_on: object) -> None:
        # Written under the pool's lock; whoever waited looks there as well.
        self.grant: Entry[C] | Mark | None = None
        self._task = task
        self._suspension: Suspension | None = None
        self._lock: Any = None
        if task is not None:
            self._suspension = Suspension(task, waiting_on)
        else:
            self._lock = _real_lock()
            self._lock.acquire()

    def wait(self, seconds: float | None) -> None:
        """Wait until `wake` is called or the time is over. May park, or block."""
        if self._suspension is not None:
            assert self._task is not None
            park(self._task, self._suspension, seconds)
        else:
            self._lock.acquire(True, -1 if seconds is None else seconds)

    def wake(self) -> None:
        """End the wait. Call from any thread, without the pool's lock."""
        if self._suspension is not None:
            self._suspension.resume()
        else:
            self._lock.release()
