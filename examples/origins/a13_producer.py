"""A hundred megabytes for whoever asks, at the pace of whoever asks.

"You can also implement the write callable so that control is returned to the main
greenlet when the socket is ready to send more data": a producer that writes as
fast as it can runs no further ahead of a slow client than the socket's buffer, and
others are served meanwhile. `/write` writes, any other path yields.

Run it from the root of a checkout, and look at the server's memory meanwhile::

    twistd -n greenwsgi --app examples.origins.a13_producer:app
    curl --limit-rate 1M -o /dev/null http://localhost:8080/write

The file knows WSGI alone; it must never count what the client has.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BLOCK_BYTES = 65536
BLOCKS = 1600


def blocks() -> Iterator[bytes]:
    """Give 100 MiB in blocks, no two of which are equal."""
    for number in range(BLOCKS):
        yield hashlib.sha256(str(number).encode()).digest() * (BLOCK_BYTES // 32)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send it all. Parks while the client is behind."""
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(BLOCKS * BLOCK_BYTES)),
    ]
    if environ["PATH_INFO"] == "/small":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"small\n"]
    write = start_response("200 OK", headers)
    if environ["PATH_INFO"] != "/write":
        return blocks()
    for block in blocks():
        write(block)
    return []
