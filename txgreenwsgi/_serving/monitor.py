"""The blocked-reactor monitor: a thread that names the code that holds the reactor up.

The thread compares samples: as long as the same task runs since the same switch, that
task holds the reactor up. Outside tasks, a call that the reactor has not made shows the
same. Requests pay nothing, because the hub notes each switch anyway
(`docs/decisions/0019-blocked-reactor-monitor.md`).

This file knows tasks, and the table of requests. It must never know a transport.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.logger import Logger

from txgreenwsgi._parking.real_threads import (
    add_reactor_thread,
    discard_reactor_thread,
    real_lock,
    start_real_thread,
    thread_ident,
)
from txgreenwsgi._parking.thread_load import NO_LOAD, Load
from txgreenwsgi._switching import running
from txgreenwsgi.monitoring.blocked import BlockedReport, report
from txgreenwsgi.monitoring.stacks import (
    CodeLine,
    Kind,
    Stack,
    application_line,
    excerpt,
    in_debugger,
    kind_of,
)

from .blocks import Block
from .surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from txgreenwsgi._switching.greenlets import Hub, Task

    from .registry import InFlight

__all__ = ["BlockedMonitor", "Watched", "monitor_of"]

_log = Logger()

#: Interval between two samples while something may block, unless `blocked_after` needs
#: a shorter one.
SAMPLE_SECONDS: Final = 0.05
#: The longest interval otherwise. An interval just below `blocked_after` is enough to
#: notice a block in time, because the hub notes when the task was resumed.
_CALM_SECONDS: Final = 0.5
_SHORTEST_SAMPLE_SECONDS: Final = 0.01

#: Time for which the thread stays after the last connection, because starting it for
#: each connection would cost more than the samples.
LINGER_SECONDS: Final = 0.5

#: A sample that comes later than this after its time is late.
_LATE_SECONDS: Final = 0.05

#: Share of an interval without a processor from which on the machine, and not the code,
#: holds the reactor up.
_STARVED: Final = 0.95

#: Interval between two messages about the same line.
MESSAGE_SECONDS: Final = 60.0

#: The block of a line at which a message names the remedies.
REMEDY_BLOCKS: Final = 10

#: Number of lines of a stack in a message.
STACK_LINES: Final = 10

#: Maximum number of lines whose messages are counted.
MOST_COUNTED: Final = 1000

REMEDIES: Final = (
    "serve these requests in real threads (--threads-for PATTERN, or @in_thread on the "
    "view), or run the call with txgreenwsgi.offload()"
)


class Watched(Protocol):
    """The part of an application's server that the monitor uses."""

    @property
    def blocked_after(self) -> float:
        """The setting, above 0."""

    @property
    def requests_in_flight(self) -> Collection[InFlight]:
        """The exchanges in progress."""

    @property
    def open_connections(self) -> int:
        """The number of open connections."""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass
class _Messages:
    """The messages about one line.

    Attributes:
        last: the time of the last message.
        unreported: blocks since then.
        blocks: all blocks.
        seconds: their duration.
    """

    last: float = float("-inf")
    unreported: int = 0
    blocks: int = 0
    seconds: float = 0.0


class _Subject(NamedTuple):
    """The code that runs, and what waits for it.

    Attributes:
        request: the request, such as "GET /reports/7"; else a description.
        name: the same for the log, with the identity of the request.
        exchange: the request; None for other code.
        others: the number of other requests in flight.
        connections: the number of open connections.
    """

    request: str
    name: str
    exchange: InFlight | None
    others: int
    connections: int


@dataclass
class _Sample:
    """The state of the reactor at one moment, and the time since the last sample.

    Attributes:
        now: the moment.
        gap: the time since the last sample.
        planned: the time that should have passed.
        task: the running task; None for the reactor itself.
        resumed_at: the time of the last switch, by the reactor's clock.
        resumed_for: the time since then, by the same clock.
        idle: whether the reactor waits for events.
        stack: the stack of the reactor's thread; empty if the reactor is idle.
        subject: the running code; None if the sample is not late.
        used: the load of the reactor's thread since the last sample.
    """

    now: float
    gap: float
    planned: float
    task: Task[object] | None
    resumed_at: float
    resumed_for: float
    idle: bool
    stack: Stack
    subject: _Subject | None = None
    used: Load = NO_LOAD

    @property
    def late(self) -> bool:
        """Whether the monitor's thread could not run in time."""
        return self.gap > self.planned + _LATE_SECONDS

    @property
    def computed(self) -> bool:
        """Whether the reactor's thread computed for most of the time it could."""
        return self.used.thread >= max(self.gap - self.used.delay, 0.0) / 2

    def credit(self) -> float:
        """Return the part of the time in which the reactor may have been blocked.

        All of it, if the monitor's thread ran in time. If that thread was late, either
        code held the interpreter lock, or the process was stopped or lacked a
        processor.
        """
        ready = max(self.gap - self.used.delay, 0.0)
        if self.used.delay > _STARVED * self.gap:
            return ready  # hardly any processor time for the reactor
        return self.gap if not self.late or self.computed else 0.0


class BlockedMonitor:
    """The monitor of one hub. Made by `monitor_of`.

    Args:
        hub: the hub of the reactor's tasks.
        surroundings: the process; replaced in tests.
        lines: where blocks are added up.
        start_thread: starts a thread, as `_thread.start_new_thread`.

    Attributes:
        on_block: called in the monitor's thread for each block that has lasted long
            enough to be reported. None for no call.
    """

    def __init__(
        self,
        hub: Hub,
        surroundings: Surroundings | None = None,
        lines: BlockedReport = report,
        start_thread: Callable[..., object] = start_real_thread,
    ) -> None:
        self.on_block: Callable[[], object] | None = None
        self._hub = hub
        self._around = surroundings or Surroundings()
        self._report = lines
        self._start_thread = start_thread
        self._lock = real_lock()
        self._wake = real_lock()
        self._wake.acquire()
        self._servers: set[Watched] = set()
        self._alive = False
        self._idle_since: float | None = None
        self._failed = False
        self._has_trigger = False
        self._messages: dict[tuple[str, int], _Messages] = {}
        self._begin()

    def _begin(self) -> None:
        """Set the state of a monitor that has seen nothing."""
        self._last = self._around.now()
        self._last_load = self._around.load()
        self._seen: tuple[Task[object] | None, float] = (None, -1.0)
        self._since = self._last
        self._held = 0.0
        self._collected = 0.0
        self._samples: Counter[CodeLine] = Counter()
        self._stack: Stack = ()
        self._block: Block | None = None
        # Whether the reactor was asked to make a call, and the time when it did.
        self._asking = False
        self._answered_at: float | None = None
        self._idle = False
        self._suspicious = False

    # Called in the reactor's thread.

    def watch(self, server: Watched) -> None:
        """Watch the reactor while `server` has connections. Never parks."""
        with self._lock:
            self._servers.add(server)
            if self._alive or self._failed:
                return
            self._alive = True
            self._around.begin()
        self._begin()
        self._idle_since = None
        if not self._has_trigger and IReactorCore.providedBy(self._hub.reactor):
            self._has_trigger = True
            self._hub.reactor.addSystemEventTrigger("after", "shutdown", self.stop)
        self._start_thread(self._run, ())

    def unwatch(self, server: Watched) -> None:
        """Forget a server without connections. Never parks."""
        self._servers.discard(server)

    def stop(self) -> None:
        """End the thread, and log the lines that blocked the reactor.

        Called after the reactor has shut down.
        """
        self._has_trigger = False  # it is used up
        _monitors.pop(self._hub, None)  # a stopped reactor has no use for it
        self._servers.clear()
        self._idle_since = float("-inf")
        if self._wake.locked():
            self._wake.release()
        summary = self._report.summary()
        if summary:
            _log.info(
                "code that blocked the reactor, by time:\n{lines}",
                lines="\n".join(f"  {line}" for line in summary),
            )

    def _answer(self) -> None:
        """Note that the reactor is alive. Called by the reactor."""
        self._answered_at = self._around.now()
        self._asking = False

    # The thread.

    def _run(self) -> None:
        self._around.enter_thread()
        add_reactor_thread(thread_ident())
        try:
            while self._go_on():
                self.sample()
                self._wake.acquire(True, self.interval)
        except Exception:
            _log.failure("blocked-reactor monitor: ended by an error")
            with self._lock:
                self._failed = True
                self._end_thread()
        finally:
            discard_reactor_thread(thread_ident())

    def _go_on(self) -> bool:
        """Return whether to take another sample; otherwise the thread must end."""
        if self._servers:
            self._idle_since = None
            return True
        now = self._around.now()
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since < LINGER_SECONDS:
            return True
        with self._lock:
            if self._servers:
                return True
            self._end_thread()
            return False

    def _end_thread(self) -> None:
        self._alive = False
        self._around.end()

    @property
    def _blocked_after(self) -> float:
        return min((server.blocked_after for server in tuple(self._servers)), default=0)

    @property
    def interval(self) -> float:
        """Seconds until the next sample: few while something may block."""
        limit = self._blocked_after
        if not limit:
            return SAMPLE_SECONDS
        if self._suspicious:
            return max(min(SAMPLE_SECONDS, limit / 4), _SHORTEST_SAMPLE_SECONDS)
        calm = max(limit - SAMPLE_SECONDS, limit / 2)
        return max(min(_CALM_SECONDS, calm), _SHORTEST_SAMPLE_SECONDS)

    def sample(self) -> None:
        """Compare the reactor with the last sample, and report."""
        limit = self._blocked_after
        if not limit:
            self._last = self._around.now()
            if self._block is not None:
                self._end(self._last)
            return
        # First, and without a call that releases the interpreter lock: a task whose C
        # code held it runs on, and may end, as soon as the lock is free.
        sample = self._take()
        early = self._block_early(sample, limit)
        self._measure(sample)
        following = None
        if self._around.now() - sample.now > _LATE_SECONDS:
            # These calls waited for the lock: the next block has come and gone.
            following = self._take()
        self._finish(sample, limit, early)
        if following is not None:
            early = self._block_early(following, limit)
            self._measure(following)
            self._finish(following, limit, early)

    def _measure(self, sample: _Sample) -> None:
        """Add what only calls can tell that release the interpreter lock."""
        load = self._around.load()
        sample.used, self._last_load = load.since(self._last_load), load

    def _finish(self, sample: _Sample, limit: float, early: Block | None) -> None:
        self._compare(sample, limit, early)
        if early is not None and early is not self._block:
            early.cancel()

    def _take(self) -> _Sample:
        """Return the state of the reactor. Must not release the interpreter lock."""
        around, hub = self._around, self._hub
        planned = self.interval
        now = around.now()
        gap, self._last = now - self._last, now
        task = running.task
        if task is not None and task.hub is not hub:
            task = None
        idle = task is None and around.is_idle(hub.thread)
        sample = _Sample(
            now=now,
            gap=gap,
            planned=planned,
            task=task,
            resumed_at=hub.resumed_at,
            resumed_for=hub.seconds() - hub.resumed_at,
            idle=idle,
            stack=() if idle else around.stack(hub.thread),
        )
        if sample.late:
            sample.subject = self._subject(task)
        return sample

    def _block_early(self, sample: _Sample, limit: float) -> Block | None:
        """Return a block that is probable, so that the record of its request has it."""
        subject = sample.subject
        if subject is None or subject.exchange is None or not sample.stack:
            return None
        seconds = min(sample.resumed_for, sample.gap)
        used = self._around.processor_time() - self._last_load.thread
        if seconds < limit or used < sample.gap / 4 or self._block is not None:
            return None
        return self._new_block(sample, subject, sample.now - seconds)

    def _new_block(self, sample: _Sample, subject: _Subject, since: float) -> Block:
        exchange = subject.exchange
        block = Block(
            since=since,
            request=subject.request,
            name=subject.name,
            line=application_line(sample.stack),
            waiting=subject.others,
        )
        if exchange is not None:
            if exchange.blocks is None:
                exchange.blocks = []
            exchange.blocks.append(block)
        return block

    def _compare(self, sample: _Sample, limit: float, early: Block | None) -> None:
        """Find out whether the reactor has made progress since the last sample."""
        task = sample.task
        self._idle = sample.idle
        progress = (task, sample.resumed_at) != self._seen
        if task is None and (self._answered_at is not None or not self._asking):
            progress = True
        collections = self._around.collections()
        if self._idle or progress:
            if self._block is not None:
                self._note_collections(collections)
                self._end(sample.now)
            self._start_over(sample)
        else:
            credit = sample.credit()
            self._held += credit
            self._since += sample.gap - credit  # the process was stopped meanwhile
        self._note_collections(collections)
        self._suspicious = not self._idle
        if self._block is not None or self._held >= limit / 2:
            self._look(sample)
        if self._held >= limit and self._block is None and self._samples:
            self._announce(sample, early)

    def _note_collections(self, collections: list[tuple[float, float]]) -> None:
        for start, end in collections:
            self._collected += max(0.0, end - max(start, self._since))

    def _start_over(self, sample: _Sample) -> None:
        """Note the start of whatever the reactor is doing now."""
        now = sample.now
        # By the reactor's clock, which may jump: trusted since the last sample only.
        began = now - sample.resumed_for
        if sample.task is None:
            # A callback, which may have begun at any moment after the last switch.
            began = max(began, now - sample.used.thread)
            if self._idle or (sample.late and not sample.computed):
                began = now
        began = min(max(began, now - sample.gap), now)
        self._seen = (sample.task, sample.resumed_at)
        self._since = began
        self._held = min(sample.credit(), now - began)
        self._collected = 0.0
        self._samples = Counter()
        self._answered_at = None
        if sample.task is None and not self._idle:
            self._ask()

    def _look(self, sample: _Sample) -> None:
        """Count the line that blocks now."""
        if sample.stack:
            self._stack = sample.stack
            self._samples[application_line(sample.stack)] += 1

    def _ask(self) -> None:
        """Ask the reactor for a sign of life."""
        reactor = self._hub.reactor
        if self._asking:
            return  # a call has not been made yet
        self._asking = True
        if IReactorFromThreads.providedBy(reactor):
            reactor.callFromThread(self._answer)

    # Reports.

    def _announce(self, sample: _Sample, early: Block | None) -> None:
        """Report a block that has lasted long enough."""
        subject = sample.subject or self._subject(sample.task)
        block = early or self._new_block(sample, subject, self._since)
        if (running.task, self._hub.resumed_at) != self._seen and block.ended is None:
            block.ended = sample.now  # the task has ended or parked meanwhile
        now = sample.now
        line = block.line = self._samples.most_common(1)[0][0]
        block.samples = self._samples
        block.kind = self._kind(now - self._since) or kind_of(self._stack)
        self._block = block
        self._ask()  # the answer marks the end
        if self.on_block is not None:
            self.on_block()
        if in_debugger(self._stack):
            block.quiet = True
            block.cancel()
            return
        messages = self._messages_of(line)
        messages.blocks += 1
        if now - messages.last < MESSAGE_SECONDS:
            messages.unreported += 1
            return
        unreported, messages.unreported = messages.unreported, 0
        messages.last = now
        block.told = True
        again = ""
        if unreported:
            times = "once" if unreported == 1 else f"{unreported} times"
            again = f"; this line blocked {times} more since the last message"
        _log.warn(
            "reactor blocked by {name} at {line}{kind}: it has held up {others} in "
            "flight for {seconds:.2f} s, with {connections} open{again}; most recent "
            "call last:\n{stack}",
            seconds=now - block.since,
            name=block.name,
            line=line,
            kind=f" ({block.kind})" if block.kind else "",
            others=_counted(subject.others, "other request"),
            connections=_counted(subject.connections, "connection"),
            again=again,
            stack="\n".join(
                f"  {found}" for found in excerpt(self._stack, line, STACK_LINES)
            ),
        )

    def _kind(self, seconds: float) -> Kind:
        """Return the kind of a block, if its lines do not show it."""
        return "garbage collection" if self._collected > seconds / 2 else ""

    def _subject(self, task: Task[object] | None) -> _Subject:
        """Return the code that runs. Must not release the interpreter lock."""
        servers = tuple(self._servers)
        flights = [tuple(server.requests_in_flight) for server in servers]
        others = sum(map(len, flights))
        connections = sum(server.open_connections for server in servers)
        if task is None:
            name = "code outside requests"
            return _Subject("no request", name, None, others, connections)
        for flight in flights:
            for exchange in flight:
                if exchange.task is task:
                    head = exchange.head
                    path = head.target.decode("latin-1").partition("?")[0]
                    request = f"{head.method} {path}"
                    name = f"{request} (request {exchange.request_id})"
                    return _Subject(request, name, exchange, others - 1, connections)
        name = f"task {task.name!r}" if task.name else "a task"
        return _Subject(name, name, None, others, connections)

    def _messages_of(self, line: CodeLine) -> _Messages:
        messages = self._messages
        key = (line.filename, line.line)
        if key not in messages:
            if len(messages) >= MOST_COUNTED:
                del messages[min(messages, key=lambda key: messages[key].last)]
            messages[key] = _Messages()
        return messages[key]

    def _end(self, now: float) -> None:
        """Report the end of the block."""
        block, self._block = self._block, None
        assert block is not None, "called during a block"
        if block.ended is None:
            answered_at = self._answered_at
            block.ended = now if answered_at is None else min(answered_at, now)
            block.ended = max(block.ended, block.since)
        if block.quiet:
            return
        seconds = block.ended - block.since
        line = block.samples.most_common(1)[0][0]
        mostly = "" if line == block.line else f", most of it at {line}"
        if self._kind(seconds) != block.kind == "":
            block.kind = self._kind(seconds)
            mostly += f", most of it in {block.kind}"
        self._report.add(line, block.kind, seconds, block.request)
        messages = self._messages_of(block.line)
        messages.seconds += seconds
        if block.told:
            _log.warn(
                "reactor no longer blocked after {seconds:.2f} s, which held up "
                "{others}{mostly}",
                seconds=seconds,
                others=_counted(block.waiting, "other request"),
                mostly=mostly,
            )
        if messages.blocks == REMEDY_BLOCKS:
            _log.warn(
                "{line} has blocked the reactor {blocks} times, {seconds:.2f} s in "
                "total, last for {request}: {remedies}",
                line=block.line,
                blocks=messages.blocks,
                seconds=messages.seconds,
                request=block.request,
                remedies=REMEDIES,
            )

    def forget_thread(self) -> None:
        """Begin anew in the child of a fork, which has no monitor thread."""
        self._lock = real_lock()
        self._wake = real_lock()
        self._wake.acquire()
        self._servers = set()
        if self._alive:
            self._alive = False
            self._around.end()


_monitors: dict[Hub, BlockedMonitor] = {}


def monitor_of(hub: Hub) -> BlockedMonitor | None:
    """Return the monitor of `hub`; the first call creates it.

    Call from the reactor's thread.

    Returns:
        None if the reactor is one in memory, on a clock of its own.
    """
    reactor = hub.reactor
    if not IReactorCore.providedBy(reactor) or not IReactorFromThreads.providedBy(
        reactor
    ):
        return None
    monitor = _monitors.get(hub)
    if monitor is None:
        monitor = _monitors[hub] = BlockedMonitor(hub)
    return monitor


def _after_fork() -> None:
    report.reset()
    for monitor in _monitors.values():
        monitor.forget_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
