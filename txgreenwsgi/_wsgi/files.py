"""`wsgi.file_wrapper`: a file as a response body.

Knows files; must never know sockets. The server decides whether the kernel can send
the file.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    class Readable(Protocol):
        """A file-like object that can be wrapped."""

        def read(self, size: int, /) -> bytes:
            """Return at most `size` bytes; b"" at the end."""


__all__ = ["FileRegion", "FileWrapper"]

#: Minimum read size: smaller reads only cost time.
_SMALLEST_BLOCK = 65536


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


class FileWrapper:
    """Iterable over the blocks of a file-like object.

    PEP 3333, "Optional Platform-Specific File Handling".

    Args:
        filelike: An object with `read(size)` and optionally `close()`.
        block_size: The suggested number of bytes per read; raised to 64 KiB if it is
            smaller.
    """

    def __init__(self, filelike: Readable, block_size: int = 8192) -> None:
        self.filelike = filelike
        self.block_size = max(block_size, _SMALLEST_BLOCK)

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the rest of the file."""
        return self.blocks(None)

    def blocks(self, limit: int | None) -> Iterator[bytes]:
        """Iterate over the rest of the file, at most `limit` bytes of it.

        The file may be longer than the response, for a range request for example.
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
