"""Opening a FIFO, which waits for the other end to be opened, in a thread.

No system call opens a FIFO like this and can be interrupted or polled. The thread is
not one of the reactor's pool, which a few waiting openers would exhaust. It knows
threads and paths. It must never read or write a FIFO.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorFromThreads

from txgreenwsgi._parking.real_threads import real_lock, start_real_thread
from txgreenwsgi._parking.waits import park
from txgreenwsgi._switching.greenlets import Suspension

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["open_fifo"]

# The originals, which other threads use.
_open, _close = os.open, os.close


class _Opening:
    """One call of `open` in a thread.

    Attributes:
        fd: the opened descriptor; None before the end, and after an error.
        error: the error of the call.
    """

    def __init__(self, call: Callable[[], int], ended: Callable[[], object]) -> None:
        self.fd: int | None = None
        self.error: BaseException | None = None
        self._ended = ended
        self._lock = real_lock()
        self._over = False
        self._other_end: int | None = None
        start_real_thread(self._run, (call,))

    def _run(self, call: Callable[[], int]) -> None:
        try:
            fd = call()
        except BaseException as error:
            self.error = error
            fd = None
        with self._lock:
            self._over = True
            abandoned = self._other_end is not None
        if abandoned:
            assert self._other_end is not None
            _close(self._other_end)
            if fd is not None:
                _close(fd)
            return
        self.fd = fd
        with suppress(Exception):  # the reactor has stopped
            self._ended()

    def abandon(self, open_both_ends: Callable[[], int]) -> None:
        """End the call, whose caller was interrupted, and close its descriptor.

        The thread closes the other end after its call, which may not have begun.
        """
        with suppress(OSError), self._lock:
            if not self._over:
                self._other_end = open_both_ends()
                return
        if self.fd is not None:
            _close(self.fd)


def open_fifo(
    task: Task[object],
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    flags: int,
    mode: int,
    dir_fd: int | None,
) -> int:
    """Open a FIFO when its other end is open too; as `os.open`. May park."""

    def call() -> int:
        return _open(path, flags, mode, dir_fd=dir_fd)

    def open_both_ends() -> int:
        return _open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)

    hub = task.hub
    if not IReactorFromThreads.providedBy(hub.reactor):
        return call()
    suspension = Suspension(task, f"os.open({path!r})")
    opening = _Opening(call, lambda: hub.call_from_thread(suspension.resume))
    try:
        park(task, suspension, None)
    except BaseException:
        opening.abandon(open_both_ends)
        raise
    if opening.error is not None:
        raise opening.error
    assert opening.fd is not None
    return opening.fd
