"""Readiness of file descriptors: one epoll object for all green descriptors.

A descriptor is registered once, edge-triggered and for both directions, and the
reactor watches the epoll object. So a wait costs no system call: it appends a
suspension to a list. The waiter must have just received EAGAIN from the kernel, and
must retry its operation when woken.

Reuse of a descriptor number by another file is detected at the first wait for the new
file: the kernel dropped the registration of the old one, so `epoll.modify` fails.

On platforms without epoll, the reactor watches a duplicate of the descriptor for
each wait. This module knows descriptors and the reactor. It must never read or write a
descriptor.
"""

from __future__ import annotations

import errno
import os
import select
from time import monotonic
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from zope.interface import implementer

from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.greenlets import Suspension, existing_hub_of
from txgreenwsgi._switching.readiness import notify_closed
from txgreenwsgi._switching.running import current_task

from .waits import park, raise_pending_in_main

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.python.failure import Failure

    from txgreenwsgi._switching.greenlets import Hub, Task

__all__ = [
    "READ",
    "WRITE",
    "Registration",
    "block",
    "is_ready",
    "kernel_epoll",
    "register",
    "registrations_of",
    "unregister",
    "unregister_fd",
    "wait",
    "wait_any",
    "wake_poll_waiters",
]

#: Directions; they can be combined.
READ, WRITE = 1, 2

#: Maximum time spent waking waiters in one reactor turn. A turn costs about as much as
#: three tasks.
DISPATCH_SECONDS = 0.001

#: `select.epoll` of the platform, also where `select` is patched; None without it.
kernel_epoll = getattr(select, "epoll", None)
_kernel_poll = select.poll

_POLL_BITS = {
    READ: select.POLLIN,
    WRITE: select.POLLOUT,
    READ | WRITE: select.POLLIN | select.POLLOUT,
}
# The bits of epoll are those of poll, plus EPOLLET.
_EDGE = 1 << 31
_RDHUP = 0x2000
_READERS = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR | _RDHUP
_WRITERS = select.POLLOUT | select.POLLHUP | select.POLLERR
_EVERYTHING = select.POLLIN | select.POLLPRI | select.POLLOUT | _RDHUP | _EDGE


class Registration:
    """One open descriptor and its waiters.

    Attributes:
        poller: the poller that the descriptor is registered with.
        fd: the descriptor.
        open: False once the descriptor was closed; it has no waiters then.
        readers: waits for reading.
        writers: waits for writing.
    """

    __slots__ = ("fd", "open", "poller", "readers", "writers")

    def __init__(self, poller: _Poller, fd: int) -> None:
        self.poller = poller
        self.fd = fd
        self.open = True
        self.readers: list[Suspension] = []
        self.writers: list[Suspension] = []


@implementer(IReadDescriptor)
class _Poller:
    """The epoll object of one hub. Call from the reactor's thread.

    Attributes:
        hub: the hub whose tasks wait.
        registrations: the registered descriptors.
    """

    def __init__(self, hub: Hub) -> None:
        if not IReactorFDSet.providedBy(hub.reactor):
            raise NotInGreenlet(
                f"{hub.reactor!r} cannot watch file descriptors, which green sockets "
                "need: use a reactor that provides IReactorFDSet"
            )
        assert kernel_epoll is not None
        self.hub = hub
        self._reactor: IReactorFDSet = hub.reactor
        self._epoll = kernel_epoll()
        self._process = os.getpid()
        self._wait_count = 0
        self._watched = False
        self._dispatching = False
        self.registrations: dict[int, Registration] = {}
        hub.call_at_end(self._close)

    def register(self, fd: int) -> Registration:
        """Register `fd`, or refresh its registration; return the registration.

        Raises:
            OSError: EBADF: `fd` is not open. EPERM: it cannot be polled (a regular
                file, which is always ready).
        """
        registration = self.registrations.get(fd)
        if registration is not None:
            try:
                # This also makes the kernel report the current readiness.
                self._epoll.modify(fd, _EVERYTHING)
            except FileNotFoundError:
                self.unregister(fd)  # the number belongs to another file now
            else:
                return registration
        try:
            self._epoll.register(fd, _EVERYTHING)
        except FileExistsError:
            self._epoll.modify(fd, _EVERYTHING)
        registration = self.registrations[fd] = Registration(self, fd)
        return registration

    def wait_began(self) -> None:
        """Count the start of a wait."""
        self._wait_count += 1
        if not self._watched:
            self._watched = True
            self._reactor.addReader(self)

    def wait_ended(self) -> None:
        """Count the end of a wait.

        During a dispatch the reactor keeps watching, because most woken tasks wait
        again at once.
        """
        self._wait_count -= 1
        if not self._dispatching:
            self._unwatch_if_unused()

    def _unwatch_if_unused(self) -> None:
        if self._watched and not self._wait_count:
            self._watched = False
            self._reactor.removeReader(self)

    def unregister(self, fd: int) -> None:
        """Drop the registration of `fd`, which is closed or about to be.

        Its waiters get EBADF.
        """
        registration = self.registrations.pop(fd, None)
        if registration is None:
            return
        registration.open = False
        if os.getpid() == self._process:  # else the epoll object is the parent's
            try:
                self._epoll.unregister(fd)
            except OSError as error:
                # EPERM: the number now belongs to a regular file.
                if error.errno not in (errno.ENOENT, errno.EBADF, errno.EPERM):
                    raise
        _fail_waiters(registration)

    def _close(self) -> None:
        self._unwatch_if_unused()
        for registration in self.registrations.values():
            registration.open = False
        self.registrations.clear()
        self._epoll.close()
        # Tasks that run while the interpreter exits get another poller.
        self.hub.reactor.__dict__.pop("_txgreenwsgi_poller", None)

    # IReadDescriptor, called by the reactor.

    def fileno(self) -> int:
        return int(self._epoll.fileno())

    def logPrefix(self) -> str:
        return "txgreenwsgi.green"

    def doRead(self) -> None:
        self._dispatching = True
        hub = self.hub
        registrations, poll = self.registrations, self._epoll.poll
        until = monotonic() + DISPATCH_SECONDS
        try:
            while True:
                ready = poll(0)
                for fd, events in ready:
                    registration = registrations.get(fd)
                    if registration is None:
                        continue
                    if events & _READERS and registration.readers:
                        for suspension in registration.readers[:]:
                            suspension.resume()
                    if events & _WRITERS and registration.writers:
                        for suspension in registration.writers[:]:
                            suspension.resume()
                # Poll again, because woken tasks may have made other descriptors
                # ready, unless tasks are scheduled for the next reactor turn.
                if not ready or hub.turn_scheduled or monotonic() > until:
                    return
        finally:
            self._dispatching = False
            self._unwatch_if_unused()

    def connectionLost(self, reason: Failure) -> None:
        # The reactor stops. Threads may run on while the interpreter exits: then the
        # stopped reactor is iterated, and makes this call.
        self._watched = False
        if self._wait_count:
            self._reactor.callLater(0, self._watch_again)  # type: ignore[attr-defined]

    def _watch_again(self) -> None:
        if self._wait_count and not self._watched and not self._epoll.closed:
            self._watched = True
            self._reactor.addReader(self)


def _poller_of(hub: Hub) -> _Poller:
    poller: _Poller | None = hub.reactor.__dict__.get("_txgreenwsgi_poller")
    if poller is None or poller.hub is not hub:
        poller = hub.reactor.__dict__["_txgreenwsgi_poller"] = _Poller(hub)
    return poller


def _fail_waiters(registration: Registration) -> None:
    for suspension in (*registration.readers, *registration.writers):
        suspension.throw(
            OSError(errno.EBADF, "the descriptor was closed during the wait")
        )


def register(
    task: Task[object], fd: int, registration: Registration | None
) -> Registration | None:
    """Return a valid registration of `fd` for `wait`.

    Args:
        task: the current task.
        fd: an open descriptor.
        registration: an earlier result for the same open file; it is returned again
            while it is valid.

    Returns:
        None on platforms without epoll.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    if kernel_epoll is None:
        return None
    if (
        registration is None
        or not registration.open
        or registration.poller.hub is not task.hub
    ):
        return _poller_of(task.hub).register(fd)
    return registration


def wait(
    task: Task[object],
    fd: int,
    registration: Registration | None,
    direction: int,
    seconds: float | None,
    waiting_on: object,
) -> bool:
    """Park the task until `fd` may be ready.

    Call after the operation failed with EAGAIN, and retry it afterwards: wake-ups may
    be spurious.

    Args:
        task: the current task.
        fd: the descriptor.
        registration: the result of `register`.
        direction: READ or WRITE.
        seconds: the time limit; None for no limit.
        waiting_on: the text or object that a table of tasks shows.

    Returns:
        False when the time limit passed first.

    Raises:
        OSError: the descriptor was closed during the wait (EBADF).
    """
    if registration is None:
        return _wait_by_duplicates(task, {fd: direction}, seconds, waiting_on)
    suspension = Suspension(task, waiting_on)
    waits = registration.readers if direction == READ else registration.writers
    waits.append(suspension)
    poller = registration.poller
    poller.wait_began()
    call = None
    if seconds is not None:
        call = task.hub.reactor.callLater(seconds, suspension.resume, True)
    try:
        timed_out = suspension.wait()
        raise_pending_in_main(task)
    finally:
        if call is not None and call.active():
            call.cancel()
        waits.remove(suspension)
        poller.wait_ended()
    # The reactor runs delayed calls before it polls descriptors, so after a stall the
    # descriptor may have become ready in time.
    return not timed_out or is_ready(fd, direction)


def wait_any(
    task: Task[object],
    interest: Mapping[int, int],
    seconds: float | None,
    waiting_on: object,
) -> bool:
    """Park the task until any of several descriptors may be ready; as `wait`.

    Args:
        task: the current task.
        interest: READ, WRITE or both, by descriptor.
        seconds: the time limit; None for no limit.
        waiting_on: the text or object that a table of tasks shows.
    """
    if kernel_epoll is None:
        return _wait_by_duplicates(task, interest, seconds, waiting_on)
    poller = _poller_of(task.hub)
    suspension = Suspension(task, waiting_on)
    lists = []
    for fd, direction in interest.items():
        registration = poller.register(fd)
        if direction & READ:
            lists.append(registration.readers)
        if direction & WRITE:
            lists.append(registration.writers)
    for waits in lists:
        waits.append(suspension)
    poller.wait_began()

    def clean_up() -> None:
        for waits in lists:
            waits.remove(suspension)
        poller.wait_ended()

    return park(task, suspension, seconds, clean_up)


@implementer(IReadDescriptor, IWriteDescriptor)
class _Duplicate:
    """A duplicate of a descriptor that the reactor watches for one wait."""

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

    def stop(self, reactor: IReactorFDSet) -> None:
        reactor.removeReader(self)
        reactor.removeWriter(self)
        os.close(self._fd)


def _wait_by_duplicates(
    task: Task[object],
    interest: Mapping[int, int],
    seconds: float | None,
    waiting_on: object,
) -> bool:
    reactor = cast("IReactorFDSet", task.hub.reactor)
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


def registrations_of(hub: Hub) -> Mapping[int, Registration]:
    """Return the registrations of a hub by descriptor. Call from its thread."""
    return _poller_of(hub).registrations


def unregister(registration: Registration | None) -> None:
    """Drop a registration before its descriptor is closed. Call from any thread.

    Its waiters get EBADF. A no-op for None.
    """
    if registration is None or not registration.open:
        return
    poller = registration.poller
    if poller.registrations.get(registration.fd) is not registration:
        return
    hub = existing_hub_of(poller.hub.reactor)
    if hub is not None and hub.on_its_thread():
        poller.unregister(registration.fd)
        return
    # From another thread, change only the lists; `throw` delegates to the reactor's
    # thread. The kernel drops the registration when the file is closed.
    registration.open = False
    poller.registrations.pop(registration.fd, None)
    _fail_waiters(registration)


def unregister_fd(fd: int) -> None:
    """As `unregister`, for the descriptor `fd`. A no-op outside tasks."""
    task = current_task()
    if task is not None:
        poller: _Poller | None = task.hub.reactor.__dict__.get("_txgreenwsgi_poller")
        if poller is not None:
            poller.unregister(fd)


def wake_poll_waiters(fd: int) -> None:
    """Wake the tasks that wait for `fd` in `txgreenwsgi.poll` and related functions.

    Call after a task has closed `fd`: the kernel does not report it. The waiters find
    the descriptor closed. Never parks; a no-op outside tasks.
    """
    task = current_task()
    if task is not None:
        notify_closed(task.hub, fd)


def block(fd: int, direction: int, seconds: float | None) -> bool:
    """Block this thread until `fd` is ready.

    Returns:
        False when `seconds` passed first; None is no limit.
    """
    kernel = _kernel_poll()
    kernel.register(fd, _POLL_BITS[direction])
    return bool(kernel.poll(None if seconds is None else max(0.0, seconds) * 1000))


def is_ready(fd: int, direction: int) -> bool:
    """Return whether `fd` is ready now. Never parks, never blocks."""
    return block(fd, direction, 0)
