"""Errors that keep a server from starting, with the remedy for each.

It knows Twisted's and the operating system's errors of listening sockets. It must
never know how the message reaches the user.
"""

from __future__ import annotations

import errno
from socket import gaierror
from typing import Final

from twisted.internet.error import CannotListenError

__all__ = ["EndpointError", "ListenError", "StartError"]


class StartError(Exception):
    """The server cannot start. The message gives the reason and the remedy.

    Subclasses for a wrong endpoint string and for an endpoint that cannot be opened
    are also a ValueError and Twisted's CannotListenError, respectively.
    """


class EndpointError(StartError, ValueError):
    """An endpoint string that no reactor can listen on.

    Attributes:
        problem: the reason, as a clause that continues "the string ...".
        remedy: the correction, as an imperative.
    """

    def __init__(self, text: str, problem: str, remedy: str) -> None:
        super().__init__(f"listen={text!r} {problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


_ANOTHER: Final = "give another endpoint"

_REMEDIES: Final = {
    errno.EADDRINUSE: "stop the process that uses this address, or give another "
    "endpoint",
    errno.EADDRNOTAVAIL: "no network interface of this machine has this address; give "
    "one that it has, or leave interface= out for all addresses",
    errno.EAFNOSUPPORT: "this system does not support such addresses, IPv6 may be "
    "disabled; give an IPv4 endpoint, such as tcp:8080",
    errno.EINVAL: "give another address; a link-local one names its interface, as in "
    "interface=fe80\\:\\:1%eth0",
    errno.EEXIST: "remove the file, or give another path",
    errno.ENOENT: "give a path in an existing directory",
    errno.ENOTDIR: "give a path in an existing directory",
    errno.EROFS: "give a path on a file system that can be written",
}

_PORT_REMEDIES: Final = {
    errno.EACCES: "this user may not open a port below 1024; give a higher one, such "
    "as tcp:8080, start as root and change the user (--uid), or give the process the "
    "capability CAP_NET_BIND_SERVICE",
}

_PATH_REMEDIES: Final = {
    errno.EACCES: "give a path in a directory that this user may write to",
    errno.EINVAL: _ANOTHER,
}


def _remedy(error: object, *, is_path: bool) -> str:
    """Return the remedy for an error of a listening socket.

    Args:
        error: an OSError, or the text of an error of Twisted.
        is_path: whether it is a UNIX socket.
    """
    if isinstance(error, gaierror):
        return "give interface= the IP address of a network interface"
    if "path too long" in str(error):
        return "give a shorter path: systems allow about 100 bytes"
    number = getattr(error, "errno", None) or errno.EADDRINUSE
    special = _PATH_REMEDIES if is_path else _PORT_REMEDIES
    return special.get(number) or _REMEDIES.get(number, _ANOTHER)


class ListenError(StartError, CannotListenError):
    """An endpoint cannot be opened.

    A subclass of Twisted's `CannotListenError`, for programs that catch that.

    Args:
        endpoint: the endpoint string; "" for an endpoint object.
        error: the error of `listen`. An OSError comes from the lock file of a UNIX
            socket: Twisted propagates it unchanged.
    """

    def __init__(self, endpoint: str, error: CannotListenError | OSError) -> None:
        reason: object
        if isinstance(error, CannotListenError):
            reason = error.socketError
            place = (error.interface, error.port, reason)
        else:
            reason = error
            place = ("", error.filename2 or error.filename or endpoint, reason)
        CannotListenError.__init__(self, *place)
        self._endpoint = endpoint

    def __str__(self) -> str:
        place = f"{self.interface or 'any'}:{self.port}"
        if self._endpoint:
            place = repr(self._endpoint)
        remedy = _remedy(self.socketError, is_path=not isinstance(self.port, int))
        return f"cannot listen on {place} ({self.socketError}): {remedy}"
