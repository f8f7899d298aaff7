"""Green `signal`: exceptions of handlers interrupt the main task, not the reactor.

Python runs a handler at the current point of the main thread. While all tasks are
parked, that is inside the reactor, where an exception would not reach the program. So
exceptions are raised in the task that stands for the main thread. All other tasks are
threads, which may not install handlers.

The interpreter's wakeup descriptor is the reactor's. The handlers write to that of the
main task. This file knows tasks; it must never know the program.
"""

from __future__ import annotations

import os as _os
import posix as _posix
import signal as _standard
import sys as _sys
from functools import wraps as _wraps
from typing import TYPE_CHECKING, Any

from txgreenwsgi._parking.waits import main_task as _main_task
from txgreenwsgi._parking.waits import may_park as _may_park
from txgreenwsgi._parking.waits import park as _park
from txgreenwsgi._switching import running as _running
from txgreenwsgi._switching.greenlets import Suspension as _Suspension
from txgreenwsgi._switching.running import current_task as _current_task
from txgreenwsgi._switching.tasks import ALL_SHIELDS as _ALL_SHIELDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from txgreenwsgi._switching.greenlets import Task as _Task

    def __getattr__(name: str) -> Any: ...


_real_signal = _standard.signal
_real_getsignal = _standard.getsignal
_real_set_wakeup_fd: Callable[..., int] = _standard.set_wakeup_fd
_real_pause: Any = getattr(_standard, "pause", None)
_real_write = _posix.write
# Tasks in `signal.pause()`.
_pausing: list[_Suspension] = []


class _Fork:
    """The fork in progress.

    In the child, the functions that run at a fork (asyncio's calls `set_wakeup_fd`) may
    find the task of the parent.

    Attributes:
        process: the ident of the parent; 0 if no fork is in progress.
    """

    def __init__(self) -> None:
        self.process = 0
        _os.register_at_fork(
            before=self._begin, after_in_parent=self._end, after_in_child=self._end
        )

    def _begin(self) -> None:
        self.process = _os.getpid()

    def _end(self) -> None:
        self.process = 0

    def in_child(self) -> bool:
        """Return True in the child, until its functions have run."""
        return self.process not in (0, _os.getpid())


_fork = _Fork()


def _task() -> _Task[object] | None:
    return None if _fork.in_child() else _current_task()


def _require_main_thread(function: str) -> None:
    task = _task()
    if task is not None and task not in (_main_task(), _running.program):
        raise ValueError(
            f"{function} only works in main thread of the main interpreter"
        )


class _Wakeup:
    """The wakeup descriptor of the main task.

    Attributes:
        fd: the descriptor; -1 if there is none.
        warn: True to report that it accepts no more data.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.warn = True

    def write(self, number: int) -> None:
        """Write the number of a signal, as the interpreter does."""
        if self.fd == -1:
            return
        try:
            _real_write(self.fd, bytes((number,)))
        except BlockingIOError as error:
            if self.warn:
                self._report(error)
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if _sys.stderr is not None:
            print(
                "Exception ignored when trying to write to the signal wakeup fd: "
                f"{error!r}",
                file=_sys.stderr,
            )


_wakeup = _Wakeup()


def _redirected(handler: Any) -> Any:
    @_wraps(handler)
    def redirected(number: int, frame: FrameType | None) -> None:
        task = _main_task()
        # A handler does not run in the task that it interrupted.
        interrupted, _running.task = _running.task, None
        nested, _running.in_handler = _running.in_handler, True
        try:
            _wakeup.write(number)
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
            task.interrupt(raised, _ALL_SHIELDS)  # resumed at the next turn
        else:
            # The reactor may have been interrupted at any point.
            task.hub.call_from_thread(task.interrupt, raised, _ALL_SHIELDS)

    redirected.txgreenwsgi_handler = handler  # type: ignore[attr-defined]
    return redirected


def _plain(handler: object) -> Any:
    return getattr(handler, "txgreenwsgi_handler", handler)


def _signal(signalnum: int, handler: Any, /) -> Any:
    """As `signal.signal`; raises ValueError in all tasks but the main task."""
    _require_main_thread("signal")
    if callable(handler) and not isinstance(handler, _standard.Handlers):
        handler = _redirected(handler)
    return _plain(_real_signal(signalnum, handler))


def _set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
    """As `signal.set_wakeup_fd`; raises ValueError in all tasks but the main task.

    The main task has a descriptor of its own; the reactor keeps the interpreter's.
    """
    _require_main_thread("set_wakeup_fd")
    if _task() is None:
        return _real_set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)
    if fd != -1:
        _os.fstat(fd)
        if _os.get_blocking(fd):
            raise ValueError(f"the fd {fd} must be in non-blocking mode")
    before, _wakeup.fd = _wakeup.fd, fd
    _wakeup.warn = warn_on_full_buffer
    return before


def _pause() -> None:
    """Wait until a signal handler was called; as `signal.pause`. May park."""
    task = _current_task()
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
_set_wakeup_fd.__name__ = _set_wakeup_fd.__qualname__ = "set_wakeup_fd"

#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
REPLACED: dict[str, Any] = {
    "signal": _signal,
    "getsignal": _getsignal,
    "set_wakeup_fd": _set_wakeup_fd,
}
if hasattr(_standard, "pause"):
    _pause.__name__ = _pause.__qualname__ = "pause"
    REPLACED["pause"] = _pause


def redirect_default() -> None:
    """Also raise KeyboardInterrupt in the main task. Call from the main thread."""
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
