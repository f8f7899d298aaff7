"""Name resolution: the blocking lookups of the standard `socket`.

Numeric addresses return at once; all other lookups run in the reactor's thread pool
while the task parks. It knows addresses. It must never open a socket.
"""

from __future__ import annotations

import _socket
import socket as _standard
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.running import current_task

from .offload import offload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REPLACED", "is_numeric", "offload", "resolve_address"]

_real_getaddrinfo = _socket.getaddrinfo


def is_numeric(host: object) -> bool:
    """Return True for an address that needs no lookup, or that is invalid."""
    if not isinstance(host, (str, bytes)):
        return True  # raises at once
    if isinstance(host, str) and (
        _is_literal(host, _socket.AF_INET) or _is_literal(host, _socket.AF_INET6)
    ):
        return True
    try:
        _real_getaddrinfo(host, None, flags=_socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _in_a_thread(name: str) -> Callable[..., object]:
    original = getattr(_socket, name)

    kinds = (tuple,) if name == "getnameinfo" else (str, bytes)

    def look_up(*args: object) -> object:
        if not args or not isinstance(args[0], kinds):
            return original(*args)  # raises at once
        return offload(original, *args)

    look_up.__name__ = look_up.__qualname__ = name
    look_up.__doc__ = f"As `socket.{name}`, in the reactor's thread pool. May park."
    return look_up


#: The lookup functions that differ from those of `_socket`.
REPLACED: dict[str, Callable[..., object]] = {
    name: _in_a_thread(name)
    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")
}


def resolve_address(address: object, family: int, kind: int, protocol: int) -> Any:
    """Return the address of an internet socket with its host resolved. May park."""
    if current_task() is None or not isinstance(address, tuple) or len(address) < 2:
        return address
    host, port = address[:2]
    if not isinstance(host, str) or not isinstance(port, int):
        return address
    if host in ("", "<broadcast>") or _is_literal(host, family):
        return address
    if not 0 <= port <= 0xFFFF:
        return address  # raises at once
    found = offload(_real_getaddrinfo, host, None, family, kind, protocol)
    return (found[0][4][0], port, *address[2:])


def _is_literal(host: str, family: int) -> bool:
    try:
        _standard.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True
