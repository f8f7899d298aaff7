"""Idents of tasks, as `threading.get_ident` returns them.

Programs name things after idents: Celery's `rpc://` backend names the queue for the
results of a thread after it, and results are lost when a new thread has the ident of
one that ended. A server starts a task for each request, so an ident must not come back
soon, as the address of the ended task would.

The idents of real threads are addresses, and C code may pass them to the functions of
pthreads (trio does, to name a thread). So an ident is the address of a byte in memory
that is reserved for this: the functions find an empty structure there. It knows
addresses. It must never know what a task does.
"""

from __future__ import annotations

import ctypes
import mmap
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txgreenwsgi._switching.greenlets import Task

__all__ = ["ident_of"]

#: Number of tasks after which an ident comes back. The memory behind them is reserved
#: and, unless C code writes to it, never used.
IDENTS = 1 << 24
#: More than the structure of a thread in any C library.
_STRUCTURE_BYTES = 1 << 16

_reserved = mmap.mmap(
    -1, IDENTS + _STRUCTURE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON
)
_first = ctypes.addressof(ctypes.c_char.from_buffer(_reserved))
_numbers = count()


def ident_of(task: Task[object]) -> int:
    """Return the ident of a task that is not the main task. Never parks."""
    ident = task.ident
    if not ident:
        ident = task.ident = _first + next(_numbers) % IDENTS
    return ident
