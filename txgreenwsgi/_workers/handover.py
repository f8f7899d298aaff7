"""The handover from a master to its successor, which runs the same command anew.

The old master sends its listening sockets over a UNIX socket pair. The new one reports
when its workers are ready; then the old one drains. Neither ever closes a socket that
the other one uses, so no connection is refused or lost.

It knows sockets and messages. It must never know options.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from txgreenwsgi._server.stale_sockets import file_identity, is_abstract

from .link import Link
from .messages import Incoming, close_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from twisted.internet.interfaces import IReactorFDSet

    from .messages import Message

__all__ = ["HandedOver", "OwnedPath", "Predecessor", "write_pid"]

#: The variable with the number of the descriptor of the socket pair.
VARIABLE: Final = "TXGREENWSGI_PREDECESSOR"

# Bound at import, as in other files of this package.
_Socket = socket.socket


@dataclass(frozen=True)
class HandedOver:
    """The sockets of one endpoint string.

    Attributes:
        text: the endpoint string.
        sockets: the listening sockets.
        divided: whether each slot has a socket of its own.
        backlog: of a further socket.
        path: the path of a UNIX socket that the new master has to remove; "" for none.
    """

    text: str
    sockets: list[socket.socket]
    divided: bool
    backlog: int
    path: str


class OwnedPath:
    """A UNIX socket that another process has made, to be removed by this one.

    Takes over Twisted's lock beside it, if there is one.

    Args:
        path: absolute.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = None if is_abstract(path) else file_identity(path)
        self._lock = f"{path}.lock"
        if self._identity is not None and os.path.islink(self._lock):
            with suppress(OSError):  # not this user's
                temporary = f"{self._lock}.{os.getpid()}"
                os.symlink(str(os.getpid()), temporary)
                os.replace(temporary, self._lock)

    def remove(self) -> None:
        """Remove the socket and the lock, unless another server has replaced them."""
        identity = self._identity
        if identity is None or file_identity(self._path) != identity:
            return
        with suppress(OSError):  # not this user's; the next start removes it
            os.unlink(self._path)
        with suppress(OSError):
            if os.readlink(self._lock) == str(os.getpid()):
                os.unlink(self._lock)


def write_pid(fd: int, pid: int) -> None:
    """Replace the contents of a pidfile."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d" % pid, 0)


@dataclass
class Predecessor:
    """The master that this process replaces. Made by `taken_from`.

    Attributes:
        listeners: its sockets.
        log_path: its log as a daemon; "" if there is none.
        pidfile: the path of its pidfile; "" if there is none.
        pidfile_fd: a descriptor of that file; -1 if there is none.
        pid: its process id.
    """

    listeners: list[HandedOver] = field(default_factory=list)
    log_path: str = ""
    pidfile: str = ""
    pidfile_fd: int = -1
    pid: int = 0
    _connected: socket.socket | None = None
    _link: Link | None = None

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Predecessor | None:
        """Return the predecessor that the environment names, and remove the variable.

        Blocks until all sockets have arrived.

        Returns:
            None if this is an ordinary start.
        """
        text = environ.pop(VARIABLE, "")
        if not text.isdigit():
            return None
        fd = int(text)
        os.set_inheritable(fd, False)
        found = cls(_connected=_Socket(fileno=fd))
        found._read()
        return found

    def _read(self) -> None:
        connected = self._connected
        assert connected is not None, "set by `taken_from`"
        connected.setblocking(True)
        incoming = Incoming()
        while incoming.receive(connected):
            for message, descriptors in incoming.messages():
                if self._take(message, descriptors):
                    return
        raise SystemExit("the master that this process was to replace has ended")

    def _take(self, message: Message, descriptors: list[int]) -> bool:
        """Take one message; return True if it is the last one."""
        if message["do"] == "listen":
            self.listeners.append(
                HandedOver(
                    text=message["text"],
                    sockets=[_Socket(fileno=fd) for fd in descriptors],
                    divided=message["divided"],
                    backlog=message["backlog"],
                    path=message["path"],
                )
            )
            return False
        self.log_path = message["log"]
        self.pidfile = message["pidfile"]
        self.pid = message["pid"]
        self.pidfile_fd = descriptors[0] if descriptors else -1
        return True

    def attach(self, reactor: IReactorFDSet, ended: Callable[[], object]) -> None:
        """Watch the old master.

        Args:
            reactor: the installed reactor.
            ended: called once when it has ended.
        """
        connected, self._connected = self._connected, None
        assert connected is not None, "called once"
        self._link = Link(connected, reactor, _ignore, ended)

    def report_ready(self) -> None:
        """Tell the old master that this one serves."""
        if self._link is not None:
            self._link.send({"event": "ready"})


def _ignore(message: Message, descriptors: list[int]) -> None:
    close_descriptors(descriptors)


def variables(environ: dict[str, str], fd: int) -> dict[str, Any]:
    """Return the environment of a successor that inherits a descriptor."""
    return {**environ, VARIABLE: str(fd)}
