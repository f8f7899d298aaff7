"""A worker class for gunicorn: `gunicorn -k txgreenwsgi.gunicorn.GreenWorker`.

gunicorn binds the sockets, starts and replaces the workers and writes the logs; each
worker serves its requests in greenlets on a reactor of its own. See docs/gunicorn.md
for the options.

This module knows gunicorn's worker processes: signals, heartbeat, the order of a start.
The arbiter imports it, so it must not import the reactor before the fork.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.workers.base import Worker
from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner

from ._gunicorn.configuration import WorkerConfiguration, configuration_for, is_changed
from ._gunicorn.logs import ErrorLogObserver
from ._gunicorn.requests import Requests
from ._gunicorn.schemes import ForwardedScheme
from ._launch.collecting import freezer_for
from ._launch.forkable import reactor_importers
from ._launch.patching import patch, patch_drivers
from ._server.errors import StartError
from ._server.service import GreenService
from ._switching.errors import TimedOut
from ._switching.greenlets import Task, current_task
from ._switching.waiting import in_greenlet, spawn
from ._twistd.offloading import offload_names
from .green import exits, patched
from .isolation import isolate_loaded
from .origins import adapt, prepare

if TYPE_CHECKING:
    from collections.abc import Iterable
    from socket import socket
    from types import FrameType

    from twisted.internet.defer import Deferred

    from ._wsgi.gateway import Application
    from .monitoring import ExchangeRecord
    from .settings import Settings

__all__ = ["GreenWorker"]

_REACTOR: Final = "twisted.internet.reactor"

# Made before the fork, so that a client can resume a TLS session in any worker.
_TICKET_SECRET: Final = os.urandom(32)

#: Time between two heartbeats. Shorter if gunicorn's timeout is.
_HEARTBEAT_SECONDS: Final = 1.0
#: Time for a quick shutdown, and to exit after the grace period. Then the process ends
#: without cleaning up.
_QUICK_SECONDS: Final = 5.0
#: Maximum time at shutdown for calls of the hook post_request.
_HOOK_SECONDS: Final = 2.0


class GreenWorker(Worker):  # type: ignore[misc]
    """A worker of gunicorn that serves requests in greenlets on Twisted's reactor.

    gunicorn creates it, in the arbiter, and calls `init_process` after the fork.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Here, because the hook post_fork may install a reactor for the worker.
        self._inherited_reactor = _REACTOR in sys.modules
        self._reactor: Any = None
        self._service: GreenService | None = None
        self._stopping = False
        self._notified = 0.0
        self._status = 0
        self._hooks: set[Task[Any]] = set()

    # The start, in the order of the calls.

    def init_signals(self) -> None:
        """Install the signal handlers; `faulthandler` writes the stacks at SIGABRT."""
        super().init_signals()
        # gunicorn resets it. A terminal that closes sends it to the workers too, but
        # it is the arbiter's to act on.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # The arbiter sends SIGABRT to a worker without heartbeats. The handler of
        # Python runs only if the interpreter does, that of `faulthandler` in any case.
        # It calls the one that it replaces, so the order matters.
        faulthandler.disable()
        signal.signal(signal.SIGABRT, self.handle_abort)
        faulthandler.enable(self._stacks_file())

    def load_wsgi(self) -> None:
        """Install the reactor and patch the library, then import the application."""
        if self._inherited_reactor:
            raise AppImportError(_inherited_reactor_text(self.cfg.preload_app))
        try:
            configuration = configuration_for(self.cfg, os.environ)
            from twisted.internet import reactor

            self._reactor = reactor
            globalLogBeginner.beginLoggingTo(
                [ErrorLogObserver(self.log.error_log)], redirectStandardIO=False
            )
            for warning in configuration.warnings:
                self.log.warning("%s", warning)
            # Before patching: the listening sockets must not be green.
            patched.choose()
            self._service = service = self._make_service(configuration)
            service.privilegedStartService()
            patch(configuration.command.patch)
            isolate_loaded()
            offload_names(configuration.command.offload)
            prepare(configuration.command.origin)
        except StartError as error:
            raise AppImportError(f"txgreenwsgi cannot start: {error}") from error
        super().load_wsgi()
        patch_drivers(configuration.command.patch)

    def run(self) -> None:
        """Serve until a signal or the arbiter ends the worker.

        Raises:
            SystemExit: with status 1 after SIGABRT.
        """
        service = self._service
        if not self.alive or service is None:  # SIGTERM during the import
            return
        for listener in self.sockets:
            # The port has a duplicate. With --reuse-port, connections would wait for a
            # socket that is open after its port has closed.
            listener.close()
        reactor = self._reactor
        reactor.callWhenRunning(self._started)
        reactor.addSystemEventTrigger("before", "shutdown", self._shut_down)
        exits.install()
        service.startService()
        self._beat()
        reactor.run()
        if self._status:
            sys.exit(self._status)

    def _make_service(self, configuration: WorkerConfiguration) -> GreenService:
        requests = self._make_requests()
        observers = [requests.observe] if requests.observes else []
        if self.max_requests != sys.maxsize:
            observers.append(self._count)

        def load_app() -> Application:
            application: Application = adapt(self.wsgi, configuration.command.origin)
            return requests.wrap(self._with_scheme(application, configuration.settings))

        service = GreenService(
            load_app,
            [self._endpoint(each.sock, configuration) for each in self.sockets],
            configuration.settings,
            observers,
            self._reactor,
            None,
            freezer_for(configuration.command.gc),
            waits_when_full=True,
            tls=configuration.tls,
            ticket_secret=_TICKET_SECRET,
        )
        service.site.server.environ["wsgi.multiprocess"] = self.cfg.workers > 1
        return service

    def _endpoint(self, listening: socket, configuration: WorkerConfiguration) -> str:
        """Return the endpoint string of a socket that gunicorn has opened."""
        fd = os.dup(listening.fileno())
        return f"fd:{fd}" if configuration.tls is None else f"https:fd:{fd}"

    def _with_scheme(self, application: Application, settings: Settings) -> Application:
        """Return the application, with the URL scheme that a proxy reports."""
        fields = self.cfg.secure_scheme_headers
        if not fields or settings.trusted_proxy or settings.url_scheme:
            return application
        return ForwardedScheme(application, self.cfg.forwarded_allow_ips, fields)

    def _make_requests(self) -> Requests:
        cfg, log = self.cfg, self.log
        access = None
        if type(log).access is not GunicornLogger.access or (
            cfg.accesslog
            or cfg.logconfig
            or cfg.logconfig_dict
            or cfg.logconfig_json
            or (cfg.syslog and not cfg.disable_redirect_access_to_syslog)
        ):
            access = log.access
        return Requests(
            access,
            self._pre_request if is_changed(cfg, "pre_request") else None,
            self._post_request if is_changed(cfg, "post_request") else None,
        )

    def _pre_request(self, request: object) -> None:
        self.cfg.pre_request(self, request)

    def _post_request(self, request: object, environ: object, response: object) -> None:
        # In a task, because hooks may wait, and the caller may not.
        task = spawn(self._call_post_request, request, environ, response)
        self._hooks.add(task)

    def _call_post_request(self, *arguments: object) -> None:
        try:
            self.cfg.post_request(self, *arguments)
        except Exception:
            self.log.exception("Exception in post_request hook")
        finally:
            task = current_task()
            if task is not None:
                self._hooks.discard(task)

    def _started(self) -> None:
        # The reactor has replaced the handler when it started.
        signal.signal(signal.SIGTERM, self.handle_exit)
        if not self.alive:
            self._stop()

    # While it serves.

    def _beat(self) -> None:
        """Prove to the arbiter that the reactor turns. Repeats itself."""
        self.notify()
        self._notified = time.monotonic()
        if self.ppid != os.getppid() and not self._stopping:
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False
        if not self.alive:
            self._stop()
        interval = self._heartbeat_seconds
        self._reactor.callLater(interval, self._beat)

    @property
    def _heartbeat_seconds(self) -> float:
        # `timeout` is half of the option; 0 for none.
        half = float(self.timeout)
        return min(_HEARTBEAT_SECONDS, half / 2) if half else _HEARTBEAT_SECONDS

    def _count(self, record: ExchangeRecord) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            self._reactor.callFromThread(self._stop)

    # The end.

    def _stop(self) -> None:
        if not self._stopping:
            try:
                self._reactor.stop()
            except ReactorNotRunning:
                # It has not started, and `_started` repeats the call, or the
                # application has stopped it.
                return
            self._stopping = True

    def _shut_down(self) -> Deferred[None]:
        self.alive = False
        self._stopping = True
        service = self._service
        assert service is not None
        stopped = service.stopService()
        stopped.addCallback(lambda _: in_greenlet(self._join_hooks)())
        return stopped

    def _join_hooks(self) -> None:
        deadline = time.monotonic() + _HOOK_SECONDS
        for task in list(self._hooks):
            try:
                task.wait(timeout=max(deadline - time.monotonic(), 0.0))
            except TimedOut:
                self.log.warning("post_request hook does not end: %s", task)

    # Signals. A handler may interrupt any bytecode, and any task.

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: answer the requests that were received, then exit."""
        if not self.alive:
            return
        self.alive = False
        if self._reactor is None:
            return
        self._limit_exit(float(self.cfg.graceful_timeout) + _QUICK_SECONDS)
        self._reactor.callFromThread(self._stop)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT and SIGQUIT: cancel the requests in flight, then exit."""
        self.alive = False
        if self._service is None:
            super().handle_quit(sig, frame)
            return
        self._limit_exit(_QUICK_SECONDS)
        self._reactor.callFromThread(self._quit)

    def _quit(self) -> None:
        assert self._service is not None
        self._service.cut_short()
        self.cfg.worker_int(self)
        self._stop()

    def _limit_exit(self, seconds: float) -> None:
        """End the process after some seconds, if it still runs."""
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stacks_file())

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """SIGUSR1: reopen the logs."""
        if self._reactor is None:
            self._reopen_logs()
        else:
            self._reactor.callFromThread(self._reopen_logs)

    def _reopen_logs(self) -> None:
        self.log.reopen_files()
        # It keeps the descriptor, which is another file's by now.
        faulthandler.enable(self._stacks_file())

    def handle_winch(self, sig: int, frame: FrameType | None) -> None:
        """SIGWINCH: ignored, as in gunicorn's workers."""

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """SIGABRT: the heartbeat has stopped. Name the request, and exit.

        The blocked code gets SystemExit, so that its `finally` blocks run. The arbiter
        kills the process a second later.
        """
        self.alive = False
        self._status = 1
        blocked_for = time.monotonic() - self._notified
        service = self._service
        if service is not None:
            for row in service.site.requests():
                if row.state == "running":
                    self.log.critical(
                        "%s %s (request %s) has blocked the worker for %.1f s",
                        row.method,
                        row.path,
                        row.request_id,
                        blocked_for,
                    )
        self.cfg.worker_abort(self)
        if service is None:
            sys.exit(1)
        self._limit_exit(_QUICK_SECONDS)
        self._reactor.callFromThread(service.cut_short)
        self._reactor.callFromThread(self._stop)
        if blocked_for > 2 * self._heartbeat_seconds:
            sys.exit(1)

    def _stacks_file(self) -> TextIO:
        """Return the file of the error log; standard error if it has none."""
        handlers: Iterable[Any] = self.log.error_log.handlers
        for handler in handlers:
            stream: TextIO | None = getattr(handler, "stream", None)
            try:
                if stream is not None:
                    stream.fileno()
                    return stream
            except (OSError, ValueError):
                continue
        assert sys.__stderr__ is not None
        return sys.__stderr__


def _inherited_reactor_text(is_preloaded: bool) -> str:
    """Return the message for a reactor that was installed before the fork."""
    names = reactor_importers()
    where = f" (by {', '.join(names)})" if names else ""
    remedy = (
        "remove --preload, or import the reactor in functions"
        if is_preloaded
        else "import the reactor in the hook post_worker_init, or in functions"
    )
    return (
        f"txgreenwsgi cannot start: {_REACTOR} was imported{where} before the fork, "
        f"and workers would share its descriptors; {remedy}"
    )
