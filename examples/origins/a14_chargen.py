"""The character generator of RFC 864: lines until the client disconnects.

It writes in an endless loop. After a disconnect, the write raises an OSError, as a
write to a socket does, and `finally` runs, so that code can release its resources.

Run it from the root of a checkout, and interrupt curl::

    twistd -n greenwsgi --app examples.origins.a14_chargen:app
    curl -N http://localhost:8080/

It knows only WSGI. It must never check the connection of the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LINE_LENGTH = 72
PRINTABLE = bytes(range(0x20, 0x7F))


def lines() -> Iterator[bytes]:
    """Yield the lines of RFC 864, each shifted by one character."""
    doubled = PRINTABLE * 2
    while True:
        for start in range(len(PRINTABLE)):
            yield doubled[start : start + LINE_LENGTH] + b"\r\n"


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write lines until a write fails. Parks while the client is behind."""
    log = environ["wsgi.errors"]
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    count = 0
    try:
        for line in lines():
            write(line)
            count += 1
    except OSError as error:
        print(f"chargen: {type(error).__name__}: {error}", file=log)
        raise
    finally:
        print(f"chargen: over after {count} lines", file=log)
    return []
