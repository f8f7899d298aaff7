"""Green `os`: waiting for child processes, and reading from pipes, parks the task.

Under Linux a process has a descriptor that tells of its end; elsewhere, and for
"any child", the task asks again and again, at growing intervals.
"""

from __future__ import annotations

import os as _standard
import select as _select
from typing import TYPE_CHECKING, Any

from ._events import READ as _READ
from ._events import wait_any as _wait_any
from ._place import here as _here
from ._place import may_park as _may_park
from .time import sleep as _sleep

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_SECONDS = 0.001
_LONGEST_SECONDS = 0.05


def _asking(name: str) -> Callable[..., Any]:
    """A function that waits with WNOHANG, again and again. May park.

    The first of its arguments are a process, or how to choose one; the last one
    is the options.
    """
    original = getattr(_standard, name)

    def wait(*args: Any) -> Any:
        options = args[-1] if len(args) > 1 or name == "wait3" else None
        if (
            not isinstance(options, int)
            or options & _standard.WNOHANG
            or _here() is None
            or not _may_park()
        ):
            return original(*args)
        pause = _FIRST_SECONDS
        while True:
            result = original(*args[:-1], options | _standard.WNOHANG)
            if result is not None and (name == "waitid" or result[0]):
                return result
            pid = args[0] if name in ("waitpid", "wait4") else 0
            # A process that only stops, or goes on, has not ended.
            if options or not isinstance(pid, int) or not _wait_for_end(pid):
                _sleep(pause)
                pause = min(pause * 2, _LONGEST_SECONDS)

    wait.__name__ = wait.__qualname__ = name
    wait.__doc__ = f"As `os.{name}`. May park."
    return wait


def _wait_for_end(pid: int) -> bool:
    """Park until the process has ended; False if that cannot be watched."""
    if pid <= 0 or not hasattr(_standard, "pidfd_open"):
        return False
    task = _here()
    assert task is not None
    try:
        fd = _standard.pidfd_open(pid)
    except OSError:
        return False
    try:
        _wait_any(task, {fd: _READ}, None, f"the end of process {pid}")
    finally:
        _standard.close(fd)
    return True


#: What is not as it was; `txgreenwsgi.monkey` puts these in the original's place.
REPLACED: dict[str, Any] = {
    name: _asking(name)
    for name in ("waitpid", "wait3", "wait4", "waitid")
    if hasattr(_standard, name)
}


def _wait() -> tuple[int, int]:
    """As `os.wait`: the next child that ends. May park."""
    result: tuple[int, int] = REPLACED["waitpid"](-1, 0)
    return result


_real_read = _standard.read
_kernel_poll = _select.poll


def _read(fd: Any, length: int, /) -> bytes:
    """As `os.read`. May park, if the descriptor is a pipe, a terminal, a socket."""
    task = _here()
    if task is not None and isinstance(fd, int) and fd >= 0:
        kernel = _kernel_poll()
        kernel.register(fd, _select.POLLIN)
        # What is always ready, as files are, or non-blocking does not wait.
        while not kernel.poll(0) and _standard.get_blocking(fd) and _may_park():
            _wait_any(task, {fd: _READ}, None, f"os.read({fd})")
    return _real_read(fd, length)


_read.__name__ = _read.__qualname__ = "read"
REPLACED["read"] = _read
_wait.__name__ = _wait.__qualname__ = "wait"
REPLACED["wait"] = _wait
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in globals())
    },
    **REPLACED,
)
