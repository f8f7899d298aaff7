"""Receiving a request body before the application is called.

Many applications need a complete body: they read CONTENT_LENGTH bytes and ignore
`wsgi.input_terminated`, rewind `wsgi.input`, or do not tolerate a read that parks. For
them the body is received ahead, and `wsgi.input` returns it from memory.

A large body goes to a temporary file, which is written and read in a thread because
disk access may block. Knows tasks and the reactor's threads. Must never know the
source of the bytes.
"""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

from txgreenwsgi._switching.thread_calls import in_task_of_thread
from txgreenwsgi._switching.timeouts import shield
from txgreenwsgi._switching.waiting import wait_for_deferred, yield_if_due

from .input import MAX_PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from .input import BodySource

    class ClientSource(BodySource, Protocol):
        """The source of a body that a client is sending."""

        def stall(self, stalled: bool) -> None:
            """Pause reading from the client, or allow it again. Never parks."""


__all__ = ["BufferedBody", "ClientPaused", "EmptyBody"]

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes per read of the file, and per write unless the memory limit is smaller: each
#: costs 0.1 ms for the thread switch.
_BATCH_BYTES = 262144
_MIN_BATCH_BYTES = 16384


class ClientPaused(Exception):
    """The client has sent no byte of an incomplete body for some time."""


class BufferedBody:
    """A `SeekableSource` that receives a body ahead of its reader.

    It stores everything received by `receive_ahead`. A reader that comes to the end
    of an incomplete body reads on from the source. Close it at the end of the request.

    Args:
        source: The source of the body.
        reactor: Provides the thread pool; if it does not provide `IReactorThreads`,
            the disk is used directly.
        memory_bytes: Size above which the body goes to a temporary file.

    Attributes:
        complete: Whether the whole body is stored.
        length: The number of stored bytes.
        position: Index of the byte that `receive` returns next. A reader may set it
            if the body is complete.
        begun: Whether a reader has received anything.
    """

    def __init__(
        self, source: ClientSource, reactor: object, memory_bytes: int
    ) -> None:
        self.complete = False
        self.length = 0
        self.position = 0
        self.begun = False
        self._source = source
        self._threads: IReactorThreads | None = IReactorThreads(reactor, None)
        self._memory_bytes = memory_bytes
        # The stored bytes that are not in the file. A body that arrives as one piece
        # is not copied; many small pieces are joined, because each bytes object costs
        # more than its content.
        self._memory: bytes | bytearray = b""
        self._file: IO[bytes] | None = None

    def receive_ahead(self) -> None:
        """Receive and store the body up to its end, or a pause of the client. May park.

        Raises:
            BaseException: An exception of the source propagates.
            OSError: The temporary file cannot be written.
        """
        try:
            while piece := self._source.receive():
                self._store(piece)
        except ClientPaused:
            pass
        else:
            self.complete = True
        if self._file is not None:
            self._spill()

    def _store(self, piece: bytes) -> None:
        self.length += len(piece)
        if not self._memory:
            self._memory = piece
        elif isinstance(self._memory, bytearray):
            self._memory += piece
        else:
            self._memory = bytearray(self._memory) + piece
        limit = self._memory_bytes
        if self._file is not None:
            limit = min(max(limit, _MIN_BATCH_BYTES), _BATCH_BYTES)
        if len(self._memory) > limit:
            self._spill()

    def _spill(self) -> None:
        """Move the bytes from memory to the temporary file. May park."""
        if not self._memory:
            return
        memory, self._memory = self._memory, b""
        # A fast client must not fill another buffer meanwhile.
        self._source.stall(True)
        try:
            self._file = self._in_thread(_append, self._file, memory)
        finally:
            self._source.stall(False)

    def _in_thread(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        threads = self._threads
        if threads is None or in_task_of_thread() is not None:
            return function(*args, **kwargs)
        # A call in a thread cannot be cancelled, so wait for it in any case.
        with shield():
            return wait_for_deferred(
                deferToThreadPool(
                    threads, threads.getThreadPool(), function, *args, **kwargs
                )
            )

    # Called by wsgi.input.

    def receive(self, wanted: int = MAX_PIECE_BYTES) -> bytes:
        """Return the next piece, b"" at the end. May park."""
        self.begun = True
        start = self.position
        if start < self.length:
            yield_if_due()
            start = self.position
            if self._file is not None:
                size = min(_BATCH_BYTES, self.length - start)
                piece = self._in_thread(os.pread, self._file.fileno(), size, start)
                if not piece:
                    raise OSError("the temporary file of the request body is truncated")
            elif isinstance(self._memory, bytearray):
                with memoryview(self._memory) as view:
                    piece = bytes(view[start : start + wanted])
            else:
                piece = self._memory[start : start + wanted]
            self.position += len(piece)
            return piece
        if self.complete:
            return b""
        self.close()  # the stored beginning is not needed again
        return self._source.receive(wanted)

    def reader_turn(self) -> None:
        """Park for one reactor turn."""
        self._source.reader_turn()

    def close(self) -> None:
        """Discard the stored bytes, and close the temporary file, which deletes it."""
        self.length = 0
        self._memory = b""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class EmptyBody:
    """The `SeekableSource` of a request without a body.

    Args:
        source: Raises the errors of reads.

    Attributes:
        length: 0.
        position: As for `BufferedBody`.
    """

    length = 0

    def __init__(self, source: BodySource) -> None:
        self.position = 0
        self._source = source

    def receive(self, wanted: int = 0) -> bytes:
        """Return b"", or raise as the source does."""
        return self._source.receive()

    def reader_turn(self) -> None:
        """Park for one reactor turn."""
        self._source.reader_turn()


def _append(file: IO[bytes] | None, data: bytes | bytearray) -> IO[bytes]:
    if file is None:
        # Without a buffer, which would take 8 KiB for each body.
        file = tempfile.TemporaryFile(  # noqa: SIM115 - returned
            prefix="txgreenwsgi-", buffering=0
        )
    try:
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += file.write(view[written:])
    except BaseException:
        file.close()  # For example, the disk is full: the content is incomplete.
        raise
    return file
