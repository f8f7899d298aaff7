"""Green `os`: waiting for child processes, and for pipes, parks the task.

Under Linux a process has a descriptor that tells of its end; elsewhere, and for
"any child", the task asks again and again, at growing intervals.

What is read and written by number stays as blocking as it was, for another
process may share it: it is asked whether it is ready first.
"""

from __future__ import annotations

import _socket
import os as _standard
import select as _select
import stat as _stat
from typing import TYPE_CHECKING, Any

from . import _events
from ._events import READ as _READ
from ._events import WRITE as _WRITE
from ._events import wait_any as _wait_any
from ._place import here as _here
from ._place import may_park as _may_park
from .time import sleep as _sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    def __getattr__(name: str) -> Any: ...


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
        _close(fd)
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


_real_close = _standard.close
_real_read = _standard.read
_real_write = _standard.write
# Not every system has these; what it lacks is not replaced below.
_real_readv: Callable[..., int] = getattr(_standard, "readv", _real_write)
_real_writev: Callable[..., int] = getattr(_standard, "writev", _real_write)
_real_sendfile: Callable[..., int] = getattr(_standard, "sendfile", _real_write)
_kernel_poll = _select.poll
#: The most that a pipe takes for certain when poll says that it is writable.
_CERTAIN: int = getattr(_select, "PIPE_BUF", 512)
_MOST_BUFFERS: int = (
    _standard.sysconf("SC_IOV_MAX") if hasattr(_standard, "sysconf") else 16
)


def _wait_until_ready(fd: int, direction: int, what: str) -> None:
    """Park until `fd` is ready, unless nobody would ever wait for it."""
    task = _here()
    assert task is not None
    kernel = _kernel_poll()
    kernel.register(fd, _select.POLLIN if direction == _READ else _select.POLLOUT)
    # What is always ready, as files are, or non-blocking does not wait.
    while not kernel.poll(0) and _standard.get_blocking(fd) and _may_park():
        _wait_any(task, {fd: direction}, None, f"{what}({fd})")


def _is_number(fd: Any) -> bool:
    return isinstance(fd, int) and fd >= 0


def _read(fd: Any, length: int, /) -> bytes:
    """As `os.read`. May park, if the descriptor is a pipe, a terminal, a socket."""
    if _here() is not None and _is_number(fd):
        _wait_until_ready(fd, _READ, "os.read")
    return _real_read(fd, length)


def _is_stream(fd: int) -> bool:
    """May what is written to `fd` be written in pieces? Not packets, nor files."""
    mode = _standard.fstat(fd).st_mode
    if _stat.S_ISSOCK(mode):
        if _socket.getdefaulttimeout() is not None:
            return False  # to ask would make it non-blocking
        sock = _socket.socket(fileno=fd)
        try:
            return sock.type == _socket.SOCK_STREAM
        finally:
            sock.detach()
    return _stat.S_ISFIFO(mode)


def _may_wait_to_write(fd: Any) -> bool:
    """Is this a task, and `fd` a descriptor that would wait?"""
    return (
        _here() is not None
        and _is_number(fd)
        and _standard.get_blocking(fd)
        and _may_park()
    )


def _write(fd: Any, data: Any, /) -> int:
    """As `os.write`. May park, if the descriptor is a pipe or a socket.

    It returns when all of `data` is written, as the original does where it waits.
    A terminal that its user has stopped may still block: it does not say how much
    it has room for.
    """
    if not _may_wait_to_write(fd):
        return _real_write(fd, data)
    with memoryview(data) as view, view.cast("B") as flat:
        if len(flat) <= _CERTAIN or not _is_stream(fd):
            _wait_until_ready(fd, _WRITE, "os.write")
            return _real_write(fd, flat)
        done = 0
        while done < len(flat):
            _wait_until_ready(fd, _WRITE, "os.write")
            with flat[done : done + _CERTAIN] as piece:
                done += _real_write(fd, piece)
        return done


def _readv(fd: Any, buffers: Any, /) -> int:
    """As `os.readv`. May park, as `os.read` does."""
    if _here() is not None and _is_number(fd):
        _wait_until_ready(fd, _READ, "os.readv")
    return _real_readv(fd, buffers)


def _writev(fd: Any, buffers: Any, /) -> int:
    """As `os.writev`. May park, as `os.write` does."""
    # The original refuses at once more buffers than the kernel takes.
    if not _may_wait_to_write(fd) or len(buffers) > _MOST_BUFFERS:
        return _real_writev(fd, buffers)
    length = 0
    for buffer in buffers:
        with memoryview(buffer) as view:
            length += view.nbytes
    if length <= _CERTAIN or not _is_stream(fd):
        _wait_until_ready(fd, _WRITE, "os.writev")
        return _real_writev(fd, buffers)
    return _write(fd, b"".join(buffers))


def _sendfile(
    out_fd: Any, in_fd: Any, offset: Any, count: Any, *more: Any, **named: Any
) -> int:
    """As `os.sendfile`. May park, as `os.write` does; the file blocks."""
    if more or named or not _may_wait_to_write(out_fd) or not _is_number(count):
        return _real_sendfile(out_fd, in_fd, offset, count, *more, **named)
    if count <= _CERTAIN or not _is_stream(out_fd):
        _wait_until_ready(out_fd, _WRITE, "os.sendfile")
        return _real_sendfile(out_fd, in_fd, offset, count)
    done = 0
    while done < count:
        _wait_until_ready(out_fd, _WRITE, "os.sendfile")
        # None stands for the file's own position, which the kernel moves.
        start = None if offset is None else offset + done
        sent = _real_sendfile(out_fd, in_fd, start, min(_CERTAIN, count - done))
        if not sent:
            break
        done += sent
    return done


def _close(fd: Any, /) -> None:
    """As `os.close`; tasks that wait on the descriptor are told. Never parks."""
    if not isinstance(fd, int):
        _real_close(fd)  # its error
        return
    _events.forget_number(fd)
    _real_close(fd)
    _events.tell_closed(fd)


for _name, _function in (
    ("close", _close),
    ("read", _read),
    ("readv", _readv),
    ("sendfile", _sendfile),
    ("write", _write),
    ("writev", _writev),
):
    if hasattr(_standard, _name):
        _function.__name__ = _function.__qualname__ = _name
        REPLACED[_name] = _function
del _name, _function
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
