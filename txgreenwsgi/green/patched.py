"""The record of which standard-library modules are patched.

It knows names. Importing it patches nothing and installs no reactor, unlike
`txgreenwsgi.monkey`, which fills it in.
"""

from __future__ import annotations

from typing import Final

__all__ = ["choose", "is_chosen", "is_patched", "patched_modules"]

#: The patched modules, by name ("socket", "threading" ...).
patched_modules: Final[set[str]] = set()

_is_chosen = False


def is_patched(module: str) -> bool:
    """Return whether the standard-library module is patched."""
    return module in patched_modules


def choose() -> None:
    """Record that the program has chosen what to patch, even if that is nothing."""
    global _is_chosen
    _is_chosen = True


def is_chosen() -> bool:
    """Return whether the program has chosen what to patch."""
    return _is_chosen or bool(patched_modules)
