"""Green `time`: `sleep` parks the task. All other names are the original's."""

from __future__ import annotations

import time as _standard
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking.waits import may_park as _may_park
from txgreenwsgi._parking.waits import raise_pending_in_main as _raise_pending_in_main
from txgreenwsgi._switching.running import current_task as _current_task
from txgreenwsgi._switching.thread_calls import in_task_of_thread as _in_task_of_thread
from txgreenwsgi._switching.waiting import sleep as _sleep_in_task

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


# All other names are those of the original.
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in globals())
    }
)
_real_sleep = _standard.sleep


def sleep(seconds: Any, /) -> None:
    """Sleep for `seconds`; 0 yields for one reactor turn. May park.

    In a thread that serves a request, the sleep is made in its task, where deadlines
    and cancellation interrupt it.
    """
    in_task = _in_task_of_thread()
    if in_task is not None:
        in_task(sleep, seconds)
        return
    task = _current_task()
    if task is None or not _may_park():
        _real_sleep(seconds)
        return
    # Invalid values: the original raises before it sleeps.
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        _real_sleep(seconds)
        return
    _sleep_in_task(seconds)
    _raise_pending_in_main(task)
