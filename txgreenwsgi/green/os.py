"""Green `os`: waiting for child processes and for pipes parks the task.

On Linux a pidfd reports the end of a process; on other systems, and for "any child",
the task polls at increasing intervals.

Descriptors keep their blocking mode, which another process may share: they are polled
before each read and write. The descriptor of a green socket that declares blocking mode
counts as blocking. No system call waits for a file lock in a way that can be
interrupted, so the task polls for it; a FIFO is opened in a thread.
"""

from __future__ import annotations

import _io
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

from . import _by_number
from ._fifo import open_fifo as _open_fifo
from .fcntl import must_poll as _must_poll
from .fcntl import poll_for_lock as _poll_for_lock
from .offload import offload as _offload
from .time import sleep as _sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import ReadableBuffer, StrOrBytesPath, WriteableBuffer

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
_real_dup = _standard.dup
_real_dup2 = _standard.dup2
_real_open = _standard.open
_real_read = _standard.read
_real_set_inheritable = _standard.set_inheritable
_real_system = _standard.system
_real_write = _standard.write


def _missing(*args: object, **named: object) -> Any:
    """The original of a function that this system lacks; it is not replaced below."""
    raise NotImplementedError


def _original(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(_standard, name, _missing)
    return function


_real_eventfd_read = _original("eventfd_read")
_real_eventfd_write = _original("eventfd_write")
_real_lockf = _original("lockf")
_real_preadv = _original("preadv")
_real_pwritev = _original("pwritev")
_real_readv = _original("readv")
_real_sendfile = _original("sendfile")
_real_splice = _original("splice")
_real_writev = _original("writev")
_kernel_poll = _select.poll
#: Number of bytes that a pipe accepts without blocking when poll reports it writable.
_ATOMIC_WRITE_BYTES: int = getattr(_select, "PIPE_BUF", 512)
_MAX_BUFFERS: int = (
    _standard.sysconf("SC_IOV_MAX") if hasattr(_standard, "sysconf") else 16
)
#: Flags with which opening a FIFO does not wait, or fails.
_OPENS_AT_ONCE: int = (
    _standard.O_NONBLOCK
    | _standard.O_EXCL
    | getattr(_standard, "O_DIRECTORY", 0)
    | getattr(_standard, "O_PATH", 0)
)
_ACCESS_MODE = _standard.O_RDONLY | _standard.O_WRONLY | _standard.O_RDWR
#: Maximum value of the counter of an eventfd.
_MAX_EVENTS = 2**64 - 2
_SPLICE_NONBLOCK: int = getattr(_standard, "SPLICE_F_NONBLOCK", 0)


def _blocks(fd: int) -> bool:
    """Return whether operations on `fd` wait until it is ready."""
    return _standard.get_blocking(fd) or _by_number.waits(fd)


def _wait_until_ready(fd: int, direction: int, what: str) -> None:
    """Wait until `fd` is ready; a no-op if it does not block. May park."""
    task = _current_task()
    if task is None or not _may_park():
        # Any other descriptor that blocks does so in the original function.
        if _by_number.waits(fd):
            _descriptors.block(fd, direction, None)
        return
    kernel = _kernel_poll()
    kernel.register(fd, _select.POLLIN if direction == _READ else _select.POLLOUT)
    # Regular files are always ready.
    while not kernel.poll(0) and _blocks(fd):
        _wait_any(task, {fd: direction}, None, f"{what}({fd})")


def _is_ready(fd: int, direction: int) -> bool:
    return _descriptors.is_ready(fd, direction)


def _counter(fd: int) -> int:
    """Return the counter of an eventfd; 0 if it is unknown."""
    try:
        with _io.open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "eventfd-count":
                    return int(value, 16)
    except OSError:
        pass  # /proc is not mounted
    return 0


def _is_fifo(path: StrOrBytesPath, dir_fd: int | None) -> bool:
    try:
        return _stat.S_ISFIFO(_standard.stat(path, dir_fd=dir_fd).st_mode)
    except (OSError, TypeError, ValueError):
        return False  # the original raises the same


def _is_nonnegative_int(fd: object) -> bool:
    return isinstance(fd, int) and fd >= 0


def _when_ready(
    direction: int, name: str, operation: Callable[..., Any], fd: int, *args: object
) -> Any:
    """Return `operation(fd, *args)`, called when `fd` is ready. May park."""
    while True:
        _wait_until_ready(fd, direction, name)
        try:
            return operation(fd, *args)
        except BlockingIOError:
            # Another thread may have been faster.
            if not _by_number.waits(fd):
                raise


def _read(fd: int, length: int, /) -> bytes:
    """As `os.read`. May park if `fd` is a pipe, a terminal or a socket."""
    if not _is_nonnegative_int(fd):
        return _real_read(fd, length)  # raises
    data: bytes = _when_ready(_READ, "os.read", _real_read, fd, length)
    return data


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
    """Return whether to wait before writing to `fd`."""
    if not _is_nonnegative_int(fd):
        return False
    if _current_task() is None or not _may_park():
        return _by_number.waits(fd)
    return _blocks(fd)


def _write(fd: int, data: ReadableBuffer, /) -> int:
    """As `os.write`. May park if `fd` is a pipe or a socket.

    Returns when all of `data` is written, as the original does in blocking mode. A
    terminal that its user has stopped may still block: it does not report free space.
    """
    if not _may_wait_to_write(fd):
        return _real_write(fd, data)
    with memoryview(data) as view, view.cast("B") as flat:
        if len(flat) <= _ATOMIC_WRITE_BYTES or not _is_stream(fd):
            return int(_when_ready(_WRITE, "os.write", _real_write, fd, flat))
        done = 0
        while done < len(flat):
            with flat[done : done + _ATOMIC_WRITE_BYTES] as piece:
                done += _when_ready(_WRITE, "os.write", _real_write, fd, piece)
        return done


def _readv(fd: int, buffers: Sequence[WriteableBuffer], /) -> int:
    """As `os.readv`. May park, as `os.read` does."""
    if not _is_nonnegative_int(fd):
        return int(_real_readv(fd, buffers))  # raises
    return int(_when_ready(_READ, "os.readv", _real_readv, fd, buffers))


def _writev(fd: int, buffers: Sequence[ReadableBuffer], /) -> int:
    """As `os.writev`. May park, as `os.write` does."""
    # With more buffers than the kernel accepts, the original raises.
    if not _may_wait_to_write(fd) or len(buffers) > _MAX_BUFFERS:
        return int(_real_writev(fd, buffers))
    length = 0
    for buffer in buffers:
        with memoryview(buffer) as view:
            length += view.nbytes
    if length <= _ATOMIC_WRITE_BYTES or not _is_stream(fd):
        return int(_when_ready(_WRITE, "os.writev", _real_writev, fd, buffers))
    return _write(fd, b"".join(buffers))


def _preadv(
    fd: int, buffers: Sequence[WriteableBuffer], offset: int, flags: int = 0, /
) -> int:
    """As `os.preadv`. May park, as `os.read` does, with the offset -1."""
    if offset == -1 and not flags and _is_nonnegative_int(fd):
        _wait_until_ready(fd, _READ, "os.preadv")
    return int(_real_preadv(fd, buffers, offset, flags))


def _pwritev(
    fd: int, buffers: Sequence[ReadableBuffer], offset: int, flags: int = 0, /
) -> int:
    """As `os.pwritev`. May park, as `os.write` does, with the offset -1."""
    if offset == -1 and not flags and _may_wait_to_write(fd):
        return _writev(fd, buffers)
    return int(_real_pwritev(fd, buffers, offset, flags))


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
        or not _is_nonnegative_int(in_fd)
        or not _is_nonnegative_int(count)
    ):
        return int(_real_sendfile(out_fd, in_fd, offset, count, *more, **named))
    # Linux 5.12: from a socket to a pipe.
    from_socket = _stat.S_ISSOCK(_standard.fstat(in_fd).st_mode)
    if from_socket:
        count = min(count, _ATOMIC_WRITE_BYTES)
    if count <= _ATOMIC_WRITE_BYTES or not _is_stream(out_fd):
        if from_socket:
            _wait_until_ready(in_fd, _READ, "os.sendfile")
        sent = _when_ready(
            _WRITE, "os.sendfile", _real_sendfile, out_fd, in_fd, offset, count
        )
        return int(sent)
    done = 0
    while done < count:
        # None: the kernel uses and advances the file's position.
        start = None if offset is None else offset + done
        most = min(_ATOMIC_WRITE_BYTES, count - done)
        sent = _when_ready(
            _WRITE, "os.sendfile", _real_sendfile, out_fd, in_fd, start, most
        )
        if not sent:
            break
        done += sent
    return done


def _splice(
    src: int,
    dst: int,
    count: int,
    offset_src: int | None = None,
    offset_dst: int | None = None,
    flags: int = 0,
) -> int:
    """As `os.splice`. May park; reading and writing a file blocks."""
    task = _current_task()
    if task is None or not _may_park() or not all(map(_is_nonnegative_int, (src, dst))):
        return int(_real_splice(src, dst, count, offset_src, offset_dst, flags))
    # A blocking socket waits until all of a long piece is sent.
    most = count
    if _stat.S_ISSOCK(_standard.fstat(dst).st_mode):
        most = min(count, _ATOMIC_WRITE_BYTES)
    while True:
        # Ends that make the original raise BlockingIOError.
        impatient = []
        for fd, direction in ((src, _READ), (dst, _WRITE)):
            # The flag makes only the pipe non-blocking.
            is_pipe = _stat.S_ISFIFO(_standard.fstat(fd).st_mode)
            if _blocks(fd) and not (is_pipe and flags & _SPLICE_NONBLOCK):
                _wait_until_ready(fd, direction, "os.splice")
            else:
                impatient.append((fd, direction))
        try:
            return int(
                _real_splice(
                    src, dst, most, offset_src, offset_dst, flags | _SPLICE_NONBLOCK
                )
            )
        except BlockingIOError:
            if len(impatient) == 2 or not all(_is_ready(*end) for end in impatient):
                raise
        _sleep(_MIN_POLL_SECONDS)  # another process took the data or the space


def _eventfd_read(fd: int) -> int:
    """As `os.eventfd_read`. May park."""
    if _is_nonnegative_int(fd):
        _wait_until_ready(fd, _READ, "os.eventfd_read")
    return int(_real_eventfd_read(fd))


def _eventfd_write(fd: int, value: int) -> None:
    """As `os.eventfd_write`. May park until the counter has room for `value`."""
    if _current_task() is not None and _may_wait_to_write(fd):
        _wait_until_ready(fd, _WRITE, "os.eventfd_write")
        # Ready means that there is room for 1; the kernel reports no other change.
        pause = _MIN_POLL_SECONDS
        while 1 < value <= _MAX_EVENTS and _counter(fd) + value > _MAX_EVENTS:
            _sleep(pause)
            pause = min(pause * 2, _MAX_POLL_SECONDS)
    _real_eventfd_write(fd, value)


def _lockf(fd: int, command: int, length: int, /) -> None:
    """As `os.lockf`. May park."""
    if command == _standard.F_LOCK and _must_poll(command, 0):
        _poll_for_lock(_real_lockf, fd, _standard.F_TLOCK, length)
    else:
        _real_lockf(fd, command, length)


def _open(
    path: StrOrBytesPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
) -> int:
    """As `os.open`. May park if `path` is a FIFO."""
    task = _current_task()
    if (
        task is not None
        and not flags & _OPENS_AT_ONCE
        and flags & _ACCESS_MODE != _standard.O_RDWR
        and _may_park()
        and _is_fifo(path, dir_fd)
    ):
        return _open_fifo(task, path, flags, mode, dir_fd)
    return _real_open(path, flags, mode, dir_fd=dir_fd)


def _system(command: StrOrBytesPath) -> int:
    """As `os.system`, in the reactor's thread pool. May park."""
    return _offload(_real_system, command)


def _dup(fd: int, /) -> int:
    """As `os.dup`; the duplicate has the mode that a green socket declares."""
    _by_number.lend((fd,))
    return _real_dup(fd)


def _dup2(fd: int, fd2: int, inheritable: bool = True) -> int:
    """As `os.dup2`; the duplicate has the mode that a green socket declares."""
    _by_number.lend((fd,))
    if fd != fd2:
        _by_number.forget(fd2)
    return _real_dup2(fd, fd2, inheritable)


def _set_inheritable(fd: int, inheritable: int, /) -> None:
    """As `os.set_inheritable`; a child gets the mode that a green socket declares."""
    _real_set_inheritable(fd, bool(inheritable))
    if inheritable:
        _by_number.lend((fd,))


def _lending(name: str) -> Callable[..., int]:
    """Return a version of `os.<name>`, a function that spawns a process.

    The child gets the duplicates of green sockets in the mode that these declare.
    """
    original = _original(name)

    def spawn(
        path: StrOrBytesPath,
        argv: Sequence[StrOrBytesPath],
        env: Mapping[str, str],
        /,
        **named: Any,
    ) -> int:
        actions = named["file_actions"] = tuple(named.get("file_actions") or ())
        for action in actions:
            if isinstance(action, tuple) and action[:1] == (
                _standard.POSIX_SPAWN_DUP2,
            ):
                _by_number.lend(action[1:2])
        pid: int = original(path, argv, env, **named)
        return pid

    spawn.__doc__ = f"As `os.{name}`."
    return spawn


def _close(fd: int, /) -> None:
    """As `os.close`; tasks that wait for `fd` get EBADF. Never parks."""
    if not isinstance(fd, int):
        _real_close(fd)  # raises
        return
    _by_number.forget(fd)
    _descriptors.unregister_fd(fd)
    _real_close(fd)
    _descriptors.wake_poll_waiters(fd)


_functions: dict[str, Callable[..., Any]] = {
    "close": _close,
    "dup": _dup,
    "dup2": _dup2,
    "eventfd_read": _eventfd_read,
    "eventfd_write": _eventfd_write,
    "lockf": _lockf,
    "open": _open,
    "posix_spawn": _lending("posix_spawn"),
    "posix_spawnp": _lending("posix_spawnp"),
    "preadv": _preadv,
    "pwritev": _pwritev,
    "read": _read,
    "readv": _readv,
    "sendfile": _sendfile,
    "set_inheritable": _set_inheritable,
    "splice": _splice,
    "system": _system,
    "write": _write,
    "writev": _writev,
}
for _name, _function in _functions.items():
    if hasattr(_standard, _name):
        _function.__name__ = _function.__qualname__ = _name
        REPLACED[_name] = _function
del _name, _function, _functions
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
