"""Green `subprocess`: the standard module on green pipes, locks and waits."""

from __future__ import annotations

import subprocess as _standard
from typing import TYPE_CHECKING, Any

from . import _pipes
from . import os as _green_os
from . import selectors as _green_selectors
from . import threading as _green_threading
from . import time as _green_time
from .mirror import run_again as _run_again

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


_foundations: dict[str, Any] = {
    "io": _pipes.io,
    "os": _green_os,
    "selectors": _green_selectors,
    "threading": _green_threading,
    "time": _green_time,
}
_mine = {name: value for name, value in globals().items() if name.startswith("__")}
_run_again("subprocess", globals(), _foundations)
globals().update(_mine)
globals().update(
    {
        name: getattr(_standard, name)
        for name in (
            "CalledProcessError",
            "CompletedProcess",
            "SubprocessError",
            "TimeoutExpired",
        )
    }
)

#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
REPLACED: dict[str, Any] = {
    "_PopenSelector": _green_selectors.PollSelector,
    **_foundations,
}
