"""The hub of a reactor's tasks, and the only calls of `greenlet.switch()` we make.

A task *parks* by switching to the reactor greenlet and is *resumed* by a switch
back. Three rules hold here:

1. Only the reactor greenlet switches into a task. A task that answers another
   task's wait puts it in line for the reactor's next turn; else the one that
   answers would be left standing in the middle of its own `callback()`.
2. A wait has a token of its own (`Suspension`). What comes after the wait was
   left finds the token used up and cannot answer the next wait.
3. Whatever ends a task ends it here: no task depends on the collector.

This file knows greenlets and the reactor's clock. It must never know what a task
is for.
"""

from __future__ import annotations

import os
from functools import partial
from threading import current_thread, get_ident
from typing import TYPE_CHECKING, Any, cast

from greenlet import GreenletExit, getcurrent, greenlet
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.logger import Logger
from twisted.python.context import theContextTracker

from . import guards, running
from .asyncio_marks import running_loop, swap
from .errors import NotInGreenlet
from .running import current_task, require_task
from .suspensions import NEW as UNANSWERED
from .suspensions import OVER, PARKED, Suspension
from .tasks import ALIVE, NEW, Task, call_logged

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from twisted.internet.interfaces import IReactorTime

    from .asyncio_marks import Marks

__all__ = [
    "SLICE_SECONDS",
    "Hub",
    "Suspension",
    "Task",
    "current_task",
    "existing_hub_of",
    "hub_of",
    "require_task",
]

_log = Logger()

#: Finished greenlets that are kept for the next task: making one costs 13 us,
#: waking one costs 1 us. Each spare one holds about 3 KiB.
SPARE_GREENLETS = 128

#: A task that neither waits nor ends lets the reactor have a turn after this
#: many seconds, at the next place where it could wait.
SLICE_SECONDS = 0.01

# No thread's ident.
_NO_THREAD = -1

#: A killed task may run its `finally` blocks, but not wait in them. One that
#: answers each refusal with another try is put away for ever after this many.
MOST_REFUSALS = 1000


def _run_tasks() -> None:
    """What each greenlet of ours does: one task after the other."""
    while True:
        # Not given by switch(): a greenlet keeps its first arguments until it ends.
        task = running.task
        assert task is not None, "who switches here says for which task"
        task.run()
        if running.task is None:
            _end_child(task)
        hub = task.hub
        spare, home = hub.spare, hub.home
        here = getcurrent()
        if len(spare) >= SPARE_GREENLETS or hub.closed:
            # A greenlet that ends switches to its parent.
            here.parent = home
            return
        spare.append(here)
        # A spare greenlet holds nothing of what it ran, nor itself: the collector
        # does not look into suspended frames.
        here.gr_context = None
        del task, hub, spare, here
        home.switch()


def _end_child(task: Task[Any]) -> None:
    """End the child of a fork, made in `task`, whose code has come to its end.

    As that of a thread does. There is a reactor beneath it, the copy of one whose
    descriptors, and whose clients, are the parent's.
    """
    error = task._error
    if isinstance(error, SystemExit):
        os._exit(error.code if isinstance(error.code, int) else bool(error.code))
    task.log_unasked()
    os._exit(0 if error is None else 1)


class Hub:
    """The tasks of one reactor. Made by `hub_of`.

    Attributes:
        reactor: an IReactorTime; whatever else it provides decides what its
            tasks can wait on.
        tasks: all that have begun and not ended. A parked task is referenced
            from here, and from nowhere else for certain.
        home: the reactor greenlet, as of the last switch into a task. It is
            never taken at import: that may happen in any greenlet.
        thread: the ident of the reactor's thread, likewise.
        tracker: Twisted's log contexts of that thread.
        resumed_at: when the running task was resumed, by the reactor's clock.
        spare: finished greenlets, for the tasks that come.
        undead: killed tasks that would not end.
        closed: whether the reactor has stopped.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.reactor = reactor
        self.tasks: set[Task[Any]] = set()
        self.resumed_at = 0.0
        self.spare: list[greenlet] = []
        self.undead: list[Task[Any]] = []
        self.closed = False
        self._turn: list[Callable[[], object]] = []
        self._settle()
        if IReactorCore.providedBy(reactor):
            # It may be run by another thread or greenlet than made its hub.
            reactor.callWhenRunning(self._settle)
            reactor.addSystemEventTrigger("after", "shutdown", self.close)

    def _settle(self) -> None:
        """This is the reactor's thread, and its greenlet."""
        self.home = getcurrent()
        self.thread = get_ident()
        self.tracker = theContextTracker.currentContext()

    def leave_thread(self) -> None:
        """This is the child of a fork: the reactor's thread is not here."""
        self.thread = _NO_THREAD

    def on_its_thread(self) -> bool:
        """Is this the reactor's thread?"""
        return get_ident() == self.thread

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

    @property
    def turn_scheduled(self) -> bool:
        """True while calls wait for the reactor's next turn (`at_next_turn`)."""
        return bool(self._turn)

    def _take_turn(self) -> None:
        turn, self._turn = self._turn, []
        for function in turn:
            call_logged(function, "a call put off to the reactor's next turn failed")

    def spawn(self, task: Task[Any]) -> None:
        """Begin `task` at the reactor's next turn, from the top of its stack.

        A greenlet inherits the recursion depth of whoever starts it, so a task
        is never begun deep in somebody's callbacks.

        Raises:
            NotInGreenlet: the reactor has stopped, or this is not its thread.
        """
        self._refuse_when_closed()
        if get_ident() != self.thread:
            raise NotInGreenlet(guards.why_not_in_thread("spawn()"))
        self.tasks.add(task)

        def begin() -> None:
            if task._state is NEW:
                self.start(task)

        self.at_next_turn(begin)

    def start(self, task: Task[Any]) -> None:
        """Run `task` until it first parks or ends. Call from the reactor greenlet.

        The caller must stand near the top of the reactor's stack.

        Raises:
            NotInGreenlet: the reactor has stopped.
        """
        if self.closed:
            self._refuse_when_closed()
        self.tasks.add(task)
        spare = self.spare
        greenlet_ = spare.pop() if spare else greenlet(_run_tasks)
        # Not by Context.run, whose C frames each parked task would keep a copy of.
        greenlet_.gr_context = task._context
        task.greenlet = task._parked = greenlet_
        self._switch_to(task)

    def _refuse_when_closed(self) -> None:
        if self.closed:
            raise NotInGreenlet("the reactor has stopped: no task can begin any more")

    def park(self, task: Task[Any], suspension: Suspension) -> None:
        """Switch to the reactor greenlet until `suspension` is over. In the task.

        Raises:
            NotInGreenlet: the task is being killed, or this is no moment to wait.
        """
        if task.dying:
            suspension._state = OVER
            self._refuse_to_park(task)
        if task.pending_interruption:
            error = task.next_interruption()
            if error is not None:
                suspension._state = OVER
                suspension._error = error
                return
        try:
            guards.refuse_bad_moment()
        except NotInGreenlet:
            suspension._state = OVER
            raise
        suspension.since = self.reactor.seconds()
        task._parked = getcurrent()
        if suspension._state is not UNANSWERED:
            suspension._state = OVER  # a signal's handler has just answered it
            return
        # From here to the switch there is no call, so no signal is handled.
        suspension._state = PARKED
        task.suspension = suspension
        self.home.switch()

    def _refuse_to_park(self, task: Task[Any]) -> NoReturn:
        if not task._exit_raised:
            # It was not parked when it was killed: it hears of it here.
            task._exit_raised = True
            raise GreenletExit
        task._refusals += 1
        if task._refusals > MOST_REFUSALS:
            # It catches everything and tries again, for ever. Leave it parked:
            # a suspended greenlet does no harm to an exiting process.
            self.undead.append(task)
            self.home.switch()
        raise NotInGreenlet(
            f"{task!r} is being ended because its reactor stops: "
            "its `finally` blocks run, but cannot wait"
        )

    def wake(self, task: Task[Any]) -> None:
        """Continue a task whose suspension is over. Call from the reactor's thread.

        At once, if that is possible here; else at the reactor's next turn: a task
        that answers another goes on undisturbed, and nobody runs in the midst of
        a garbage collection or of a signal handler.
        """
        task.suspension = None
        if running.in_handler:
            task._ready = True
            self._turn.append(partial(self._switch_to, task))
            # Not by callLater: the reactor may be asleep, or at its delayed calls.
            self.call_from_thread(self._take_turn)
        elif running.task is None and guards.collecting_thread is None:
            self._switch_to(task)
        else:
            task._ready = True
            self.at_next_turn(partial(self._switch_to, task))

    def _switch_to(self, task: Task[Any]) -> None:
        """Run `task` until it parks or ends, and come back here.

        Here is the reactor greenlet, but for a task that turns a `task.Clock`
        itself. This is the one place where the reactor's side of the thread's
        state is put aside for the task's: Twisted's log context, asyncio's
        marks. contextvars are greenlet's own business.
        """
        parked = task._parked
        assert parked is not None, "a task that has not ended has its greenlet"
        task._ready = False
        tracker = self.tracker
        log_contexts = tracker.contexts
        tracker.contexts = task._log_contexts
        asyncio_marks: Marks = None
        if running_loop() is not None or task._asyncio_marks is not None:
            asyncio_marks = swap(task._asyncio_marks)
        home, self.home = self.home, getcurrent()
        self.resumed_at = self.reactor.seconds()
        interrupted, running.task = running.task, task
        try:
            parked.switch()
        finally:
            running.task = interrupted
            if interrupted is not None:
                self.home = home
            tracker.contexts = log_contexts
            if asyncio_marks is not None or running_loop() is not None:
                task._asyncio_marks = swap(asyncio_marks)
            else:
                task._asyncio_marks = None
        if task._state is not ALIVE:
            task.tell_end()

    def close(self) -> None:
        """End every task that is left: the reactor has stopped.

        Call from the reactor greenlet. Their `finally` blocks run and may not
        wait. Afterwards no task can begin.
        """
        self.closed = True
        for task in list(self.tasks):
            task.kill()
        # The last turn: for tasks that are in line, and for who is to be told of
        # those that never began.
        self._take_turn()
        for task in self.tasks:
            _log.error("{task} would not end and is left behind", task=task)
        self.tasks.clear()
        self.spare.clear()


def existing_hub_of(reactor: IReactorTime) -> Hub | None:
    """Return the hub of `reactor`, or None if it has none. Call from any thread."""
    hub: Hub | None = reactor.__dict__.get("_txgreenwsgi_hub")
    return hub


def hub_of(reactor: IReactorTime | None = None) -> Hub:
    """The hub of `reactor`, made at the first call.

    Call from the reactor's thread. Without a reactor: the current task's hub,
    else that of the installed reactor (which is imported only here, and only
    then).

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
        hub = hubs["_txgreenwsgi_hub"] = Hub(reactor)
        guards.guard_reactor(
            reactor,
            current_task,
            lambda: get_ident() == hubs["_txgreenwsgi_hub"].thread,
        )
    elif hub.closed and _runs_again(reactor):
        hub = hubs["_txgreenwsgi_hub"] = Hub(reactor)
    return hub


def _runs_again(reactor: IReactorTime) -> bool:
    """Can a reactor be run after it has told everybody that it shuts down?

    One that was stopped cannot. But a worker of `trial -j` fires the event after
    each test, without stopping, to have the test's leftovers put away.
    """
    return getattr(reactor, "_startedBefore", True) is False
