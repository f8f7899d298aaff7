"""The server of one process: the command without a master, or one of its workers.

It knows the order in which the parts of the process start and stop. It must not import
the reactor or the application before the service starts.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.application.service import IService, Service
from zope.interface import implementer

from txgreenwsgi._configuration import tls_options, uses_tls
from txgreenwsgi._launch.collecting import freezer_for
from txgreenwsgi._launch.find_app import find_app
from txgreenwsgi._launch.framework_failures import note_framework_failures
from txgreenwsgi._launch.patching import patch, patch_drivers
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._server.service import GreenService
from txgreenwsgi._tls.stored import stored
from txgreenwsgi._twistd.notify import Notifier
from txgreenwsgi._twistd.offloading import offload_names
from txgreenwsgi._twistd.signals import OperatorSignals
from txgreenwsgi._twistd.starting import (
    installed_reactor,
    log_path,
    prepare_process,
    without_traceback,
)
from txgreenwsgi._twistd.watchdog import MARGIN_SECONDS, Watchdog
from txgreenwsgi._wsgi.standard_streams import replace_standard_streams
from txgreenwsgi.isolation import isolate_loaded
from txgreenwsgi.monitoring import AccessLog
from txgreenwsgi.origins import adapt, prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from txgreenwsgi._twistd.options import Options
    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["ServerParts", "app_loader", "make_server"]


#: Time after the grace period for which systemd waits: the guardian has killed the
#: process by then.
_MARGIN_SECONDS: Final = MARGIN_SECONDS + 5.0


def app_loader(options: Options) -> Callable[[], Application]:
    """Return the function that patches, and imports the application."""

    def load_app() -> Application:
        _enter(options.command.chdir)
        patch(options.command.patch)
        isolate_loaded()
        offload_names(options.command.offload)
        prepare(options.command.origin)
        app = adapt(find_app(options.command.app), options.command.origin)
        patch_drivers(options.command.patch)
        note_framework_failures()
        return app

    return load_app


class ServerParts(NamedTuple):
    """The server of one process, and the parts around it."""

    service: Service
    server: GreenService
    watchdog: Watchdog
    signals: OperatorSignals


def make_server(
    options: Options,
    reactor: Any = None,
    server_class: type[GreenService] | None = None,
    stacks_path: str | None = None,
    load_app: Callable[[], Application] | None = None,
) -> ServerParts:
    """Return the service that serves in this process.

    Args:
        options: parsed options.
        reactor: as for `makeService`.
        server_class: the class of the server; by default `GreenService`.
        stacks_path: the log of twistd as a daemon; by default from the options.
        load_app: returns the application; by default `app_loader(options)`.
    """
    load_app = load_app or app_loader(options)
    if stacks_path is None:
        stacks_path = log_path(options)
    log = None
    if options.command.access_log is not None:
        log = AccessLog(
            options.command.access_log,
            options.command.access_log_format,
            options.command.access_log_skip,
        )
    freezer = freezer_for(options.command.gc)
    server = (server_class or GreenService)(
        load_app,
        options.command.listen,
        options.settings,
        (),
        reactor,
        log,
        freezer,
        tls=tls_options(options.command),
        ticket_secret=stored().secret,
    )
    settings = options.settings
    notifier = Notifier.taken_from(os.environ)
    stop_seconds = settings.drain_delay + settings.graceful_timeout + _MARGIN_SECONDS

    def drain() -> Deferred[None]:
        notifier.stopping(stop_seconds)
        return server.drain()

    watchdog = Watchdog(
        settings.graceful_timeout,
        server.cut_short,
        stacks_path,
        drain=drain,
        end_drain=server.end_drain,
        drain_seconds=settings.drain_delay,
    )
    # Registered first, so it is called after all exit handlers of the application.
    atexit.register(watchdog.exit_by_signal)
    signals = OperatorSignals(
        [] if log is None else [log.reopen],
        notifier=notifier,
        read_again=[server.read_certificates] if uses_tls(options.command) else [],
    )
    service = _CommandService(
        server, watchdog, signals, reactor, stacks_path, notifier, stop_seconds
    )
    return ServerParts(service, server, watchdog, signals)


def _enter(directory: str | None) -> None:
    """Change to `directory` and make its modules importable.

    Args:
        directory: None for the current directory.
    """
    if directory is not None:
        try:
            os.chdir(directory)
        except OSError as error:
            raise StartError(
                f"--chdir {directory!r} cannot be entered ({error}): give the "
                "directory of the application's modules"
            ) from None
    try:
        current = os.getcwd()
    except FileNotFoundError:
        raise StartError(
            "the current directory has been removed: restart the server in the new "
            "one, or give the path of the application's modules as --chdir"
        ) from None
    if sys.path[0] != current:
        sys.path.insert(0, current)


@implementer(IService)
class _CommandService(Service):
    """The server and its watchdog."""

    def __init__(
        self,
        server: GreenService,
        watchdog: Watchdog,
        signals: OperatorSignals,
        reactor: Any,
        log_path: str,
        notifier: Notifier,
        stop_seconds: float,
    ) -> None:
        self._signals = signals
        self._notifier = notifier
        self._stop_seconds = stop_seconds
        self._log_path = log_path
        self._server = server
        self._watchdog = watchdog
        self._reactor = reactor
        self._listening = False

    def privilegedStartService(self) -> None:
        """Listen while the process may still bind privileged ports."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._reactor = installed_reactor(self._reactor)
        with without_traceback():
            self._listen()

    def startService(self) -> None:
        """Import the application, serve it, and watch for signals."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor = installed_reactor(self._reactor)
        with without_traceback():
            if not self._listening:  # twist has no privileged start
                self._listen()
            self._server.startService()
        self._reactor.callWhenRunning(self._watchdog.install, self._reactor)
        # twist redirects the streams to its log only now.
        self._reactor.callWhenRunning(replace_standard_streams)
        if self._notifier:
            self._reactor.callWhenRunning(self._notify)

    def _notify(self) -> None:
        """Report that the service is ready, when it is, and its status from then on."""
        self._notifier.start(self._reactor, self._server.status)
        self._server.opened().addCallback(self._notify_opened)

    def _notify_opened(self, all_open: bool) -> None:
        if all_open:
            self._notifier.ready()

    def _listen(self) -> None:
        prepare_process(
            self._reactor,
            self._log_path,
            self._watchdog,
            self._notifier,
            self._signals,
        )
        self._server.privilegedStartService()
        self._listening = True

    def stopService(self) -> Deferred[None]:
        """Stop the server; the Deferred fires when the last request has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._listening = False
        self._notifier.stopping(self._stop_seconds)
        return self._server.stopService().addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        self._notifier.stop()
        return result
