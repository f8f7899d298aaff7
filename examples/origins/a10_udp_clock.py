"""A clock: it waits for a datagram, for a second, for ever.

The smallest program that shows what fdevent is about: `readable(sock, 1.0)` on a
socket to which hardly ever anything comes. It tells the time every second, and at
once when a datagram comes. When the client goes, the generator is closed, and the
socket with it; a server that forgets to do so runs out of descriptors.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a10_udp_clock:app
    curl -N http://localhost:8080/

The file knows fdevent; it must never know which server it runs on.
"""

from __future__ import annotations

import socket
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Tell the time until the client goes."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        yield f"datagrams to port {sock.getsockname()[1]}\n".encode()
        while True:
            yield environ["x-wsgiorg.fdevent.readable"](sock, 1.0)
            why = b"a second has passed"
            if not environ["x-wsgiorg.fdevent.timeout"]:
                why = sock.recv(1000)
            yield b"%b: %b\n" % (f"{datetime.now():%H:%M:%S}".encode(), why)
    finally:
        sock.close()
        print("the clock has stopped", file=environ["wsgi.errors"])
