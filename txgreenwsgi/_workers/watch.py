"""The watch over the beats of the workers: blocked workers are named and killed.

It knows beats and clocks. It must never know how a worker is replaced.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from .questions import STACKS_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from .master_parts import Beats
    from .page import Beat
    from .slots import Worker

__all__ = ["Watch"]

_log = Logger()

#: Interval between two looks at the beats of the workers.
WATCH_SECONDS: Final = 0.25

#: A worker whose last beat is older is blocked: a neighbour accepts for it.
BLOCKED_SECONDS: Final = 1.0

#: A look that comes so much later than planned shows that the master was stopped.
STOPPED_SECONDS: Final = 1.0


class Watch:
    """The watch of one master. Call from the reactor greenlet.

    Args:
        reactor: its clock.
        monotonic: the clock of the beats.
        beats: the shared page.
        timeout: seconds without a beat after which a worker is killed; 0 for no limit.
        tenants: returns the workers that serve.
        changed: called when workers are blocked, or respond again.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        monotonic: Callable[[], float],
        beats: Beats,
        timeout: float,
        tenants: Callable[[], Sequence[Worker]],
        changed: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._beats = beats
        self._timeout = timeout
        self._tenants = tenants
        self._changed = changed
        self._watching: IDelayedCall | None = None
        self._watched_at = self._resumed_at = monotonic()

    def start(self) -> None:
        """Look at the beats from now on."""
        self._watched_at = self._monotonic()
        self._look()

    def stop(self) -> None:
        """End. A no-op if it has ended."""
        if self._watching is not None and self._watching.active():
            self._watching.cancel()

    def _look(self) -> None:
        """Look at the beats of all workers."""
        now = self._monotonic()
        if now - self._watched_at > WATCH_SECONDS + STOPPED_SECONDS:
            # This process was stopped, and the workers may have been too.
            self._resumed_at = now
        self._watched_at = now
        changed = False
        for worker in self._tenants():
            beat = self._beats.read(worker.record)
            if not beat.beats:
                continue
            age = now - max(beat.time, self._resumed_at)
            blocked = age > BLOCKED_SECONDS
            if blocked is not worker.blocked:
                worker.blocked = blocked
                changed = True
                if blocked:
                    self._log_blocked(worker, beat, age)
                else:
                    _log.info("{worker} responds again", worker=worker)
            if not blocked:
                worker.suspected_at = None
            elif self._timeout:
                self._check_hung(worker, beat, age, now)
        if changed:
            self._changed()
        self._poll_shared()
        self._watching = self._reactor.callLater(WATCH_SECONDS, self._look)

    @staticmethod
    def _log_blocked(worker: Worker, beat: Beat, age: float) -> None:
        """Name the request that blocks a worker, unless the worker itself has."""
        if not beat.reported:
            _log.warn(
                "{worker} is blocked for {age:.1f} s by {current}, which lets no other "
                "Python code run",
                worker=worker,
                age=age,
                current=_described(beat),
            )

    def _check_hung(self, worker: Worker, beat: Beat, age: float, now: float) -> None:
        """Request the stacks of a worker before its timeout, and kill it after."""
        timeout = self._timeout
        process = worker.process
        if process is None or worker.killed:
            return
        if worker.suspected_at is None:
            if age >= max(timeout - STACKS_SECONDS, timeout / 2):
                worker.suspected_at = now
                process.begin_stacks()
        elif age >= timeout and now - worker.suspected_at >= STACKS_SECONDS:
            worker.killed = True
            _log.error(
                "killing {worker}: its reactor is blocked for {age:.1f} s "
                "(--worker-timeout {timeout:g}) by {current}; its stacks:\n{stacks}",
                worker=worker,
                age=age,
                timeout=timeout,
                current=_described(beat),
                stacks=process.stacks().rstrip() or "not available",
            )
            worker.kill(signal.SIGKILL)

    def _poll_shared(self) -> None:
        """Let a neighbour look at the shared sockets while a worker is blocked.

        The kernel has woken one worker for each connection, which may be the blocked
        one.
        """
        workers = self._tenants()
        able = [each for each in workers if not each.blocked]
        if able and len(able) < len(workers):
            able[0].send({"do": "poll"})


def _described(beat: Beat) -> str:
    """Return the code that runs in a worker, for the log."""
    if not beat.current:
        return "code outside requests"
    kind = "" if beat.current.startswith(("task ", "a task")) else "request "
    return f"{kind}{beat.current}"
