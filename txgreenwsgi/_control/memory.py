"""The memory of a process.

It knows /proc. It must never know what the process is.
"""

from __future__ import annotations

import os

__all__ = ["resident_bytes"]


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; None if the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
