"""A proxy that yields what it waits for: `x-wsgiorg.fdevent`.

The third draft of what began as AWSGI (`a02_awsgi_echo.py`) is three keys in a
plain WSGI environ, and a yielded empty string. Its example was a proxy; this is
one. It calls start_response late, when it knows what there is to answer, after
any number of empty blocks; and it gives up after a second without a sign.

Run it from the root of a checkout, in front of another server::

    python -m http.server 8000 &
    twistd -n greenwsgi --app examples.origins.a05_fdevent_proxy:app \
        --environ UPSTREAM=127.0.0.1:8000
    curl http://localhost:8080/

The same file runs elsewhere: see `a06_fdevent_on_wsgiref.py`. It knows fdevent;
it must never know which server it runs on.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from . import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATIENCE_SECONDS = 1.0


class TooSlow(Exception):
    """The other server gave no sign in time."""


def fetch(environ: WSGIEnvironment, received: list[bytes]) -> Iterator[bytes]:
    """Ask the other server, yielding while it is to be waited for.

    Args:
        environ: the request's.
        received: what comes is put here.

    Raises:
        TooSlow: it gave no sign for a second.
        OSError: it cannot be reached.
    """
    readable = environ["x-wsgiorg.fdevent.readable"]
    writable = environ["x-wsgiorg.fdevent.writable"]
    timeout = environ["x-wsgiorg.fdevent.timeout"]
    with socket.socket() as sock:
        sock.setblocking(False)
        status = sock.connect_ex(upstream.address(environ))
        if status == errno.EINPROGRESS:
            yield writable(sock, PATIENCE_SECONDS)
            if timeout:
                raise TooSlow
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
        to_send = upstream.request(environ)
        while to_send:
            yield writable(sock, PATIENCE_SECONDS)
            if timeout:
                raise TooSlow
            to_send = to_send[sock.send(to_send) :]
        while True:
            yield readable(sock, PATIENCE_SECONDS)
            if timeout:
                raise TooSlow
            data = sock.recv(65536)
            if not data:
                return
            received.append(data)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Answer with what the other server answers; 504 or 502 if it does not."""
    received: list[bytes] = []
    try:
        yield from fetch(environ, received)
    except TooSlow:
        why = f"no sign from upstream for {PATIENCE_SECONDS:g} second"
        yield from upstream.refuse("504 Gateway Timeout", why, start_response)
    except OSError as error:
        yield from upstream.refuse("502 Bad Gateway", str(error), start_response)
    else:
        yield from upstream.relay(b"".join(received), start_response)
