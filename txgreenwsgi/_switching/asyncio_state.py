"""asyncio's per-thread state: the running loop and its current task.

The reactor greenlet and each of our tasks have their own. Without this, code in a
task would find the reactor's loop running and take itself for part of a coroutine:
Django's ORM refuses to work then (SynchronousOnlyOperation), and so does
`asyncio.run`.

It uses the functions that asyncio documents under "Extending".
"""

from __future__ import annotations

import asyncio

__all__ = ["AsyncioState", "running_loop", "swap_state"]

#: A running loop and its current asyncio task, if any; None if no loop runs.
AsyncioState = tuple[asyncio.AbstractEventLoop, "asyncio.Task[object] | None"] | None

running_loop = asyncio._get_running_loop
_set_running_loop = asyncio._set_running_loop


def swap_state(state: AsyncioState) -> AsyncioState:
    """Set the state of this thread to `state` and return the previous one.

    Call next to a greenlet switch only.
    """
    # Since Python 3.14 a loop's current task can be changed only while that
    # loop is marked as running, hence the order.
    previous: AsyncioState = None
    loop = running_loop()
    if loop is not None:
        task = asyncio.current_task(loop)
        if task is not None:
            asyncio.tasks._leave_task(loop, task)
        previous = loop, task
    if state is None:
        _set_running_loop(None)
    else:
        loop, task = state
        _set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
    return previous
