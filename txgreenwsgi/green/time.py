"""Green `time`: `sleep` parks the task. The rest is the standard module's."""

from __future__ import annotations

import time as _standard
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.waiting import sleep as _sleep_in_task

from ._place import here as _here
from ._place import may_park as _may_park
from ._place import raise_in_main as _raise_in_main

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


# The rest of the module is as it was.
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in globals())
    }
)
_real_sleep = _standard.sleep


def sleep(seconds: Any, /) -> None:
    """Wait for `seconds`; 0 lets everything that is ready run. May park."""
    task = _here()
    if task is None or not _may_park():
        _real_sleep(seconds)
        return
    # For the errors of the original, which never waits this long.
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        _real_sleep(seconds)
        return
    _sleep_in_task(seconds)
    _raise_in_main(task)
