"""Listening ports that leave alone what is not theirs.

Twisted's own ports differ in three ways: an adopted UNIX socket gets another mode, and
is shut down and unlinked when its port closes, though another process (systemd, a
supervisor) owns it; a port unlinks whatever is at its path by then; and an IPv6 port
takes the IPv4 port of the same number too.

It knows Twisted's ports. It must never know endpoint strings or what is served.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from zope.interface import directlyProvides, providedBy

from .stale_sockets import file_identity, is_abstract, remove_stale, starting_at

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

__all__ = ["AdoptedUNIXPort", "ListeningProxy", "listening_reactor", "use_socket"]

_log = Logger()


def listening_reactor(reactor: object, *, ipv6_only: bool = True) -> object:
    """Return a reactor for endpoints, whose `listen` methods open the ports below.

    Args:
        reactor: returned unchanged if it does not work with descriptors.
        ipv6_only: whether a port on an IPv6 address accepts IPv6 alone.
    """
    if isinstance(reactor, PosixReactorBase):
        return _ListeningReactor(reactor, ipv6_only)
    if isinstance(reactor, ListeningProxy):
        reactor.ipv6_only = ipv6_only
    return reactor


class ListeningProxy:
    """A proxy for a reactor, with `listen` methods of its own.

    Args:
        reactor: the reactor, or an object in its place.

    Attributes:
        ipv6_only: whether a port on an IPv6 address accepts IPv6 alone.
    """

    ipv6_only = True

    def __init__(self, reactor: object) -> None:
        self._reactor: Any = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(self, *args: Any, **keywords: Any) -> IListeningPort:
        # It calls `listenTCP` of this object.
        listen: Any = PosixReactorBase.listenSSL
        port: IListeningPort = listen(self, *args, **keywords)
        return port


class _ListeningReactor(ListeningProxy):
    """A proxy that opens the ports below."""

    def __init__(self, reactor: PosixReactorBase, ipv6_only: bool) -> None:
        super().__init__(reactor)
        self.ipv6_only = ipv6_only

    def listenTCP(
        self,
        port: int,
        factory: IProtocolFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        opened = _TCPPort(port, factory, backlog, interface, self._reactor)
        opened.ipv6_only = self.ipv6_only
        opened.startListening()
        return opened

    def listenUNIX(
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> IListeningPort:
        path = os.fsdecode(address)
        if is_abstract(path):
            abstract: Any = _UNIXPort(path, factory, backlog, mode, self._reactor)
            abstract.startListening()
            port: IListeningPort = abstract
            return port
        # The application may change the directory before the port closes.
        path = os.path.abspath(path)
        opened: Any = _UNIXPort(path, factory, backlog, mode, self._reactor, wantPID)
        with starting_at(path):
            try:
                remove_stale(path, with_lock=bool(wantPID))
            except OSError as error:
                raise CannotListenError(None, path, error) from error
            try:
                opened.startListening()
            except BaseException:
                opened.unlock()
                raise
        port = opened
        return port

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        if addressFamily != socket.AF_UNIX:
            port: IListeningPort = self._reactor.adoptStreamPort(
                fileDescriptor, addressFamily, factory
            )
            return port
        adopted = AdoptedUNIXPort(
            socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM),
            factory,
            self._reactor,
        )
        adopted.startListening()
        as_port: Any = adopted
        port = as_port
        return port


class _TCPPort(tcp.Port):
    """A TCP port whose IPv6 socket accepts IPv4 only if asked to.

    Otherwise `tcp:8080` and `tcp6:8080` exclude each other on most systems.
    """

    ipv6_only = True

    def createInternetSocket(self) -> socket.socket:
        """Return a new socket, not bound yet."""
        made: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        if self.addressFamily == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self.ipv6_only)
        return made


class _UNIXPort(unix.Port):
    """A UNIX port that removes its own socket and no other when it closes.

    Args:
        path: absolute, or in the abstract namespace.
        others: as those of Twisted's port.
    """

    _identity: tuple[int, int] | None = None

    def __init__(self, path: str, *others: Any) -> None:
        super().__init__(os.fsencode(path), *others)
        self._path = path

    def startListening(self) -> None:
        """Bind and listen."""
        super().startListening()  # type: ignore[no-untyped-call]
        if not is_abstract(self._path):
            self._identity = file_identity(self._path)

    def connectionLost(self, reason: Failure) -> None:
        """Remove the socket and the lock, and close."""
        if self._identity is not None:
            # Another server may have replaced it.
            if file_identity(self._path) == self._identity:
                self._unlink()
            self._identity = None
        self.unlock()
        tcp.Port.connectionLost(self, reason)

    def share(self) -> None:
        """Leave the socket open in other processes when this port closes."""
        # shutdown() would end the socket in every process that has it.
        self._shouldShutdown = False

    def leave_path(self) -> None:
        """Leave the socket at its path, and the lock, to another process."""
        self._identity = None
        self.lockFile = None

    def _unlink(self) -> None:
        try:
            os.unlink(self._path)
        except OSError as error:
            # Not privileged any more; the next start removes it.
            _log.warn(
                "cannot remove {path} ({error}); the next start does",
                path=self._path,
                error=error,
            )

    def unlock(self) -> None:
        """Remove the lock if it is held and still that of this process."""
        lock, self.lockFile = self.lockFile, None
        if lock is not None and lock.locked:
            with suppress(OSError, ValueError):
                lock.unlock()


class AdoptedUNIXPort(unix.Port):
    """A UNIX port on a socket that another process has opened, and may still use.

    Mode, owner, path and backlog stay as they are. Closing it closes the descriptor
    alone, so connections wait in the backlog for the next process.

    Args:
        adopted: the socket, which listens already.
        factory: as that of Twisted's port.
        reactor: the reactor.
    """

    # shutdown() would end the socket in every process that has it.
    _shouldShutdown = False  # noqa: N815

    def __init__(
        self, adopted: socket.socket, factory: IProtocolFactory, reactor: object
    ) -> None:
        address = adopted.getsockname()
        super().__init__(os.fsencode(address), factory, reactor=reactor)
        self._adopted = adopted

    def startListening(self) -> None:
        """Watch the socket."""
        path = os.fsdecode(self._adopted.getsockname())
        _log.info("adopted socket starting on {path}", path=path)
        self.prepare()
        as_port: Any = self
        as_port.startReading()

    def prepare(self) -> None:
        """Use the socket, without accepting yet."""
        use_socket(self, self._adopted)

    def connectionLost(self, reason: Failure) -> None:
        """Close the descriptor."""
        tcp.Port.connectionLost(self, reason)


def use_socket(port: Any, adopted: socket.socket) -> None:
    """Let a port of Twisted use a socket that listens already, without accepting yet.

    Args:
        port: the port, which is closed.
        adopted: owned by the port from now on.
    """
    port.factory.doStart()
    port.connected = True
    port.socket = adopted
    port.fileno = adopted.fileno
    port.numberAccepts = 100
