"""The original `_thread`, and the real threads that belong to the reactor.

Bound at import, before `txgreenwsgi.monkey` can patch anything. It knows threads. It
must never know tasks.
"""

from __future__ import annotations

import _thread
from threading import get_ident as thread_ident
from threading import main_thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

__all__ = [
    "add_reactor_thread",
    "discard_reactor_thread",
    "main_ident",
    "original",
    "reactor_threads",
    "real_local",
    "real_lock",
    "real_rlock",
    "start_real_thread",
    "thread_ident",
]

#: The names of `_thread` as they were before patching.
original: Any = SimpleNamespace(**vars(_thread))

real_lock = _thread.allocate_lock
real_rlock = _thread.RLock
real_local = _thread._local
start_real_thread = _thread.start_new_thread

#: The ident of the main thread.
main_ident: int = main_thread().ident or 0

_reactor_idents: set[int] = set()
#: Idents of the threads of the reactor's pool and of dedicated threads. The program
#: did not start them, so counts of its threads exclude them.
reactor_threads: AbstractSet[int] = _reactor_idents

#: Add or remove the ident of a thread that belongs to the reactor.
add_reactor_thread = _reactor_idents.add
discard_reactor_thread = _reactor_idents.discard
