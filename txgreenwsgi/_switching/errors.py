"""The exceptions that end a wait. It knows nothing of who raises them.

All but one are ordinary exceptions, and the builtin ones that code written for
blocking sockets already handles: `except OSError` and `except TimeoutError` in
a database driver clean up as they would in a thread.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ClientDisconnected",
    "NotInGreenlet",
    "RequestTimeout",
    "TimedOut",
]


class NotInGreenlet(RuntimeError):
    """A wait was asked for where nothing can wait; the message says what to do."""


class TimedOut(TimeoutError):
    """The time given to a wait, or to a `with timeout(...)` block, is over."""


class ClientDisconnected(ConnectionResetError):
    """The client of this request is gone: nothing can be read or written."""


class RequestTimeout(TimeoutError):
    """The deadline of this request has passed; the client has its answer."""


class Cancelled(Exception):
    """The task was asked to end, by `Task.cancel()` or by a server that stops."""
