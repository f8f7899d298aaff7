"""A listener for operators, beside those of the application.

It serves a WSGI application of this package by a server of its own, so its requests are
in no log, table or metric of the application. It knows endpoints. It must never know
what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from txgreenwsgi._server.endpoints import make_endpoint
from txgreenwsgi._server.errors import ListenError, StartError
from txgreenwsgi._server.operator_address import operator_endpoint
from txgreenwsgi._server.ports import listening_reactor
from txgreenwsgi._server.site import GreenSite
from txgreenwsgi._server.urls import url_of
from txgreenwsgi.settings import Settings

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort

    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["OperatorListener"]

_log = Logger()

#: Maximum number of connections, and of requests, at a time.
_MOST: Final = 100

#: Time for requests in progress when the listener closes.
_GRACE_SECONDS: Final = 0.5


class _Site(GreenSite):
    """A site that says nothing about patching: its application needs none."""

    def startFactory(self) -> None:
        """Serve: called when the port listens."""
        self.server.resume()


class OperatorListener:
    """A listener. Call from the reactor greenlet.

    Args:
        option: the option that names the address, for messages, such as "--status".
        address: see `operator_endpoint`.
        application: the WSGI application. It runs in tasks of this process.
    """

    def __init__(self, option: str, address: str, application: Application) -> None:
        self._option = option
        self._address = address
        self._application = application
        self._port: IListeningPort | None = None
        self._site: GreenSite | None = None

    def open(self, reactor: object) -> None:
        """Listen. Call with the final user of the process.

        Raises:
            StartError: the address cannot be opened.
        """
        settings = Settings(
            threads=1,  # the highest number of all servers in a process applies
            blocked_after=0.0,
            drain_idle=0.0,
            max_body=65536,
            max_connections=_MOST,
            max_in_flight=_MOST,
            max_queued=0,
        )
        self._site = site = _Site(
            self._application, settings, reactor=cast("Any", reactor)
        )
        endpoint = make_endpoint(
            listening_reactor(reactor), operator_endpoint(self._address)
        )
        opened: list[IListeningPort] = []
        failed: list[BaseException] = []
        endpoint.listen(site).addCallbacks(
            opened.append, lambda failure: failed.append(failure.value)
        )
        for error in failed:
            if isinstance(error, (CannotListenError, OSError)):
                reason = ListenError(self._address, error)
                raise StartError(f"{self._option}: {reason}") from None
            raise error
        if not opened:
            raise StartError(
                f"{self._option} {self._address!r} does not open at once: give an "
                "address such as tcp:127.0.0.1:9090"
            )
        (self._port,) = opened
        _log.info(
            "{option}: listening on {url}",
            option=self._option,
            url=url_of(self._port.getHost(), self._address),
            is_routine=True,
        )

    def close(self) -> Deferred[None]:
        """Stop listening, and end the requests in progress. A no-op if it is closed.

        Returns:
            A Deferred that fires when that is done.
        """
        port, self._port = self._port, None
        site, self._site = self._site, None
        if port is None or site is None:
            return succeed(None)
        closed = maybeDeferred(port.stopListening)
        return closed.addCallback(lambda _: site.stop(_GRACE_SECONDS))
