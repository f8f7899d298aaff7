"""Serve WSGI applications on Twisted's reactor, with one greenlet per request.

To read the code, follow a request: `_server/h1_channel.py`, `_http/parser.py`,
`_serving/exchange.py`, `_wsgi/gateway.py`, `_server/output.py`. The waits are
implemented in `_switching/greenlets.py`. `ARCHITECTURE.md` has an overview.
"""

from typing import TYPE_CHECKING

from ._launch.service import service
from ._server.errors import StartError
from ._server.site import GreenSite
from ._switching.errors import (
    Cancelled,
    ClientDisconnected,
    NotInGreenlet,
    RequestTimeout,
    Stopping,
    TimedOut,
)
from ._switching.greenlets import Suspension, Task, current_task
from ._switching.readiness import poll, select, wait_readable, wait_writable
from ._switching.timeouts import shield, timeout
from ._switching.waiting import in_greenlet, react, sleep, spawn, suspend, wait
from ._threads.runner import in_thread, to_thread
from ._websocket.api import websocket
from ._websocket.errors import WebSocketClosed, WebSocketRefused
from ._wsgi.input import recv
from .green.offload import offload, offloaded
from .proxy import GreenProxy

if TYPE_CHECKING:
    from ._websocket.connection import WebSocket as WebSocket
    from .web import GreenWSGIResource

#: The version of this package, as a string. The build reads it from here.
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Importing twisted.web takes 0.2 s, and the command does not need it.
    if name == "GreenWSGIResource":
        from .web import GreenWSGIResource

        return GreenWSGIResource
    if name == "WebSocket":
        # It needs wsproto, which is an extra.
        from ._websocket.connection import WebSocket

        return WebSocket
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Cancelled",
    "ClientDisconnected",
    "GreenProxy",
    "GreenSite",
    "GreenWSGIResource",
    "NotInGreenlet",
    "RequestTimeout",
    "StartError",
    "Stopping",
    "Suspension",
    "Task",
    "TimedOut",
    "WebSocketClosed",
    "WebSocketRefused",
    "current_task",
    "in_greenlet",
    "in_thread",
    "offload",
    "offloaded",
    "poll",
    "react",
    "recv",
    "select",
    "service",
    "shield",
    "sleep",
    "spawn",
    "suspend",
    "timeout",
    "to_thread",
    "wait",
    "wait_readable",
    "wait_writable",
    "websocket",
]
