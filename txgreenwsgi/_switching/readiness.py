"""Waiting for file descriptors: the shapes of `select`, as waits of a task.

A wait asks the kernel first and parks only when nothing is ready. While it is
parked the descriptors sit in an epoll object of their own, and that object is
what the reactor watches. So a wait over a thousand descriptors is one reader to
the reactor, hang-ups and errors are reported as the kernel reports them, and a
descriptor that is closed and reused meanwhile is nobody else's: the kernel drops
it from our epoll object, and the reactor never knew its number. Where the
platform has no epoll the reactor watches duplicates of the descriptors.

It knows descriptors and the reactor. It must never switch.
"""

from __future__ import annotations

import errno
import os
import select as stdlib_select
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from zope.interface import implementer

from .errors import NotInGreenlet
from .greenlets import SLICE_SECONDS, Suspension, require_task
from .guards import require_seconds
from .waiting import sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.python.failure import Failure

    from .greenlets import Hub, Task

    class HasFileno(Protocol):
        """What the functions here take besides an int."""

        def fileno(self) -> int:
            """The descriptor."""

    Descriptor = int | HasFileno

__all__ = [
    "Poll",
    "claims_of",
    "notify_closed",
    "poll",
    "select",
    "wait_readable",
    "wait_writable",
]

# The kernel's own, whatever `txgreenwsgi.monkey` makes of the module later.
_kernel_poll = stdlib_select.poll
_kernel_epoll: Any = getattr(stdlib_select, "epoll", None)

_READ = stdlib_select.POLLIN | stdlib_select.POLLPRI
_WRITE = stdlib_select.POLLOUT
_ENDED = stdlib_select.POLLHUP | stdlib_select.POLLERR | stdlib_select.POLLNVAL

# A file, as fstat tells it from others: device and inode.
_File = tuple[int, int]

# The descriptors that parked tasks wait on: (number, direction) -> the task, and
# which file it was then: the number may since belong to another.
_Claims = dict[tuple[int, int], "tuple[Task[Any], _File | None]"]


def _fileno(fd: Descriptor) -> int:
    if not isinstance(fd, int) and not hasattr(fd, "fileno"):
        raise TypeError(
            f"{fd!r} is no file descriptor: give an int or an object with fileno()"
        )
    number = fd if isinstance(fd, int) else fd.fileno()
    if number < 0:
        raise ValueError(f"{fd!r} has no open file descriptor (fileno() is {number})")
    return number


@implementer(IReadDescriptor, IWriteDescriptor)
class _Watch:
    """What the reactor holds: a descriptor of ours, and whom to tell."""

    def __init__(self, fd: int, tell: Callable[[], object]) -> None:
        self._fd = fd
        self._tell = tell

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "txgreenwsgi.poll"

    def doRead(self) -> None:
        self._tell()

    def doWrite(self) -> None:
        self._tell()

    def connectionLost(self, reason: Failure) -> None:
        self._tell()


class _EpollWatch:
    """All descriptors of one wait in one epoll object."""

    def __init__(
        self, reactor: Any, interest: dict[int, int], tell: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._count = len(interest)
        self._epoll = _kernel_epoll()
        try:
            for fd, events in interest.items():
                # A regular file cannot be registered. It is always ready, so
                # what was asked for is something that it never has.
                with suppress(PermissionError):
                    # epoll's event bits are poll's.
                    self._epoll.register(fd, events)
            self._watch = _Watch(self._epoll.fileno(), tell)
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


class _DuplicateWatch:
    """Duplicates of the descriptors, for platforms that have no epoll.

    A reactor does not tell of urgent data (POLLPRI), so these alone end no wait.
    """

    def __init__(
        self, reactor: Any, interest: dict[int, int], tell: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._kernel = _kernel_poll()
        self._watches: list[_Watch] = []
        self._originals: dict[int, int] = {}
        try:
            for fd, events in interest.items():
                watch = _Watch(os.dup(fd), tell)
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


_watch: type[_EpollWatch | _DuplicateWatch] = (
    _EpollWatch if hasattr(stdlib_select, "epoll") else _DuplicateWatch
)


def claims_of(hub: Hub) -> _Claims:
    """Return the table of descriptors that the tasks of `hub` wait on here."""
    claims: _Claims = hub.reactor.__dict__.setdefault("_txgreenwsgi_claims", {})
    return claims


def notify_closed(hub: Hub, fd: int) -> None:
    """Resume the waits of this module on `fd`, which has been closed. Never parks.

    The kernel reports nothing when a descriptor is closed, so its waiters are
    woken here: they look again and find it closed. Call from the reactor's thread.
    """
    for (number, _), (task, _) in list(claims_of(hub).items()):
        suspension = task.suspension
        if number == fd and suspension is not None:
            suspension.resume(True)


def _file_of(fd: int) -> _File | None:
    """Which file the descriptor is open on; None if it is not open."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _wait_for_events(
    interest: dict[int, int], timeout: float | None, waiting_on: str
) -> list[tuple[int, int]]:
    """The (fd, events) that are ready, as `poll` gives them; [] on a timeout."""
    task = require_task(waiting_on)
    reactor = task.hub.reactor
    kernel = _kernel_poll()
    for fd, events in interest.items():
        kernel.register(fd, events)
    if timeout != 0:
        # A loop round data that is always there must not keep the reactor, nor
        # escape its own timeout. Before we look: what is ready may be taken by
        # another task in that turn.
        task.raise_pending()
        if reactor.seconds() - task.hub.resumed_at > SLICE_SECONDS and not task.dying:
            sleep(0)
    ready = kernel.poll(0)
    if ready or timeout == 0:
        return ready
    # Others may change what a Poll object watches meanwhile.
    return _park_until_ready(task, dict(interest), timeout, waiting_on)


def _park_until_ready(
    task: Task[Any], interest: dict[int, int], timeout: float | None, waiting_on: str
) -> list[tuple[int, int]]:
    reactor: Any = task.hub.reactor
    if interest and not IReactorFDSet.providedBy(reactor):
        raise NotInGreenlet(
            f"{waiting_on} needs a reactor that watches file descriptors; "
            f"{reactor!r} does not"
        )
    files = {fd: _file_of(fd) for fd in interest}
    claims = claims_of(task.hub)
    mine = _claim(claims, task, interest, files)
    deadline = None if timeout is None else reactor.seconds() + timeout
    try:
        while True:
            suspension = Suspension(task, waiting_on)
            ready, late = _park_once(suspension, reactor, interest, deadline)
            if ready or late:
                break
        # Closed meanwhile, and perhaps opened anew: not what was waited on. Of
        # those that nobody reports only a wait that failed asks: it takes time.
        closed = {fd for fd in ready or interest if _file_of(fd) != files[fd]}
        ready.update(dict.fromkeys(closed, stdlib_select.POLLNVAL))
        return [(fd, ready[fd]) for fd in interest if fd in ready]
    finally:
        for key, claim in mine.items():
            if claims.get(key) is claim:
                del claims[key]


def _claim(
    claims: _Claims,
    task: Task[Any],
    interest: dict[int, int],
    files: dict[int, _File | None],
) -> _Claims:
    """Enter what `task` is about to wait on in `claims`; what was entered.

    Raises:
        RuntimeError: another task waits on the same already.
    """
    mine: _Claims = {}
    for fd, events in interest.items():
        for direction in (_READ, _WRITE):
            if not events & direction:
                continue
            mine[fd, direction] = (task, files[fd])
            other = claims.get((fd, direction))
            if other is not None and other[1] == files[fd]:
                raise RuntimeError(
                    f"file descriptor {fd} is waited on for "
                    f"{'reading' if direction == _READ else 'writing'} by {other[0]!r} "
                    "already: two tasks cannot share one direction of a descriptor"
                )
    claims.update(mine)
    return mine


def _park_once(
    suspension: Suspension,
    reactor: Any,
    interest: dict[int, int],
    deadline: float | None,
) -> tuple[dict[int, int], bool]:
    """Park until the reactor is told something; what is ready, and if it is late.

    Nothing may be: what woke us can be a descriptor that another task has read
    from meanwhile.
    """
    watch = _watch(reactor, interest, suspension.resume) if interest else None
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
        timeout: seconds; None for no limit, 0 to ask without parking.

    Returns:
        True when it is readable, False when the time was over first.

    Raises:
        ValueError: `fd` is not open.
        RuntimeError: another task waits to read from it.
    """
    return _wait_one(fd, stdlib_select.POLLIN, timeout, "wait_readable")


def wait_writable(fd: Descriptor, timeout: float | None = None) -> bool:
    """Wait until writing to `fd` would not block. As `wait_readable` otherwise."""
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
    """The shape of `select.poll`, with a `poll()` that parks the task."""

    def __init__(self) -> None:
        self._interest: dict[int, int] = {}

    def register(self, fd: Descriptor, eventmask: int = _READ | _WRITE) -> None:
        """Watch `fd` for `eventmask`, a sum of `select.POLL*`. Never parks."""
        self._interest[_fileno(fd)] = eventmask

    def modify(self, fd: Descriptor, eventmask: int) -> None:
        """Change what is watched of `fd`.

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
        """Wait until something is ready; the (fd, events) that are. May park.

        Args:
            timeout: milliseconds; None or negative for no limit, 0 to ask
                without parking.

        Returns:
            Pairs as `select.poll.poll` gives them, POLLHUP, POLLERR and
            POLLNVAL included; [] when the time was over first.
        """
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        return _wait_for_events(
            self._interest, seconds, f"poll of {len(self._interest)} descriptors"
        )


def poll() -> Poll:
    """A new object of the shape of `select.poll`. Never parks."""
    return Poll()


def select(
    rlist: Iterable[Descriptor],
    wlist: Iterable[Descriptor],
    xlist: Iterable[Descriptor],
    timeout: float | None = None,
) -> tuple[list[Any], list[Any], list[Any]]:
    """`select.select` that parks the task: what is readable, writable, exceptional.

    May park.

    Args:
        rlist: descriptors or objects with `fileno()`, to be read from.
        wlist: the same, to be written to.
        xlist: the same, for exceptional conditions (out-of-band data).
        timeout: seconds; None for no limit, 0 to ask without parking.

    Returns:
        Three lists of the objects given; all empty when the time was over.

    Raises:
        OSError: a descriptor is not open (EBADF), as `select.select` tells it.
        ValueError: `timeout` or a descriptor is negative.
        RuntimeError: another task waits on one in the same direction.
    """
    if timeout is not None:
        require_seconds("select(timeout)", timeout)
    asked: list[tuple[Sequence[Any], int, int]] = [
        (list(rlist), stdlib_select.POLLIN, stdlib_select.POLLIN | _ENDED),
        (list(wlist), stdlib_select.POLLOUT, stdlib_select.POLLOUT | _ENDED),
        (list(xlist), stdlib_select.POLLPRI, stdlib_select.POLLPRI),
    ]
    interest: dict[int, int] = {}
    for objects, events, _ in asked:
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
            # The end of what is watched for nothing else is exceptional; to leave
            # it out would look like a timeout.
            ready[number] |= stdlib_select.POLLPRI
    readable, writable, exceptional = (
        [fd for fd in objects if ready.get(_fileno(fd), 0) & answers]
        for objects, _, answers in asked
    )
    return readable, writable, exceptional
