"""Green `ssl`: TLS on green sockets. MemoryBIO and SSLObject are the originals.

OpenSSL always sees a green TLS socket as non-blocking; when OpenSSL wants to read or
write, this module waits. It knows sockets; it must never implement TLS.
"""

from __future__ import annotations

import _ssl
import ssl as _standard
import weakref
from time import monotonic as _monotonic
from types import FunctionType as _FunctionType
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking.descriptors import READ as _READ
from txgreenwsgi._parking.descriptors import WRITE as _WRITE
from txgreenwsgi._parking.waits import yield_to_others as _yield_to_others
from txgreenwsgi._switching.running import current_task as _current_task

from ._sockets import GreenSocket as _GreenSocket
from .mirror import rebased as _rebased
from .mirror import rebound as _rebound
from .socket import create_connection as _create_connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from _typeshed import ReadableBuffer, WriteableBuffer

    T = TypeVar("T")

    def __getattr__(name: str) -> Any: ...


_WantRead = _standard.SSLWantReadError
_WantWrite = _standard.SSLWantWriteError


class _Session:
    """The OpenSSL object of a TLS socket: the `_sslobj` of `SSLSocket`."""

    __slots__ = ("_real", "_socket")

    def __init__(self, real: Any, sock: _GreenSocket) -> None:
        self._real = real
        self._socket = weakref.ref(sock)

    def _do(self, name: str, operation: Callable[..., T], *args: object) -> T:
        sock = self._socket()
        assert sock is not None
        seconds = sock.gettimeout()
        task = _current_task()
        deadline = None if seconds is None else _monotonic() + seconds
        while True:
            try:
                result = operation(*args)
            except _WantRead:
                if seconds == 0:
                    raise
                direction = _READ
            except _WantWrite:
                if seconds == 0:
                    raise
                direction = _WRITE
            else:
                if task is not None and seconds != 0:
                    _yield_to_others(task)
                return result
            try:
                sock._wait(task, direction, deadline)
            except TimeoutError as error:
                if error.args != ("timed out",):
                    raise  # the interruption of the task
                raise TimeoutError(f"The {name} operation timed out") from None

    def read(self, size: int, *buffer: WriteableBuffer) -> bytes | int:
        result: bytes | int = self._do("read", self._real.read, size, *buffer)
        return result

    def write(self, data: ReadableBuffer) -> int:
        sent: int = self._do("write", self._real.write, data)
        return sent

    def do_handshake(self) -> None:
        self._do("handshake", self._real.do_handshake)

    def shutdown(self) -> _GreenSocket:
        sock: _GreenSocket = self._do("read", self._real.shutdown)
        return sock

    @property
    def context(self) -> _standard.SSLContext:
        context: _standard.SSLContext = self._real.context
        return context

    @context.setter
    def context(self, context: _standard.SSLContext) -> None:
        self._real.context = context

    @property
    def session(self) -> _standard.SSLSession | None:
        session: _standard.SSLSession | None = self._real.session
        return session

    @session.setter
    def session(self, session: _standard.SSLSession) -> None:
        self._real.session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


_real_wrap_socket: Callable[..., object] = vars(_ssl._SSLContext)["_wrap_socket"]


def _wrap_socket(
    self: _ssl._SSLContext, sock: object, *args: object, **kwargs: object
) -> object:
    real = _real_wrap_socket(self, sock, *args, **kwargs)
    return _Session(real, sock) if isinstance(sock, _GreenSocket) else real


class _Context(_ssl._SSLContext):
    """The OpenSSL object of a context."""

    _wrap_socket = _wrap_socket


_mine = dict(globals())
for _name, _value in vars(_standard).items():
    if _name.startswith("__") or _name in _mine:
        continue
    if isinstance(_value, _FunctionType):
        _value = _rebound(_value, globals())
    globals()[_name] = _value
del _name, _value

SSLSocket: Any = _rebased(
    _standard.SSLSocket, (_GreenSocket,), globals(), _never_blocking=True
)
SSLContext: Any = _rebased(
    _standard.SSLContext, (_Context,), globals(), sslsocket_class=SSLSocket
)
create_connection = _create_connection
socket = _GreenSocket


def patch_context() -> None:
    """Make the original class SSLContext, and its instances, wrap green sockets.

    Contexts that were created before patching, and modules that have bound the class,
    keep working. Call before `REPLACED` is installed in `ssl`.
    """
    original: Any = _standard.SSLContext
    plain: Any = _standard.SSLSocket
    # A subclass of the original SSLSocket creates original sockets.
    create = plain.__dict__["_create"].__func__
    plain._create = classmethod(_rebound(create, dict(vars(_standard))))
    original._wrap_socket = _wrap_socket
    if original.sslsocket_class is plain:
        original.sslsocket_class = SSLSocket
    globals()["SSLContext"] = original


#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
#: `patch_context` changes the class SSLContext in place.
REPLACED: dict[str, object] = {
    "SSLSocket": SSLSocket,
    "socket": socket,
}
_standard_contexts = {
    name: globals()[name]
    for name in ("_create_unverified_context", "create_default_context")
}
globals().update(
    _create_default_https_context=_standard_contexts["create_default_context"],
    _create_stdlib_context=_standard_contexts["_create_unverified_context"],
)
