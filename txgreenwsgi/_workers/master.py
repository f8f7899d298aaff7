"""The master: it decides which workers run and which sockets they accept on.

It serves nothing and imports nothing of the application, so it never blocks. It knows
slots, workers and their messages. It must never know how a process is started.
"""

from __future__ import annotations

import heapq
import os
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from .endings import Endings, described_end
from .interface import EndedWorker, MasterObserver, MasterStatus, ReloadResult
from .neighbours import Neighbours
from .page import RECORDS
from .questions import Questions
from .recycling import Recycling
from .reloads import Reload
from .slots import BootCancelled, BootFailed, Process, Slot, Worker
from .statuses import worker_status
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from .details import WorkerDetails, WorkerSnapshot
    from .master_parts import Beats, MasterSettings, Sockets
    from .messages import Message

__all__ = ["Master"]

_log = Logger()

#: A worker that ends sooner than this after it was ready is restarted with a delay.
EARLY_SECONDS: Final = 10.0

#: The longest delay of a restart.
MAX_DELAY_SECONDS: Final = 30.0

#: Time for the master to get the signal that a worker has got.
LEAVE_SECONDS: Final = 0.2


class Master:
    """The slots and workers of one server. See `interface.MasterControl`.

    Call from the reactor greenlet.

    Args:
        reactor: the clock.
        settings: the settings.
        sockets: the listening sockets.
        launch: starts the process of a worker, which calls `received`, `lost` and
            `exited` later. May raise OSError.
        beats: the shared page.
        give_up: called with the reason if the first worker cannot become ready.
        monotonic: the clock of the beats.

    Attributes:
        events: functions for further messages of workers, by the name of the event.
        questions: the questions to its workers.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: MasterSettings,
        sockets: Sockets,
        launch: Callable[[Worker], Process],
        beats: Beats,
        give_up: Callable[[str], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._sockets = sockets
        self._launch = launch
        self._beats = beats
        self._give_up = give_up
        self._monotonic = monotonic
        self._neighbours = Neighbours(sockets, beats)
        self._watch = Watch(
            reactor,
            monotonic,
            beats,
            settings.worker_timeout,
            self._tenants,
            self._update_neighbours,
        )
        # The first record is that of the master.
        self._free_records = list(range(1, RECORDS))
        self._recycling = Recycling(settings.reload_parallel, self._boot)
        self._target = settings.workers
        self._slots: list[Slot] = []
        self._observers: list[MasterObserver] = []
        self._numbers = 0
        self.questions = Questions(reactor)
        self._endings = Endings(
            reactor, settings, self.questions, self._update_neighbours
        )
        self._restarts = 0
        self._reloads = 0
        self._reload: Reload | None = None
        # Waits for the reload in progress to end; merges further requests.
        self._next_reload: Deferred[ReloadResult] | None = None
        self._last_reload: ReloadResult | None = None
        self._any_ready = False
        self._all_ready = False
        self._unready = False
        self._stopping = False
        self._stopped: list[Deferred[None]] = []
        self.events: dict[str, Callable[[Worker, Message], object]] = {}
        # By slot, functions that wait for the end of its workers.
        self._waiting_starts: dict[
            Slot, tuple[Callable[[], None], Deferred[ReloadResult]]
        ] = {}

    # MasterControl.

    def observe(self, observer: MasterObserver) -> None:
        """See `MasterControl.observe`."""
        self._observers.append(observer)

    def reload(self) -> Deferred[ReloadResult]:
        """See `MasterControl.reload`."""
        if self._stopping:
            return succeed(ReloadResult(False, 0, "the server shuts down"))
        if self._reload is None:
            return self._begin_reload()
        if self._next_reload is None:
            self._next_reload = Deferred()
        answer: Deferred[ReloadResult] = Deferred()
        self._next_reload.addCallback(_pass_on, answer)
        return answer

    def scale(self, count: int) -> None:
        """See `MasterControl.scale`."""
        if count < 1:
            raise ValueError(f"{count} workers are too few: give 1 or more")
        if self._settings.development and count > 1:
            raise ValueError(
                "--reload serves with one worker: restart without it, and with "
                f"--workers {count}"
            )
        if self._stopping or count == self._target:
            return
        _log.info("scaling from {old} to {new} workers", old=self._target, new=count)
        self._target = count
        for slot in self._slots:
            retired = slot.index >= count
            if retired == slot.retired:
                continue
            slot.retired = retired
            if retired:
                self._retire(slot)
            else:
                slot.failures = 0
                self._start(slot)
        while len(self._slots) < count:
            self._slots.append(slot := Slot(len(self._slots)))
            self._start(slot)
        self._changed()

    def status(self) -> MasterStatus:
        """See `MasterControl.status`."""
        return MasterStatus(
            pid=os.getpid(),
            target=self._target,
            listening=tuple(self._sockets.addresses),
            reloading=self._reload is not None,
            stopping=self._stopping,
            workers=tuple(
                worker_status(
                    worker,
                    self._beats.read(worker.record),
                    self._reactor.seconds(),
                    self._monotonic(),
                )
                for worker in self.workers()
            ),
            restarts=self._restarts,
            reloads=self._reloads,
            last_reload=self._last_reload,
        )

    def details(self, worker: int) -> Deferred[WorkerDetails | None]:
        """See `MasterControl.details`."""
        found = self._find(worker)
        if found is None or found.is_booting:
            return succeed(None)
        return self.questions.details(found)

    def snapshot(
        self, worker: int, known_change: int
    ) -> Deferred[WorkerSnapshot | None]:
        """See `MasterControl.snapshot`."""
        found = self._find(worker)
        if found is None or found.is_booting or found.blocked:
            return succeed(None)
        return self.questions.snapshot(found, known_change)

    def cancel(self, worker: int, request: str) -> Deferred[bool | None]:
        """See `MasterControl.cancel`."""
        found = self._find(worker)
        if found is None or found.is_booting:
            return succeed(False)
        return self.questions.cancel(found, request)

    def stacks(self, worker: int, request: str = "") -> Deferred[str]:
        """See `MasterControl.stacks`."""
        found = self._find(worker)
        if found is None:
            return fail(LookupError(f"there is no worker {worker}"))
        return self.questions.stacks(found, request)

    def _find(self, number: int) -> Worker | None:
        return next((each for each in self.workers() if each.number == number), None)

    def restart_slot(
        self, slot: int, grace_seconds: float = 0.0
    ) -> Deferred[ReloadResult]:
        """See `MasterControl.restart_slot`."""
        if self._stopping:
            return succeed(ReloadResult(False, 0, "the server shuts down"))
        place = self._slots[slot]
        place.cancel_restart()
        answer: Deferred[ReloadResult] = Deferred()
        place.failures = 0
        for worker in place.workers():
            booting = worker.is_booting
            worker.replaced = "reload"
            self._endings.drain(worker)
            if not booting:
                worker.calls.append(
                    self._reactor.callLater(grace_seconds, self._endings.hurry, worker)
                )

        def start() -> None:
            if place.workers():  # `exited` calls again
                self._waiting_starts[place] = start, answer
                return
            worker = self._boot(place)
            worker.booted.addCallbacks(
                lambda _: answer.callback(ReloadResult(True, 1)),
                lambda failure: answer.callback(
                    ReloadResult(False, 0, str(failure.value))
                ),
            )

        earlier = self._waiting_starts.pop(place, None)
        if earlier is not None:
            earlier[1].callback(ReloadResult(False, 0, "restarted again"))
        start()
        return answer

    # The life of the server.

    def start(self) -> None:
        """Start the workers."""
        # A slot with a socket and without a worker is served by a neighbour.
        count = max(self._target, self._sockets.slots)
        self._slots = [
            Slot(index, retired=index >= self._target) for index in range(count)
        ]
        for slot in self._slots:
            self._start(slot)
        self._watch.start()

    def unready(self) -> None:
        """Let the health checks of all workers fail, because the server stops soon."""
        self._unready = True
        self.for_all({"do": "unready"})

    def stop(self, *, final: bool = True) -> Deferred[None]:
        """Drain all workers.

        Args:
            final: whether no other process accepts the connections of the backlogs.

        Returns:
            A Deferred that fires when they have ended.
        """
        done: Deferred[None] = Deferred()
        self._stopped.append(done)
        if not self._stopping:
            self._unready = self._stopping = True
            self._notify("stopping")
            for slot in self._slots:
                slot.cancel_restart()
            for worker in self.workers():
                self._endings.drain(worker, final=final)
            if self._reload is not None:
                self._reload.abandon("the server shuts down")
        self._check_stopped()
        return done

    def cut_short(self) -> None:
        """End the grace period of workers that drain, now and later."""
        self._endings.is_cut_short = True
        for worker in self.workers():
            if worker.is_draining:
                self._endings.hurry(worker)

    def for_all(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message to all workers."""
        for worker in self.workers():
            worker.send(message, descriptors)

    def workers(self) -> list[Worker]:
        """Return all live workers."""
        return [worker for slot in self._slots for worker in slot.workers()]

    def _tenants(self) -> list[Worker]:
        return [slot.tenant for slot in self._slots if slot.tenant is not None]

    @property
    def is_served(self) -> bool:
        """Whether a worker accepts for each slot, or one boots for the first time."""
        return not self._any_ready or all(
            slot.tenant is not None or slot.neighbour is not None
            for slot in self._slots
        )

    @property
    def target(self) -> int:
        """The wanted number of workers."""
        return self._target

    # Called by processes.

    def received(self, worker: Worker, message: Message) -> None:
        """Handle a message of a worker."""
        event = message["event"]
        if event == "ready":
            self._ready(worker)
        elif event == "failed":
            worker.reason = message["reason"]
        elif event == "recycle":
            if not self._stopping and self._recycling.add(worker, message["reason"]):
                self._proceed_recycling()
        elif event == "leaving":
            self._leaving(worker, message["reason"])
        elif event == "stacks":
            self.questions.received_stacks(worker, message)
        elif event == "details":
            self.questions.received_details(worker, message)
        elif event in self.events:
            self.events[event](worker, message)
        else:
            _log.warn(
                "{worker} sent an unknown message: {event}", worker=worker, event=event
            )

    def lost(self, worker: Worker) -> None:
        """Handle the end of the link of a worker, whose process ends next."""
        self._endings.lost(worker)

    def exited(self, worker: Worker, status: int | None, number: int | None) -> None:
        """Handle the end of a worker.

        Args:
            worker: the worker.
            status: its exit status; None if a signal has ended it.
            number: that signal; None if it has exited.
        """
        slot = worker.slot
        booting, draining = worker.is_booting, worker.is_draining
        worker.move("exit")
        why = self._reason_of_end(worker, booting=booting, draining=draining)
        self._notify("ended", EndedWorker(worker.number, worker.record, why))
        heapq.heappush(self._free_records, worker.record)
        worker.cancel_calls()
        self.questions.forget(worker)
        slot.draining.discard(worker)
        slot.vacate(worker)
        ended = described_end(status, number)
        if draining:
            if number is not None:
                _log.warn(
                    "{worker} {ended} while it drained", worker=worker, ended=ended
                )
            else:
                _log.info("{worker} has ended", worker=worker)
        elif not booting:
            self._crashed(worker, ended)
        if not worker.booted.called:
            reason = worker.reason or f"{ended} before it was ready"
            if booting and not self._stopping:
                self._boot_failed(worker, reason)
            failed = BootFailed if booting else BootCancelled
            worker.booted.errback(failed(reason))
            worker.booted.addErrback(_ignore)
        waiting = self._waiting_starts.pop(slot, None)
        if waiting is not None:
            if self._stopping:
                waiting[1].callback(ReloadResult(False, 0, "the server shuts down"))
            else:
                waiting[0]()
        self._update_neighbours()
        if self._reload is not None:
            self._reload.proceed()
        self._proceed_recycling()
        self._changed()
        self._check_stopped()

    def _reason_of_end(self, worker: Worker, *, booting: bool, draining: bool) -> str:
        """Return `EndedWorker.reason`."""
        if booting or worker.slot.retired:
            return ""
        if draining:
            return worker.replaced
        if self._stopping:
            return ""
        return "hang" if worker.killed else "crash"

    # Workers.

    def _start(self, slot: Slot) -> None:
        """Start a worker for a slot without one."""
        slot.restart = None
        if slot.retired or self._stopping or slot.successor or slot.tenant:
            return
        self._boot(slot).booted.addErrback(_ignore)

    def _boot(self, slot: Slot, failure: str = "") -> Worker:
        """Start a worker."""
        slot.cancel_restart()
        if slot.successor is not None:
            self._endings.drain(slot.successor)
        self._numbers += 1
        worker = Worker(
            self._numbers,
            slot,
            self._reactor.seconds(),
            heapq.heappop(self._free_records),
            failure=failure,
        )
        self._beats.clear(worker.record)
        slot.successor = worker
        worker.calls.append(
            self._reactor.callLater(
                self._settings.boot_timeout, self._endings.boot_timed_out, worker
            )
        )
        try:
            worker.process = self._launch(worker)
        except OSError as error:
            worker.reason = f"the process cannot be started ({error})"
            # Later, as the end of a process is; also if it is told to end first.
            self._reactor.callLater(0, self.exited, worker, 1, None)
        return worker

    def _ready(self, worker: Worker) -> None:
        worker.move("ready")
        if not worker.is_ready:
            return  # it drains already
        slot = worker.slot
        worker.cancel_calls()
        worker.ready_at = now = self._reactor.seconds()
        old, slot.tenant, slot.successor = slot.tenant, worker, None
        self._any_ready = True
        _log.info(
            "{worker} is ready after {seconds:.1f} s",
            worker=worker,
            seconds=now - worker.started,
        )
        self._neighbours.adopt(worker, slot)
        if self._unready:
            worker.send({"do": "unready"})
        self._update_neighbours()
        if old is not None:
            old.replaced = "recycle" if old.recycling else "reload"
            self._endings.drain(old)
        worker.booted.callback(None)
        if not self._all_ready and all(
            slot.tenant is not None for slot in self._slots if not slot.retired
        ):
            self._all_ready = True
            self._notify("ready")
        self._changed()

    def _leaving(self, worker: Worker, reason: str) -> None:
        """Replace a worker that wants to end.

        Soon, because a service manager sends the signal that is the reason to the
        master too.
        """
        worker.calls.append(
            self._reactor.callLater(LEAVE_SECONDS, self._replace, worker, reason)
        )

    def _replace(self, worker: Worker, reason: str) -> None:
        if worker.is_ready and not self._unready:
            _log.info("{worker} leaves: {reason}", worker=worker, reason=reason)
            worker.replaced = "signal"
            self._endings.drain(worker)
            self._update_neighbours()
            self._start(worker.slot)

    def _retire(self, slot: Slot) -> None:
        slot.cancel_restart()
        for worker in slot.workers():
            self._endings.drain(worker)

    def _boot_failed(self, worker: Worker, reason: str) -> None:
        slot = worker.slot
        reloading = self._reload is not None and slot in self._reload.booting
        # A reload logs the whole reason when it ends.
        text = reason.splitlines()[-1] if reloading and reason else reason
        _log.error("{worker} cannot start: {reason}", worker=worker, reason=text)
        self._notify("failed", slot.index, reason)
        if self._settings.development and not worker.failure:
            self._show_failure(slot, reason)
        elif not self._any_ready:
            self._give_up(reason)
        elif not reloading or slot.tenant is None:
            # Without a tenant, the worker had crashed before the reload.
            self._restart(slot)

    def _crashed(self, worker: Worker, ended: str) -> None:
        """Replace a worker that has ended without being told to."""
        _log.error("{worker} {ended}", worker=worker, ended=ended)
        if self._stopping:
            return
        self._restarts += 1
        slot = worker.slot
        assert worker.ready_at is not None, "it was ready"
        if self._reactor.seconds() - worker.ready_at >= EARLY_SECONDS:
            slot.failures = 0
        if slot.successor is not None:
            return
        if self._settings.development and slot.failures:
            self._show_failure(slot, f"The worker {ended}.")
        else:
            self._restart(slot)

    def _show_failure(self, slot: Slot, reason: str) -> None:
        """Start a worker that shows why the application does not start."""
        if slot not in self._waiting_starts and not slot.successor:
            self._boot(slot, reason).booted.addErrback(_ignore)

    def _restart(self, slot: Slot) -> None:
        """Start a worker: at once after the first failure, later after more."""
        if slot.retired or self._stopping:
            return
        delay = 0.0
        if slot.failures:
            delay = min(2.0 ** (slot.failures - 1), MAX_DELAY_SECONDS)
            _log.warn(
                "restarting the worker of slot {slot} in {delay:g} s",
                slot=slot.index + 1,
                delay=delay,
            )
        slot.failures += 1
        slot.cancel_restart()
        slot.restart = self._reactor.callLater(delay, self._start, slot)

    def _proceed_recycling(self) -> None:
        if not self._stopping and self._reload is None:
            self._recycling.proceed(self._slots)

    def _update_neighbours(self) -> None:
        if not self._stopping:
            self._neighbours.update(self._slots)

    # Reloads.

    def _begin_reload(self) -> Deferred[ReloadResult]:
        self._reloads += 1
        _log.info("reloading {count} workers", count=self._target)
        self._notify("reloading")
        slots = [slot for slot in self._slots if not slot.retired]
        self._reload = reload = Reload(
            slots, self._settings.reload_parallel, self._boot
        )
        answer: Deferred[ReloadResult] = Deferred()
        reload.done.addCallback(self._reload_ended)
        reload.done.addCallback(_pass_on, answer)
        reload.proceed()
        return answer

    def _reload_ended(self, result: ReloadResult) -> ReloadResult:
        assert self._reload is not None, "one is in progress"
        others = list(self._reload.booting.values())
        self._reload = None
        self._last_reload = result
        if result.succeeded:
            _log.info("reload: {count} workers replaced", count=result.replaced)
        else:
            _log.error(
                "reload failed after {count} of {target} workers, the others stay: "
                "{reason}",
                count=result.replaced,
                target=self._target,
                reason=result.reason,
            )
        if not self._stopping:
            for worker in others:
                self._endings.drain(worker)
                if worker.slot.tenant is None:
                    self._restart(worker.slot)
        self._notify("reloaded", result)
        self._proceed_recycling()
        following, self._next_reload = self._next_reload, None
        if following is not None:
            if self._stopping:
                following.callback(result)
            else:
                self._begin_reload().addCallback(following.callback)
        return result

    # Observers.

    def _notify(self, name: str, *arguments: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, name)(*arguments)
            except Exception:
                _log.failure("an observer of the master failed in {name}", name=name)

    def _changed(self) -> None:
        ready = sum(slot.tenant is not None for slot in self._slots)
        text = f"{ready} of {self._target} workers ready"
        if ready == self._target:
            text = "1 worker" if ready == 1 else f"{ready} workers"
        if self._reload is not None:
            text += ", reloading"
        self._notify("changed", text)

    def _check_stopped(self) -> None:
        if self._stopping and not self.workers():
            self._watch.stop()
            stopped, self._stopped = self._stopped, []
            for done in stopped:
                done.callback(None)


def _pass_on(result: Any, answer: Deferred[Any]) -> Any:
    answer.callback(result)
    return result


def _ignore(failure: object) -> None:
    """Discard a failure that has been handled."""
