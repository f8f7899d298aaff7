"""The listening sockets of the master, by slot.

It knows listeners and slots. It must never know workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from .handover import OwnedPath
from .listeners import open_listeners

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .handover import HandedOver
    from .listeners import Listener
    from .messages import Message

__all__ = ["ListeningSockets"]

_log = Logger()


class ListeningSockets:
    """All listening sockets of the server; closed at first.

    Args:
        texts: endpoint strings.
        reactor: the reactor.
        given: the sockets of the last master.
    """

    def __init__(
        self,
        texts: Sequence[str],
        reactor: object,
        given: Sequence[HandedOver] = (),
    ) -> None:
        self._given = given
        self.texts = list(texts)
        self._reactor = reactor
        self._listeners: list[Listener] = []
        self._addresses: tuple[str, ...] = ()
        self._dropped_paths: list[str] = []
        self._cannot_divide = False
        self._is_handed_over = False

    @property
    def addresses(self) -> Sequence[str]:
        """The addresses, also after the sockets were closed."""
        return self._addresses

    def open(self, slots: int) -> None:
        """Open them. Call while the process may still bind privileged ports.

        Raises:
            EndpointError: a string is wrong, or its endpoint cannot be shared.
            ListenError: a socket cannot be opened.
        """
        self._listeners = open_listeners(self.texts, slots, self._reactor, self._given)
        used = [each.sockets for each in self._listeners]
        for given in self._given:
            if not any(given.sockets is sockets for sockets in used):
                self._drop(given)
        self._addresses = tuple(each.address for each in self._listeners)

    def _drop(self, given: HandedOver) -> None:
        """Close sockets of the last master that the configuration has no more."""
        _log.info("{text} is not configured any more", text=given.text)
        for each in given.sockets:
            # The kernel would go on to send it connections.
            each.close()
        if given.path:
            self._dropped_paths.append(given.path)

    def shared(self) -> list[int]:
        """Return the indices of the endpoints whose socket all slots share."""
        return [index for index, each in enumerate(self._listeners) if not each.divided]

    def descriptors(self, slot: int, *, shared: bool) -> tuple[list[int], list[int]]:
        """Return the listening descriptors of a slot; see `master_parts.Sockets`.

        If this process may not bind an address any more, the slot gets the socket of
        another one.
        """
        indices: list[int] = []
        descriptors: list[int] = []
        for index, listener in enumerate(self._listeners):
            found = listener.shared() if shared else None
            if listener.divided:
                # The new master would not know a further one, nor its backlog.
                while slot >= len(listener.sockets) and not self._is_handed_over:
                    if not listener.divide_further():
                        self._log_shared(listener)
                        break
                found = listener.sockets[slot % len(listener.sockets)]
            if found is not None:
                indices.append(index)
                descriptors.append(found.fileno())
        return indices, descriptors

    def _log_shared(self, listener: Listener) -> None:
        if not self._cannot_divide:
            self._cannot_divide = True
            _log.warn(
                "cannot open a further socket for {address}: additional workers share "
                "those of others. To have one for each, restart with more --workers",
                address=listener.address,
            )

    @property
    def slots(self) -> int:
        """The number of slots with sockets."""
        divided = [len(each.sockets) for each in self._listeners if each.divided]
        return max(divided, default=0)

    def send(self, send: Callable[[Message, list[int]], object]) -> None:
        """Send all sockets to a new master.

        Args:
            send: sends a message with descriptors.
        """
        self._is_handed_over = True
        for each in self._listeners:
            message = {
                "do": "listen",
                "text": each.text,
                "divided": each.divided,
                "backlog": each.backlog,
                "path": each.path,
            }
            send(message, [one.fileno() for one in each.sockets])

    def keep(self) -> None:
        """Keep all sockets: the new master has ended."""
        self._is_handed_over = False

    def leave(self) -> None:
        """Leave UNIX sockets at their paths to the new master."""
        for each in self._listeners:
            each.leave()

    def remove_dropped(self) -> None:
        """Remove the UNIX sockets of the last master that this one does not use.

        Call when the last master has ended.
        """
        paths, self._dropped_paths = self._dropped_paths, []
        for path in paths:
            OwnedPath(path).remove()

    def close(self) -> Deferred[Any]:
        """Close all sockets of this process."""
        listeners, self._listeners = self._listeners, []
        return gatherResults([each.close() for each in listeners])
