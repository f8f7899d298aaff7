"""The deadline clock: one delayed call for all deadlines of a server.

Each request has several deadlines, and nearly none of them expires. So requests set
no timers; connections and exchanges check their deadlines four times a second
(`docs/decisions/0004-deadline-clock.md`). This file must never know what
a deadline is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["CHECK_SECONDS", "Checked", "DeadlineClock"]

_log = Logger()

#: Interval between two checks: the precision of every deadline.
CHECK_SECONDS = 0.25


class Checked(Protocol):
    """An object with deadlines."""

    def check(self, now: float) -> None:
        """Apply the expired deadlines; `now` is the reactor's clock."""


class DeadlineClock:
    """A periodic check of the deadlines of all objects in some groups.

    It has a delayed call only while a group has members. Call from the reactor
    greenlet.

    Args:
        groups: sets of objects with deadlines. Their owner adds and removes
            members, and calls `start` and `stop_if_idle`.
    """

    def __init__(self, *groups: Iterable[Checked]) -> None:
        self._groups = groups
        self._call: IDelayedCall | None = None

    def start(self, reactor: IReactorTime) -> None:
        """Start checking; call after a member is added to a group."""
        if self._call is None:
            self._call = reactor.callLater(CHECK_SECONDS, self._check_all, reactor)

    def stop_if_idle(self) -> None:
        """Stop checking if all groups are empty; call after a member is removed."""
        if self._call is not None and not any(self._groups):
            self._call.cancel()
            self._call = None

    def _check_all(self, reactor: IReactorTime) -> None:
        self._call = reactor.callLater(CHECK_SECONDS, self._check_all, reactor)
        now = reactor.seconds()
        for checked in [checked for group in self._groups for checked in group]:
            try:
                checked.check(now)
            except Exception:  # a bug in one must not disable all other deadlines
                _log.failure("deadline check of {checked} failed", checked=checked)
