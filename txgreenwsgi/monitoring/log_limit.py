"""A limit on the rate of log lines that clients can cause.

It knows the time. It must never know what is logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LogLimit"]


class LogLimit:
    """A limit on the rate of one kind of log line.

    Args:
        seconds: returns the time.
        interval: minimum time between two lines.

    Attributes:
        suppressed: the number of lines that were left out before the last one.
    """

    def __init__(self, seconds: Callable[[], float], interval: float) -> None:
        self._seconds = seconds
        self._interval = interval
        self._logged: float | None = None
        self._suppressed = 0
        self.suppressed = 0

    def may_log(self) -> bool:
        """Return whether a line may be logged now; count it otherwise."""
        now = self._seconds()
        if self._logged is not None and now - self._logged < self._interval:
            self._suppressed += 1
            return False
        self._logged = now
        self.suppressed, self._suppressed = self._suppressed, 0
        return True
