"""Backpressure: a response of a hundred megabytes, at the pace of the client.

"You can also implement the write callable so that control is returned to the main
greenlet when the socket is ready to send more data": a producer that writes as fast as
it can is ahead of a slow client by the socket buffer at most, and other requests run
meanwhile. `/write` writes, any other path yields.

Run it from the root of a checkout, and watch the memory of the server::

    twistd -n greenwsgi --app examples.origins.a13_producer:app
    curl --limit-rate 1M -o /dev/null http://localhost:8080/write

It knows only WSGI. It must never count the bytes that the client has received.
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
    """Yield 100 MiB in blocks, all different."""
    for number in range(BLOCKS):
        yield hashlib.sha256(str(number).encode()).digest() * (BLOCK_BYTES // 32)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send all blocks. Parks while the client is behind."""
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
