"""A bounded pool of connections that tasks and real threads share.

What connects to a database says how; this file counts. A connection is open from
the moment somebody begins to make it until its `close()` has returned, and there
are never more than `max_size` of them. Who finds none free stands in a line, the
oldest first; what comes back is handed to the first of the line and to nobody
else, so a newcomer cannot overtake.

It knows tasks, threads and their locks. It must never know what a connection is,
nor park while it holds its own lock.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import deque
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.logger import Logger
from twisted.python import threadable

from ._switching import guards
from ._switching.errors import NotInGreenlet
from ._switching.timeouts import shield
from .green._line import DISCARDED, PLACE, REFUSED, Entry, Mark, Waiter
from .green._locks import _real_lock, thread_ident
from .green._place import here
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
    """No connection became free in time; the message names the pool and the remedy."""


class PoolClosed(RuntimeError):
    """The pool was closed: it gives no connections any more."""


@dataclass(frozen=True)
class PoolStatistics:
    """What a pool has done since it was made, and what it does now.

    Attributes:
        size: connections that are open, being made or being closed.
        in_use: those of them that are not idle.
        idle: those that wait to be taken.
        waiting: tasks and threads that stand in line.
        taken: how often a connection was taken.
        made: how many connections were made.
        discarded: how many were closed: in doubt, dead, too old or too long idle.
        timeouts: how often somebody waited in vain.
        longest_wait: seconds; the longest that anybody stood in line and got one.
        max_size: the most connections that may be open.
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


def _close(connection: Any) -> object:
    return connection.close()


def _require_size(size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(
            "max_size is how many connections may be open: give a whole number of at "
            f"least 1, not {size!r}"
        )


def _require_seconds(option: str, seconds: object) -> None:
    if seconds is None:
        return
    if isinstance(seconds, bool) or not (
        isinstance(seconds, (int, float)) and seconds >= 0
    ):
        raise ValueError(
            f"{option} is a number of seconds >= 0, or None for no limit, "
            f"not {seconds!r}"
        )


def _require_function(option: str, function: object) -> None:
    if not callable(function):
        raise ValueError(f"{option} is a function, not {function!r}")


class ConnectionPool(Generic[C]):
    """At most `max_size` connections, taken and given back.

    Tasks park while they wait, real threads block; both may use one pool. In the
    child of a fork it begins empty.

    Args:
        connect: makes a connection. May park; others are not held up by it.
        max_size: how many connections may be open at any moment.
        wait_timeout: seconds to wait for one before `PoolTimeout`; None for no
            limit. Making a connection is not counted.
        max_age: seconds after which a connection is not used again; None for no
            limit.
        max_idle: seconds without use after which a connection is closed, when
            next somebody gives one back or would get it; None for no limit.
        check: called with a connection that was idle before it is taken; an
            exception says that it is dead. Then it is closed and another made.
            Without it, whoever takes a dead connection finds out.
        reset: called with a connection that is given back, to leave nothing in it
            of whoever had it (`rollback`); an exception says that it is of no use
            any more, and it is closed.
        close: closes a connection. What it raises is logged, at the debug level.
        name: what messages call the pool.
        clock: the time in seconds, for ages.

    Raises:
        ValueError: an argument that makes no sense; the message names it.
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
        self._closed = False
        self._inherited: list[C] = []
        self._begin_empty()
        _pools.add(self)

    def _begin_empty(self) -> None:
        # Never held over a wait. A connection may come back in a finalizer, which
        # runs in the midst of anything, so what comes back never waits for the
        # lock: it is put into `_returned`, and whoever has the lock sees to it.
        self._mutex: Any = _real_lock()
        self._returned: deque[Entry[C] | Mark] = deque()
        self._idle: deque[Entry[C]] = deque()
        self._in_use: dict[int, Entry[C]] = {}
        self._line: deque[Waiter[C]] = deque()
        self._size = 0

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"<{type(self).__name__}{name} {self._size} of {self.max_size}>"

    # Taking.

    def take(self, timeout: float | EllipsisType | None = ...) -> C:
        """A connection that nobody else has, until it is given back. May park.

        Args:
            timeout: seconds to wait for a free one instead of `wait_timeout`; 0
                does not wait, None waits without limit.

        Raises:
            PoolTimeout: none became free in time.
            PoolClosed: the pool was closed.
            NotInGreenlet: the reactor greenlet would have to wait.
            Exception: what `connect` raises.
        """
        if timeout is ...:
            seconds = self.wait_timeout
        else:
            seconds = timeout
            if seconds is not None:
                guards.require_seconds("take(timeout)", seconds)
        if guards.collecting_thread == thread_ident():
            raise NotInGreenlet(
                f"{self!r}: the garbage collector is running; a finalizer can give a "
                "connection back, but not take one"
            )
        task = here()
        waiter: Waiter[C] | None = None
        self._mutex.acquire()
        try:
            if self._closed:
                raise PoolClosed(f"{self!r} is closed and gives no connections")
            grant = self._claim()
            if grant is None:
                if seconds == 0:
                    raise self._too_late(0.0)
                waiter = self._stand_in_line(task)
        finally:
            self._unlock()
        if waiter is not None:
            grant = self._wait_in_line(waiter, seconds)
        assert grant is not None
        return self._hand_out(grant, task)

    def _claim(self) -> Entry[C] | Mark | None:
        """What is free now. Under the lock.

        Nothing is, while somebody stands in line: what comes back is given to him.
        """
        if self._idle:
            return self._idle.pop()
        if self._size < self.max_size:
            self._size += 1
            return PLACE
        return None

    def _stand_in_line(self, task: Task[Any] | None) -> Waiter[C]:
        if task is None:
            self._refuse_to_stop_the_reactor()
        else:
            guards.refuse_bad_moment()
        waiter: Waiter[C] = Waiter(task, self)
        self._line.append(waiter)
        return waiter

    def _refuse_to_stop_the_reactor(self) -> None:
        holders = [entry.holder for entry in self._in_use.values()]
        if threadable.ioThread == thread_ident() or any(
            holder is not None and not holder.done and holder.hub.on_its_thread()
            for holder in holders
        ):
            raise NotInGreenlet(
                f"all {self.max_size} connections of {self!r} are in use, and the "
                "reactor greenlet, which alone can continue those who have them, was "
                "to wait for one: take it in a task (spawn(), in_greenlet()), or with "
                "timeout=0"
            )

    def _wait_in_line(
        self, waiter: Waiter[C], seconds: float | None
    ) -> Entry[C] | Mark:
        began = self._clock()
        try:
            waiter.wait(seconds)
        except BaseException:
            grant = self._leave_line(waiter)
            if grant is not None and grant is not REFUSED:
                self._return(grant)
            raise
        grant = self._leave_line(waiter)
        waited = self._clock() - began
        if grant is REFUSED:
            raise PoolClosed(f"{self!r} was closed while somebody waited for it")
        self._mutex.acquire()
        try:
            if grant is None:
                raise self._too_late(waited if seconds is None else seconds)
            self._longest_wait = max(self._longest_wait, waited)
        finally:
            self._unlock()
        return grant

    def _leave_line(self, waiter: Waiter[C]) -> Entry[C] | Mark | None:
        """What the waiter was given; None if nothing, and it is in line no more."""
        self._mutex.acquire()
        try:
            if waiter.grant is None:
                self._line.remove(waiter)
            return waiter.grant
        finally:
            self._unlock()

    def _too_late(self, seconds: float) -> PoolTimeout:
        """The error for who waited in vain. Under the lock."""
        self._timeouts += 1
        return PoolTimeout(
            f"the connection pool {self.name or 'without a name'} has max_size="
            f"{self.max_size}, all of them in use for {seconds:g} seconds, and "
            f"{len(self._line)} others are waiting: give connections back sooner, or "
            "raise max_size (and what the database allows) or the wait timeout"
        )

    def _hand_out(self, grant: Entry[C] | Mark, task: Task[Any] | None) -> C:
        """The connection of `grant`, made or found to be alive. May park."""
        made = discarded = 0
        entry = None if isinstance(grant, Mark) else grant
        try:
            if entry is not None and not self._is_usable(entry):
                stale, entry = entry, None
                discarded = 1
                self._close_now(stale)
            if entry is None:
                entry = Entry(self._connect(), self._clock())
                made = 1
        except BaseException:
            self._return(DISCARDED if discarded else PLACE)
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

    def _is_usable(self, entry: Entry[C]) -> bool:
        """Is it young and alive? May park.

        Raises:
            BaseException: what interrupted the check; then it was closed.
        """
        if entry.idle_since is None:
            return True  # handed over by whoever used it until now
        if self._is_stale(entry):
            return False
        if self._check is None:
            return True
        handled = sys.exc_info()[1]
        try:
            self._check(entry.connection)
        except BaseException as error:
            if was_interrupted(error, handled):
                self._close_now(entry)
                raise
            _log.debug(
                "{pool}: an idle connection is dead: {error!r}", pool=self, error=error
            )
            return False
        return True

    def _is_stale(self, entry: Entry[C]) -> bool:
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
        """Let others have `connection`, which was taken here. From any thread.

        May park while it resets or closes the connection, for nothing else.

        Args:
            connection: what `take` returned.
            discard: close it instead: its state is in doubt.

        Raises:
            ValueError: it was not taken here, or was given back before.
        """
        entry = self._in_use.pop(id(connection), None)
        if entry is None:
            if any(connection is one for one in self._inherited):
                return  # the parent's: its goodbye would end the parent's connection
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
                    "{pool}: a connection could not be reset: {error!r}",
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
        """A connection for the time of a `with` block. May park.

        It is given back at the end. If the block ends by an exception it is closed
        instead, for its state is in doubt; unless the pool has a `reset`, and the
        exception is not of a wait that was cut short (`Cancelled`, `TimedOut`,
        `RequestTimeout`, `ClientDisconnected`, `GreenletExit` ...).
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

    def _return(self, what: Entry[C] | Mark) -> None:
        """Take back a connection or a place. Never parks, nor waits for the lock."""
        self._returned.append(what)
        self._settle()

    def _unlock(self) -> None:
        self._mutex.release()
        if self._returned:
            self._settle()

    def _settle(self) -> None:
        """See to all that came back, unless somebody is at it: then he does."""
        while self._returned and self._mutex.acquire(False):
            woken: list[Waiter[C]] = []
            try:
                while self._returned:
                    waiter = self._receive(self._returned.popleft())
                    if waiter is not None:
                        woken.append(waiter)
            finally:
                self._mutex.release()
            # Without the lock: in the reactor greenlet this runs the task at once.
            for waiter in woken:
                waiter.wake()

    def _receive(self, what: Entry[C] | Mark) -> Waiter[C] | None:
        """Give `what` to the first of the line, or keep it. Under the lock."""
        if what is DISCARDED:
            self._discarded += 1
            what = PLACE
        if self._line:
            waiter = self._line.popleft()
            waiter.grant = what
            return waiter
        if isinstance(what, Mark):
            self._size -= 1
        else:
            what.idle_since = self._clock()
            self._idle.append(what)
        return None

    # Closing.

    def _close_now(self, entry: Entry[C]) -> None:
        """Close a connection; its place stays taken. May park."""
        try:
            # Cut short, it might be open and count as closed.
            with nullcontext() if here() is None else shield():
                self._close(entry.connection)
        except Exception as error:
            # It is forgotten in any case.
            _log.debug(
                "{pool}: closing a connection failed: {error!r}", pool=self, error=error
            )

    def _discard(self, entry: Entry[C]) -> None:
        try:
            self._close_now(entry)
        finally:
            self._return(DISCARDED)

    def _close_stale(self) -> None:
        """Close those that were idle for too long, or all when the pool is closed."""
        if not self._idle:
            return
        stale = []
        # In a finalizer the lock may be held below us; then there is another time.
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
        """Close what is idle; the rest when it is given back. May park.

        Whoever waits, and whoever takes one from now on, gets `PoolClosed`.
        """
        self._mutex.acquire()
        try:
            self._closed = True
            idle, self._idle = self._idle, deque()
            line, self._line = self._line, deque()
            for waiter in line:
                waiter.grant = REFUSED
        finally:
            self._unlock()
        for waiter in line:
            waiter.wake()
        for entry in idle:
            self._discard(entry)

    def statistics(self) -> PoolStatistics:
        """What the pool does and has done. Never parks; call from anywhere."""
        idle = len(self._idle)
        return PoolStatistics(
            size=self._size,
            in_use=max(0, self._size - idle),
            idle=idle,
            waiting=len(self._line),
            taken=self._taken,
            made=self._made,
            discarded=self._discarded,
            timeouts=self._timeouts,
            longest_wait=self._longest_wait,
            max_size=self.max_size,
        )

    def _after_fork(self) -> None:
        # The sockets are the parent's as well. To close them, or to let them be
        # collected, would say goodbye on them.
        for entry in (*self._idle, *self._in_use.values()):
            self._inherited.append(entry.connection)
        self._begin_empty()


_pools: weakref.WeakSet[ConnectionPool[Any]] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
