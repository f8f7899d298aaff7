"""The files that a killed server leaves beside a UNIX socket.

A server that ends by SIGKILL, or with its container, leaves the socket in the file
system and, with Twisted's lock, a symbolic link to its pid. That pid may belong to
another process by now, in a container almost always. So the pid is not evidence; a
connection is: the kernel refuses it unless a process listens.

It knows files of sockets. It must never know endpoints or ports.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as real_socket
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["file_identity", "is_abstract", "is_served", "remove_stale", "starting_at"]

_log = Logger()

#: Maximum time to wait for another server that starts in the same directory.
LOCK_SECONDS: Final = 2.0
_LOCK_INTERVAL: Final = 0.02

# Errors of connect() for a socket that belongs to a process: its backlog is full, or it
# is not a stream socket.
_SERVED: Final = frozenset({errno.EAGAIN, errno.EINPROGRESS, errno.EPROTOTYPE})


def is_abstract(path: str) -> bool:
    """Return whether `path` is in Linux's abstract namespace, which has no files."""
    return path.startswith("\0")


def file_identity(path: str | bytes) -> tuple[int, int] | None:
    """Return device and inode of a file, of a link itself; None if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_served(path: str) -> bool:
    """Return whether a process listens on the socket at `path`. Never blocks.

    Raises:
        OSError: unknown, because this user may not connect for instance.
    """
    # Not `socket.socket`, which may be patched.
    with _closing(real_socket(AF_UNIX, SOCK_STREAM)) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            if error.errno not in _SERVED:
                raise
    return True


@contextmanager
def _closing(client: real_socket) -> Iterator[real_socket]:
    try:
        yield client
    finally:
        client.close()


@contextmanager
def starting_at(path: str) -> Iterator[None]:
    """Keep other servers of this kind from starting in the same directory.

    Two that start together could both find the same stale socket, and the second would
    remove the new socket of the first. The lock is the kernel's, on the directory: it
    leaves no file, and ends with the process. Without permission to read the directory
    there is no lock.
    """
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        _wait_for_lock(directory)
        yield
    finally:
        os.close(directory)


def _wait_for_lock(directory: int) -> None:
    """Lock a directory, or give up after `LOCK_SECONDS`."""
    end = monotonic() + LOCK_SECONDS
    while not _lock(directory) and monotonic() < end:
        sleep(_LOCK_INTERVAL)


def _lock(directory: int) -> bool:
    """Lock a directory; return False if another process has locked it."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def remove_stale(path: str, *, with_lock: bool) -> None:
    """Remove a socket on which no process listens, and its lock.

    Call within `starting_at(path)`. A no-op if there is no file at `path`, except that
    the lock is removed.

    Args:
        path: absolute.
        with_lock: whether to remove Twisted's lock too, unless a process listens.

    Raises:
        OSError: a process listens (EADDRINUSE), the file is not a socket (EEXIST), or
            this user may not connect to it or remove it.
    """
    found = file_identity(path)
    if found is not None:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "a file that is not a socket exists", path)
        if is_served(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
        if file_identity(path) == found:
            os.unlink(path)
            _log.info("removed {path}: no process listens on it", path=path)
    lock = f"{path}.lock"
    if with_lock and os.path.islink(lock):
        with suppress(FileNotFoundError):
            os.unlink(lock)
            _log.info("removed {path}: no process listens on its socket", path=lock)
