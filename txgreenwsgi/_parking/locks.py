"""Locks that tasks and real threads share.

The state of a green lock is a real lock. A thread that must wait blocks on the real
lock. A task that must wait enters a FIFO queue of waiters, and `release` wakes the
first of them. A woken task tries the lock again, so spurious and late wake-ups are
harmless.

It knows threads and tasks. It must never know what a lock protects.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from greenlet import getcurrent

from txgreenwsgi._switching import running
from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.greenlets import Suspension
from txgreenwsgi._switching.running import current_task

from .idents import ident_of
from .real_threads import original, real_lock, thread_ident
from .waits import main_task, may_park, park, uninterrupted

if TYPE_CHECKING:
    from types import TracebackType

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["Lock", "RLock", "get_ident"]

_TIMEOUT_MAX: float = original.TIMEOUT_MAX


def get_ident() -> int:
    """Return the unique ident of the current task or thread. Never parks.

    The main task, which runs a whole program, has the ident of the main thread.
    """
    task = current_task()
    if task is None or task is main_task():
        return thread_ident()
    return task.ident or ident_of(task)


def _time_limit(blocking: object, timeout: float) -> float | None:
    """Return the seconds to wait; None for no limit. Raises as a real lock does."""
    if timeout == -1:
        return None
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout != timeout:
        raise ValueError("Invalid value NaN (not a number)")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > _TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return timeout


class Lock:
    """A mutual exclusion lock for tasks and threads; the API of `threading.Lock`."""

    __slots__ = ("__weakref__", "_holder", "_real", "_waiters")

    def __init__(self) -> None:
        self._real = real_lock()
        # The waiting tasks. Created by the first waiter: most locks never have one.
        self._waiters: deque[Suspension] | None = None
        # The task that took the lock last, to report a deadlock as an error.
        self._holder: Task[object] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock. May park.

        Args:
            blocking: False returns at once if the lock is held.
            timeout: seconds to wait; -1 for no limit.

        Returns:
            Whether the lock was taken.

        Raises:
            NotInGreenlet: the wait would deadlock: the reactor greenlet, a finalizer
                or a signal handler would wait for a task.
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
        task = current_task()
        if task is None or not may_park():
            return self._block(timeout)
        deadline = None if seconds is None else monotonic() + seconds
        waiters = self._waiters
        if waiters is None:
            # No race: only the reactor's thread runs this.
            waiters = self._waiters = deque()
        while True:
            suspension = Suspension(task, self)
            waiters.append(suspension)
            # The lock may have been released before the task was in the queue.
            if self._real.acquire(False):
                self._leave_queue(suspension)
                self._holder = task
                return True
            left = None if deadline is None else max(0.0, deadline - monotonic())
            try:
                in_time = park(task, suspension, left)
            except Exception as error:
                if suspension not in waiters and self._real.acquire(False):
                    # The lock was passed to this task before the interruption
                    # arrived, and the wake-up (a condition's notification) must not
                    # be lost. So take it, and raise the interruption at the next wait.
                    self._holder = task
                    task.interrupt(error, task.shield_depth)
                    return True
                self._leave_queue(suspension)
                raise
            except BaseException:
                self._leave_queue(suspension)
                raise
            if self._real.acquire(False):
                if not in_time:
                    self._leave_queue(suspension)
                self._holder = task
                return True
            if not in_time:
                self._leave_queue(suspension)
                return False

    acquire_lock = acquire

    def _leave_queue(self, suspension: Suspension) -> None:
        """Leave the queue; pass on a wake-up that came too late for this task."""
        waiters = self._waiters
        assert waiters is not None, "the caller is a waiter"
        try:
            waiters.remove(suspension)
        except ValueError:
            if waiters and not self._real.locked():
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
                "waiting for it in the reactor greenlet, which has to resume that "
                "task, would deadlock: take the lock in a task"
                if current_task() is None
                else "waiting for it in a finalizer or a signal handler, which keeps "
                "that task from running, would deadlock: hand the work to another task"
            )
            raise NotInGreenlet(
                f"{self!r} is held by {holder!r}, and {where}, or use blocking=False"
            )
        return self._real.acquire(True, timeout)

    def release(self) -> None:
        """Release the lock and wake the first waiting task. Never parks.

        Raises:
            RuntimeError: the lock is not held.
        """
        self._holder = None
        self._real.release()
        if self._waiters:
            self._wake_next()

    release_lock = release

    def _wake_next(self) -> None:
        waiters = self._waiters
        while waiters:
            try:
                suspension = waiters.popleft()
            except IndexError:  # another thread was faster
                return
            if suspension.resume():
                return

    def locked(self) -> bool:
        """Return whether the lock is held."""
        return self._real.locked()

    locked_lock = locked

    def forget_holder(self) -> None:
        """Disable the deadlock check, for a lock that another caller releases."""
        self._holder = None

    def _acquire_restore(self, state: object) -> None:
        # For `threading.Condition`, whose caller always releases the lock.
        _acquire_uninterrupted(self)

    __enter__ = acquire

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder = None
        self._real.release()
        if self._waiters:
            self._wake_next()

    def _at_fork_reinit(self) -> None:
        self._real = real_lock()
        self._waiters = None
        self._holder = None

    def __repr__(self) -> str:
        state = "locked" if self._real.locked() else "unlocked"
        return f"<{state} {type(self).__module__}.Lock object at {id(self):#x}>"


def _acquire_uninterrupted(lock: Lock) -> None:
    """Take `lock`; defer an interruption of the task to its next wait."""
    task = current_task()
    if task is None:
        lock.acquire()
        return
    with uninterrupted(task):
        lock.acquire()


class RLock:
    """A reentrant lock, owned by a task or a thread."""

    __slots__ = ("__weakref__", "_count", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, or increment its count; as `Lock.acquire`. May park."""
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
        """Undo one `acquire`; the last one frees the lock. Never parks.

        Raises:
            RuntimeError: the caller does not own the lock.
        """
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    def locked(self) -> bool:
        """Return whether the lock is held."""
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

    # Used by `threading.Condition`.

    def _release_save(self) -> tuple[int, int | None]:
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        state = self._count, self._owner
        self._count = 0
        self._owner = None
        self._lock.release()
        return state

    def _acquire_restore(self, state: tuple[int, int | None]) -> None:
        _acquire_uninterrupted(self._lock)
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
