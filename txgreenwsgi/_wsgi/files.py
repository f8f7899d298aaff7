"""`wsgi.file_wrapper`: a file as a response body.

It knows files; it must never know sockets. The server decides whether the
kernel can send what is wrapped.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    class Readable(Protocol):
        """What can be wrapped."""

        def read(self, size: int, /) -> bytes:
            """At most `size` bytes; b"" at the end."""


__all__ = ["FileWrapper"]

#: Smaller blocks than this only cost time.
_SMALLEST_BLOCK = 65536


class FileWrapper:
    """Blocks of a file-like object.

    PEP 3333, "Optional Platform-Specific File Handling".

    Args:
        filelike: something with `read(size)`, and `close()` perhaps.
        block_size: how many bytes to read at once, as a suggestion.
    """

    def __init__(self, filelike: Readable, block_size: int = 8192) -> None:
        self.filelike = filelike
        self.block_size = max(block_size, _SMALLEST_BLOCK)

    def __iter__(self) -> Iterator[bytes]:
        """What is left of the file, block by block."""
        return self.blocks(None)

    def blocks(self, limit: int | None) -> Iterator[bytes]:
        """What is left of the file, block by block; at most `limit` bytes of it.

        A file may be longer than what is asked of it: a range, for one.
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
        """Close the file, if it can be closed."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()

    def regular_file(self) -> tuple[int, int, int] | None:
        """The (descriptor, offset, length) of what is left of a regular file.

        None for anything else: then it is read. Never parks.
        """
        filelike: Any = self.filelike
        try:
            fd = filelike.fileno()
            status = os.fstat(fd)
            if not (stat.S_ISREG(status.st_mode) and filelike.readable()):
                return None
            offset = filelike.tell()
        except (AttributeError, OSError, ValueError):
            # No descriptor, or no position: PEP 3333 has it read as an iterable.
            return None
        if getattr(filelike, "encoding", None) is not None:
            return None  # a text file: reading it is the error to be seen
        if type(filelike).__module__ not in ("io", "_io", "tempfile"):
            # gzip and zipfile objects have the descriptor of the compressed file.
            return None
        if not status.st_size:
            return None  # empty; or made as it is read, as those of /proc are
        return fd, offset, max(0, status.st_size - offset)
