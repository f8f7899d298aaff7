"""The listeners beside those of the application: control socket, status page.

It knows when they open and close. It must never know what they serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, gatherResults

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Listener", "SideListeners"]


class Listener(Protocol):
    """A listener. Called from the reactor greenlet."""

    def open(self, reactor: object) -> None:
        """Listen. Called with the final user of the process.

        Raises:
            ControlError: it cannot be opened; the message has the remedy.
            StartError: the same.
        """

    def close(self) -> Deferred[None]:
        """Stop listening.

        Returns:
            A Deferred that fires when that is done.
        """


class SideListeners:
    """Several listeners as one.

    Args:
        listeners: opened in this order.
    """

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = list(listeners)

    def open(self, reactor: object) -> None:
        """Open all; see `Listener.open`."""
        for listener in self._listeners:
            listener.open(reactor)

    def close(self) -> Deferred[None]:
        """Close all; see `Listener.close`."""
        closed = gatherResults([listener.close() for listener in self._listeners])
        return closed.addCallback(lambda _: None)
