"""The ends of workers: they are told to end, and killed if they do not.

It knows workers. It must never know what replaces them.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from .master_parts import MasterSettings
    from .questions import Questions
    from .slots import Worker

__all__ = ["KILL_MARGIN_SECONDS", "Endings", "described_end"]

_log = Logger()

#: Time after the grace period for a worker to end by itself; its own watchdog ends it
#: sooner.
KILL_MARGIN_SECONDS: Final = 8.0

#: Time for a worker that boots to end after SIGTERM.
BOOT_KILL_SECONDS: Final = 5.0

#: Time between the end of a link and the end of the process behind it.
LOST_SECONDS: Final = 5.0


class Endings:
    """The ends of the workers of one master. Call from the reactor greenlet.

    Args:
        reactor: its clock.
        settings: the settings of the master.
        questions: for the stacks of a worker.
        drained: called when a worker accepts no connections any more.

    Attributes:
        is_cut_short: whether workers that drain get no grace period.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: MasterSettings,
        questions: Questions,
        drained: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._questions = questions
        self._drained = drained
        self.is_cut_short = False

    def drain(self, worker: Worker, *, final: bool = False) -> None:
        """Let a worker finish its requests and end. It is killed if it does not.

        Args:
            worker: the worker.
            final: whether no other process accepts the connections of its backlog.
        """
        if worker.is_draining or worker.is_gone:
            return
        booting = worker.is_booting
        worker.move("drain")
        worker.cancel_calls()
        slot = worker.slot
        slot.vacate(worker)
        slot.draining.add(worker)
        self._drained()
        if booting:
            worker.kill(signal.SIGTERM)
            self._kill_later(worker, BOOT_KILL_SECONDS)
        else:
            worker.send({"do": "drain", "final": final})
            grace_seconds = self._settings.graceful_timeout
            self._kill_later(worker, grace_seconds + KILL_MARGIN_SECONDS)
        if self.is_cut_short:
            self.hurry(worker)

    def hurry(self, worker: Worker) -> None:
        """End the grace period of a worker that drains."""
        worker.send({"do": "cut short"})
        worker.cancel_calls()
        self._kill_later(worker, KILL_MARGIN_SECONDS)

    def _kill_later(self, worker: Worker, seconds: float) -> None:
        """Kill a worker that was told to end, if it has not ended by then."""
        reason = f"it did not end in {seconds:g} s"
        worker.calls.append(self._reactor.callLater(seconds, self.kill, worker, reason))

    def kill(self, worker: Worker, reason: str) -> None:
        """Kill a worker. The reason is logged."""
        _log.error("killing {worker}: {reason}", worker=worker, reason=reason)
        if not worker.reason:
            worker.reason = f"it was killed: {reason}"
        worker.kill(signal.SIGKILL)

    def boot_timed_out(self, worker: Worker) -> None:
        """Kill a worker that is not ready in time, with its stacks as the reason."""
        seconds = self._settings.boot_timeout
        worker.reason = f"it was not ready after {seconds:g} s (--boot-timeout)"

        def kill(stacks: str) -> None:
            if stacks:
                worker.reason += f"; its stacks:\n{stacks.rstrip()}"
            worker.kill(signal.SIGKILL)

        worker.calls.append(self._questions.dump_stacks(worker, kill))

    def lost(self, worker: Worker) -> None:
        """Handle the end of the link of a worker, whose process ends next."""
        if not worker.is_gone:
            worker.calls.append(
                self._reactor.callLater(
                    LOST_SECONDS, self.kill, worker, "it has closed its link"
                )
            )


def described_end(status: int | None, number: int | None) -> str:
    """Return the end of a process as a clause for the log."""
    if number is None:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"was killed by signal {number}"
