"""Green `os`: waiting for child processes and for pipes parks the task.

On Linux a pidfd reports the end of a process; on other systems, and for "any child",
the task polls at increasing intervals.

Descriptors keep their blocking mode, which another process may share: they are polled
before each read and write.
"""

from __future__ import annotations

import _socket
import os as _standard
import select as _select
import stat as _stat
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking import descriptors as _descriptors
from txgreenwsgi._parking.descriptors import READ as _READ
from txgreenwsgi._parking.descriptors import WRITE as _WRITE
from txgreenwsgi._parking.descriptors import wait_any as _wait_any
from txgreenwsgi._parking.waits import may_park as _may_park
from txgreenwsgi._switching.running import current_task as _current_task

from .time import sleep as _sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer, WriteableBuffer

    def __getattr__(name: str) -> Any: ...


_MIN_POLL_SECONDS = 0.001
_MAX_POLL_SECONDS = 0.05


def _polling(name: str) -> Callable[..., object]:
    """Return a version of `os.<name>` that parks and polls with WNOHANG.

    Its first arguments select a process; the last one is the options.
    """
    original = getattr(_standard, name)

    def wait(*args: object) -> Any:
        options = args[-1] if len(args) > 1 or name == "wait3" else None
        if (
            not isinstance(options, int)
            or options & _standard.WNOHANG
            or _current_task() is None
            or not _may_park()
        ):
            return original(*args)
        pause = _MIN_POLL_SECONDS
        while True:
            result = original(*args[:-1], options | _standard.WNOHANG)
            if result is not None and (name == "waitid" or result[0]):
                return result
            pid = args[0] if name in ("waitpid", "wait4") else 0
            # A pidfd reports only the end, not that a process stops or continues.
            if options or not isinstance(pid, int) or not _wait_for_end(pid):
                _sleep(pause)
                pause = min(pause * 2, _MAX_POLL_SECONDS)

    wait.__name__ = wait.__qualname__ = name
    wait.__doc__ = f"As `os.{name}`. May park."
    return wait


def _wait_for_end(pid: int) -> bool:
    """Park until the process has ended; return False if that cannot be watched."""
    if pid <= 0 or not hasattr(_standard, "pidfd_open"):
        return False
    task = _current_task()
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


#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
REPLACED: dict[str, Any] = {
    name: _polling(name)
    for name in ("waitpid", "wait3", "wait4", "waitid")
    if hasattr(_standard, name)
}


def _wait() -> tuple[int, int]:
    """Wait for the next child that ends; as `os.wait`. May park."""
    result: tuple[int, int] = REPLACED["waitpid"](-1, 0)
    return result


_real_close = _standard.close
_real_read = _standard.read
_real_write = _standard.write
# Some systems lack these functions; then they are not replaced below.
_real_readv: Callable[..., int] = getattr(_standard, "readv", _real_write)
_real_writev: Callable[..., int] = getattr(_standard, "writev", _real_write)
_real_sendfile: Callable[..., int] = getattr(_standard, "sendfile", _real_write)
_kernel_poll = _select.poll
#: Number of bytes that a pipe accepts without blocking when poll reports it writable.
_ATOMIC_WRITE_BYTES: int = getattr(_select, "PIPE_BUF", 512)
_MAX_BUFFERS: int = (
    _standard.sysconf("SC_IOV_MAX") if hasattr(_standard, "sysconf") else 16
)


def _wait_until_ready(fd: int, direction: int, what: str) -> None:
    """Park until `fd` is ready; a no-op if it cannot block."""
    task = _current_task()
    assert task is not None
    kernel = _kernel_poll()
    kernel.register(fd, _select.POLLIN if direction == _READ else _select.POLLOUT)
    # Regular files are always ready; non-blocking descriptors never block.
    while not kernel.poll(0) and _standard.get_blocking(fd) and _may_park():
        _wait_any(task, {fd: direction}, None, f"{what}({fd})")


def _is_nonnegative_int(fd: object) -> bool:
    return isinstance(fd, int) and fd >= 0


def _read(fd: int, length: int, /) -> bytes:
    """As `os.read`. May park if `fd` is a pipe, a terminal or a socket."""
    if _current_task() is not None and _is_nonnegative_int(fd):
        _wait_until_ready(fd, _READ, "os.read")
    return _real_read(fd, length)


def _is_stream(fd: int) -> bool:
    """Return whether data may be written to `fd` in pieces: a pipe or stream socket."""
    mode = _standard.fstat(fd).st_mode
    if _stat.S_ISSOCK(mode):
        if _socket.getdefaulttimeout() is not None:
            return False  # the socket object would make it non-blocking
        sock = _socket.socket(fileno=fd)
        try:
            return sock.type == _socket.SOCK_STREAM
        finally:
            sock.detach()
    return _stat.S_ISFIFO(mode)


def _may_wait_to_write(fd: int) -> bool:
    """Return whether this is a task and writing to `fd` may block."""
    return (
        _current_task() is not None
        and _is_nonnegative_int(fd)
        and _standard.get_blocking(fd)
        and _may_park()
    )


def _write(fd: int, data: ReadableBuffer, /) -> int:
    """As `os.write`. May park if `fd` is a pipe or a socket.

    Returns when all of `data` is written, as the original does in blocking mode. A
    terminal that its user has stopped may still block: it does not report free space.
    """
    if not _may_wait_to_write(fd):
        return _real_write(fd, data)
    with memoryview(data) as view, view.cast("B") as flat:
        if len(flat) <= _ATOMIC_WRITE_BYTES or not _is_stream(fd):
            _wait_until_ready(fd, _WRITE, "os.write")
            return _real_write(fd, flat)
        done = 0
        while done < len(flat):
            _wait_until_ready(fd, _WRITE, "os.write")
            with flat[done : done + _ATOMIC_WRITE_BYTES] as piece:
                done += _real_write(fd, piece)
        return done


def _readv(fd: int, buffers: Sequence[WriteableBuffer], /) -> int:
    """As `os.readv`. May park, as `os.read` does."""
    if _current_task() is not None and _is_nonnegative_int(fd):
        _wait_until_ready(fd, _READ, "os.readv")
    return _real_readv(fd, buffers)


def _writev(fd: int, buffers: Sequence[ReadableBuffer], /) -> int:
    """As `os.writev`. May park, as `os.write` does."""
    # With more buffers than the kernel accepts, the original raises.
    if not _may_wait_to_write(fd) or len(buffers) > _MAX_BUFFERS:
        return _real_writev(fd, buffers)
    length = 0
    for buffer in buffers:
        with memoryview(buffer) as view:
            length += view.nbytes
    if length <= _ATOMIC_WRITE_BYTES or not _is_stream(fd):
        _wait_until_ready(fd, _WRITE, "os.writev")
        return _real_writev(fd, buffers)
    return _write(fd, b"".join(buffers))


def _sendfile(
    out_fd: int,
    in_fd: int,
    offset: int | None,
    count: int,
    *more: object,
    **named: object,
) -> int:
    """As `os.sendfile`. May park, as `os.write` does; reading the file blocks."""
    if (
        more
        or named
        or not _may_wait_to_write(out_fd)
        or not _is_nonnegative_int(count)
    ):
        return _real_sendfile(out_fd, in_fd, offset, count, *more, **named)
    if count <= _ATOMIC_WRITE_BYTES or not _is_stream(out_fd):
        _wait_until_ready(out_fd, _WRITE, "os.sendfile")
        return _real_sendfile(out_fd, in_fd, offset, count)
    done = 0
    while done < count:
        _wait_until_ready(out_fd, _WRITE, "os.sendfile")
        # None: the kernel uses and advances the file's position.
        start = None if offset is None else offset + done
        sent = _real_sendfile(
            out_fd, in_fd, start, min(_ATOMIC_WRITE_BYTES, count - done)
        )
        if not sent:
            break
        done += sent
    return done


def _close(fd: int, /) -> None:
    """As `os.close`; tasks that wait for `fd` get EBADF. Never parks."""
    if not isinstance(fd, int):
        _real_close(fd)  # raises
        return
    _descriptors.unregister_fd(fd)
    _real_close(fd)
    _descriptors.wake_poll_waiters(fd)


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
