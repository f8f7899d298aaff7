"""The pulse of a worker: beats in the shared page, and the limits of its life.

It knows the reactor's clock and the counters of the server. It must never know the
master.
"""

from __future__ import annotations

import os
import random
import resource
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from txgreenwsgi._control import memory
from txgreenwsgi._serving.exchange import Exchange
from txgreenwsgi._serving.notes import note_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._switching.greenlets import Hub, Task

    from .page import Record

__all__ = ["BEAT_SECONDS", "Limits", "Pulse", "note_requests", "resident_bytes"]

_log = Logger()

#: Interval between two beats.
BEAT_SECONDS: Final = 0.25

#: Interval between two checks of the memory.
_MEMORY_SECONDS: Final = 1.0

#: Time after which a worker asks for a successor again.
_AGAIN_SECONDS: Final = 30.0


#: Time of service of a worker that exceeds its limit of memory from the start.
_SMALL_LIMIT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Limits:
    """The limits of a worker's life; 0 for no limit.

    Attributes:
        max_requests: the number of requests.
        max_requests_jitter: the maximum number that is added to it at random, so that
            the workers do not reach it at the same time.
        max_lifetime: the time in seconds.
        max_rss: the resident memory in bytes.
    """

    max_requests: int = 0
    max_requests_jitter: int = 0
    max_lifetime: float = 0.0
    max_rss: int = 0


class Pulse:
    """The beats of one worker.

    Call from the reactor greenlet.

    Args:
        record: the record of the worker.
        reactor: its clock.
        server: its counters are written.
        limits: the limits of the worker's life.
        recycle: called with a reason when a limit is reached.
        resident: returns the resident memory in bytes.
    """

    def __init__(
        self,
        record: Record,
        reactor: IReactorTime,
        server: ApplicationServer,
        limits: Limits,
        recycle: Callable[[str], object],
        resident: Callable[[], int] | None = None,
    ) -> None:
        self._record = record
        self._reactor = reactor
        self._server = server
        self._limits = limits
        self._recycle = recycle
        self._resident = resident or resident_bytes
        self._max_requests = limits.max_requests
        if self._max_requests:
            self._max_requests += random.randint(0, limits.max_requests_jitter)
        self._due = 0.0
        self._begun = 0.0
        self._memory_due = 0.0
        self._asked_at: float | None = None

    def start(self) -> None:
        """Beat from now on. Call when the reactor runs."""
        self._begun = self._due = now = self._reactor.seconds()
        limit = self._limits.max_rss
        if limit and (size := self._resident()) >= limit:
            # Its successor would be no smaller.
            _log.warn(
                "--max-rss is {limit:.0f} MiB, but a new worker has {size:.0f} MiB: "
                "each one is replaced after {seconds:g} s; give a larger value",
                limit=limit / (1 << 20),
                size=size / (1 << 20),
                seconds=_SMALL_LIMIT_SECONDS,
            )
            self._memory_due = now + _SMALL_LIMIT_SECONDS
        self._beat()

    def _beat(self) -> None:
        now = self._reactor.seconds()
        server = self._server
        table = server.table
        self._record.beat(
            now - self._due, len(table.exchanges), server.open_connections, table.ended
        )
        self._due = now + BEAT_SECONDS
        self._reactor.callLater(BEAT_SECONDS, self._beat)
        if self._asked_at is None or now - self._asked_at >= _AGAIN_SECONDS:
            reason = self._exceeded(now)
            if reason:
                self._asked_at = now
                self._recycle(reason)

    def _exceeded(self, now: float) -> str:
        """Return the limit that is reached; "" for none."""
        limits = self._limits
        count = self._server.table.count
        if self._max_requests and count >= self._max_requests:
            return f"{count} requests (--max-requests)"
        age = now - self._begun
        if limits.max_lifetime and age >= limits.max_lifetime:
            return f"{age:.0f} s of service (--max-lifetime)"
        if limits.max_rss and now >= self._memory_due:
            self._memory_due = now + _MEMORY_SECONDS
            size = self._resident()
            if size >= limits.max_rss:
                return f"{size / (1 << 20):.0f} MiB of memory (--max-rss)"
        return ""


def note_requests(
    record: Record, server: ApplicationServer, hub: Hub
) -> Callable[[], None]:
    """Write the running request into a record at each switch.

    Returns:
        A function that stops this.
    """
    server.note = note = record.note()

    def note_task(owner: object, task: Task[object]) -> None:
        if type(owner) is Exchange:
            note_request(note, owner.request_id, owner.head)
            return
        note.running = 0
        note.request_id, note.target = "", b""
        note.method = f"task {task.name}"[:16] if task.name else "a task"
        note.running = 1

    def clear() -> None:
        note.running = 0

    stop_resumptions = hub.note_resumptions(note_task, clear)

    def stop() -> None:
        server.note = None
        stop_resumptions()

    return stop


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    size = memory.resident_bytes(os.getpid())
    if size is not None:
        return size
    # The maximum so far, in KiB (in bytes on macOS).
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
