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

import os
import select as stdlib_select
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from zope.interface import implementer

from .errors import NotInGreenlet
from .greenlets import Suspension, require_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.python.failure import Failure

    from .greenlets import Hub, Task

    class HasFileno(Protocol):
        """What the functions here take besides an int."""

        def fileno(self) -> int:
            """The descriptor."""

    Descriptor = int | HasFileno

__all__ = ["Poll", "poll", "select", "wait_readable", "wait_writable"]

_READ = stdlib_select.POLLIN | stdlib_select.POLLPRI
_WRITE = stdlib_select.POLLOUT
_ENDED = stdlib_select.POLLHUP | stdlib_select.POLLERR | stdlib_select.POLLNVAL

# The descriptors that parked tasks wait on: (number, direction) -> the task, and
# which file it was then: the number may since belong to another.
_Claims = dict[tuple[int, int], "tuple[Task[Any], tuple[int, int]]"]


def _fileno(fd: Descriptor) -> int:
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

    doWrite = doRead

    def connectionLost(self, reason: Failure) -> None:
        self._tell()


class _EpollWatch:
    """All descriptors of one wait in one epoll object."""

    def __init__(
        self, reactor: Any, interest: dict[int, int], tell: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._epoll = stdlib_select.epoll(len(interest))
        try:
            for fd, events in interest.items():
                # epoll's event bits are poll's.
                self._epoll.register(fd, events)
            self._watch = _Watch(self._epoll.fileno(), tell)
            reactor.addReader(self._watch)
        except BaseException:
            self._epoll.close()
            raise

    def stop(self) -> None:
        self._reactor.removeReader(self._watch)
        self._epoll.close()


class _DuplicateWatch:
    """Duplicates of the descriptors, for platforms that have no epoll."""

    def __init__(
        self, reactor: Any, interest: dict[int, int], tell: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._watches: list[_Watch] = []
        try:
            for fd, events in interest.items():
                watch = _Watch(os.dup(fd), tell)
                self._watches.append(watch)
                if events & _WRITE:
                    reactor.addWriter(watch)
                if events & _READ or not events & _WRITE:
                    reactor.addReader(watch)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for watch in self._watches:
            self._reactor.removeReader(watch)
            self._reactor.removeWriter(watch)
            os.close(watch.fileno())
        self._watches = []


_watch: type[_EpollWatch | _DuplicateWatch] = (
    _EpollWatch if hasattr(stdlib_select, "epoll") else _DuplicateWatch
)


def _claims_of(hub: Hub) -> _Claims:
    claims: _Claims = hub.reactor.__dict__.setdefault("_txgreenwsgi_claims", {})
    return claims


def _wait_for_events(
    interest: dict[int, int], timeout: float | None, waiting_on: str
) -> list[tuple[int, int]]:
    """The (fd, events) that are ready, as `poll` gives them; [] on a timeout."""
    task = require_task(waiting_on)
    hub = task.hub
    kernel = stdlib_select.poll()
    for fd, events in interest.items():
        kernel.register(fd, events)
    ready = kernel.poll(0)
    if ready or timeout == 0:
        return ready
    if not IReactorFDSet.providedBy(hub.reactor):
        raise NotInGreenlet(
            f"{waiting_on} needs a reactor that watches file descriptors; "
            f"{hub.reactor!r} does not"
        )
    reactor = hub.reactor
    claims = _claims_of(hub)
    mine: _Claims = {}
    for fd, events in interest.items():
        status = os.fstat(fd)
        claim = (task, (status.st_dev, status.st_ino))
        for direction in (_READ, _WRITE):
            if not events & direction:
                continue
            mine[fd, direction] = claim
            other = claims.get((fd, direction))
            if other is not None and other[1] == claim[1]:
                raise RuntimeError(
                    f"file descriptor {fd} is waited on for "
                    f"{'reading' if direction == _READ else 'writing'} by {other[0]!r} "
                    "already: two tasks cannot share one direction of a descriptor"
                )
    claims.update(mine)
    deadline = None if timeout is None else reactor.seconds() + timeout
    call = None
    try:
        while not ready:
            suspension = Suspension(task, waiting_on)
            if deadline is not None:
                left = max(0.0, deadline - reactor.seconds())
                call = reactor.callLater(left, suspension.resume, "late")
            watch = _watch(reactor, interest, suspension.resume)
            try:
                late = suspension.wait()
            finally:
                watch.stop()
                if call is not None and call.active():
                    call.cancel()
            ready = kernel.poll(0)
            if late:
                break
    finally:
        for key, claim in mine.items():
            if claims.get(key) is claim:
                del claims[key]
    return ready


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
    number = _fileno(fd)
    ready = _wait_for_events({number: events}, timeout, f"{what}({number})")
    if not ready:
        return False
    if ready[0][1] & stdlib_select.POLLNVAL:
        raise ValueError(f"file descriptor {number} is not open")
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
        ValueError: a descriptor is not open.
    """
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
            raise ValueError(f"file descriptor {number} is not open")
    readable, writable, exceptional = (
        [fd for fd in objects if ready.get(_fileno(fd), 0) & answers]
        for objects, _, answers in asked
    )
    return readable, writable, exceptional
