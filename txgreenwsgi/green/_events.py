"""Which descriptors are ready: one epoll object for all green descriptors.

A descriptor is registered once, for both directions and edge-triggered, and the
reactor watches the epoll object. So a wait costs no system call: it puts a
suspension in a list. That is right as long as whoever waits has just been told
by the kernel that it would block, and asks it again when woken.

A number that is closed and given to another file is found out when the newcomer
first waits: the kernel, which forgot the old file, refuses to modify it.

Where the platform has no epoll the reactor watches a duplicate for each wait.
It knows descriptors and the reactor. It must never read or write one.
"""

from __future__ import annotations

import errno
import os
import select
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from zope.interface import implementer

from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.greenlets import Suspension, existing_hub_of
from txgreenwsgi._switching.readiness import notify_closed

from ._place import here, park, raise_in_main

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.python.failure import Failure

    from txgreenwsgi._switching.greenlets import Hub, Task

__all__ = [
    "READ",
    "WRITE",
    "Entry",
    "block",
    "entry_of",
    "forget",
    "forget_number",
    "is_ready",
    "tell_closed",
    "wait",
    "wait_any",
]

#: Directions; a wait may be for both.
READ, WRITE = 1, 2

#: For how long ready descriptors are told of before the reactor has its turn: a
#: turn costs it about as much as three tasks.
TELLING_SECONDS = 0.001

_kernel_epoll = getattr(select, "epoll", None)
_kernel_poll = select.poll

_POLL_BITS = {
    READ: select.POLLIN,
    WRITE: select.POLLOUT,
    READ | WRITE: select.POLLIN | select.POLLOUT,
}
# epoll's bits are poll's; EPOLLET is the one that poll lacks.
_EDGE = 1 << 31
_RDHUP = 0x2000
_READERS = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR | _RDHUP
_WRITERS = select.POLLOUT | select.POLLHUP | select.POLLERR
_EVERYTHING = select.POLLIN | select.POLLPRI | select.POLLOUT | _RDHUP | _EDGE


class Entry:
    """The waits on one open descriptor.

    Attributes:
        open: False once it was closed; nothing waits on it then.
    """

    __slots__ = ("events", "fd", "open", "readers", "writers")

    def __init__(self, events: _Events, fd: int) -> None:
        self.events = events
        self.fd = fd
        self.open = True
        self.readers: list[Suspension] = []
        self.writers: list[Suspension] = []


@implementer(IReadDescriptor)
class _Events:
    """All green descriptors of one hub. Call from the reactor's thread."""

    def __init__(self, hub: Hub) -> None:
        if not IReactorFDSet.providedBy(hub.reactor):
            raise NotInGreenlet(
                "green sockets need a reactor that watches file descriptors; "
                f"{hub.reactor!r} does not"
            )
        assert _kernel_epoll is not None
        self._hub = hub
        self._reactor = hub.reactor
        self._epoll = _kernel_epoll()
        self._process = os.getpid()
        self._waiting = 0
        self._watched = False
        self._telling = False
        self.entries: dict[int, Entry] = {}
        hub.reactor.addSystemEventTrigger(  # type: ignore[attr-defined]
            "after", "shutdown", self._close
        )

    def entry(self, fd: int) -> Entry:
        """The entry of `fd`, registered with the kernel anew.

        Raises:
            OSError: EBADF, it is not open; EPERM, it cannot be waited on (a
                regular file, which is always ready).
        """
        entry = self.entries.get(fd)
        if entry is not None:
            try:
                # This also makes the kernel tell at once what is ready now.
                self._epoll.modify(fd, _EVERYTHING)
            except FileNotFoundError:
                self.forget(fd)  # the number is another file's now
            else:
                return entry
        try:
            self._epoll.register(fd, _EVERYTHING)
        except FileExistsError:
            self._epoll.modify(fd, _EVERYTHING)
        entry = self.entries[fd] = Entry(self, fd)
        return entry

    def begin(self) -> None:
        """One more wait."""
        self._waiting += 1
        if not self._watched:
            self._watched = True
            self._reactor.addReader(self)

    def end(self) -> None:
        """One wait less.

        The reactor goes on watching while events are told: most tasks that are
        woken wait again at once.
        """
        self._waiting -= 1
        if not self._telling:
            self._rest()

    def _rest(self) -> None:
        if self._watched and not self._waiting:
            self._watched = False
            self._reactor.removeReader(self)

    def forget(self, fd: int) -> None:
        """`fd` is closed, or about to be: whoever waits on it is told so."""
        entry = self.entries.pop(fd, None)
        if entry is None:
            return
        entry.open = False
        if os.getpid() == self._process:  # else it is the parent's epoll object
            try:
                self._epoll.unregister(fd)
            except OSError as error:
                # EPERM: its number is a regular file's by now.
                if error.errno not in (errno.ENOENT, errno.EBADF, errno.EPERM):
                    raise
        for suspension in (*entry.readers, *entry.writers):
            suspension.throw(
                OSError(errno.EBADF, "the descriptor was closed during the wait")
            )

    def _close(self) -> None:
        self._rest()
        self.entries.clear()
        self._epoll.close()

    # What the reactor calls.

    def fileno(self) -> int:
        return int(self._epoll.fileno())

    def logPrefix(self) -> str:
        return "txgreenwsgi.green"

    def doRead(self) -> None:
        self._telling = True
        hub = self._hub
        entries, poll = self.entries, self._epoll.poll
        until = monotonic() + TELLING_SECONDS
        try:
            while True:
                told = poll(0)
                for fd, events in told:
                    entry = entries.get(fd)
                    if entry is None:
                        continue
                    if events & _READERS and entry.readers:
                        for suspension in entry.readers[:]:
                            suspension.resume()
                    if events & _WRITERS and entry.writers:
                        for suspension in entry.writers[:]:
                            suspension.resume()
                # What the tasks did may have made others ready. But those that
                # are in line for the reactor's next turn must not wait for long.
                if not told or hub.turn_scheduled or monotonic() > until:
                    return
        finally:
            self._telling = False
            self._rest()

    def connectionLost(self, reason: Failure) -> None:
        self._watched = False


def _events_of(hub: Hub) -> _Events:
    events: _Events | None = hub.reactor.__dict__.get("_txgreenwsgi_events")
    if events is None or events._hub is not hub:
        events = hub.reactor.__dict__["_txgreenwsgi_events"] = _Events(hub)
    return events


def entry_of(task: Task[Any], fd: int, entry: Entry | None) -> Entry | None:
    """The entry to wait by: `entry`, if it is still good, or a new one.

    Args:
        task: the current task.
        fd: an open descriptor.
        entry: what this returned earlier for the same open file.

    Returns:
        None where the platform has no epoll.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    if _kernel_epoll is None:
        return None
    if entry is None or not entry.open or entry.events._hub is not task.hub:
        return _events_of(task.hub).entry(fd)
    return entry


def wait(
    task: Task[Any],
    fd: int,
    entry: Entry | None,
    direction: int,
    seconds: float | None,
    waiting_on: object,
) -> bool:
    """Wait until `fd` may be ready; False when `seconds` were over first. May park.

    Call when the kernel has just said that it would block, and ask it again
    afterwards: it may have been for nothing.

    Args:
        task: the current task.
        fd: the descriptor.
        entry: what `entry_of` returned.
        direction: READ or WRITE.
        seconds: None for no limit.
        waiting_on: what a table of tasks shows.

    Raises:
        OSError: it was closed during the wait (EBADF).
    """
    if entry is None:
        return _wait_by_duplicates(task, {fd: direction}, seconds, waiting_on)
    suspension = Suspension(task, waiting_on)
    waits = entry.readers if direction == READ else entry.writers
    waits.append(suspension)
    events = entry.events
    events.begin()
    call = None
    if seconds is not None:
        call = task.hub.reactor.callLater(seconds, suspension.resume, True)
    try:
        late = suspension.wait()
        raise_in_main(task)
    finally:
        if call is not None and call.active():
            call.cancel()
        waits.remove(suspension)
        events.end()
    return not late


def wait_any(
    task: Task[Any],
    interest: Mapping[int, int],
    seconds: float | None,
    waiting_on: object,
) -> bool:
    """As `wait`, for many descriptors: {number: READ, WRITE or both}. May park."""
    if _kernel_epoll is None:
        return _wait_by_duplicates(task, interest, seconds, waiting_on)
    events = _events_of(task.hub)
    suspension = Suspension(task, waiting_on)
    lists = []
    for fd, direction in interest.items():
        entry = events.entry(fd)
        if direction & READ:
            lists.append(entry.readers)
        if direction & WRITE:
            lists.append(entry.writers)
    for waits in lists:
        waits.append(suspension)
    events.begin()

    def clean_up() -> None:
        for waits in lists:
            waits.remove(suspension)
        events.end()

    return park(task, suspension, seconds, clean_up)


@implementer(IReadDescriptor, IWriteDescriptor)
class _Duplicate:
    """A duplicate of a descriptor, which the reactor watches for one wait."""

    def __init__(self, fd: int, suspension: Suspension) -> None:
        self._fd = os.dup(fd)
        self._suspension = suspension

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "txgreenwsgi.green"

    def doRead(self) -> None:
        self._suspension.resume()

    doWrite = doRead

    def connectionLost(self, reason: Failure) -> None:
        self._suspension.resume()

    def stop(self, reactor: Any) -> None:
        reactor.removeReader(self)
        reactor.removeWriter(self)
        os.close(self._fd)


def _wait_by_duplicates(
    task: Task[Any],
    interest: Mapping[int, int],
    seconds: float | None,
    waiting_on: object,
) -> bool:
    reactor: Any = task.hub.reactor
    suspension = Suspension(task, waiting_on)
    duplicates: list[_Duplicate] = []

    def clean_up() -> None:
        for duplicate in duplicates:
            duplicate.stop(reactor)

    try:
        for fd, direction in interest.items():
            duplicate = _Duplicate(fd, suspension)
            duplicates.append(duplicate)
            if direction & READ:
                reactor.addReader(duplicate)
            if direction & WRITE:
                reactor.addWriter(duplicate)
    except BaseException:
        clean_up()
        raise
    return park(task, suspension, seconds, clean_up)


def forget(entry: Entry | None) -> None:
    """The descriptor of `entry` is about to be closed. Call from any thread."""
    if entry is None or not entry.open:
        return
    events = entry.events
    if events.entries.get(entry.fd) is not entry:
        return
    hub = existing_hub_of(events._reactor)
    if hub is not None and hub.on_its_thread():
        events.forget(entry.fd)
        return
    # From another thread only the lists may be touched: `throw` carries itself
    # to the reactor. The kernel forgets the file by itself when it is closed.
    entry.open = False
    events.entries.pop(entry.fd, None)
    for suspension in (*entry.readers, *entry.writers):
        suspension.throw(
            OSError(errno.EBADF, "the descriptor was closed during the wait")
        )


def forget_number(fd: int) -> None:
    """The descriptor `fd` is about to be closed. Call from any thread."""
    task = here()
    if task is not None:
        events: _Events | None = task.hub.reactor.__dict__.get("_txgreenwsgi_events")
        if events is not None:
            events.forget(fd)


def tell_closed(fd: int) -> None:
    """The descriptor `fd` has been closed in a task. Never parks.

    Who waits on the number by `txgreenwsgi.poll` and its like looks again, and
    sees it; the kernel tells nobody.
    """
    task = here()
    if task is not None:
        notify_closed(task.hub, fd)


def block(fd: int, direction: int, seconds: float | None) -> bool:
    """Block this thread until `fd` is ready; False when `seconds` were over first."""
    kernel = _kernel_poll()
    kernel.register(fd, _POLL_BITS[direction])
    return bool(kernel.poll(None if seconds is None else max(0.0, seconds) * 1000))


def is_ready(fd: int, direction: int) -> bool:
    """Is `fd` ready now? Never parks, never blocks."""
    return block(fd, direction, 0)
