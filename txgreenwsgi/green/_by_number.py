"""The green socket of each descriptor, for code that has only the number.

The descriptor of a green socket is non-blocking, whatever time limit the socket
declares, so that C code on it cannot block the reactor. Two kinds of code depend on the
declared mode: functions of `os` that use the number wait if the socket would, and code
that takes the descriptor over, such as a child process, gets it in the declared mode.

It knows numbers and sockets. It must never read or write a descriptor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from weakref import ref

__all__ = ["forget", "green_sockets", "is_owner", "lend", "waits"]


class _Socket(Protocol):
    def fileno(self) -> int: ...
    def gettimeout(self) -> float | None: ...
    def lend(self) -> None: ...


#: The green sockets by descriptor. Sockets add and remove themselves; the entry of one
#: that was collected stays until the number is used again.
green_sockets: dict[int, ref[_Socket]] = {}


def is_owner(fd: int, sock: _Socket) -> bool:
    """Return False if another green socket has taken `fd` over, or it was closed."""
    return _get(fd) is sock


def forget(fd: int) -> None:
    """Remove the entry of `fd`, which is closed by its number."""
    green_sockets.pop(fd, None)


def _get(fd: int) -> _Socket | None:
    reference = green_sockets.get(fd)
    return None if reference is None else reference()


def waits(fd: int) -> bool:
    """Return whether `fd` is non-blocking only because it is a green socket's.

    The green socket declares blocking mode: operations on it wait without a limit.
    """
    sock = _get(fd)
    return sock is not None and sock.gettimeout() is None and sock.fileno() == fd


def lend(numbers: Iterable[int]) -> None:
    """Prepare descriptors for use by other code: set the mode that they declare.

    Args:
        numbers: descriptors of any kind; only those of green sockets change.
    """
    for fd in numbers:
        sock = _get(fd)
        if sock is not None and sock.fileno() == fd:
            sock.lend()
