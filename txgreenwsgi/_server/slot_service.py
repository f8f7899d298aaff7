"""The service of a worker, which serves on sockets that the master hands over.

It knows the ports of a worker. It must never know the master.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .accepting import AcceptThrottle
from .service import GreenService
from .slots import SlotPort, slot_endpoint

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint

__all__ = ["SlotService"]


class SlotService(GreenService):
    """A `GreenService` whose ports accept once they have sockets.

    Attributes:
        leaves_backlog: whether connections that wait in a backlog are left to other
            processes when the service stops; else they are accepted first.
    """

    leaves_backlog = True

    def adopt(self, slot: int, sockets: Mapping[int, socket.socket]) -> None:
        """Accept on the sockets of a slot. Never parks.

        Args:
            slot: a number for `release`.
            sockets: by the index of the endpoint in `listen`. They are owned by this
                service from now on.
        """
        for index, adopted in sockets.items():
            port = self.ports[index] if index < len(self.ports) else None
            if isinstance(port, SlotPort):
                port.adopt(slot, adopted)
            else:  # the service has stopped
                adopted.close()

    def release(self, slot: int) -> None:
        """Stop accepting on the sockets of a slot. Never parks."""
        for port in self.ports:
            if isinstance(port, SlotPort):
                port.release(slot)

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
        if isinstance(self._throttle, AcceptThrottle):
            self._throttle.leaves_backlog = self.leaves_backlog
        return super()._close_ports()
