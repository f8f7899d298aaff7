"""asyncio's two marks on a thread: the loop that runs, and its current task.

The reactor greenlet has its marks, each task of ours has its own. Code in a task
that finds the reactor's loop marked as running believes itself inside a coroutine:
Django's ORM refuses to work (SynchronousOnlyOperation), `asyncio.run` refuses too.

It knows what asyncio has for those who extend it ("Extending" in its documentation).
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Marks", "running_loop", "swap"]

#: A running loop and its current asyncio task, if any; None where no loop runs.
Marks = tuple[asyncio.AbstractEventLoop, "asyncio.Task[Any] | None"] | None

running_loop = asyncio._get_running_loop
_set_running_loop = asyncio._set_running_loop


def swap(marks: Marks) -> Marks:
    """Put `marks` on this thread; those it had. Call beside a switch only."""
    # Since Python 3.14 a loop's current task can be changed only while that
    # loop is marked as running, hence the order.
    before: Marks = None
    loop = running_loop()
    if loop is not None:
        task = asyncio.current_task(loop)
        if task is not None:
            asyncio.tasks._leave_task(loop, task)
        before = loop, task
    if marks is None:
        _set_running_loop(None)
    else:
        loop, task = marks
        _set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
    return before
