"""Green `subprocess`: the standard module on green pipes, locks and waits."""

from __future__ import annotations

import _posixsubprocess
import subprocess as _standard
import sys as _sys
from types import SimpleNamespace as _SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import _by_number, _pipes
from . import os as _green_os
from . import selectors as _green_selectors
from . import threading as _green_threading
from . import time as _green_time
from .mirror import run_again as _run_again

if TYPE_CHECKING:
    from collections.abc import Callable

    def __getattr__(name: str) -> Any: ...


_real_fork_exec: Callable[..., int] = _posixsubprocess.fork_exec


def _lending_fork_exec(*args: Any) -> int:
    """As `_posixsubprocess.fork_exec`; lends the child the descriptors that it gets."""
    if len(args) > max(_STANDARD_STREAMS):
        _by_number.lend(args[_PASSED_NUMBERS])
        _by_number.lend(args[place] for place in _STANDARD_STREAMS)
    return _real_fork_exec(*args)


# The places of its arguments. The child inherits no others, except those that were
# made inheritable, which lends them.
_PASSED_NUMBERS = 3
_STANDARD_STREAMS = (6, 9, 11)

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
_lending: dict[str, Any] = {"_fork_exec": _lending_fork_exec}
if _sys.version_info < (3, 11):
    _lending = {"_posixsubprocess": _SimpleNamespace(fork_exec=_lending_fork_exec)}
globals().update(_lending)

#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
REPLACED: dict[str, Any] = {
    "_PopenSelector": _green_selectors.PollSelector,
    **_foundations,
    **_lending,
}
#: The same for `_posixsubprocess`, which `multiprocessing` calls.
REPLACED_IN_C: dict[str, Any] = {"fork_exec": _lending_fork_exec}
