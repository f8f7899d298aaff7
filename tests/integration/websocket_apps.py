"""Applications with WebSockets: unmodified frameworks, and the API of this package.

`flask_sock` needs Flask-Sock, `socket_io` needs Flask-SocketIO; both speak through
`gunicorn.socket`, which `raw` uses itself. `echo` uses `websocket()`. Each has the
number of requests in flight at /requests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from flask_sock import Sock
from flask_socketio import SocketIO, emit

from txgreenwsgi import websocket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["echo", "flask_sock", "pinging", "raw", "socket_io"]

#: The largest message, which tests send.
MAX_MESSAGE = 8 * 1024 * 1024


def _requests() -> str:
    return str(len(request.environ["txgreenwsgi.requests"]()))


flask_sock = Flask(__name__)
flask_sock.add_url_rule("/requests", view_func=_requests)
_sock = Sock(flask_sock)


@_sock.route("/ws")
def _echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


@_sock.route("/clock")
def _clock(ws: Any) -> None:
    for number in range(3):
        time.sleep(0.1)
        ws.send(str(number))


pinging = Flask(__name__)
pinging.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 2}
_pinging_sock = Sock(pinging)


@_pinging_sock.route("/ws")
def _echo_with_pings(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


_chat = Flask(__name__)
_chat.add_url_rule("/requests", view_func=_requests)
_socket_io = SocketIO(_chat, async_mode="threading", cors_allowed_origins="*")
socket_io = _chat


@_socket_io.on("say")
def _say(text: str) -> str:
    emit("said", text, broadcast=True)
    return "told"


@_socket_io.on("count")
def _count() -> None:
    identity = request.sid  # type: ignore[attr-defined]

    def count() -> None:
        for number in range(3):
            _socket_io.sleep(0.1)
            _socket_io.emit("counted", number, to=identity)

    _socket_io.start_background_task(count)


def raw(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Take the socket over; answer all bytes of the client behind the last one."""
    if environ["PATH_INFO"] == "/requests":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(len(environ["txgreenwsgi.requests"]())).encode()]
    with environ["gunicorn.socket"] as connection:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
        time.sleep(0.1)
        connection.sendall(received)
    return []


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send each message back; at /push, send three messages."""
    if environ["PATH_INFO"] == "/requests":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(len(environ["txgreenwsgi.requests"]())).encode()]
    with websocket(
        environ, origins=None, max_message=MAX_MESSAGE, subprotocols=["echo"], ping=0.5
    ) as opened:
        if environ["PATH_INFO"] == "/push":
            for number in range(3):
                time.sleep(0.1)
                opened.send(str(number))
        for message in opened:
            opened.send(message)
    return []
