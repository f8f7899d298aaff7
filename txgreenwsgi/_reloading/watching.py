"""Signatures of files, which tell whether one has changed.

It knows the file system. It must never know why a file is watched.
"""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Signature", "Snapshot", "changes", "directories", "scan"]

Signature: TypeAlias = tuple[int, int, int]
"""Modification time in nanoseconds, size, and inode."""

Snapshot: TypeAlias = dict[str, Signature]
"""The signature of each file that exists, by path."""

# Files that editors write beside the one that is edited, and compiled modules.
_TEMPORARY: Final = re.compile(
    r"(?:.*~|\.#.*|#.*#|.*\.sw[a-p]x?|4913|.*\.tmp|.*___jb_(?:tmp|old)___|.*\.py[cod])\Z"
)
_PRUNED: Final = ("__pycache__", ".git", ".hg", ".svn", "node_modules")


def scan(paths: Iterable[str], patterns: Iterable[str]) -> Snapshot:
    """Return the signatures of files. It reads the file system; call in a thread.

    Args:
        paths: absolute paths, of files that may be missing.
        patterns: absolute patterns as those of `glob`, with `**` for any directories.
    """
    found: Snapshot = {}
    matched = {path for pattern in patterns for path in _matches(pattern)}
    for path in (*paths, *matched):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _matches(pattern: str) -> Iterable[str]:
    for path in glob.glob(pattern, recursive=True):
        parts = path.split(os.sep)
        if _TEMPORARY.match(parts[-1]) or any(part in _PRUNED for part in parts):
            continue
        if os.path.isfile(path):
            yield path


def changes(
    before: Mapping[str, Signature], after: Mapping[str, Signature]
) -> set[str]:
    """Return the files that are new, gone or different."""
    return {
        path
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    }


def directories(paths: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Return the existing directories in which a change may happen."""
    found = {os.path.dirname(path) for path in paths}
    for pattern in patterns:
        fixed, magic, _ = pattern.partition("**")
        if magic:
            found.update(_tree(os.path.dirname(_unescaped(fixed))))
        else:
            found.update(glob.glob(os.path.dirname(pattern)))
    return {path for path in found if os.path.isdir(path)}


def _tree(root: str) -> Iterable[str]:
    for directory, names, _files in os.walk(root):
        names[:] = [name for name in names if name not in _PRUNED]
        yield directory


def _unescaped(path: str) -> str:
    return re.sub(r"\[([*?\[])\]", r"\1", path)
