"""Green `signal`: handlers that raise interrupt the main task, not the reactor.

Python calls a handler wherever its main thread happens to be. While all tasks
are parked that is the reactor, and an exception raised there would end nothing
of the program's. It is raised in the task that stands for the main thread.
"""

from __future__ import annotations

import signal as _standard
from functools import wraps as _wraps
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching import running as _running
from txgreenwsgi._switching.greenlets import Suspension as _Suspension
from txgreenwsgi._switching.tasks import ALL_SHIELDS as _ALL_SHIELDS

from ._place import here as _here
from ._place import main_task as _main_task
from ._place import may_park as _may_park
from ._place import park as _park

if TYPE_CHECKING:
    from types import FrameType

    def __getattr__(name: str) -> Any: ...


_real_signal = _standard.signal
_real_getsignal = _standard.getsignal
_real_pause: Any = getattr(_standard, "pause", None)
# The tasks that wait for the next signal.
_pausing: list[_Suspension] = []


def _redirected(handler: Any) -> Any:
    @_wraps(handler)
    def redirected(number: int, frame: FrameType | None) -> None:
        task = _main_task()
        interrupted, _running.task = _running.task, None  # handlers are in no task
        nested, _running.in_handler = _running.in_handler, True
        try:
            handler(number, frame)
            for pausing in _pausing[:]:
                pausing.resume()
            return
        except BaseException as error:
            if task is None or interrupted is task:
                raise
            raised = error
        finally:
            _running.in_handler = nested
            _running.task = interrupted
        if interrupted is not None:
            task.interrupt(raised, _ALL_SHIELDS)  # in line for the next turn
        else:
            # The reactor may be in the midst of anything.
            task.hub.call_from_thread(task.interrupt, raised, _ALL_SHIELDS)

    redirected.txgreenwsgi_handler = handler  # type: ignore[attr-defined]
    return redirected


def _plain(handler: Any) -> Any:
    return getattr(handler, "txgreenwsgi_handler", handler)


def _signal(signalnum: int, handler: Any, /) -> Any:
    """As `signal.signal`."""
    if callable(handler) and not isinstance(handler, _standard.Handlers):
        handler = _redirected(handler)
    return _plain(_real_signal(signalnum, handler))


def _pause() -> None:
    """As `signal.pause`: wait until a handler has been called. May park."""
    task = _here()
    if task is None or not _may_park():
        _real_pause()
        return
    suspension = _Suspension(task, "signal.pause()")
    _pausing.append(suspension)
    _park(task, suspension, None, lambda: _pausing.remove(suspension))


def _getsignal(signalnum: int, /) -> Any:
    """As `signal.getsignal`."""
    return _plain(_real_getsignal(signalnum))


_signal.__name__ = _signal.__qualname__ = "signal"
_getsignal.__name__ = _getsignal.__qualname__ = "getsignal"

#: What is not as it was; `txgreenwsgi.monkey` puts these in the original's place.
REPLACED: dict[str, Any] = {"signal": _signal, "getsignal": _getsignal}
if hasattr(_standard, "pause"):
    _pause.__name__ = _pause.__qualname__ = "pause"
    REPLACED["pause"] = _pause


def redirect_default() -> None:
    """Let Ctrl-C, too, be raised in the main task. Call from the main thread."""
    if _real_getsignal(_standard.SIGINT) is _standard.default_int_handler:
        _signal(_standard.SIGINT, _standard.default_int_handler)


_mine = dict(globals())
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in _mine)
    },
    **REPLACED,
)
