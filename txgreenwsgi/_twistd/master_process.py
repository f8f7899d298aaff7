"""A master with its workers behind the control socket.

It knows the interface of the master. It must never know the socket.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, gatherResults, succeed

import txgreenwsgi
from txgreenwsgi._control.interface import CANCEL_REFUSED, ControlError
from txgreenwsgi._control.memory import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from txgreenwsgi._control.interface import (
        FailureInformation,
        ReloadOutcome,
        ServerInformation,
        SnapshotInformation,
        WorkerInformation,
    )
    from txgreenwsgi._workers.details import WorkerDetails, WorkerSnapshot
    from txgreenwsgi._workers.interface import (
        MasterControl,
        MasterStatus,
        ReloadResult,
        WorkerStatus,
    )

__all__ = ["MAX_WORKERS", "MasterProcess"]

#: Maximum number of workers that a command may ask for.
MAX_WORKERS = 1000


class MasterProcess:
    """See `txgreenwsgi._control.interface.Controlled`.

    Args:
        app: the value of `--app`.
        urls: returns the addresses of the server.
        can_cancel: whether requests may be cancelled.
    """

    def __init__(
        self,
        app: str,
        urls: Callable[[MasterStatus], Sequence[str]],
        *,
        can_cancel: bool = False,
    ) -> None:
        # Here, because the other processes that import this file do not need it; and
        # now, because an upgrade may replace the files of a master that runs.
        from txgreenwsgi._twistd.collected import Collected

        self._app = app
        self._urls = urls
        self._can_cancel = can_cancel
        self._collected = Collected(can_cancel=can_cancel)
        self._master: MasterControl | None = None
        self._started = monotonic()

    def attach(self, master: MasterControl) -> None:
        """Take the master when it starts."""
        self._master = master

    def status(self) -> Deferred[ServerInformation]:
        """Return the state of the master, and that of its workers as they tell it."""
        master = self._master
        if master is None:
            return _starting()
        status = master.status()
        details = [master.details(each.number) for each in status.workers]
        return gatherResults(details).addCallback(self._information, status)

    def snapshot(self) -> Deferred[SnapshotInformation]:
        """Return the same with what the workers collect."""
        master = self._master
        if master is None:
            return _starting()
        status = master.status()
        known = self._collected.last_changes
        details: list[Deferred[WorkerSnapshot | None]] = [
            succeed(None)
            if each.beat_age is not None and each.beat_age > _SILENT_SECONDS
            else master.snapshot(each.number, known.get(each.number, 0))
            for each in status.workers
        ]
        return gatherResults(details).addCallback(self._snapshot, status)

    def _snapshot(
        self, details: list[WorkerSnapshot | None], status: MasterStatus
    ) -> SnapshotInformation:
        information = self._information(details, status)
        snapshots: dict[int, WorkerSnapshot] = {}
        for worker, of_worker, more in zip(
            status.workers, information["workers"], details, strict=True
        ):
            if more is not None:
                snapshots[worker.number] = more
            elif worker.beat_age is not None:
                of_worker["lag"] = max(worker.lag, worker.beat_age)
        return self._collected.snapshot(information, snapshots)

    def failure(self, of: str) -> Deferred[FailureInformation]:
        """Return a failure with its traceback."""
        return self._collected.failure(of)

    def cancel(self, of: str) -> Deferred[str]:
        """Raise `Cancelled` in a request."""
        master = self._master
        if master is None:
            return _starting()
        if not self._can_cancel:
            return fail(ControlError(CANCEL_REFUSED))
        workers = master.status().workers
        answers = [master.cancel(each.number, of) for each in workers]
        return gatherResults(answers).addCallback(_cancelled, of)

    def _information(
        self, details: Sequence[WorkerDetails | None], status: MasterStatus
    ) -> ServerInformation:
        last = status.last_reload
        return {
            "version": txgreenwsgi.__version__,
            "app": self._app,
            "pid": status.pid,
            "age": monotonic() - self._started,
            "listening": list(self._urls(status)),
            "target": status.target,
            "stopping": status.stopping,
            "reloading": status.reloading,
            "restarts": status.restarts,
            "reloads": status.reloads,
            "last_reload": None if last is None else _outcome(last),
            "workers": [
                _worker(worker, more)
                for worker, more in zip(status.workers, details, strict=True)
            ],
        }

    def reload(self) -> Deferred[ReloadOutcome]:
        """Replace the workers."""
        master = self._master
        if master is None:
            return _starting()
        return master.reload().addCallback(_outcome)

    def scale(self, number: int, *, relative: bool) -> Deferred[int]:
        """Change the number of workers."""
        master = self._master
        if master is None:
            return _starting()
        target = master.status().target
        wanted = target + number if relative else number
        if not 1 <= wanted <= MAX_WORKERS:
            return fail(
                ControlError(
                    f"{wanted} workers are out of range (now {target}): give 1 to "
                    f"{MAX_WORKERS}"
                )
            )
        try:
            master.scale(wanted)
        except ValueError as error:
            return fail(ControlError(str(error)))
        return succeed(wanted)

    def stacks(self, of: str) -> Deferred[str]:
        """Return the stacks of all workers, of one, or of a request."""
        master = self._master
        if master is None:
            return _starting()
        workers = master.status().workers
        if not of:
            all_stacks = [self._worker_stacks(master, each) for each in workers]
            return gatherResults(all_stacks).addCallback("\n".join)
        if re.fullmatch(r"[0-9]{1,9}", of):
            for each in workers:
                if each.number == int(of):
                    return self._worker_stacks(master, each)
            known = ", ".join(str(each.number) for each in workers) or "none"
            return fail(
                ControlError(f"there is no worker {of}: the workers are {known}")
            )
        details = [master.details(each.number) for each in workers]
        found = gatherResults(details)
        return found.addCallback(self._request_stacks, master, workers, of)

    @staticmethod
    def _worker_stacks(master: MasterControl, worker: WorkerStatus) -> Deferred[str]:
        title = f"worker {worker.number} (pid {worker.pid}), {worker.state}:\n"
        stacks = master.stacks(worker.number).addErrback(_gone)
        return stacks.addCallback(lambda text: title + text)

    def _request_stacks(
        self,
        details: list[WorkerDetails | None],
        master: MasterControl,
        workers: Sequence[WorkerStatus],
        of: str,
    ) -> Deferred[str] | str:
        silent = []
        for worker, more in zip(workers, details, strict=True):
            if more is None:
                silent.append(worker)
                if worker.current.startswith(f"{of} "):
                    return self._worker_stacks(master, worker)
            elif any(row["request_id"] == of for row in more["in_flight"]):
                stacks = master.stacks(worker.number, of).addErrback(_gone)
                return stacks.addCallback(_or_ended, of)
        message = f"there is no request {of} in flight"
        if silent:
            names = ", ".join(str(each.number) for each in silent)
            message += (
                f", but these workers do not answer: {names}; give the number of a "
                "worker for its stacks"
            )
        raise ControlError(message)


#: Time without a beat after which a worker is not asked for a snapshot: its reactor is
#: blocked, and the answer of the others must not wait for it.
_SILENT_SECONDS = 1.0


def _cancelled(answers: list[bool | None], of: str) -> str:
    if not any(answers):
        message = f"there is no request {of} in flight"
        if None in answers:
            message += ", but some workers do not answer"
        raise ControlError(message)
    return of


def _starting() -> Deferred[Any]:
    return fail(ControlError("the server is starting: try again"))


def _gone(failure: Failure) -> str:
    """Return the text for a worker that has ended meanwhile."""
    failure.trap(LookupError)
    return f"{failure.getErrorMessage()}\n"


def _or_ended(text: str, request_id: str) -> str:
    if not text:
        raise ControlError(f"the request {request_id} has ended")
    return text


def _outcome(result: ReloadResult) -> ReloadOutcome:
    return cast("ReloadOutcome", asdict(result))


def _worker(worker: WorkerStatus, details: WorkerDetails | None) -> WorkerInformation:
    answered = details is not None
    in_flight = details["in_flight"] if details is not None else None
    if worker.state == "booting":
        in_flight = []
    beats = worker.beat_age is not None
    return {
        "worker": worker.number,
        "slot": worker.slot,
        "pid": worker.pid,
        "state": worker.state,
        "age": worker.age,
        "requests": (
            len(in_flight) if in_flight is not None else worker.requests or None
        ),
        "connections": (
            details["connections"] if details is not None else worker.connections
        )
        if answered or beats
        else None,
        "served": (details["served"] if details is not None else worker.served)
        if answered or beats
        else None,
        "lag": worker.lag if beats else None,
        "beat_age": worker.beat_age,
        "rss": resident_bytes(worker.pid) if worker.pid else None,
        "current": worker.current,
        "in_flight": in_flight,
    }
