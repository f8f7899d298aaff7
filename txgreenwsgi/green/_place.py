"""Where a call comes from: a task, or a place where it blocks as it always did.

It knows tasks, threads and idents. It must never wait.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from txgreenwsgi._switching import guards, running
from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.greenlets import SLICE_SECONDS, Suspension
from txgreenwsgi._switching.tasks import ALL_SHIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from txgreenwsgi._switching.greenlets import Task

__all__ = [
    "LATE",
    "give_way",
    "here",
    "main_task",
    "may_park",
    "park",
    "raise_in_main",
    "set_main_task",
    "undisturbed",
]

#: What a wait with a time limit answers when the time was over first.
LATE = "late"

_main_task: Task[Any] | None = None


def here() -> Task[Any] | None:
    """The task to park; None where a call blocks as the original does.

    That is: in the reactor greenlet, in a real thread, in the child of a fork,
    and wherever parking would do harm (a finalizer, a signal handler).
    """
    task = running.task
    if task is None or task.greenlet is getcurrent():
        return task
    return running.current_task()  # in a child greenlet, or another thread


def may_park() -> bool:
    """Is this a moment to park? Not in a finalizer, nor in a signal handler."""
    try:
        guards.refuse_bad_moment()
    except NotInGreenlet:
        return False
    return True


def main_task() -> Task[Any] | None:
    """The task that stands for the main thread: it runs a whole program."""
    return _main_task


def set_main_task(task: Task[Any] | None) -> None:
    """Let `task` count as the main thread, to idents and thread-locals."""
    global _main_task
    _main_task = task


def park(
    task: Task[Any],
    suspension: Suspension,
    seconds: float | None,
    clean_up: Callable[[], object] | None = None,
) -> bool:
    """Wait on `suspension` for at most `seconds`; False when they were over first.

    May park. Raises what interrupts the task. `clean_up` is called in any case.
    """
    call = None
    if seconds is not None:
        call = task.hub.reactor.callLater(seconds, suspension.resume, LATE)
    try:
        in_time = suspension.wait() is not LATE
        raise_in_main(task)
    finally:
        if call is not None and call.active():
            call.cancel()
        if clean_up is not None:
            clean_up()
    return in_time


def raise_in_main(task: Task[Any]) -> None:
    """Raise what a signal's handler raised while the main task was being woken."""
    if task is _main_task and task.pending_interruption:
        task.raise_pending()


def give_way(task: Task[Any]) -> None:
    """Let the reactor have a turn when `task` has run for long. May park.

    For calls that need not wait: a loop of them would never let go. Nothing but
    a kill interrupts it, for what the call has got must not get lost.
    """
    hub = task.hub
    if hub.reactor.seconds() - hub.resumed_at <= SLICE_SECONDS or not may_park():
        return
    suspension = Suspension(task, "the reactor's next turn")
    hub.at_next_turn(suspension.resume)
    with undisturbed(task):
        suspension.wait()


@contextmanager
def undisturbed(task: Task[Any]) -> Iterator[None]:
    """Within it nothing but a kill interrupts `task`; what would, does afterwards."""
    task.raise_shield(ALL_SHIELDS)
    try:
        yield
    finally:
        task.lower_shield(ALL_SHIELDS)
