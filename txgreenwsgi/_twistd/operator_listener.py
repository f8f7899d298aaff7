"""A listener for operators, beside those of the application.

It serves a WSGI application of this package by a server of its own, so its requests are
in no log, table or metric of the application. It knows endpoints. It must never know
what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgreenwsgi._server.endpoints import make_endpoint
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._server.site import GreenSite
from txgreenwsgi._server.urls import url_of
from txgreenwsgi.settings import Settings

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort

    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["OperatorListener"]

_log = Logger()

#: Maximum numbers of connections and of requests at a time.
_MAX_CONNECTIONS: Final = 100
_MAX_REQUESTS: Final = 10


class _Site(GreenSite):
    """A site that says nothing about patching: its application needs none."""

    def startFactory(self) -> None:
        """Serve: called when the port listens."""
        self.server.resume()


class OperatorListener:
    """A listener. Call from the reactor greenlet.

    Args:
        option: the option that names the endpoint, for messages.
        endpoint: the endpoint string.
        application: the WSGI application.
        threads: the setting of the application's server, which shares its threads.
        max_requests: maximum number of requests at a time.
    """

    def __init__(
        self,
        option: str,
        endpoint: str,
        application: Application,
        threads: int,
        max_requests: int = _MAX_REQUESTS,
    ) -> None:
        self._option = option
        self._endpoint = endpoint
        self._application = application
        self._settings = Settings(
            threads=threads,
            blocked_after=0.0,
            max_connections=_MAX_CONNECTIONS,
            max_in_flight=max_requests,
            max_queued=max_requests,
            max_body=1024,
            server_header="",
        )
        self._site: GreenSite | None = None
        self._port: IListeningPort | None = None

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._port is not None

    def open(self, reactor: object) -> None:
        """Listen. A no-op if the port is open.

        Raises:
            StartError: the endpoint cannot be opened.
        """
        if self._port is not None:
            return
        endpoint = make_endpoint(reactor, self._endpoint)
        self._site = site = _Site(
            self._application,
            self._settings,
            reactor=reactor,  # type: ignore[arg-type]
        )
        opened: list[IListeningPort | Failure] = []
        endpoint.listen(site).addBoth(opened.append)
        if not opened:
            raise StartError(
                f"{self._option} {self._endpoint!r} does not open at once: give an "
                "endpoint such as tcp:127.0.0.1:9090"
            )
        (result,) = opened
        if isinstance(result, Failure):
            error = result.value
            if isinstance(error, CannotListenError):
                error = error.socketError
            raise StartError(
                f"{self._option} {self._endpoint!r} cannot be opened ({error}): give "
                "another port, or stop the process that uses it"
            ) from result.value
        self._port = result
        _log.info(
            "{option}: listening on {url}",
            option=self._option,
            url=url_of(result.getHost(), self._endpoint),
            is_routine=True,
        )

    def close(self) -> Deferred[None]:
        """Stop listening and close all connections. A no-op if the port is closed.

        Returns:
            A Deferred that fires when that is done.
        """
        port, self._port = self._port, None
        site, self._site = self._site, None
        if port is None or site is None:
            return succeed(None)
        closed = maybeDeferred(port.stopListening)
        return closed.addBoth(lambda _: site.stop(0))
