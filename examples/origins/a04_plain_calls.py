"""The echo of `a02_awsgi_echo.py` and `a03_trampoline.py` in ordinary functions.

Nothing is yielded: `recv` waits three calls deep, as any other function may. The
functions come from environ, so there is no import from the server.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a04_plain_calls:app
    curl -d 'hello' http://localhost:8080/

It knows WSGI and two keys of environ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SILENCE_SECONDS = 1.0
SILENCE = b"nothing came for a second\n"


def read_piece(environ: WSGIEnvironment) -> bytes:
    """Return the next piece of the body, b"" at the end. Parks.

    Raises:
        TimeoutError: none arrived for a second.
    """
    with environ["txgreenwsgi.timeout"](SILENCE_SECONDS):
        piece: bytes = environ["txgreenwsgi.recv"](environ, 4096)
        return piece


def read_all(environ: WSGIEnvironment) -> bytes:
    """Return the complete body. Parks."""
    pieces = []
    while piece := read_piece(environ):
        pieces.append(piece)
    return b"".join(pieces)


def answer(status: str, body: bytes, start_response: StartResponse) -> Iterable[bytes]:
    """Return a complete response."""
    length = str(len(body))
    headers = [("Content-Type", "text/plain"), ("Content-Length", length)]
    start_response(status, headers)
    return [body]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send the body back, or 408. Parks."""
    try:
        body = read_all(environ)
    except TimeoutError:
        return answer("408 Request Timeout", SILENCE, start_response)
    return answer("200 OK", body, start_response)
