"""A proxy that yields the descriptors it waits for: `x-wsgiorg.fdevent`.

The third draft of AWSGI (`a02_awsgi_echo.py`) consists of three keys in a plain WSGI
environ, and of a yielded empty string. Its example was a proxy, like this one. It
calls start_response late, when the response is known, after any number of empty
blocks. It times out after a second without progress.

Run it from the root of a checkout, in front of another server::

    python -m http.server 8000 &
    twistd -n greenwsgi --app examples.origins.a05_fdevent_proxy:app \
        --environ UPSTREAM=127.0.0.1:8000
    curl http://localhost:8080/

The same file runs on other servers: see `a06_fdevent_on_wsgiref.py`. It knows fdevent.
It must never know its server.
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

TIMEOUT_SECONDS = 1.0


class TooSlow(Exception):
    """The other server made no progress in time."""


def fetch(environ: WSGIEnvironment, received: list[bytes]) -> Iterator[bytes]:
    """Send the request to the other server, yielding at each wait.

    Args:
        environ: the environ of the request.
        received: the data of the response is appended to it.

    Raises:
        TooSlow: the other server made no progress for a second.
        OSError: it is unreachable.
    """
    readable = environ["x-wsgiorg.fdevent.readable"]
    writable = environ["x-wsgiorg.fdevent.writable"]
    timeout = environ["x-wsgiorg.fdevent.timeout"]
    with socket.socket() as sock:
        sock.setblocking(False)
        status = sock.connect_ex(upstream.address(environ))
        if status == errno.EINPROGRESS:
            yield writable(sock, TIMEOUT_SECONDS)
            if timeout:
                raise TooSlow
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
        to_send = upstream.request(environ)
        while to_send:
            yield writable(sock, TIMEOUT_SECONDS)
            if timeout:
                raise TooSlow
            to_send = to_send[sock.send(to_send) :]
        while True:
            yield readable(sock, TIMEOUT_SECONDS)
            if timeout:
                raise TooSlow
            data = sock.recv(65536)
            if not data:
                return
            received.append(data)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Return the response of the other server; 504 or 502 without one."""
    received: list[bytes] = []
    try:
        yield from fetch(environ, received)
    except TooSlow:
        why = f"no sign from upstream for {TIMEOUT_SECONDS:g} second"
        yield from upstream.refuse("504 Gateway Timeout", why, start_response)
    except OSError as error:
        yield from upstream.refuse("502 Bad Gateway", str(error), start_response)
    else:
        yield from upstream.relay(b"".join(received), start_response)
