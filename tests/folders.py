"""Temporary folders with a short path, for UNIX sockets and for server processes.

Imports nothing of the project, so that the programs that tests start can use it.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unittest import TestCase

__all__ = ["make_short_folder", "short_folder"]

#: The address of a UNIX socket holds a path of at most 107 bytes on Linux, 103 on
#: BSD and macOS. This leaves half of it to the names below the temporary folder.
LONGEST_PARENT = 50


def make_short_folder(prefix: str = "green-", *, others: bool = False) -> str:
    """Create a temporary folder whose path leaves room for the name of a socket.

    trial's `mktemp` puts folders below the checkout, whose path may be longer than
    the address of a UNIX socket allows, and so may be the one in `TMPDIR`.

    Args:
        prefix: of the folder's name.
        others: choose a parent folder that every user of the system may enter.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(os.fsencode(parent)) > LONGEST_PARENT:
            continue
        if others and not _is_open_to_others(Path(parent)):
            continue
        if os.access(parent, os.W_OK | os.X_OK):
            return tempfile.mkdtemp(prefix=prefix, dir=parent)
    raise OSError(
        f"no folder for temporary files has a path of at most {LONGEST_PARENT} bytes"
        f"{' and is open to all users' if others else ''}: set TMPDIR to one"
    )


def short_folder(test: TestCase) -> Path:
    """Create a folder as `make_short_folder` does; the test's cleanup removes it."""
    folder = make_short_folder()
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _is_open_to_others(folder: Path) -> bool:
    path = folder.resolve()
    return all(
        each.exists() and each.stat().st_mode & stat.S_IXOTH
        for each in (path, *path.parents)
    )
