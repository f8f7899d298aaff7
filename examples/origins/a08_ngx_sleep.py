"""Passing time with `ngx.poll` and `ngx.sleep`, in an application made for nginx.

A poll of no connection is a sleep, as it is with `select`; and before there was a
poll, there was `ngx.sleep`. Both are asked for by a call, and done by a yield.

Run it from the root of a checkout, and see a line every half second::

    twistd -n greenwsgi --app examples.origins.a08_ngx_sleep:ticks --origin ngx
    curl -N 'http://localhost:8080/?4'

The file knows `ngx`; only its last line knows the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi.origins import ngx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MILLISECONDS = 250
MOST_TICKS = 100


def ticks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Send as many lines as the query says, two pauses before each."""
    count = min(int(environ["QUERY_STRING"] or 3), MOST_TICKS)
    start_response("200 OK", [("Content-Type", "text/plain")])
    for number in range(1, count + 1):
        state = environ["ngx.poll"](MILLISECONDS)
        yield b""
        conn, flags = state()
        environ["ngx.sleep"](MILLISECONDS)
        yield b""
        yield f"tick {number}, poll told {conn}, {flags}\n".encode()


app = ngx.adapt(ticks)
