"""The parts of a translated configuration.

It knows keys, options and texts. It must never know the server that they come from.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

__all__ = ["Entry", "Key", "Missing", "Process", "Variable"]


class Key(NamedTuple):
    """A key of the file.

    Attributes:
        name: the name of the option, with underscores.
        value: its value in TOML.
        comment: a difference to the original; "" for none.
    """

    name: str
    value: Any
    comment: str = ""


class Process(NamedTuple):
    """An option of the process, which is given on the command line."""

    option: str


class Variable(NamedTuple):
    """A variable of the environment, which is set before the command starts."""

    name: str
    value: str


class Missing(NamedTuple):
    """A value without a counterpart, with the reason or the remedy."""

    reason: str


Entry: TypeAlias = Key | Process | Variable | Missing
