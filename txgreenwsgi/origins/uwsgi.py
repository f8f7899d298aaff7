"""The asynchronous functions and the WebSockets of uWSGI's `uwsgi` module.

Source: the uWSGI documentation, "uWSGI asynchronous/non-blocking modes", and
`uwsgi_pymodule.c`. After `wait_fd_read`, `wait_fd_write` (several may be called)
or `async_sleep` the application either yields `b""`, or calls `suspend()`, at any
call depth. Timeouts are in seconds, 0 for none.
`environ["x-wsgiorg.fdevent.timeout"]` is true after a timeout.

WebSockets: "WebSocket support" in the same documentation. `websocket_handshake()`
switches the current request; `websocket_recv()` waits for a message and returns bytes,
also of a text message, `websocket_recv_nb()` returns b"" if there is none. When the
WebSocket is closed, they raise OSError. `connection_fd()` can be given to
`wait_fd_read`.

`import uwsgi` finds these functions after `prepare()`. Both `adapt()` and the command
with `--origin uwsgi` call it; the command does so before it imports the application.
The module has only these functions: `hasattr(uwsgi, "cache_get")` is false.
"""

from __future__ import annotations

import select
import sys
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING

from txgreenwsgi._websocket.api import websocket

from .pauses import READ, WRITE, find_pause, pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from txgreenwsgi._websocket.connection import WebSocket

    from .pauses import Descriptor

__all__ = [
    "adapt",
    "async_sleep",
    "connection_fd",
    "module",
    "prepare",
    "ready_fd",
    "suspend",
    "wait_fd_read",
    "wait_fd_write",
    "websocket_handshake",
    "websocket_recv",
    "websocket_recv_nb",
    "websocket_send",
    "websocket_send_binary",
]

#: The largest message in bytes; uWSGI's default of `--websocket-max-size`.
_MAX_MESSAGE = 1024 * 1024


class _Request:
    """The current request of a task, and its WebSocket."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self.opened: WebSocket | None = None


_current: ContextVar[_Request | None] = ContextVar("uwsgi request", default=None)


def _request(function: str) -> _Request:
    request = _current.get()
    if request is None:
        raise OSError(
            f"uwsgi.{function}() was called outside of a request: wrap the application "
            "by txgreenwsgi.origins.uwsgi.adapt, or use --origin uwsgi"
        )
    return request


def _opened(function: str) -> WebSocket:
    opened = _request(function).opened
    if opened is None:
        raise OSError(
            f"uwsgi.{function}() was called before uwsgi.websocket_handshake()"
        )
    return opened


def websocket_handshake(
    key: str | bytes | None = None,
    origin: str | bytes | None = None,
    proto: str | bytes | None = None,
) -> None:
    """Switch the current request to WebSocket. May park.

    Args:
        key: ignored: the key of the request is used.
        origin: ignored, as in uWSGI: check the origin before.
        proto: the subprotocol; by default the first that the client offers.

    Raises:
        WebSocketRefused: the request is not a valid handshake; it was answered.
    """
    request = _request("websocket_handshake")
    offered = str(request.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", ""))
    chosen = proto.decode() if isinstance(proto, bytes) else proto
    if not chosen:
        chosen = offered.split(",")[0].strip()
    request.opened = websocket(
        request.environ,
        subprotocols=[chosen] if chosen else [],
        max_message=_MAX_MESSAGE,
        origins=None,
    )


def websocket_recv() -> bytes:
    """Return the next message. May park. Raises OSError when it is closed."""
    message = _opened("websocket_recv").receive()
    return message.encode() if isinstance(message, str) else message


def websocket_recv_nb() -> bytes:
    """Return the next message; b"" if none has arrived. Never parks."""
    return websocket_recv() if _opened("websocket_recv_nb").available else b""


def websocket_send(message: str | bytes) -> None:
    """Send a text message. Parks while the client is slow."""
    text = message.decode() if isinstance(message, bytes) else message
    _opened("websocket_send").send(text)


def websocket_send_binary(message: str | bytes) -> None:
    """Send a binary message. Parks while the client is slow."""
    data = message.encode() if isinstance(message, str) else message
    _opened("websocket_send_binary").send(data)


def connection_fd() -> int:
    """Return a descriptor that is readable when a message has arrived."""
    return _opened("connection_fd").fileno()


def wait_fd_read(fd: Descriptor, timeout: float = 0) -> bytes:
    """Pause until `fd` is readable; return an empty block, to be yielded."""
    pause_of("uwsgi.wait_fd_read()").watch(fd, READ, timeout or None)
    return b""


def wait_fd_write(fd: Descriptor, timeout: float = 0) -> bytes:
    """Pause until `fd` is writable; return an empty block, to be yielded."""
    pause_of("uwsgi.wait_fd_write()").watch(fd, WRITE, timeout or None)
    return b""


def async_sleep(timeout: float) -> bytes:
    """Pause for `timeout` seconds; return an empty block, to be yielded."""
    pause_of("uwsgi.async_sleep()").limit(timeout)
    return b""


def suspend() -> None:
    """Wait for the requested events, for at least one reactor turn. May park."""
    pause_of("uwsgi.suspend()").wait()


def ready_fd() -> int:
    """Return the descriptor that ended the last wait; -1 after a timeout.

    Never parks.
    """
    pause = find_pause()
    for fd, events in pause.ready if pause is not None else ():
        if not events & select.POLLNVAL:
            return fd if isinstance(fd, int) else fd.fileno()
    return -1


def _make_module() -> ModuleType:
    uwsgi = ModuleType("uwsgi", __doc__)
    functions: tuple[Callable[..., object], ...] = (
        *(wait_fd_read, wait_fd_write, async_sleep, suspend, ready_fd),
        *(websocket_handshake, websocket_recv, websocket_recv_nb),
        *(websocket_send, websocket_send_binary, connection_fd),
    )
    for function in functions:
        setattr(uwsgi, function.__name__, function)
    return uwsgi


#: The module that `import uwsgi` finds.
module = _make_module()


def prepare() -> None:
    """Make `import uwsgi` find `module`, unless uWSGI itself runs. Never parks."""
    sys.modules.setdefault("uwsgi", module)


def adapt(application: WSGIApplication) -> WSGIApplication:
    """Return the application with the `uwsgi` module and `uwsgi.ready_fd` in environ.

    The value is the descriptor that ended the last wait by a yield; None after a
    timeout, as in uWSGI.
    """
    prepare()

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes]:
        environ["uwsgi.ready_fd"] = None
        _current.set(_Request(environ))
        blocks = application(environ, start_response)
        try:
            for block in blocks:
                yield block
                fd = ready_fd()
                environ["uwsgi.ready_fd"] = None if fd < 0 else fd
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    return adapted
