"""What the proxies among these examples have in common: an HTTP/1.0 client's words.

Whoever uses it sends and receives, each in the way that its example is about.
This file knows HTTP/1.0, as little as is needed; it must never touch a socket.
"""

from __future__ import annotations

from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Where to, unless the deployer says otherwise by `--environ UPSTREAM=HOST:PORT`.
DEFAULT_UPSTREAM = "127.0.0.1:8000"


def address(environ: WSGIEnvironment) -> tuple[str, int]:
    """Give the host and the port of the server behind the proxy."""
    host, _, port = environ.get("UPSTREAM", DEFAULT_UPSTREAM).rpartition(":")
    return host, int(port)


def request(environ: WSGIEnvironment) -> bytes:
    """Give the request for the same path, to be sent there."""
    host, port = address(environ)
    path = quote(environ["PATH_INFO"], encoding="latin-1") or "/"
    return f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode()


class _Response:
    """What HTTPResponse takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> Any:
        """Give the bytes as a file."""
        return BytesIO(self._data)


def relay(received: bytes, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the response that was received; 502 if it is none."""
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
    """Answer that there is nothing to be had from there."""
    body = f"{why}\n".encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]
