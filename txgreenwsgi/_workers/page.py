"""The page of memory that the master and its workers share.

Each worker writes one record, several times a second and at each switch into a request,
without a system call; the master reads all of them. So the master knows the request
that blocks a worker even if C code keeps the interpreter lock, and no worker waits for
another process.

    offset  type      value
         0  u64       number of beats
         8  u64       time of the last beat, CLOCK_MONOTONIC in ns
        16  u64       delay of the last beat in ns
        24  u64       requests in flight
        32  u64       open connections
        40  u64       requests so far
        48  u64       blocks that the worker's own monitor had reported by that beat
        56  u64       blocks that it has reported by now
        64  wchar[]   id, method and target (chars) of the request, each padded with
                      zeros; then, u32, 1 while it (or another task) runs

Record 0 belongs to the master: the number of workers that serve, and the indices of
their records, as u16.

If metrics are wanted, a second part follows all records. It has a place for each of
them: a u64 that identifies the layout of the numbers, 0 before there are any; a u64
that is unused; then the numbers, as double.

It knows the layout. It must never know processes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from .memory_files import memory_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi._serving.notes import RequestNote

__all__ = [
    "METRICS_BYTES",
    "RECORDS",
    "RECORD_BYTES",
    "Beat",
    "Page",
    "Record",
    "SharedMetrics",
    "create_page",
    "metrics_of_record",
]

#: Size of one record in bytes.
RECORD_BYTES: Final = 512

#: Number of records. The first is that of the master. Enough for a reload of the
#: maximum number of workers. Unused ones take no memory.
RECORDS: Final = 4096

#: Size of the metrics of one record in bytes.
METRICS_BYTES: Final = 8192

_METRICS_HEAD_BYTES: Final = 16

_BEAT: Final = struct.Struct("=7Q")
_COUNT: Final = struct.Struct("=Q")
_CONNECTIONS_AT: Final = 32
_MOST_SERVING: Final = RECORD_BYTES // 2 - 1
_BLOCKS_AT: Final = 56
_REQUEST_AT: Final = 64


class _Note(ctypes.Structure):
    """See `RequestNote`."""

    _fields_ = (
        ("request_id", ctypes.c_wchar * 24),
        ("method", ctypes.c_wchar * 16),
        ("target", ctypes.c_char * 284),
        ("running", ctypes.c_uint32),
    )


assert ctypes.sizeof(_Note) == RECORD_BYTES - _REQUEST_AT


def create_page(*, metrics: bool = False) -> int:
    """Return the descriptor of a new page, filled with zeros.

    Args:
        metrics: whether the page has a part for metrics.
    """
    fd = memory_file("txgreenwsgi-workers")
    size = RECORD_BYTES + METRICS_BYTES if metrics else RECORD_BYTES
    os.ftruncate(fd, size * RECORDS)
    return fd


class Beat(NamedTuple):
    """The state of a worker at its last beat.

    Attributes:
        beats: the number of beats; 0 before the first.
        time: the time of the beat, in seconds of the monotonic clock.
        lag: its delay, in seconds.
        requests: the number of requests in flight.
        connections: the number of open connections.
        served: the number of requests so far.
        reported: whether the worker's own monitor has reported a block since then.
        current: the request that runs now, such as "1f6a-2b GET /reports"; "" if none.
    """

    beats: int
    time: float
    lag: float
    requests: int
    connections: int
    served: int
    reported: bool
    current: str


class Page:
    """The master's view of the page.

    Args:
        fd: the descriptor of the page.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, RECORD_BYTES * RECORDS)

    def clear(self, record: int) -> None:
        """Fill a record with zeros. Call before its worker starts."""
        begin = record * RECORD_BYTES
        self._memory[begin : begin + RECORD_BYTES] = bytes(RECORD_BYTES)

    def read(self, record: int) -> Beat:
        """Return the state of a worker."""
        begin = record * RECORD_BYTES
        count, when, lag, requests, connections, served, blocks_then = (
            _BEAT.unpack_from(self._memory, begin)
        )
        (blocks,) = _COUNT.unpack_from(self._memory, begin + _BLOCKS_AT)
        return Beat(
            beats=count,
            time=when / 1e9,
            lag=lag / 1e9,
            requests=requests,
            connections=connections,
            served=served,
            reported=blocks != blocks_then,
            current=self._current(begin + _REQUEST_AT),
        )

    def write_serving(self, records: Sequence[int]) -> None:
        """Write the records of the workers that serve, for all workers."""
        shown = records[:_MOST_SERVING]
        values = array("H", [len(shown), *shown]).tobytes()
        self._memory[: len(values)] = values

    def _current(self, begin: int) -> str:
        """Return the running request; "" if there is none, or it changes just now."""
        data = self._memory[begin : begin + ctypes.sizeof(_Note)]
        note = _Note.from_buffer_copy(data)
        if not note.running or data != self._memory[begin : begin + len(data)]:
            return ""
        # Without the query, which may contain secrets.
        target = note.target.partition(b"?")[0].decode("latin-1")
        try:
            parts = (note.request_id, note.method, target)
        except ValueError:  # torn characters
            return ""
        text = " ".join(part for part in parts if part)
        return "".join(each if each.isprintable() else "?" for each in text)

    def close(self) -> None:
        """Unmap the page."""
        self._memory.close()


def _metrics_begin(record: int) -> int:
    return RECORD_BYTES * RECORDS + record * METRICS_BYTES


class SharedMetrics:
    """The master's view of the metrics in a page.

    Args:
        fd: the descriptor of a page with a part for metrics.
        layout: identifies the layout of the numbers; not 0.
        size: their number.
    """

    def __init__(self, fd: int, layout: int, size: int) -> None:
        self._memory = mmap.mmap(fd, (RECORD_BYTES + METRICS_BYTES) * RECORDS)
        self._layout = layout
        self._numbers = struct.Struct(f"={size}d")

    def read(self, record: int) -> tuple[float, ...] | None:
        """Return the numbers of a worker.

        Returns:
            None if there are none, or in the layout of another version.
        """
        begin = _metrics_begin(record)
        if _COUNT.unpack_from(self._memory, begin)[0] != self._layout:
            return None
        return self._numbers.unpack_from(self._memory, begin + _METRICS_HEAD_BYTES)

    def is_of_other_version(self, record: int) -> bool:
        """Return whether a worker has numbers in another layout."""
        (layout,) = _COUNT.unpack_from(self._memory, _metrics_begin(record))
        return layout not in (0, self._layout)

    def clear(self, record: int) -> None:
        """Fill the numbers of a record with zeros. Call when its worker has ended."""
        begin = _metrics_begin(record)
        self._memory[begin : begin + METRICS_BYTES] = bytes(METRICS_BYTES)

    def close(self) -> None:
        """Unmap the page."""
        self._memory.close()


def metrics_of_record(
    fd: int, record: int, layout: int, size: int
) -> memoryview[float] | None:
    """Return the numbers of this worker, for writing. Only this process writes them.

    Args:
        fd: the descriptor of the page.
        record: the index of the record.
        layout: identifies the layout of the numbers; not 0.
        size: their number.

    Returns:
        None if the page has no place for them: its master was started without metrics,
        or by another version of this code.
    """
    begin = _metrics_begin(record)
    head = begin + _METRICS_HEAD_BYTES
    memory = mmap.mmap(fd, 0)
    if len(memory) < begin + METRICS_BYTES:
        memory.close()
        return None
    assert _METRICS_HEAD_BYTES + 8 * size <= METRICS_BYTES
    _COUNT.pack_into(memory, begin, layout)
    return memoryview(memory)[head : head + 8 * size].cast("d")


class Record:
    """The record of this worker. Only this process writes it.

    The page may be shorter or longer, if the master runs another version of this code.

    Call from the reactor greenlet.

    Args:
        fd: the descriptor of the page.
        number: the index of the record.
    """

    def __init__(self, fd: int, number: int) -> None:
        self._memory = mmap.mmap(fd, 0)
        self._begin = number * RECORD_BYTES
        self._beats = 0
        self._blocks = 0

    def beat(self, lag: float, requests: int, connections: int, served: int) -> None:
        """Write a beat."""
        self._beats += 1
        _BEAT.pack_into(
            self._memory,
            self._begin,
            self._beats,
            time.monotonic_ns(),
            max(int(lag * 1e9), 0),
            requests,
            connections,
            served,
            self._blocks,
        )

    def note(self) -> RequestNote:
        """Return the note of the running request."""
        place = self._begin + _REQUEST_AT
        note: RequestNote = _Note.from_buffer(self._memory, place)
        return note

    def note_block(self) -> None:
        """Count a block that this process has reported itself. Call from any thread."""
        self._blocks += 1
        _COUNT.pack_into(self._memory, self._begin + _BLOCKS_AT, self._blocks)

    def mean_connections(self, own: int) -> float:
        """Return the mean number of connections of the workers that serve.

        Args:
            own: the number of connections of this worker, which is written.
        """
        memory = self._memory
        _COUNT.pack_into(memory, self._begin + _CONNECTIONS_AT, own)
        records = array("H", memory[:RECORD_BYTES])
        count = records[0]
        if not count:
            return own
        total = 0
        for record in records[1 : count + 1]:
            place = record * RECORD_BYTES + _CONNECTIONS_AT
            total += _COUNT.unpack_from(memory, place)[0]
        return total / count
