"""A clock that waits for a datagram with a timeout of one second, without end.

The smallest program for fdevent: `readable(sock, 1.0)` on a socket that rarely gets
data. It sends the time every second, and whenever a datagram arrives. When the client
disconnects, the server closes the generator, which closes the socket. A server that
does not would run out of descriptors.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a10_udp_clock:app
    curl -N http://localhost:8080/

It knows fdevent. It must never know its server.
"""

from __future__ import annotations

import socket
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Send the time until the client disconnects."""
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
