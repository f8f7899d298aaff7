"""A proxy with nginx's `ngx.poll`, as an application for its WSGI module was written.

Manlio Perillo's module for nginx ran applications in nginx's own event loop. They
registered their connections, asked to be polled, yielded an empty string, and were
told which connection was ready.

Run it from the root of a checkout, in front of another server::

    python -m http.server 8000 &
    twistd -n greenwsgi --app examples.origins.a07_ngx_poll_proxy:proxy --origin ngx \
        --environ UPSTREAM=127.0.0.1:8000
    curl http://localhost:8080/

The file knows `ngx`; only its last line knows the adapter.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from txgreenwsgi.origins import ngx

from . import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATIENCE_MILLISECONDS = 1000


class TooSlow(Exception):
    """The other server gave no sign in time."""


class Polled:
    """A socket that is registered with `ngx.poll` as long as it is open."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self._conn: Any = environ["ngx.connection_wrapper"](self.sock.fileno())
        self._registered = False

    def wait(self, flags: int) -> Iterator[bytes]:
        """Yield until the socket is ready.

        Raises:
            TooSlow: it was not in time.
        """
        if self._registered:
            self._environ["ngx.poll_unregister"](self._conn)
        self._environ["ngx.poll_register"](self._conn, flags)
        self._registered = True
        state = self._environ["ngx.poll"](PATIENCE_MILLISECONDS)
        yield b""
        conn, _flags = state()
        if conn is None:
            raise TooSlow

    def close(self) -> None:
        """Unregister the socket, then close it."""
        if self._registered:
            self._environ["ngx.poll_unregister"](self._conn)
        self.sock.close()


def fetch(environ: WSGIEnvironment, received: list[bytes]) -> Iterator[bytes]:
    """Ask the other server, yielding while it is to be waited for.

    Args:
        environ: the request's.
        received: what comes is put here.

    Raises:
        TooSlow: it gave no sign for a second.
        OSError: it cannot be reached.
    """
    polled = Polled(environ)
    sock = polled.sock
    try:
        status = sock.connect_ex(upstream.address(environ))
        if status == errno.EINPROGRESS:
            yield from polled.wait(environ["ngx.WSGI_POLLOUT"])
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
        to_send = upstream.request(environ)
        while to_send:
            yield from polled.wait(environ["ngx.WSGI_POLLOUT"])
            to_send = to_send[sock.send(to_send) :]
        while True:
            yield from polled.wait(environ["ngx.WSGI_POLLIN"])
            data = sock.recv(65536)
            if not data:
                return
            received.append(data)
    finally:
        polled.close()


def proxy(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Answer with what the other server answers; 504 or 502 if it does not."""
    received: list[bytes] = []
    try:
        yield from fetch(environ, received)
    except TooSlow:
        why = "no sign from upstream for 1 second"
        yield from upstream.refuse("504 Gateway Timeout", why, start_response)
    except OSError as error:
        yield from upstream.refuse("502 Bad Gateway", str(error), start_response)
    else:
        yield from upstream.relay(b"".join(received), start_response)


app = ngx.adapt(proxy)
