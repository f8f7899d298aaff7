"""Names and addresses: what the standard `socket` looks up by blocking calls.

Numeric addresses are answered at once; everything else is asked in the
reactor's thread pool while the task waits. It must never open a socket.
"""

from __future__ import annotations

import _socket
import socket as _standard
from typing import TYPE_CHECKING, Any

from ._place import here
from .offload import offload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["REPLACED", "is_numeric", "offload", "resolve_address"]

_real_getaddrinfo = _socket.getaddrinfo


def is_numeric(host: Any) -> bool:
    """Is `host` an address that needs no looking up (or an error)?"""
    if not isinstance(host, (str, bytes)):
        return True  # an error, which comes at once
    if isinstance(host, str) and (
        _is_literal(host, _socket.AF_INET) or _is_literal(host, _socket.AF_INET6)
    ):
        return True
    try:
        _real_getaddrinfo(host, None, flags=_socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _in_a_thread(name: str) -> Callable[..., Any]:
    original = getattr(_socket, name)

    asked_by = (tuple,) if name == "getnameinfo" else (str, bytes)

    def look_up(*args: Any) -> Any:
        if not args or not isinstance(args[0], asked_by):
            return original(*args)  # an error, which comes at once
        return offload(original, *args)

    look_up.__name__ = look_up.__qualname__ = name
    look_up.__doc__ = f"As `socket.{name}`, in the reactor's thread pool. May park."
    return look_up


#: The names of `_socket` that look something up, and what to have in their place.
REPLACED: dict[str, Callable[..., Any]] = {
    name: _in_a_thread(name)
    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")
}


def resolve_address(address: Any, family: int, kind: int, protocol: int) -> Any:
    """`address` of an internet socket, with a number in place of a name. May park."""
    if here() is None or not isinstance(address, tuple) or len(address) < 2:
        return address
    host, port = address[:2]
    if not isinstance(host, str) or not isinstance(port, int):
        return address
    if host in ("", "<broadcast>") or _is_literal(host, family):
        return address
    if not 0 <= port <= 0xFFFF:
        return address  # an error, which comes at once
    found = offload(_real_getaddrinfo, host, None, family, kind, protocol)
    return (found[0][4][0], port, *address[2:])


def _is_literal(host: str, family: int) -> bool:
    try:
        _standard.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True
