"""A task: a function running in a greenlet of ours, and what its owner may ask.

It knows contexts, Deferreds and the reactor's clock. It must never switch, and
never know what a task is for.
"""

from __future__ import annotations

import inspect
from collections import deque
from contextlib import suppress
from contextvars import Context, copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from greenlet import GreenletExit
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import guards, running
from .errors import Cancelled
from .suspensions import Suspension

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from greenlet import greenlet

    from .asyncio_marks import Marks
    from .greenlets import Hub

__all__ = ["Task"]

T = TypeVar("T")
_log = Logger()

# A task's life.
NEW, ALIVE, FINISHED, FAILED = "new", "alive", "finished", "failed"


def call_logged(function: Callable[[], object], complaint: str) -> None:
    """Call one of several, whose failure must not keep the others from being called."""
    try:
        function()
    except Exception:
        _log.failure("{complaint}", complaint=complaint)


#: More than anybody enters.
ALL_SHIELDS = 1 << 30

_OWN_ROOM = __name__.rpartition(".")[0]
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE


def _without_task(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback of a task's end without `Task.run` and our frames' variables.

    They hold the task, which holds the error, which holds the traceback, and what
    goes round in a circle waits for the collector. The frames of others keep what
    they have: people look at it.
    """
    assert traceback is not None, "what was raised has a traceback"
    first = traceback = traceback.tb_next
    while traceback is not None:
        frame = traceback.tb_frame
        # Those of coroutines hold no task, and may be suspended: to clear such a
        # frame would be to close it.
        if (
            frame.f_globals.get("__name__", "").startswith(_OWN_ROOM)
            and not frame.f_code.co_flags & _SUSPENDABLE
        ):
            # It still runs if the error came to us from another task.
            with suppress(RuntimeError):
                frame.clear()
        traceback = traceback.tb_next
    return first


class Task(Generic[T]):
    """A function running in a greenlet of ours; made by `txgreenwsgi.spawn`.

    All attributes are read-only outside `_switching`; they are plain slots because
    several are read at every wait. Change them by the methods.

    Attributes:
        name: the name shown in logs and in the table of requests.
        hub: the hub of the reactor that runs the task.
        greenlet: the greenlet that the task runs in; None before it begins and
            after it has ended. Child greenlets of it belong to the task too.
        suspension: the wait that the task is parked on, None unless parked.
        pending_interruption: True while an interruption waits to be raised at
            the next wait (`raise_pending`), possibly behind a shield.
        shield_depth: number of `shield()` blocks that the task is in, plus the
            depth added by `raise_shield`.
        dying: True once the task was killed: its waits raise.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_asyncio_marks",
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
        "_parked",
        "_ready",
        "_refusals",
        "_result",
        "_state",
        "_traceback",
        "dying",
        "greenlet",
        "hub",
        "name",
        "pending_interruption",
        "shield_depth",
        "suspension",
    )

    def __init__(
        self,
        hub: Hub,
        function: Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        context: Context | None = None,
        name: str = "",
        on_end: list[Callable[[], object]] | None = None,
    ) -> None:
        """Make a task that has not begun; `Hub.spawn` or `Hub.start` begins it.

        Args:
            hub: the hub of the reactor that will run the task.
            function: called as `function(*args, **kwargs)` in the task.
            args: positional arguments.
            kwargs: keyword arguments.
            context: the task's own Context; by default a copy of the caller's.
            name: the name shown in logs; by default that of `function`.
            on_end: callbacks as for `call_at_end`. The task takes over the list.
        """
        self.hub = hub
        self.name = name
        self._function: Callable[..., T] | None = function
        self._args = args
        self._kwargs = kwargs
        self._context: Context | None = copy_context() if context is None else context
        # What `twisted.python.context` calls its stack: one for each task, else
        # a log line of this task would carry the system of another.
        self._log_contexts: list[Any] = hub.tracker.contexts[:]
        self._asyncio_marks: Marks = None
        self._state = NEW
        self._result: T | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._observed = False
        self.greenlet: greenlet | None = None
        # Where to switch to: not always the task's own greenlet, for libraries
        # run some of their code in child greenlets (SQLAlchemy's greenlet_spawn).
        self._parked: greenlet | None = None
        self.suspension: Suspension | None = None
        # Its wait is over, and it is in line for the reactor's next turn.
        self._ready = False
        self._interruptions: deque[tuple[BaseException, int]] | None = None
        self.pending_interruption = False
        self.shield_depth = 0
        self.dying = False
        self._exit_raised = False
        self._refusals = 0
        self._before_end: list[Callable[[], object]] | None = None
        self._on_end = on_end

    def __repr__(self) -> str:
        name = self.name or getattr(self._function, "__qualname__", "")
        return f"<Task {name or hex(id(self))} {self.state}>"

    # What the owner of a task may ask.

    @property
    def done(self) -> bool:
        """Whether the task has ended: returned, raised, or was cancelled."""
        return self._state is FINISHED or self._state is FAILED

    @property
    def state(self) -> str:
        """One of "new", "running", "ready", "parked", "finished", "failed"."""
        if self._state is not ALIVE:
            return self._state
        if self.suspension is not None:
            return "parked"
        return "ready" if self._ready else "running"

    @property
    def waiting_on(self) -> object:
        """What a parked task waits on, as given to its wait; None otherwise."""
        suspension = self.suspension
        return None if suspension is None else suspension.waiting_on

    @property
    def parked_seconds(self) -> float:
        """For how many seconds a parked task has been waiting; 0.0 otherwise."""
        suspension = self.suspension
        if suspension is None:
            return 0.0
        return self.hub.reactor.seconds() - suspension.since

    def wait(self, timeout: float | None = None) -> T:
        """The task's result; what it raised is raised here. May park.

        Args:
            timeout: seconds; None for no limit. The task goes on after it.

        Raises:
            TimedOut: the task has not ended in time.
            Cancelled: the task was cancelled.
        """
        if timeout is not None:
            guards.require_seconds("Task.wait(timeout)", timeout)
        waiter = running.require_task("Task.wait()")
        if waiter is self:
            raise RuntimeError("a task cannot wait for its own end")
        if self.done:
            waiter.raise_pending()
        else:
            self._wait_for_end(Suspension(waiter, self, timeout))
        self._observed = True
        if self._error is not None:
            try:
                # Each time as it was first, without what was waited through since.
                raise self._error.with_traceback(self._traceback)
            finally:
                del self  # it holds the error, whose traceback holds this frame
        return cast("T", self._result)

    def _wait_for_end(self, suspension: Suspension) -> None:
        ended = suspension.resume
        self.call_at_end(ended)
        try:
            suspension.wait()
        except BaseException:
            if self._on_end is not None and ended in self._on_end:
                self._on_end.remove(ended)
            raise

    def deferred(self) -> Deferred[T]:
        """A new Deferred that fires with the task's result or failure.

        If the result is a Deferred itself, it fires when that does.
        Cancelling the Deferred cancels the task; the Deferred then fails with
        Twisted's CancelledError, as others do. Call from the reactor's thread.
        """
        cancelling = False

        def cancel(_: Deferred[T]) -> None:
            nonlocal cancelling
            cancelling = True
            self.cancel()

        deferred: Deferred[T] = Deferred(cancel)

        def fire() -> None:
            if deferred.called:
                return  # by its cancellation; an error of the task's is logged
            if cancelling and isinstance(self._error, Cancelled):
                return
            self._observed = True
            if self._error is not None:
                deferred.errback(Failure(self._error, exc_tb=self._traceback))
            elif isinstance(self._result, Deferred):
                self._result.chainDeferred(deferred)
            else:
                deferred.callback(cast("T", self._result))

        if self.done:
            fire()
        else:
            self.call_at_end(fire)
        return deferred

    def cancel(self) -> bool:
        """Ask the task to end: `Cancelled` is raised at the wait it is in, or its next.

        A task that has not begun never does. Inside `shield()` it comes when
        the shield is left. Asking again before it came changes nothing. Never
        parks; call from any thread.

        Returns:
            False when the task had ended before.
        """
        if get_ident() != self.hub.thread:
            self.hub.call_from_thread(self.cancel)
            return not self.done
        if self.done:
            return False
        if self._state is NEW:
            self._forget_function()
            self._observed = True
            self._error = Cancelled("the task was cancelled before it began")
            self._state = FAILED
            # The reactor greenlet tells: whoever listens may be the canceller.
            self.hub.at_next_turn(self.tell_end)
        elif not self._was_asked_to_end():
            self.interrupt(Cancelled("the task was cancelled"))
        return True

    def _was_asked_to_end(self) -> bool:
        pending = self._interruptions
        return pending is not None and any(isinstance(e, Cancelled) for e, _ in pending)

    # What the rooms above ask.

    def call_at_end(self, function: Callable[[], object]) -> None:
        """Call `function` in the reactor greenlet when the task has ended."""
        if self._on_end is None:
            self._on_end = []
        self._on_end.append(function)

    def call_before_end(self, function: Callable[[], object]) -> None:
        """Call `function` in the task itself, before it ends. Call from the task.

        For what the task has taken and must give back, however it ends. It may
        park, and nothing but a kill interrupts it; then it may not. What is
        given last is called first.
        """
        if self._before_end is None:
            self._before_end = []
        self._before_end.append(function)

    def interrupt(self, error: BaseException, shields: int = 0) -> None:
        """Raise `error` at the wait the task is in, or else at its next one.

        Args:
            error: an ordinary exception; it is raised once.
            shields: how many `shield()` blocks it passes through: as many as
                were entered when whoever interrupts was.
        """
        if self.done:
            return
        suspension = self.suspension
        if suspension is not None and self.shield_depth <= shields:
            suspension.abandon(error)
            return
        if self._interruptions is None:
            self._interruptions = deque()
        self._interruptions.append((error, shields))
        self.pending_interruption = True

    def withdraw(self, error: BaseException) -> None:
        """Take back an interruption that has not been raised yet."""
        if self._interruptions:
            self._interruptions = deque(
                pair for pair in self._interruptions if pair[0] is not error
            )
            self.pending_interruption = bool(self._interruptions)

    def raise_shield(self, depth: int = 1) -> None:
        """Hold back interruptions until `lower_shield(depth)`. Never parks.

        Args:
            depth: 1 acts as a `shield()` block. ALL_SHIELDS also holds back the
                interruptions of timeouts inside the block, so that a kill alone
                gets through.
        """
        self.shield_depth += depth

    def lower_shield(self, depth: int = 1) -> None:
        """Undo one `raise_shield(depth)`. Never parks."""
        self.shield_depth -= depth

    def kill(self) -> None:
        """End the task now, by GreenletExit. Call from the reactor greenlet.

        Its `finally` blocks run, and may not wait. For a process that exits:
        everything else uses `interrupt`.
        """
        if self.done:
            return
        if self._state is NEW:
            self.cancel()
            return
        self.dying = True
        suspension = self.suspension
        if suspension is not None:
            # In a child greenlet it ends the child alone, which to its parent
            # looks like a return: then the task's next wait raises it again.
            self._exit_raised = self._parked is self.greenlet
            suspension.abandon(GreenletExit())

    # What the hub and the waits do with it.

    def next_interruption(self) -> BaseException | None:
        """Take the first interruption that may come through the shields now."""
        interruptions = self._interruptions
        if interruptions:
            for pair in interruptions:
                if self.shield_depth <= pair[1]:
                    interruptions.remove(pair)
                    self.pending_interruption = bool(interruptions)
                    return pair[0]
        return None

    def raise_pending(self) -> None:
        """Raise what interrupts the task, at a wait that has its answer already.

        Else a task that always finds its data ready could never be timed out.
        """
        if self.pending_interruption:
            error = self.next_interruption()
            if error is not None:
                raise error

    def run(self) -> None:
        """The whole life of the task, inside its Context. Never raises."""
        self._state = ALIVE
        function = self._function
        assert function is not None, "a task runs once"
        try:
            try:
                if self._kwargs or self._args:
                    self._result = function(*self._args, **(self._kwargs or {}))
                else:
                    # CPython goes on in the same C frame, which is not to be kept.
                    self._result = function()
            finally:
                if self._before_end is not None:
                    self._give_back()
        except GreenletExit:
            self._error = Cancelled("the task was ended")
            self._observed = True
            self._state = FAILED
        except BaseException as error:  # SystemExit must not stop the reactor
            self._error = error
            self._traceback = error.__traceback__ = _without_task(error.__traceback__)
            self._observed |= isinstance(error, Cancelled)
            self._state = FAILED
        else:
            self._state = FINISHED
        self._forget_function()
        # This frame outlives its call as the `f_back` of a failure's frames.
        del self, function

    def _give_back(self) -> None:
        """Make the calls that were to be made before the end."""
        functions = self._before_end
        assert functions is not None, "somebody asked for it"
        killed: GreenletExit | None = None
        self.shield_depth += ALL_SHIELDS
        while functions:
            function = functions.pop()
            try:
                function()
            except GreenletExit as error:
                killed = error  # the others are called all the same
            except BaseException:
                _log.failure("what {task} had to give back was not", task=self)
        self._before_end = None
        if killed is not None:
            raise killed

    def _forget_function(self) -> None:
        self._function = self._kwargs = None
        self._args = ()

    def tell_end(self) -> None:
        """Forget the task and call what waits for its end. Reactor greenlet."""
        self.hub.tasks.discard(self)
        # A task that is kept for its result keeps nothing else alive.
        self.greenlet = self._parked = self._context = self._interruptions = None
        self.pending_interruption = False
        self._log_contexts = []
        functions, self._on_end = self._on_end, None
        if functions is not None:
            for function in functions:
                call_logged(function, "what waited for the end of a task failed")

    def log_unasked(self) -> None:
        """Log what the task has failed with, unless somebody asked for it."""
        error = getattr(self, "_error", None)
        if error is not None and not self._observed:
            self._observed = True
            _log.failure(
                "{name} failed and nobody waited for it",
                failure=Failure(error, exc_tb=self._traceback),
                name=repr(self),
            )

    def __del__(self) -> None:
        # As with Deferreds: an error nobody asked for is at least logged.
        self.log_unasked()
