"""Resource usage of a server process, as Linux reports it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .processes import ServerProcess

__all__ = ["cpu_seconds", "wait_idle"]

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(server: ServerProcess) -> float:
    """Return the CPU seconds of the process so far."""
    # After the name, which may contain spaces: utime and stime, fields 14 and 15.
    fields = Path(f"/proc/{server.pid}/stat").read_text("ascii").rpartition(")")[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / _TICKS


def wait_idle(server: ServerProcess, seconds: float = 180.0) -> None:
    """Wait until the process uses no CPU.

    Raises:
        AssertionError: timeout.
    """
    deadline = time.monotonic() + seconds
    last = -1.0
    while time.monotonic() < deadline:
        now = cpu_seconds(server)
        if now - last <= 1 / _TICKS:
            return
        last = now
        time.sleep(0.3)
    raise AssertionError(f"the server still uses CPU after {seconds:g} seconds")
