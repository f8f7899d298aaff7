"""`--print-config`: every option as TOML, with the origin of its value.

The text is a valid configuration file with the same values. It knows TOML. It must
never know where values come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ConfigurationError
from .options import all_options
from .toml_values import comment, relocated, shown_toml, to_toml

if TYPE_CHECKING:
    from .sources import Configuration

__all__ = ["printed"]


def printed(configuration: Configuration, directory: str) -> str:
    """Return a configuration as the text of a file.

    Args:
        configuration: the value and origin of each option.
        directory: the directory that relative paths are relative to; in the text they
            are absolute, because those of a file are relative to its own directory.

    Raises:
        ConfigurationError: a value contains bytes that are not UTF-8.
    """
    lines = []
    for name, each in all_options().items():
        if each.option.is_action or not each.option.in_file:
            continue
        value, origin = configuration.given[name]
        if value is None:
            lines.append(f"# {name}: not set\n")
            continue
        if each.option.default_text and value == each.default:
            text = shown_toml(each.option.default_text)
        elif each.option.empty_text and not value:
            text = shown_toml(each.option.empty_text)
        else:
            text = to_toml(each, relocated(each, value, directory))
        lines.append(f"{name} = {text}  # {comment(origin)}\n")
    whole = "".join(lines)
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            "--print-config cannot write a value that is not UTF-8 text, as TOML "
            "requires: rename the file or the directory"
        ) from None
    return whole
