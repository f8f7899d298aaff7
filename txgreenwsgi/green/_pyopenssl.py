"""pyOpenSSL on green sockets: its connections park where they would block.

OpenSSL uses the descriptor in C, which is non-blocking, so its functions raise
WantReadError or WantWriteError instead of blocking. For a socket that declares blocking
mode, the methods wait and try again; for one with a time limit they raise, as on the
original socket. It knows pyOpenSSL's `Connection`. It must never implement TLS.
"""

from __future__ import annotations

import importlib
from functools import wraps
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking.descriptors import READ, WRITE
from txgreenwsgi._parking.waits import yield_to_others
from txgreenwsgi._switching.running import current_task

from ._sockets import GreenSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer

__all__ = ["make_pyopenssl_green"]

# The methods that call OpenSSL and may have to wait, except `sendall`.
_METHODS = ("do_handshake", "recv", "recv_into", "send", "shutdown")
_ALIASES = {"read": "recv", "write": "send"}
#: Maximum length of one record of TLS (RFC 8446 section 5.1).
_RECORD_BYTES = 1 << 14


def _must_wait(connection: Any) -> bool:
    """Return whether the methods of `connection` wait without a limit."""
    sock = connection._socket
    return isinstance(sock, GreenSocket) and sock.gettimeout() is None


def make_pyopenssl_green(module: object = None) -> None:
    """Make the methods of `OpenSSL.SSL.Connection` park on green sockets."""
    ssl = importlib.import_module("OpenSSL.SSL")
    cls: Any = ssl.Connection
    if hasattr(cls.send, "__wrapped__"):
        return

    def waiting(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self._socket is None:  # on memory, as in Twisted
                return method(self, *args, **kwargs)
            task = current_task()
            if task is not None and task.pending_interruption:
                task.raise_pending()
            while True:
                try:
                    result = method(self, *args, **kwargs)
                except (ssl.WantReadError, ssl.WantWriteError) as error:
                    if not _must_wait(self):
                        raise
                    wants_read = isinstance(error, ssl.WantReadError)
                else:
                    if task is not None and _must_wait(self):
                        yield_to_others(task)
                    return result
                self._socket._wait(task, READ if wants_read else WRITE, None)

        return call

    for name in _METHODS:
        setattr(cls, name, waiting(getattr(cls, name)))
    for alias, name in _ALIASES.items():
        setattr(cls, alias, getattr(cls, name))
    original = cls.sendall

    @wraps(original)
    def sendall(self: Any, buf: ReadableBuffer | str, flags: int = 0) -> int:
        # The original cannot go on after it has raised.
        if not _must_wait(self) or isinstance(buf, str):
            count: int = original(self, buf, flags)
            return count
        sent = 0
        with memoryview(buf) as view, view.cast("B") as flat:
            while sent < len(flat):
                with flat[sent : sent + _RECORD_BYTES] as piece:
                    sent += self.send(piece)
        return sent

    cls.sendall = sendall
