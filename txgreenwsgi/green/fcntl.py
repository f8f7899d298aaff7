"""Green `fcntl`: waiting for a file lock parks the task.

A lock is polled at increasing intervals, because the kernel reports its release only to
blocked callers. A deadlock between processes is therefore not detected. All other names
are the original's.
"""

from __future__ import annotations

import errno as _errno
import fcntl as _standard
from typing import TYPE_CHECKING, Any, TypeVar

from txgreenwsgi._parking.waits import may_park as _may_park
from txgreenwsgi._switching.running import current_task as _current_task

from .time import sleep as _sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import FileDescriptorLike, ReadOnlyBuffer

    def __getattr__(name: str) -> Any: ...


_T = TypeVar("_T")
_MIN_POLL_SECONDS = 0.001
_MAX_POLL_SECONDS = 0.05

_real_fcntl: Callable[..., Any] = _standard.fcntl
_real_flock: Callable[..., None] = _standard.flock
_real_lockf: Callable[..., Any] = _standard.lockf
#: Commands that wait for a lock, and the same without the wait.
_WITHOUT_WAIT: dict[object, int] = {
    getattr(_standard, waiting): getattr(_standard, name)
    for waiting, name in (("F_SETLKW", "F_SETLK"), ("F_OFD_SETLKW", "F_OFD_SETLK"))
    if hasattr(_standard, waiting)
}


def poll_for_lock(attempt: Callable[..., _T], *args: object) -> _T:
    """Return `attempt(*args)`, repeated while the lock is held elsewhere. May park.

    Args:
        attempt: a function that raises OSError with EAGAIN or EACCES in that case.
        args: its arguments.
    """
    pause = _MIN_POLL_SECONDS
    while True:
        try:
            return attempt(*args)
        except OSError as error:
            if error.errno not in (_errno.EAGAIN, _errno.EACCES):
                raise
        _sleep(pause)
        pause = min(pause * 2, _MAX_POLL_SECONDS)


def must_poll(command: object, nonblocking: int) -> bool:
    """Return whether this is a task, and the lock command `command` may wait."""
    return (
        isinstance(command, int)
        and not command & nonblocking
        and _current_task() is not None
        and _may_park()
    )


def _flock(fd: FileDescriptorLike, operation: int, /) -> None:
    """As `fcntl.flock`. May park."""
    if must_poll(operation, _standard.LOCK_NB):
        poll_for_lock(_real_flock, fd, operation | _standard.LOCK_NB)
    else:
        _real_flock(fd, operation)


def _lockf(fd: FileDescriptorLike, cmd: int, /, *rest: int) -> Any:
    """As `fcntl.lockf`. May park."""
    if must_poll(cmd, _standard.LOCK_NB | _standard.LOCK_UN):
        return poll_for_lock(_real_lockf, fd, cmd | _standard.LOCK_NB, *rest)
    return _real_lockf(fd, cmd, *rest)


def _fcntl(
    fd: FileDescriptorLike, cmd: int, arg: int | str | ReadOnlyBuffer = 0, /
) -> Any:
    """As `fcntl.fcntl`. May park with F_SETLKW."""
    if cmd in _WITHOUT_WAIT and must_poll(cmd, 0):
        return poll_for_lock(_real_fcntl, fd, _WITHOUT_WAIT[cmd], arg)
    return _real_fcntl(fd, cmd, arg)


#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
REPLACED: dict[str, Any] = {"fcntl": _fcntl, "flock": _flock, "lockf": _lockf}
for _name, _function in REPLACED.items():
    _function.__name__ = _function.__qualname__ = _name
del _name, _function
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in globals())
    },
    **REPLACED,
)
