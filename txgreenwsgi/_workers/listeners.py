"""Listening sockets that the master opens and keeps for its life.

A TCP endpoint has one socket for each worker slot, all bound to the same address with
SO_REUSEPORT: the kernel divides connections evenly, and the backlog of a slot survives
its worker. Other sockets cannot be divided; all workers share one.

The endpoint itself is parsed in the worker again. Here its string serves to find out
which socket it opens.

It knows endpoints and sockets. It must never know workers.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._server.adopted import AdoptedEndpoint
from txgreenwsgi._server.endpoints import make_endpoint
from txgreenwsgi._server.errors import EndpointError, ListenError
from txgreenwsgi._server.https import below_tls
from txgreenwsgi._server.ports import ListeningProxy, listening_reactor
from txgreenwsgi._server.stale_sockets import is_abstract

from .handover import HandedOver, OwnedPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from twisted.internet.interfaces import IAddress, IProtocolFactory
    from twisted.python.failure import Failure

__all__ = ["Listener", "open_listeners"]

_log = Logger()

# Others (macOS) deliver all connections to the socket that was bound last.
_DIVIDES: Final = hasattr(socket, "SO_REUSEPORT") and sys.platform.startswith(
    ("linux", "freebsd")
)
# FreeBSD's option that divides connections.
_REUSEPORT: Final[int] = getattr(
    socket, "SO_REUSEPORT_LB", getattr(socket, "SO_REUSEPORT", 0)
)


@dataclass
class Listener:
    """The sockets of one endpoint string.

    Attributes:
        text: the endpoint string.
        sockets: one for each slot, in order, if `divided`; else a single one.
        divided: whether each slot has a socket of its own.
        backlog: of a further socket.
        path: the path of a UNIX socket that this process removes; "" for none.
    """

    text: str
    sockets: list[socket.socket]
    divided: bool
    backlog: int = 0
    path: str = ""
    _ports: list[Any] = field(default_factory=list)
    _owned: OwnedPath | None = None

    @classmethod
    def taken_over(cls, given: HandedOver) -> Listener:
        """Return the listener for the sockets of the last master."""
        owned = OwnedPath(given.path) if given.path else None
        return cls(
            given.text,
            given.sockets,
            given.divided,
            given.backlog,
            given.path,
            _owned=owned,
        )

    @property
    def address(self) -> str:
        """The address of the sockets, for the log."""
        name = self.sockets[0].getsockname()
        if isinstance(name, tuple):
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            return f"{host}:{name[1]}"
        return os.fsdecode(name)

    def shared(self) -> socket.socket | None:
        """Return the socket that all slots share; None if it is divided."""
        return None if self.divided else self.sockets[0]

    def divide_further(self) -> bool:
        """Open a socket for one more slot; return False if that is impossible.

        The process may not bind the port any more, after it has changed its user.
        """
        if not self.divided:
            return True
        first = self.sockets[0]
        try:
            self.sockets.append(_bound_like(first, first.getsockname(), self.backlog))
        except OSError:
            return False
        return True

    def leave(self) -> None:
        """Leave a UNIX socket at its path to another process."""
        self._owned = None
        for port in self._ports:
            port.leave_path()

    def close(self) -> Deferred[Any]:
        """Close all sockets, and remove a UNIX socket from its path."""
        ports, self._ports = self._ports, []
        owned, self._owned = self._owned, None
        for each in self.sockets:
            each.close()
        if owned is not None:
            owned.remove()
        if ports:
            return maybeDeferred(ports[0].stopListening)
        return succeed(None)


def open_listeners(
    texts: Sequence[str],
    slots: int,
    reactor: object,
    given: Iterable[HandedOver] = (),
) -> list[Listener]:
    """Open the sockets of endpoint strings.

    Call while the process may still bind privileged ports.

    Args:
        texts: endpoint strings.
        slots: the number of slots.
        reactor: the reactor.
        given: the sockets of the last master. Others are opened.

    Raises:
        EndpointError: a string is wrong, or its endpoint cannot be shared.
        ListenError: a socket cannot be opened.
    """
    left = list(given)
    opened: list[Listener] = []
    try:
        for text in texts:
            found = next((each for each in left if each.text == text), None)
            if found is None:
                opened.append(_open(text, slots, reactor))
            else:
                left.remove(found)
                opened.append(Listener.taken_over(found))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _open(text: str, slots: int, reactor: object) -> Listener:
    opening = _OpeningReactor(reactor, text, slots)
    # The workers wrap the connections in TLS.
    endpoint = make_endpoint(opening, below_tls(text))
    if isinstance(endpoint, AdoptedEndpoint):
        # Its own copy, which child processes do not inherit.
        adopted = socket.socket(fileno=os.dup(endpoint.fd))
        os.close(endpoint.fd)
        listener = Listener(text, [adopted], divided=False)
        _log.info("adopted {address}", address=listener.address)
        return listener
    failures: list[Failure] = []
    try:
        endpoint.listen(_Quiet()).addErrback(failures.append)
    except Exception as unknown:  # of a plug-in
        raise _cannot_be_shared(text) from unknown
    for failure in failures:
        error = failure.value
        if isinstance(error, (CannotListenError, OSError)):
            raise ListenError(text, error) from error
        failure.raiseException()
    if opening.listener is None:
        raise _cannot_be_shared(text)
    _log.info(
        "listening on {address}", address=opening.listener.address, is_routine=True
    )
    return opening.listener


def _cannot_be_shared(text: str) -> EndpointError:
    return EndpointError(
        text,
        "cannot be shared by workers",
        "give tcp:, tcp6:, https:, ssl:, unix:, systemd: or fd:, or serve without "
        "workers",
    )


class _Quiet(Factory):
    """A factory that no connection reaches."""

    noisy = False


class _OpeningReactor(ListeningProxy):
    """A reactor whose `listen` methods open the sockets of all slots."""

    def __init__(self, reactor: object, text: str, slots: int) -> None:
        super().__init__(reactor)
        self._text = text
        self._slots = slots
        self.listener: Listener | None = None

    def listenTCP(
        self,
        port: int,
        factory: IProtocolFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        try:
            sockets = _bind(
                interface,
                port,
                backlog,
                self._slots if _DIVIDES else 1,
                ipv6_only=self.ipv6_only,
            )
        except OSError as error:
            raise CannotListenError(interface, port, error) from error
        self.listener = Listener(self._text, sockets, _DIVIDES, backlog)
        return _NoPort()

    def listenUNIX(
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> IListeningPort:
        real: Any = listening_reactor(self._reactor)
        port = real.listenUNIX(address, factory, backlog, mode, wantPID)
        port.stopReading()  # only workers accept
        port.share()
        shared = socket.socket(fileno=os.dup(port.fileno()))
        # The application may change the directory before the port closes.
        text = os.fsdecode(address)
        path = "" if is_abstract(text) else os.path.abspath(text)
        self.listener = Listener(
            self._text, [shared], divided=False, path=path, _ports=[port]
        )
        no_port: IListeningPort = port
        return no_port


@implementer(IListeningPort)
class _NoPort:
    """The port of an endpoint that opens sockets for workers."""

    def startListening(self) -> None:
        """No-op."""

    def stopListening(self) -> None:
        """No-op: the listener closes its sockets."""

    def getHost(self) -> IAddress:
        """Raise, because the listener knows the address."""
        raise NotImplementedError


def _bind(
    interface: str, port: int, backlog: int, count: int, *, ipv6_only: bool
) -> list[socket.socket]:
    """Return listening sockets that share one address."""
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    address: Any = (interface, port)
    if family == socket.AF_INET6:
        address = socket.getaddrinfo(
            interface, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
        )[0][4]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # SO_REUSEPORT would let this server and another one of the same user share the
        # address unnoticed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        probe.bind(address)
        if not port:
            address = (address[0], probe.getsockname()[1], *address[2:])
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(  # noqa: PERF401
                _listening(family, address, backlog, ipv6_only)
            )
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def _listening(
    family: int, address: Any, backlog: int, ipv6_only: bool
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _DIVIDES:
            made.setsockopt(socket.SOL_SOCKET, _REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        made.bind(address)
        made.listen(backlog)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _bound_like(first: socket.socket, address: Any, backlog: int) -> socket.socket:
    """Return one more socket on the address of another one."""
    ipv6_only = first.family == socket.AF_INET6 and bool(
        first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )
    return _listening(first.family, address, backlog, ipv6_only)
