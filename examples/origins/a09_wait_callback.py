"""A database driver that lets a callback wait for it, and the callback.

psycopg2 began it: a connection has `poll()`, which does what can be done without
waiting and says what it would have to wait for, and the driver calls a function
of yours instead of blocking. The driver here is of that shape, and speaks to a
"database" that takes one line and gives one. The callback is all that ties it to
the server, and with it every use of the driver, however deep, parks.

Run it from the root of a checkout; netcat can be the database: type an answer::

    nc -l 127.0.0.1 5000 &
    twistd -n greenwsgi --app examples.origins.a09_wait_callback:app \
        --environ DATABASE=127.0.0.1:5000
    curl 'http://localhost:8080/?SELECT+1'

The driver knows sockets; only `park_until_ready` knows txgreenwsgi.
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
    """Have `callback(connection)` called instead of blocking."""
    global _wait_callback
    _wait_callback = callback


class Connection:
    """A connection to a database that answers each line with one."""

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
        """Give the descriptor that `poll` speaks of."""
        return self._socket.fileno()

    def poll(self) -> int:
        """Go on as far as possible without waiting; say what is to be waited for."""
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
        """Give the answer to a query. Blocks, or lets the callback wait."""
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
        """Close it."""
        self._socket.close()


# What ties it to the server.


def park_until_ready(connection: Connection) -> None:
    """Wait for the connection as it asks to be. Parks."""
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
    """Give the database's answer, within three seconds. Parks."""
    host, _, port = environ.get("DATABASE", "127.0.0.1:5000").rpartition(":")
    with txgreenwsgi.timeout(3.0):
        connection = Connection(host, int(port))
        try:
            return connection.execute(query)
        finally:
            connection.close()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Ask the database what the query string says. Parks."""
    status = "200 OK"
    try:
        answer = ask(environ, unquote_plus(environ["QUERY_STRING"]))
    except TimeoutError:
        status, answer = "504 Gateway Timeout", "the database is silent"
    except OSError as error:
        status, answer = "503 Service Unavailable", f"no database: {error}"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [answer.encode() + b"\n"]
