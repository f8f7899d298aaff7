"""The current task, which every wait looks up first.

It knows greenlets and their parents. It must never switch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from greenlet import getcurrent

from txgreenwsgi._native import lanes

from . import guards
from .errors import NotInGreenlet

if TYPE_CHECKING:
    from greenlet import greenlet

    from .tasks import Task

__all__ = ["current_task", "require_task"]

#: The task whose greenlet (or a child greenlet of it) is running now. A process
#: has one reactor thread, so there is one such task.
task: Task[object] | None = None

#: The task of `react()`, which is the program's main function; None otherwise.
program: Task[object] | None = None

#: True while a signal handler runs, having interrupted a task or the reactor at an
#: arbitrary point.
in_handler = False

lanes.lend(running=globals())


def current_task() -> Task[object] | None:
    """Return the task that runs this code; None in the reactor greenlet and threads.

    Call from anywhere; never parks. Code in a child greenlet of a task (SQLAlchemy
    makes some) belongs to the task.
    """
    candidate = task
    if candidate is None:
        return None
    ancestor: greenlet | None = getcurrent()
    while ancestor is not None:
        if ancestor is candidate.greenlet:
            return candidate
        ancestor = ancestor.parent
    # Another thread, while a task runs in the reactor's thread.
    return None


def require_task(what: str) -> Task[object]:
    """Return the current task for the call `what`, which is about to wait.

    Raises:
        NotInGreenlet: no task is running here; the message gives the place and
            the remedy.
    """
    candidate = task
    if candidate is not None:
        if candidate.greenlet is getcurrent():
            return candidate
        candidate = current_task()
        if candidate is not None:
            return candidate
    raise NotInGreenlet(guards.outside_task_message(what))


def _forget_task() -> None:
    """Leave the task in the child of a fork: no reactor runs in this process."""
    global task
    if task is not None:
        # The child must not run any of the parent's tasks.
        task.hub.leave_thread()
    task = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_task)
