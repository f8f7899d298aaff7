"""The site as a Twisted service: startup, listening and graceful shutdown.

It knows endpoints and the order of a start: listen while still privileged, load
the application afterwards. It must never know how the application was named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    FirstError,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgreenwsgi._tls.options import TLSOptions
from txgreenwsgi._wsgi.standard_streams import (
    end_partial_lines,
    replace_standard_streams,
)
from txgreenwsgi.green import exits
from txgreenwsgi.settings import SettingError, Settings

from .accepting import AcceptThrottle
from .access_log import open_access_log
from .adopted import as_it_is
from .client_hello import read_client_hellos
from .endpoints import make_endpoint
from .errors import EndpointError, ListenError, StartError
from .https import HTTPSListeners, is_https
from .proxy_settings import unusable_setting
from .site import GreenSite
from .unpatched import SERVICE_REMEDY, log_if_unpatched
from .urls import url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import (
        IDelayedCall,
        IListeningPort,
        IReactorCore,
        IReactorTime,
        IStreamServerEndpoint,
    )

    from txgreenwsgi._wsgi.gateway import Application
    from txgreenwsgi.monitoring import AccessLog, ExchangeRecord

    from .collection import Freezer

__all__ = ["DEFAULT_LISTEN", "GreenService"]

_log = Logger()

DEFAULT_LISTEN = ("tcp:8080",)


class GreenService(Service):
    """A server of one application on any number of endpoints.

    A start may raise `StartError`, whose message gives the remedy, and the
    exceptions of `load_app`.

    Args:
        load_app: returns the WSGI application. Called when the service starts:
            after twistd has daemonized and changed the user.
        listen: endpoint strings, or objects that provide IStreamServerEndpoint.
        settings: see `txgreenwsgi.settings`.
        observers: called with each `ExchangeRecord`.
        reactor: the installed reactor by default.
        access_log: opened before the application is loaded, and closed after the
            last request.
        freezer: excludes the loaded application from garbage collection; None to
            leave the collector alone.
        waits_when_full: at `max_connections`, leave new connections in the backlog,
            where another process may accept them, instead of closing them.
        tls: the default TLS options of `https:` endpoints.
        ticket_secret: a secret that the processes of one server share, for the
            session tickets of `https:` endpoints; b"" for keys of this process alone.

    Attributes:
        site: the factory behind all endpoints.
        ports: the open ports, while the service runs.
        urls: their addresses as a person types them, such as "http://127.0.0.1:8080/".
    """

    def __init__(
        self,
        load_app: Callable[[], Application],
        listen: Sequence[str | IStreamServerEndpoint] = DEFAULT_LISTEN,
        settings: Settings | None = None,
        observers: Sequence[Callable[[ExchangeRecord], object]] = (),
        reactor: IReactorTime | None = None,
        access_log: AccessLog | None = None,
        freezer: Freezer | None = None,
        *,
        waits_when_full: bool = False,
        tls: TLSOptions | None = None,
        ticket_secret: bytes = b"",
    ) -> None:
        if isinstance(listen, str):
            raise TypeError(
                f"listen={listen!r} is one endpoint, not a list of them: give "
                f"[{listen!r}]"
            )
        self._load_app = load_app
        self._listen = list(listen)
        settings = settings or Settings()
        unusable = unusable_setting(settings, self._listen)
        if unusable is not None:
            name, value, problem, remedy = unusable
            raise SettingError(f"{name}={value!r}", problem, remedy)
        self._opening: list[Deferred[IListeningPort]] = []
        self._privileged = False
        self._refusal: Failure | None = None
        self._access_log = access_log
        self._freezer = freezer
        if access_log is not None:
            observers = [*observers, access_log.observe]
        self.ports: list[IListeningPort] = []
        self.urls: list[str] = []
        self.site = GreenSite(None, settings, observers=observers, reactor=reactor)
        self._https = HTTPSListeners(tls or TLSOptions(), self.site, ticket_secret)
        self._throttle: AcceptThrottle | None = None
        self._waits_when_full = waits_when_full
        self._is_cut_short = False
        self._drained = False
        self._drain_call: IDelayedCall | None = None
        self._after_drain: list[Deferred[None]] = []

    def privilegedStartService(self) -> None:
        """Listen while the process may still bind privileged ports.

        Connections queue in the backlog until the reactor runs; by then the
        application is loaded.

        Raises:
            EndpointError: an endpoint string is wrong, or a file or package that
                it needs is missing.
            ListenError: an endpoint cannot be opened, because the port is in use
                for instance.
        """
        self.end_drain()  # of a stop in progress
        self._privileged = True
        self._open()

    def startService(self) -> None:
        """Open the access log, load the application and serve it.

        Raises:
            StartError: the access log cannot be opened.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self.end_drain()  # of a stop in progress
        self._is_cut_short = False
        self._drained = False
        self.site.server.unready = ""
        self.site.server.resume()
        if self._access_log is not None:
            open_access_log(self._access_log, self.site.server.reactor)
        # The application may keep the streams, or need their buffers, at its import.
        replace_standard_streams()
        application = self._load_app()
        try:
            self.site.application = application
        except SettingError as error:
            raise StartError(str(error)) from None
        if self._freezer is not None:
            self._freezer.start()
        if not self._privileged:
            self._open()
        self._privileged = False
        self._https.start()

    def read_certificates(self) -> None:
        """Read the certificates of `https:` endpoints again; log what has changed.

        Files are read in a thread. Renewed certificates are also found without this
        call, within seconds.
        """
        self._https.read_again()

    def _open(self) -> None:
        log_if_unpatched(SERVICE_REMEDY)
        for listen in self._listen:
            described = listen if isinstance(listen, str) else ""
            try:
                opened = self._endpoint(listen).listen(self.site)
            except EndpointError:
                opened = Deferred()
                opened.errback(Failure())
            self._opening.append(opened)
            opened.addCallback(self._opened, described)
            opened.addErrback(self._not_opened, described)
            refusal, self._refusal = self._refusal, None
            if refusal is not None:
                self._close_ports()
                refusal.raiseException()

    def _endpoint(self, listen: str | IStreamServerEndpoint) -> IStreamServerEndpoint:
        if not isinstance(listen, str):
            return as_it_is(listen)
        if is_https(listen):
            return self._https.endpoint(listen, self._endpoint_of)
        return self._endpoint_of(listen)

    def _endpoint_of(self, text: str) -> IStreamServerEndpoint:
        """Return the endpoint for a string, or for that behind `https:`."""
        return make_endpoint(self.site.server.reactor, text)

    def _opened(self, port: IListeningPort, listen: str) -> IListeningPort:
        _log.info("listening on {address}", address=port.getHost(), is_routine=True)
        self.ports.append(port)
        self.urls.append(url_of(port.getHost(), listen))
        self._serve_port(port, listen)
        return port

    def _serve_port(self, port: IListeningPort, listen: str) -> None:
        if self._throttle is None:
            self._throttle = AcceptThrottle(
                self.site.server.reactor,
                (lambda: self.site.is_full) if self._waits_when_full else None,
            )
        self._throttle.watch(port)
        self.site.sockets.serve_port(port)
        if listen:  # the TLS options of an endpoint object may know other protocols
            read_client_hellos(port, self.site)
        if self.site.settings.proxy_protocol != "off":
            # Here, because most servers do not need it.
            from .proxy_header import read_proxy_headers

            read_proxy_headers(port, self.site)

    def _not_opened(self, failure: Failure, listen: str) -> None:
        if failure.check(CancelledError):
            return  # the service was stopped in the meantime
        error = failure.value
        if isinstance(error, (CannotListenError, OSError)):
            failure = Failure(ListenError(listen, error))
        if self._privileged and not self.running:
            # The caller of `privilegedStartService` gets the error.
            self._refusal = failure
            return
        _log.failure(
            "stopping the reactor: {error}", failure=failure, error=failure.value
        )
        reactor = cast("IReactorCore", self.site.server.reactor)
        reactor.callWhenRunning(reactor.stop)

    def opened(self) -> Deferred[bool]:
        """Return a Deferred that fires when no endpoint is still being opened.

        Its result is whether all of them are open.
        """
        return gatherResults(list(self._opening), consumeErrors=True).addCallbacks(
            lambda ports: None not in ports, lambda _: False
        )

    def status(self) -> str:
        """Return the state in a few words, such as "17 requests in flight"."""
        server = self.site.server
        count = len(server.table.exchanges)
        text = f"{count} request{'' if count == 1 else 's'} in flight"
        if server.shutdown.stopping:
            return f"stopping, {text}"
        return f"not ready, {text}" if server.unready_reason else text

    def drain(self) -> Deferred[None]:
        """Make the health check fail, and go on serving for `drain_delay`.

        The first part of `stopService`; call it before, so that other services run
        meanwhile.

        Returns:
            A Deferred that fires after that time, or in `end_drain`.
        """
        server = self.site.server
        server.unready = "the server is about to stop"
        done: Deferred[None] = Deferred()
        self._after_drain.append(done)
        skipped = self._drained or self._is_cut_short or not self.ports
        if skipped or not server.settings.drain_delay:
            self.end_drain()
        elif self._drain_call is None:
            self._drain_call = server.reactor.callLater(
                server.settings.drain_delay, self.end_drain
            )
        return done

    def end_drain(self) -> None:
        """Skip the rest of `drain_delay`. A no-op if no drain is in progress."""
        call, self._drain_call = self._drain_call, None
        if call is not None and call.active():
            call.cancel()
        waiting, self._after_drain = self._after_drain, []
        if waiting:
            self._drained = True
        for done in waiting:
            done.callback(None)

    def stopService(self) -> Deferred[None]:
        """Stop listening, let requests finish (see `GreenSite.stop`), close the log.

        Before that, `drain` if it was not called.

        Returns:
            A Deferred that fires when no request is left, at most one second after
            `graceful_timeout`.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        # Threads of the application must not keep the process alive, if it ends.
        settings = self.site.server.settings
        seconds = settings.graceful_timeout + exits.AFTER_GRACE_SECONDS
        if not self._drained:
            seconds += settings.drain_delay
        exits.set_time_limit(seconds)
        return self.drain().addCallback(self._stop)

    def _stop(self, _: None) -> Deferred[None]:
        self._privileged = False
        self._https.stop()
        for opening in self._opening:
            opening.cancel()
        self._opening.clear()
        stopped = self._close_ports().addBoth(self._stop_site)
        if self._access_log is not None:
            stopped.addBoth(self._close_access_log, self._access_log)
        if self._freezer is not None:
            self._freezer.stop()
        return stopped.addBoth(self._end_partial_lines)

    def _close_ports(self) -> Deferred[object]:
        ports, self.ports = self.ports, []
        self.urls.clear()
        if self._throttle is not None:
            self._throttle.forget()
        return gatherResults(
            [maybeDeferred(port.stopListening) for port in ports], consumeErrors=True
        ).addErrback(self._not_closed)

    def _not_closed(self, failure: Failure) -> None:
        failure.trap(FirstError)
        first = cast("FirstError", failure.value)
        _log.failure("cannot close a port", failure=first.subFailure)

    def _stop_site(self, _: object) -> Deferred[None]:
        return self.site.stop(0 if self._is_cut_short else None)

    @staticmethod
    def _close_access_log(
        result: Failure | None, access_log: AccessLog
    ) -> Failure | None:
        access_log.close()
        return result

    @staticmethod
    def _end_partial_lines(result: Failure | None) -> Failure | None:
        end_partial_lines()
        return result

    def cut_short(self) -> None:
        """End the drain and the grace period of `stopService`, or skip them.

        A second signal can arrive before the reactor has called `stopService`, or
        while the ports are being closed.
        """
        self._is_cut_short = True
        self.end_drain()
        self.site.cut_short()
