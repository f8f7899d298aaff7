"""The HTTP/1.0 messages of the example proxies.

The proxies send and receive, each in its own way. This file knows the necessary part
of HTTP/1.0. It must never use a socket.
"""

from __future__ import annotations

from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: The default server; `--environ UPSTREAM=HOST:PORT` sets another one.
DEFAULT_UPSTREAM = "127.0.0.1:8000"


def address(environ: WSGIEnvironment) -> tuple[str, int]:
    """Return the host and the port of the server behind the proxy."""
    host, _, port = environ.get("UPSTREAM", DEFAULT_UPSTREAM).rpartition(":")
    return host, int(port)


def request(environ: WSGIEnvironment) -> bytes:
    """Return the request for the same path to that server."""
    host, port = address(environ)
    path = quote(environ["PATH_INFO"], encoding="latin-1") or "/"
    return f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode()


class _Response:
    """A stand-in for the socket of an HTTPResponse."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> Any:
        """Return the bytes as a file."""
        return BytesIO(self._data)


def relay(received: bytes, start_response: StartResponse) -> Iterable[bytes]:
    """Forward the received response; 502 if it is invalid."""
    try:
        response = HTTPResponse(_Response(received))  # type: ignore[arg-type]
        response.begin()
        body = response.read()
    except (HTTPException, ValueError) as error:
        return refuse("502 Bad Gateway", repr(error), start_response)
    content_type = response.getheader("Content-Type") or "application/octet-stream"
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    start_response(f"{response.status} {response.reason}", headers)
    return [body]


def refuse(status: str, why: str, start_response: StartResponse) -> Iterable[bytes]:
    """Send an error response."""
    body = f"{why}\n".encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]
