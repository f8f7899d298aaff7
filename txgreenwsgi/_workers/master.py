"""The master: it decides which workers run and which sockets they accept on.

It serves nothing and imports nothing of the application, so it never blocks. It knows
slots, workers and their messages. It must never know how a process is started.
"""

from __future__ import annotations

import heapq
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from .interface import MasterObserver, MasterStatus, ReloadResult, WorkerStatus
from .page import RECORDS, Beat
from .reloads import Reload
from .slots import BootCancelled, BootFailed, Process, Slot, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from .details import WorkerDetails
    from .link import Message

__all__ = ["Master", "MasterSettings", "Sockets"]

_log = Logger()

#: A worker that ends sooner than this after it was ready is restarted with a delay.
EARLY_SECONDS: Final = 10.0

#: The longest delay of a restart.
MAX_DELAY_SECONDS: Final = 30.0

#: Time after the grace period for a worker to end by itself; its own watchdog ends it
#: sooner.
KILL_MARGIN_SECONDS: Final = 8.0

#: Time for a worker that boots to end after SIGTERM.
BOOT_KILL_SECONDS: Final = 5.0

#: Time for a process to write its stacks before it is killed.
STACKS_SECONDS: Final = 1.0

#: Time for a worker to answer a question for its stacks.
ANSWER_SECONDS: Final = 2.0

#: Interval between two looks at the beats of the workers.
WATCH_SECONDS: Final = 0.25

#: A worker whose last beat is older is blocked: a neighbour accepts for it.
BLOCKED_SECONDS: Final = 1.0

#: A look that comes so much later than planned shows that the master was stopped.
STOPPED_SECONDS: Final = 1.0

#: Time for the master to get the signal that a worker has got.
LEAVE_SECONDS: Final = 0.2

#: Time between the end of a link and the end of the process behind it.
LOST_SECONDS: Final = 5.0


@dataclass(frozen=True)
class MasterSettings:
    """The settings of a master.

    Attributes:
        workers: the number of workers at the start.
        boot_timeout: seconds that a worker may take until it is ready.
        graceful_timeout: the grace period of a worker that drains, in seconds.
        reload_parallel: the number of successors that boot at the same time.
        worker_timeout: seconds without a beat after which a worker is killed; 0 for no
            limit.
        development: a worker that cannot start is replaced by one that shows why, and
            the server goes on.
    """

    workers: int
    boot_timeout: float = 60.0
    graceful_timeout: float = 30.0
    reload_parallel: int = 1
    worker_timeout: float = 30.0
    development: bool = False


class Beats(Protocol):
    """The shared page, as the master uses it."""

    def clear(self, record: int) -> None:
        """Forget the last worker of a record."""

    def read(self, record: int) -> Beat:
        """Return the state of a worker."""

    def write_serving(self, records: Sequence[int]) -> None:
        """Tell all workers the records of those that serve."""


class Sockets(Protocol):
    """The listening sockets of the server."""

    @property
    def addresses(self) -> Sequence[str]:
        """The addresses, for the status."""

    @property
    def slots(self) -> int:
        """The number of slots with sockets."""

    def shared(self) -> list[int]:
        """Return the indices of the endpoints whose socket all slots share."""

    def descriptors(self, slot: int, *, shared: bool) -> tuple[list[int], list[int]]:
        """Return the listening descriptors of a slot, opening them if necessary.

        Args:
            slot: the index of the slot.
            shared: whether to return the sockets that all slots share, too.

        Returns:
            The indices of the endpoints, and a descriptor for each.
        """


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
        self._watching: IDelayedCall | None = None
        self._watched_at = self._resumed_at = monotonic()
        # The first record is that of the master.
        self._free_records = list(range(1, RECORDS))
        self._recycling: list[Worker] = []
        self._target = settings.workers
        self._slots: list[Slot] = []
        self._observers: list[MasterObserver] = []
        self._numbers = 0
        self._questions = 0
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
        self._cut_short = False
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
                self.worker_status(worker)
                for slot in self._slots
                for worker in slot.workers()
            ),
            restarts=self._restarts,
            reloads=self._reloads,
            last_reload=self._last_reload,
        )

    def details(self, worker: int) -> Deferred[WorkerDetails | None]:
        """See `MasterControl.details`."""
        found = next((each for each in self.workers() if each.number == worker), None)
        if found is None or found.is_booting:
            return succeed(None)
        self._questions += 1
        question = self._questions
        answer: Deferred[Any] = Deferred()
        found.details[question] = answer
        found.send({"do": "details", "question": question})
        answer.addTimeout(ANSWER_SECONDS, self._reactor)
        return answer.addErrback(self._no_details, found, question)

    @staticmethod
    def _no_details(_: object, worker: Worker, question: int) -> None:
        worker.details.pop(question, None)

    def stacks(self, worker: int, request: str = "") -> Deferred[str]:
        """See `MasterControl.stacks`."""
        found = next((each for each in self.workers() if each.number == worker), None)
        if found is None:
            return fail(LookupError(f"there is no worker {worker}"))
        answer: Deferred[str] = Deferred()
        self._questions += 1
        question = self._questions
        found.stacks[question] = answer
        if found.is_booting or found.blocked:
            self._unanswered(found, question)
            return answer
        found.send({"do": "stacks", "question": question, "request": request})
        found.answers.append(
            self._reactor.callLater(ANSWER_SECONDS, self._unanswered, found, question)
        )
        return answer

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
            self._drain(worker)
            if not booting:
                worker.calls.append(
                    self._reactor.callLater(grace_seconds, self._hurry, worker)
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
        self._watched_at = self._monotonic()
        self._watch()

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
            for worker in list(self.workers()):
                self._drain(worker, final=final)
            if self._reload is not None:
                self._reload.abandon("the server shuts down")
        self._check_stopped()
        return done

    def cut_short(self) -> None:
        """End the grace period of workers that drain, now and later."""
        self._cut_short = True
        for worker in self.workers():
            if worker.is_draining:
                self._hurry(worker)

    def for_all(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message to all workers."""
        for worker in self.workers():
            worker.send(message, descriptors)

    def workers(self) -> Iterable[Worker]:
        """Return all live workers."""
        return [worker for slot in self._slots for worker in slot.workers()]

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
            self._recycle(worker, message["reason"])
        elif event == "leaving":
            self._leaving(worker, message["reason"])
        elif event == "stacks":
            _answer(worker, message["question"], message["text"])
        elif event == "details":
            details = worker.details.pop(message["question"], None)
            if details is not None:
                details.callback(message["details"])
        elif event in self.events:
            self.events[event](worker, message)
        else:
            _log.warn(
                "{worker} sent an unknown message: {event}", worker=worker, event=event
            )

    def lost(self, worker: Worker) -> None:
        """Handle the end of the link of a worker, whose process ends next."""
        if not worker.is_gone:
            worker.calls.append(
                self._reactor.callLater(
                    LOST_SECONDS, self._kill, worker, "it has closed its link"
                )
            )

    def exited(self, worker: Worker, status: int | None, number: int | None) -> None:
        """Handle the end of a worker.

        Args:
            worker: the worker.
            status: its exit status; None if a signal has ended it.
            number: that signal; None if it has exited.
        """
        before = worker.state
        slot = worker.slot
        booting, draining = worker.is_booting, worker.is_draining
        worker.move("exit")
        heapq.heappush(self._free_records, worker.record)
        worker.cancel_calls()
        worker.cancel_answers()
        for answer in worker.stacks.values():
            answer.errback(LookupError(f"{worker} has ended"))
        worker.stacks.clear()
        for details in list(worker.details.values()):
            details.cancel()
        slot.draining.discard(worker)
        if slot.tenant is worker:
            slot.tenant = None
        if slot.successor is worker:
            slot.successor = None
        ended = _ended(status, number)
        if draining:
            if number is not None:
                _log.warn(
                    "{worker} {ended} while it drained", worker=worker, ended=ended
                )
            else:
                _log.info("{worker} has ended", worker=worker)
        elif not booting:
            self._crashed(worker, ended)
        if before != "ready" and not worker.booted.called:
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
            self._drain(slot.successor)
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
                self._settings.boot_timeout, self._boot_timed_out, worker
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
        self._adopt(worker, slot)
        if self._unready:
            worker.send({"do": "unready"})
        self._update_neighbours()
        if old is not None:
            self._drain(old)
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
            self._drain(worker)
            self._update_neighbours()
            self._start(worker.slot)

    def _drain(self, worker: Worker, *, final: bool = False) -> None:
        """Let a worker finish its requests and end. It is killed if it does not.

        Args:
            worker: the worker.
            final: whether no other process accepts the connections of its backlog.
        """
        if worker.is_draining or worker.is_gone:
            return
        booting = worker.is_booting
        worker.move("drain")
        worker.cancel_calls()
        slot = worker.slot
        if slot.tenant is worker:
            slot.tenant = None
        if slot.successor is worker:
            slot.successor = None
        slot.draining.add(worker)
        self._update_neighbours()
        if booting:
            worker.kill(signal.SIGTERM)
            seconds = BOOT_KILL_SECONDS
        else:
            worker.send({"do": "drain", "final": final})
            seconds = self._settings.graceful_timeout + KILL_MARGIN_SECONDS
        worker.calls.append(
            self._reactor.callLater(
                seconds, self._kill, worker, f"it did not end in {seconds:g} s"
            )
        )
        if self._cut_short:
            self._hurry(worker)

    def _hurry(self, worker: Worker) -> None:
        """End the grace period of a worker that drains."""
        worker.send({"do": "cut short"})
        worker.cancel_calls()
        worker.calls.append(
            self._reactor.callLater(
                KILL_MARGIN_SECONDS,
                self._kill,
                worker,
                f"it did not end in {KILL_MARGIN_SECONDS:g} s",
            )
        )

    def _retire(self, slot: Slot) -> None:
        slot.cancel_restart()
        for worker in slot.workers():
            self._drain(worker)

    def _kill(self, worker: Worker, reason: str) -> None:
        _log.error("killing {worker}: {reason}", worker=worker, reason=reason)
        if not worker.reason:
            worker.reason = f"it was killed: {reason}"
        worker.kill(signal.SIGKILL)

    def _boot_timed_out(self, worker: Worker) -> None:
        seconds = self._settings.boot_timeout
        worker.reason = f"it was not ready after {seconds:g} s (--boot-timeout)"

        def kill(stacks: str) -> None:
            if stacks:
                worker.reason += f"; its stacks:\n{stacks.rstrip()}"
            worker.kill(signal.SIGKILL)

        worker.calls.append(self._dump_stacks(worker, kill))

    def _dump_stacks(
        self, worker: Worker, receive: Callable[[str], object]
    ) -> IDelayedCall:
        """Pass the stacks of a worker on, which may be blocked.

        Returns:
            The call, to be cancelled at the end of the process.
        """
        process = worker.process
        assert process is not None, "it has been started"
        process.begin_stacks()

        def read() -> None:
            receive(process.stacks())

        return self._reactor.callLater(STACKS_SECONDS, read)

    def _unanswered(self, worker: Worker, question: int) -> None:
        """Let a worker that does not answer write its stacks."""
        if question in worker.stacks:
            answer = partial(_answer, worker, question)
            worker.answers.append(self._dump_stacks(worker, answer))

    def _boot_failed(self, worker: Worker, reason: str) -> None:
        # A reload logs the whole reason when it ends.
        known = self._reload is not None and worker.slot in self._reload.booting
        text = reason.splitlines()[-1] if known and reason else reason
        _log.error("{worker} cannot start: {reason}", worker=worker, reason=text)
        slot = worker.slot
        self._notify("failed", slot.index, reason)
        if self._settings.development and not worker.failure:
            self._show_failure(slot, reason)
        elif not self._any_ready:
            self._give_up(reason)
        elif self._reload is None or slot not in self._reload.booting:
            self._restart(slot)
        elif slot.tenant is None:
            # The worker had crashed before the reload.
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

    # Recycling: a reload of single slots.

    def _recycle(self, worker: Worker, reason: str) -> None:
        """Replace a worker that has reached a limit. It serves until then."""
        if worker.is_ready and not worker.recycling and not self._stopping:
            worker.recycling = True
            _log.info("recycling {worker}: {reason}", worker=worker, reason=reason)
            self._recycling.append(worker)
            self._proceed_recycling()

    def _proceed_recycling(self) -> None:
        """Start successors, as many at a time as during a reload."""
        self._recycling = [each for each in self._recycling if each.is_ready]
        if self._stopping or self._reload is not None:
            return
        waiting = [each for each in self._recycling if each.slot.successor is None]
        booting = sum(slot.successor is not None for slot in self._slots)
        for worker in waiting[: max(self._settings.reload_parallel - booting, 0)]:
            booted = self._boot(worker.slot).booted
            booted.addErrback(self._not_recycled, worker)

    def _not_recycled(self, _failure: object, worker: Worker) -> None:
        """Keep a worker whose successor cannot start. It asks again."""
        worker.recycling = False
        if worker in self._recycling:
            self._recycling.remove(worker)

    # Beats.

    def _watch(self) -> None:
        """Look at the beats of all workers."""
        now = self._monotonic()
        if now - self._watched_at > WATCH_SECONDS + STOPPED_SECONDS:
            # This process was stopped, and the workers may have been too.
            self._resumed_at = now
        self._watched_at = now
        changed = False
        for worker in self.workers():
            if not worker.is_ready:
                continue
            beat = self._beats.read(worker.record)
            if not beat.beats:
                continue
            age = now - max(beat.time, self._resumed_at)
            blocked = age > BLOCKED_SECONDS
            if blocked is not worker.blocked:
                worker.blocked = blocked
                changed = True
                if blocked:
                    self._log_blocked(worker, beat, age)
                else:
                    _log.info("{worker} responds again", worker=worker)
            if not blocked:
                worker.suspected_at = None
            elif self._settings.worker_timeout:
                self._check_hung(worker, beat, age, now)
        if changed:
            self._update_neighbours()
        self._poll_shared()
        self._watching = self._reactor.callLater(WATCH_SECONDS, self._watch)

    @staticmethod
    def _log_blocked(worker: Worker, beat: Beat, age: float) -> None:
        """Name the request that blocks a worker, unless the worker itself has."""
        if not beat.reported:
            _log.warn(
                "{worker} is blocked for {age:.1f} s by {current}, which lets no other "
                "Python code run",
                worker=worker,
                age=age,
                current=_described(beat),
            )

    def _check_hung(self, worker: Worker, beat: Beat, age: float, now: float) -> None:
        """Request the stacks of a worker before its timeout, and kill it after."""
        timeout = self._settings.worker_timeout
        process = worker.process
        if process is None or worker.killed:
            return
        if worker.suspected_at is None:
            if age >= max(timeout - STACKS_SECONDS, timeout / 2):
                worker.suspected_at = now
                process.begin_stacks()
        elif age >= timeout and now - worker.suspected_at >= STACKS_SECONDS:
            worker.killed = True
            _log.error(
                "killing {worker}: its reactor is blocked for {age:.1f} s "
                "(--worker-timeout {timeout:g}) by {current}; its stacks:\n{stacks}",
                worker=worker,
                age=age,
                timeout=timeout,
                current=_described(beat),
                stacks=process.stacks().rstrip() or "not available",
            )
            worker.kill(signal.SIGKILL)

    def _poll_shared(self) -> None:
        """Let a neighbour look at the shared sockets while a worker is blocked.

        The kernel has woken one worker for each connection, which may be the blocked
        one.
        """
        workers = [slot.tenant for slot in self._slots if slot.tenant is not None]
        able = [each for each in workers if not each.blocked]
        if able and len(able) < len(workers):
            able[0].send({"do": "poll"})

    # Sockets.

    def _adopt(self, worker: Worker, slot: Slot) -> None:
        """Let a worker accept for a slot."""
        own = worker.slot is slot
        indices, descriptors = self._sockets.descriptors(slot.index, shared=own)
        worker.accepts.add(slot.index)
        if indices:
            worker.send(
                {
                    "do": "adopt",
                    "slot": slot.index,
                    "listeners": indices,
                    "shared": self._sockets.shared(),
                },
                descriptors,
            )

    def _update_neighbours(self) -> None:
        """Let neighbours accept for the slots whose worker cannot."""
        if self._stopping:
            return
        able = [
            slot.tenant
            for slot in self._slots
            if slot.tenant is not None and not slot.tenant.blocked
        ]
        self._beats.write_serving([worker.record for worker in able])
        for slot in self._slots:
            before = slot.neighbour
            wanted = before if before in able else None
            if slot.tenant in able or not able:
                wanted = None
            elif wanted is None:
                wanted = min(able, key=lambda each: (len(each.accepts), each.number))
            if wanted is before:
                continue
            slot.neighbour = wanted
            if wanted is not None:
                self._adopt(wanted, slot)
            if before is not None:
                before.accepts.discard(slot.index)
                if before.is_ready:
                    before.send({"do": "release", "slot": slot.index})

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
                self._drain(worker)
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

    def worker_status(self, worker: Worker) -> WorkerStatus:
        """Return the status of one worker."""
        beat = self._beats.read(worker.record)
        age = self._monotonic() - beat.time if beat.beats else None
        return WorkerStatus(
            number=worker.number,
            slot=worker.slot.index,
            pid=0 if worker.process is None else worker.process.pid,
            state=worker.state,
            age=self._reactor.seconds() - worker.started,
            slots=tuple(sorted(worker.accepts)),
            beat_age=age,
            lag=beat.lag,
            requests=beat.requests,
            connections=beat.connections,
            served=beat.served,
            current=beat.current,
        )

    def _check_stopped(self) -> None:
        if self._stopping and not self.workers():
            if self._watching is not None and self._watching.active():
                self._watching.cancel()
            stopped, self._stopped = self._stopped, []
            for done in stopped:
                done.callback(None)


def _described(beat: Beat) -> str:
    """Return the code that runs in a worker, for the log."""
    if not beat.current:
        return "code outside requests"
    kind = "" if beat.current.startswith(("task ", "a task")) else "request "
    return f"{kind}{beat.current}"


def _answer(worker: Worker, question: int, text: str) -> None:
    answer = worker.stacks.pop(question, None)
    if answer is not None:
        answer.callback(text)


def _pass_on(result: Any, answer: Deferred[Any]) -> Any:
    answer.callback(result)
    return result


def _ignore(failure: object) -> None:
    """Discard a failure that has been handled."""


def _ended(status: int | None, number: int | None) -> str:
    """Return the end of a process as a clause for the log."""
    if number is None:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"was killed by signal {number}"
