"""`websocket(environ)`: a WebSocket for a WSGI application.

The rest of this room is imported at the first call: few processes need it, and a server
without the extra starts. This file knows the environ. It must never know transports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from txgreenwsgi._switching.greenlets import require_task
from txgreenwsgi._switching.guards import require_seconds
from txgreenwsgi._switching.thread_calls import crossing

from .defaults import MAX_MESSAGE, PING_SECONDS, SAME_ORIGIN
from .errors import WebSocketRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from _typeshed.wsgi import WSGIEnvironment

    from .connection import WebSocket
    from .handshake import Handshake
    from .stream import Offer

__all__ = ["websocket"]

_log = Logger()


def websocket(
    environ: WSGIEnvironment,
    *,
    subprotocols: Sequence[str] = (),
    max_message: int = MAX_MESSAGE,
    ping: float = PING_SECONDS,
    origins: str | Collection[str] | None = SAME_ORIGIN,
    compress: bool = True,
    headers: Sequence[tuple[str, str]] = (),
    interrupt: bool = False,
) -> WebSocket:
    """Switch a request to WebSocket (RFC 6455, RFC 8441). May park.

    Call in a task or thread of the request, before `start_response`. Afterwards,
    whatever the application returns is discarded, and the end of its call closes the
    WebSocket.

    Args:
        environ: the environ of the request.
        subprotocols: the subprotocols of the application, the preferred one first.
            The first that the client offers is chosen.
        max_message: the largest message of the client in bytes, decompressed; a
            longer one closes the WebSocket with code 1009.
        ping: interval of pings in seconds; a client that sends nothing from one ping
            to the next is lost. 0 for no pings.
        origins: the values of Origin that are accepted, such as
            "https://shop.example"; by default the request's own host; None for all.
            Requests without the field are accepted: browsers always send it.
        compress: whether to accept permessage-deflate (RFC 7692).
        headers: further fields of the response, such as Set-Cookie.
        interrupt: whether the end of the connection raises `WebSocketClosed` at any
            wait of the calling task, for applications that only send.

    Raises:
        ClientDisconnected: the client has disconnected.
        ImportError: the extra `txgreenwsgi[websocket]` is not installed.
        RuntimeError: the response has begun, or the server has no WebSockets.
        TypeError, ValueError: an argument is invalid.
        WebSocketRefused: the request is not a valid handshake, or its origin is not
            accepted. The server answers it.
    """
    _require_wsproto()
    from .handshake import answer_handshake

    _check_arguments(subprotocols, max_message, ping, origins)
    offer: Offer | None = environ.get("txgreenwsgi.upgrade")
    if offer is None:
        raise _not_offered(environ)
    try:
        if offer.stopping:
            raise WebSocketRefused(
                "503 Service Unavailable",
                "the server is stopping",
                [("Retry-After", "1")],
            )
        handshake = answer_handshake(
            environ, subprotocols, origins, compress, offer.http2
        )
    except WebSocketRefused as error:
        _log.info(
            "WebSocket refused: {path}: {error}",
            path=environ.get("PATH_INFO", ""),
            error=error,
        )
        offer.refuse(error)
        raise
    return _open(offer, handshake, headers, max_message, float(ping), interrupt)


@crossing
def _open(
    offer: Offer,
    handshake: Handshake,
    headers: Sequence[tuple[str, str]],
    max_message: int,
    ping: float,
    interrupt: bool,
) -> WebSocket:
    """Switch protocols, in the task of the request. May park."""
    from .connection import WebSocket

    task = require_task("websocket()")
    stream = offer.accept([*handshake.fields, *headers])
    opened = WebSocket(
        stream, handshake, task, max_message, ping, interrupt, offer.counts
    )
    stream.attach(opened)
    return opened


def _require_wsproto() -> None:
    """Import wsproto, which is an extra."""
    try:
        import wsproto  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "wsproto":
            raise
        raise ImportError(
            "websocket() needs the package wsproto, which is not installed: pip "
            'install "txgreenwsgi[websocket]"'
        ) from error


def _check_arguments(
    subprotocols: Sequence[str],
    max_message: int,
    ping: float,
    origins: str | Collection[str] | None,
) -> None:
    if isinstance(subprotocols, str):
        raise TypeError(
            f"websocket(subprotocols={subprotocols!r}): give a list of names, such as "
            f"[{subprotocols!r}]"
        )
    if isinstance(max_message, bool) or not isinstance(max_message, int):
        raise TypeError(
            f"websocket(max_message={max_message!r}): give a number of bytes"
        )
    if max_message < 1:
        raise ValueError(
            f"websocket(max_message={max_message!r}): give at least 1 byte"
        )
    require_seconds("websocket(ping=...)", ping)
    if isinstance(origins, str) and origins != SAME_ORIGIN:
        raise ValueError(
            f"websocket(origins={origins!r}): give a list of origins, such as "
            f"[{origins!r}], {SAME_ORIGIN!r} or None"
        )


def _not_offered(environ: WSGIEnvironment) -> Exception:
    """Return the error for a request that cannot become a WebSocket."""
    if "txgreenwsgi.request_id" not in environ:
        return RuntimeError(
            "websocket() was given an environ that txgreenwsgi has not made: serve "
            "the application with txgreenwsgi, and pass on its environ"
        )
    upgrade = str(environ.get("HTTP_UPGRADE", "")).lower()
    if "websocket" in upgrade and environ.get("REQUEST_METHOD") == "GET":
        if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
            reason = "the request is HTTP/1.0: a proxy must pass it on as HTTP/1.1"
        elif "upgrade" not in str(environ.get("HTTP_CONNECTION", "")).lower():
            reason = "the request has no Connection: Upgrade; a proxy may drop it"
        elif environ.get("CONTENT_LENGTH") not in (None, "", "0"):
            reason = "the request has a body"
        else:
            return RuntimeError(
                "this transport cannot switch to WebSocket: GreenWSGIResource serves "
                "HTTP only; use GreenSite, service() or the command"
            )
    else:
        reason = "this address is a WebSocket; the request is not"
    return WebSocketRefused("400 Bad Request", reason)
