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
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import IService, Service
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from txgreenwsgi._launch.collecting import freezer_for
from txgreenwsgi._launch.find_app import find_app
from txgreenwsgi._launch.patching import patch, patch_drivers
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._server.service import GreenService
from txgreenwsgi._twistd.announcement import announce
from txgreenwsgi._twistd.check import examine, report
from txgreenwsgi._twistd.log_observer import LogFormat
from txgreenwsgi._twistd.offloading import offload_names
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._twistd.signals import OperatorSignals
from txgreenwsgi._twistd.watchdog import Watchdog
from txgreenwsgi._wsgi.log_descriptor import append_stderr_to
from txgreenwsgi._wsgi.standard_streams import replace_standard_streams
from txgreenwsgi.green import patched
from txgreenwsgi.isolation import isolate_loaded
from txgreenwsgi.monitoring import AccessLog
from txgreenwsgi.origins import adapt, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from twisted.internet.defer import Deferred
    from twisted.logger import ILogObserver

    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["Options", "log_path", "makeService"]


def makeService(options: Options, reactor: Any = None) -> IService:
    """Return the service for the given options.

    Imports neither the reactor nor the application, and opens nothing.

    Args:
        options: parsed options.
        reactor: by default, the reactor that is installed when the service starts.
    """

    def load_app() -> Application:
        _enter(options["chdir"])
        patch(options["patch"])
        isolate_loaded()
        offload_names(options["offload"])
        prepare(options["origin"])
        app = adapt(find_app(options["app"]), options["origin"])
        patch_drivers(options["patch"])
        return app

    # Now, because the ports open, and the site would warn, before patching.
    patched.choose()
    if options["check"]:
        return _CheckService(load_app, options["offload"], reactor)
    log = None
    if options["access-log"] is not None:
        log = AccessLog(options["access-log"], options["access-log-format"])
    freezer = freezer_for(options["gc"])
    server = GreenService(
        load_app, options["listen"], options.settings, (), reactor, log, freezer
    )
    watchdog = Watchdog(
        options.settings.graceful_timeout, server.cut_short, log_path(options)
    )
    # Registered first, so it is called after all exit handlers of the application.
    atexit.register(watchdog.exit_by_signal)
    signals = OperatorSignals([] if log is None else [log.reopen])
    log_format = LogFormat(options["log-format"], options.parent)

    def announce_start() -> None:
        announce(options["app"], server.urls, options.settings)

    return _CommandService(
        server,
        watchdog,
        signals,
        reactor,
        log_path(options),
        log_format,
        announce_start,
    )


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
    current = os.getcwd()
    if sys.path[0] != current:
        sys.path.insert(0, current)


def log_path(options: Options) -> str:
    """Return the log file of twistd as a daemon; "" if there is none.

    Call before twistd changes its working directory.
    """
    parent: Any = options.parent or {}
    if parent.get("nodaemon", True) or parent.get("debug") or parent.get("syslog"):
        return ""
    return os.path.abspath(parent.get("logfile") or "twistd.log")


@contextlib.contextmanager
def _without_traceback() -> Iterator[None]:
    """Let a `StartError` end the process with its message and without a traceback.

    In twistd and twist, an exception raised by a starting service ends the process
    with status 1 and a traceback. The traceback helps if the application's code
    failed, but not if an option is wrong. Only the hook that prints tracebacks can
    suppress it: a SystemExit would leave twistd's pidfile behind.
    """
    try:
        yield
    except StartError as error:
        # If a module exits at import, the traceback shows the place.
        if not isinstance(error.__cause__, SystemExit):
            sys.excepthook = _print_message
        raise


def _print_message(
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    if isinstance(error, StartError):
        print(f"txgreenwsgi cannot start: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


@implementer(IService)
class _CheckService(Service):
    """`--check`: report the drivers of the application, then end the process."""

    def __init__(
        self, load_app: Callable[[], object], offload: list[str], reactor: Any
    ) -> None:
        self._load_app = load_app
        self._offload = offload
        self._reactor = reactor

    def startService(self) -> None:
        """Import the application, report, and stop the reactor once it runs."""
        from twisted.internet import reactor

        super().startService()  # type: ignore[no-untyped-call]
        with _without_traceback():
            self._load_app()
        text, status = report(examine(self._offload))
        # Not to `sys.stdout`, which twistd redirects to its log.
        print(text, end="", flush=True, file=sys.__stdout__)
        # twistd always exits with status 0, after it has removed its pidfile.
        atexit.register(_exit_with, status)
        running: Any = self._reactor or reactor
        running.callWhenRunning(running.stop)


def _exit_with(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)


@implementer(IService)
class _CommandService(Service):
    """The server and its watchdog."""

    def __init__(
        self,
        server: GreenService,
        watchdog: Watchdog,
        signals: OperatorSignals,
        reactor: Any = None,
        log_path: str = "",
        log_format: LogFormat | None = None,
        announce_start: Callable[[], object] = lambda: None,
    ) -> None:
        self._announce_start = announce_start
        self._log_format = log_format
        self._signals = signals
        self._log_path = log_path
        self._server = server
        self._watchdog = watchdog
        self._reactor = reactor
        self._listening = False

    def setServiceParent(self, parent: object) -> None:
        """Join twistd's application, and choose the format of its log."""
        if self._log_format is not None:
            self._log_format.enter_application(parent)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Listen while the process may still bind privileged ports."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._find_reactor()
        with _without_traceback():
            self._listen()

    def startService(self) -> None:
        """Import the application, serve it, and watch for signals."""
        super().startService()  # type: ignore[no-untyped-call]
        self._find_reactor()
        with _without_traceback():
            if not self._listening:  # twist has no privileged start
                self._listen()
            self._server.startService()
        self._announce_start()
        self._reactor.callWhenRunning(self._watchdog.install, self._reactor)
        # twist begins its log, and redirects the streams to it, only now.
        if self._log_format is not None and self._log_format.is_late:
            self._reactor.callWhenRunning(self._log_format.enter_log)
        self._reactor.callWhenRunning(replace_standard_streams)

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
        self._signals.install(self._reactor)
        self._server.privilegedStartService()
        self._listening = True

    def stopService(self) -> Deferred[None]:
        """Stop the server; the Deferred fires when the last request has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._listening = False
        return self._server.stopService()
