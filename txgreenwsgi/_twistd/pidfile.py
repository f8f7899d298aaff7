"""The pidfile of a server that was killed.

twistd refuses to start while the pid in its pidfile belongs to any process. In a
container the pids repeat at every start, so there the file of a killed server keeps the
next one from starting, often because the pid is its own.

A server writes its pidfile after it has started. A process that started later than the
file was written is another one, and the file is stale. If the wall clock was set
forward meanwhile, the server itself seems to be younger than its file. So the file
stays too if the command line of the process is that of a server with this pidfile.

It knows the file and the process table. It must never know options.
"""

from __future__ import annotations

import os
import re
import time
from typing import Final

from twisted.logger import Logger

__all__ = ["is_ancestor", "is_server", "remove_stale_pidfile", "started_at"]

_log = Logger()

#: Tolerance for the resolution of both times.
_MARGIN_SECONDS: Final = 1.0

#: twistd's own.
_DEFAULT: Final = "twistd.pid"

# The rest of a file after a power failure.
_EMPTY: Final = b"\0 \r\n\t"


def remove_stale_pidfile(path: str) -> None:
    """Remove the pidfile of a process that has ended, though its pid is in use again.

    Anything else is left to twistd: a pidfile of a live process, or of an unused pid,
    or a file with other contents. Call before twistd checks the file, and before this
    process writes it.

    Args:
        path: absolute or relative to the current directory.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(64).strip(_EMPTY)
            written = os.fstat(file.fileno()).st_mtime
    except OSError:
        return
    if not text:
        reason = "it is empty"
    elif not re.fullmatch(rb"[0-9]{1,9}", text):
        return
    elif int(text) == os.getpid():
        reason = f"its pid {int(text)} is that of this process"
    elif is_zombie(int(text)):
        reason = f"process {int(text)} has ended"
    else:
        pid = int(text)
        started = started_at(pid)
        if started is None or started < written + _MARGIN_SECONDS:
            return
        # A shell in front of this process has the same command line.
        if is_server(pid, path) and not is_ancestor(pid):
            return
        reason = f"process {pid} has started later than it was written"
    try:
        os.unlink(path)
    except OSError as error:
        _log.warn(
            "cannot remove the stale pidfile {path} ({error})", path=path, error=error
        )
    else:
        _log.info(
            "removed the stale pidfile {path}: {reason}", path=path, reason=reason
        )


def is_server(pid: int, path: str) -> bool:
    """Return whether a process may be a server with the pidfile at `path`."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
    except OSError:
        return True
    name = os.path.basename(path)
    return (b"twistd" in command or b"txgreenwsgi" in command) and (
        name == _DEFAULT or os.fsencode(name) in command
    )


def is_ancestor(pid: int) -> bool:
    """Return whether this process descends from the process `pid`."""
    parent: int | None = os.getppid()
    while parent and parent != pid:
        status = _status_of(parent)
        parent = int(status[1]) if status else None
    return parent == pid


def is_zombie(pid: int) -> bool:
    """Return whether a process has ended, and its parent has not waited for it."""
    return _status_of(pid)[:1] in ([b"Z"], [b"X"])


def _status_of(pid: int) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) from the third on; [] if there are none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # After the second field, the name, which may contain anything.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def started_at(pid: int) -> float | None:
    """Return the start of a process, in seconds since the epoch.

    Returns:
        None if there is no such process, or the system cannot tell (Linux can).
    """
    status = _status_of(pid)
    if not status:
        return None
    ticks = int(status[19])  # field 22
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
