"""An AWSGI application: it repeats the request body, and gives up after a silence.

AWSGI was Christopher Stawarz's first answer, in May 2008, to the question how an
application may wait in a server that has one thread: it yields what it waits for.
So it is a generator, and whatever waits has to stand in this one function.
`a03_trampoline.py` is what one did about that, `a04_plain_calls.py` is what
greenlets make of it. All three answer alike, byte for byte.

Run it from the root of a checkout; the second way leaves the file as it was in
2008, without an adapter in it::

    twistd -n greenwsgi --app examples.origins.a02_awsgi_echo:app
    twistd -n greenwsgi --app examples.origins.a02_awsgi_echo:echo --origin awsgi
    curl -d 'hello' http://localhost:8080/

The file knows AWSGI; only its last line knows the adapter.
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
    """Send a whole response."""
    length = str(len(body))
    headers = [("Content-Type", "text/plain"), ("Content-Length", length)]
    start_response(status, headers)
    yield body


def echo(environ: WSGIEnvironment, start_response: Any) -> Iterator[Any]:
    """Read all there is, then send it back; 408 when nothing comes for a second."""
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
