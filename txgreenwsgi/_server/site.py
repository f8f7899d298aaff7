"""The factory of connections, for any stream endpoint of Twisted.

It knows how connections share one application server. It must never know a request.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from txgreenwsgi._http.parser import HeadLimits
from txgreenwsgi._native import lanes
from txgreenwsgi._serving.application_server import ApplicationServer
from txgreenwsgi.settings import Settings, refuse_settings

from .access_log import ServerAccessLog
from .h1_channel import H1Channel
from .half_close import HalfCloseChannel
from .handshakes import Handshakes
from .http2_package import check_http2
from .proxied_address import ProxiedAddress
from .sockets import Sockets
from .unpatched import PATCH_REFUSED, log_if_unpatched, patch_remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime
    from typing_extensions import Unpack

    from txgreenwsgi._serving.registry import Observer, RequestInFlight
    from txgreenwsgi._wsgi.gateway import Application
    from txgreenwsgi.monitoring.requests import Requests
    from txgreenwsgi.settings import SettingsKeywords

    from .access_log import AccessLogFormat, AccessLogTarget
    from .negotiation import Negotiation

__all__ = ["GreenSite"]

#: Settings about listening, which the owner of the ports controls.
_OF_PORTS = {
    "drain_delay": "use service(), or call stop() that time after SIGTERM",
    "proxy_protocol": "use service(), which reads the header before TLS",
    "proxy_protocol_from": "use service(), which reads the header before TLS",
}


@lanes.with_lanes
@implementer(IProtocolNegotiationFactory)
class GreenSite(Factory):
    """A factory that serves a WSGI application on any stream endpoint.

    There is no `patch=`: patching must precede the import of the application, and an
    application given as an object is already imported. Call
    `txgreenwsgi.monkey.patch_all()` before that import. The site logs a warning, once
    per process, if the program has made no choice about patching.

    Args:
        application: the WSGI callable; None if it is set later, before the first
            request.
        settings: see `txgreenwsgi.settings`; or give single settings as keywords.
        observers: callables that receive an `ExchangeRecord` when an exchange has
            ended. They must not park.
        reactor: the reactor; by default the installed one, imported at first use.
        access_log: the file to which a line is appended for each request; "-" is the
            process's standard output. The file opens when the first port listens, and
            closes with the last port. Connections that outlive the ports keep it open
            until `stop` has completed or the reactor has shut down. A relative path is
            relative to the working directory of this call.
        access_log_format: "combined" (Apache's format, then the duration in seconds
            and the request id) or "json" (one object per line).
        keywords: single settings.

    Raises:
        TypeError: both `settings` and keywords were given, or the application is not
            callable.
        SettingError: a setting does not exist or has an invalid value.
        ValueError: `access_log_format` is invalid.
        StartError: the access log cannot be opened. Listening also raises it,
            or fails with it, if the file has become inaccessible in the meantime.

    Attributes:
        server: the application server that all connections share.
    """

    noisy = False

    def __init__(
        self,
        application: Application | None = None,
        settings: Settings | None = None,
        observers: Iterable[Observer] = (),
        reactor: IReactorTime | None = None,
        *,
        access_log: AccessLogTarget | None = None,
        access_log_format: AccessLogFormat = "combined",
        **keywords: Unpack[SettingsKeywords],
    ) -> None:
        if settings is not None and keywords:
            raise TypeError(
                "give a Settings object or single settings by keyword, not both: "
                f"{', '.join(keywords)}"
            )
        refuse_settings(keywords, PATCH_REFUSED | _OF_PORTS, "GreenSite")
        settings = settings or Settings.from_keywords(**keywords)
        self._access_log: ServerAccessLog | None = None
        if access_log is not None:
            self._access_log = ServerAccessLog(access_log, access_log_format)
            observers = [*observers, self._access_log.observe]
        self.server = ApplicationServer(application, settings, observers, reactor)
        self._channel = (
            HalfCloseChannel if settings.half_close == "serve" else H1Channel
        )
        self._head_limits = HeadLimits(
            size=settings.max_header_size,
            fields=settings.max_headers,
            target=settings.max_target,
            trailers=settings.max_trailer_size,
            chunk_extensions=settings.max_chunk_extensions,
        )
        if settings.http2 != "off":
            check_http2(settings.http2)

    @property
    def application(self) -> Application | None:
        """The WSGI application; it may be replaced between requests."""
        application: Application | None = self.server.application
        return application

    @application.setter
    def application(self, application: Application | None) -> None:
        self.server.application = application
        if application is not None:
            self.server.open_static()

    @property
    def settings(self) -> Settings:
        """The settings, as given."""
        return self.server.settings

    @property
    def stopping(self) -> bool:
        """Whether a shutdown has begun: connections close after their next response."""
        return self.server.shutdown.stopping

    @cached_property
    def _handshakes(self) -> Handshakes:
        """The TLS handshakes in progress."""
        server = self.server
        return Handshakes(server.settings.max_handshakes, server.reactor)

    @cached_property
    def sockets(self) -> Sockets:
        """The poller of the plain connections."""
        self.server.bind()
        return Sockets(self.server.reactor, self.settings.half_close == "serve")

    def startFactory(self) -> None:
        """Serve: called when the first port listens, also again after `stop`.

        Raises:
            StartError: the access log cannot be opened.
        """
        # First: a stop that it calls off closes the log.
        self.server.resume()
        if self._access_log is not None:
            # Before the log opens, so that at the reactor's shutdown the remaining
            # tasks end before the log closes.
            self.server.bind()
            self._access_log.open(self.server.reactor)
        log_if_unpatched(patch_remedy("GreenSite"))

    def stopFactory(self) -> None:
        """Close the access log: called when the last port has closed.

        Requests on open connections may still end; the log then closes after `stop`.
        """
        self.server.stop_if_idle()
        if self.server.is_idle:
            self._close_access_log()

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> H1Channel | Negotiation | None:
        """Return the protocol of a new connection; None above `max_connections`."""
        if self.is_full:
            return None
        if self.server.settings.http2 != "off":
            return self._negotiation(addr)
        return self._http1(addr)

    def _http1(self, addr: IAddress | None) -> H1Channel:
        return self._channel(
            self.server,
            self.sockets,
            self._head_limits,
            self._handshakes,
            _proxied(addr),
        )

    @cached_property
    def _negotiation(self) -> Callable[[IAddress | None], Negotiation]:
        """Make connections that become HTTP/1.1 or HTTP/2."""
        # Here, because few servers need these modules, and h2 is optional.
        from txgreenwsgi._http2.connection import Http2Limits

        from .h2_channel import H2Channel
        from .negotiation import Negotiation, NegotiationFactory

        settings = self.settings
        limits = Http2Limits(
            self._head_limits, settings.http2_max_streams, settings.input_window
        )

        def make(addr: IAddress | None, http2: bool) -> IProtocol:
            if not http2:
                return self._http1(addr)
            return H2Channel(self.server, self.sockets, limits, _proxied(addr))

        self.server.bind()
        factory = NegotiationFactory(
            self, self._handshakes, make, settings.http2 == "h2c"
        )
        return partial(Negotiation, factory)

    @property
    def is_full(self) -> bool:
        """Whether `max_connections` are open."""
        limit = self.server.settings.max_connections
        return limit > 0 and len(self.server.shutdown.connections) >= limit

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols for ALPN (RFC 7301), for clients that offer it."""
        if self.server.settings.http2 == "off":
            return [b"http/1.1"]
        return [b"h2", b"http/1.1"]

    def requests(self) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first. Never parks."""
        return self.server.requests()

    @property
    def live(self) -> Requests:
        """The requests in flight, with snapshots and stacks."""
        return self.server.live

    def stop(self, grace_seconds: float | None = None) -> Deferred[None]:
        """Answer the requests that were received, then close all connections.

        Stop listening first; call from the reactor greenlet. Connections without a
        request close after `drain_idle`, or after the response to a request that
        arrives by then; the others after their response. After the grace
        period `Cancelled` is raised in each remaining request; a second later their
        tasks are killed and their connections aborted.

        Args:
            grace_seconds: the grace period; `graceful_timeout` by default.

        Returns:
            A Deferred that fires when no connection and no request is left, or
            when the site serves again.
        """
        return self.server.stop(grace_seconds).addBoth(self._stopped)

    def _stopped(self, result: None) -> None:
        if not self.numPorts:  # else a port still listens, or is about to close
            self._close_access_log()

    def _close_access_log(self) -> None:
        if self._access_log is not None:
            self._access_log.close()

    def cut_short(self) -> None:
        """End the grace period of a shutdown in progress; otherwise a no-op."""
        self.server.shutdown.end_grace_now()


def _proxied(given: object) -> ProxiedAddress | None:
    """Return the address given, if a proxy has named it by the PROXY protocol."""
    return given if type(given) is ProxiedAddress else None
