"""The echo applications of `benchmarks.websocket`, one for each interface.

`python -m benchmarks.websocket_app NAME PORT` runs the servers that have no command:
`gevent` (gevent-websocket) and `websockets`. Each import is made where it is needed,
because most environments lack some of the packages.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["asgi", "flask_sock", "own"]


def own(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Echo with `txgreenwsgi.websocket`."""
    from txgreenwsgi import websocket

    with websocket(environ, ping=0) as opened:
        for message in opened:
            opened.send(message)
    return []


def flask_sock() -> Any:
    """Return an application of Flask-Sock."""
    from flask import Flask
    from flask_sock import Sock

    app = Flask(__name__)

    @Sock(app).route("/")
    def echo(ws: Any) -> None:
        while True:
            ws.send(ws.receive())

    return app


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Echo as an ASGI application."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


def _gevent_server(port: int) -> None:
    from gevent.pywsgi import WSGIServer
    from geventwebsocket.handler import WebSocketHandler

    def echo(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        opened = environ["wsgi.websocket"]
        while (message := opened.receive()) is not None:
            opened.send(message)
        return []

    WSGIServer(
        ("127.0.0.1", port), echo, log=None, handler_class=WebSocketHandler
    ).serve_forever()


def _websockets_server(port: int) -> None:
    import asyncio

    from websockets.asyncio.server import serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        async with serve(echo, "127.0.0.1", port, ping_interval=None) as server:
            await server.serve_forever()

    asyncio.run(main())


if __name__ == "__main__":
    {"gevent": _gevent_server, "websockets": _websockets_server}[sys.argv[1]](
        int(sys.argv[2])
    )
