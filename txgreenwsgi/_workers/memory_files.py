"""Files without a name, which processes share by their descriptors.

It must never know which process writes and which one reads.
"""

from __future__ import annotations

import os
import tempfile
from typing import Final

__all__ = ["StacksFile", "memory_file"]

_MAX_STACKS_BYTES: Final = 1 << 16


def memory_file(name: str) -> int:
    """Return the descriptor of a new file.

    Args:
        name: shown in /proc, on Linux.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class StacksFile:
    """The file to which another process writes its stacks.

    Attributes:
        fd: the descriptor; -1 if it is closed.
    """

    def __init__(self) -> None:
        self.fd = memory_file("txgreenwsgi-stacks")

    def clear(self) -> None:
        """Remove the last stacks. A no-op if the file is closed."""
        if self.fd >= 0:
            os.ftruncate(self.fd, 0)
            os.lseek(self.fd, 0, os.SEEK_SET)

    def read(self) -> str:
        """Return the stacks that were written; "" if the file is closed."""
        if self.fd < 0:
            return ""
        return os.pread(self.fd, _MAX_STACKS_BYTES, 0).decode("utf-8", "replace")

    def close(self) -> None:
        """Close the file."""
        fd, self.fd = self.fd, -1
        os.close(fd)
