"""Green `select`: `select`, `poll` and `epoll` park the task while nothing is ready.

Each asks the kernel by the original first and again after the wait, so answers
and errors are the original's own.
"""

from __future__ import annotations

import errno as _errno
import select as _standard
from time import monotonic as _monotonic
from typing import TYPE_CHECKING, Any

from . import _events
from ._place import give_way as _give_way
from ._place import here as _here
from ._place import may_park as _may_park

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from txgreenwsgi._switching.greenlets import Task

    def __getattr__(name: str) -> Any: ...


# The rest of the module is as it was.
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in globals())
    }
)

_real_select: Any = _standard.select
_real_poll: Any = _standard.poll
_real_epoll: Any = getattr(_standard, "epoll", None)
_READ_BITS = _standard.POLLIN | _standard.POLLPRI | getattr(_standard, "POLLRDHUP", 0)


def _as_told(ready: Any) -> tuple[list[Any], list[Any], list[Any]]:
    told: tuple[list[Any], list[Any], list[Any]] = ready
    return told


def _directions(events: int) -> int:
    # A hang-up or an error is told to those that read.
    return (_events.READ if events & _READ_BITS or not events else 0) | (
        _events.WRITE if events & _standard.POLLOUT else 0
    )


def _parking_task(seconds: float | None) -> Task[Any] | None:
    """The task that is to wait; None when the original does it."""
    if seconds is not None and seconds <= 0:
        return None
    task = _here()
    if task is None or not _may_park():
        return None
    return task


def select(
    rlist: Iterable[Any],
    wlist: Iterable[Any],
    xlist: Iterable[Any],
    timeout: float | None = None,
    /,
) -> tuple[list[Any], list[Any], list[Any]]:
    """What of the three lists is ready; as `select.select`. May park.

    Args:
        rlist: descriptors or objects with `fileno()`, to be read from.
        wlist: the same, to be written to.
        xlist: the same, for exceptional conditions.
        timeout: seconds; None for no limit.
    """
    odd: Any = timeout
    if timeout is not None and not isinstance(odd, (int, float)):
        return _as_told(_real_select(rlist, wlist, xlist, timeout))
    task = _parking_task(timeout)
    if task is None:
        if timeout == 0 and (task := _here()) is not None:
            _give_way(task)
        return _as_told(_real_select(rlist, wlist, xlist, timeout))
    # An iterator is used up by the first question; errors are the original's.
    lists = [
        list(items) if hasattr(items, "__next__") else items
        for items in (rlist, wlist, xlist)
    ]
    ready: tuple[list[Any], list[Any], list[Any]] = _real_select(*lists, 0)
    if any(ready):
        _give_way(task)
        return ready
    deadline = None if timeout is None else _monotonic() + timeout
    interest: dict[int, int] = {}
    directions = (_events.READ, _events.WRITE, _events.READ)
    for objects, direction in zip(lists, directions, strict=True):
        for item in objects:
            number = item if isinstance(item, int) else item.fileno()
            interest[number] = interest.get(number, 0) | direction
    while not any(ready):
        left = None if deadline is None else deadline - _monotonic()
        if left is not None and left <= 0:
            break
        _events.wait_any(task, interest, left, "select()")
        ready = _real_select(*lists, 0)
    return ready


def _milliseconds(timeout: float | None) -> float | None:
    """The limit in seconds, None for none; odd values are the original's affair."""
    if timeout is None or timeout < 0:
        return None
    return timeout / 1000


class _Poll:
    """The shape of what `select.poll()` returns, with a `poll()` that parks."""

    _real: Any
    _interest: dict[int, int]
    _busy: bool

    def __new__(cls) -> _Poll:
        """Refused: it is made by `poll()`, as ever."""
        raise TypeError("cannot create 'select.poll' instances")

    def register(self, fd: Any, eventmask: int = 7, /) -> None:
        """Watch `fd` for `eventmask`."""
        self._real.register(fd, eventmask)
        number = fd if isinstance(fd, int) else fd.fileno()
        self._interest[number] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """Change what is watched of `fd`."""
        self._real.modify(fd, eventmask)
        number = fd if isinstance(fd, int) else fd.fileno()
        self._interest[number] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """Stop watching `fd`."""
        self._real.unregister(fd)
        self._interest.pop(fd if isinstance(fd, int) else fd.fileno(), None)

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """The (fd, events) that are ready, waited for `timeout` milliseconds.

        May park.
        """
        task = _here()
        if self._busy:
            raise RuntimeError("concurrent poll() invocation")
        if task is None or timeout == 0 or not _may_park():
            if task is not None:
                _give_way(task)
            return list(self._real.poll(timeout))
        if timeout is not None and not isinstance(timeout, (int, float)):
            return list(self._real.poll(timeout))
        seconds = _milliseconds(timeout)
        if seconds is not None and seconds * 1000 > 0x7FFFFFFF:
            return list(self._real.poll(timeout))  # for its OverflowError
        ready: list[tuple[int, int]] = self._real.poll(0)
        deadline = None if seconds is None else _monotonic() + seconds
        self._busy = True
        try:
            while not ready:
                left = None if deadline is None else deadline - _monotonic()
                if left is not None and left <= 0:
                    return ready
                interest = {fd: _directions(ev) for fd, ev in self._interest.items()}
                try:
                    _events.wait_any(task, interest, left, "poll()")
                except OSError as error:
                    if error.errno != _errno.EBADF:
                        raise
                    # Closed meanwhile: poll has an event of its own for that.
                ready = self._real.poll(0)
            _give_way(task)
        finally:
            self._busy = False
        return ready


def poll() -> _Poll:
    """A new polling object. Never parks; its `poll()` does."""
    polling = object.__new__(_Poll)
    polling._real = _real_poll()
    polling._interest = {}
    polling._busy = False
    return polling


_Poll.__name__ = _Poll.__qualname__ = "poll"
_Poll.__module__ = "select"

if _real_epoll is not None:

    class epoll:  # noqa: N801 - the name in the standard library
        """The shape of `select.epoll`, with a `poll()` that parks."""

        def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
            self._real = _real_epoll(sizehint, flags)

        @classmethod
        def fromfd(cls, fd: int, /) -> epoll:
            """An object for the epoll descriptor `fd`."""
            self = cls.__new__(cls)
            self._real = _real_epoll.fromfd(fd)
            return self

        def fileno(self) -> int:
            """The epoll descriptor."""
            return int(self._real.fileno())

        def close(self) -> None:
            """Close the epoll descriptor; whoever waits on it is told."""
            if not self._real.closed:
                _events.forget_number(self._real.fileno())
            self._real.close()

        @property
        def closed(self) -> bool:
            """Is it closed?"""
            return bool(self._real.closed)

        def register(self, fd: Any, eventmask: int = 7) -> None:
            """Watch `fd` for `eventmask`."""
            self._real.register(fd, eventmask)

        def modify(self, fd: Any, eventmask: int) -> None:
            """Change what is watched of `fd`."""
            self._real.modify(fd, eventmask)

        def unregister(self, fd: Any) -> None:
            """Stop watching `fd`."""
            self._real.unregister(fd)

        def poll(
            self, timeout: float | None = None, maxevents: int = -1
        ) -> list[tuple[int, int]]:
            """The (fd, events) that are ready, waited for `timeout` seconds.

            May park.
            """
            task = _here()
            odd = timeout is not None and not isinstance(timeout, (int, float))
            if task is None or timeout == 0 or odd or not _may_park():
                if task is not None:
                    _give_way(task)
                found: list[tuple[int, int]] = self._real.poll(timeout, maxevents)
                return found
            ready: list[tuple[int, int]] = self._real.poll(0, maxevents)
            unlimited = timeout is None or timeout < 0
            deadline = None if unlimited else _monotonic() + (timeout or 0.0)
            interest = {self._real.fileno(): _events.READ}
            while not ready:
                left = None if deadline is None else deadline - _monotonic()
                if left is not None and left <= 0:
                    return ready
                _events.wait_any(task, interest, left, "epoll.poll()")
                ready = self._real.poll(0, maxevents)
            _give_way(task)
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
