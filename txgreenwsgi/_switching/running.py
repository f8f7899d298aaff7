"""Which task runs now: the question that every wait asks first.

It knows greenlets and their parents. It must never switch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from . import guards
from .errors import NotInGreenlet

if TYPE_CHECKING:
    from greenlet import greenlet

    from .tasks import Task

__all__ = ["current_task", "require_task"]

#: The task whose greenlet (or a child greenlet of it) is running now. There is
#: one reactor thread in a process, so there is one such task.
task: Task[Any] | None = None

#: A signal handler runs: it has interrupted a task, or the reactor, anywhere.
in_handler = False


def current_task() -> Task[Any] | None:
    """The task that runs this code; None in the reactor greenlet and in threads.

    Call from anywhere; never parks. Code in a child greenlet of a task's own
    (SQLAlchemy makes some) belongs to the task.
    """
    candidate = task
    if candidate is None:
        return None
    here: greenlet | None = getcurrent()
    while here is not None:
        if here is candidate.greenlet:
            return candidate
        here = here.parent
    # Another thread, while a task runs in the reactor's.
    return None


def require_task(what: str) -> Task[Any]:
    """The current task, for `what` that is about to wait.

    Raises:
        NotInGreenlet: there is none; the message says where this is and what
            to do about it.
    """
    candidate = task
    if candidate is not None:
        if candidate.greenlet is getcurrent():
            return candidate
        candidate = current_task()
        if candidate is not None:
            return candidate
    raise NotInGreenlet(guards.why_not_here(what))


def _forget_task() -> None:
    """In the child of a fork no reactor turns: its code is in no task any more."""
    global task
    if task is not None:
        # Of the parent's tasks none is to run here, whatever it waits for.
        task.hub.leave_thread()
    task = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_task)
