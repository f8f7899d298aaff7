"""`--metrics`: the metrics of this process, or those of all workers of this master.

Imported only with that option, because it needs `prometheus_client`. It knows the
order in which the parts of metrics are started.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import gatherResults, succeed
from twisted.logger import Logger

import txgreenwsgi
from txgreenwsgi._control.memory import resident_bytes
from txgreenwsgi._metrics.application import (
    ApplicationMetrics,
    FamilyData,
    collected,
    registry_at,
)
from txgreenwsgi._metrics.exposition import MetricsPage, given_metric, metrics_of
from txgreenwsgi._metrics.families import (
    BUILD,
    LAYOUT,
    RELOADS,
    RESIDENT,
    RESTART_REASONS,
    RESTARTS,
    SIZE,
    WORKER_STATES,
    WORKERS,
    folded,
    summed,
)
from txgreenwsgi._metrics.process import measure
from txgreenwsgi._switching.waiting import spawn
from txgreenwsgi._workers.interface import MasterObserver
from txgreenwsgi._workers.page import SharedMetrics, metrics_of_record
from txgreenwsgi._workers.questions import Questions

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.core import Metric
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._workers.interface import EndedWorker
    from txgreenwsgi._workers.master import Master
    from txgreenwsgi._workers.messages import Message
    from txgreenwsgi._workers.slots import Worker
    from txgreenwsgi._workers.tenancy import Tenancy
    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["MasterMetrics", "process_metrics", "start_in_worker"]

_log = Logger()

#: The action, and the event, of messages about the application's metrics.
_METRICS: Final = "metrics"


def _build() -> Metric:
    return given_metric(BUILD, {(txgreenwsgi.__version__,): 1.0})


def process_metrics(
    application: str, server: ApplicationServer, reactor: IReactorTime
) -> Application:
    """Count the requests of a server without workers.

    Call when the application is loaded.

    Args:
        application: the registry of the application, as "package.module:name"; "" for
            none.
        server: the server.
        reactor: its reactor.

    Returns:
        The application of the listener.

    Raises:
        StartError: the application has no such registry.
    """
    registry = registry_at(application) if application else None
    values = [0.0] * SIZE
    sampler = measure(server, values, reactor)

    def collect() -> Deferred[list[Metric]]:
        sampler.count()
        metrics = [*metrics_of(values), _build()]
        resident = resident_bytes(os.getpid())
        if resident is not None:
            metrics.append(given_metric(RESIDENT, {("1",): float(resident)}))
        if registry is not None:
            metrics += registry.collect()
        return succeed(metrics)

    return MetricsPage(collect)


def start_in_worker(
    fd: int,
    record: int,
    application: str,
    server: ApplicationServer,
    reactor: Any,
    tenancy: Tenancy,
) -> list[Callable[[], Deferred[object]]]:
    """Write the metrics of this worker into the shared page.

    Call when the application is loaded, before the reactor runs.

    Args:
        fd: the descriptor of the page.
        record: the index of the worker's record.
        application: as for `process_metrics`.
        server: the server of the worker.
        reactor: the reactor.
        tenancy: receives and sends messages.

    Returns:
        Functions to call when the last request has ended, before the reactor stops.

    Raises:
        StartError: the application has no such registry.
    """
    values = metrics_of_record(fd, record, LAYOUT, SIZE)
    if values is None:
        _log.warn(
            "no metrics of this worker: its master was started without --metrics; "
            "send it SIGUSR2, or restart the server"
        )
        return []
    measure(server, values, reactor)
    if not application:
        return []
    registry = registry_at(application)

    def answer(message: Message) -> None:
        task = spawn(collected, registry)
        sent = task.deferred().addCallback(send, message["question"])
        sent.addErrback(failed)

    def send(families: list[FamilyData], question: int) -> None:
        tenancy.send({"event": _METRICS, "question": question, "families": families})

    def failed(failure: Any) -> None:
        _log.failure("the application's metrics cannot be collected", failure)

    def send_last() -> Deferred[object]:
        """Send the last numbers, and let the master receive them."""
        task = spawn(collected, registry)
        sent = task.deferred().addCallback(send, 0).addErrback(failed)
        return sent.addCallback(lambda _: tenancy.flushed())

    tenancy.actions[_METRICS] = answer
    return [send_last]


class MasterMetrics(MasterObserver):
    """The metrics of all workers of a master. Call from the reactor greenlet.

    Args:
        has_application: whether workers include the registry of the application.
    """

    def __init__(self, *, has_application: bool) -> None:
        self._has_application = has_application
        self._totals = [0.0] * SIZE
        self._restarts = dict.fromkeys(RESTART_REASONS, 0)
        self._application = ApplicationMetrics()
        self._other_version_logged = False
        self._shared: SharedMetrics | None = None
        self._master: Master | None = None

    @property
    def page(self) -> Application:
        """The application of the listener."""
        return MetricsPage(self.collect)

    def attach(self, fd: int, master: Master) -> None:
        """Take the parts of the master, before it starts workers.

        Args:
            fd: the descriptor of the shared page, which has a part for metrics.
            master: the master.
        """
        self._shared = SharedMetrics(fd, LAYOUT, SIZE)
        self._master = master
        master.events[_METRICS] = self._received
        master.observe(self)

    def ended(self, worker: EndedWorker) -> None:
        """Keep the counts of a worker that has ended."""
        assert self._shared is not None, "a worker was started"
        numbers = self._shared.read(worker.record)
        if numbers is not None:
            self._totals = folded(self._totals, numbers)
        self._shared.clear(worker.record)
        self._application.ended(worker.number)
        if worker.reason:
            self._restarts[worker.reason] += 1

    def collect(self) -> Deferred[list[Metric]]:
        """Return the metrics of all workers.

        Of a worker that does not answer in time, its last answer counts.
        """
        master = self._master
        if master is None or not self._has_application:
            return succeed(self._metrics())
        asked = [
            master.questions.ask(worker, {"do": _METRICS})
            for worker in master.workers()
            if not (worker.is_booting or worker.blocked)
        ]
        return gatherResults(asked).addCallback(lambda _: self._metrics())

    def _metrics(self) -> list[Metric]:
        metrics = [*metrics_of(self._numbers()), _build()]
        master = self._master
        if master is not None:
            status = master.status()
            states = dict.fromkeys(WORKER_STATES, 0)
            resident: dict[tuple[str, ...], float] = {}
            for worker in status.workers:
                if worker.state not in states:
                    continue  # it has just ended
                states[worker.state] += 1
                size = resident_bytes(worker.pid) if worker.pid else None
                if size is not None:
                    # A slot may have two workers, during a reload.
                    key = (str(worker.slot + 1),)
                    resident[key] = resident.get(key, 0.0) + size
            metrics += [
                given_metric(WORKERS, {(key,): float(n) for key, n in states.items()}),
                given_metric(
                    RESTARTS, {(key,): float(n) for key, n in self._restarts.items()}
                ),
                given_metric(RELOADS, {(): float(status.reloads)}),
                given_metric(RESIDENT, resident),
            ]
        return metrics + self._application.metrics()

    def _numbers(self) -> list[float]:
        """Return the sums of all workers, those that have ended included."""
        shared, master = self._shared, self._master
        if shared is None or master is None:
            return list(self._totals)
        arrays: list[Any] = [self._totals]
        for worker in master.workers():
            numbers = shared.read(worker.record)
            if numbers is not None:
                arrays.append(numbers)
            elif shared.is_of_other_version(worker.record):
                self._log_other_version(worker)
        return summed(arrays)

    def _log_other_version(self, worker: Worker) -> None:
        if not self._other_version_logged:
            self._other_version_logged = True
            _log.warn(
                "metrics do not include {worker}, which runs another version than the "
                "master: send the master SIGUSR2, or restart the server",
                worker=worker,
            )

    def _received(self, worker: Worker, message: Message) -> None:
        """Take the families of a worker, which also count if they are late."""
        families = message["families"]
        self._application.received(worker.number, worker.slot.index, families)
        Questions.answered(worker, message["question"], families)
