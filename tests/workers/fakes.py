"""Fake processes and sockets for the logic of the master."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock

from txgreenwsgi._workers.interface import MasterObserver
from txgreenwsgi._workers.master import Master
from txgreenwsgi._workers.master_parts import MasterSettings
from txgreenwsgi._workers.page import Beat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._workers.interface import EndedWorker, ReloadResult
    from txgreenwsgi._workers.messages import Message
    from txgreenwsgi._workers.slots import Worker


class FakeProcess:
    """A process that records what the master does to it.

    Attributes:
        worker: its worker.
        pid: the process id.
        messages: the messages sent to it.
        signals: the signals sent to it.
        alive: whether it has not ended.
    """

    def __init__(self, case: MasterCase, worker: Worker) -> None:
        self._case = case
        self.worker = worker
        self.pid = 1000 + worker.number
        self.messages: list[Message] = []
        self.signals: list[int] = []
        self.stacks_begun = 0
        self.alive = True

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Record a message."""
        self.messages.append({**message, "descriptors": list(descriptors)})

    def kill(self, number: int) -> None:
        """Record a signal."""
        self.signals.append(int(number))

    def begin_stacks(self) -> None:
        """Record it."""
        self.stacks_begun += 1

    def stacks(self) -> str:
        """Return a fixed text."""
        return f"stacks of {self.pid}"

    # The behaviour of the process, chosen by the test.

    def ready(self) -> None:
        """Report that the worker is ready."""
        self._case.master.received(self.worker, {"event": "ready"})

    def fail(self, reason: str) -> None:
        """Report an error and exit."""
        self._case.master.received(self.worker, {"event": "failed", "reason": reason})
        self.exit(1)

    def exit(self, status: int | None = 0, number: int | None = None) -> None:
        """End."""
        self.alive = False
        self._case.master.exited(self.worker, status, number)

    def done(self, *actions: str) -> list[Message]:
        """Return the messages with some actions."""
        return [each for each in self.messages if each["do"] in actions]

    @property
    def draining(self) -> bool:
        """Whether the process was told to end."""
        return bool(self.done("drain")) or signal.SIGTERM in self.signals


class FakeSockets:
    """Listening sockets: endpoint 0 is divided, endpoint 1 is shared."""

    addresses = ("127.0.0.1:8080", "/run/socket")

    slots = 0

    def shared(self) -> list[int]:
        """Return the index of the shared endpoint."""
        return [1]

    def descriptors(self, slot: int, *, shared: bool) -> tuple[list[int], list[int]]:
        """Return numbers that tell the slot."""
        return ([0, 1], [100 + slot, 99]) if shared else ([0], [100 + slot])


class FakeBeats:
    """A page without beats, unless the test writes some."""

    def __init__(self) -> None:
        self.beats: dict[int, Beat] = {}
        self.serving: list[int] = []

    def clear(self, record: int) -> None:
        """Forget the beats of a record."""
        self.beats.pop(record, None)

    def read(self, record: int) -> Beat:
        """Return the last beat."""
        return self.beats.get(record, Beat(0, 0.0, 0.0, 0, 0, 0, False, ""))

    def write_serving(self, records: Sequence[int]) -> None:
        """Record it."""
        self.serving = list(records)


class MasterCase:
    """A master on a clock, with fake processes.

    Attributes:
        processes: all processes that were started, in order.
        launch_errors: raised at the next launches.
        given_up: the reasons passed to `give_up`.
    """

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        self.clock = Clock()
        self.processes: list[FakeProcess] = []
        self.beats = FakeBeats()
        self.launch_errors: list[OSError] = []
        self.given_up: list[str] = []
        self.master = Master(
            self.clock,
            MasterSettings(workers, **settings),
            FakeSockets(),
            self._launch,
            self.beats,
            self.given_up.append,
            self.clock.seconds,
        )

    def _launch(self, worker: Worker) -> FakeProcess:
        if self.launch_errors:
            raise self.launch_errors.pop(0)
        process = FakeProcess(self, worker)
        self.processes.append(process)
        return process

    def start(self) -> None:
        """Start the master, with all workers ready."""
        self.master.start()
        for process in list(self.processes):
            process.ready()

    @property
    def live(self) -> list[FakeProcess]:
        """The processes that have not ended."""
        return [process for process in self.processes if process.alive]

    @property
    def last(self) -> FakeProcess:
        """The process that was started last."""
        return self.processes[-1]

    def end_drained(self) -> None:
        """End the processes that were told to."""
        for process in self.live:
            if process.draining:
                process.exit()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)


class Observer(MasterObserver):
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.results: list[ReloadResult] = []
        self.ends: list[tuple[int, str]] = []

    def ready(self) -> None:
        """Record it."""
        self.calls.append("ready")

    def reloading(self) -> None:
        """Record it."""
        self.calls.append("reloading")

    def reloaded(self, result: ReloadResult) -> None:
        """Record it."""
        self.calls.append("reloaded")
        self.results.append(result)

    def failed(self, slot: int, reason: str) -> None:
        """Record it."""
        self.calls.append(f"slot {slot} failed: {reason}")

    def ended(self, worker: EndedWorker) -> None:
        """Record it."""
        self.ends.append((worker.number, worker.reason))

    def stopping(self) -> None:
        """Record it."""
        self.calls.append("stopping")

    def changed(self, text: str) -> None:
        """Record it."""
        self.calls.append(text)
