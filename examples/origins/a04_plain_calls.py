"""The echo of `a02_awsgi_echo.py` and `a03_trampoline.py` as functions that call.

Nothing is yielded: `recv` waits, three calls deep, and so can everything else.
The functions come from environ, so that nothing is imported from the server.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a04_plain_calls:app
    curl -d 'hello' http://localhost:8080/

The file knows WSGI, and the two keys of environ that it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SILENCE_SECONDS = 1.0
SILENCE = b"nothing came for a second\n"


def read_piece(environ: WSGIEnvironment) -> bytes:
    """Give the next piece of the body, b"" at the end. Parks.

    Raises:
        TimeoutError: if none came for a second.
    """
    with environ["txgreenwsgi.timeout"](SILENCE_SECONDS):
        piece: bytes = environ["txgreenwsgi.recv"](environ, 4096)
        return piece


def read_all(environ: WSGIEnvironment) -> bytes:
    """Give the whole body. Parks."""
    pieces = []
    while piece := read_piece(environ):
        pieces.append(piece)
    return b"".join(pieces)


def answer(status: str, body: bytes, start_response: StartResponse) -> Iterable[bytes]:
    """Give a whole response."""
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
