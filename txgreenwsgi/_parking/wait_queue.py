"""One waiter in a queue that tasks and real threads share.

A task parks and a real thread blocks; waking works the same for both.
It knows tasks and threads. It must never know the queue itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from txgreenwsgi._switching.greenlets import Suspension

from .real_threads import real_lock
from .waits import park

if TYPE_CHECKING:
    from _thread import LockType

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["Waiter"]

G = TypeVar("G")


class Waiter(Generic[G]):
    """A parked task or a blocked thread in a wait queue.

    Args:
        task: the current task; None to block the thread.
        waiting_on: the object that a table of tasks shows.

    Attributes:
        grant: the object granted to the waiter; None before. Set it under the lock of
            the queue, before `wake`.
    """

    __slots__ = ("_lock", "_suspension", "_task", "grant")

    def __init__(self, task: Task[object] | None, waiting_on: object) -> None:
        self.grant: G | None = None
        self._task = task
        self._suspension: Suspension | None = None
        self._lock: LockType | None = None
        if task is not None:
            self._suspension = Suspension(task, waiting_on)
        else:
            self._lock = real_lock()
            self._lock.acquire()

    def wait(self, seconds: float | None) -> None:
        """Wait for `wake`, at most `seconds`; None for no limit. May park or block.

        Raises:
            BaseException: the interruption of the task.
        """
        if self._suspension is not None:
            assert self._task is not None
            park(self._task, self._suspension, seconds)
        else:
            assert self._lock is not None
            self._lock.acquire(True, -1 if seconds is None else seconds)

    def wake(self) -> None:
        """End the wait. Call from any thread, without holding the queue's lock."""
        if self._suspension is not None:
            self._suspension.resume()
        else:
            assert self._lock is not None
            self._lock.release()
