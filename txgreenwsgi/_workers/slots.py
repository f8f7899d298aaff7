"""Slots and their workers, as the master sees them.

It knows the life of a worker. It must never know how a process is started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from .states import BOOTING, DRAINING, GONE, READY, WORKER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IDelayedCall

    from .messages import Message

__all__ = ["BootCancelled", "BootFailed", "Process", "Slot", "Worker"]


class Process(Protocol):
    """A process that runs a worker."""

    @property
    def pid(self) -> int:
        """The process id."""

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message to the worker. Never parks."""

    def kill(self, number: int) -> None:
        """Send a signal. A no-op if the process has ended."""

    def begin_stacks(self) -> None:
        """Let the process write its stacks, in any case within `STACKS_SECONDS`."""

    def stacks(self) -> str:
        """Return the stacks that were written since `begin_stacks`."""


class BootFailed(Exception):
    """A worker has ended, or was ended, before it was ready.

    The message is the reason; a traceback of the worker follows on further lines.
    """


class BootCancelled(BootFailed):
    """A worker was told to end before it was ready."""


@dataclass(eq=False)
class Worker:
    """One worker process.

    Attributes:
        number: counts all workers of the master, from 1.
        slot: its slot.
        started: the time of its start.
        record: the index of its record in the shared page.
        state: see `states`.
        process: the process; None until it has started.
        ready_at: the time at which it became ready.
        accepts: the slots that it accepts for.
        blocked: whether a neighbour accepts for it because its reactor is blocked.
        suspected_at: the time at which its stacks were requested because its reactor
            seems to hang.
        killed: whether the master has killed it because its reactor hangs.
        recycling: whether it gets a successor at its own request.
        reason: why it ends, if the master knows it.
        replaced: why it has a successor: "reload", "recycle" or "signal"; "" if it has
            none, or ends unexpectedly.
        booted: fires when it is ready, or fails with `BootFailed`.
        calls: delayed calls that the next change of its state cancels.
        answers: delayed calls that its end cancels.
        stacks: by question number, Deferreds that wait for its stacks.
        details: the same for its other answers.
        failure: in development, why the application does not start; the worker serves
            a page that shows it. "" to start the application.
    """

    number: int
    slot: Slot
    started: float
    record: int = 0
    state: str = BOOTING
    process: Process | None = None
    ready_at: float | None = None
    accepts: set[int] = field(default_factory=set)
    blocked: bool = False
    suspected_at: float | None = None
    killed: bool = False
    recycling: bool = False
    reason: str = ""
    replaced: str = ""
    booted: Deferred[None] = field(default_factory=Deferred)
    calls: list[IDelayedCall] = field(default_factory=list)
    answers: list[IDelayedCall] = field(default_factory=list)
    stacks: dict[int, Deferred[str]] = field(default_factory=dict)
    details: dict[int, Deferred[Any]] = field(default_factory=dict)
    failure: str = ""

    def __str__(self) -> str:
        started = self.process is not None and self.process.pid
        pid = f"pid {started}" if started else "not started"
        return f"worker {self.number} ({pid}, slot {self.slot.index + 1})"

    @property
    def is_booting(self) -> bool:
        """Whether it is not ready yet."""
        return self.state is BOOTING

    @property
    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.state is READY

    @property
    def is_draining(self) -> bool:
        """Whether it was told to end."""
        return self.state is DRAINING

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self.state is GONE

    def move(self, event: str) -> None:
        """Change the state.

        Raises:
            IllegalTransition: the event is illegal in this state.
        """
        self.state = WORKER.moves(event)[self.state]

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message to the worker, if it runs."""
        if self.process is not None:
            self.process.send(message, descriptors)

    def kill(self, number: int) -> None:
        """Send a signal to the worker, if it runs."""
        if self.process is not None:
            self.process.kill(number)

    def cancel_calls(self) -> None:
        """Cancel the delayed calls that its state has caused."""
        _cancel(self.calls)

    def cancel_answers(self) -> None:
        """Cancel the delayed answers to questions."""
        _cancel(self.answers)


@dataclass(eq=False)
class Slot:
    """A place for one worker, with sockets of its own.

    Attributes:
        index: counts the slots from 0.
        tenant: the ready worker that serves it.
        successor: the booting worker.
        draining: workers that end.
        neighbour: the worker of another slot that accepts for it.
        retired: whether it has no worker on purpose, since the server was scaled down.
        failures: the number of workers in sequence that ended soon after their start.
        restart: the delayed start of the next worker.
    """

    index: int
    tenant: Worker | None = None
    successor: Worker | None = None
    draining: set[Worker] = field(default_factory=set)
    neighbour: Worker | None = None
    retired: bool = False
    failures: int = 0
    restart: IDelayedCall | None = None

    def workers(self) -> list[Worker]:
        """Return its live workers, the oldest first."""
        live = [*self.draining]
        live += [each for each in (self.tenant, self.successor) if each is not None]
        return sorted(live, key=lambda worker: worker.number)

    def vacate(self, worker: Worker) -> None:
        """Let a worker be neither tenant nor successor any more."""
        if self.tenant is worker:
            self.tenant = None
        if self.successor is worker:
            self.successor = None

    def cancel_restart(self) -> None:
        """Cancel the delayed start of a worker."""
        if self.restart is not None and self.restart.active():
            self.restart.cancel()
        self.restart = None


def _cancel(calls: list[IDelayedCall]) -> None:
    for call in calls:
        if call.active():
            call.cancel()
    calls.clear()
