"""An AWSGI application: an echo of the request body, with a timeout.

AWSGI, by Christopher Stawarz in May 2008, was the first proposal for waiting in a
single-threaded server: the application yields the descriptor that it waits for. So it
is a generator, and all waits must be in this one function. `a03_trampoline.py` shows
the workaround of that time, `a04_plain_calls.py` the same application on greenlets.
The responses of all three are identical.

Run it from the root of a checkout; the second command needs no adapter in the file,
as in 2008::

    twistd -n greenwsgi --app examples.origins.a02_awsgi_echo:app
    twistd -n greenwsgi --app examples.origins.a02_awsgi_echo:echo --origin awsgi
    curl -d 'hello' http://localhost:8080/

It knows AWSGI. Only the last line knows the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi.origins import awsgi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import WSGIEnvironment

SILENCE_SECONDS = 1.0
SILENCE = b"nothing came for a second\n"


def answer(status: str, body: bytes, start_response: Any) -> Iterator[bytes]:
    """Send a complete response."""
    length = str(len(body))
    headers = [("Content-Type", "text/plain"), ("Content-Length", length)]
    start_response(status, headers)
    yield body


def echo(environ: WSGIEnvironment, start_response: Any) -> Iterator[Any]:
    """Read the body, then send it back; 408 after a second without data."""
    body = environ["awsgi.input"]
    pieces = []
    while True:
        yield environ["awsgi.readable"](body, SILENCE_SECONDS)
        if environ["awsgi.timeout"]:
            yield from answer("408 Request Timeout", SILENCE, start_response)
            return
        piece = body.recv(4096)
        if not piece:
            break
        pieces.append(piece)
    yield from answer("200 OK", b"".join(pieces), start_response)


app = awsgi.adapt(echo)
