"""Green `select`: `select`, `poll` and `epoll` park the task while nothing is ready.

Each function calls the original before and after the wait, so it returns and raises the
same results and errors. It knows descriptors. It must never know sockets.
"""

from __future__ import annotations

import errno as _errno
import select as _standard
from time import monotonic as _monotonic
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking import descriptors as _descriptors
from txgreenwsgi._parking.waits import may_park as _may_park
from txgreenwsgi._parking.waits import yield_to_others as _yield_to_others
from txgreenwsgi._switching.running import current_task as _current_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import TypeAlias

    from _typeshed import FileDescriptorLike

    from txgreenwsgi._switching.greenlets import Task

    _Files: TypeAlias = Iterable[FileDescriptorLike]
    _Ready: TypeAlias = tuple[
        list[FileDescriptorLike], list[FileDescriptorLike], list[FileDescriptorLike]
    ]
    # The (fd, events) pairs that `poll` returns.
    _Events: TypeAlias = list[tuple[int, int]]

    def __getattr__(name: str) -> Any: ...


# All other names are those of the original.
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in globals())
    }
)

# Called with arguments that only the originals check.
_real_select: Callable[..., _Ready] = _standard.select
_real_poll = _standard.poll
_real_epoll: Any = getattr(_standard, "epoll", None)
_READ_BITS = _standard.POLLIN | _standard.POLLPRI | getattr(_standard, "POLLRDHUP", 0)


def _fd_of(file: FileDescriptorLike) -> int:
    return file if isinstance(file, int) else file.fileno()


def _directions(events: int) -> int:
    # A hang-up or an error wakes the readers.
    return (_descriptors.READ if events & _READ_BITS or not events else 0) | (
        _descriptors.WRITE if events & _standard.POLLOUT else 0
    )


def _parking_task(seconds: float | None) -> Task[object] | None:
    """Return the task to park; None to call the original."""
    if seconds is not None and seconds <= 0:
        return None
    task = _current_task()
    if task is None or not _may_park():
        return None
    return task


def select(
    rlist: _Files,
    wlist: _Files,
    xlist: _Files,
    timeout: float | None = None,
    /,
) -> _Ready:
    """Return the ready subset of each list; as `select.select`. May park.

    Args:
        rlist: descriptors or objects with `fileno()`, to wait for reading.
        wlist: the same, to wait for writing.
        xlist: the same, to wait for exceptional conditions.
        timeout: the time limit in seconds; None for no limit.
    """
    if timeout is not None and not isinstance(timeout, (int, float)):
        return _real_select(rlist, wlist, xlist, timeout)  # raises
    task = _parking_task(timeout)
    if task is None:
        if timeout == 0 and (task := _current_task()) is not None:
            _yield_to_others(task)
        return _real_select(rlist, wlist, xlist, timeout)
    # The first call would consume an iterator.
    lists = [
        list(items) if hasattr(items, "__next__") else items
        for items in (rlist, wlist, xlist)
    ]
    ready = _real_select(*lists, 0)
    if any(ready):
        _yield_to_others(task)
        return ready
    deadline = None if timeout is None else _monotonic() + timeout
    interest: dict[int, int] = {}
    directions = (_descriptors.READ, _descriptors.WRITE, _descriptors.READ)
    for objects, direction in zip(lists, directions, strict=True):
        for item in objects:
            number = _fd_of(item)
            interest[number] = interest.get(number, 0) | direction
    while not any(ready):
        left = None if deadline is None else deadline - _monotonic()
        if left is not None and left <= 0:
            break
        _descriptors.wait_any(task, interest, left, "select()")
        ready = _real_select(*lists, 0)
    return ready


def _milliseconds(timeout: float | None) -> float | None:
    """Convert the time limit of `poll` from milliseconds to seconds."""
    if timeout is None or timeout < 0:
        return None
    return timeout / 1000


class _Poll:
    """The API of `select.poll` objects; `poll()` parks."""

    _real: _standard.poll
    _interest: dict[int, int]
    _busy: bool

    def __new__(cls) -> _Poll:
        """Raise TypeError, as the original does: call `select.poll()`."""
        raise TypeError("cannot create 'select.poll' instances")

    def register(self, fd: FileDescriptorLike, eventmask: int = 7, /) -> None:
        """Register `fd` for the events in `eventmask`."""
        self._real.register(fd, eventmask)
        self._interest[_fd_of(fd)] = eventmask

    def modify(self, fd: FileDescriptorLike, eventmask: int, /) -> None:
        """Change the events that `fd` is registered for."""
        self._real.modify(fd, eventmask)
        self._interest[_fd_of(fd)] = eventmask

    def unregister(self, fd: FileDescriptorLike, /) -> None:
        """Remove the registration of `fd`."""
        self._real.unregister(fd)
        self._interest.pop(_fd_of(fd), None)

    def poll(self, timeout: float | None = None, /) -> _Events:
        """Return the ready (fd, events) pairs. May park.

        Args:
            timeout: the time limit in milliseconds; None for no limit.
        """
        task = _current_task()
        if self._busy:
            raise RuntimeError("concurrent poll() invocation")
        if task is None or timeout == 0 or not _may_park():
            if task is not None:
                _yield_to_others(task)
            return list(self._real.poll(timeout))
        if timeout is not None and not isinstance(timeout, (int, float)):
            return list(self._real.poll(timeout))
        seconds = _milliseconds(timeout)
        if seconds is not None and seconds * 1000 > 0x7FFFFFFF:
            return list(self._real.poll(timeout))  # for its OverflowError
        ready: _Events = self._real.poll(0)
        deadline = None if seconds is None else _monotonic() + seconds
        self._busy = True
        try:
            while not ready:
                left = None if deadline is None else deadline - _monotonic()
                if left is not None and left <= 0:
                    return ready
                interest = {fd: _directions(ev) for fd, ev in self._interest.items()}
                try:
                    _descriptors.wait_any(task, interest, left, "poll()")
                except OSError as error:
                    if error.errno != _errno.EBADF:
                        raise
                    # Closed during the wait: `poll` reports POLLNVAL.
                ready = self._real.poll(0)
            _yield_to_others(task)
        finally:
            self._busy = False
        return ready


def poll() -> _Poll:
    """Make a polling object. Never parks; its method `poll` may."""
    polling = object.__new__(_Poll)
    polling._real = _real_poll()
    polling._interest = {}
    polling._busy = False
    return polling


_Poll.__name__ = _Poll.__qualname__ = "poll"
_Poll.__module__ = "select"

if _real_epoll is not None:

    class epoll:  # noqa: N801 - the name in the standard library
        """The API of `select.epoll`; `poll()` parks."""

        def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
            self._real = _real_epoll(sizehint, flags)

        @classmethod
        def fromfd(cls, fd: int, /) -> epoll:
            """Make an object for the epoll descriptor `fd`."""
            self = cls.__new__(cls)
            self._real = _real_epoll.fromfd(fd)
            return self

        def fileno(self) -> int:
            """Return the epoll descriptor."""
            return int(self._real.fileno())

        def close(self) -> None:
            """Close the epoll descriptor; its waiters get EBADF."""
            if not self._real.closed:
                _descriptors.unregister_fd(self._real.fileno())
            self._real.close()

        @property
        def closed(self) -> bool:
            """True if the epoll descriptor is closed."""
            return bool(self._real.closed)

        def register(self, fd: FileDescriptorLike, eventmask: int = 7) -> None:
            """Register `fd` for the events in `eventmask`."""
            self._real.register(fd, eventmask)

        def modify(self, fd: FileDescriptorLike, eventmask: int) -> None:
            """Change the events that `fd` is registered for."""
            self._real.modify(fd, eventmask)

        def unregister(self, fd: FileDescriptorLike) -> None:
            """Remove the registration of `fd`."""
            self._real.unregister(fd)

        def poll(self, timeout: float | None = None, maxevents: int = -1) -> _Events:
            """Return the ready (fd, events) pairs. May park.

            Args:
                timeout: the time limit in seconds; None for no limit.
                maxevents: the maximum number of pairs; -1 for no limit.
            """
            task = _current_task()
            odd = timeout is not None and not isinstance(timeout, (int, float))
            if task is None or timeout == 0 or odd or not _may_park():
                if task is not None:
                    _yield_to_others(task)
                found: _Events = self._real.poll(timeout, maxevents)
                return found
            ready: _Events = self._real.poll(0, maxevents)
            unlimited = timeout is None or timeout < 0
            deadline = None if unlimited else _monotonic() + (timeout or 0.0)
            interest = {self._real.fileno(): _descriptors.READ}
            while not ready:
                left = None if deadline is None else deadline - _monotonic()
                if left is not None and left <= 0:
                    return ready
                _descriptors.wait_any(task, interest, left, "epoll.poll()")
                ready = self._real.poll(0, maxevents)
            _yield_to_others(task)
            return ready

        def __enter__(self) -> epoll:
            self._real.__enter__()
            return self

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            self.close()
