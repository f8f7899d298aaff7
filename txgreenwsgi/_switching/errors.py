"""The exceptions that end a wait.

All but one derive from builtin exceptions that code for blocking sockets already
handles: `except OSError` and `except TimeoutError` in a database driver clean up as
they would in a thread.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ClientDisconnected",
    "NotInGreenlet",
    "RequestTimeout",
    "Stopping",
    "TimedOut",
]


class NotInGreenlet(RuntimeError):
    """A wait in a place where no task can wait; the message gives the remedy."""


class TimedOut(TimeoutError):
    """The timeout of a wait, or of a `with timeout(...)` block, has expired."""


class ClientDisconnected(ConnectionResetError):
    """The client of this request has disconnected; reads and writes raise it."""


class RequestTimeout(TimeoutError):
    """The deadline of this request has expired; the client was answered."""


class Stopping(Exception):
    """The server is stopping; only for requests that have asked for it.

    See `txgreenwsgi.stopping` in the environ.
    """


class Cancelled(Exception):
    """The task was cancelled, by `Task.cancel()` or by a server that stops."""
