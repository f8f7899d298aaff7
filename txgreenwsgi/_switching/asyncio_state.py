"""asyncio's per-thread state: the running loop and its current task.

The reactor greenlet and each of our tasks have their own state. Otherwise, code in a
task would see the reactor's loop as running and assume that it is inside a coroutine:
Django's ORM raises SynchronousOnlyOperation then, and `asyncio.run` fails.

It knows the functions that asyncio documents under "Extending". It must never know
tasks.
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

    Call only next to a greenlet switch.
    """
    # The order matters: since Python 3.14 a loop's current task can be changed only
    # while that loop is marked as running.
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
