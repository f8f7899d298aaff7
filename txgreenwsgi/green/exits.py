"""The end of a program whose threads are tasks.

When the main thread has ended, the interpreter joins the non-daemon threads
(`threading._shutdown`) and then calls the handlers of `atexit`, while daemon threads
run on. Handlers wait for threads: those of `concurrent.futures` and `multiprocessing`
end their pools this way. Green threads run only while a reactor does, so both steps run
in a task here, and the stopped reactor is iterated until it ends.

This file knows the reactor and `threading`. It must never know which handlers there
are.
"""

from __future__ import annotations

import atexit
import sys
import threading
from functools import partial, wraps
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorThreads
from twisted.logger import Logger

from txgreenwsgi._parking.real_threads import main_ident, original, reactor_threads
from txgreenwsgi._parking.waits import set_main_task
from txgreenwsgi._switching.greenlets import Task, existing_hub_of
from txgreenwsgi._switching.running import current_task
from txgreenwsgi._switching.waiting import sleep

from . import thread as green_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.threadpool import ThreadPool

    from txgreenwsgi._switching.greenlets import Hub

__all__ = [
    "AFTER_GRACE_SECONDS",
    "has_begun",
    "install",
    "set_time_limit",
    "when_begun",
]

_log = Logger()

#: Time after the grace period of a server for threads and exit handlers.
AFTER_GRACE_SECONDS = 2.0
#: Minimum time for threads and exit handlers, whatever the time limit.
MIN_SECONDS = 1.0
#: Time for exit handlers after threads were killed at the time limit.
AFTER_KILL_SECONDS = 1.5
#: Maximum time of one iteration of the reactor. The asyncio reactor always takes it.
_ITERATION_SECONDS = 0.02
#: Interval at which the end of real threads, which wake no task, is checked.
_POLL_SECONDS = 0.02

_deadline = float("inf")
_begun = False
_when_begun: list[Callable[[], object]] = []
_overdue = False


def has_begun() -> bool:
    """Return whether the main thread has ended."""
    return _begun


def set_time_limit(seconds: float) -> None:
    """Limit the time until threads and exit handlers have ended. Never parks.

    At the limit, the remaining green threads are killed, and the waits of exit
    handlers raise. They get at least `MIN_SECONDS` after the end of the main thread.
    Without a limit the interpreter waits as long as they take. Of several limits the
    first counts.

    Args:
        seconds: the time from now.
    """
    global _deadline
    _deadline = min(_deadline, monotonic() + seconds)


def when_begun(function: Callable[[], object]) -> None:
    """Call a function when the main thread has ended, before threads are joined."""
    _when_begun.append(function)


def install() -> None:
    """Replace `threading._shutdown`. A no-op if it is replaced already."""
    namespace = vars(threading)
    shutdown: Callable[[], None] = namespace["_shutdown"]
    if hasattr(shutdown, "txgreenwsgi_original"):
        return
    # In a task it would block the reactor; `_end_program` polls real threads.
    joins_in_c = hasattr(original, "_shutdown") and (  # since Python 3.13
        namespace.get("_thread_shutdown") is original._shutdown
    )
    if joins_in_c:
        namespace["_thread_shutdown"] = _join_no_thread

    @wraps(shutdown)
    def _shutdown() -> None:
        global _begun
        _begun = True
        while _when_begun:
            _when_begun.pop()()
        hub = _stopped_hub()
        if hub is not None:
            _finish(hub, shutdown)
            return
        shutdown()
        if joins_in_c:
            original._shutdown()

    _shutdown.txgreenwsgi_original = shutdown  # type: ignore[attr-defined]
    namespace["_shutdown"] = _shutdown
    green_thread.outlives_reactor = True
    for name in ("twisted.application.app", "twisted.application.twist._twist"):
        module: Any = sys.modules.get(name)
        if module is not None:
            exit_by_signal = partial(_exit_by_signal, module._exitWithSignal)
            module._exitWithSignal = exit_by_signal


def _exit_by_signal(kill: Callable[[int], object], number: int) -> None:
    """End the program, then let twistd kill the process by a signal."""
    vars(threading)["_shutdown"]()
    atexit._run_exitfuncs()
    kill(number)


def _join_no_thread() -> None:
    pass


def _stopped_hub() -> Hub | None:
    """Return the hub of the reactor that ran in this thread and process, else None.

    None in a task too: it can wait for threads.
    """
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is None or current_task() is not None:
        return None
    hub = existing_hub_of(reactor)
    return hub if hub is not None and hub.closed and hub.on_its_thread() else None


def _end_program(shutdown: Callable[[], None], pool: ThreadPool | None) -> None:
    """Join the non-daemon threads, then call the exit handlers. May park."""
    real = green_thread.set_real_threads_aside(vars(threading))
    shutdown()
    while any(_is_joined(thread, pool) for thread in threading.enumerate()):
        if _overdue:
            break
        sleep(_POLL_SECONDS)
    else:
        green_thread.join_real_threads(real)
    # The interpreter calls the handlers that are registered from now on.
    atexit._run_exitfuncs()


def _is_joined(thread: threading.Thread, pool: ThreadPool | None) -> bool:
    """Return whether the interpreter waits for this thread."""
    return not (
        thread.daemon
        or thread.ident == main_ident
        or thread.ident in reactor_threads
        or (pool is not None and thread in pool.threads)
    )


def _finish(hub: Hub, shutdown: Callable[[], None]) -> None:
    """Run `_end_program` in a task for the main thread, then kill the threads."""
    reactor: Any = hub.reactor
    pool: ThreadPool | None = None
    if IReactorThreads.providedBy(reactor):
        # The reactor stopped its pool, and starts a new one only when it runs.
        pool = reactor.getThreadPool()
        if not pool.started:
            pool.start()
    hub.reopen()
    task = Task(hub, lambda: _end_program(shutdown, pool), name="exit")
    set_main_task(task)
    hub.spawn(task)
    started = monotonic()
    extended = 0.0
    try:
        while True:
            delay = reactor.timeout()
            if delay is None or delay > _ITERATION_SECONDS:
                delay = _ITERATION_SECONDS
            reactor.iterate(delay)
            if task.done:
                break
            if monotonic() > max(_deadline, started + MIN_SECONDS) + extended:
                if task.dying:
                    break
                if extended:
                    _log.warn(
                        "exit: time limit reached, ending the exit handlers; waiting "
                        "on {waiting_on}",
                        waiting_on=task.waiting_on,
                    )
                    task.kill()
                else:
                    _end_threads(hub, pool)
                extended += AFTER_KILL_SECONDS
    finally:
        if pool is not None:
            pool.stop()
        set_main_task(None)
        hub.end()


def _end_threads(hub: Hub, pool: ThreadPool | None) -> None:
    """Kill the green threads, and stop waiting for the real ones."""
    global _overdue
    _overdue = True
    tasks, hub.threads = hub.threads, set()
    for thread in tasks:
        _log.warn(
            "exit: time limit reached, ending {thread}; waiting on {waiting_on}",
            thread=thread,
            waiting_on=thread.waiting_on,
        )
        thread.kill()
    for real in threading.enumerate():
        if _is_joined(real, pool):
            _log.warn("exit: time limit reached, not waiting for {thread}", thread=real)
