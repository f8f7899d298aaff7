"""Green `concurrent.futures`: pools of tasks, and pools of real threads.

In a task, `ThreadPoolExecutor` runs its calls in tasks. `RealThreadPoolExecutor` runs
them in real threads, for calls that cannot be made cooperative; waiting for its futures
parks too.
"""

from __future__ import annotations

import concurrent.futures as _standard
import threading as _standard_threading
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING, Any

from .. import queue as _green_queue
from .. import threading as _green_threading
from ..mirror import run_again as _run_again

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


def _module(name: str, threading: Any, **more: Any) -> Any:
    made = _ModuleType(__name__, __doc__)
    _run_again(
        f"concurrent.futures.{name}",
        made.__dict__,
        {"threading": threading, "queue": _green_queue},
    )
    made.__dict__.update(more)
    return made


_errors = {
    name: value
    for name, value in vars(_standard).items()
    if isinstance(value, type) and issubclass(value, Exception)
}
_base = _module("_base", _green_threading, **_errors)
_in_tasks = _module("thread", _green_threading, _base=_base)
_threads: Any = _ModuleType("threading", _green_threading.__doc__)
_threads.__dict__.update(vars(_green_threading), Thread=_standard_threading.Thread)
_in_threads = _module("thread", _threads, _base=_base)

globals().update(
    {name: getattr(_base, name) for name in _standard.__all__ if hasattr(_base, name)}
)
ThreadPoolExecutor: Any = _in_tasks.ThreadPoolExecutor
RealThreadPoolExecutor: Any = _in_threads.ThreadPoolExecutor
RealThreadPoolExecutor.__name__ = RealThreadPoolExecutor.__qualname__ = (
    "RealThreadPoolExecutor"
)
