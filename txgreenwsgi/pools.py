"""A bounded connection pool shared by tasks and real threads.

The caller provides the functions that connect, check and close; this module enforces
the limits. A connection counts as open from the start of `connect` until its `close`
has returned, and at most `max_size` are open. Callers that find no free connection wait
in a FIFO queue. A returned connection is handed directly to the first waiter, so later
callers cannot overtake it.

It knows tasks, threads and their locks. It must never know the kind of connection, or
park while it holds its own lock.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import deque
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from twisted.logger import Logger
from twisted.python import threadable

from ._parking.real_threads import real_lock, thread_ident
from ._parking.wait_queue import Waiter
from ._switching import guards
from ._switching.errors import NotInGreenlet
from ._switching.running import current_task
from ._switching.timeouts import shield
from .green.drivers import was_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import EllipsisType

    from ._switching.greenlets import Task

__all__ = [
    "ConnectionPool",
    "PoolClosed",
    "PoolStatistics",
    "PoolTimeout",
    "was_interrupted",
]

C = TypeVar("C")
_log = Logger()


class PoolTimeout(TimeoutError):
    """No connection became free before the wait timeout expired."""


class PoolClosed(RuntimeError):
    """The pool is closed and hands out no connections."""


@dataclass(frozen=True)
class PoolStatistics:
    """Current state of a pool, and counters since its creation.

    Attributes:
        size: number of connections that are open, being made or being closed.
        in_use: number of those that are not idle.
        idle: number of those that can be taken.
        waiting: number of tasks and threads in the wait queue.
        taken: number of times that a connection was taken.
        made: number of connections made.
        discarded: number of connections closed because their state was in doubt, or
            because they were dead, too old or idle for too long.
        timeouts: number of waits that raised `PoolTimeout`.
        longest_wait: the longest successful wait for a connection, in seconds.
        max_size: maximum number of open connections.
        waits: number of waits for a connection that have ended, however they ended.
        waited: duration of these waits, in seconds.
    """

    size: int
    in_use: int
    idle: int
    waiting: int
    taken: int
    made: int
    discarded: int
    timeouts: int
    longest_wait: float
    max_size: int
    waits: int = 0
    waited: float = 0.0


class _Closable(Protocol):
    def close(self) -> object: ...


def _close(connection: object) -> object:
    return cast("_Closable", connection).close()


class _Entry(Generic[C]):
    """One connection of the pool.

    Attributes:
        connection: the connection.
        made_at: time when it was made.
        idle_since: time of its return; None if it was handed over directly.
        holder: the last task that took it, to report a deadlock as an error.
    """

    __slots__ = ("connection", "holder", "idle_since", "made_at")

    def __init__(self, connection: C, made_at: float) -> None:
        self.connection = connection
        self.made_at = made_at
        self.idle_since: float | None = None
        self.holder: Task[object] | None = None


class _Slot:
    """A permit to make one connection, or a refusal; instances compare by identity."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_FREE_SLOT: Final = _Slot("free")
#: The slot of a connection that was discarded; counted when it is returned.
_DISCARDED_SLOT: Final = _Slot("discarded")
#: The grant of a closed pool: the waiter gets no connection.
_REFUSED: Final = _Slot("refused")


def _require_size(size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(
            f"max_size={size!r}: the maximum number of open connections must be a "
            "whole number of at least 1"
        )


def _require_seconds(option: str, seconds: object) -> None:
    if seconds is None:
        return
    if isinstance(seconds, bool) or not (
        isinstance(seconds, (int, float)) and seconds >= 0
    ):
        raise ValueError(
            f"{option}={seconds!r}: give a number of seconds >= 0, or None for no limit"
        )


def _require_function(option: str, function: object) -> None:
    if not callable(function):
        raise ValueError(f"{option}={function!r} is not callable: give a function")


class ConnectionPool(Generic[C]):
    """A pool of at most `max_size` connections.

    Waiting tasks park, waiting real threads block; both may share a pool. In the child
    of a fork the pool starts empty.

    Args:
        connect: makes a connection. May park, without delaying other callers.
        max_size: maximum number of open connections.
        wait_timeout: seconds to wait for a free connection before `PoolTimeout`; None
            for no limit. The time for making a connection does not count.
        max_age: age in seconds after which a connection is not reused; None for no
            limit.
        max_idle: seconds without use after which a connection is closed, at the next
            return or take; None for no limit.
        check: called with an idle connection before it is taken. If it raises, the
            connection is dead and is replaced. Without it, the caller may get a dead
            connection.
        reset: called with a returned connection, to remove the state of its last user
            (`rollback`). If it raises, the connection is closed.
        close: closes a connection. Its exceptions are logged at the debug level.
        name: name of the pool in messages.
        clock: returns the time in seconds.

    Raises:
        ValueError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        *,
        max_size: int = 10,
        wait_timeout: float | None = 30.0,
        max_age: float | None = 3600.0,
        max_idle: float | None = 600.0,
        check: Callable[[C], object] | None = None,
        reset: Callable[[C], object] | None = None,
        close: Callable[[C], object] = _close,
        name: str = "",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        _require_size(max_size)
        _require_seconds("wait_timeout", wait_timeout)
        _require_seconds("max_age", max_age)
        _require_seconds("max_idle", max_idle)
        _require_function("connect", connect)
        _require_function("close", close)
        if check is not None:
            _require_function("check", check)
        if reset is not None:
            _require_function("reset", reset)
        self.name = name
        self.max_size = max_size
        self.wait_timeout = wait_timeout
        self.max_age = max_age
        self.max_idle = max_idle
        self._connect = connect
        self._check = check
        self._reset = reset
        self._close = close
        self._clock = clock
        self._taken = self._made = self._discarded = self._timeouts = 0
        self._longest_wait = 0.0
        self._waits = 0
        self._waited = 0.0
        self._closed = False
        self._inherited: list[C] = []
        self._start_empty()
        _pools.add(self)

    def _start_empty(self) -> None:
        # Never held across a wait. A finalizer, which may run at any point, may return
        # a connection, so returns never wait for the lock: they are appended to
        # `_returned`, and the holder of the lock processes them.
        self._mutex = real_lock()
        self._returned: deque[_Entry[C] | _Slot] = deque()
        self._idle: deque[_Entry[C]] = deque()
        self._in_use: dict[int, _Entry[C]] = {}
        self._wait_queue: deque[Waiter[_Entry[C] | _Slot]] = deque()
        self._size = 0

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"<{type(self).__name__}{name} {self._size} of {self.max_size}>"

    @property
    def has_waiters(self) -> bool:
        """True if a task or thread waits for a connection. Never parks."""
        return bool(self._wait_queue)

    # Taking.

    def take(self, timeout: float | EllipsisType | None = ...) -> C:
        """Take a connection for exclusive use until `give_back`. May park.

        Args:
            timeout: seconds to wait for a free connection, instead of `wait_timeout`;
                0 does not wait, None waits without limit.

        Raises:
            PoolTimeout: no connection became free in time; the message names the pool.
            PoolClosed: the pool is closed.
            NotInGreenlet: the wait would block the reactor's thread.
            Exception: the exception of `connect`.
        """
        if timeout is ...:
            seconds = self.wait_timeout
        else:
            seconds = timeout
            if seconds is not None:
                guards.require_seconds("take(timeout)", seconds)
        if guards.collecting_thread == thread_ident():
            raise NotInGreenlet(
                f"{self!r}: take() was called while the garbage collector runs: a "
                "finalizer may return a connection but not take one; take it in a "
                "task started by spawn()"
            )
        task = current_task()
        waiter: Waiter[_Entry[C] | _Slot] | None = None
        self._mutex.acquire()
        try:
            if self._closed:
                raise PoolClosed(f"{self!r} is closed: take() is no longer possible")
            grant = self._claim()
            if grant is None:
                if seconds == 0:
                    raise self._timeout_error(0.0)
                waiter = self._enqueue(task)
        finally:
            self._unlock()
        if waiter is not None:
            grant = self._wait_in_queue(waiter, seconds)
        assert grant is not None
        return self._check_out(grant, task)

    def _claim(self) -> _Entry[C] | _Slot | None:
        """Return an idle connection or a free slot, if any. Call under the lock.

        Returns None while callers wait: returned connections go directly to them.
        """
        if self._idle:
            return self._idle.pop()
        if self._size < self.max_size:
            self._size += 1
            return _FREE_SLOT
        return None

    def _enqueue(self, task: Task[object] | None) -> Waiter[_Entry[C] | _Slot]:
        if task is None:
            self._refuse_to_block_the_reactor()
        else:
            guards.check_can_park()
        waiter: Waiter[_Entry[C] | _Slot] = Waiter(task, self)
        self._wait_queue.append(waiter)
        return waiter

    def _refuse_to_block_the_reactor(self) -> None:
        holders = [entry.holder for entry in self._in_use.values()]
        if threadable.ioThread == thread_ident() or any(
            holder is not None and not holder.done and holder.hub.on_its_thread()
            for holder in holders
        ):
            raise NotInGreenlet(
                f"take() was called in the reactor greenlet while all {self.max_size} "
                f"connections of {self!r} are in use; waiting there would block the "
                "tasks that must give one back: take it in a task (spawn(), "
                "in_greenlet()), or with timeout=0"
            )

    def _wait_in_queue(
        self, waiter: Waiter[_Entry[C] | _Slot], seconds: float | None
    ) -> _Entry[C] | _Slot:
        began = self._clock()
        try:
            waiter.wait(seconds)
        except BaseException:
            grant = self._leave_queue(waiter, began)
            if grant is not None and grant is not _REFUSED:
                self._return(grant)
            raise
        grant = self._leave_queue(waiter, began)
        waited = self._clock() - began
        if grant is _REFUSED:
            raise PoolClosed(f"{self!r} was closed during the wait for a connection")
        self._mutex.acquire()
        try:
            if grant is None:
                raise self._timeout_error(waited if seconds is None else seconds)
            self._longest_wait = max(self._longest_wait, waited)
        finally:
            self._unlock()
        return grant

    def _leave_queue(
        self, waiter: Waiter[_Entry[C] | _Slot], began: float
    ) -> _Entry[C] | _Slot | None:
        """Return the waiter's grant, or remove the waiter from the queue.

        Args:
            waiter: the waiter.
            began: the time when it was enqueued.
        """
        self._mutex.acquire()
        try:
            self._waits += 1
            self._waited += self._clock() - began
            if waiter.grant is None:
                self._wait_queue.remove(waiter)
            return waiter.grant
        finally:
            self._unlock()

    def _timeout_error(self, seconds: float) -> PoolTimeout:
        """Count a timeout and return its exception. Call under the lock."""
        self._timeouts += 1
        return PoolTimeout(
            f"timed out after {seconds:g} seconds: all max_size={self.max_size} "
            f"connections of the pool {self.name or 'without a name'} are in use, and "
            f"{len(self._wait_queue)} other callers wait: give connections back "
            "sooner, or raise max_size (and the database's limit) or the wait timeout"
        )

    def _check_out(self, grant: _Entry[C] | _Slot, task: Task[object] | None) -> C:
        """Return the checked connection, or make one in the slot. May park."""
        made = discarded = 0
        entry = None if isinstance(grant, _Slot) else grant
        try:
            if entry is not None and not self._is_usable(entry):
                stale, entry = entry, None
                discarded = 1
                self._close_connection(stale)
            if entry is None:
                entry = _Entry(self._connect(), self._clock())
                made = 1
        except BaseException:
            self._return(_DISCARDED_SLOT if discarded else _FREE_SLOT)
            raise
        entry.holder = task
        self._mutex.acquire()
        try:
            self._taken += 1
            self._made += made
            self._discarded += discarded
            self._in_use[id(entry.connection)] = entry
        finally:
            self._unlock()
        return entry.connection

    def _is_usable(self, entry: _Entry[C]) -> bool:
        """Return whether a connection is young enough and alive. May park.

        Raises:
            BaseException: the interruption of the check; the connection was closed.
        """
        if entry.idle_since is None:
            return True  # handed over directly from its last user
        if self._is_stale(entry):
            return False
        if self._check is None:
            return True
        handled = sys.exc_info()[1]
        try:
            self._check(entry.connection)
        except BaseException as error:
            if was_interrupted(error, handled):
                self._close_connection(entry)
                raise
            _log.debug(
                "idle connection is dead: {pool}: {error!r}", pool=self, error=error
            )
            return False
        return True

    def _is_stale(self, entry: _Entry[C]) -> bool:
        now = self._clock()
        if self.max_age is not None and now - entry.made_at > self.max_age:
            return True
        return (
            self.max_idle is not None
            and entry.idle_since is not None
            and now - entry.idle_since > self.max_idle
        )

    # Giving back.

    def give_back(self, connection: C, *, discard: bool = False) -> None:
        """Return `connection` to the pool. Call from any thread.

        May park, but only to reset or close the connection.

        Args:
            connection: a connection returned by `take`.
            discard: True to close it, because its state is in doubt.

        Raises:
            ValueError: the connection is not in use from this pool: it was taken
                elsewhere or given back before.
        """
        entry = self._in_use.pop(id(connection), None)
        if entry is None:
            if any(connection is inherited for inherited in self._inherited):
                return  # closing it would end the session of the parent process
            raise ValueError(
                f"{connection!r} is not in use from {self!r}: give back what take() "
                "returned, once"
            )
        entry.holder = None
        if not (discard or self._closed) and self._reset is not None:
            handled = sys.exc_info()[1]
            try:
                self._reset(connection)
            except BaseException as error:
                self._discard(entry)
                if was_interrupted(error, handled):
                    raise
                _log.debug(
                    "resetting a connection failed: {pool}: {error!r}",
                    pool=self,
                    error=error,
                )
                return
        entry.idle_since = None
        if discard or self._closed or self._is_stale(entry):
            self._discard(entry)
        else:
            self._return(entry)
        self._close_stale()

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Take a connection for a `with` block and give it back at its end. May park.

        If the block raises, the connection is closed, because its state is in doubt. It
        is kept if the pool has `reset` and the exception does not come from an
        interrupted wait (`Cancelled`, `TimedOut`, `RequestTimeout`,
        `ClientDisconnected`, `GreenletExit` etc.).
        """
        handled = sys.exc_info()[1]
        connection = self.take()
        try:
            yield connection
        except BaseException as error:
            in_doubt = self._reset is None or was_interrupted(error, handled)
            self.give_back(connection, discard=in_doubt)
            raise
        self.give_back(connection)

    def _return(self, returned: _Entry[C] | _Slot) -> None:
        """Return a connection or a slot. Never parks or waits for the lock."""
        self._returned.append(returned)
        self._process_returned()

    def _unlock(self) -> None:
        self._mutex.release()
        if self._returned:
            self._process_returned()

    def _process_returned(self) -> None:
        """Process returned connections. A no-op if another caller is doing so."""
        while self._returned and self._mutex.acquire(False):
            woken: list[Waiter[_Entry[C] | _Slot]] = []
            try:
                while self._returned:
                    waiter = self._pass_on(self._returned.popleft())
                    if waiter is not None:
                        woken.append(waiter)
            finally:
                self._mutex.release()
            # Outside the lock: in the reactor greenlet, `wake` runs the task at once.
            for waiter in woken:
                waiter.wake()

    def _pass_on(self, returned: _Entry[C] | _Slot) -> Waiter[_Entry[C] | _Slot] | None:
        """Grant `returned` to the first waiter, or keep it. Call under the lock.

        Returns:
            The waiter to wake.
        """
        if returned is _DISCARDED_SLOT:
            self._discarded += 1
            returned = _FREE_SLOT
        if self._wait_queue:
            waiter = self._wait_queue.popleft()
            waiter.grant = returned
            return waiter
        if isinstance(returned, _Slot):
            self._size -= 1
        else:
            returned.idle_since = self._clock()
            self._idle.append(returned)
        return None

    # Closing.

    def _close_connection(self, entry: _Entry[C]) -> None:
        """Close a connection; its slot stays occupied. May park."""
        try:
            # An interrupted close would leave an open connection counted as closed.
            with nullcontext() if current_task() is None else shield():
                self._close(entry.connection)
        except Exception as error:
            # The pool drops the connection even if closing it fails.
            _log.debug(
                "closing a connection failed: {pool}: {error!r}", pool=self, error=error
            )

    def _discard(self, entry: _Entry[C]) -> None:
        try:
            self._close_connection(entry)
        finally:
            self._return(_DISCARDED_SLOT)

    def _close_stale(self) -> None:
        """Close the connections idle for too long; in a closed pool, all idle ones."""
        if not self._idle:
            return
        stale = []
        # In a finalizer, an outer frame may hold the lock; then a later return does
        # this.
        if not self._mutex.acquire(False):
            return
        try:
            while self._idle and (self._closed or self._is_stale(self._idle[0])):
                stale.append(self._idle.popleft())
        finally:
            self._unlock()
        for entry in stale:
            self._discard(entry)

    def close(self) -> None:
        """Close the pool: idle connections now, others when returned. May park.

        Waiters and later calls of `take` get `PoolClosed`.
        """
        self._mutex.acquire()
        try:
            self._closed = True
            idle, self._idle = self._idle, deque()
            waiters, self._wait_queue = self._wait_queue, deque()
            for waiter in waiters:
                waiter.grant = _REFUSED
        finally:
            self._unlock()
        for waiter in waiters:
            waiter.wake()
        for entry in idle:
            self._discard(entry)

    def statistics(self) -> PoolStatistics:
        """Return the state and the counters. Never parks; call from anywhere."""
        idle = len(self._idle)
        return PoolStatistics(
            size=self._size,
            in_use=max(0, self._size - idle),
            idle=idle,
            waiting=len(self._wait_queue),
            taken=self._taken,
            made=self._made,
            discarded=self._discarded,
            timeouts=self._timeouts,
            longest_wait=self._longest_wait,
            max_size=self.max_size,
            waits=self._waits,
            waited=self._waited,
        )

    def reset_after_fork(self) -> None:
        """Empty the pool in the child of a fork. Called by the interpreter."""
        # The sockets are shared with the parent: closing or collecting the connections
        # would end the parent's sessions.
        for entry in (*self._idle, *self._in_use.values()):
            self._inherited.append(entry.connection)
        self._start_empty()


_pools: weakref.WeakSet[ConnectionPool[Any]] = weakref.WeakSet()


def live_pools() -> list[ConnectionPool[Any]]:
    """Return every pool of this process. Never parks; call from anywhere."""
    while True:
        try:
            return list(_pools)
        except RuntimeError:
            # Another thread has made a pool meanwhile.
            continue


def _reset_pools_after_fork() -> None:
    for pool in list(_pools):
        pool.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_pools_after_fork)
