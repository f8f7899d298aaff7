"""The choice of a mode of garbage collection, by name.

It knows names. It must never call the collector.
"""

from __future__ import annotations

from typing import Final

from txgreenwsgi._server.collection import Freezer

__all__ = ["GC", "freezer_for"]

#: The modes that may be given.
GC: Final = ("freeze", "unchanged")


def freezer_for(mode: str) -> Freezer | None:
    """Return the freezer of a mode; None to leave the collector alone.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in GC:
        raise ValueError(
            f"gc={mode!r} is not a mode of garbage collection: give "
            f"{' or '.join(map(repr, GC))}"
        )
    return Freezer() if mode == "freeze" else None
