"""Locks that tasks and real threads share.

The state of a green lock is a real lock. A thread that must wait blocks on it,
as ever. A task that must wait stands in a line, and whoever releases the lock
wakes the first of that line: it tries again, so that being woken for nothing,
or too late, does no harm.

It knows threads and tasks. It must never know what a lock is for.
"""

from __future__ import annotations

import _thread
from collections import deque
from threading import get_ident as thread_ident
from threading import main_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from txgreenwsgi._switching import running
from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.greenlets import Suspension

from ._place import here, main_task, may_park, park, undisturbed

if TYPE_CHECKING:
    from types import TracebackType

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["Lock", "RLock", "get_ident", "main_ident", "thread_ident"]

_real_lock = _thread.allocate_lock
_real_rlock = _thread.RLock
main_ident: int = main_thread().ident or 0
TIMEOUT_MAX = _thread.TIMEOUT_MAX


def get_ident() -> int:
    """An integer that no other living task and no other living thread has.

    Never parks. The task that runs a whole program has the main thread's.
    """
    task = here()
    if task is None or task is main_task():
        return thread_ident()
    return id(task)


def _time_limit(blocking: object, timeout: float) -> float | None:
    """Seconds to wait, None for no limit; errors as those of a real lock."""
    if timeout == -1:
        return None
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout != timeout:
        raise ValueError("Invalid value NaN (not a number)")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return timeout


class Lock:
    """A mutual exclusion of tasks and threads; the shape of `threading.Lock`."""

    __slots__ = ("__weakref__", "_holder", "_line", "_real")

    def __init__(self) -> None:
        self._real = _real_lock()
        # The tasks that wait; most locks never see one.
        self._line: deque[Suspension] | None = None
        # The task that took it last, for one clear error instead of a deadlock.
        self._holder: Task[Any] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting for it at most `timeout` seconds. May park.

        Returns:
            Whether it was taken. -1 is no limit.

        Raises:
            NotInGreenlet: the reactor greenlet would wait for a task, for ever.
        """
        seconds = None if timeout == -1 else _time_limit(blocking, timeout)
        if self._real.acquire(False):
            holder = running.task
            if holder is not None and holder.greenlet is not getcurrent():
                holder = None
            self._holder = holder
            return True
        if not blocking or seconds == 0:
            return False
        task = here()
        if task is None or not may_park():
            return self._block(timeout)
        deadline = None if seconds is None else monotonic() + seconds
        line = self._line
        if line is None:
            # Only the reactor's thread does this.
            line = self._line = deque()
        while True:
            suspension = Suspension(task, self)
            line.append(suspension)
            # It may have been released before we stood in line.
            if self._real.acquire(False):
                self._leave(suspension)
                self._holder = task
                return True
            left = None if deadline is None else max(0.0, deadline - monotonic())
            try:
                in_time = park(task, suspension, left)
            except Exception as error:
                if suspension not in line and self._real.acquire(False):
                    # It was released to us before we heard of the interruption, and
                    # what that tells (a condition's notification) is for us alone.
                    # So we have it, and are interrupted at the next wait.
                    self._holder = task
                    task.interrupt(error, task.shield_depth)
                    return True
                self._leave(suspension)
                raise
            except BaseException:
                self._leave(suspension)
                raise
            if self._real.acquire(False):
                if not in_time:
                    self._leave(suspension)
                self._holder = task
                return True
            if not in_time:
                self._leave(suspension)
                return False

    acquire_lock = acquire

    def _leave(self, suspension: Suspension) -> None:
        """Leave the line; pass on a wake-up that came too late for us."""
        line = self._line
        assert line is not None, "somebody stood in it"
        try:
            line.remove(suspension)
        except ValueError:
            if line and not self._real.locked():
                self._wake_next()

    def _block(self, timeout: float) -> bool:
        holder = self._holder
        if (
            holder is not None
            and timeout == -1
            and not holder.done
            and holder.hub.on_its_thread()
        ):
            where = (
                "the reactor greenlet, which alone can continue that task, was to "
                "wait for it: take the lock in a task"
                if here() is None
                else "a finalizer or a signal handler, which cannot let that task go "
                "on, was to wait for it: hand the work to another task"
            )
            raise NotInGreenlet(
                f"{self!r} is held by {holder!r}, and {where}, or with blocking=False"
            )
        return self._real.acquire(True, timeout)

    def release(self) -> None:
        """Let go of the lock; the first task in line is woken. Never parks.

        Raises:
            RuntimeError: it is not held.
        """
        self._holder = None
        self._real.release()
        if self._line:
            self._wake_next()

    release_lock = release

    def _wake_next(self) -> None:
        line = self._line
        while line:
            try:
                suspension = line.popleft()
            except IndexError:  # another thread was faster
                return
            if suspension.resume():
                return

    def locked(self) -> bool:
        """Is it held?"""
        return self._real.locked()

    locked_lock = locked

    def _acquire_restore(self, state: object) -> None:
        # For `threading.Condition`, whose caller releases the lock in any case.
        _take_for_certain(self)

    __enter__ = acquire

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder = None
        self._real.release()
        if self._line:
            self._wake_next()

    def _at_fork_reinit(self) -> None:
        self._real = _real_lock()
        self._line = None
        self._holder = None

    def __repr__(self) -> str:
        state = "locked" if self._real.locked() else "unlocked"
        return f"<{state} {type(self).__module__}.Lock object at {id(self):#x}>"


def _take_for_certain(lock: Lock) -> None:
    """Take `lock`; what interrupts the task meanwhile is raised at its next wait."""
    task = here()
    if task is None:
        lock.acquire()
        return
    with undisturbed(task):
        lock.acquire()


class RLock:
    """A lock that its owner, a task or a thread, may take again."""

    __slots__ = ("__weakref__", "_count", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, or take it once more; as `Lock.acquire`. May park."""
        me = get_ident()
        if self._owner == me:
            _time_limit(blocking, timeout)
            self._count += 1
            return True
        if self._lock.acquire(blocking, timeout):
            self._owner = me
            self._count = 1
            return True
        return False

    def release(self) -> None:
        """Let go once; the last time the lock is free.

        Raises:
            RuntimeError: the caller does not own it.
        """
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    def locked(self) -> bool:
        """Is it held?"""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    # What `threading.Condition` asks of its lock.

    def _release_save(self) -> tuple[int, int | None]:
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        state = self._count, self._owner
        self._count = 0
        self._owner = None
        self._lock.release()
        return state

    def _acquire_restore(self, state: tuple[int, int | None]) -> None:
        _take_for_certain(self._lock)
        self._count, self._owner = state

    def _is_owned(self) -> bool:
        return self._owner == get_ident()

    def _recursion_count(self) -> int:
        return self._count if self._owner == get_ident() else 0

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()
        self._owner = None
        self._count = 0

    def __repr__(self) -> str:
        state = "locked" if self._lock.locked() else "unlocked"
        return (
            f"<{state} {type(self).__module__}.RLock object owner={self._owner or 0} "
            f"count={self._count} at {id(self):#x}>"
        )
