"""The service that twistd runs, made from parsed options.

It knows the order in which the parts of the command start and stop. It must not
import the reactor or the application before the service starts; by then twistd has
daemonized and changed the user.
"""

from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, Service
from twisted.internet.defer import succeed
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._control.sockets import ControlSocket
from txgreenwsgi._server.ports import listening_reactor
from txgreenwsgi._server.urls import url_of_name
from txgreenwsgi._twistd.announcement import MasterAnnouncer, announce_process
from txgreenwsgi._twistd.log_observer import LogFormat
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._twistd.server import app_loader, make_server
from txgreenwsgi._twistd.single_process import SingleProcess
from txgreenwsgi._twistd.starting import (
    exit_with,
    installed_reactor,
    log_path,
    without_traceback,
)
from txgreenwsgi._twistd.surroundings import Listener, SurroundedService
from txgreenwsgi.green import patched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from twisted.internet.defer import Deferred

    from txgreenwsgi._control.interface import Controlled
    from txgreenwsgi._server.service import GreenService
    from txgreenwsgi._twistd.master import MasterService
    from txgreenwsgi._twistd.master_process import MasterProcess
    from txgreenwsgi._twistd.operator_listener import OperatorListener
    from txgreenwsgi._workers.interface import MasterStatus
    from txgreenwsgi._wsgi.gateway import Application

__all__ = [
    "Options",
    "log_path",
    "makeService",
]

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
        # Here and below, because only this option needs these modules.
        from txgreenwsgi._twistd.check import examine, report

        def check_drivers() -> tuple[str, int]:
            load_app()
            return report(examine(options.command.offload))

        return _ReportService(check_drivers, reactor)
    if options.command.check_config:
        from txgreenwsgi._twistd.check_config import check_start

        return _ReportService(lambda: check_start(load_app, options), reactor)
    for warning in options.warnings:
        _log.warn("{problem}", problem=warning)
    return _surrounded(options, reactor)


def _surrounded(options: Options, reactor: Any) -> IService:
    """Return the service that serves, with its log format and control socket."""
    app = options.command.app
    service: Service
    controlled: Controlled
    started: Callable[[], object]
    before_control: Deferred[None] = succeed(None)
    has_master = bool(options.command.workers) or options.command.reload
    listeners: list[Listener] = []
    if has_master:
        master, controlled = _master(options, reactor)
        service = master
        started = _no_op
        before_control = master.predecessor_ended
        if master.metrics is not None:
            listeners.append(_metrics_listener(options, master.metrics.page))
    else:
        load_app = app_loader(options)
        if options.command.metrics:
            measured = _MeasuredProcess(options, load_app, lambda: server, reactor)
            listeners.append(_metrics_listener(options, measured.page))
            load_app = measured.load_app
        service, server, _, _ = make_server(options, reactor, load_app=load_app)
        controlled = SingleProcess(
            app, server, can_cancel=options.command.status_cancel
        )
        started = announce_process(app, options.settings, server)
    control = ControlSocket(
        options.command.control,
        controlled,
        listening_reactor,
        has_workers=has_master,
    )
    if options.command.status is not None:
        # Here, because few servers need these modules.
        from txgreenwsgi._twistd.status_page import StatusPage

        listeners.append(
            StatusPage(
                options.command.status,
                options.command.status_token or "",
                controlled,
                options.settings.threads,
            )
        )
    log_format = LogFormat(
        options.command.log_format, options.parent, options.command.log_level
    )
    return SurroundedService(
        service, log_format, control, reactor, started, before_control, listeners
    )


def _metrics_listener(options: Options, page: Application) -> OperatorListener:
    # Here, because only `--metrics` needs it.
    from txgreenwsgi._twistd.operator_listener import OperatorListener

    endpoint = options.command.metrics
    assert endpoint is not None, "metrics are wanted"
    return OperatorListener("--metrics", endpoint, page, options.settings.threads)


class _MeasuredProcess:
    """The metrics of this process, which start when the application is loaded.

    Args:
        options: parsed options.
        load_app: loads the application.
        server: returns the service of the application.
        reactor: by default, the reactor that is installed when the service starts.
    """

    def __init__(
        self,
        options: Options,
        load_app: Callable[[], Application],
        server: Callable[[], GreenService],
        reactor: Any,
    ) -> None:
        self._registry = options.command.metrics_application or ""
        self._load_app = load_app
        self._server = server
        self._reactor = reactor
        self._page: Application | None = None

    def load_app(self) -> Application:
        """Load the application and start its metrics."""
        app = self._load_app()
        # Here: the application patches modules before they are imported.
        from txgreenwsgi._twistd.metrics import process_metrics

        self._page = process_metrics(
            self._registry, self._server().site.server, installed_reactor(self._reactor)
        )
        return app

    def page(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a scrape. The listener's application."""
        assert self._page is not None, "the reactor runs, so the application is loaded"
        return self._page(environ, start_response)


def _master(options: Options, reactor: Any) -> tuple[MasterService, MasterProcess]:
    """Return the service of a master, and the master for the control socket."""
    from txgreenwsgi._twistd.master import make_master
    from txgreenwsgi._twistd.master_process import MasterProcess

    command = options.command

    def urls(status: MasterStatus) -> list[str]:
        return list(map(url_of_name, status.listening, command.listen))

    service = make_master(options, reactor)
    controlled = MasterProcess(command.app, urls, can_cancel=command.status_cancel)
    announcer = MasterAnnouncer(command.app, options.settings, urls)
    service.on_start += [controlled.attach, announcer.attach]
    return service, controlled


def _no_op() -> None:
    """No-op callback."""


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
        super().startService()  # type: ignore[no-untyped-call]
        # Before patching: the reactor must bind the originals.
        reactor = installed_reactor(self._reactor)
        with without_traceback():
            text, status = self._make_report()
        # Not to `sys.stdout`, which twistd redirects to its log.
        print(text, end="", flush=True, file=sys.__stdout__)
        # twistd always exits with status 0, after it has removed its pidfile.
        atexit.register(exit_with, status)
        reactor.callWhenRunning(reactor.stop)
