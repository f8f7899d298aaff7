"""A request body that is received whole before the application is called.

What the old asynchronous servers did, as an option: an application that cannot
stand a read that parks, or is to be called only when nothing of its request is
missing, gets the same `wsgi.input` with the same results, filled before.

A body beyond a size goes to a temporary file, written and read in a thread: a
disk may block. This file knows tasks and the reactor's threads. It must never
know where the bytes come from.
"""

from __future__ import annotations

import tempfile
from collections import deque
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

from txgreenwsgi._switching.timeouts import shield
from txgreenwsgi._switching.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .input import BodySource

__all__ = ["read_ahead"]

T = TypeVar("T")

#: So much goes to or from the disk at once: a trip to a thread costs 0.1 ms.
_BATCH_BYTES = 262144


class _WholeBody:
    """A body that has been received, as a source of pieces."""

    def __init__(self, source: BodySource, reactor: Any, memory_bytes: int) -> None:
        self._source = source
        self._reactor = reactor
        self._memory_bytes = memory_bytes
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._file: IO[bytes] | None = None

    def receive_all(self) -> None:
        """Receive until the end. May park."""
        while piece := self._source.receive():
            self._pieces.append(piece)
            self._held += len(piece)
            limit = self._memory_bytes if self._file is None else _BATCH_BYTES
            if self._held > limit:
                self._put_aside()
        if self._file is not None:
            self._put_aside()
            self._in_thread(self._file.seek, 0)

    def _put_aside(self) -> None:
        pieces, self._pieces = self._pieces, deque()
        self._held = 0
        self._file = self._in_thread(_append, self._file, pieces)

    def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        reactor = self._reactor
        if not IReactorThreads.providedBy(reactor):
            return function(*args)
        # The thread cannot be called back, so its end is waited for.
        with shield():
            return wait(
                deferToThreadPool(reactor, reactor.getThreadPool(), function, *args)
            )

    # What wsgi.input calls.

    def receive(self, wanted: int = 0) -> bytes:
        """The next piece, b"" at the end. May park."""
        if self._pieces:
            return self._pieces.popleft()
        if self._file is None:
            return b""
        return self._in_thread(self._file.read, _BATCH_BYTES)

    def reader_turn(self) -> None:
        """Let the reactor have a turn. May park."""
        self._source.reader_turn()

    def close(self) -> None:
        """Forget the file."""
        if self._file is not None:
            self._file.close()


def _append(file: IO[bytes] | None, pieces: Iterable[bytes]) -> IO[bytes]:
    if file is None:
        file = tempfile.TemporaryFile(prefix="txgreenwsgi-")  # noqa: SIM115 - goes on
    try:
        file.writelines(pieces)
        file.flush()
    except BaseException:
        file.close()  # the disk is full: what it holds is of no use
        raise
    return file


@contextmanager
def read_ahead(
    source: BodySource, reactor: Any, memory_bytes: int
) -> Iterator[BodySource]:
    """The whole body of `source` as a source that never makes the reader wait long.

    May park, until all has come; then in threads, for a body on disk.

    Args:
        source: where the body comes from.
        reactor: for its threads; without any the disk is used directly.
        memory_bytes: how long a body may be that is held in memory.

    Raises:
        BaseException: what `source` raises; nothing was given then.
        OSError: the temporary file cannot be written.
    """
    body = _WholeBody(source, reactor, memory_bytes)
    try:
        body.receive_all()
        yield body
    finally:
        body.close()
