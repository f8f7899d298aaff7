"""Waits of a task: with a time limit, yielding to other tasks, uninterruptible.

The task to park is `txgreenwsgi._switching.running.current_task()`; if it is None, the
call blocks as the original does. This file knows tasks and the reactor's clock. It must
never know what a task waits for.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching import guards
from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.greenlets import Suspension
from txgreenwsgi._switching.tasks import ALL_SHIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from txgreenwsgi._switching.greenlets import Task

__all__ = [
    "main_task",
    "may_park",
    "park",
    "raise_pending_in_main",
    "set_main_task",
    "uninterrupted",
    "yield_to_others",
]

# The value that resumes a wait whose time limit has passed.
_TIMED_OUT = "timed out"

_main_task: Task[object] | None = None


def may_park() -> bool:
    """Return False in a finalizer or a signal handler, which must not park."""
    try:
        guards.check_can_park()
    except NotInGreenlet:
        return False
    return True


def main_task() -> Task[object] | None:
    """Return the task that stands for the main thread; None if there is none.

    It runs a whole program (`txgreenwsgi.monkey.run`).
    """
    return _main_task


def set_main_task(task: Task[Any] | None) -> None:
    """Let `task` stand for the main thread, for idents and thread-locals."""
    global _main_task
    _main_task = task


def park(
    task: Task[object],
    suspension: Suspension,
    seconds: float | None,
    clean_up: Callable[[], object] | None = None,
) -> bool:
    """Park `task` until `suspension` is resumed. May park.

    Args:
        task: the current task.
        suspension: a new suspension of `task`.
        seconds: the time limit; None for no limit.
        clean_up: called after the wait, however it ends.

    Returns:
        False when the time limit passed first.

    Raises:
        BaseException: the interruption of the task.
    """
    call = None
    if seconds is not None:
        call = task.hub.call_at_timeout(seconds, suspension.resume, _TIMED_OUT)
    try:
        in_time = suspension.wait() is not _TIMED_OUT
        raise_pending_in_main(task)
    finally:
        if call is not None and call.active():
            call.cancel()
        if clean_up is not None:
            clean_up()
    return in_time


def raise_pending_in_main(task: Task[object]) -> None:
    """Raise an exception of a signal handler that ran while the main task was woken."""
    if task is _main_task and task.pending_interruption:
        task.raise_pending()


def yield_to_others(task: Task[object]) -> None:
    """Yield to the reactor if `task` has used up its time slice. May park.

    For calls that already have their result: a loop of them would otherwise block the
    reactor. Only a kill interrupts this wait, because the result of the call must not
    be lost.
    """
    hub = task.hub
    if hub.seconds() - hub.resumed_at <= hub.slice_seconds or not may_park():
        return
    suspension = Suspension(task, "the reactor's next turn")
    hub.at_next_turn(suspension.resume)
    with uninterrupted(task):
        suspension.wait()


@contextmanager
def uninterrupted(task: Task[object]) -> Iterator[None]:
    """Defer interruptions of `task`, except a kill, to the end of the block."""
    task.raise_shield(ALL_SHIELDS)
    try:
        yield
    finally:
        task.lower_shield(ALL_SHIELDS)
