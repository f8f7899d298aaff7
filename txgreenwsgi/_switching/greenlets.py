"""The hub of a reactor's tasks, and the only calls of `greenlet.switch()`.

A task *parks* by switching to the reactor greenlet and is *resumed* by a switch
back. Three rules hold here:

1. Only the reactor greenlet switches into a task. A task that answers another
   task's wait queues it for the reactor's next turn; otherwise the first task
   would be suspended in the middle of its own `callback()`.
2. Each wait has its own token (`Suspension`). A late answer finds the token used
   up and cannot answer the next wait.
3. Every task is ended here explicitly; none depends on the garbage collector.

This module knows greenlets and the reactor's clock. It must never depend on what a
task is for.
"""

from __future__ import annotations

from functools import partial
from threading import current_thread, get_ident
from typing import TYPE_CHECKING, cast

from greenlet import GreenletExit, getcurrent, greenlet
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.logger import Logger
from twisted.python.context import theContextTracker

from txgreenwsgi._native import lanes

from . import asyncio_state as loops
from . import guards, running
from .asyncio_state import running_loop, swap_state
from .errors import NotInGreenlet
from .forks import end_child
from .running import current_task, require_task
from .steady_clock import is_steady, use_steady_clock
from .suspensions import ANSWERED, OVER, WAITING, Suspension
from .tasks import (
    ABANDONED,
    FAILED,
    FINISHED,
    LONG_TURN_SECONDS,
    NEW,
    PARKED,
    READY,
    RUNNING,
    TASK_TRANSITIONS,
    Hub,
    Task,
    call_and_log,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from .asyncio_state import AsyncioState
    from .tasks import Wait

__all__ = [
    "LATE_SECONDS",
    "MIN_SLICE_SECONDS",
    "SLICE_SECONDS",
    "GreenletHub",
    "Hub",
    "Suspension",
    "Task",
    "current_task",
    "existing_hub_of",
    "hub_of",
    "require_task",
]

_log = Logger()

#: Finished greenlets kept for reuse: creating one costs 13 us, reusing one costs
#: 1 us. Each holds about 3 KiB.
SPARE_GREENLETS = 128

#: A timer that fires later than this many seconds after its time shows that the reactor
#: was stalled, by code that does not yield or because the process was stopped.
LATE_SECONDS = 0.1

#: Extension of a timeout that expires during a stall: time to read the sockets.
GRACE_SECONDS = 0.25

#: Time slice in seconds of a task, and of all tasks together that are ready in one turn
#: of the reactor. A task that exceeds its slice yields to the reactor at the next call
#: that could park.
SLICE_SECONDS = 0.005

#: Minimum time slice of a task that shares a turn with others: switching between more
#: tasks than `SLICE_SECONDS` can divide would cost more than it gains.
MIN_SLICE_SECONDS = 0.0001

# Not the ident of any thread.
_NO_THREAD = -1

#: Maximum number of refused waits of a killed task. It may run its `finally` blocks
#: but not wait in them; after this many attempts it is abandoned.
MAX_REFUSALS = 1000


# The hot path checks states by identity, which is faster; these tables raise the error.
_ON_START = TASK_TRANSITIONS.moves("start")
_ON_PARK = TASK_TRANSITIONS.moves("park")
_ON_WAKE = TASK_TRANSITIONS.moves("wake")


def _run_tasks() -> None:
    """Run one task after another; the main function of each of our greenlets."""
    while True:
        # Not an argument of switch(): a greenlet keeps its first arguments alive.
        task = running.task
        assert task is not None, "the hub sets running.task before it switches here"
        task.run()
        if running.task is None:
            # The task has forked, and this is the child.
            end_child(task.error)
        hub = task.hub
        spare, reactor_greenlet = hub.spare_greenlets, hub.reactor_greenlet
        current = getcurrent()
        if len(spare) >= SPARE_GREENLETS or hub.closed:
            # A greenlet that ends switches to its parent.
            current.parent = reactor_greenlet
            return
        spare.append(current)
        # A spare greenlet must not hold its last task or itself: the collector does
        # not look into suspended frames.
        current.gr_context = None
        del task, hub, spare, current
        reactor_greenlet.switch()


@lanes.with_lanes
class GreenletHub(lanes.GreenletHubState):
    """The tasks of one reactor, one greenlet each. Made by `hub_of`.

    Attributes:
        reactor: an IReactorTime; the other interfaces that it provides determine
            what its tasks can wait on.
        seconds: the clock of `reactor`, for the hot path.
        tasks: the tasks in progress. This set may hold the only reference to a parked
            task.
        reactor_greenlet: the greenlet of the last switch into a task. It is not
            determined at import, which may happen in any greenlet.
        thread: the ident of the reactor's thread at the last switch into a task.
        context_tracker: Twisted's log contexts of that thread.
        resumed_at: time at which the running task was resumed, by the reactor's
            clock, in seconds.
        ended_at: time at which the last task ended, likewise.
        yielded_at: the `resumed_at` of the last turn that a task ended because it had
            used up its time slice in a loop over blocks of a body. Set by that loop.
        slice_seconds: time slice of the running task, in seconds; see `share_slice`.
        spare_greenlets: finished greenlets, for reuse.
        abandoned: killed tasks that did not end.
        on_turn: called before each turn of a task, from the switch into it to its next
            wait or its end; None for no call.
        on_wait: called in a task after each wait, with the object whose method the task
            runs, such as a request (None for a plain function), the target of the
            wait, and its duration in seconds; None for no call.
        on_long_turn: called at the end of a turn of more than `LONG_TURN_SECONDS`, with
            the task and the seconds; None for no call.
        threads: tasks that outlive the reactor's run. `close` leaves them parked, and
            they run on while the interpreter's exit handlers do (`reopen`).
        closed: True once the reactor has stopped.
        detects_stalls: whether a late timer means that the reactor was stalled. False
            for a clock that a test moves in jumps.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.tasks: set[Task[object]] = set()
        self.resumed_at = self.ended_at = 0.0
        self.yielded_at = -1.0  # not equal to the time of any turn
        self.on_turn: Callable[[], object] | None = None
        self.on_long_turn: Callable[[Task[object], float], object] | None = None
        self.on_wait: Callable[[object, object, float], object] | None = None
        self.slice_seconds = SLICE_SECONDS
        self.spare_greenlets: list[greenlet] = []
        self.abandoned: list[Task[object]] = []
        self.threads: set[Task[object]] = set()
        self.closed = False
        # Here, because an attribute that is added later makes all others slower.
        self._resume: Callable[[Task[object]], None] = self._switch_to
        self._on_end: list[Callable[[], object]] = []
        self.detects_stalls = is_steady(reactor)
        self._turn: list[Callable[[], object]] = []
        self._bind_to_thread()
        if IReactorCore.providedBy(reactor):
            # The hub may have been created in a thread or greenlet that will not run
            # the reactor.
            reactor.callWhenRunning(self._bind_to_thread)
            reactor.addSystemEventTrigger("after", "shutdown", self.close)

    def _bind_to_thread(self) -> None:
        """Record this thread and greenlet as the reactor's."""
        self.reactor_greenlet = getcurrent()
        self.thread = get_ident()
        self.context_tracker = theContextTracker.currentContext()

    def leave_thread(self) -> None:
        """Unset the reactor's thread in the child of a fork."""
        self.thread = _NO_THREAD

    def on_its_thread(self) -> bool:
        """Return True in the reactor's thread. Call from any thread."""
        return get_ident() == self.thread

    def call_from_thread(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` in the reactor greenlet, soon. Call from any thread.

        Raises:
            NotInGreenlet: the reactor is not an IReactorFromThreads.
        """
        if not IReactorFromThreads.providedBy(self.reactor):
            raise NotInGreenlet(
                f"{self.reactor!r} does not accept calls from other threads, such "
                f"as {current_thread().name!r}"
            )
        self.reactor.callFromThread(function, *args)

    def at_next_turn(self, function: Callable[[], object]) -> None:
        """Call `function` in the reactor greenlet at the reactor's next turn.

        Call from the reactor's thread. All calls for one turn share one delayed
        call. The calls of one turn share one time slice (`share_slice`): those that
        do not begin within it are made in the following turns, in order.
        """
        self._turn.append(function)
        if len(self._turn) == 1:
            self.reactor.callLater(0, self._take_turn)

    def call_at_timeout(
        self, seconds: float, function: Callable[..., object], *args: object
    ) -> IDelayedCall:
        """Call `function` when a timeout of `seconds` expires.

        As `reactor.callLater`, except after a stall: the reactor runs delayed calls
        before it reads sockets, so a result that arrived in time would be lost. Then
        the timeout is extended by `GRACE_SECONDS`. The returned call does not cancel
        the extension, so `function` must be a no-op after the wait has ended.
        """
        reactor = self.reactor
        if not self.detects_stalls:
            return reactor.callLater(seconds, function, *args)
        due = reactor.seconds() + seconds
        return reactor.callLater(seconds, self._expire, due, function, *args)

    def _expire(
        self, due: float, function: Callable[..., object], *args: object
    ) -> None:
        if self.reactor.seconds() - due > LATE_SECONDS:
            self.reactor.callLater(GRACE_SECONDS, function, *args)
        else:
            function(*args)

    @property
    def turn_scheduled(self) -> bool:
        """True while calls wait for the reactor's next turn (`at_next_turn`)."""
        return bool(self._turn)

    def _take_turn(self) -> None:
        turn, self._turn = self._turn, []
        end = self.share_slice(len(turn))
        seconds = self.seconds
        made = 0
        for function in turn:
            call_and_log(
                function, "a call scheduled for the reactor's next turn failed"
            )
            made += 1
            if seconds() > end and not self.closed:
                break
        self.slice_seconds = SLICE_SECONDS
        if made < len(turn):
            if not self._turn:
                self.reactor.callLater(0, self._take_turn)
            self._turn[:0] = turn[made:]

    def share_slice(self, count: int) -> float:
        """Divide a time slice between `count` ready tasks or connections.

        For a loop over all that is ready in one turn of the reactor. Set
        `slice_seconds` to `SLICE_SECONDS` after the loop.

        Returns:
            The time at which the loop must yield to the reactor, by its clock.
        """
        if count > 1:
            self.slice_seconds = max(SLICE_SECONDS / count, MIN_SLICE_SECONDS)
        return self.reactor.seconds() + SLICE_SECONDS

    def spawn(self, task: Task[object]) -> None:
        """Start `task` at the reactor's next turn, from the top of its stack.

        A greenlet inherits the recursion depth of the code that starts it, so a
        task is never started deep inside callbacks.

        Raises:
            NotInGreenlet: the reactor has stopped, or runs in another thread.
        """
        self._refuse_when_closed()
        if get_ident() != self.thread:
            raise NotInGreenlet(guards.wrong_thread_message("spawn()"))
        self.tasks.add(task)

        def begin() -> None:
            if task.state is NEW:
                self.start(task)

        self.at_next_turn(begin)

    def start(self, task: Task[object]) -> None:
        """Run `task` until it first parks or ends. Call from the reactor greenlet.

        The caller must be near the top of the reactor's stack.

        Raises:
            NotInGreenlet: the reactor has stopped.
            IllegalTransition: the task was already started or cancelled.
        """
        if self.closed:
            self._refuse_when_closed()
        if task.state is not NEW:
            task.state = _ON_START[task.state]  # raises
        self.tasks.add(task)
        spare = self.spare_greenlets
        greenlet_ = spare.pop() if spare else greenlet(_run_tasks)
        # Not Context.run, whose C frames each parked task would keep a copy of.
        greenlet_.gr_context = task._context
        task.greenlet = task._parked_greenlet = greenlet_
        self._switch_to(task)

    def _refuse_when_closed(self) -> None:
        if self.closed:
            raise NotInGreenlet("the reactor has stopped: no new task can start")

    def park(self, task: Task[object], wait: Wait) -> None:
        """Switch to the reactor greenlet until `wait` is over. Call from the task.

        Raises:
            NotInGreenlet: the task is being killed, or code that cannot wait (a
                finalizer, a signal handler) is running.
            IllegalTransition: `task` is not running.
        """
        if task.state is not RUNNING:
            task.state = _ON_PARK[task.state]  # raises
        if task.dying:
            wait.state = OVER
            self._refuse_to_park(task)
        if task.pending_interruption:
            error = task.next_interruption()
            if error is not None:
                wait.state = OVER
                wait.error = error
                return
        try:
            guards.check_can_park()
        except NotInGreenlet:
            wait.state = OVER
            raise
        wait.since = self.seconds()
        seconds = wait.since - self.resumed_at
        if seconds > LONG_TURN_SECONDS and self.on_long_turn is not None:
            self.on_long_turn(task, seconds)
        task._parked_greenlet = getcurrent()
        if wait.state is ANSWERED:
            # A signal handler has just answered it.
            wait.state = OVER
            return
        # From here to the switch there is no call, so no signal is handled.
        wait.state = WAITING
        task.state = PARKED
        task.suspension = wait
        self.reactor_greenlet.switch()
        if self.on_wait is not None:
            owner = getattr(task._function, "__self__", None)
            self.on_wait(owner, wait.waiting_on, self.resumed_at - wait.since)

    def _refuse_to_park(self, task: Task[object]) -> None:
        if not task._exit_raised:
            # The task was not parked when it was killed, so raise GreenletExit here.
            task._exit_raised = True
            raise GreenletExit
        task._refusals += 1
        if task._refusals > MAX_REFUSALS:
            # It catches every exception and waits again, in a loop. Leave it
            # parked: a suspended greenlet does not affect an exiting process.
            task.state = ABANDONED
            self.abandoned.append(task)
            self.reactor_greenlet.switch()
        raise NotInGreenlet(
            f"{task!r} is being killed because its reactor stops: "
            "its `finally` blocks run, but cannot wait"
        )

    def wake(self, task: Task[object]) -> None:
        """Continue a task whose wait is over. Call from the reactor's thread.

        Switch at once if possible, else at the reactor's next turn: a task that
        answers another is not interrupted, and no task runs inside a garbage
        collection or a signal handler.
        """
        if task.state is not PARKED:
            task.state = _ON_WAKE[task.state]  # raises
        task.suspension = None
        task.state = READY
        if running.in_handler:
            self._turn.append(partial(self._resume, task))
            # Not by callLater: the reactor may be asleep, or in its delayed calls.
            self.call_from_thread(self._take_turn)
        elif running.task is None and guards.collecting_thread is None:
            self._resume(task)
        else:
            self.at_next_turn(partial(self._resume, task))

    def wait_for_end(self, task: Task[object], timeout: float | None) -> None:
        """Park the current task until `task` has ended. See `Task.wait`.

        Raises:
            TimedOut: it has not ended after `timeout` seconds.
            NotInGreenlet: the caller is not in a task.
            RuntimeError: the current task is `task` itself.
        """
        waiter = require_task("Task.wait()")
        if waiter is task:
            raise RuntimeError(
                f"{task!r} waited for its own end: call wait() from another task"
            )
        if task.done:
            waiter.raise_pending()
            return
        suspension = Suspension(waiter, task, timeout)
        ended = suspension.resume
        task.call_at_end(ended)
        try:
            suspension.wait()
        except BaseException:
            task.remove_end_call(ended)
            raise

    def _switch_to(self, task: Task[object]) -> None:
        """Run `task` until it parks or ends, then return.

        The caller is the reactor greenlet, except when a task advances a
        `task.Clock` itself. Only this method swaps the thread's state between the
        reactor and the task: Twisted's log context and asyncio's state. greenlet
        itself switches the contextvars.
        """
        parked = task._parked_greenlet
        assert parked is not None, "a task that has not ended has its greenlet"
        task.state = RUNNING  # from "new" by start(), from "ready" by wake()
        tracker = self.context_tracker
        log_contexts = tracker.contexts
        tracker.contexts = task._log_contexts
        asyncio_state: AsyncioState = None
        if running_loop() is not None or task._asyncio_state is not None:
            asyncio_state = swap_state(task._asyncio_state)
        previous, self.reactor_greenlet = self.reactor_greenlet, getcurrent()
        seconds = self.seconds
        self.resumed_at = resumed_at = seconds()
        if self.on_turn is not None:
            self.on_turn()
        interrupted, running.task = running.task, task
        try:
            parked.switch()
        finally:
            running.task = interrupted
            if interrupted is not None:
                self.reactor_greenlet = previous
            tracker.contexts = log_contexts
            if (
                asyncio_state is not None
                or running_loop() is not None
                or (loops.hooks_used and loops.generator_hooks() != loops.NO_HOOKS)
            ):
                task._asyncio_state = swap_state(asyncio_state)
            else:
                task._asyncio_state = None
        state = task.state
        if state is FINISHED or state is FAILED:
            self.ended_at = ended_at = seconds()
            if (
                ended_at - resumed_at > LONG_TURN_SECONDS
                and self.on_long_turn is not None
            ):
                self.on_long_turn(task, ended_at - resumed_at)
            task.notify_end()

    def note_resumptions(
        self,
        note: Callable[[object, Task[object]], object],
        clear: Callable[[], object],
    ) -> Callable[[], object]:
        """Call a function before each task is resumed, and another one after.

        Not at its first turn. Until this is called, nothing more is called at a switch.
        The functions must not park or raise.

        Args:
            note: called with the object whose method the task runs, such as a request
                (None for a plain function), and the task.
            clear: called when the reactor goes on.

        Returns:
            A function that ends this.
        """

        def noted(task: Task[object]) -> None:
            note(getattr(task._function, "__self__", None), task)
            self._switch_to(task)
            clear()

        def stop() -> None:
            self._resume = self._switch_to

        self._resume = noted
        return stop

    def close(self) -> None:
        """Kill the remaining tasks, except `threads`, after the reactor has stopped.

        Call from the reactor greenlet. Their `finally` blocks run but cannot
        wait. Afterwards no task can start.
        """
        if _can_run_again(self.reactor):
            self.threads.clear()
        self.closed = True
        self._kill(self.tasks - self.threads)
        self.spare_greenlets.clear()
        if not self.tasks:
            self._notify_end()

    def reopen(self) -> None:
        """Let tasks start and run again after `close`, until `end`.

        The caller, in the reactor greenlet, iterates the stopped reactor.
        """
        self.closed = False
        self._bind_to_thread()

    def end(self) -> None:
        """Kill all remaining tasks. Call as `close`."""
        self.closed = True
        self._kill(set(self.tasks))
        self.threads.clear()
        self.spare_greenlets.clear()
        self._notify_end()

    def call_at_end(self, function: Callable[[], object]) -> None:
        """Call `function` in the reactor greenlet when no task can run any more."""
        self._on_end.append(function)

    def _kill(self, tasks: set[Task[object]]) -> None:
        for task in tasks:
            task.kill()
        # The last turn, for ready tasks and for the end callbacks of tasks that
        # were never started.
        self._take_turn()
        for task in tasks & self.tasks:
            _log.error("abandoned {task}: it was killed and did not end", task=task)
        self.tasks -= tasks

    def _notify_end(self) -> None:
        functions, self._on_end = self._on_end, []
        for function in functions:
            call_and_log(function, "a callback for the end of a hub failed")


lanes.lend(
    greenlets=globals(),
    loops=vars(loops),
    running_loop=running_loop,
    swap_state=swap_state,
    end_child=end_child,
)


def existing_hub_of(reactor: IReactorTime) -> Hub | None:
    """Return the hub of `reactor`, or None if it has none. Call from any thread."""
    hub: Hub | None = reactor.__dict__.get("_txgreenwsgi_hub")
    return hub


def hub_of(reactor: IReactorTime | None = None) -> Hub:
    """Return the hub of `reactor`; the first call creates it.

    Call from the reactor's thread. Without an argument: the current task's hub, else
    the hub of the installed reactor, which is imported only in this case.

    Raises:
        NotInGreenlet: the reactor runs in another thread.
        RuntimeError: this is a free-threaded Python.
    """
    if reactor is None:
        task = current_task()
        if task is not None:
            return task.hub
        from twisted.internet import reactor as installed

        reactor = cast("IReactorTime", installed)
    hubs = reactor.__dict__
    hub: Hub | None = hubs.get("_txgreenwsgi_hub")
    if hub is None:
        guards.refuse_free_threading()
        if IReactorFromThreads.providedBy(reactor):
            guards.refuse_other_thread("the first task of a reactor")
        use_steady_clock(reactor)
        hub = hubs["_txgreenwsgi_hub"] = GreenletHub(reactor)
        guards.guard_reactor(
            reactor,
            current_task,
            lambda: get_ident() == hubs["_txgreenwsgi_hub"].thread,
        )
    elif hub.closed and _can_run_again(reactor):
        hub = hubs["_txgreenwsgi_hub"] = GreenletHub(reactor)
    return hub


def _can_run_again(reactor: IReactorTime) -> bool:
    """Return True if `reactor` has fired its shutdown event without stopping.

    A stopped reactor cannot run again. A worker of `trial -j` fires the event after
    each test without stopping, to clean up after the test.
    """
    return getattr(reactor, "_startedBefore", True) is False
