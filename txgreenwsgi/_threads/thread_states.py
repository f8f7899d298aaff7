"""The state of this process's threads: waiting, computing, or waiting for the GIL.

A sampler that holds the GIL itself learns from the kernel which threads compute: one in
state R does so without the GIL, and one that has used CPU time since the last sample
but is asleep now waits for the GIL.

Linux only (`/proc`). It must never know what a thread is for.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from threading import get_ident, get_native_id
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMPUTES", "HOLDS_GIL", "WAITS", "ThreadState", "ThreadStates", "available"]

#: The thread waits for something other than the GIL.
WAITS: Final = "waits"
#: The thread computes without the GIL: in a C library, or in a system call.
COMPUTES: Final = "computes"
#: The thread has used CPU time and waits for the GIL: it computes in Python.
HOLDS_GIL: Final = "holds the GIL"

#: A thread that has used less than this share of the time between two samples waits.
_BUSY_SHARE = 0.04
#: Microseconds for the threads that the sampler has just interrupted to fall asleep.
_SETTLE_MICROSECONDS = 40
_STAT_BYTES = 256


class ThreadState(NamedTuple):
    """One sample of one thread.

    Attributes:
        kind: WAITS, COMPUTES or HOLDS_GIL.
        seconds: CPU time since the last sample.
    """

    kind: str
    seconds: float


class _Thread:
    """A sampled thread.

    Attributes:
        fd: the open `stat` file of the thread.
        clock: the clock of its CPU time.
        seconds: its CPU time at the last sample.
    """

    __slots__ = ("clock", "fd", "seconds")

    def __init__(self) -> None:
        self.fd = os.open(f"/proc/self/task/{get_native_id()}/stat", os.O_RDONLY)
        self.clock = time.pthread_getcpuclockid(get_ident())
        self.seconds = time.clock_gettime(self.clock)


class ThreadStates:
    """Samples of some threads, which add and remove themselves.

    Reads without releasing the GIL (`ctypes.PyDLL`): otherwise a thread that waits for
    it would take it during the call, and never be seen waiting.
    """

    def __init__(self) -> None:
        library = ctypes.PyDLL(None)
        self._pread = library.pread
        self._pread.argtypes = (
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t),
            ctypes.c_long,
        )
        self._pread.restype = ctypes.c_ssize_t
        self._usleep = library.usleep
        self._buffer = ctypes.create_string_buffer(_STAT_BYTES)
        self._threads: dict[int, _Thread] = {}
        self._last = time.monotonic()

    def add(self) -> None:
        """Sample the calling thread from now on, unless no descriptor is free."""
        with suppress(OSError):
            self._threads[get_ident()] = _Thread()

    def remove(self) -> None:
        """Stop sampling the calling thread, which is about to end."""
        thread = self._threads.pop(get_ident(), None)
        if thread is not None:
            os.close(thread.fd)

    def sample(self, idents: Iterable[int]) -> dict[int, ThreadState]:
        """Return the states of these threads, by ident. Blocks for 40 us.

        Threads that could not be added are missing.

        Call from one thread only.
        """
        now = time.monotonic()
        elapsed, self._last = now - self._last, now
        self._usleep(_SETTLE_MICROSECONDS)
        states = {}
        for ident in idents:
            thread = self._threads.get(ident)
            if thread is not None:
                with suppress(OSError):  # the thread has just ended
                    states[ident] = self._state_of(thread, elapsed)
        return states

    def _state_of(self, thread: _Thread, elapsed: float) -> ThreadState:
        length = self._pread(thread.fd, self._buffer, _STAT_BYTES, 0)
        if length <= 0:
            raise OSError("the thread has ended")
        # proc(5): the state follows the name, which is in parentheses.
        state = self._buffer.raw[:length].rpartition(b") ")[2][:1]
        seconds = time.clock_gettime(thread.clock)
        used, thread.seconds = seconds - thread.seconds, seconds
        if state == b"R":
            return ThreadState(COMPUTES, used)
        if used < _BUSY_SHARE * elapsed:
            return ThreadState(WAITS, used)
        return ThreadState(HOLDS_GIL if state == b"S" else COMPUTES, used)


def available() -> bool:
    """Return whether this platform tells the states of threads."""
    return sys.platform == "linux" and os.access("/proc/self/task", os.R_OK)
