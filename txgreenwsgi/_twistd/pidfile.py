"""The pidfile of a server that was killed.

twistd refuses to start while the pid in its pidfile belongs to any process. In a
container the pids repeat at every start, so there the file of a killed server keeps the
next one from starting, often because the pid is its own.

A server writes its pidfile after it has started. A process that started later than the
file was written is another one, and the file is stale.

It knows the file and the process table. It must never know options.
"""

from __future__ import annotations

import os
import re
import time
from typing import Final

from twisted.logger import Logger

__all__ = ["remove_stale_pidfile", "started_at"]

_log = Logger()

#: Tolerance for the resolution of both times.
_MARGIN_SECONDS: Final = 1.0

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
    else:
        started = started_at(int(text))
        if started is None or started < written + _MARGIN_SECONDS:
            return
        reason = f"process {int(text)} has started later than it was written"
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


def started_at(pid: int) -> float | None:
    """Return the start of a process, in seconds since the epoch.

    Returns:
        None if there is no such process, or the system cannot tell (Linux can).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # After the name, which may contain anything. Field 22 of proc_pid_stat(5).
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
