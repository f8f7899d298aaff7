"""`wsgi.file_wrapper`: a file as a response body.

Knows files; must never know sockets. The server decides whether the kernel can send
the file.
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from txgreenwsgi._native import lanes
from txgreenwsgi._switching.waiting import yield_if_due

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    class Readable(Protocol):
        """A file-like object that can be wrapped."""

        def read(self, size: int, /) -> bytes:
            """Return at most `size` bytes; b"" at the end."""


__all__ = ["FileRegion", "FileWrapper"]

#: Minimum read size: smaller reads only cost time.
_SMALLEST_BLOCK = 65536

#: Maximum read size: a read blocks the reactor while it runs.
_LARGEST_BLOCK = 1024 * 1024

#: Number of bytes read by `next` after which the wrapper yields to the reactor, even if
#: the time slice is not used up.
_BYTES_PER_TURN = 4 * 1024 * 1024

#: Modules of files whose seek() decompresses everything up to the new position.
_DECOMPRESSING = frozenset(
    ("gzip", "bz2", "lzma", "zipfile", "compression.zstd", "compression.zstd._zstdfile")
)


class FileRegion(NamedTuple):
    """The rest of a regular file, for `os.sendfile`.

    Attributes:
        fd: The file's descriptor.
        offset: The current position, in bytes.
        length: The number of bytes from there to the end.
    """

    fd: int
    offset: int
    length: int


@lanes.with_lanes
class FileWrapper:
    """Iterator over the blocks of a file-like object.

    PEP 3333, "Optional Platform-Specific File Handling". It can be positioned like a
    file, so that middleware can send a part of it (werkzeug does, for a range request)
    without reading the data before that part.

    Args:
        filelike: An object with `read(size)` and optionally `close()`, `seek()` and
            `tell()`.
        block_size: The suggested number of bytes per read; raised to 64 KiB if it is
            smaller, lowered to 1 MiB if it is larger.
    """

    def __init__(self, filelike: Readable, block_size: int = 8192) -> None:
        self.filelike = filelike
        self.block_size = min(max(block_size, _SMALLEST_BLOCK), _LARGEST_BLOCK)
        # Number of bytes read since the wrapper has yielded to the reactor.
        self._read_in_turn = 0

    def __iter__(self) -> Iterator[bytes]:
        """Return the wrapper."""
        return self

    def __next__(self) -> bytes:
        """Read the next block.

        Parks for a reactor turn if the task has used up its time slice: a caller may
        discard blocks in a loop. Does not park outside of a task.
        """
        block = self._read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def seekable(self) -> bool:
        """Return whether the file has a position that can be set. Never parks."""
        filelike = self.filelike
        if not (hasattr(filelike, "seek") and hasattr(filelike, "tell")):
            return False
        seekable = getattr(filelike, "seekable", None)
        return seekable is None or bool(seekable())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position of the file, as `io.IOBase.seek` does, and return it.

        The next block, or `sendfile`, starts there. A compressed file has to be
        decompressed up to the new position: this reads it in blocks and parks as
        `next` does.

        Raises:
            io.UnsupportedOperation: The file has no `seek`.
        """
        seek = self._method("seek")
        if not self._inflates():
            position: int | None = seek(offset, whence)
            return self.tell() if position is None else position
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"seek(): invalid whence: {whence!r}, not 0, 1 or 2")
        if whence == os.SEEK_END:
            self._skip_to(None)
        if whence != os.SEEK_SET:
            offset += self.tell()
        if offset < self.tell():
            seek(0)
        self._skip_to(offset)
        return self.tell()

    def tell(self) -> int:
        """Return the position of the file. Never parks.

        Raises:
            io.UnsupportedOperation: The file has no `tell`.
        """
        position: int = self._method("tell")()
        return position

    def _method(self, name: str) -> Callable[..., int]:
        method: Callable[..., int] | None = getattr(self.filelike, name, None)
        if method is None:
            raise io.UnsupportedOperation(
                f"the wrapped {type(self.filelike).__name__} has no {name}()"
            )
        return method

    def _inflates(self) -> bool:
        return self.seekable() and any(
            base.__module__ in _DECOMPRESSING for base in type(self.filelike).__mro__
        )

    def _skip_to(self, position: int | None) -> None:
        """Read and discard the data up to `position`, or to the end if None."""
        while True:
            size = self.block_size
            if position is not None:
                size = min(size, position - self.tell())
            if size <= 0 or not self._read(size):
                return

    def _read(self, size: int) -> bytes:
        # Yield before the read: an interruption must not lose a block.
        if yield_if_due(self._read_in_turn >= _BYTES_PER_TURN):
            self._read_in_turn = 0
        block = self.filelike.read(size)
        if block:
            self._read_in_turn += len(block)
        return block

    def blocks(self, limit: int | None) -> Iterator[bytes]:
        """Iterate over the rest of the file, at most `limit` bytes of it.

        The file may be longer than the response, for a range request for example. The
        caller sends each block, and so yields to the reactor.
        """
        while limit is None or limit > 0:
            size = self.block_size if limit is None else min(self.block_size, limit)
            block = self.filelike.read(size)
            if not block:
                break
            if limit is not None:
                limit -= len(block)
            yield block

    def close(self) -> None:
        """Close the file if it has a `close` method."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()

    def regular_file(self) -> FileRegion | None:
        """Return the rest of the file if the kernel can send it, else None.

        None is returned for everything but plain, readable, binary regular files of
        a known size; those must be read. Never parks.
        """
        filelike = cast("BinaryIO", self.filelike)
        try:
            fd = filelike.fileno()
            status = os.fstat(fd)
            if not (stat.S_ISREG(status.st_mode) and filelike.readable()):
                return None
            offset = filelike.tell()
        except (AttributeError, OSError, ValueError):
            # No descriptor or no position: PEP 3333 requires to iterate over it.
            return None
        if getattr(filelike, "encoding", None) is not None:
            return None  # A text file: reading it raises the error to report.
        if type(filelike).__module__ not in ("io", "_io", "tempfile"):
            # gzip and zipfile objects return the descriptor of the compressed file.
            return None
        if not status.st_size:
            return None  # Empty, or generated while it is read, as in /proc.
        length = max(0, status.st_size - offset)
        return FileRegion(fd=fd, offset=offset, length=length)
