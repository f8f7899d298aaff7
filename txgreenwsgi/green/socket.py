"""Green `socket`: sockets whose methods park; names are resolved in threads.

The functions are those of the standard module, run on the green socket class.
"""

from __future__ import annotations

import socket as _standard
from types import FunctionType as _FunctionType
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking.waits import may_park as _may_park
from txgreenwsgi._switching.running import current_task as _current_task

from . import _resolver
from . import selectors as _green_selectors
from ._sockets import GreenSocket as _GreenSocket
from .mirror import rebound as _rebound

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


_real_getaddrinfo = _standard.getaddrinfo


def _getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,  # noqa: A002 - the original's
    proto: int = 0,
    flags: int = 0,
) -> list[Any]:
    """Return the addresses of `host` and `port`; as `socket.getaddrinfo`. May park.

    Numeric addresses return at once; names are resolved in the reactor's thread pool.
    """
    if (
        _current_task() is None
        or not _may_park()
        or host is None
        or _resolver.is_numeric(host)
    ):
        return _real_getaddrinfo(host, port, family, type, proto, flags)
    return _resolver.offload(_real_getaddrinfo, host, port, family, type, proto, flags)


_getaddrinfo.__name__ = _getaddrinfo.__qualname__ = "getaddrinfo"
_mine = dict(globals())
for _name, _value in vars(_standard).items():
    if _name.startswith("__") or _name in _mine:
        continue
    if isinstance(_value, _FunctionType):
        _value = _rebound(_value, globals())
    globals()[_name] = _value

#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
REPLACED: dict[str, Any] = {
    **_resolver.REPLACED,
    "getaddrinfo": _getaddrinfo,
    "socket": _GreenSocket,
}
globals().update(REPLACED, selectors=_green_selectors)
del _name, _value
