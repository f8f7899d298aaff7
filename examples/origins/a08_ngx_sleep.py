"""Sleeping with `ngx.poll` and `ngx.sleep`, in an application for nginx.

A poll without connections is a sleep, as with `select`. `ngx.sleep` is older than
`ngx.poll`. A call requests either of them, and a yield waits.

Run it from the root of a checkout; it sends a line every half second::

    twistd -n greenwsgi --app examples.origins.a08_ngx_sleep:ticks --origin ngx
    curl -N 'http://localhost:8080/?4'

It knows `ngx`. Only the last line knows the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi.origins import ngx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MILLISECONDS = 250
MAX_TICKS = 100


def ticks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Send the number of lines given by the query, each after two pauses."""
    count = min(int(environ["QUERY_STRING"] or 3), MAX_TICKS)
    start_response("200 OK", [("Content-Type", "text/plain")])
    for number in range(1, count + 1):
        state = environ["ngx.poll"](MILLISECONDS)
        yield b""
        conn, flags = state()
        environ["ngx.sleep"](MILLISECONDS)
        yield b""
        yield f"tick {number}, poll told {conn}, {flags}\n".encode()


app = ngx.adapt(ticks)
