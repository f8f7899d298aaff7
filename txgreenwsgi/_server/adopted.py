"""Descriptors of listening sockets that another process has opened.

`systemd:` names a socket that systemd has passed on (sd_listen_fds(3)), `fd:` any
descriptor by its number. The socket tells its own family. It is adopted as it is: see
`ports`.

Twisted's `systemd:` endpoint takes LISTEN_FDS out of the environment when it is
imported, and then ignores all sockets if LISTEN_FDNAMES, which is optional, is missing.
So this module also reads the environment that the process was started with.

It knows descriptors. It must never know what is served.
"""

from __future__ import annotations

import os
import re
import socket
from _socket import socket as real_socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from .errors import EndpointError
from .https import below_tls
from .ports import listening_reactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory

__all__ = [
    "INHERITED",
    "AdoptedEndpoint",
    "Inherited",
    "adopted_endpoint",
    "as_it_is",
    "expect_from_master",
    "inherited_from",
]

_FIRST: Final = 3  # SD_LISTEN_FDS_START
_SPLIT: Final = re.compile(r"(?<!\\):")
_NUMBER: Final = re.compile(r"[0-9]{1,7}\Z")

_REMEDY: Final = "give one such as systemd:index=0 or systemd:name=web"
_NOT_OPENED: Final = (
    "start the process by its .socket unit, or give an endpoint such as tcp:8080"
)


@dataclass(frozen=True)
class Inherited:
    """A descriptor that systemd has passed on.

    Attributes:
        fd: its number.
        name: FileDescriptorName= of the socket unit; "unknown" if not given, as in
            sd_listen_fds_with_names(3).
    """

    fd: int
    name: str


def inherited_from(environ: Mapping[str, str], pid: int) -> list[Inherited]:
    """Return the descriptors that systemd has passed to the process `pid`.

    Args:
        environ: LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, the last one optional.
        pid: this process.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not _NUMBER.match(count):
        return []
    names = [name for name in environ.get("LISTEN_FDNAMES", "").split(":") if name]
    if len(names) != int(count):
        names = ["unknown"] * int(count)
    return [Inherited(_FIRST + index, name) for index, name in enumerate(names)]


def _initial_environ() -> dict[str, str]:
    """Return the environment that the process was started with; Linux only."""
    try:
        with open("/proc/self/environ", "rb") as file:
            items = os.fsdecode(file.read()).split("\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (item.partition("=") for item in items)}


#: At import: twistd forks and changes its pid later.
INHERITED: list[Inherited] = inherited_from(os.environ, os.getpid()) or inherited_from(
    _initial_environ(), os.getpid()
)


#: The endpoint strings, below TLS, whose sockets a master process hands over.
_handed_over: frozenset[str] = frozenset()


def expect_from_master(texts: Iterable[str]) -> None:
    """Let endpoint strings stand for sockets that the master process hands over.

    Call in a worker, before the strings are validated: the descriptors that `systemd:`
    and `fd:` name are those of the master.

    Raises:
        EndpointError: an `https:` string is wrong.
    """
    global _handed_over
    _handed_over = frozenset(map(below_tls, texts))


def adopted_endpoint(reactor: object, text: str) -> IStreamServerEndpoint | None:
    """Return the endpoint of a `systemd:` or `fd:` string; None for others.

    Raises:
        EndpointError: the string is wrong, or there is no such listening socket.
    """
    kind, *rest = _SPLIT.split(text)
    if text in _handed_over and kind in ("systemd", "fd"):
        return _HandedOverEndpoint(reactor)
    if kind == "systemd":
        return _of_systemd(reactor, text, rest)
    if kind != "fd":
        return None
    number = rest[0].removeprefix("fileno=") if len(rest) == 1 else ""
    if not _NUMBER.match(number):
        slashed = re.match(r"fd://([0-9]+)\Z", text)
        raise EndpointError(
            text,
            "is not the number of a descriptor",
            f"give fd:{slashed[1] if slashed else 3}",
        )
    fd = int(number)
    return AdoptedEndpoint(reactor, fd, _family_of(text, fd))


def _of_systemd(reactor: object, text: str, rest: list[str]) -> AdoptedEndpoint:
    values: dict[str, str] = {}
    for item in rest:
        name, separator, value = item.partition("=")
        if not separator:  # positional, as in systemd:INET:0
            name, value = ("index", name) if "domain" in values else ("domain", name)
        if name in values or name not in ("domain", "index", "name"):
            raise EndpointError(
                text, f"is not a valid endpoint string ({item!r})", _REMEDY
            )
        values[name] = value
    if ("index" in values) == ("name" in values):
        raise EndpointError(
            text,
            "is not a valid endpoint string (either an index or a name is necessary)",
            _REMEDY,
        )
    fd = _descriptor_of(text, values)
    family = _family_of(text, fd)
    domain = values.get("domain")
    if domain is not None and family != getattr(socket, f"AF_{domain}", None):
        actual = socket.AddressFamily(family).name.removeprefix("AF_")
        raise EndpointError(
            text,
            f"is a socket of another domain ({actual})",
            f"give domain={actual}, or leave the domain out",
        )
    return AdoptedEndpoint(reactor, fd, family)


def _descriptor_of(text: str, values: Mapping[str, str]) -> int:
    if "index" in values:
        index = values["index"]
        if not _NUMBER.match(index):
            raise EndpointError(
                text, f"is not a valid endpoint string (index {index!r})", _REMEDY
            )
        found = INHERITED[int(index) : int(index) + 1]
    else:
        found = [each for each in INHERITED if each.name == values["name"]]
    if not found:
        passed = ", ".join(each.name for each in INHERITED) or "none"
        raise EndpointError(
            text,
            "names a socket that systemd has not opened for this process "
            f"(opened: {passed})",
            _NOT_OPENED,
        )
    if len(found) > 1:
        raise EndpointError(
            text, f"names {len(found)} sockets", "give one --listen for each index"
        )
    return found[0].fd


def _family_of(text: str, fd: int) -> int:
    """Return the family of a listening stream socket.

    Raises:
        EndpointError: the descriptor is not one.
    """
    try:
        # It detects family and type. The descriptor must not be closed with it.
        sock = real_socket(fileno=fd)
    except OSError as error:
        raise EndpointError(
            text,
            f"is not an open socket ({error})",
            "let the parent process pass on a listening socket with this number",
        ) from None
    try:
        family, kind = sock.family, sock.type
        listens = True
        with suppress(OSError):  # a system that cannot tell
            listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    finally:
        sock.detach()
    if not listens or kind != socket.SOCK_STREAM:
        raise EndpointError(
            text,
            "is a socket that does not listen for stream connections",
            "call listen() on it first; a socket unit of systemd needs Accept=no and "
            "ListenStream=",
        )
    return family


@implementer(IStreamServerEndpoint)
class AdoptedEndpoint:
    """An endpoint on an inherited descriptor, which can be adopted once.

    Args:
        reactor: the reactor.
        fd: the descriptor. Closed when it is adopted: the port has a duplicate, which
            child processes do not inherit.
        family: such as `socket.AF_UNIX`.
    """

    def __init__(self, reactor: object, fd: int, family: int) -> None:
        self._reactor = reactor
        self.fd = fd
        self.family = family

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Adopt the descriptor."""
        reactor: Any = listening_reactor(self._reactor)
        try:
            _family_of(f"fd:{self.fd}", self.fd)
            os.set_blocking(self.fd, False)
            port = reactor.adoptStreamPort(self.fd, self.family, protocolFactory)
            adopted = getattr(port, "socket", None)
            if adopted is not None:
                # A green socket, if the library is patched already, has to know.
                adopted.setblocking(False)
            os.close(self.fd)
        except Exception:
            return fail()
        return succeed(port)


@implementer(IStreamServerEndpoint)
class _HandedOverEndpoint:
    """An endpoint on a socket that the master process hands over."""

    def __init__(self, reactor: object) -> None:
        self._reactor: Any = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Return a port that accepts once it has adopted the socket."""
        return succeed(self._reactor.listen_later(protocolFactory))


def as_it_is(endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
    """Return an endpoint that leaves an adopted socket as it is; others unchanged."""
    if type(endpoint) is AdoptedStreamServerEndpoint:
        return AdoptedEndpoint(
            endpoint.reactor, endpoint.fileno, endpoint.addressFamily
        )
    return endpoint
