"""Tasks: functions that run in our greenlets, and their state machine.

`Hub` and `Wait` are the interfaces of a task's hub and current wait; `greenlets.py`
and `suspensions.py` implement them. This module knows contexts, Deferreds and the
reactor's clock. It must never switch, or depend on the purpose of a task.
"""

from __future__ import annotations

import inspect
from collections import deque
from contextlib import suppress
from contextvars import Context, copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar, cast

from greenlet import GreenletExit
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txgreenwsgi._native import lanes
from txgreenwsgi._states import TransitionTable

from . import guards
from .errors import Cancelled
from .thread_calls import in_task_of_thread, tasks_of_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from greenlet import greenlet
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.context import ContextTracker

    from .asyncio_state import AsyncioState

__all__ = [
    "ALL_SHIELDS",
    "LONG_TURN_SECONDS",
    "TASK_TRANSITIONS",
    "Hub",
    "Task",
    "Wait",
    "call_and_log",
]

T_co = TypeVar("T_co", covariant=True)
_log = Logger()

# The states of a task. "abandoned": it was killed and did not end.
NEW, RUNNING, PARKED, READY = "new", "running", "parked", "ready"
FINISHED, FAILED, ABANDONED = "finished", "failed", "abandoned"

#: State -> event -> next state. A task is "ready" from its start, or from the end of
#: a wait, until its greenlet runs. A cancelled task stays parked behind a shield.
TASK_TRANSITIONS = TransitionTable(
    "a task",
    {
        NEW: {"start": READY, "cancel": FAILED},
        READY: {"resume": RUNNING, "cancel": READY},
        RUNNING: {
            "park": PARKED,
            "finish": FINISHED,
            "fail": FAILED,
            "abandon": ABANDONED,
            "cancel": RUNNING,
        },
        PARKED: {"wake": READY, "cancel": READY},
        FINISHED: {"cancel": FINISHED},
        FAILED: {"cancel": FAILED},
        ABANDONED: {"cancel": ABANDONED},
    },
)
_ON_FINISH = TASK_TRANSITIONS.moves("finish")

#: A turn of a task that takes longer than this is reported to `Hub.on_long_turn`.
LONG_TURN_SECONDS = 0.004

#: Shield depth of code that only a kill interrupts; above any nesting depth.
ALL_SHIELDS = 1 << 30

# The shared log contexts of ended tasks: creating a list takes time.
_NO_CONTEXTS: list[dict[type[object], dict[str, str]]] = []
lanes.lend(no_contexts=_NO_CONTEXTS)

_OWN_PACKAGE = __name__.rpartition(".")[0]
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE


class Wait(Protocol):
    """The interface of a wait to its task and hub. See `Suspension`."""

    state: str
    error: BaseException | Failure | None
    since: float
    waiting_on: object

    def resume(self, value: object = None) -> bool:
        """End the wait with `value`."""

    def abandon(self, error: BaseException) -> None:
        """Interrupt the wait with `error`."""


class Hub(Protocol):
    """The interface of a hub: the tasks of one reactor. See `GreenletHub`."""

    reactor: IReactorTime
    seconds: Callable[[], float]
    tasks: set[Task[object]]
    reactor_greenlet: greenlet
    thread: int
    context_tracker: ContextTracker
    spare_greenlets: list[greenlet]
    abandoned: list[Task[object]]
    threads: set[Task[object]]
    resumed_at: float
    ended_at: float
    yielded_at: float
    on_turn: Callable[[], object] | None
    on_long_turn: Callable[[Task[object], float], object] | None
    on_wait: Callable[[object, object, float], object] | None
    slice_seconds: float
    closed: bool
    detects_stalls: bool

    def call_at_timeout(
        self, seconds: float, function: Callable[..., object], *args: object
    ) -> IDelayedCall:
        """Call `function` when a timeout of `seconds` expires."""

    @property
    def turn_scheduled(self) -> bool:
        """True while calls wait for the reactor's next turn."""

    def on_its_thread(self) -> bool:
        """Return True in the reactor's thread."""

    def leave_thread(self) -> None:
        """Unset the reactor's thread in the child of a fork."""

    def call_from_thread(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` in the reactor greenlet, soon."""

    def at_next_turn(self, function: Callable[[], object]) -> None:
        """Call `function` in the reactor greenlet at the reactor's next turn."""

    def share_slice(self, count: int) -> float:
        """Divide a time slice between `count` ready tasks or connections."""

    def spawn(self, task: Task[object]) -> None:
        """Begin `task` at the reactor's next turn."""

    def start(self, task: Task[object]) -> None:
        """Run `task` until it first parks or ends."""

    def park(self, task: Task[object], wait: Wait) -> None:
        """Park the running `task` until `wait` is over."""

    def wake(self, task: Task[object]) -> None:
        """Continue a task whose wait is over."""

    def wait_for_end(self, task: Task[object], timeout: float | None) -> None:
        """Park the current task until `task` has ended."""

    def note_resumptions(
        self,
        note: Callable[[object, Task[object]], object],
        clear: Callable[[], object],
    ) -> Callable[[], object]:
        """Call a function before each task is resumed, and another one after."""

    def close(self) -> None:
        """End every task, except `threads`."""

    def reopen(self) -> None:
        """Let tasks run again after `close`, until `end`."""

    def end(self) -> None:
        """End every task."""

    def call_at_end(self, function: Callable[[], object]) -> None:
        """Call `function` when no task can run any more."""


class _Interruption(NamedTuple):
    """An exception to be raised at a wait, and the shield depth that it penetrates."""

    error: BaseException
    shields: int


def call_and_log(function: Callable[[], object], complaint: str) -> None:
    """Call `function`; log `complaint` and the traceback if it raises.

    For lists of callbacks, where one failure must not prevent the other calls.
    """
    try:
        function()
    except Exception:
        log_failure(complaint)


@lanes.lent
def log_failure(complaint: str) -> None:
    """Log `complaint` and the current exception."""
    _log.failure("{complaint}", complaint=complaint)


def _without_task(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback of a failed task without references to the task.

    Drops `Task.run`, and clears the variables of this package's frames: they hold the
    task, which holds the error, which holds the traceback, a cycle that only the
    garbage collector can free. The application's frames keep their variables for
    debuggers and error reports.
    """
    assert traceback is not None, "an exception that was raised has a traceback"
    first = traceback = traceback.tb_next
    while traceback is not None:
        frame = traceback.tb_frame
        # Frames of coroutines hold no task. They may be suspended, and clearing a
        # suspended frame would close its coroutine.
        if (
            frame.f_globals.get("__name__", "").startswith(_OWN_PACKAGE)
            and not frame.f_code.co_flags & _SUSPENDABLE
        ):
            # A frame is still running if another task raised the error first.
            with suppress(RuntimeError):
                frame.clear()
        traceback = traceback.tb_next
    return first


@lanes.with_lanes
class Task(Generic[T_co], lanes.TaskState):
    """A function running in one of our greenlets; made by `txgreenwsgi.spawn`.

    All attributes are read-only outside `_switching`; use the methods to change them.
    They are plain slots because several are read at every wait.

    Attributes:
        name: the name shown in logs and in the table of requests.
        state: "new", "running", "parked", "ready" (its wait is over; it runs in
            this reactor turn or the next), "finished", "failed", or
            "abandoned" (it was killed and did not end).
        hub: the hub of the reactor that runs the task.
        greenlet: the greenlet that the task runs in; None before it starts and
            after it has ended. Its child greenlets also belong to the task.
        ident: the ident of the thread that the task appears to be; 0 until it has
            been asked for. Set by `txgreenwsgi._parking`.
        suspension: the wait that the task is parked on, None unless parked.
        pending_interruption: True while an interruption waits to be raised at
            the next wait (`raise_pending`), possibly behind a shield.
        shield_depth: number of `shield()` blocks that the task is in, plus the
            depth added by `raise_shield`.
        dying: True once the task was killed: its waits raise.
        uses_reactor: True once the task has called `wait`, `spawn` or `suspend`: its
            code knows the reactor, and may make Deferreds.
        measured: True once `Hub.on_long_turn`, or other code that measures turns, has
            noted something about the task, and so has to be told its end.
    """

    __slots__ = lanes.slots(
        lanes.TaskState,
        (
            "__weakref__",
            "_args",
            "_asyncio_state",
            "_before_end",
            "_context",
            "_error",
            "_exit_raised",
            "_function",
            "_interruptions",
            "_kwargs",
            "_log_contexts",
            "_observed",
            "_on_end",
            "_parked_greenlet",
            "_refusals",
            "_result",
            "_traceback",
            "dying",
            "greenlet",
            "hub",
            "ident",
            "measured",
            "name",
            "pending_interruption",
            "shield_depth",
            "state",
            "suspension",
            "uses_reactor",
        ),
    )

    def __init__(
        self,
        hub: Hub,
        function: Callable[..., T_co],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
        context: Context | None = None,
        name: str = "",
        on_end: list[Callable[[], object]] | None = None,
    ) -> None:
        """Make a new task; `Hub.spawn` or `Hub.start` starts it.

        Args:
            hub: the hub of the reactor that will run the task.
            function: called as `function(*args, **kwargs)` in the task.
            args: positional arguments.
            kwargs: keyword arguments.
            context: the task's own Context; by default a copy of the caller's.
            name: the name shown in logs; by default that of `function`.
            on_end: callbacks as for `call_at_end`. The task takes ownership.
        """
        self.hub = hub
        self.ident = 0
        self.name = name
        self._function: Callable[..., T_co] | None = function
        self._args = args
        self._kwargs = kwargs
        self._context: Context | None = copy_context() if context is None else context
        # The stack of `twisted.python.context`, one per task, so that log lines do
        # not carry the log system of another task.
        self._log_contexts = hub.context_tracker.contexts[:]
        self._asyncio_state: AsyncioState = None
        self.state = NEW
        self._result: T_co | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._observed = False
        self.greenlet: greenlet | None = None
        # The greenlet to switch to. It may be a child of the task's greenlet: some
        # libraries run parts of their code in one (SQLAlchemy's greenlet_spawn).
        self._parked_greenlet: greenlet | None = None
        self.suspension: Wait | None = None
        self._interruptions: deque[_Interruption] | None = None
        self.pending_interruption = False
        self.shield_depth = 0
        self.dying = False
        self.uses_reactor = False
        self.measured = False
        self._exit_raised = False
        self._refusals = 0
        self._before_end: list[Callable[[], object]] | None = None
        self._on_end = on_end

    def __repr__(self) -> str:
        name = self.name or getattr(self._function, "__qualname__", "")
        return f"<Task {name or hex(id(self))} {self.state}>"

    # For the owner of a task.

    @property
    def done(self) -> bool:
        """True once the task has returned, raised or been cancelled."""
        return self.state is FINISHED or self.state is FAILED

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the task, with its traceback; None otherwise.

        Reading it does not count as handling it: an error that neither `wait` nor
        `deferred` delivers is logged.
        """
        error = self._error
        return None if error is None else error.with_traceback(self._traceback)

    @property
    def waiting_on(self) -> object:
        """The object or text that a parked task waits on; None otherwise."""
        suspension = self.suspension
        return None if suspension is None else suspension.waiting_on

    @property
    def parked_seconds(self) -> float:
        """Seconds that a parked task has been waiting; 0.0 otherwise."""
        suspension = self.suspension
        if suspension is None:
            return 0.0
        return self.hub.reactor.seconds() - suspension.since

    def wait(self, timeout: float | None = None) -> T_co:
        """Wait for the end of the task and return its result. May park.

        Args:
            timeout: seconds, by the reactor's clock; None for no limit. The task
                continues after the timeout.

        Raises:
            BaseException: the exception that the task raised.
            Cancelled: the task was cancelled.
            TimedOut: the task has not ended in time.
            NotInGreenlet: the caller is not in a task.
        """
        if timeout is not None:
            guards.require_seconds("Task.wait(timeout)", timeout)
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            return in_task(self.wait, timeout)
        self.hub.wait_for_end(self, timeout)
        self._observed = True
        if self._error is not None:
            try:
                # Restore the first traceback: every raise would extend it.
                raise self._error.with_traceback(self._traceback)
            finally:
                del self  # it holds the error, whose traceback holds this frame
        return cast("T_co", self._result)

    def deferred(self) -> Deferred[T_co]:
        """Return a new Deferred that fires with the task's result or failure.

        If the result is a Deferred, the new one is chained to it. Cancelling the new
        Deferred cancels the task; it then fails with Twisted's CancelledError. Call
        from the reactor's thread or a request's thread; never parks.
        """
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            # The caller will add callbacks.
            return in_task.and_hold(self.deferred)
        cancelling = False

        def cancel(_: Deferred[T_co]) -> None:
            nonlocal cancelling
            cancelling = True
            self.cancel()

        deferred: Deferred[T_co] = Deferred(cancel)

        def fire() -> None:
            if deferred.called:
                return  # fired by its cancellation; an error of the task is logged
            if cancelling and isinstance(self._error, Cancelled):
                return
            self._observed = True
            if self._error is not None:
                deferred.errback(Failure(self._error, exc_tb=self._traceback))
            elif isinstance(self._result, Deferred):
                self._result.chainDeferred(deferred)
            else:
                deferred.callback(cast("T_co", self._result))

        if self.done:
            fire()
        else:
            self.call_at_end(fire)
        return deferred

    def cancel(self) -> bool:
        """Cancel the task: raise `Cancelled` at its current or next wait.

        A task that has not started never runs. Inside `shield()` the cancellation
        is deferred to the end of the shield. A second call before the first has
        taken effect is a no-op. Never parks; call from any thread.

        Returns:
            False if the task has already ended.
        """
        if get_ident() != self.hub.thread:
            self.hub.call_from_thread(self.cancel)
            return not self.done
        if self.done:
            return False
        if self.state is NEW:
            self._function = self._kwargs = None
            self._args = ()
            self._observed = True
            self._error = Cancelled("the task was cancelled before it started")
            self.state = FAILED
            # At the next turn: the callbacks run in the reactor greenlet, and may
            # belong to the caller.
            self.hub.at_next_turn(self.notify_end)
        elif not self._cancellation_pending():
            self.interrupt(Cancelled("the task was cancelled"))
        return True

    def _cancellation_pending(self) -> bool:
        pending = self._interruptions
        return pending is not None and any(
            isinstance(interruption.error, Cancelled) for interruption in pending
        )

    # For the packages above.

    def call_at_end(self, function: Callable[[], object]) -> None:
        """Call `function` in the reactor greenlet when the task has ended."""
        if self._on_end is None:
            self._on_end = []
        self._on_end.append(function)

    def remove_end_call(self, function: Callable[[], object]) -> None:
        """Undo `call_at_end(function)`. A no-op if the call has been made."""
        if self._on_end is not None and function in self._on_end:
            self._on_end.remove(function)

    def call_before_end(self, function: Callable[[], object]) -> None:
        """Call `function` in the task itself, before it ends. Call from the task.

        For resources that the task must release however it ends. The calls are made
        in reverse order. They may park, and only a kill interrupts them; in a killed
        task they cannot park.
        """
        if self._before_end is None:
            self._before_end = []
        self._before_end.append(function)

    def interrupt(self, error: BaseException, shields: int = 0) -> None:
        """Raise `error` at the task's current wait, or else at its next one.

        Call from the reactor's thread; never parks. A no-op if the task has ended.

        Args:
            error: the exception, which is raised once.
            shields: the number of `shield()` blocks that `error` penetrates: the
                shield depth of the task when the timeout, or other source of the
                interruption, was set.
        """
        if self.done:
            return
        suspension = self.suspension
        if suspension is not None and self.shield_depth <= shields:
            suspension.abandon(error)
            return
        if self._interruptions is None:
            self._interruptions = deque()
        self._interruptions.append(_Interruption(error, shields))
        self.pending_interruption = True

    def withdraw(self, error: BaseException) -> bool:
        """Remove a pending interruption; return whether it was pending."""
        pending = self._interruptions
        if not pending:
            return False
        self._interruptions = deque(
            interruption for interruption in pending if interruption.error is not error
        )
        self.pending_interruption = bool(self._interruptions)
        return len(self._interruptions) < len(pending)

    def raise_shield(self, depth: int = 1) -> None:
        """Defer interruptions until `lower_shield(depth)`. Never parks.

        Args:
            depth: 1 acts as a `shield()` block. ALL_SHIELDS also defers the
                interruptions of timeouts inside the block, so that only a kill
                interrupts it.
        """
        self.shield_depth += depth

    def lower_shield(self, depth: int = 1) -> None:
        """Undo one `raise_shield(depth)`. Never parks."""
        self.shield_depth -= depth

    def kill(self) -> None:
        """End the task now with GreenletExit. Call from the reactor greenlet.

        Its `finally` blocks run, but cannot wait. Only for a process that exits;
        otherwise use `interrupt`.
        """
        if self.done:
            return
        if self.state is NEW:
            self.cancel()
            return
        self.dying = True
        suspension = self.suspension
        if suspension is not None:
            # In a child greenlet, GreenletExit ends only the child, and its parent
            # sees a return. So the task's next wait raises it again.
            self._exit_raised = self._parked_greenlet is self.greenlet
            suspension.abandon(GreenletExit())

    # For the hub and the waits.

    def next_interruption(self) -> BaseException | None:
        """Remove and return the first interruption that penetrates the shields."""
        interruptions = self._interruptions
        if interruptions:
            for interruption in interruptions:
                if self.shield_depth <= interruption.shields:
                    interruptions.remove(interruption)
                    self.pending_interruption = bool(interruptions)
                    return interruption.error
        return None

    def raise_pending(self) -> None:
        """Raise a pending interruption, for a wait that need not park.

        Otherwise a task whose data is always ready could never time out.
        """
        if self.pending_interruption:
            error = self.next_interruption()
            if error is not None:
                raise error

    def run(self) -> None:
        """Run the function, from start to end, inside the task's Context.

        Called once, by the hub, in the task's greenlet. Stores the function's
        exception instead of raising it.
        """
        if self.state is not RUNNING:
            self.state = _ON_FINISH[self.state]  # raises
        function = self._function
        assert function is not None, "a started task has its function"
        try:
            try:
                if self._kwargs or self._args:
                    self._result = function(*self._args, **(self._kwargs or {}))
                else:
                    # CPython runs a plain call in the same C frame; a parked task
                    # would keep a copy of each additional one.
                    self._result = function()
            finally:
                if self._before_end is not None:
                    self._run_before_end()
        except BaseException as error:  # SystemExit must not stop the reactor
            self._fail(error)
        else:
            self.state = FINISHED
        # Release the function and its arguments.
        self._function = self._kwargs = None
        self._args = ()
        # This frame outlives its call as the `f_back` of a failure's frames.
        del self, function

    def _fail(self, error: BaseException) -> None:
        """Store the exception that has ended the function."""
        if isinstance(error, GreenletExit):
            self._error = Cancelled("the task was killed")
            self._observed = True
        else:
            self._error = error
            self._traceback = error.__traceback__ = _without_task(error.__traceback__)
            self._observed |= isinstance(error, Cancelled)
        self.state = FAILED

    def _run_before_end(self) -> None:
        """Call the functions given to `call_before_end`, the last one first."""
        functions = self._before_end
        assert functions is not None, "call_before_end() was called"
        killed: GreenletExit | None = None
        self.shield_depth += ALL_SHIELDS
        while functions:
            function = functions.pop()
            try:
                function()
            except GreenletExit as error:
                killed = error  # continue with the other functions
            except BaseException:
                _log.failure(
                    "a function given to call_before_end() failed in {task}", task=self
                )
        self._before_end = None
        if killed is not None:
            raise killed

    def notify_end(self) -> None:
        """Leave the hub's table and run the end callbacks, in the reactor greenlet."""
        self.hub.tasks.discard(self)
        # A task that is kept for its result must not keep other objects alive.
        self.greenlet = self._parked_greenlet = self._context = self._interruptions = (
            None
        )
        self.pending_interruption = False
        self._log_contexts = _NO_CONTEXTS
        functions, self._on_end = self._on_end, None
        if functions is not None:
            for function in functions:
                call_and_log(function, "a callback for the end of a task failed")

    def log_unhandled(self) -> None:
        """Log the task's error, unless `wait` or `deferred` has delivered it."""
        error = getattr(self, "_error", None)
        if error is not None and not self._observed:
            self._observed = True
            _log.failure(
                "{name} failed and its error was never handled",
                failure=Failure(error, exc_tb=self._traceback),
                name=repr(self),
            )

    def __del__(self) -> None:
        # As with Deferreds: log an unhandled error that would otherwise be lost.
        self.log_unhandled()
