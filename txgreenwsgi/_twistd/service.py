"""The service that twistd runs, made from parsed options.

It knows the order in which the parts of the command start and stop. It must not
import the reactor or the application before the service starts; by then twistd has
daemonized and changed the user.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from twisted.application.service import IService, Service
from twisted.internet.defer import succeed
from twisted.logger import Logger, globalLogPublisher
from zope.interface import implementer

from txgreenwsgi._configuration import tls_options, uses_tls
from txgreenwsgi._control.sockets import ControlSocket
from txgreenwsgi._launch.collecting import freezer_for
from txgreenwsgi._launch.find_app import find_app
from txgreenwsgi._launch.patching import patch, patch_drivers
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._server.ports import listening_reactor
from txgreenwsgi._server.service import GreenService
from txgreenwsgi._server.urls import url_of_name
from txgreenwsgi._tls.stored import stored
from txgreenwsgi._twistd.announcement import MasterAnnouncer, announce_process
from txgreenwsgi._twistd.check import examine, report
from txgreenwsgi._twistd.check_config import check_start
from txgreenwsgi._twistd.log_observer import LogFormat
from txgreenwsgi._twistd.master import MasterService, make_master
from txgreenwsgi._twistd.master_process import MasterProcess
from txgreenwsgi._twistd.notify import Notifier
from txgreenwsgi._twistd.offloading import offload_names
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._twistd.signals import OperatorSignals
from txgreenwsgi._twistd.single_process import SingleProcess
from txgreenwsgi._twistd.starting import exit_with, log_path, without_traceback
from txgreenwsgi._twistd.surroundings import SurroundedService
from txgreenwsgi._twistd.watchdog import MARGIN_SECONDS, Watchdog
from txgreenwsgi._wsgi.log_descriptor import append_stderr_to
from txgreenwsgi._wsgi.standard_streams import replace_standard_streams
from txgreenwsgi.green import patched
from txgreenwsgi.isolation import isolate_loaded
from txgreenwsgi.monitoring import AccessLog
from txgreenwsgi.origins import adapt, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.logger import ILogObserver

    from txgreenwsgi._control.interface import Controlled
    from txgreenwsgi._workers.interface import MasterStatus
    from txgreenwsgi._wsgi.gateway import Application

__all__ = [
    "Options",
    "ServerParts",
    "app_loader",
    "log_path",
    "makeService",
    "make_server",
]

#: Time after the grace period for which systemd waits: the guardian has killed the
#: process by then.
_MARGIN_SECONDS: Final = MARGIN_SECONDS + 5.0
_log = Logger()


def makeService(options: Options, reactor: Any = None) -> IService:
    """Return the service for the given options.

    Imports neither the reactor nor the application, and opens nothing.

    Args:
        options: parsed options.
        reactor: by default, the reactor that is installed when the service starts.
    """
    load_app = app_loader(options)
    # Now, because the ports open, and the site would warn, before patching.
    patched.choose()
    if options.command.check:
        return _ReportService(
            lambda: _drivers(load_app, options.command.offload), reactor
        )
    if options.command.check_config:
        return _ReportService(lambda: check_start(load_app, options), reactor)
    for warning in options.warnings:
        _log.warn("{problem}", problem=warning)
    return _surrounded(options, reactor)


def _surrounded(options: Options, reactor: Any) -> IService:
    """Return the service that serves, with its log format and control socket."""
    app = options.command.app
    controlled: Controlled
    started: Callable[[], object]
    has_master = bool(options.command.workers) or options.command.reload
    if has_master:
        service, controlled = _master(options, reactor)
        started = _no_op
    else:
        service, server, _, _ = make_server(options, reactor)
        controlled = SingleProcess(app, server)
        started = announce_process(app, options.settings, server)
    control = ControlSocket(
        options.command.control,
        controlled,
        listening_reactor,
        has_workers=has_master,
    )
    log_format = LogFormat(options.command.log_format, options.parent)
    before_control: Deferred[None] = succeed(None)
    if isinstance(service, MasterService):
        before_control = service.predecessor_ended
    return SurroundedService(
        service, log_format, control, reactor, started, before_control
    )


def _master(options: Options, reactor: Any) -> tuple[Service, MasterProcess]:
    """Return the service of a master, and the master for the control socket."""
    command = options.command

    def urls(status: MasterStatus) -> list[str]:
        return list(map(url_of_name, status.listening, command.listen))

    service = make_master(options, reactor)
    controlled = MasterProcess(command.app, urls)
    announcer = MasterAnnouncer(command.app, options.settings, urls)
    service.on_start += [controlled.attach, announcer.attach]
    return service, controlled


def _no_op() -> None:
    """No-op callback."""


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
class _ReportService(Service):
    """`--check` and `--check-config`: print a report, then end the process.

    Args:
        make_report: returns the text and the exit status.
        reactor: by default, the reactor that is installed when the service starts.
    """

    def __init__(
        self, make_report: Callable[[], tuple[str, int]], reactor: Any
    ) -> None:
        self._make_report = make_report
        self._reactor = reactor

    def startService(self) -> None:
        """Print the report, and stop the reactor once it runs."""
        from twisted.internet import reactor

        super().startService()  # type: ignore[no-untyped-call]
        with without_traceback():
            text, status = self._make_report()
        # Not to `sys.stdout`, which twistd redirects to its log.
        print(text, end="", flush=True, file=sys.__stdout__)
        # twistd always exits with status 0, after it has removed its pidfile.
        atexit.register(exit_with, status)
        running: Any = self._reactor or reactor
        running.callWhenRunning(running.stop)


def _drivers(load_app: Callable[[], object], offload: Sequence[str]) -> tuple[str, int]:
    """Import the application, and return the report about its drivers."""
    load_app()
    return report(examine(offload))


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
        self._find_reactor()
        with without_traceback():
            self._listen()

    def startService(self) -> None:
        """Import the application, serve it, and watch for signals."""
        super().startService()  # type: ignore[no-untyped-call]
        self._find_reactor()
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

    def _find_reactor(self) -> None:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor

    def _listen(self) -> None:
        if self._log_path:
            # The watchdog logs why it cannot be opened.
            with contextlib.suppress(OSError):
                append_stderr_to(self._log_path)
        self._watchdog.prepare()
        globalLogPublisher.addObserver(cast("ILogObserver", self._watchdog.observe))
        self._notifier.main_process()
        self._signals.install(self._reactor)
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
