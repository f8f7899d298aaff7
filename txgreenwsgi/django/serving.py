"""A development server in this process: listen, log, serve, stop.

It knows the server and the reactor. It must never know commands or watch files.
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from txgreenwsgi._server.service import GreenService
from txgreenwsgi._twistd.watchdog import Watchdog
from txgreenwsgi.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication
    from twisted.internet.interfaces import (
        IReactorCore,
        IReactorFromThreads,
        IReactorTCP,
        IReactorTime,
    )

    class _Reactor(IReactorCore, IReactorTime, IReactorFromThreads, IReactorTCP): ...

    from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["Server"]

#: Grace period for requests in flight at shutdown; short, for development.
GRACE_SECONDS = 1.0
_BACKLOG = 1024
_POLL_SECONDS = 1.0

_request_log = logging.getLogger("django.server")


def _log_line(record: ExchangeRecord) -> None:
    """Log a request as `runserver` does."""
    target = record.target.encode("unicode_escape").decode("ascii")
    if record.status >= 500:
        level = logging.ERROR
    elif record.status >= 400 or not record.status:
        level = logging.WARNING
    else:
        level = logging.INFO
    _request_log.log(
        level,
        '"%s %s %s" %s %s',
        record.method,
        target,
        record.version,
        record.status or "-",
        record.bytes_sent,
        # Django's log formatter chooses the colour by it.
        extra={"status_code": record.status},
    )


def _address_of(host: str, port: int, ipv6: bool) -> str:
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    return str(found[0][4][0])


class Server:
    """A development server for one application on one port.

    Args:
        application: the WSGI callable.
        host: the name or address to listen on.
        port: the port; 0 for any free one.
        ipv6: True for IPv6, False for IPv4.
    """

    def __init__(
        self, application: WSGIApplication, host: str, port: int, ipv6: bool
    ) -> None:
        from twisted.internet import reactor

        self._reactor = cast("_Reactor", reactor)
        endpoint = (TCP6ServerEndpoint if ipv6 else TCP4ServerEndpoint)(
            self._reactor, port, _BACKLOG, _address_of(host, port, ipv6)
        )
        settings = Settings.from_keywords(
            graceful_timeout=GRACE_SECONDS, drain_idle=0, display_tracebacks=True
        )
        self._service = GreenService(
            lambda: application, [endpoint], settings, [_log_line], self._reactor
        )
        self._status = 0

    def listen(self) -> int:
        """Start to listen and return the port.

        Raises:
            OSError: the address cannot be used.
        """
        try:
            self._service.privilegedStartService()
        except CannotListenError as error:
            raise error.socketError from error
        address = self._service.ports[0].getHost()
        assert isinstance(address, (IPv4Address, IPv6Address))
        return address.port

    def stop(self, status: int = 0) -> None:
        """Make `serve` return `status`. Call from any thread."""
        self._reactor.callFromThread(self._stop, status)

    def _stop(self, status: int) -> None:
        if self._reactor.running:  # and not stopping already
            self._status = status
            self._reactor.stop()

    def serve(self, is_wanted: Callable[[], bool] = lambda: True) -> int:
        """Serve until a signal or `stop`, and return the exit status.

        Args:
            is_wanted: called every second; False stops the server.
        """
        globalLogBeginner.beginLoggingTo(
            [
                FilteringLogObserver(
                    textFileLogObserver(sys.stderr),
                    [LogLevelFilterPredicate(LogLevel.warn)],
                )
            ],
            redirectStandardIO=False,
        )
        reactor = self._reactor
        watchdog = Watchdog(GRACE_SECONDS, self._service.cut_short)
        watchdog.prepare()
        self._service.startService()
        reactor.addSystemEventTrigger("before", "shutdown", self._service.stopService)
        reactor.callWhenRunning(watchdog.install, reactor)

        def poll() -> None:
            if is_wanted():
                reactor.callLater(_POLL_SECONDS, poll)
            else:
                self._stop(0)

        poll()
        reactor.run()
        return self._status
