"""The signals at which a worker writes its stacks, whatever it does.

At the first one a Python function writes them, if Python runs. At the second one
`faulthandler` does, in the C signal handler, so this works while C code holds the
interpreter lock. It would crash a process that runs Python code, whose frames change
while it follows them (https://github.com/python/cpython/issues/140815). The stacks go
to a file that the master reads.

It knows the signals. It must never know when they are sent.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

from txgreenwsgi._serving.request_stacks import formatted_stack, stack_of_task

if TYPE_CHECKING:
    from txgreenwsgi._serving.application_server import ApplicationServer

__all__ = ["FORCED_STACKS_SIGNAL", "STACKS_SIGNAL", "describe_stacks"]

#: Programs rarely use it. Python does not know real-time signals by these numbers.
STACKS_SIGNAL: Final[int] = (
    signal.SIGRTMIN + 8 if hasattr(signal, "SIGRTMIN") else signal.SIGXCPU
)
FORCED_STACKS_SIGNAL: Final[int] = (
    signal.SIGRTMIN + 9 if hasattr(signal, "SIGRTMIN") else signal.SIGXFSZ
)


def describe_stacks(server: ApplicationServer, request_id: str = "") -> str:
    """Return the requests in flight and the threads of this process with their stacks.

    Call from the reactor greenlet; never parks.

    Args:
        server: the server.
        request_id: return this request alone; "" if there is no such request.
    """
    parts: list[str] = []
    rows = {row.request_id: row for row in server.requests()}
    for exchange in sorted(server.table.exchanges, key=lambda each: each.started):
        row = rows.get(exchange.request_id)
        if row is None or request_id not in ("", row.request_id):
            continue
        waiting = f", waiting on {row.waiting_on}" if row.waiting_on else ""
        parts.append(
            f"request {row.request_id} {row.method} {row.path}: {row.state} for "
            f"{row.age:.1f} s{waiting}\n"
        )
        parts.append("" if exchange.task is None else stack_of_task(exchange.task))
    if request_id:
        return "".join(parts)
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {ident:#x}:\n")
        parts.append(formatted_stack(frame))
    return "".join(parts)
