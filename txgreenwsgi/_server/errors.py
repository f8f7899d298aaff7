"""Errors that keep a server from starting, with the remedy for each.

It knows Twisted's and the operating system's errors of listening sockets. It must
never know how the message reaches the user.
"""

from __future__ import annotations

import errno
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


_REMEDIES: Final = {
    errno.EADDRINUSE: "stop the process that uses this address, or give another "
    "endpoint",
    errno.EADDRNOTAVAIL: "give an address of this machine",
    errno.EACCES: "give a port above 1023 or a path that this user may write to, or "
    "start as root and let twistd change the user (--uid)",
    errno.EEXIST: "remove the file, or give another path",
    errno.ENOENT: "give a path in an existing directory",
}


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
        number = getattr(self.socketError, "errno", None) or errno.EADDRINUSE
        remedy = _REMEDIES.get(number, "give another endpoint")
        return f"cannot listen on {place} ({self.socketError}): {remedy}"
