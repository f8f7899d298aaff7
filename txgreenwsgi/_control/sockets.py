"""The control socket of a server: its place, and when it is open.

It knows Twisted's ports. It must never know commands.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from .interface import ControlError
from .paths import SOCKET_MODE, check_directory, default_path, remove_leftovers
from .place import AUTOMATIC, NONE
from .server import ControlFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IListeningPort, IReactorUNIX

    from .interface import Controlled

__all__ = ["ControlSocket"]

_log = Logger()


class ControlSocket:
    """The socket of one server. Call from the reactor greenlet.

    Args:
        place: a path, `AUTOMATIC` or `NONE`.
        has_workers: whether the server has a master.
        controlled: carries commands out.
        listening: returns the reactor whose ports replace the socket of a server that
            was killed.
    """

    def __init__(
        self,
        place: str,
        controlled: Controlled,
        listening: Callable[[object], Any],
        *,
        has_workers: bool,
    ) -> None:
        self._is_automatic = place == AUTOMATIC
        self._is_wanted = has_workers if self._is_automatic else place != NONE
        # Now, because the process may change its directory.
        self._path = "" if self._is_automatic else os.path.abspath(place)
        self._controlled = controlled
        self._listening = listening
        self._port: IListeningPort | None = None

    def open(self, reactor: object) -> None:
        """Listen, if a socket is wanted. Call with the final user of the process.

        A default place that cannot be used is logged.

        Raises:
            ControlError: a given place cannot be used.
        """
        if not self._is_wanted:
            return
        try:
            self._open(self._listening(reactor))
        except ControlError as error:
            if not self._is_automatic:
                raise
            _log.warn("no control socket: {error}", error=error)

    def _open(self, reactor: IReactorUNIX) -> None:
        path = self._path
        if self._is_automatic:
            path = default_path()
            remove_leftovers(path)
        else:
            check_directory(path)
        factory = ControlFactory(self._controlled)
        try:
            self._port = reactor.listenUNIX(path, factory, mode=SOCKET_MODE)
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            raise ControlError(
                f"--control {path!r} cannot be opened ({reason}): give the path of a "
                "new socket, or stop the server that uses it"
            ) from None
        _log.info("control socket at {path}", path=path, is_routine=True)

    def close(self) -> Deferred[None]:
        """Stop listening. Commands in progress are answered if the process lives.

        Returns:
            A Deferred that fires when the socket is removed.
        """
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)
