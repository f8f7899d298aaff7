"""The service of the master, made from parsed options.

It knows the order in which the parts of the master start and stop, and its signals. It
must never import the application.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._configuration import listener_options, uses_tls
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._switching.steady_clock import use_steady_clock
from txgreenwsgi._tls.stored import store
from txgreenwsgi._twistd.master_observers import SuccessorObserver, SystemdObserver
from txgreenwsgi._twistd.master_process import MAX_WORKERS
from txgreenwsgi._twistd.notify import Notifier
from txgreenwsgi._twistd.signals import OperatorSignals
from txgreenwsgi._twistd.starting import (
    exit_with,
    installed_reactor,
    log_path,
    prepare_process,
    without_traceback,
)
from txgreenwsgi._twistd.watchdog import MARGIN_SECONDS, Watchdog
from txgreenwsgi._workers.boot import Boot
from txgreenwsgi._workers.cpus import usable_cpus
from txgreenwsgi._workers.endings import KILL_MARGIN_SECONDS
from txgreenwsgi._workers.forking import ForkingLauncher
from txgreenwsgi._workers.handover import Predecessor, write_pid
from txgreenwsgi._workers.master import Master
from txgreenwsgi._workers.master_parts import MasterSettings
from txgreenwsgi._workers.page import Page, create_page
from txgreenwsgi._workers.process import Launcher, worker_environment
from txgreenwsgi._workers.sockets import ListeningSockets
from txgreenwsgi._workers.succession import Place, Succession
from txgreenwsgi._wsgi.log_descriptor import STDERR_FD
from txgreenwsgi._wsgi.standard_streams import replace_standard_streams

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from txgreenwsgi._reloading.reloader import Reloader
    from txgreenwsgi._tls.options import TLSOptions
    from txgreenwsgi._twistd.metrics import MasterMetrics
    from txgreenwsgi._twistd.options import Options
    from txgreenwsgi._workers.interface import MasterControl

__all__ = ["MasterService", "make_master"]

_log = Logger()

#: The function that runs a worker.
ENTRY: Final = "txgreenwsgi._twistd.worker:run"

#: The function that runs a fork server.
FORK_ENTRY: Final = "txgreenwsgi._twistd.fork_server:run"

#: Time for a new master to start, beside that for its workers.
_SUCCESSION_SECONDS: Final = 30.0

#: The options of twistd that the options of the command depend on.
_OF_PARENT: Final = ("nodaemon", "debug", "syslog", "logfile", "chroot", "rundir")


def make_master(options: Options, reactor: Any = None) -> MasterService:
    """Return the service of the master for the given options.

    Imports neither the reactor nor the application, and opens nothing.

    Args:
        options: parsed options.
        reactor: by default, the reactor that is installed when the service starts.
    """
    command = options.command
    workers = usable_cpus() if command.workers == "auto" else int(command.workers)
    if command.reload:
        workers = 1
    parent: Any = options.parent or {}
    metrics: MasterMetrics | None = None
    if command.metrics:
        # Here, because only this option needs it.
        from txgreenwsgi._twistd.metrics import MasterMetrics

        metrics = MasterMetrics(has_application=bool(command.metrics_application))
    return MasterService(
        MasterSettings(
            workers=workers,
            boot_timeout=command.boot_timeout,
            graceful_timeout=options.settings.graceful_timeout,
            reload_parallel=command.reload_parallel,
            # A debugger blocks the reactor for as long as its user likes.
            worker_timeout=0.0 if command.reload else command.worker_timeout,
            development=command.reload,
        ),
        options.settings.drain_delay,
        Boot(
            entry=ENTRY,
            arguments=options.arguments,
            parent={name: parent.get(name) for name in _OF_PARENT if name in parent},
            path=list(sys.path),
            listen=list(command.listen),
            directory="" if parent.get("chroot") else options.directory,
            uses_tls=uses_tls(command),
            development=command.reload,
            preload=command.preload,
        ),
        reactor,
        log_path(options),
        command.reload_extra,
        parent,
        options.predecessor,
        lambda: listener_options(command),
        metrics,
    )


@implementer(IService)
class MasterService(Service):
    """A server whose requests are served by worker processes.

    Args:
        settings: of the master.
        drain_delay: seconds between a signal and the end of accepting.
        boot: the start message of workers, without the reactor.
        reactor: by default, the reactor that is installed when the service starts.
        stacks_path: the log of twistd as a daemon; "" if there is none.
        extra: in development, patterns of further files to watch.
        parent: the options of twistd. At the end, twistd removes the pidfile that they
            name.
        predecessor: the master that this process replaces.
        tls: returns the options of each TLS endpoint.
        metrics: the metrics of all workers; None for none.

    Attributes:
        metrics: as given.
        on_start: functions that are called with the master before it starts workers;
            for parts of the command that use it.
        master: the master, from the start of the service on.
        predecessor_ended: fires when the master that this process replaces has ended;
            has fired if there is none.
    """

    master: Master

    def __init__(
        self,
        settings: MasterSettings,
        drain_delay: float,
        boot: Boot,
        reactor: Any = None,
        stacks_path: str = "",
        extra: Sequence[str] = (),
        parent: MutableMapping[str, Any] | None = None,
        predecessor: Predecessor | None = None,
        tls: Callable[[], list[TLSOptions]] = list,
        metrics: MasterMetrics | None = None,
    ) -> None:
        self._tls = tls
        self.metrics = metrics
        self._parent: MutableMapping[str, Any] = {} if parent is None else parent
        self._predecessor = predecessor
        self._pidfile = ""
        self._pidfile_fd = -1
        self._succession: Succession | None = None
        self._is_replaced = False
        self.predecessor_ended: Deferred[None] = Deferred()
        if predecessor is None:
            self.predecessor_ended.callback(None)
        self._extra = extra
        self._reloader: Reloader | None = None
        self.on_start: list[Callable[[MasterControl], object]] = []
        self._settings = settings
        self._drain_delay = drain_delay
        self._draining: list[Deferred[None]] = []
        self._drain_call: IDelayedCall | None = None
        self._notifier = Notifier.taken_from(os.environ)
        self._boot = boot
        self._reactor = reactor
        self._stacks_path = stacks_path
        self._page = -1
        self._fork_servers: ForkingLauncher | None = None
        self._sockets: ListeningSockets | None = None
        self._watchdog = Watchdog(
            settings.graceful_timeout,
            self._cut_short,
            stacks_path,
            drain=self._drain,
            end_drain=self._end_drain,
            drain_seconds=drain_delay,
            slack_seconds=KILL_MARGIN_SECONDS,
            is_master=True,
        )
        self._signals = OperatorSignals(
            [self._reopen_workers],
            notifier=self._notifier,
            actions={
                "SIGHUP": self._reload,
                "SIGUSR2": self._replace,
                "SIGTTIN": lambda: self._scale(1),
                "SIGTTOU": lambda: self._scale(-1),
            },
        )
        # Registered first, so it is called after all other exit handlers.
        atexit.register(self._watchdog.exit_by_signal)

    def privilegedStartService(self) -> None:
        """Open the sockets while the process may still bind privileged ports."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        with without_traceback():
            self._open()

    def startService(self) -> None:
        """Start the workers when the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        with without_traceback():
            if self._sockets is None:  # twist has no privileged start
                self._open()
            if not os.access(sys.executable, os.X_OK):
                raise StartError(
                    f"workers cannot be started ({sys.executable} is not executable "
                    "for this user): with --uid, give the user access to Python; with "
                    "--chroot, the new root directory must contain it; or serve "
                    "without --workers"
                )
        reactor = self._reactor
        reactor.callWhenRunning(self._watchdog.install, reactor)
        reactor.callWhenRunning(replace_standard_streams)
        reactor.callWhenRunning(self._start_workers)

    def _open(self) -> None:
        self._reactor = installed_reactor(self._reactor)
        use_steady_clock(self._reactor)
        prepare_process(
            self._reactor,
            self._stacks_path,
            self._watchdog,
            self._notifier,
            self._signals,
            reopen_stderr=self._predecessor is not None,
        )
        self._take_place()
        given = () if self._predecessor is None else self._predecessor.listeners
        sockets = ListeningSockets(self._boot.listen, self._reactor, given)
        sockets.open(self._settings.workers)
        self._sockets = sockets
        self._page = create_page(metrics=self.metrics is not None)
        boot = self._boot.with_reactor(type(self._reactor).__module__)
        # Now, because the user of the process may change.
        secrets = store(self._tls()) if boot.uses_tls else -1
        launcher: Launcher | ForkingLauncher
        if boot.preload:
            launcher = ForkingLauncher(
                boot, FORK_ENTRY, self._reactor, self._page, secrets
            )
            self._fork_servers = launcher
        else:
            launcher = Launcher(boot, self._reactor, self._page, secrets)
        self.master = launcher.master = Master(
            self._reactor,
            self._settings,
            sockets,
            launcher.launch,
            Page(self._page),
            self._give_up,
        )
        if self.metrics is not None:
            self.metrics.attach(self._page, self.master)

    def _take_place(self) -> None:
        """Take the pidfile of the last master, or remember the own one."""
        predecessor = self._predecessor
        if predecessor is not None:
            self._pidfile = predecessor.pidfile
            self._pidfile_fd = predecessor.pidfile_fd
        elif self._parent.get("pidfile"):
            self._pidfile = self._parent["pidfile"]
            # Now, because the user of the process may change.
            with contextlib.suppress(OSError):
                self._pidfile_fd = os.open(self._pidfile, os.O_RDWR | os.O_CLOEXEC)
        if predecessor is not None and self._pidfile:
            atexit.register(self._remove_pidfile)

    def _remove_pidfile(self) -> None:
        """Remove the pidfile, of which twistd does not know in this process."""
        if not self._is_replaced:
            with contextlib.suppress(OSError):  # not this user's
                if os.pread(self._pidfile_fd, 20, 0) == b"%d" % os.getpid():
                    os.unlink(self._pidfile)

    def _start_workers(self) -> None:
        predecessor = self._predecessor
        if predecessor is not None:
            predecessor.attach(self._reactor, self._succeeded)
            self.master.observe(SuccessorObserver(predecessor))
        if self._notifier:
            observer = SystemdObserver(self._notifier)
            self._notifier.start(self._reactor, observer.status, self._is_well)
            self.master.observe(observer)
        if self._fork_servers is not None:
            self.master.observe(self._fork_servers)
        for function in self.on_start:
            function(self.master)
        if self._boot.development:
            # Here, because only `--reload` needs it.
            from txgreenwsgi._twistd.development import watch_application

            self._reloader = watch_application(
                self.master, self._reactor, self._extra, self._boot.directory
            )
        _log.info(
            "master {pid} starts {count} workers",
            pid=os.getpid(),
            count=self._settings.workers,
            is_routine=True,
        )
        self.master.start()

    def stopService(self) -> Deferred[Any]:
        """Drain the workers; the Deferred fires when the last one has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._reloader is not None:
            self._reloader.stop()
        self._notifier.stopping(self._stop_seconds)
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return succeed(None)
        if self._succession is not None:
            self._succession.end()
        stopped: Deferred[Any] = self.master.stop(final=not self._is_replaced)
        # The workers have the sockets that they accept on. They close them when they
        # have accepted the backlog.
        closed = sockets.close()
        return gatherResults([stopped, closed]).addBoth(self._after_workers)

    def _is_well(self) -> bool:
        """Return whether a worker accepts the connections of each slot."""
        return self.master.is_served

    def _after_workers(self, result: object) -> object:
        self._notifier.stop()
        os.close(self._page)
        if self._fork_servers is not None:
            return self._fork_servers.stop().addCallback(lambda _: result)
        return result

    def _drain(self) -> Deferred[None]:
        """Let health checks fail, and go on serving for `drain_delay`."""
        self._notifier.stopping(self._stop_seconds)
        self.master.unready()
        done: Deferred[None] = Deferred()
        self._draining.append(done)
        if not self._drain_delay:
            self._end_drain()
        elif self._drain_call is None:
            self._drain_call = self._reactor.callLater(
                self._drain_delay, self._end_drain
            )
        return done

    def _end_drain(self) -> None:
        call, self._drain_call = self._drain_call, None
        if call is not None and call.active():
            call.cancel()
        draining, self._draining = self._draining, []
        for done in draining:
            done.callback(None)

    def _cut_short(self) -> None:
        self._end_drain()
        self.master.cut_short()

    @property
    def _stop_seconds(self) -> float:
        """The time that a shutdown may take."""
        grace_seconds = self._drain_delay + self._settings.graceful_timeout
        return grace_seconds + KILL_MARGIN_SECONDS + 2 * MARGIN_SECONDS

    def _give_up(self, reason: str) -> None:
        """End the process, because the first worker could not start."""
        _log.critical("no worker could start; stopping")
        # twistd always exits with status 0, after it has removed its pidfile.
        atexit.register(exit_with, 1)
        with contextlib.suppress(ReactorNotRunning):  # stopping already
            self._reactor.stop()

    # Replacement by a new master.

    def _succeeded(self) -> None:
        """Take over what is left, when the last master has ended."""
        _log.info("the last master has ended")
        if self._sockets is not None:
            self._sockets.remove_dropped()
        if self._pidfile_fd >= 0:
            # It has written this pid, unless it was killed.
            with contextlib.suppress(OSError):
                write_pid(self._pidfile_fd, os.getpid())
        self.predecessor_ended.callback(None)

    def _replace(self) -> None:
        """Start a new master that replaces this one."""
        sockets = self._sockets
        if sockets is None or self._succession is not None:
            _log.warn("SIGUSR2 ignored: this master is being replaced or stops")
            return
        if not self.predecessor_ended.called:
            _log.warn("SIGUSR2 ignored: the last master has not ended yet")
            return
        if os.getpid() == 1:
            _log.warn(
                "SIGUSR2 ignored: this is process 1, with which its container ends; "
                "SIGHUP reloads the workers, also with a new version of the server"
            )
            return
        _log.info("SIGUSR2: starting a new master")
        environ = worker_environment() | self._notifier.environ()
        # Another process, whose number is not known yet.
        environ.pop("WATCHDOG_PID", None)
        place = Place(
            directory=self._boot.directory,
            log_path=self._stacks_path,
            pidfile=self._pidfile,
            pidfile_fd=self._pidfile_fd,
        )
        succession = Succession(self._reactor, self._replaced, self._not_replaced)
        seconds = self._settings.boot_timeout + _SUCCESSION_SECONDS
        try:
            succession.begin(place, sockets, environ, seconds)
        except OSError as error:
            _log.error("the new master cannot be started ({error})", error=error)
            return
        self._succession = succession

    def _not_replaced(self) -> None:
        self._succession = None
        if self._sockets is not None:
            self._sockets.keep()

    def _replaced(self, pid: int) -> None:
        """Leave the place to the new master, whose workers are ready."""
        _log.info("new master {pid} is ready; this one ends", pid=pid)
        self._is_replaced = True
        assert self._sockets is not None, "not stopping"
        self._sockets.leave()
        # twistd would remove the pidfile.
        self._parent["pidfile"] = ""
        if self._pidfile_fd >= 0:
            try:
                write_pid(self._pidfile_fd, pid)
            except OSError as error:
                _log.error("cannot write the pidfile ({error})", error=error)
        self._notifier.send_main_pid(pid)
        self._notifier.ready()
        self._notifier.close()  # from now on, the new one notifies
        self._watchdog.request_stop(f"new master {pid}", at_once=True)

    # Signals. Called in the reactor greenlet.

    def _reload(self) -> None:
        self._signals.reopen_logs()
        _log.info("SIGHUP: reopened the logs")
        self.master.reload()

    def _scale(self, change: int) -> None:
        count = self.master.target + change
        if count < 1:
            _log.warn("SIGTTOU ignored: one worker is the minimum")
        elif count > MAX_WORKERS:
            _log.warn("SIGTTIN ignored: {n} workers are the maximum", n=MAX_WORKERS)
        else:
            try:
                self.master.scale(count)
            except ValueError as error:
                _log.warn("SIGTTIN ignored: {error}", error=error)

    def _reopen_workers(self) -> None:
        # Descriptor 2 of a daemon appends to its log.
        descriptors = [STDERR_FD] if self._stacks_path else []
        self.master.for_all({"do": "reopen"}, descriptors)


#: Time after the grace period at which the watchdog ends the master.
assert KILL_MARGIN_SECONDS > MARGIN_SECONDS, "workers end first"
