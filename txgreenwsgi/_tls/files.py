"""Reading the files of certificates and keys, and the names in their directories.

It knows the file system. It must never know the format of the files.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from .errors import TLSError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENDINGS", "MAX_BYTES", "pem_paths", "read_file"]

#: Maximum size of a file.
MAX_BYTES: Final = 1024 * 1024

#: The endings of the names of files in a directory that are read.
ENDINGS: Final = (".pem", ".crt", ".cer", ".cert", ".key")

_NOTHING: Final[dict[str, bytes]] = {}


def read_file(path: str, subject: str, copies: Mapping[str, bytes] = _NOTHING) -> bytes:
    """Return the content of a file.

    Args:
        path: the path of the file.
        subject: the option and the file, for messages.
        copies: contents by absolute path, for files that this user may not read.

    Raises:
        TLSError: it cannot be read, or is too large or not a file.
    """
    try:
        # Non-blocking: a FIFO must not block the server.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
        try:
            _check_kind(os.fstat(fd), subject)
            with os.fdopen(fd, "rb", closefd=False) as file:
                return file.read(MAX_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        remedy = "give the path of a readable file"
        if isinstance(error, PermissionError):
            copy = copies.get(os.path.abspath(path))
            if copy is not None:
                return copy
            remedy = "let the user of this process read it"
        raise TLSError(
            subject, f"cannot be read ({error.strerror})", remedy, unreadable=True
        ) from error


def _check_kind(status: os.stat_result, subject: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise TLSError(
            subject,
            "is a directory",
            "give a file, or use --tls-dir (dir= of the endpoint)",
        )
    if not stat.S_ISREG(status.st_mode):
        raise TLSError(subject, "is not a regular file", "give a file")
    if status.st_size > MAX_BYTES:
        raise TLSError(
            subject,
            f"has {status.st_size} bytes, more than any certificate or key",
            "give a file in PEM format",
        )


def pem_paths(
    directory: str,
    label: str,
    warnings: list[str],
    copies: Mapping[str, bytes] = _NOTHING,
) -> list[str]:
    """Return the files of a directory and its subdirectories that may be PEM files.

    Names that begin with a dot are left out: Kubernetes keeps the files of a volume
    in such directories, and links to them.

    Args:
        directory: the directory.
        label: the option with its value, for messages.
        warnings: findings are added.
        copies: as for `read_file`.

    Raises:
        TLSError: the directory cannot be read.
    """
    paths: list[str] = []
    visited: set[tuple[int, int]] = set()

    def add_from(place: str) -> None:
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in visited:
            return  # a cycle of symbolic links
        visited.add((status.st_dev, status.st_ino))
        subdirectories = []
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    subdirectories.append(entry.path)
                elif entry.name.lower().endswith(ENDINGS):
                    paths.append(entry.path)
        for each in subdirectories:
            try:
                add_from(each)
            except OSError as error:
                warnings.append(f"{each} cannot be read ({error.strerror})")

    try:
        add_from(directory)
    except OSError as error:
        beginning = os.path.join(os.path.abspath(directory), "")
        copied = [path for path in copies if path.startswith(beginning)]
        if copied and isinstance(error, PermissionError):
            return sorted(copied)
        raise TLSError(
            label,
            f"cannot be read ({error.strerror})",
            "give a directory of PEM files that this user may read",
            unreadable=True,
        ) from error
    return sorted(paths)
