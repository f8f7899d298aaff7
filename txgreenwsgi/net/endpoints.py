"""Connecting to endpoints and listening on them.

This module knows Twisted's endpoints. It replaces their exceptions with Python's
builtin ones, since code for sockets catches OSError. It must never read or write data.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, cast

from twisted.internet import error as twisted_errors
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from txgreenwsgi._switching.errors import Cancelled
from txgreenwsgi._switching.greenlets import Task, require_task
from txgreenwsgi._switching.thread_calls import crossing
from txgreenwsgi._switching.waiting import wait

from .connection import Connection, ConnectionProtocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from twisted.internet.interfaces import (
        IAddress,
        IListeningPort,
        IStreamClientEndpoint,
        IStreamServerEndpoint,
    )

    from txgreenwsgi._switching.greenlets import Hub

__all__ = ["Listener", "connect", "listen"]

_log = Logger()


class _ClientFactory(Factory):
    """Factory of one outgoing connection."""

    noisy = False

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def buildProtocol(self, addr: IAddress | None) -> ConnectionProtocol:
        return ConnectionProtocol(Connection(self._hub))


@crossing
def connect(
    endpoint: str | IStreamClientEndpoint, timeout: float | None = None
) -> Connection:
    """Connect to `endpoint`. May park.

    Args:
        endpoint: a string such as "tcp:localhost:6379", "tls:example.org:443" or
            "unix:/run/app.sock" (see `twisted.internet.endpoints.clientFromString`),
            or an endpoint object.
        timeout: connect timeout in seconds; None for the endpoint's default.

    Raises:
        TimedOut: (a TimeoutError) the timeout has expired.
        OSError: the connection failed: refused, unknown host, and so on. The
            exception is a builtin one, such as ConnectionRefusedError.
        NotInGreenlet: the caller is not in a task.
    """
    task = require_task("net.connect()")
    client: IStreamClientEndpoint = (
        clientFromString(task.hub.reactor, endpoint)
        if isinstance(endpoint, str)
        else endpoint
    )
    connecting = cast(
        "Deferred[ConnectionProtocol | None]",
        client.connect(_ClientFactory(task.hub)),
    )
    try:
        end = wait(connecting, timeout)
    except twisted_errors.ConnectError as error:
        raise _builtin_error(error) from error
    except twisted_errors.DNSLookupError as error:
        raise OSError(f"cannot connect: {error}") from error
    except BaseException:
        # The connection may be established at the moment the wait ends.
        connecting.addCallback(_abort)
        raise
    assert end is not None
    return end.connection


def _abort(end: ConnectionProtocol | None) -> None:
    if end is not None:
        end.connection.abort()


def _builtin_error(error: twisted_errors.ConnectError) -> OSError:
    """Return the builtin exception for Twisted's, which is not an OSError."""
    number = getattr(error, "osError", None)
    if isinstance(number, int):
        return OSError(number, str(error))  # makes the subclass for the number
    if isinstance(error, twisted_errors.TimeoutError):
        return TimeoutError(f"cannot connect: {error}")
    return ConnectionError(f"cannot connect: {error}")


class Listener(Factory):
    """A listening endpoint, returned by `listen`.

    Attributes:
        address: the address that it listens on.
        tasks: the tasks of the clients that are being served.
    """

    noisy = False

    def __init__(
        self, hub: Hub, function: Callable[[Connection], object], context: Context
    ) -> None:
        self._hub = hub
        self._function = function
        self._context = context
        self._port: IListeningPort | None = None
        self._closed: Deferred[object] | None = None
        self.address: IAddress | None = None
        self.tasks: set[Task[None]] = set()

    def buildProtocol(self, addr: IAddress | None) -> ConnectionProtocol:
        """Return the protocol of a new connection; called by the endpoint."""
        return ConnectionProtocol(Connection(self._hub), self._begin)

    def _begin(self, connection: Connection) -> None:
        name = getattr(self._function, "__qualname__", "") or repr(self._function)
        task: Task[None] = Task(
            self._hub, self._serve, (connection,), None, self._context.copy(), name
        )
        self.tasks.add(task)

        def ended() -> None:
            self.tasks.discard(task)
            if not connection.closed:  # the task was cancelled before it began
                connection.abort()

        task.call_at_end(ended)
        self._hub.spawn(task)

    def _serve(self, connection: Connection) -> None:
        try:
            self._function(connection)
        except Exception as error:
            gone = connection.lost and isinstance(error, ConnectionError)
            if not gone and not isinstance(error, Cancelled):
                _log.failure("serving {connection} failed", connection=connection)
            connection.abort()
        except BaseException:
            connection.abort()
            raise
        else:
            connection.close()

    def opened(self, port: IListeningPort) -> None:
        """Store the opened port; called by `listen`."""
        self._port = port
        self.address = port.getHost()

    @crossing
    def close(self) -> None:
        """Stop listening; connected clients are still served. Never parks."""
        if self._port is not None and self._closed is None:
            self._closed = maybeDeferred(self._port.stopListening)

    @crossing
    def wait_closed(self) -> None:
        """Stop listening, and wait until the port is closed. May park."""
        self.close()
        if self._closed is not None:
            wait(self._closed)


@crossing
def listen(
    endpoint: str | IStreamServerEndpoint, function: Callable[[Connection], object]
) -> Listener:
    """Listen on `endpoint` and call `function(connection)` for each client.

    Parks until the port is open. Each call runs in its own task, in a copy of the
    caller's context. The connection is closed when the call returns. If it raises,
    the exception is logged and the connection is aborted.

    Args:
        endpoint: a string such as "tcp:7000:interface=127.0.0.1" (see
            `twisted.internet.endpoints.serverFromString`), or an endpoint object.
        function: called with a `Connection`.

    Raises:
        OSError: the address is in use, or cannot be listened on.
        NotInGreenlet: the caller is not in a task.
    """
    hub = require_task("net.listen()").hub
    server: IStreamServerEndpoint = (
        serverFromString(hub.reactor, endpoint)
        if isinstance(endpoint, str)
        else endpoint
    )
    listener = Listener(hub, function, copy_context())
    try:
        port: IListeningPort = wait(server.listen(listener))
    except twisted_errors.CannotListenError as error:
        number = getattr(error.socketError, "errno", None)
        if number is None:
            raise OSError(str(error)) from error
        raise OSError(number, str(error)) from error
    listener.opened(port)
    return listener
