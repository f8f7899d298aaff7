"""The configuration of the command: every option, and the sources of its value."""

from __future__ import annotations

from .options import (
    DEFAULT_APP,
    DEFAULT_LISTEN,
    HEAVY,
    OFFLOAD_FORM,
    Command,
    Conditions,
    Described,
    Option,
    all_options,
    option_name,
    read,
)
from .reference import markdown_table, meaning

__all__ = [
    "DEFAULT_APP",
    "DEFAULT_LISTEN",
    "HEAVY",
    "OFFLOAD_FORM",
    "Command",
    "Conditions",
    "Described",
    "Option",
    "all_options",
    "markdown_table",
    "meaning",
    "option_name",
    "read",
]
