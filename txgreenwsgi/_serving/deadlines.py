"""The deadline clock: one delayed call for all deadlines of a server.

Each request has several deadlines, and nearly none of them passes. So no timer is
set for a request; connections and exchanges are asked to check their deadlines
four times a second (`docs/decisions/0004-deadlines-are-looked-at.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["CHECK_SECONDS", "Checked", "DeadlineClock"]

_log = Logger()

#: The interval between two checks, and so the precision of every deadline.
CHECK_SECONDS = 0.25


class Checked(Protocol):
    """An object with deadlines."""

    def check(self, now: float) -> None:
        """Apply the deadlines that have passed; `now` is the reactor's clock."""


class DeadlineClock:
    """Checks the deadlines of all watched objects at regular intervals.

    It has a delayed call while there is something to watch, and none otherwise.
    Call from the reactor greenlet.

    Attributes:
        watched: the objects with deadlines.
    """

    def __init__(self) -> None:
        self.watched: set[Checked] = set()
        self._call: IDelayedCall | None = None

    def watch(self, checked: Checked, reactor: IReactorTime) -> None:
        """Check `checked` from now on."""
        self.watched.add(checked)
        if self._call is None:
            self._call = reactor.callLater(CHECK_SECONDS, self._check_all, reactor)

    def forget(self, checked: Checked) -> None:
        """Stop checking `checked`, which need not be watched."""
        self.watched.discard(checked)
        if not self.watched and self._call is not None:
            self._call.cancel()
            self._call = None

    def _check_all(self, reactor: IReactorTime) -> None:
        self._call = reactor.callLater(CHECK_SECONDS, self._check_all, reactor)
        now = reactor.seconds()
        for checked in list(self.watched):
            try:
                checked.check(now)
            except Exception:  # noqa: PERF203 - each check is on its own
                # One defect must not keep the deadlines of all others.
                _log.failure(
                    "check of the deadlines of {checked} failed", checked=checked
                )
