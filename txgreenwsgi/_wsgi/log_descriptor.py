"""Descriptor 2 of a daemon, which appends to the file of the log.

twistd opens the null device as the standard descriptors of a daemon, so the output of
child processes, of `faulthandler` and of C code would be lost.

Knows descriptors. Must never know the streams or the log.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

__all__ = [
    "STDERR_FD",
    "append_stderr_to",
    "follow_rotation",
    "is_null_device",
    "reopen_log",
]

STDERR_FD = 2

#: twistd opens its log early, so its descriptor is below this number.
_FIRST_DESCRIPTORS = 1024

#: The log file of a daemon; "" if descriptor 2 does not belong to one.
_path = ""


def is_null_device(fd: int) -> bool:
    """Return whether `fd` is open and belongs to the null device."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    except OSError:
        return False


def append_stderr_to(path: str, *, always: bool = False) -> None:
    """Make descriptor 2 append to a log file.

    Call while the process may open the file, before twistd changes the user. No-op
    unless descriptor 2 is the null device.

    Args:
        path: absolute.
        always: whatever descriptor 2 is; it may be the log of the last master.

    Raises:
        OSError: the file cannot be opened.
    """
    global _path
    if always or is_null_device(STDERR_FD):
        _open(path)
        _path = path


def follow_rotation() -> bool:
    """Reopen the file if another one has its name by now.

    Returns:
        Whether descriptor 2 appends to a log file.
    """
    if not _path:
        return False
    # The user of the process may have no permission to open the new file.
    with suppress(OSError):
        if not os.path.samestat(os.fstat(STDERR_FD), os.stat(_path)):
            _open(_path)
    return True


def reopen_log() -> None:
    """Reopen the file of descriptor 2. Call after the log has reopened it."""
    if _path:
        with suppress(OSError):
            _open(_path)


def _open(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # Twisted's log file remembers its own end, and would overwrite what others
        # append.
        opened = os.fstat(fd)
        for other in range(STDERR_FD + 1, _FIRST_DESCRIPTORS):
            with suppress(OSError):
                if os.path.samestat(os.fstat(other), opened):
                    flags = fcntl.fcntl(other, fcntl.F_GETFL)
                    fcntl.fcntl(other, fcntl.F_SETFL, flags | os.O_APPEND)
        os.dup2(fd, STDERR_FD)
    finally:
        os.close(fd)
