"""The service of a worker, which serves on sockets that the master hands over.

It knows the ports of a worker. It must never know the master.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .service import GreenService
from .slots import SlotPort, slot_endpoint

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint

__all__ = ["SlotService"]

# By how many connections a worker may exceed the mean, with a shared socket.
_TOLERANCE: Final = 0.1
_MARGIN_CONNECTIONS: Final = 2


class SlotService(GreenService):
    """A `GreenService` whose ports accept once they have sockets.

    Attributes:
        mean_connections: takes the number of connections of this worker, and returns
            the mean number of all workers; None for one worker alone.
        leaves_backlog: whether connections that wait in a backlog are left to other
            processes when the service stops; else they are accepted first.
    """

    leaves_backlog = True
    mean_connections: Callable[[int], float] | None = None

    def adopt(
        self,
        slot: int,
        sockets: Mapping[int, socket.socket],
        shared: Collection[int] = (),
    ) -> None:
        """Accept on the sockets of a slot. Never parks.

        Args:
            slot: a number for `release`.
            shared: the indices of sockets that all workers share.
            sockets: by the index of the endpoint in `listen`. They are owned by this
                service from now on.
        """
        for index, adopted in sockets.items():
            port = self.ports[index] if index < len(self.ports) else None
            if isinstance(port, SlotPort):
                port.adopt(slot, adopted, shared=index in shared)
            else:  # the service has stopped
                adopted.close()

    def release(self, slot: int) -> None:
        """Stop accepting on the sockets of a slot. Never parks."""
        for port in self.ports:
            if isinstance(port, SlotPort):
                port.release(slot)

    def poll_shared(self) -> None:
        """Accept from the sockets that all workers share. Never parks."""
        for port in self.ports:
            if isinstance(port, SlotPort):
                port.poll_shared()

    def _has_excess(self) -> bool:
        """Return whether this worker has more connections than the others."""
        if self.mean_connections is None:
            return False
        count = self.site.server.open_connections
        mean = self.mean_connections(count)
        return count > mean * (1 + _TOLERANCE) + _MARGIN_CONNECTIONS

    def drain(self) -> Deferred[None]:
        """Return a Deferred that has fired: the master waits for `drain_delay`."""
        self._drained = True
        return super().drain()

    def _endpoint_of(self, text: str) -> IStreamServerEndpoint:
        return slot_endpoint(self.site.server.reactor, text)

    def _opened(self, port: IListeningPort, listen: str) -> IListeningPort:
        if not isinstance(port, SlotPort):
            return super()._opened(port, listen)
        self.ports.append(port)

        def serve(opened: IListeningPort) -> None:
            self._serve_port(opened, listen)

        port.on_open = serve
        port.has_excess = self._has_excess
        port.on_close = self._release_port
        return port

    def _serve_port(self, port: IListeningPort, listen: str) -> None:
        super()._serve_port(port, listen)
        assert self._throttle is not None, "made for the first port"
        self._throttle.leaves_backlog = True

    def _release_port(self, port: IListeningPort) -> None:
        if self._throttle is not None:
            self._throttle.forget_port(port)

    def _close_ports(self) -> Deferred[object]:
        if self._throttle is not None:
            self._throttle.leaves_backlog = self.leaves_backlog
        return super()._close_ports()
