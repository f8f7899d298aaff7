"""Listening, and stopping well: a site as a Twisted service.

It knows endpoints and the order of a start: listen while still privileged, load
the application after. It must never know how the application was named.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    FirstError,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger

from txgreenwsgi.settings import Settings

from .accepting import Accepting
from .site import GreenSite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
    from twisted.python.failure import Failure

    from txgreenwsgi._wsgi.gateway import Application
    from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["DEFAULT_LISTEN", "GreenService", "service"]

_log = Logger()

DEFAULT_LISTEN = ("tcp:8080",)

#: Twisted's default of 50 refuses connections in a burst.
_BACKLOG = 1024
_TAKES_BACKLOG = re.compile(r"(tcp6?|ssl|unix):")


class GreenService(Service):
    """Serves one application on any number of endpoints.

    Args:
        load_app: returns the WSGI application. It is called when the service
            starts: after daemonize and setuid.
        listen: endpoint strings, or objects that provide IStreamServerEndpoint.
        settings: see `txgreenwsgi.settings`.
        observers: called with each `ExchangeRecord`.
        reactor: the installed one by default.

    Attributes:
        site: the factory behind all endpoints.
        ports: what is listened on, while it runs.
    """

    def __init__(
        self,
        load_app: Callable[[], Application],
        listen: Sequence[str | IStreamServerEndpoint] = DEFAULT_LISTEN,
        settings: Settings | None = None,
        observers: Sequence[Callable[[ExchangeRecord], object]] = (),
        reactor: Any = None,
    ) -> None:
        if isinstance(listen, str):
            raise TypeError(
                f"listen is a list of endpoints, not one: give [{listen!r}]"
            )
        self._load_app = load_app
        self._listen = list(listen)
        self._opening: list[Deferred[IListeningPort]] = []
        self._privileged = False
        self._refusal: Failure | None = None
        self.ports: list[IListeningPort] = []
        self.site = GreenSite(
            None, settings or Settings(), observers=observers, reactor=reactor
        )
        self._accepting: Accepting | None = None

    def privilegedStartService(self) -> None:
        """Listen, while the process may still use low ports.

        The sockets take connections from here on; the first is served when the
        reactor runs, and by then the application is loaded.
        """
        self._privileged = True
        self._open()

    def startService(self) -> None:
        """Load the application and serve it."""
        super().startService()  # type: ignore[no-untyped-call]
        self.site.stopping = False
        self.site.application = self._load_app()
        if not self._privileged:
            self._open()
        self._privileged = False

    def _open(self) -> None:
        reactor = self.site.server.reactor
        for listen in self._listen:
            if isinstance(listen, str):
                endpoint = serverFromString(reactor, _with_backlog(listen))
            else:
                endpoint = listen
            opened = endpoint.listen(self.site)
            self._opening.append(opened)
            opened.addCallbacks(
                self._opened, self._not_opened, errbackArgs=(str(listen),)
            )
            refusal, self._refusal = self._refusal, None
            if refusal is not None:
                self._close_ports()
                refusal.raiseException()

    def _opened(self, port: IListeningPort) -> IListeningPort:
        _log.info("listening on {address}", address=port.getHost())
        self.ports.append(port)
        if self._accepting is None:
            self._accepting = Accepting(self.site.server.reactor)
        self._accepting.watch(port)
        self.site.sockets.serve_port(port)
        return port

    def _not_opened(self, failure: Failure, listen: str) -> None:
        if failure.check(CancelledError):
            return  # we have stopped meanwhile
        if self._privileged and not self.running:
            # Whoever starts us is still there to be told.
            self._refusal = failure
            return
        _log.failure("cannot listen on {listen}", failure=failure, listen=listen)
        self.site.server.reactor.callWhenRunning(self.site.server.reactor.stop)

    def stopService(self) -> Deferred[None]:
        """Stop listening, then let requests end; see `GreenSite.stop`.

        Returns:
            A Deferred that fires when none is left, within the grace and a second.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._privileged = False
        for opening in self._opening:
            opening.cancel()
        self._opening.clear()
        return self._close_ports().addBoth(self._closed)

    def _close_ports(self) -> Deferred[Any]:
        ports, self.ports = self.ports, []
        if self._accepting is not None:
            self._accepting.forget()
        return gatherResults(
            [maybeDeferred(port.stopListening) for port in ports], consumeErrors=True
        ).addErrback(self._not_closed)

    def _not_closed(self, failure: Failure) -> None:
        failure.trap(FirstError)
        error: Any = failure.value
        _log.failure("a port cannot be closed", failure=error.subFailure)

    def _closed(self, result: Any) -> Deferred[None]:
        return self.site.stop()

    def cut_short(self) -> None:
        """End the grace of `stopService` now."""
        self.site.cut_short()


def _with_backlog(listen: str) -> str:
    if _TAKES_BACKLOG.match(listen) and ":backlog=" not in listen:
        return f"{listen}:backlog={_BACKLOG}"
    return listen


def service(
    app: Application,
    listen: Sequence[str | IStreamServerEndpoint] = DEFAULT_LISTEN,
    *,
    observers: Sequence[Callable[[ExchangeRecord], object]] = (),
    reactor: Any = None,
    **settings: Any,
) -> GreenService:
    """A service that serves `app`; for `.tac` files and existing services.

    Args:
        app: the WSGI application.
        listen: endpoint strings such as "tcp:8080" or "unix:/run/app.sock", or
            endpoint objects.
        observers: each is called with an `ExchangeRecord` after each exchange.
        reactor: the installed one by default.
        settings: see `txgreenwsgi.settings`.

    Raises:
        SettingError: a setting does not exist or has a value it cannot have.
        TypeError: `app` is not callable.
    """
    if not callable(app):
        raise TypeError(f"a WSGI application is callable, and {app!r} is not")
    return GreenService(
        lambda: app,
        listen,
        Settings.from_keywords(**settings),
        observers,
        reactor,
    )
