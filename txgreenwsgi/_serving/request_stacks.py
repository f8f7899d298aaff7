"""The Python stacks of requests in flight.

It knows tasks and threads. It must never know how a stack is shown.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from txgreenwsgi._switching.thread_calls import tasks_of_threads
from txgreenwsgi._threads.calls import ThreadCall

if TYPE_CHECKING:
    from types import FrameType

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["formatted_stack", "stack_of_task"]


def stack_of_task(task: Task[None]) -> str:
    """Return the stack of a task, or of the thread that its application runs in.

    Call from the reactor's thread, not from the task itself; never parks.
    """
    for ident, call in list(tasks_of_threads.items()):
        if isinstance(call, ThreadCall) and call.task is task:
            # Keep no dict of all frames: this frame is in it, a cycle.
            frame = sys._current_frames().get(ident)
            if frame is not None:
                return f"in thread {ident:#x}:\n{formatted_stack(frame)}"
    greenlet = task.greenlet
    if greenlet is None:
        return ""
    if task.state == "running":  # this very task asks
        return formatted_stack(sys._getframe())
    return formatted_stack(greenlet.gr_frame)


def formatted_stack(frame: FrameType | None) -> str:
    """Return a stack as in a traceback; "" for None."""
    return "" if frame is None else "".join(traceback.format_stack(frame))
