"""The WebSockets of gevent-websocket: `environ["wsgi.websocket"]`.

Source: gevent-websocket 0.10.1, `handler.py` and `websocket.py`. Each WebSocket
handshake is accepted before the application is called, whose response is discarded.
`receive()` returns None when the WebSocket is closed; after that, `receive()` and
`send()` raise `WebSocketError`.

Applications import `WebSocketError` from `geventwebsocket`. `prepare()` provides a
module of that name with the exceptions, unless the package is installed. Both `adapt()`
and the command with `--origin gevent_websocket` call it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from txgreenwsgi._websocket.api import websocket
from txgreenwsgi._websocket.errors import WebSocketClosed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from txgreenwsgi._websocket.connection import WebSocket

__all__ = ["MSG_SOCKET_DEAD", "GeventWebSocket", "WebSocketError", "adapt", "prepare"]

MSG_SOCKET_DEAD = "Socket is dead"

#: The largest message in bytes; gevent-websocket has no limit.
_MAX_MESSAGE = 64 * 1024 * 1024

_PACKAGE = "geventwebsocket"
_EXCEPTIONS = f"{_PACKAGE}.exceptions"


class WebSocketError(RuntimeError):
    """The WebSocket is closed."""


def prepare() -> None:
    """Make `import geventwebsocket` find the exceptions. Never parks.

    A no-op if the package is installed.
    """
    if _PACKAGE in sys.modules or find_spec(_PACKAGE) is not None:
        return
    package, exceptions = ModuleType(_PACKAGE, __doc__), ModuleType(_EXCEPTIONS)
    package.__path__ = []
    for module in (package, exceptions):
        vars(module).update(
            WebSocketError=WebSocketError, MSG_SOCKET_DEAD=MSG_SOCKET_DEAD
        )
    vars(package)["exceptions"] = exceptions
    sys.modules[_PACKAGE] = package
    sys.modules[_EXCEPTIONS] = exceptions


def _error_class() -> type[Exception]:
    """Return the class that the application catches."""
    module: Any = import_module(_EXCEPTIONS)
    error: type[Exception] = module.WebSocketError
    return error


class GeventWebSocket:
    """The object at `wsgi.websocket`, with the interface of gevent-websocket.

    Args:
        opened: the WebSocket.
        environ: the environ of the request.

    Attributes:
        environ: as given.
    """

    def __init__(self, opened: WebSocket, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self._opened = opened
        self._error = _error_class()
        self._ended = False

    @property
    def closed(self) -> bool:
        """Whether the WebSocket is closed."""
        return self._ended or self._opened.closed

    @property
    def path(self) -> str:
        """The path of the request."""
        return str(self.environ.get("PATH_INFO", ""))

    @property
    def origin(self) -> str | None:
        """The value of the Origin field."""
        return self.environ.get("HTTP_ORIGIN")

    @property
    def protocol(self) -> str | None:
        """The subprotocols that the client offers."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def version(self) -> str | None:
        """The version of the WebSocket protocol."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    def receive(self) -> str | bytes | None:
        """Return the next message; None when the WebSocket is closed. May park."""
        if self._ended:
            raise self._error("Socket is closed: receive() was called after its end")
        try:
            return self._opened.receive()
        except WebSocketClosed:
            self._ended = True
            return None

    read_message = receive

    def send(self, message: str | bytes | None, binary: bool | None = None) -> None:
        """Send a message. Parks while the client is slow.

        Args:
            message: the message; None is sent as an empty one.
            binary: whether it is binary; by default, bytes are.
        """
        if message is None:
            message = ""
        if binary is None:
            binary = not isinstance(message, str)
        if binary and isinstance(message, str):
            message = message.encode()
        elif not binary and not isinstance(message, str):
            message = message.decode()
        try:
            self._opened.send(message)
        except WebSocketClosed as error:
            self._ended = True
            raise self._error(MSG_SOCKET_DEAD) from error

    def close(self, code: int = 1000, message: str | bytes = b"") -> None:
        """Close the WebSocket. May park."""
        if isinstance(message, bytes):
            message = message.decode("utf-8", "replace")
        self._ended = True
        self._opened.close(code, message)


def adapt(application: WSGIApplication) -> WSGIApplication:
    """Return the application with `wsgi.websocket` in the environ of handshakes.

    The value of `wsgi.websocket_version` is the version of the protocol.
    """
    prepare()

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        if "txgreenwsgi.upgrade" not in environ:
            return application(environ, start_response)
        # Such applications check the origin themselves.
        with websocket(environ, origins=None, max_message=_MAX_MESSAGE) as opened:
            adapter = GeventWebSocket(opened, environ)
            environ["wsgi.websocket"] = adapter
            environ["wsgi.websocket_version"] = adapter.version
            blocks = application(environ, start_response)
            try:
                for _ in blocks:
                    pass
            finally:
                close = getattr(blocks, "close", None)
                if close is not None:
                    close()
        return []

    return adapted
