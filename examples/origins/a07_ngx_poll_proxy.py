"""A proxy on `ngx.poll`, as an application for nginx's WSGI module.

Manlio Perillo's module for nginx ran applications in the event loop of nginx. They
registered their connections, requested a poll, yielded an empty string, and then got
the connection that was ready.

Run it from the root of a checkout, in front of another server::

    python -m http.server 8000 &
    twistd -n greenwsgi --app examples.origins.a07_ngx_poll_proxy:proxy --origin ngx \
        --environ UPSTREAM=127.0.0.1:8000
    curl http://localhost:8080/

It knows `ngx`. Only the last line knows the adapter.
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

TIMEOUT_MILLISECONDS = 1000


class TooSlow(Exception):
    """The other server made no progress in time."""


class Polled:
    """A socket that is registered with `ngx.poll` while it is open."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self._conn: Any = environ["ngx.connection_wrapper"](self.sock.fileno())
        self._registered = False

    def wait(self, flags: int) -> Iterator[bytes]:
        """Yield until the socket is ready.

        Raises:
            TooSlow: it was not ready in time.
        """
        if self._registered:
            self._environ["ngx.poll_unregister"](self._conn)
        self._environ["ngx.poll_register"](self._conn, flags)
        self._registered = True
        state = self._environ["ngx.poll"](TIMEOUT_MILLISECONDS)
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
    """Send the request to the other server, yielding at each wait.

    Args:
        environ: the environ of the request.
        received: the data of the response is appended to it.

    Raises:
        TooSlow: the other server made no progress for a second.
        OSError: it is unreachable.
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
    """Return the response of the other server; 504 or 502 without one."""
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
