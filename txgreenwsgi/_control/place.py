"""The values of `--control` that are not paths."""

from __future__ import annotations

from typing import Final

__all__ = ["AUTOMATIC", "NONE"]

#: A socket in the default place for a server with workers, otherwise none.
AUTOMATIC: Final = "auto"

#: No socket.
NONE: Final = "none"
