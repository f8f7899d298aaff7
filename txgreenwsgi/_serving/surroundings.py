"""The process as the blocked-reactor monitor sees it: clock, stacks, load, collections.

It knows the interpreter. It must never know tasks or requests.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from threading import get_native_id
from time import monotonic
from typing import TYPE_CHECKING

from txgreenwsgi._parking.real_threads import thread_ident
from txgreenwsgi._parking.thread_load import NO_LOAD, Load, ThreadLoad
from txgreenwsgi.monitoring.stacks import is_event_wait, stack_of_thread

if TYPE_CHECKING:
    from txgreenwsgi.monitoring.stacks import Stack

__all__ = ["Surroundings"]

# As they are before patching.
_set_mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
_valid_signals = signal.valid_signals


class Surroundings:
    """The clock, the stacks and the load of the process. Tests replace them."""

    def __init__(self) -> None:
        self._load: ThreadLoad | None = None
        self._collection_started = 0.0
        self._collections: list[tuple[float, float]] = []

    def now(self) -> float:
        """Return the time. Not the reactor's clock, which may jump."""
        return monotonic()

    def begin(self) -> None:
        """Begin to watch. Call in the reactor's thread."""
        self._load = ThreadLoad(thread_ident(), get_native_id())
        gc.callbacks.append(self._note_collection)

    def enter_thread(self) -> None:
        """Leave signals to the main thread. Call in the monitor's thread.

        A signal that this thread received would not interrupt the main thread, whose
        handler would then wait for the end of a blocking call.
        """
        if _set_mask is not None:
            _set_mask(signal.SIG_BLOCK, _valid_signals())

    def end(self) -> None:
        """Release everything. Call in the monitor's thread."""
        with contextlib.suppress(ValueError):  # removed by the application
            gc.callbacks.remove(self._note_collection)
        if self._load is not None:
            self._load.close()

    def load(self) -> Load:
        """Return the load of the reactor's thread."""
        return NO_LOAD if self._load is None else self._load.read()

    def processor_time(self) -> float:
        """Return that thread's processor time. Keeps the interpreter lock."""
        return 0.0 if self._load is None else self._load.processor_time()

    def stack(self, thread: int) -> Stack:
        """Return the stack of a thread."""
        return stack_of_thread(thread)

    def is_idle(self, thread: int) -> bool:
        """Return whether the reactor's thread waits for events."""
        frame = sys._current_frames().get(thread)
        return frame is not None and is_event_wait(frame.f_code)

    def collections(self) -> list[tuple[float, float]]:
        """Return start and end of the garbage collections since the last call."""
        collections, self._collections = self._collections, []
        return collections

    def _note_collection(self, phase: str, info: dict[str, int]) -> None:
        if not info["generation"]:
            return  # frequent, and short
        if phase == "start":
            self._collection_started = monotonic()
        elif self._collection_started:
            self._collections.append((self._collection_started, monotonic()))
