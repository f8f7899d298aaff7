"""Tasks, and the only calls of `greenlet.switch()` in the project.

A task is a function running in a greenlet of ours. It *parks* by switching to
the reactor greenlet and is *resumed* by a switch back. Three rules hold here:

1. Only the reactor greenlet switches into a task. A task that answers another
   task's wait puts it in line for the reactor's next turn; else the one that
   answers would be left standing in the middle of its own `callback()`.
2. A wait has a token of its own (`Suspension`). What comes after the wait was
   left finds the token used up and cannot answer the next wait.
3. Whatever ends a task ends it here: no task depends on the collector.

This file knows greenlets, contexts and the reactor's clock. It must never know
what a task is for.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextvars import Context, copy_context
from threading import current_thread, get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from greenlet import GreenletExit, getcurrent, greenlet
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.logger import Logger
from twisted.python import context as twisted_context
from twisted.python.failure import Failure

from . import guards
from .errors import Cancelled, NotInGreenlet, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

__all__ = ["Hub", "Suspension", "Task", "current_task", "hub_of", "require_task"]

T = TypeVar("T")
_log = Logger(namespace="txgreenwsgi")

#: Finished greenlets that are kept for the next task: making one costs 13 us,
#: waking one costs 1 us. Each spare one holds about 3 KiB.
SPARE_GREENLETS = 128

#: A task that neither waits nor ends lets the reactor have a turn after this
#: many seconds, at the next place where it could wait.
SLICE_SECONDS = 0.01

#: A killed task may run its `finally` blocks, but not wait in them. One that
#: answers each refusal with another try is put away for ever after this many.
MOST_REFUSALS = 1000

_get_running_loop = asyncio._get_running_loop
_set_running_loop = asyncio._set_running_loop

# The task whose greenlet (or a child greenlet of it) is running now. There is
# one reactor thread in a process, so there is one such task.
_running: Task[Any] | None = None

# A suspension is made ("new"); it may be answered before anybody waits on it
# ("answered"), or its task parks on it ("parked"); then it is used up ("over").
_NEW, _ANSWERED, _PARKED, _OVER = "new", "answered", "parked", "over"

# A task's life.
_WAITING_TO_START, _ALIVE, _FINISHED, _FAILED = "new", "alive", "finished", "failed"


class Suspension:
    """One wait of one task: `wait()` parks it, `resume()` or `throw()` ends that.

    It may be answered before the task waits; the answer is kept. It is good for
    one wait. Made by `txgreenwsgi.suspend()`.
    """

    __slots__ = (
        "_error",
        "_hub",
        "_state",
        "_task",
        "_timeout_seconds",
        "_value",
        "answered",
        "since",
        "waiting_on",
    )

    def __init__(
        self,
        task: Task[Any],
        waiting_on: object = "suspend()",
        timeout_seconds: float | None = None,
    ) -> None:
        self._task = task
        self._hub = task.hub
        self._state = _NEW
        self._value: Any = None
        self._error: BaseException | Failure | None = None
        self._timeout_seconds = timeout_seconds
        self.waiting_on = waiting_on
        self.since = 0.0
        # Whether `resume` or `throw` ended it, not a timeout or an interruption.
        self.answered = False

    def wait(self) -> Any:
        """Park the task until it is resumed; the value given to `resume`.

        May park. Call from the task that made this suspension.

        Raises:
            TimedOut: the timeout given to `suspend` is over.
            BaseException: what was given to `throw`, or what interrupted the
                task (a timeout around it, a cancellation, a lost client).
            RuntimeError: it was waited on before.
        """
        task = require_task("suspend().wait()")
        if task is not self._task:
            raise RuntimeError(
                "a suspension is waited on by the task that made it; "
                f"this one was made by {self._task!r}, and {task!r} waits on it: "
                "call suspend() in the task that is to wait"
            )
        if self._state is _NEW:
            seconds = self._timeout_seconds
            if seconds is None:
                task._park(self)
            else:
                call = self._hub.reactor.callLater(seconds, self.expire, seconds)
                try:
                    task._park(self)
                finally:
                    if call.active():
                        call.cancel()
        elif self._state is _ANSWERED:
            self._state = _OVER
        else:
            raise RuntimeError(
                "this suspension was waited on before: call suspend() for a new one"
            )
        error = self._error
        if error is not None:
            # The frames that the traceback holds must not hold it in turn.
            self._error = None
            try:
                if isinstance(error, Failure):
                    error.raiseException()
                raise error
            finally:
                del error
        return self._value

    def resume(self, value: Any = None) -> bool:
        """End the wait with `value`. Call from any thread; never parks.

        Returns:
            Whether that is what ends the wait. False when it was answered or
            left before. From another thread: whether it was still open when
            asked.
        """
        return self._answer(value, None)

    def throw(self, error: BaseException | Failure) -> bool:
        """End the wait by raising `error` in the task; as `resume` otherwise."""
        return self._answer(None, error)

    def _answer(self, value: Any, error: BaseException | Failure | None) -> bool:
        state = self._state
        if state is not _PARKED and state is not _NEW:
            return False
        hub = self._hub
        if get_ident() != hub.thread:
            hub.call_from_thread(self._answer, value, error)
            return True
        self.answered = True
        self._value = value
        self._error = error
        if state is _NEW:
            self._state = _ANSWERED
        else:
            self._state = _OVER
            hub._wake(self._task)
        return True

    def expire(self, seconds: float) -> None:
        """End the wait by `TimedOut`. Call from the reactor greenlet."""
        self.abandon(TimedOut(f"timed out after {seconds:g} seconds"))

    def abandon(self, error: BaseException) -> None:
        """End the wait by `error`, which is no answer. Call from the reactor's thread.

        Whoever waits sees `answered` False and cancels what it waited on.
        """
        if self._state is _PARKED:
            self._state = _OVER
            self._error = error
            self._hub._wake(self._task)


class Task(Generic[T]):
    """A function running in a greenlet of ours; made by `txgreenwsgi.spawn`.

    Attributes:
        name: what logs and the table of requests call it.
        done: whether it has ended, in whatever way.
        hub: the tasks of the same reactor.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_context",
        "_dying",
        "_error",
        "_function",
        "_greenlet",
        "_interruptions",
        "_kwargs",
        "_log_contexts",
        "_loop",
        "_observed",
        "_on_end",
        "_parked",
        "_refusals",
        "_result",
        "_shields",
        "_state",
        "_suspension",
        "hub",
        "name",
    )

    def __init__(
        self,
        hub: Hub,
        function: Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        context: Context | None = None,
        name: str = "",
    ) -> None:
        self.hub = hub
        self.name = name
        self._function: Callable[..., T] | None = function
        self._args = args
        self._kwargs = kwargs
        self._context = copy_context() if context is None else context
        # What `twisted.python.context` calls its stack: one for each task, else
        # a log line of this task would carry the system of another.
        self._log_contexts = hub._tracker.contexts[:]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state = _WAITING_TO_START
        self._result: T | None = None
        self._error: BaseException | None = None
        self._observed = False
        self._greenlet: greenlet | None = None
        self._parked: greenlet | None = None
        self._suspension: Suspension | None = None
        self._interruptions: deque[tuple[BaseException, int]] | None = None
        self._shields = 0
        self._dying = False
        self._refusals = 0
        self._on_end: list[Callable[[], object]] | None = None

    def __repr__(self) -> str:
        name = self.name or getattr(self._function, "__qualname__", "")
        return f"<Task {name or hex(id(self))} {self.state}>"

    # What the owner of a task may ask.

    @property
    def done(self) -> bool:
        """Whether the task has ended: returned, raised, or was cancelled."""
        return self._state is _FINISHED or self._state is _FAILED

    @property
    def state(self) -> str:
        """One of "new", "running", "ready", "parked", "finished", "failed"."""
        if self._state is not _ALIVE:
            return self._state
        if self._suspension is not None:
            return "parked"
        return "running" if self is _running else "ready"

    @property
    def waiting_on(self) -> object:
        """What a parked task waits on, as given to its wait; None otherwise."""
        suspension = self._suspension
        return None if suspension is None else suspension.waiting_on

    @property
    def parked_seconds(self) -> float:
        """For how many seconds a parked task has been waiting; 0.0 otherwise."""
        suspension = self._suspension
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
        if not self.done:
            suspension = Suspension(require_task("Task.wait()"), self, timeout)
            if suspension._task is self:
                raise RuntimeError("a task cannot wait for its own end")
            self.call_at_end(suspension.resume)
            suspension.wait()
        self._observed = True
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    def deferred(self) -> Deferred[T]:
        """A new Deferred that fires with the task's result or failure.

        Cancelling the Deferred cancels the task. Call from the reactor's thread.
        """
        self._observed = True

        def cancel(_: Deferred[T]) -> None:
            self.cancel()

        deferred: Deferred[T] = Deferred(cancel)

        def fire() -> None:
            if deferred.called:
                return
            if self._error is not None:
                deferred.errback(Failure(self._error))
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
        the shield is left. Never parks; call from any thread.

        Returns:
            False when the task had ended before.
        """
        if get_ident() != self.hub.thread:
            self.hub.call_from_thread(self.cancel)
            return not self.done
        if self.done:
            return False
        if self._state is _WAITING_TO_START:
            self._function = self._kwargs = None
            self._args = ()
            self._observed = True
            self._error = Cancelled("the task was cancelled before it began")
            self._state = _FAILED
            # The reactor greenlet tells: whoever listens may be the canceller.
            self.hub.at_next_turn(self._tell_end)
            return True
        self.interrupt(Cancelled("the task was cancelled"))
        return True

    # What the rooms above ask.

    def call_at_end(self, function: Callable[[], object]) -> None:
        """Call `function` in the reactor greenlet when the task has ended."""
        if self._on_end is None:
            self._on_end = []
        self._on_end.append(function)

    def interrupt(self, error: BaseException, shields: int = 0) -> None:
        """Raise `error` at the wait the task is in, or else at its next one.

        Args:
            error: an ordinary exception; it is raised once.
            shields: how many `shield()` blocks it passes through: as many as
                were entered when whoever interrupts was.
        """
        if self.done:
            return
        suspension = self._suspension
        if suspension is not None and self._shields <= shields:
            suspension.abandon(error)
            return
        if self._interruptions is None:
            self._interruptions = deque()
        self._interruptions.append((error, shields))

    def withdraw(self, error: BaseException) -> None:
        """Take back an interruption that has not been raised yet."""
        if self._interruptions:
            self._interruptions = deque(
                pair for pair in self._interruptions if pair[0] is not error
            )

    def kill(self) -> None:
        """End the task now, by GreenletExit. Call from the reactor greenlet.

        Its `finally` blocks run, and may not wait. For a process that exits:
        everything else uses `interrupt`.
        """
        if self.done:
            return
        if self._state is _WAITING_TO_START:
            self.cancel()
            return
        self._dying = True
        suspension = self._suspension
        if suspension is not None:
            suspension.abandon(GreenletExit())

    # What the hub does with it.

    def _park(self, suspension: Suspension) -> None:
        """Switch to the reactor greenlet until `suspension` is over. In the task."""
        if self._dying:
            self._refuse_to_park()
        if self._interruptions:
            error = self._next_interruption()
            if error is not None:
                suspension._state = _OVER
                suspension._error = error
                return
        guards.refuse_bad_moment()
        hub = self.hub
        suspension._state = _PARKED
        suspension.since = hub.reactor.seconds()
        self._suspension = suspension
        # Not always the task's own greenlet: libraries run some of their code
        # in child greenlets (SQLAlchemy's greenlet_spawn).
        self._parked = getcurrent()
        hub.home.switch()

    def _next_interruption(self) -> BaseException | None:
        interruptions = cast("deque[tuple[BaseException, int]]", self._interruptions)
        for pair in interruptions:
            if self._shields <= pair[1]:
                interruptions.remove(pair)
                return pair[0]
        return None

    def _refuse_to_park(self) -> None:
        self._refusals += 1
        if self._refusals > MOST_REFUSALS:
            # It catches everything and tries again, for ever. Leave it parked:
            # a suspended greenlet does no harm to an exiting process.
            self.hub.undead.append(self)
            self.hub.home.switch()
        raise NotInGreenlet(
            f"{self!r} is being ended because its reactor stops: "
            "its `finally` blocks run, but cannot wait"
        )

    def _continue(self) -> None:
        self.hub._switch_to(self)

    def _run(self) -> None:
        """The whole life of the task, inside its Context. Never raises."""
        self._state = _ALIVE
        function = self._function
        assert function is not None
        try:
            if self._kwargs:
                self._result = function(*self._args, **self._kwargs)
            else:
                self._result = function(*self._args)
        except GreenletExit:
            self._error = Cancelled("the task was ended")
            self._observed = True
            self._state = _FAILED
        except BaseException as error:  # SystemExit must not stop the reactor
            # Without this frame, which holds the task, which holds the error.
            traceback = error.__traceback__
            self._error = error.with_traceback(traceback and traceback.tb_next)
            self._observed |= isinstance(error, Cancelled)
            self._state = _FAILED
        else:
            self._state = _FINISHED
        self._function = self._kwargs = None
        self._args = ()

    def _tell_end(self) -> None:
        """Forget the task and call what waits for its end. Reactor greenlet."""
        self.hub.tasks.discard(self)
        self._greenlet = self._parked = None
        self._interruptions = None
        functions, self._on_end = self._on_end, None
        if functions is not None:
            for function in functions:
                try:
                    function()
                except Exception:
                    _log.failure("what waited for the end of {task} failed", task=self)

    def __del__(self) -> None:
        # As with Deferreds: an error nobody asked for is at least logged.
        error = getattr(self, "_error", None)
        if error is not None and not self._observed:
            self._observed = True
            _log.failure(
                "{name} failed and nobody waited for it",
                failure=Failure(error),
                name=repr(self),
            )


class Hub:
    """The tasks of one reactor. Made by `hub_of`.

    Attributes:
        reactor: an IReactorTime; whatever else it provides decides what its
            tasks can wait on.
        tasks: all that have begun and not ended. A parked task is referenced
            from here, and from nowhere else for certain.
        home: the reactor greenlet, as of the last switch into a task. It is
            never taken at import: that may happen in any greenlet.
        thread: the ident of the reactor's thread.
        turned: when the running task was resumed, by the reactor's clock.
        undead: killed tasks that would not end.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.reactor = reactor
        self.tasks: set[Task[Any]] = set()
        self.home = getcurrent()
        self.thread = get_ident()
        self.turned = 0.0
        self.undead: list[Task[Any]] = []
        self.closed = False
        self._tracker = twisted_context.theContextTracker.currentContext()
        self._spare: list[greenlet] = []
        self._turn: list[Callable[[], object]] = []
        if IReactorCore.providedBy(reactor):
            reactor.addSystemEventTrigger("after", "shutdown", self.close)

    def call_from_thread(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function` in the reactor greenlet, soon. Call from any thread."""
        if not IReactorFromThreads.providedBy(self.reactor):
            raise NotInGreenlet(
                f"{self.reactor!r} cannot be called from another thread; "
                f"this is {current_thread().name!r}"
            )
        self.reactor.callFromThread(function, *args)

    def at_next_turn(self, function: Callable[[], object]) -> None:
        """Call `function` in the reactor greenlet at the reactor's next turn.

        Call from the reactor's thread. All of one turn share one delayed call.
        """
        self._turn.append(function)
        if len(self._turn) == 1:
            self.reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        turn, self._turn = self._turn, []
        for function in turn:
            try:
                function()
            except Exception:
                _log.failure("a call put off to the reactor's next turn failed")

    def spawn(self, task: Task[Any]) -> None:
        """Begin `task` at the reactor's next turn, from the top of its stack.

        A greenlet inherits the recursion depth of whoever starts it, so a task
        is never begun deep in somebody's callbacks.
        """
        if self.closed:
            raise NotInGreenlet("the reactor has stopped: no task can begin any more")
        self.tasks.add(task)

        def begin() -> None:
            if task._state is _WAITING_TO_START:
                self.start(task)

        self.at_next_turn(begin)

    def start(self, task: Task[Any]) -> None:
        """Run `task` until it first parks or ends. Call from the reactor greenlet.

        The caller must stand near the top of the reactor's stack.
        """
        self.tasks.add(task)
        spare = self._spare
        runner = spare.pop() if spare else greenlet(self._run_tasks)
        task._greenlet = task._parked = runner
        self._switch_to(task)

    def _run_tasks(self, task: Task[Any]) -> None:
        """What each greenlet of ours does: one task after the other."""
        while True:
            task._context.run(task._run)
            del task
            spare = self._spare
            if len(spare) >= SPARE_GREENLETS or self.closed:
                # A greenlet that ends switches to its parent.
                getcurrent().parent = self.home
                return
            spare.append(getcurrent())
            task = self.home.switch()

    def _wake(self, task: Task[Any]) -> None:
        """Continue a task whose suspension is over. Call from the reactor's thread."""
        task._suspension = None
        if _running is None:
            self._switch_to(task)
        else:
            self.at_next_turn(task._continue)

    def _switch_to(self, task: Task[Any]) -> None:
        """Run `task` until it parks or ends. Reactor greenlet only.

        The one place where the reactor's side of the thread's state is put
        aside for the task's: Twisted's log context, asyncio's running loop and
        current asyncio task. contextvars are greenlet's own business.
        """
        global _running
        parked = task._parked
        assert parked is not None
        tracker = self._tracker
        log_contexts = tracker.contexts
        tracker.contexts = task._log_contexts
        loop = _get_running_loop()
        asyncio_task = None
        if loop is not None:
            asyncio_task = _swap_asyncio_task(loop, None)
        if loop is not task._loop:
            _set_running_loop(task._loop)
        self.home = getcurrent()
        self.turned = self.reactor.seconds()
        _running = task
        try:
            if task._state is _WAITING_TO_START:
                parked.switch(task)
            else:
                parked.switch()
        finally:
            _running = None
            tracker.contexts = log_contexts
            task._loop = _get_running_loop()
            if loop is not task._loop:
                _set_running_loop(loop)
            if asyncio_task is not None:
                _swap_asyncio_task(loop, asyncio_task)
        if task._state is not _ALIVE:
            task._tell_end()

    def close(self) -> None:
        """End every task that is left: the reactor has stopped.

        Call from the reactor greenlet. Their `finally` blocks run and may not
        wait. Afterwards no task can begin.
        """
        self.closed = True
        for task in list(self.tasks):
            task.kill()
            if not task.done and task not in self.undead:
                # It was ready: in line for a turn that never comes.
                task._continue()
            if not task.done:
                _log.error("{task} would not end and is left behind", task=task)
                self.tasks.discard(task)
        self._turn.clear()
        self._spare.clear()


if sys.version_info >= (3, 12):

    def _swap_asyncio_task(
        loop: asyncio.AbstractEventLoop | None, task: Any
    ) -> asyncio.Task[Any] | None:
        """Make `task` the loop's current asyncio task; returns the one before."""
        swapped: asyncio.Task[Any] | None = asyncio.tasks._swap_current_task(  # type: ignore[attr-defined]
            loop, task
        )
        return swapped

else:

    def _swap_asyncio_task(
        loop: asyncio.AbstractEventLoop | None, task: Any
    ) -> asyncio.Task[Any] | None:
        """Make `task` the loop's current asyncio task; returns the one before."""
        before = asyncio.current_task(loop)
        if before is not None:
            asyncio.tasks._leave_task(loop, before)  # type: ignore[arg-type]
        if task is not None:
            asyncio.tasks._enter_task(loop, task)  # type: ignore[arg-type]
        return before


def current_task() -> Task[Any] | None:
    """The task that runs this code; None in the reactor greenlet and in threads.

    Call from anywhere; never parks. Code in a child greenlet of a task's own
    (SQLAlchemy makes some) belongs to the task.
    """
    task = _running
    if task is None:
        return None
    here: greenlet | None = getcurrent()
    while here is not None:
        if here is task._greenlet:
            return task
        here = here.parent
    # Another thread, while a task runs in the reactor's.
    return None


def require_task(what: str) -> Task[Any]:
    """The current task, for `what` that is about to wait.

    Raises:
        NotInGreenlet: there is none; the message says where this is and what
            to do about it.
    """
    task = _running
    if task is not None:
        if task._greenlet is getcurrent():
            return task
        task = current_task()
        if task is not None:
            return task
    raise NotInGreenlet(guards.why_not_here(what))


def hub_of(reactor: IReactorTime | None = None) -> Hub:
    """The hub of `reactor`, made at the first call.

    Call from the reactor's thread. Without a reactor: the current task's hub,
    else that of the installed reactor (which is imported only here, and only
    then).
    """
    if reactor is None:
        task = current_task()
        if task is not None:
            return task.hub
        from twisted.internet import reactor as installed

        reactor = cast("IReactorTime", installed)
    hub: Hub | None = reactor.__dict__.get("_txgreenwsgi_hub")
    if hub is None:
        hub = Hub(reactor)
        reactor.__dict__["_txgreenwsgi_hub"] = hub
        guards.guard_reactor(reactor, current_task)
    return hub
