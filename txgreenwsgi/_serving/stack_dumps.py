"""Stacks written while a C function holds the interpreter lock.

No Python thread runs then. `faulthandler` has a thread in C, whose timer is pushed back
as long as Python threads run. When it expires, it writes the stacks of all threads to a
pipe, and the next Python thread reads them there.

The process has one such timer. Another user of it has precedence: the application, or
the watchdog of the command, which must end the process. This file knows faulthandler.
It must never know requests.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from typing import IO, TYPE_CHECKING, Any

from txgreenwsgi._parking.real_threads import real_rlock
from txgreenwsgi.monitoring.stacks import parse_dumps

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi.monitoring.stacks import Stack

__all__ = ["StackDumps", "share_timer"]

_PIPE_BYTES = 65536

_arm: Callable[..., None] = faulthandler.dump_traceback_later
_cancel: Callable[[], None] = faulthandler.cancel_dump_traceback_later


class _Timer:
    """The timer of faulthandler, shared with its other users.

    Attributes:
        lock: guards the timer. Reentrant, because a signal handler may interrupt a
            holder and arm the timer itself.
        owner: the dumps that armed the timer; None if it is free.
        taken: whether other code has armed it.
    """

    def __init__(self) -> None:
        self.lock = real_rlock()
        self.owner: StackDumps | None = None
        self.taken = False

    def armed_by_others(self, *args: Any, **kwargs: Any) -> None:
        """Replace `faulthandler.dump_traceback_later`."""
        with self.lock:
            _arm(*args, **kwargs)  # first: it may refuse the arguments
            self.owner = None
            self.taken = True

    def cancelled_by_others(self) -> None:
        """Replace `faulthandler.cancel_dump_traceback_later`."""
        with self.lock:
            if self.taken:
                self.taken = False
                _cancel()

    def before_fork(self) -> None:
        """Disarm the timer: its thread would be missing in the child.

        faulthandler waits for that thread when the child exits, forever.
        """
        self.lock.acquire()
        if self.owner is not None:
            self.owner = None
            _cancel()

    def after_fork(self) -> None:
        """Release the timer in the parent; it is armed again soon."""
        self.lock.release()

    def in_child(self) -> None:
        """Make the timer usable in the child."""
        self.lock = real_rlock()


_timer = _Timer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_timer.before_fork,
        after_in_parent=_timer.after_fork,
        after_in_child=_timer.in_child,
    )


def share_timer() -> None:
    """Notice from now on when other code arms the timer of faulthandler.

    Replaces two functions of `faulthandler`. Call before the application is imported.
    """
    if faulthandler.dump_traceback_later is _arm:
        vars(faulthandler).update(
            dump_traceback_later=_timer.armed_by_others,
            cancel_dump_traceback_later=_timer.cancelled_by_others,
        )


class StackDumps:
    """A pipe to which faulthandler writes, unless it is rearmed in time.

    Call from one thread.
    """

    def __init__(self) -> None:
        self._reader = -1
        self._file: IO[bytes] | None = None
        self._references = 0

    def arm(self, seconds: float) -> None:
        """Write the stacks in `seconds`, and every `seconds` from then on.

        A no-op while other code uses the timer.
        """
        if self._file is None:
            try:
                self._open()
            except OSError:
                return  # no descriptor is free
        with _timer.lock:
            if _timer.owner is self and not self._is_armed():
                # A caller that imported the function before it was replaced.
                _timer.owner = None
                _timer.taken = True
            if _timer.taken:
                return
            _arm(seconds, repeat=True, file=self._file)
            _timer.owner = self

    def _open(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        # A full pipe discards further dumps.
        os.set_blocking(writer, False)
        self._file = os.fdopen(writer, "wb", 0)
        self._references = sys.getrefcount(self._file)

    def _is_armed(self) -> bool:
        # The timer holds a reference to the file that it was armed with.
        return sys.getrefcount(self._file) > self._references

    def collect(self, thread: int) -> list[Stack]:
        """Return the stacks of a thread that were written since the last call."""
        if self._file is None:
            return []
        try:
            text = os.read(self._reader, _PIPE_BYTES)
        except BlockingIOError:
            return []
        return parse_dumps(text.decode("utf-8", "replace"), thread)

    def disarm(self) -> None:
        """Write no stacks until the next call of `arm`."""
        with _timer.lock:
            if _timer.owner is self:
                _timer.owner = None
                if self._is_armed():
                    _cancel()

    def close(self) -> None:
        """Disarm the timer, and close the pipe."""
        self.disarm()
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
            os.close(self._reader)
