"""The record of which standard-library modules are patched.

It knows names. Importing it patches nothing and installs no reactor, unlike
`txgreenwsgi.monkey`, which fills it in.
"""

from __future__ import annotations

__all__ = ["PatchRecord", "choose", "is_chosen", "is_patched", "record"]


class PatchRecord:
    """The modules that the program has patched.

    Attributes:
        modules: the patched modules, by name ("socket", "threading" ...).
        is_chosen: True once the program has chosen the modules to patch, possibly
            none.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.is_chosen = False


#: The record of this process.
record = PatchRecord()


def is_patched(module: str) -> bool:
    """Return whether the standard-library module is patched."""
    return module in record.modules


def choose() -> None:
    """Record that the program has chosen the modules to patch, possibly none."""
    record.is_chosen = True


def is_chosen() -> bool:
    """Return whether the program has chosen the modules to patch."""
    return record.is_chosen or bool(record.modules)
