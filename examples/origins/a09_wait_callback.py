"""A database driver with a wait callback, and the callback.

The interface is that of psycopg2: `poll()` of a connection proceeds as far as possible
without waiting and returns the direction to wait for, and the driver calls a callback
instead of blocking. The driver in this file has the same interface, for a "database"
that replies to one line with one line. Only the callback depends on the server; with
it, every use of the driver parks, at any call depth.

Run it from the root of a checkout. With netcat as the database, type a reply::

    nc -l 127.0.0.1 5000 &
    twistd -n greenwsgi --app examples.origins.a09_wait_callback:app \
        --environ DATABASE=127.0.0.1:5000
    curl 'http://localhost:8080/?SELECT+1'

The driver knows sockets. Only `park_until_ready` knows txgreenwsgi.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import txgreenwsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# The driver.

POLL_OK, POLL_READ, POLL_WRITE = 0, 1, 2

_wait_callback: Callable[[Connection], None] | None = None


def set_wait_callback(callback: Callable[[Connection], None]) -> None:
    """Call `callback(connection)` instead of blocking."""
    global _wait_callback
    _wait_callback = callback


class Connection:
    """A connection to a database that replies to each line with one line."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._to_send = b""
        self._received = b""
        self._expects = False
        status = self._socket.connect_ex((host, port))
        self._connecting = status == errno.EINPROGRESS
        if status and not self._connecting:
            self._socket.close()
            raise OSError(status, os.strerror(status))
        self._wait()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def poll(self) -> int:
        """Proceed without waiting; return the direction to wait for, or POLL_OK."""
        try:
            if self._connecting:
                self._connecting = False
                return POLL_WRITE
            status = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                raise OSError(status, os.strerror(status))
            if self._to_send:
                self._to_send = self._to_send[self._socket.send(self._to_send) :]
                if self._to_send:
                    return POLL_WRITE
            while self._expects and not self._received.endswith(b"\n"):
                data = self._socket.recv(4096)
                if not data:
                    raise ConnectionResetError("the database has gone away")
                self._received += data
        except BlockingIOError:
            return POLL_WRITE if self._to_send else POLL_READ
        return POLL_OK

    def execute(self, query: str) -> str:
        """Return the reply to a query. The callback waits for it."""
        self._to_send = query.encode() + b"\n"
        self._received = b""
        self._expects = True
        self._wait()
        self._expects = False
        return self._received.decode().rstrip("\n")

    def _wait(self) -> None:
        if _wait_callback is None:
            raise RuntimeError("set_wait_callback() has not been called")
        _wait_callback(self)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


# The callback, which depends on the server.


def park_until_ready(connection: Connection) -> None:
    """Wait for the connection in the direction of its `poll`. Parks."""
    while True:
        state = connection.poll()
        if state == POLL_OK:
            return
        if state == POLL_READ:
            txgreenwsgi.wait_readable(connection)
        else:
            txgreenwsgi.wait_writable(connection)


set_wait_callback(park_until_ready)


# The application.


def ask(environ: WSGIEnvironment, query: str) -> str:
    """Return the reply of the database, within three seconds. Parks."""
    host, _, port = environ.get("DATABASE", "127.0.0.1:5000").rpartition(":")
    with txgreenwsgi.timeout(3.0):
        connection = Connection(host, int(port))
        try:
            return connection.execute(query)
        finally:
            connection.close()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send the query string to the database. Parks."""
    status = "200 OK"
    try:
        answer = ask(environ, unquote_plus(environ["QUERY_STRING"]))
    except TimeoutError:
        status, answer = "504 Gateway Timeout", "the database is silent"
    except OSError as error:
        status, answer = "503 Service Unavailable", f"no database: {error}"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [answer.encode() + b"\n"]
