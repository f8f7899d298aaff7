"""From parsed options to the service that twistd runs.

This file knows in which order things start and stop. It must neither import
the reactor nor the application before the service starts: twistd has daemonized
and shed its privileges by then.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from zope.interface import implementer

from txgreenwsgi._server.service import GreenService
from txgreenwsgi._twistd.check import examine, report
from txgreenwsgi._twistd.find_app import AppNotFound, find_app
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._twistd.patching import (
    NotFound,
    offload_names,
    patch,
    patch_drivers,
)
from txgreenwsgi._twistd.watchdog import Watchdog
from txgreenwsgi.isolation import isolate_loaded
from txgreenwsgi.monitoring.accesslog import AccessLog
from txgreenwsgi.origins import adapt, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from _typeshed.wsgi import WSGIApplication
    from twisted.internet.interfaces import IReactorTime

__all__ = ["CannotStart", "Options", "makeService"]


class CannotStart(Exception):
    """The command line asks for what cannot be had; the message says what.

    Where the stack of our own code would say nothing more to the user, this
    ends the process with the message alone.
    """


def makeService(options: Options, reactor: Any = None) -> IService:
    """The service that serves what the options say.

    Imports neither the reactor nor the application, opens nothing.

    Args:
        options: parsed ones.
        reactor: the one installed when the service starts, by default.
    """

    def load_app() -> WSGIApplication:
        _enter(options["chdir"])
        patch(options["patch"])
        isolate_loaded()
        try:
            offload_names(options["offload"])
            prepare(options["origin"])
            app = adapt(find_app(options["app"]), options["origin"])
        except NotFound as error:
            raise CannotStart(str(error)) from None
        except AppNotFound as error:
            if error.__cause__ is not None:
                raise  # something of the application's own: show where
            raise CannotStart(str(error)) from None
        patch_drivers(options["patch"])
        return app

    if options["check"]:
        return _CheckService(load_app, options["offload"], reactor)
    log = None
    if options["access-log"] is not None:
        log = AccessLog(options["access-log"], options["access-log-format"])
    green = GreenService(
        load_app,
        options["listen"],
        options.settings,
        observers=[log.observe] if log is not None else [],
        reactor=reactor,
    )
    watchdog = Watchdog(
        options.settings.graceful_timeout, green.cut_short, _log_path(options)
    )
    return _CommandService(green, log, watchdog, reactor)


def _enter(directory: str | None) -> None:
    """Make the application's modules importable, from where it expects to be."""
    if directory is not None:
        try:
            os.chdir(directory)
        except OSError as error:
            raise CannotStart(
                f"--chdir {directory!r} cannot be entered ({error}): give the "
                "directory that the application's modules are in"
            ) from None
    here = os.getcwd()
    if sys.path[0] != here:
        sys.path.insert(0, here)


def _log_path(options: Options) -> str:
    """The file that twistd logs to as a daemon, "" if it does not.

    To be asked before twistd leaves the directory it was started in.
    """
    parent: Any = options.parent or {}
    if parent.get("nodaemon", True) or parent.get("debug") or parent.get("syslog"):
        return ""
    return os.path.abspath(parent.get("logfile") or "twistd.log")


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Let the process end by a message where that says it all.

    Both twistd and twist let what is raised while a service starts end the
    process, with status 1 and its traceback. For an error of the application's
    that is what helps. For a wrong word in the command it is not, and the hook
    that prints tracebacks is the one place to say so: a SystemExit would leave
    twistd's pidfile behind.
    """
    try:
        yield
    except CannotListenError as error:
        sys.excepthook = _print_message
        raise CannotStart(
            f"{error} Give --listen another endpoint, or stop what is there."
        ) from error
    except CannotStart:
        sys.excepthook = _print_message
        raise


def _print_message(
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    if isinstance(error, CannotStart):
        print(f"txgreenwsgi cannot start: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


@implementer(IService)
class _CheckService(Service):
    """Imports the application, says what of it blocks, and ends the process."""

    def __init__(
        self, load_app: Callable[[], object], offload: list[str], reactor: Any
    ) -> None:
        self._load_app = load_app
        self._offload = offload
        self._reactor = reactor

    def startService(self) -> None:
        """Look, tell, and stop the reactor as soon as it runs."""
        from twisted.internet import reactor

        super().startService()  # type: ignore[no-untyped-call]
        with _telling():
            self._load_app()
        text, status = report(examine(self._offload))
        # Not to twistd's log, which `sys.stdout` is now.
        print(text, end="", flush=True, file=sys.__stdout__)
        # twistd always exits with 0, after it has removed its pidfile.
        atexit.register(_exit_with, status)
        turning: Any = self._reactor or reactor
        turning.callWhenRunning(turning.stop)


def _exit_with(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)


@implementer(IService)
class _CommandService(Service):
    """The server and what belongs to the process: access log and signals.

    Not a MultiService, which stops all its children at the same time: the
    access log must outlive the last request.
    """

    def __init__(
        self,
        green: GreenService,
        log: AccessLog | None,
        watchdog: Watchdog,
        reactor: Any = None,
    ) -> None:
        self._green = green
        self._log = log
        self._watchdog = watchdog
        self._reactor = reactor
        self._listening = False

    def privilegedStartService(self) -> None:
        """Listen, while ports below 1024 may still be opened."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._watchdog.prepare()
        with _telling():
            self._listen()

    def startService(self) -> None:
        """Open the access log, import the application and begin to serve."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        with _telling():
            if not self._listening:  # twist has no privileged start
                self._listen()
            if self._log is not None:
                self._open_log(self._log, self._reactor)
            self._green.startService()
        self._reactor.callWhenRunning(self._watchdog.install, self._reactor)

    def _listen(self) -> None:
        try:
            self._green.privilegedStartService()
        except OSError as error:
            # The lock beside a UNIX socket: Twisted lets its errors pass as they are.
            raise CannotStart(
                f"--listen cannot be opened ({error}): give a path in a directory "
                "that is there and that this user may write to"
            ) from error
        self._listening = True

    def stopService(self) -> Deferred[None]:
        """Stop serving; when the last request has ended, close the access log."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._listening = False
        stopped = maybeDeferred(self._green.stopService)
        if self._log is not None:
            stopped.addBoth(self._close_log, self._log)
        return stopped

    @staticmethod
    def _open_log(log: AccessLog, clock: IReactorTime) -> None:
        try:
            log.open(clock)
        except OSError as error:
            raise CannotStart(
                f"--access-log cannot be opened ({error}): give a file that this "
                "user may write"
            ) from error

    @staticmethod
    def _close_log(result: Any, log: AccessLog) -> Any:
        log.close()
        return result
