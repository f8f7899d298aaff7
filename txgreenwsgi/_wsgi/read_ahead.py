"""Buffering of a whole request body before the application is called.

An option for applications that do not tolerate a read that parks, or that must not
be called before the request is complete. They get the same `wsgi.input`, with the
same results, already filled.

A large body goes to a temporary file, which is written and read in a thread because
disk access may block. Knows tasks and the reactor's threads. Must never know the
source of the bytes.
"""

from __future__ import annotations

import tempfile
from collections import deque
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

from txgreenwsgi._switching.timeouts import shield
from txgreenwsgi._switching.waiting import wait, yield_if_due

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .input import BodySource

__all__ = ["read_ahead"]

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes per read or write of the file: each costs 0.1 ms for the thread switch.
_BATCH_BYTES = 262144


class _BufferedBody:
    """A `BodySource` that receives a body completely before it returns any of it.

    Args:
        source: The source of the body.
        threads: The reactor, for its thread pool; None to use the disk directly.
        memory_bytes: Size above which the body goes to a temporary file.
    """

    def __init__(
        self, source: BodySource, threads: IReactorThreads | None, memory_bytes: int
    ) -> None:
        self._source = source
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._pieces: deque[bytes] = deque()
        self._pieces_bytes = 0
        self._file: IO[bytes] | None = None

    def receive_all(self) -> None:
        """Receive the body up to its end. May park."""
        while piece := self._source.receive():
            self._pieces.append(piece)
            self._pieces_bytes += len(piece)
            limit = self._memory_bytes if self._file is None else _BATCH_BYTES
            if self._pieces_bytes > limit:
                self._spill()
        if self._file is not None:
            self._spill()
            self._in_thread(self._file.seek, 0)

    def _spill(self) -> None:
        """Move the pieces from memory to the temporary file. May park."""
        pieces, self._pieces = self._pieces, deque()
        self._pieces_bytes = 0
        self._file = self._in_thread(_append, self._file, pieces)

    def _in_thread(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        threads = self._threads
        if threads is None:
            return function(*args, **kwargs)
        # A call in a thread cannot be cancelled, so wait for it in any case.
        with shield():
            return wait(
                deferToThreadPool(
                    threads, threads.getThreadPool(), function, *args, **kwargs
                )
            )

    # Called by wsgi.input.

    def receive(self, wanted: int = 0) -> bytes:
        """Return the next piece, b"" at the end. May park."""
        if self._pieces:
            yield_if_due()
            return self._pieces.popleft()
        if self._file is None:
            return b""
        return self._in_thread(self._file.read, _BATCH_BYTES)

    def reader_turn(self) -> None:
        """Park for one reactor turn."""
        self._source.reader_turn()

    def close(self) -> None:
        """Close the temporary file, which deletes it."""
        if self._file is not None:
            self._file.close()


def _append(file: IO[bytes] | None, pieces: Iterable[bytes]) -> IO[bytes]:
    if file is None:
        file = tempfile.TemporaryFile(prefix="txgreenwsgi-")  # noqa: SIM115 - returned
    try:
        file.writelines(pieces)
        file.flush()
    except BaseException:
        file.close()  # For example, the disk is full: the content is incomplete.
        raise
    return file


@contextmanager
def read_ahead(
    source: BodySource, reactor: object, memory_bytes: int
) -> Iterator[BodySource]:
    """Receive the whole body of `source`; yield a source that returns it.

    Parks until the body is complete. Reads of a body on disk also park, while a
    thread reads.

    Args:
        source: The source of the body.
        reactor: Provides the thread pool; if it does not provide `IReactorThreads`,
            the disk is used directly.
        memory_bytes: Maximum size of a body that is kept in memory.

    Raises:
        BaseException: An exception of `source` propagates; nothing is yielded then.
        OSError: The temporary file cannot be written.
    """
    threads: IReactorThreads | None = IReactorThreads(reactor, None)
    body = _BufferedBody(source, threads, memory_bytes)
    try:
        body.receive_all()
        yield body
    finally:
        body.close()
