"""The states of a worker, as the master sees it.

It knows no process.
"""

from __future__ import annotations

from typing import Final

from txgreenwsgi._states import TransitionTable

__all__ = ["BOOTING", "DRAINING", "GONE", "READY", "WORKER"]

BOOTING: Final = "booting"
READY: Final = "ready"
DRAINING: Final = "draining"
GONE: Final = "gone"

#: booting: started, imports the application. ready: serves. draining: accepts nothing
#: and finishes its requests, or was told to end while it booted. gone: has ended.
WORKER: Final = TransitionTable(
    "a worker",
    {
        BOOTING: {"ready": READY, "drain": DRAINING, "exit": GONE},
        READY: {"drain": DRAINING, "exit": GONE},
        DRAINING: {"ready": DRAINING, "drain": DRAINING, "exit": GONE},
        GONE: {},
    },
)
