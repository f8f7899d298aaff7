"""The page of memory that the master and its workers share.

It knows the layout. It must never know processes.
"""

from __future__ import annotations

import os
import tempfile
from typing import Final

__all__ = ["create_page"]

#: Size of one record in bytes.
RECORD_BYTES: Final = 1024

#: Number of records.
RECORDS: Final = 1024


def create_page() -> int:
    """Return the descriptor of a new page, filled with zeros."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("txgreenwsgi-workers")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, RECORD_BYTES * RECORDS)
    return fd
