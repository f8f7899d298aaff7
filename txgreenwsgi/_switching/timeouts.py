"""`with timeout(seconds)` and `with shield()`: time limits and shields for waits.

This module knows tasks. It must never switch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import TimedOut
from .guards import require_seconds
from .running import require_task
from .thread_calls import in_task_of_thread, tasks_of_threads

if TYPE_CHECKING:
    from types import TracebackType

    from twisted.internet.interfaces import IDelayedCall

    from .tasks import Task

__all__ = ["shield", "timeout"]


class timeout:  # noqa: N801 - used as a function, as asyncio.timeout is
    """A block whose waits raise `TimedOut` once `seconds` have passed.

    Use as a context manager, in a task; entering and leaving never park. The
    exception is raised once, at the current wait when the time expires, or at the
    next wait inside the block. Code that never waits is not interrupted.

    Args:
        seconds: the limit, by the reactor's clock; None for no limit.

    Attributes:
        expired: True if the time expired before the block ended.

    Raises:
        ValueError: `seconds` is negative or NaN.
        TypeError: `seconds` is not a number.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None:
            require_seconds("timeout()", seconds)
        self.seconds = seconds
        self.expired = False
        self._task: Task[object] | None = None
        self._call: IDelayedCall | None = None
        self._error: TimedOut | None = None

    def __enter__(self) -> timeout:
        """Start the clock."""
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            entered = in_task(self.__enter__)
            in_task.timeouts += 1
            return entered
        if self._task is not None:
            raise RuntimeError(_ENTERED_TWICE.format("timeout(seconds)"))
        self._task = task = require_task("timeout()")
        self.expired = False
        if self.seconds is not None:
            self._error = TimedOut(f"timed out after {self.seconds:g} seconds")
            self._call = task.hub.call_at_timeout(
                self.seconds, self._expire, task, self._error, task.shield_depth
            )
        return self

    def _expire(self, task: Task[object], error: TimedOut, shields: int) -> None:
        if error is not self._error:
            return  # the block has ended
        self.expired = True
        task.interrupt(error, shields)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the clock; discard an expiry that was not raised yet."""
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            in_task.timeouts -= 1
            in_task(self.__exit__, None, None, None)
            return
        task, self._task = self._task, None
        call, self._call = self._call, None
        mine, self._error = self._error, None
        if call is not None and call.active():
            call.cancel()
        if task is not None and mine is not None:
            task.withdraw(mine)


class shield:  # noqa: N801 - used as a function
    """A block whose waits cannot be interrupted from outside.

    Use as a context manager, in a task, around code that must not be interrupted
    halfway: a commit, a protocol exchange. Cancellations, deadlines and disconnects
    are deferred to the first wait after the block. Timeouts set inside the block
    work. At shutdown a shield holds only for the grace period.
    """

    def __init__(self) -> None:
        self._task: Task[object] | None = None

    def __enter__(self) -> shield:
        """Raise the shield."""
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            return in_task(self.__enter__)
        if self._task is not None:
            raise RuntimeError(_ENTERED_TWICE.format("shield()"))
        self._task = require_task("shield()")
        self._task.shield_depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Lower the shield."""
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            in_task(self.__exit__, None, None, None)
            return
        task, self._task = self._task, None
        if task is not None:
            task.shield_depth -= 1


_ENTERED_TWICE = (
    "this {0} is in use by another block: write a new `with {0}:` for each block"
)
