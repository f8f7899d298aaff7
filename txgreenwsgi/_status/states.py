"""The state of a server and its workers, as people read it.

It must never know how it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .units import counted

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import ServerInformation, WorkerInformation

__all__ = ["BLOCKED_SECONDS", "activities", "processes", "worker_state"]

#: Time without a beat after which a reactor is blocked.
BLOCKED_SECONDS: Final = 1.0


def processes(server: ServerInformation) -> str:
    """Return the processes of a server, such as "2 workers, master pid 4000"."""
    process = f"pid {server['pid']}"
    if server["target"]:
        return f"{counted(server['target'], 'worker')}, master {process}"
    return process


def activities(server: ServerInformation) -> list[str]:
    """Return what a server does beside serving: "stopping", "reloading"."""
    found = (("stopping", server["stopping"]), ("reloading", server["reloading"]))
    return [word for word, holds in found if holds]


def worker_state(worker: WorkerInformation) -> str:
    """Return the state of a worker.

    It is "blocked" if its reactor does not turn, and "silent" if it has not answered.
    """
    if worker["state"] == "booting" or worker["in_flight"] is not None:
        return worker["state"]
    if (worker["beat_age"] or 0.0) > BLOCKED_SECONDS:
        return "blocked"
    return "silent"
