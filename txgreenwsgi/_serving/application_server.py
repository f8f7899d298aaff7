"""One application, and the state that its requests share over all connections.

Admission, the table of requests, deadlines and shutdown have their own files; this
file composes them. It must never know a transport.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Protocol, cast

from txgreenwsgi._http.common_fields import CommonFields
from txgreenwsgi._native import lanes
from txgreenwsgi._switching.greenlets import Hub, hub_of
from txgreenwsgi._switching.thread_calls import in_task_of_thread
from txgreenwsgi._threads.pool import set_thread_count
from txgreenwsgi._threads.routes import AUTO, RoutePatterns
from txgreenwsgi._threads.runner import ThreadRunner, to_thread
from txgreenwsgi._wsgi.application_check import checked_application
from txgreenwsgi._wsgi.environ import base_environ
from txgreenwsgi._wsgi.standard_streams import replace_standard_streams
from txgreenwsgi.isolation import isolate_loaded
from txgreenwsgi.origins import EXTENSIONS

from .admission import AdmissionQueue
from .body import NO_BODY
from .deadlines import DeadlineClock
from .environ import path_info
from .limits import limits_from
from .live import LiveRequests
from .metering import FAST_SECONDS, ORDINARY
from .monitor import BlockedMonitor, monitor_of
from .registry import InFlight, RequestTable
from .runner import Runner, run_in_task, run_strictly
from .shutdown import Shutdown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._switching.greenlets import Task
    from txgreenwsgi._wsgi.gateway import Application, ResponseSink
    from txgreenwsgi.monitoring.records import ExchangeRecord
    from txgreenwsgi.settings import Settings

    from .metering import Metered, RequestMetrics
    from .notes import RequestNote
    from .registry import Observer, RequestInFlight
    from .shutdown import Connection
    from .times import RequestTimes, Timed, Times

    class Admitted(InFlight, Metered, Timed, Protocol):
        """The interface of an exchange that this file uses."""

        def start(self) -> None:
            """Run the application in the slot that was acquired for it."""

        def record(self) -> ExchangeRecord:
            """Return the record of the ended exchange."""


__all__ = ["ApplicationServer"]


@lanes.with_lanes
class ApplicationServer(lanes.ApplicationServerState):
    """The state that all requests of one application share.

    Args:
        application: the WSGI callable; None if it is set later, before the first
            request.
        settings: the settings of the server.
        observers: callables that receive the record of every finished exchange.
        reactor: the reactor; by default the installed one, imported at first use.

    Attributes:
        application: as given.
        settings: as given.
        limits: the default limits of a request, from the settings.
        common: the header fields that the server adds to responses.
        environ: the part of the environ that all requests share.
        context: the context variables that each request starts with.
        admission: the slots for running requests and the queue behind them.
        table: the requests in flight, and the observers.
        live: the requests in flight, as applications and the status page see them.
        deadlines: the clock that checks all deadlines.
        shutdown: the graceful shutdown.
        unready: why the server's owner does not want requests, such as a drain or a
            start that has not ended, for the health checks; "" if it does.
        keeps_alive: whether connections persist after a response: the setting, and
            False during shutdown.
        detached: exchanges in flight whose connection is lost.
        runner: calls the application.
        dropped_fields: the hop-by-hop response fields that were logged: the name in
            lower case, and the place in the application.
        note: in a worker, where each request is noted for its first turn; None
            otherwise.
        metrics: the counters of requests; None for no metrics.
        times: measures where the time of requests goes; None if it is not needed. Set
            by `bind`.
        hub: the hub of the reactor's tasks; set by `bind`.
        monitor: the monitor of that hub; None if `blocked_after` is 0, and for a
            reactor in memory.
    """

    hub: Hub
    monitor: BlockedMonitor | None = None

    def __init__(
        self,
        application: Application | None,
        settings: Settings,
        observers: Iterable[Observer] = (),
        reactor: IReactorTime | None = None,
    ) -> None:
        # Applies to Django whether it is imported already or later.
        isolate_loaded()
        self.application: Any = application
        if application is not None:
            checked_application(application)
        self.settings = settings
        self.limits = limits_from(settings)
        self.common = CommonFields(settings.server_header, settings.add_header)
        self.environ = EXTENSIONS | base_environ(
            settings.server_header or "txgreenwsgi",
            settings.max_in_flight > 1,
            settings.environ,
            settings.prefix,
        )
        self.live = LiveRequests(self)
        self.environ["txgreenwsgi.requests"] = self.live
        self.environ["txgreenwsgi.to_thread"] = to_thread
        self.context: Context = copy_context()
        self.admission: AdmissionQueue[Admitted] = AdmissionQueue(
            settings.max_in_flight, settings.max_queued
        )
        self.table = RequestTable(observers)
        self.shutdown = Shutdown(self.table, self._forget)
        self.unready = ""
        self.keeps_alive = bool(settings.keep_alive)
        self.detached: set[InFlight] = set()
        self.deadlines = DeadlineClock(
            self.shutdown.connections, self.detached, on_idle=self.stop_if_idle
        )
        self.runner: Runner = run_strictly if settings.strict else run_in_task
        self._thread_runner: ThreadRunner | None = None
        if settings.threads_for:
            self._thread_runner = ThreadRunner(
                RoutePatterns(settings.threads_for),
                self.runner,
                automatic=AUTO in settings.threads_for,
            )
            self.runner = self._thread_runner.run
        if settings.server_timing:
            # Here, because few servers need this module.
            from .server_timing import TimingRunner

            self.runner = TimingRunner(self.runner, self._times_of).run
        self._run_application = self.runner
        if application is not None:
            self.open_static()
        # Here, because an attribute that is added later makes all others slower.
        self.note: RequestNote | None = None
        self.metrics: RequestMetrics | None = None
        self.times: RequestTimes | None = None
        self.dropped_fields: set[tuple[str, str]] = set()
        self._reactor = reactor

    @property
    def reactor(self) -> IReactorTime:
        """The reactor; the installed one is imported at first use."""
        # Not a cached property: it would use the `__dict__` of this object, and Python
        # would then read all attributes of the hot path several times slower.
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = cast("IReactorTime", reactor)
        return self._reactor

    def bind(self) -> None:
        """Set `hub`, and give the application text streams that write to the log.

        Call in the reactor's thread, before the first request. `hub` is a plain
        attribute because reading it is faster than a property.
        """
        self.hub = hub_of(self.reactor)
        set_thread_count(self.hub, self.settings.threads)
        replace_standard_streams()
        settings = self.settings
        if settings.blocked_after:
            self.monitor = monitor_of(self.hub)
        needed = settings.slow_after or settings.server_timing
        if self.times is None and (needed or "times" in self.table.needs):
            # Here, because few servers need this module.
            from .times import RequestTimes

            self.times = RequestTimes(self.hub, settings.slow_after)

    def _times_of(self, sink: ResponseSink) -> Times:
        """Return the times of the exchange that is the sink of a response."""
        assert self.times is not None, "the setting needs it"
        return self.times.of(cast("Timed", sink))

    def open_static(self) -> None:
        """Find the directories of static files, before the first request.

        Relative ones are relative to the current directory. May be called again.

        Raises:
            SettingError: a directory cannot be used.
        """
        settings = self.settings
        if settings.static:
            # Here, because few servers need these modules.
            from .static import StaticRunner, static_files

            files = static_files(settings.static, settings.static_expires)
            self.runner = StaticRunner(files, self._run_application).run

    # Requests. Called in the reactor greenlet.

    def release_slot(self) -> None:
        """Free the slot of a request, or start the next queued request in it."""
        admitted = self.admission.release()
        if admitted is not None:
            # Start it from the reactor loop: a chain of short requests must not
            # recurse.
            self.hub.at_next_turn(admitted.start)

    def exchange_ended(self, exchange: Admitted) -> None:
        """Report a finished exchange to the observers and forget it."""
        metrics = self.metrics
        if metrics is not None:
            # If a task has ended, the hub has just read the clock.
            seconds = self.hub.ended_at - exchange.started
            if (
                seconds < FAST_SECONDS
                and exchange.code == 200
                and exchange.outcome == "finished"
                and exchange.task is not None
                and exchange.head.method == "GET"
                and exchange.body is NO_BODY
                and exchange not in metrics.first_bytes
            ):
                metrics.ordinary = ordinary = metrics.ordinary + 1.0
                metrics.values[ORDINARY] = ordinary
                metrics.seconds += seconds
                metrics.sent += exchange.bytes_sent
            else:
                metrics.ended(exchange)
        table = self.table
        if table.observers:
            table.observe(exchange.record())
        if table.watcher is not None:
            table.watcher(exchange)
        if self.times is not None:
            self.times.ended(exchange)
        table.exchanges.discard(exchange)
        if self.detached:
            self._forget(exchange)
        if self.shutdown.stopping:
            self.shutdown.complete_if_idle()

    def measured_task_ended(
        self, task: Task[None], head: RequestHead, code: int
    ) -> None:
        """Report the end of a request's task whose turns were measured.

        Args:
            task: the task.
            head: the request head.
            code: the status that was sent; 0 for none.
        """
        if self._thread_runner is not None:
            path = path_info(self.environ, head)
            self._thread_runner.ended(task, head.method, path, code)

    def _forget(self, exchange: InFlight) -> None:
        self.table.exchanges.discard(exchange)
        if exchange in self.detached:
            self.detached.discard(exchange)
            self.stop_if_idle()

    def detach(self, exchange: InFlight) -> None:
        """Keep checking the deadlines of an exchange that outlives its connection."""
        if exchange in self.table.exchanges:  # else a shutdown has abandoned it
            self.detached.add(exchange)
            self._start_checks()

    def requests(self) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first. Never parks."""
        in_task = in_task_of_thread()
        if in_task is not None:
            return in_task(self.requests)
        return self.table.rows(self.reactor.seconds())

    # Connections.

    def connection_made(self, connection: Connection) -> None:
        """Register a connection for deadline checks and for the shutdown."""
        connections = self.shutdown.connections
        connections.add(connection)
        if len(connections) == 1:
            self._start_checks()

    def connection_lost(self, connection: Connection) -> None:
        """Unregister a connection. The connection itself notifies its exchanges."""
        connections = self.shutdown.connections
        connections.discard(connection)
        if not connections:
            self.stop_if_idle()
        if self.shutdown.stopping:
            self.shutdown.complete_if_idle()

    def _start_checks(self) -> None:
        """Check deadlines and watch for blocks while there is a connection."""
        self.deadlines.start(self.reactor)
        if self.monitor is not None:
            self.monitor.watch(self)

    def stop_if_idle(self) -> None:
        """Stop the checks if there is no connection."""
        self.deadlines.stop_if_idle()
        if self.monitor is not None and not self.open_connections and not self.detached:
            self.monitor.unwatch(self)

    # For the blocked-reactor monitor. Called in its thread too.

    @property
    def blocked_after(self) -> float:
        """The setting."""
        return self.settings.blocked_after

    @property
    def requests_in_flight(self) -> Collection[InFlight]:
        """The exchanges in progress."""
        return self.table.exchanges

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self.shutdown.connections)

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""
        return self.admission.queued

    def stop(self, grace_seconds: float | None = None) -> Deferred[None]:
        """Begin the shutdown; see `GreenSite.stop`."""
        self.keeps_alive = False
        if grace_seconds is None:
            grace_seconds = self.settings.graceful_timeout
        return self.shutdown.begin(grace_seconds, self.reactor)

    @property
    def unready_reason(self) -> str:
        """Why the server is not ready, as the health check says it; "" if it is."""
        if self.shutdown.stopping:
            return "the server is stopping"
        if self.application is None:
            return "the application is not loaded"
        return self.unready

    @property
    def is_idle(self) -> bool:
        """Whether no connection is open and no request is in flight."""
        return not self.shutdown.connections and not self.table.exchanges

    def resume(self) -> None:
        """Serve again after `stop`, or during one, which it calls off."""
        self.keeps_alive = bool(self.settings.keep_alive)
        self.shutdown.call_off()
