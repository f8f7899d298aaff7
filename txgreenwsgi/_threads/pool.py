"""The threads of a reactor that run the calls of its tasks.

At most `size` calls run at a time. A thread that only waits (for a queue, a lock, a
socket) does not count, and another one is started in its place, up to `MAX_THREADS`:
otherwise eight calls that wait for a ninth would wait for ever.

While calls run, the interpreter's switch interval is short, so that the reactor gets
the GIL soon, and a watcher thread samples the states of the threads for the gate.

It knows threads. It must never know what a call does.
"""

from __future__ import annotations

import os
import sys
from _queue import Empty, SimpleQueue
from functools import partial
from threading import Thread, get_ident
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from twisted.logger import Logger

from txgreenwsgi._parking.real_threads import real_lock

from .gate import Gate
from .reactor_calls import guard_from_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi._switching.greenlets import Hub

    from .calls import ThreadCall
    from .thread_states import ThreadStates

__all__ = [
    "DEFAULT_THREADS",
    "MAX_THREADS",
    "ThreadPool",
    "pool_of",
    "set_thread_count",
]

_log = Logger()

#: Number of calls that run at a time, where no server has set it.
DEFAULT_THREADS: Final = 8
#: Maximum number of threads, most of which only wait.
MAX_THREADS: Final = 256
#: The switch interval while calls run: the reactor waits at most so long for a thread
#: that computes in Python.
SWITCH_SECONDS: Final = 0.0005
#: Time between two samples.
_SAMPLE_SECONDS: Final = 0.02
#: The same where the samples decide nothing. A sample holds the GIL while it sleeps,
#: on a busy machine for longer than it asks for.
_RARE_SAMPLE_SECONDS: Final = 0.2
#: Where the kernel does not tell: a call that has run for so long is taken for one that
#: waits.
_LONG_SECONDS: Final = 0.2
#: Time after which the start of a thread is tried again.
_RETRY_SECONDS: Final = 0.5
#: Time after which an idle thread ends.
_IDLE_SECONDS: Final = 10.0


class _Running:
    """A call in a thread.

    Attributes:
        call: the call.
        began: time at which it began.
    """

    __slots__ = ("began", "call")

    def __init__(self, call: ThreadCall[object]) -> None:
        self.call = call
        self.began = monotonic()


class ThreadPool:
    """Real threads for the calls of one reactor's tasks. Made by `pool_of`.

    Attributes:
        size: the number of calls that run, rather than wait, at a time.
        threads: the number of threads.
        calls: the calls that were submitted and have not ended.
    """

    def __init__(self, size: int = DEFAULT_THREADS) -> None:
        self.size = size
        self.threads = 0
        self.calls: set[ThreadCall[Any]] = set()
        self._pid = os.getpid()
        self._queue: SimpleQueue[ThreadCall[object]] = SimpleQueue()
        # Guards the gate and the attributes below.
        self._mutex = real_lock()
        self._gate = Gate()
        # The calls that run, by the ident of their thread.
        self._running: dict[int, _Running] = {}
        self._names = 0
        self._watched = False
        self._states = _states_if_available()
        self._usual_interval = sys.getswitchinterval()

    # In the reactor's thread.

    def submit(self, call: ThreadCall[Any]) -> None:
        """Have a thread begin `call`, when there is a place for it. Never parks.

        Call `ended` later.
        """
        if not self.calls:
            self._usual_interval = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_SECONDS, self._usual_interval))
        self.calls.add(call)
        hub = call.task.hub
        if not self._names:
            guard_from_threads(hub.reactor)
        with self._mutex:
            if self.threads < min(self.size, len(self.calls)):
                # Not in the task: the start of a thread may park.
                hub.at_next_turn(partial(self._start, self._new_thread(), hub))
            if not self._watched:
                self._watched = True
                hub.at_next_turn(self._start_watcher)
            if self._gate.admit(call, monotonic()):
                self._queue.put(call)

    def ended(self, call: ThreadCall[Any]) -> None:
        """Note that a submitted call has ended, or was dropped. Never parks."""
        self.calls.discard(call)
        if not self.calls:
            sys.setswitchinterval(self._usual_interval)

    def contends(self) -> bool:
        """Return whether a call may hold the GIL, so that the reactor waits for it."""
        return any(self._gate.may_hold(call.route) for call in self.calls)

    @property
    def computes(self) -> bool:
        """Whether a call is queued, or its thread does not wait for its task."""
        return not all(call.in_progress for call in self.calls)

    def _start(self, thread: Thread, hub: Hub) -> None:
        """Start a new thread; try again later if the system refuses it."""
        if self._is_started(thread):
            return
        with self._mutex:
            alone = not self.threads
        if alone:
            hub.reactor.callLater(_RETRY_SECONDS, self._start_again, hub)

    def _start_again(self, hub: Hub) -> None:
        with self._mutex:
            if self.threads or not self.calls:
                return
            thread = self._new_thread()
        self._start(thread, hub)

    def _start_watcher(self) -> None:
        try:
            _daemon(self._watch, "request thread watcher").start()
        except RuntimeError:
            self._watched = False  # the next call tries again

    def _is_started(self, thread: Thread) -> bool:
        """Start a new thread; return False if the system refuses it."""
        try:
            thread.start()
        except RuntimeError as error:
            with self._mutex:
                self.threads -= 1
                running = self.threads
            _log.error(
                "no request thread could be started ({error}): {running} run; raise "
                "the limit of threads or memory, or lower --threads",
                error=error,
                running=running,
            )
            return False
        return True

    def _new_thread(self) -> Thread:
        """Return a new thread, not started. Call with the mutex."""
        self.threads += 1
        self._names += 1
        return _daemon(self._work, f"request thread {self._names}")

    # In the threads.

    def _work(self) -> None:
        ident = get_ident()
        states = self._states
        if states is not None:
            states.add()
        try:
            while True:
                try:
                    call = self._queue.get(True, _IDLE_SECONDS)
                except Empty:
                    with self._mutex:
                        if self._queue.empty():
                            self.threads -= 1
                            return
                    continue
                self._run(call, ident)
                # Drop the reference while the thread waits.
                del call
        finally:
            if states is not None:
                states.remove()

    def _run(self, call: ThreadCall[object], ident: int) -> None:
        self._running[ident] = running = _Running(call)
        call.begin()
        if os.getpid() != self._pid:
            call.end_child()
        call.seconds = monotonic() - running.began - call.in_task_seconds
        with self._mutex:
            del self._running[ident]
            self._gate.ended(call)
            self._admit_held()
        call.end()

    def _admit_held(self) -> None:
        """Begin the calls that the gate admits now. Call with the mutex."""
        while (held := self._gate.release(monotonic())) is not None:
            self._queue.put(held)

    # In the watcher.

    def _watch(self) -> None:
        idle_since = sampled_at = monotonic()
        while True:
            sleep(_SAMPLE_SECONDS)
            now = monotonic()
            with self._mutex:
                if self.calls:
                    idle_since = now
                elif now - idle_since > _IDLE_SECONDS:
                    self._watched = False
                    return
                self._admit_held()
                running = dict(self._running)
            if running:
                _send_posted(running.values())
                if now - sampled_at < _RARE_SAMPLE_SECONDS and self._settled(running):
                    continue
                sampled_at = now
                waiting = self._count_waiting(running, now)
                if not self._queue.empty():
                    self._replace_waiting(waiting)

    def _settled(self, running: dict[int, _Running]) -> bool:
        """Return whether no decision depends on the states of the threads."""
        return (
            self._queue.empty()
            and not self._gate.held
            and all(self._gate.passes(one.call.route) for one in running.values())
        )

    def _count_waiting(self, running: dict[int, _Running], now: float) -> int:
        """Return how many of these threads wait; update the gate."""
        states = self._states
        sampled = {} if states is None else states.sample(running)
        waiting = sum(
            ident not in sampled and now - one.began > _LONG_SECONDS
            for ident, one in running.items()
        )
        holding: dict[str, list[bool]] = {}
        for ident, state in sampled.items():
            waiting += state.kind == "waits"
            kinds = holding.setdefault(running[ident].call.route, [])
            kinds.append(state.kind == "holds the GIL")
        with self._mutex:
            for route, kinds in holding.items():
                self._gate.note(route, sum(kinds) / len(kinds))
            for ident, state in sampled.items():
                self._gate.used(running[ident].call, state.seconds)
        return waiting

    def _replace_waiting(self, waiting: int) -> None:
        """Start a thread for each that waits, while calls are queued."""
        with self._mutex:
            count = min(
                self.size + waiting - self.threads,
                MAX_THREADS - self.threads,
                self._queue.qsize(),
            )
            threads = [self._new_thread() for _ in range(count)]
        for thread in threads:
            self._is_started(thread)


def _send_posted(running: Iterable[_Running]) -> None:
    for each in running:
        each.call.send_posted()


def _daemon(target: Callable[[], None], name: str) -> Thread:
    return Thread(target=target, name=name, daemon=True)


def _states_if_available() -> ThreadStates | None:
    # Imported here: ctypes takes 10 ms, and most servers need no thread.
    from . import thread_states

    return thread_states.ThreadStates() if thread_states.available() else None


_pools: WeakKeyDictionary[Hub, ThreadPool] = WeakKeyDictionary()
_sizes: WeakKeyDictionary[Hub, int] = WeakKeyDictionary()


def set_thread_count(hub: Hub, count: int) -> None:
    """Let `count` calls of a hub run at a time; the highest count of a hub applies."""
    _sizes[hub] = size = max(_sizes.get(hub, 0), count)
    pool = _pools.get(hub)
    if pool is not None:
        pool.size = size


def pool_of(hub: Hub) -> ThreadPool:
    """Return the threads of a hub."""
    pool = _pools.get(hub)
    if pool is None:
        pool = _pools[hub] = ThreadPool(_sizes.get(hub, DEFAULT_THREADS))
    return pool
