"""The state of a worker, as people read it.

It must never know how it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import WorkerInformation

__all__ = ["BLOCKED_SECONDS", "worker_state"]

#: Time without a beat after which a reactor is blocked.
BLOCKED_SECONDS: Final = 1.0


def worker_state(worker: WorkerInformation) -> str:
    """Return the state of a worker.

    It is "blocked" if its reactor does not turn, and "silent" if it has not answered.
    """
    if worker["state"] == "booting" or worker["in_flight"] is not None:
        return worker["state"]
    if (worker["beat_age"] or 0.0) > BLOCKED_SECONDS:
        return "blocked"
    return "silent"
