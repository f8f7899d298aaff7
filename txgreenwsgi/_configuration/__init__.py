"""The configuration of the command: every option, and the sources of its value."""

from __future__ import annotations

from .errors import ConfigurationError
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
    validated,
)
from .printing import printed
from .reference import markdown_table, meaning
from .sources import DEFAULT_ORIGIN, PLATFORM, Configuration, Given, resolve
from .tls import check_tls, listener_options, tls_options, unused_tls, uses_tls
from .toml_values import comment, from_toml, shown_toml

__all__ = [
    "DEFAULT_APP",
    "DEFAULT_LISTEN",
    "DEFAULT_ORIGIN",
    "HEAVY",
    "OFFLOAD_FORM",
    "PLATFORM",
    "Command",
    "Conditions",
    "Configuration",
    "ConfigurationError",
    "Described",
    "Given",
    "Option",
    "all_options",
    "check_tls",
    "comment",
    "from_toml",
    "listener_options",
    "markdown_table",
    "meaning",
    "option_name",
    "printed",
    "read",
    "resolve",
    "shown_toml",
    "tls_options",
    "unused_tls",
    "uses_tls",
    "validated",
]
