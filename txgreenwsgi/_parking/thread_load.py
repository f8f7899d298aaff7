"""Processor time of a thread, and the time that it waited for a processor.

A process that was stopped, or a machine without a free processor, looks like a blocked
reactor to a clock. These figures tell them apart. It knows the system's clocks. It must
never know the reactor.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

__all__ = ["NO_LOAD", "Load", "ThreadLoad"]


class Load(NamedTuple):
    """Times in seconds, since the start of the thread.

    Attributes:
        thread: processor time of the thread.
        delay: time that the thread was ready to run and had no processor; 0.0 if the
            system does not tell.
    """

    thread: float
    delay: float

    def since(self, before: Load) -> Load:
        """Return the differences from an earlier load."""
        return Load(*(now - then for now, then in zip(self, before, strict=True)))


NO_LOAD = Load(0.0, 0.0)


class ThreadLoad:
    """The load of one thread; call `read` from any thread.

    Args:
        ident: the thread's ident.
        native_id: its number in the operating system.
    """

    def __init__(self, ident: int, native_id: int) -> None:
        self._clock: int | None = None
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS
            self._clock = time.pthread_getcpuclockid(ident)
        self._statistics = -1
        with contextlib.suppress(OSError):  # Linux only
            self._statistics = os.open(
                f"/proc/self/task/{native_id}/schedstat", os.O_RDONLY | os.O_CLOEXEC
            )

    def read(self) -> Load:
        """Return the load. It takes about 3 us."""
        return Load(self.processor_time(), self.delay())

    def delay(self) -> float:
        """Return the time in the run queue, in seconds; 0.0 where it is not known."""
        if self._statistics >= 0:
            with contextlib.suppress(OSError, ValueError, IndexError):
                # Processor time, time in the run queue (both in ns), time slices.
                return int(os.pread(self._statistics, 100, 0).split()[1]) / 1e9
        return 0.0

    def processor_time(self) -> float:
        """Return the processor time. Does not release the interpreter lock."""
        if self._clock is None:
            return time.process_time()
        return time.clock_gettime(self._clock)

    def close(self) -> None:
        """Close the file of the statistics."""
        statistics, self._statistics = self._statistics, -1
        if statistics >= 0:
            os.close(statistics)

    __del__ = close
