"""Demonstration: a WebSocket that sends each message back.

It knows `websocket`. It must never read a request body.
"""

from __future__ import annotations

from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING

from txgreenwsgi import websocket

from .answers import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_MESSAGES = 1000
MAX_MESSAGE_BYTES = 65536


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send up to `MAX_MESSAGES` messages back, then close the WebSocket.

    Raises:
        Refused: 400 for a request that is no WebSocket handshake, 501 without wsproto.
        WebSocketRefused: the handshake is invalid; the server answers it.
    """
    if "txgreenwsgi.upgrade" not in environ:
        raise Refused(HTTPStatus.BAD_REQUEST, "connect to this path by WebSocket")
    try:
        with websocket(environ, max_message=MAX_MESSAGE_BYTES) as opened:
            for message in islice(opened, MAX_MESSAGES):
                opened.send(message)
    except ImportError as error:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, str(error)) from error
    return []
