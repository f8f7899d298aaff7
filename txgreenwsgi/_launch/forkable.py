"""Reasons for which a process that has imported the application must not be forked.

A child has a copy of everything, but only the thread that forks. It shares the
descriptors of a reactor with the parent and with all other children.

It knows modules, threads, greenlets and sockets. It must never fork.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from _socket import socket as real_socket
from contextlib import suppress
from typing import Any, Final

from greenlet import getcurrent, greenlet

__all__ = [
    "connections",
    "live_greenlets",
    "obstacle",
    "reactor_importers",
    "running_threads",
]

_REACTOR: Final = "twisted.internet.reactor"
_OURS: Final = ("twisted", "txgreenwsgi")


def reactor_importers() -> list[str] | None:
    """Return the modules of the application that have imported the reactor.

    Returns:
        None if no reactor is installed; [] if no module has a reference to it.
    """
    reactor = sys.modules.get(_REACTOR)
    if reactor is None:
        return None
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in _OURS
        and any(
            value is reactor for value in list(getattr(module, "__dict__", {}).values())
        )
    )


def obstacle() -> str:
    """Return why this process must not be forked, with a remedy; "" if it may."""
    importers = reactor_importers()
    if importers is not None:
        by = f" by {', '.join(importers)}" if importers else ""
        return (
            f"{_REACTOR} was imported{by}: workers would share its descriptors; import "
            "it in functions"
        )
    threads = running_threads()
    if threads:
        return (
            f"threads are running ({', '.join(threads)}): workers would be without "
            "them, and their locks might be held for ever; start them in the first "
            "request"
        )
    greenlets = live_greenlets()
    if greenlets:
        names = ", ".join(sorted(repr(each) for each in greenlets))
        return (
            f"greenlets are alive ({names}): each worker would continue "
            "them; start them in the first request"
        )
    return ""


def running_threads() -> list[str]:
    """Return the names of the other threads of Python."""
    known = {thread.ident: thread.name for thread in threading.enumerate()}
    others = set(sys._current_frames()) - {threading.get_ident()}
    return sorted(known.get(ident) or f"thread {ident}" for ident in others)


def live_greenlets() -> list[greenlet]:
    """Return the greenlets that have begun and not ended, except the current one."""
    return [
        each
        for each in gc.get_objects()
        # Not isinstance, which uses `__class__`: a lazy object would load itself.
        if issubclass(type(each), greenlet)
        and each
        # A greenlet that was suspended when its thread ended is true for ever.
        and not each.dead
        and each is not getcurrent()
    ]


def connections(own: set[int]) -> list[str]:
    """Return the peers of the stream sockets that are connected.

    Workers would share such a connection, and mix their data.

    Args:
        own: descriptors of this process that are not the application's.
    """
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:  # not on this platform
        return []
    found: list[str] = []
    for fd in sorted(int(name) for name in names):
        if fd in own:
            continue
        with suppress(OSError):
            found += _peer(fd)
    return found


def _peer(fd: int) -> list[str]:
    """Return the peer of a connected stream socket, as a list.

    Raises:
        OSError: the descriptor is not one.
    """
    sock: Any = real_socket(fileno=fd)
    try:
        if sock.type != socket.SOCK_STREAM:
            return []
        name = sock.getpeername()
    finally:
        sock.detach()
    if isinstance(name, tuple):
        return [f"{name[0]}:{name[1]}"]
    return [os.fsdecode(name) or "a UNIX socket"]
