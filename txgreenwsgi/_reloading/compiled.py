"""Compiled modules, which Python takes for those of a source that has changed since.

Python compares the size of the source, and its modification time in seconds. Two
versions of the same size, saved within a second, are the same to it.

It knows where Python keeps them. It must never know why a file has changed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import cache_from_source
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["remove_compiled"]


def remove_compiled(sources: Iterable[str]) -> None:
    """Remove the compiled modules of source files, as far as that is permitted."""
    for path in sources:
        if path.endswith(".py"):
            with suppress(OSError, NotImplementedError):
                os.unlink(cache_from_source(path))
