"""Readiness of file descriptors: `poll` and `select` that park the task.

A wait polls the kernel first and parks only if nothing is ready. While the task is
parked, its descriptors are registered with an epoll object of the wait, which the
reactor watches. So a wait for a thousand descriptors is a single reader for the
reactor, and hang-ups and errors are reported as the kernel reports them. Closing and
reusing a descriptor during the wait is safe: the kernel drops it from the epoll
object, and the reactor never knew its number. On platforms without epoll the reactor
watches duplicates of the descriptors.

This module knows descriptors and the reactor. It must never switch.
"""

from __future__ import annotations

import errno
import os
import select as stdlib_select
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from zope.interface import implementer

from .errors import NotInGreenlet
from .greenlets import Suspension, Task, require_task
from .guards import require_seconds
from .thread_calls import in_task_of_thread, tasks_of_threads
from .waiting import sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from .greenlets import Hub

    class HasFileno(Protocol):
        """An object with a file descriptor: a socket, a file."""

        def fileno(self) -> int:
            """Return the descriptor; -1 if it is closed."""

    Descriptor = int | HasFileno

__all__ = [
    "Poll",
    "notify_closed",
    "poll",
    "select",
    "wait_readable",
    "wait_writable",
    "waiters_of",
]

# The originals, even if `txgreenwsgi.monkey` patches the module later.
_kernel_poll = stdlib_select.poll
_kernel_epoll: Any = getattr(stdlib_select, "epoll", None)

_READ = stdlib_select.POLLIN | stdlib_select.POLLPRI
_WRITE = stdlib_select.POLLOUT
_ENDED = stdlib_select.POLLHUP | stdlib_select.POLLERR | stdlib_select.POLLNVAL

R = TypeVar("R", bound="Descriptor")
W = TypeVar("W", bound="Descriptor")
X = TypeVar("X", bound="Descriptor")

# The identity of an open file: device and inode.
_File = tuple[int, int]


class _Waiter(NamedTuple):
    """A parked task that waits on a descriptor.

    Attributes:
        task: the task.
        file: the file that the descriptor was open on when the wait began; the
            number may have been reused for another file since.
    """

    task: Task[object]
    file: _File | None


# The waiters of all parked tasks: (descriptor, direction) -> waiter.
_Waiters = dict[tuple[int, int], _Waiter]


def _fileno(fd: Descriptor) -> int:
    if not isinstance(fd, int) and not hasattr(fd, "fileno"):
        raise TypeError(
            f"{fd!r} is not a file descriptor: give an int or an object with fileno()"
        )
    number = fd if isinstance(fd, int) else fd.fileno()
    if number < 0:
        raise ValueError(f"{fd!r} has no open file descriptor (fileno() is {number})")
    return number


@implementer(IReadDescriptor, IWriteDescriptor)
class _Watch:
    """A descriptor that the reactor watches; `notify` is called on events."""

    def __init__(self, fd: int, notify: Callable[[], object]) -> None:
        self._fd = fd
        self._notify = notify

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "txgreenwsgi.poll"

    def doRead(self) -> None:
        self._notify()

    def doWrite(self) -> None:
        self._notify()

    def connectionLost(self, reason: Failure) -> None:
        self._notify()


class EpollWatch:
    """One epoll object with all descriptors of one wait."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        interest: dict[int, int],
        notify: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._count = len(interest)
        self._epoll = _kernel_epoll()
        try:
            for fd, events in interest.items():
                # A regular file cannot be registered. It is always readable and
                # writable, so the wait is for an event that never occurs.
                with suppress(PermissionError):
                    # epoll's event bits are poll's.
                    self._epoll.register(fd, events)
            self._watch = _Watch(self._epoll.fileno(), notify)
            reactor.addReader(self._watch)
        except BaseException:
            self._epoll.close()
            raise

    def ready(self) -> list[tuple[int, int]]:
        ready: list[tuple[int, int]] = self._epoll.poll(0, self._count)
        return ready

    def stop(self) -> None:
        self._reactor.removeReader(self._watch)
        self._epoll.close()


class DuplicateWatch:
    """Duplicates of all descriptors of one wait, for platforms without epoll.

    A reactor does not report urgent data (POLLPRI), so a wait for POLLPRI alone
    does not end here.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        interest: dict[int, int],
        notify: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._kernel = _kernel_poll()
        self._watches: list[_Watch] = []
        self._originals: dict[int, int] = {}
        try:
            for fd, events in interest.items():
                watch = _Watch(os.dup(fd), notify)
                self._watches.append(watch)
                self._originals[watch.fileno()] = fd
                self._kernel.register(watch.fileno(), events)
                if events & _WRITE:
                    reactor.addWriter(watch)
                if events & _READ or not events & _WRITE:
                    reactor.addReader(watch)
        except BaseException:
            self.stop()
            raise

    def ready(self) -> list[tuple[int, int]]:
        return [(self._originals[fd], events) for fd, events in self._kernel.poll(0)]

    def stop(self) -> None:
        watches, self._watches = self._watches, []
        for watch in watches:
            self._reactor.removeReader(watch)
            self._reactor.removeWriter(watch)
            os.close(watch.fileno())


#: The implementation for this platform.
watch_class: type[EpollWatch | DuplicateWatch] = (
    EpollWatch if hasattr(stdlib_select, "epoll") else DuplicateWatch
)


def waiters_of(hub: Hub) -> _Waiters:
    """Return the tasks of `hub` that wait in this module, by descriptor."""
    waiters: _Waiters = hub.reactor.__dict__.setdefault("_txgreenwsgi_waiters", {})
    return waiters


def notify_closed(hub: Hub, fd: int) -> None:
    """Resume the waits of this module on `fd`, which has been closed. Never parks.

    The kernel reports nothing when a descriptor is closed, so its waiters are
    resumed here; they check the descriptor and find it closed. Call from the
    reactor's thread.
    """
    for (number, _), waiter in list(waiters_of(hub).items()):
        suspension = waiter.task.suspension
        if number == fd and suspension is not None:
            suspension.resume(True)


def _file_of(fd: int) -> _File | None:
    """Return the identity of the file that `fd` is open on; None if it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _wait_for_events(
    interest: dict[int, int], timeout: float | None, waiting_on: str
) -> list[tuple[int, int]]:
    """Return the ready (fd, events) pairs in the format of `poll`; [] on timeout."""
    if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
        return in_task(_wait_for_events, interest, timeout, waiting_on)
    task = require_task(waiting_on)
    reactor = task.hub.reactor
    kernel = _kernel_poll()
    for fd, events in interest.items():
        kernel.register(fd, events)
    if timeout != 0:
        # A loop over data that is always ready must not block the reactor or escape
        # its timeout. Yield before polling: another task may consume the data in that
        # turn.
        task.raise_pending()
        if (
            reactor.seconds() - task.hub.resumed_at > task.hub.slice_seconds
            and not task.dying
        ):
            sleep(0)
    ready = kernel.poll(0)
    if ready or timeout == 0:
        return ready
    # A copy: other tasks may change the Poll object during the wait.
    return _park_until_ready(task, dict(interest), timeout, waiting_on)


def _park_until_ready(
    task: Task[object],
    interest: dict[int, int],
    timeout: float | None,
    waiting_on: str,
) -> list[tuple[int, int]]:
    reactor = task.hub.reactor
    if interest and not IReactorFDSet.providedBy(reactor):
        raise NotInGreenlet(
            f"{waiting_on} needs a reactor that watches file descriptors; "
            f"{reactor!r} does not"
        )
    files = {fd: _file_of(fd) for fd in interest}
    waiters = waiters_of(task.hub)
    own = _register(waiters, task, interest, files)
    deadline = None if timeout is None else reactor.seconds() + timeout
    try:
        while True:
            suspension = Suspension(task, waiting_on)
            ready, late = _park_once(suspension, reactor, interest, deadline)
            if ready or late:
                break
        # Descriptors that were closed during the wait, and possibly reused for other
        # files. Checking all of them takes time, so do it only if none is ready.
        closed = {fd for fd in ready or interest if _file_of(fd) != files[fd]}
        ready.update(dict.fromkeys(closed, stdlib_select.POLLNVAL))
        return [(fd, ready[fd]) for fd in interest if fd in ready]
    finally:
        for key, waiter in own.items():
            if waiters.get(key) is waiter:
                del waiters[key]


def _register(
    waiters: _Waiters,
    task: Task[object],
    interest: dict[int, int],
    files: dict[int, _File | None],
) -> _Waiters:
    """Add `task` to `waiters` for its descriptors; return the new entries.

    Raises:
        RuntimeError: another task waits on one of them in the same direction.
    """
    own: _Waiters = {}
    for fd, events in interest.items():
        for direction in (_READ, _WRITE):
            if not events & direction:
                continue
            own[fd, direction] = _Waiter(task, files[fd])
            other = waiters.get((fd, direction))
            if other is not None and other.file == files[fd]:
                raise RuntimeError(
                    f"file descriptor {fd} is waited on for "
                    f"{'reading' if direction == _READ else 'writing'} by "
                    f"{other.task!r} already: let one task wait for each direction"
                )
    waiters.update(own)
    return own


def _park_once(
    suspension: Suspension,
    reactor: IReactorTime,
    interest: dict[int, int],
    deadline: float | None,
) -> tuple[dict[int, int], bool]:
    """Park until an event or the deadline.

    Returns:
        The ready descriptors with their events, and True after the deadline. Both
        may be empty: another task may have read from the descriptor meanwhile.
    """
    watch = None
    if interest:
        fd_reactor = cast("IReactorFDSet", reactor)  # checked by the caller
        watch = watch_class(fd_reactor, interest, suspension.resume)
    call = None
    try:
        if deadline is not None:
            left = max(0.0, deadline - reactor.seconds())
            call = reactor.callLater(left, suspension.resume, True)
        late = bool(suspension.wait())
        return dict(() if watch is None else watch.ready()), late
    finally:
        if call is not None and call.active():
            call.cancel()
        if watch is not None:
            watch.stop()


def wait_readable(fd: Descriptor, timeout: float | None = None) -> bool:
    """Wait until reading from `fd` would not block. May park.

    End of file, a hang-up and an error count as readable, as they do for
    `select`. A regular file is always readable.

    Args:
        fd: a file descriptor, or an object with `fileno()`.
        timeout: seconds; None for no limit, 0 to poll without parking.

    Returns:
        True if it is readable, False after the timeout.

    Raises:
        ValueError: `fd` is not open.
        RuntimeError: another task waits to read from it.
        NotInGreenlet: the caller is not in a task.
    """
    return _wait_one(fd, stdlib_select.POLLIN, timeout, "wait_readable")


def wait_writable(fd: Descriptor, timeout: float | None = None) -> bool:
    """Wait until writing to `fd` would not block; otherwise as `wait_readable`."""
    return _wait_one(fd, stdlib_select.POLLOUT, timeout, "wait_writable")


def _wait_one(fd: Descriptor, events: int, timeout: float | None, what: str) -> bool:
    if timeout is not None:
        require_seconds(f"{what}(timeout)", timeout)
    number = _fileno(fd)
    ready = _wait_for_events({number: events}, timeout, f"{what}({number})")
    if not ready:
        return False
    if ready[0][1] & stdlib_select.POLLNVAL:
        raise ValueError(
            f"file descriptor {number} is not open, or was closed while {what}() waited"
        )
    return True


class Poll:
    """A `select.poll` object whose `poll()` parks the task."""

    def __init__(self) -> None:
        self._interest: dict[int, int] = {}

    def register(self, fd: Descriptor, eventmask: int = _READ | _WRITE) -> None:
        """Watch `fd` for `eventmask`, a sum of `select.POLL*`. Never parks."""
        self._interest[_fileno(fd)] = eventmask

    def modify(self, fd: Descriptor, eventmask: int) -> None:
        """Change the events that are watched for `fd`.

        Raises:
            FileNotFoundError: it was not registered.
        """
        number = _fileno(fd)
        if number not in self._interest:
            raise FileNotFoundError(2, f"file descriptor {number} is not registered")
        self._interest[number] = eventmask

    def unregister(self, fd: Descriptor) -> None:
        """Stop watching `fd`.

        Raises:
            KeyError: it was not registered.
        """
        number = fd if isinstance(fd, int) else fd.fileno()
        del self._interest[number]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait until a descriptor is ready. May park.

        Args:
            timeout: milliseconds; None or negative for no limit, 0 to poll
                without parking.

        Returns:
            The ready (fd, events) pairs, as `select.poll.poll` returns them,
            POLLHUP, POLLERR and POLLNVAL included; [] after the timeout.
        """
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        return _wait_for_events(
            self._interest, seconds, f"poll of {len(self._interest)} descriptors"
        )


def poll() -> Poll:
    """Return a new `Poll`, the counterpart of `select.poll()`. Never parks."""
    return Poll()


def select(
    rlist: Iterable[R],
    wlist: Iterable[W],
    xlist: Iterable[X],
    timeout: float | None = None,
) -> tuple[list[R], list[W], list[X]]:
    """Return the ready subset of each list, as `select.select`. May park.

    Args:
        rlist: descriptors or objects with `fileno()`, to be read from.
        wlist: the same, to be written to.
        xlist: the same, for exceptional conditions (out-of-band data).
        timeout: seconds; None for no limit, 0 to poll without parking.

    Returns:
        Three lists of the given objects; all empty after the timeout.

    Raises:
        OSError: a descriptor is not open (EBADF), as in `select.select`.
        ValueError: `timeout` or a descriptor is negative.
        RuntimeError: another task waits on one in the same direction.
        NotInGreenlet: the caller is not in a task.
    """
    if timeout is not None:
        require_seconds("select(timeout)", timeout)
    readers, writers, others = list(rlist), list(wlist), list(xlist)
    interest: dict[int, int] = {}
    for objects, events in (
        (readers, stdlib_select.POLLIN),
        (writers, stdlib_select.POLLOUT),
        (others, stdlib_select.POLLPRI),
    ):
        for fd in objects:
            number = _fileno(fd)
            interest[number] = interest.get(number, 0) | events
    ready = dict(
        _wait_for_events(interest, timeout, f"select of {len(interest)} descriptors")
    )
    for number, events in ready.items():
        if events & stdlib_select.POLLNVAL:
            raise OSError(errno.EBADF, f"file descriptor {number} is not open")
        if interest[number] == stdlib_select.POLLPRI:
            # Report the end of a file that is watched for no other event as
            # exceptional: three empty lists would look like a timeout.
            ready[number] |= stdlib_select.POLLPRI
    return (
        _select_ready(readers, ready, stdlib_select.POLLIN | _ENDED),
        _select_ready(writers, ready, stdlib_select.POLLOUT | _ENDED),
        _select_ready(others, ready, stdlib_select.POLLPRI),
    )


def _select_ready(objects: list[R], ready: dict[int, int], events: int) -> list[R]:
    return [fd for fd in objects if ready.get(_fileno(fd), 0) & events]
