"""The factory of HTTP/1.1 connections, for any stream endpoint of Twisted."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from txgreenwsgi._http.parser import HeadLimits
from txgreenwsgi._serving.application_server import ApplicationServer
from txgreenwsgi.settings import Settings

from .h1_channel import H1Channel
from .sockets import Sockets
from .unpatched import log_if_unpatched

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IReactorTime

    from txgreenwsgi._serving.registry import Observer, RequestInFlight
    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["GreenSite"]


@implementer(IProtocolNegotiationFactory)
class GreenSite(Factory):
    """Serves a WSGI application on the connections of any stream endpoint.

    Args:
        application: the WSGI callable; None if it is set later, before the first
            request.
        settings: see `txgreenwsgi.settings`; or give single settings as keywords.
        observers: each is called with an `ExchangeRecord` when an exchange has
            ended. It must not park.
        reactor: the installed one by default, from the first use on.

    Raises:
        TypeError: both `settings` and keywords were given.
        SettingError: a setting does not exist or has an invalid value.

    Attributes:
        server: everything that the connections share.
    """

    noisy = False

    def __init__(
        self,
        application: Application | None = None,
        settings: Settings | None = None,
        observers: Iterable[Observer] = (),
        reactor: IReactorTime | None = None,
        **keywords: Any,
    ) -> None:
        if settings is not None and keywords:
            raise TypeError(
                "give a Settings object or single settings by keyword, not both: "
                f"{', '.join(keywords)}"
            )
        settings = settings or Settings.from_keywords(**keywords)
        self.server = ApplicationServer(application, settings, observers, reactor)
        self._head_limits = HeadLimits(
            size=settings.max_header_size,
            fields=settings.max_headers,
            target=settings.max_target,
            trailers=settings.max_trailer_size,
            chunk_extensions=settings.max_chunk_extensions,
        )

    @property
    def application(self) -> Application | None:
        """The WSGI application; it may be replaced between requests."""
        application: Application | None = self.server.application
        return application

    @application.setter
    def application(self, application: Application | None) -> None:
        self.server.application = application

    @property
    def settings(self) -> Settings:
        """The settings, as given."""
        return self.server.settings

    @property
    def stopping(self) -> bool:
        """Whether connections close after their next response."""
        return self.server.shutdown.stopping

    @cached_property
    def sockets(self) -> Sockets:
        """Watches the plain connections."""
        self.server.bind()
        return Sockets(self.server.reactor)

    def startFactory(self) -> None:
        """Serve: called when a port begins to listen, also again after `stop`."""
        self.server.resume()
        log_if_unpatched()

    def buildProtocol(self, addr: IAddress | None) -> H1Channel | None:  # type: ignore[override]
        """Return the protocol of a new connection, None beyond `max_connections`."""
        server = self.server
        limit = server.settings.max_connections
        if limit and len(server.shutdown.connections) >= limit:
            return None
        return H1Channel(server, self.sockets, self._head_limits)

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols for ALPN (RFC 7301): clients that ask need an answer."""
        return [b"http/1.1"]

    def requests(self) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first. Never parks."""
        return self.server.requests()

    def stop(self, grace_seconds: float | None = None) -> Deferred[None]:
        """Answer the requests that were received, then close all connections.

        Call when no port listens any more, from the reactor greenlet. Connections
        without a request close at once, the others after their response. After
        the grace period `Cancelled` is raised in each request that is left; a
        second later their tasks are killed and their connections cut.

        Args:
            grace_seconds: the grace period; `graceful_timeout` by default.

        Returns:
            A Deferred that fires when no connection and no request is left, or
            when the site serves again.
        """
        return self.server.stop(grace_seconds)

    def cut_short(self) -> None:
        """End the grace period of a `stop` in progress. Otherwise a no-op."""
        self.server.shutdown.end_grace_now()
