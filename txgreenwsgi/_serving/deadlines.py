"""The deadline clock: one delayed call for all deadlines of a server.

Each request has several deadlines, and nearly none of them expires. So requests set
no timers; connections and exchanges check their deadlines four times a second
(`docs/decisions/0004-deadline-clock.md`). A check that comes late, after a stall of the
reactor, extends all deadlines (`docs/decisions/0013-steady-clock.md`). This file must
never know what a deadline is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from txgreenwsgi._switching.greenlets import LATE_SECONDS, existing_hub_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["CHECK_SECONDS", "Checked", "DeadlineClock"]

_log = Logger()

#: Interval between two checks: the precision of every deadline.
CHECK_SECONDS = 0.25


class Checked(Protocol):
    """An object with deadlines."""

    def check(self, now: float) -> None:
        """Apply the expired deadlines; `now` is the reactor's clock."""

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor from all deadlines.

        Args:
            seconds: the duration of the stall.
            now: its end, by the reactor's clock. Time spans that began during the
                stall are extended only to this time.
        """


class DeadlineClock:
    """A periodic check of the deadlines of all objects in some groups.

    It has a delayed call only while a group has members, and at most until the next
    check after the last one is removed. Call from the reactor greenlet.

    Args:
        groups: sets of objects with deadlines. Their owner adds and removes
            members, and calls `start` and `stop_if_idle`.
        on_idle: called by a check that finds no member, and is the last one.
    """

    def __init__(
        self,
        *groups: Iterable[Checked],
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._groups = groups
        self._on_idle = on_idle
        self._call: IDelayedCall | None = None
        # Time of the next check.
        self._due = 0.0

    def start(self, reactor: IReactorTime) -> None:
        """Start checking; call after a member is added to a group."""
        if self._call is None:
            self._due = reactor.seconds() + CHECK_SECONDS
            self._call = reactor.callLater(CHECK_SECONDS, self._check_all, reactor)

    @property
    def idle(self) -> bool:
        """Whether nothing is checked."""
        return self._call is None

    def stop_if_idle(self) -> None:
        """Stop checking if all groups are empty; call after a member is removed.

        Without this call, the next check does it. That costs less where members come
        and go in each turn of the reactor.
        """
        if self._call is not None and not any(self._groups):
            self._call.cancel()
            self._call = None

    def stalled_seconds(self, reactor: IReactorTime) -> float:
        """Return the duration of a stall that the next check will exclude; 0.0 if none.

        The stall may still be in progress.
        """
        if self._call is None:
            return 0.0
        late = reactor.seconds() - self._due
        if late <= LATE_SECONDS:
            return 0.0
        hub = existing_hub_of(reactor)
        return late if hub is not None and hub.detects_stalls else 0.0

    def _check_all(self, reactor: IReactorTime) -> None:
        if not any(self._groups):
            self._call = None
            self._on_idle()
            return
        stalled = self.stalled_seconds(reactor)
        now = reactor.seconds()
        self._due = now + CHECK_SECONDS
        if stalled:
            # Before the next turn, the reactor reads the input that has arrived.
            self._call = reactor.callLater(0, self._apply, reactor, now)
            self._for_each(lambda checked: checked.postpone(stalled, now))
        else:
            self._apply(reactor, now)

    def _apply(self, reactor: IReactorTime, now: float) -> None:
        """Apply the deadlines that had expired at `now`."""
        left = max(0.0, self._due - reactor.seconds())
        self._call = reactor.callLater(left, self._check_all, reactor)
        self._for_each(lambda checked: checked.check(now))

    def _for_each(self, function: Callable[[Checked], object]) -> None:
        for checked in [checked for group in self._groups for checked in group]:
            try:
                function(checked)
            except Exception:  # a bug in one must not disable all other deadlines
                _log.failure("deadline check of {checked} failed", checked=checked)
