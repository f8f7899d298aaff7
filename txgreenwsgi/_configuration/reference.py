"""The texts about options for `--help` and for the documentation.

It knows how a description becomes a text. It must never know where a value comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from txgreenwsgi.settings import shown

from .options import all_options, option_name

if TYPE_CHECKING:
    from .options import Described

__all__ = ["default_text", "markdown_table", "meaning"]

_NUMBERS: Final = ("count", "bytes", "seconds")
_LISTS: Final = ("names", "pairs", "words")
_FORMS: Final = {"count": "N", "bytes": "SIZE", "seconds": "SECONDS", "flag": ""}


def default_text(each: Described) -> str:
    """Return the default as on the command line; "" if there is none."""
    _name, option, default = each
    if option.is_action or default is None:
        return ""
    return option.default_text or shown(option, default)


def meaning(each: Described) -> str:
    """Return the description of an option in `--help`."""
    option = each.option
    notes: list[str] = []
    if option.kind in ("bytes", "seconds"):
        notes.append(option.kind)
    if option.kind == "choice":
        notes.append(" or ".join(option.choices))
    default = default_text(each)
    if option.kind != "flag" and (default or each.default == ""):
        notes.append(f"default: {default or 'none'}")
    if option.off:
        zero = "0" if option.kind in _NUMBERS else "empty"
        notes.append(f"{zero}: {option.off}")
    return option.meaning + (f" [{'; '.join(notes)}]" if notes else "")


def markdown_table() -> str:
    """Return a table of all options, for the documentation."""
    lines = ["| Option | Default | Meaning |", "|---|---|---|"]
    for each in all_options().values():
        name, option, _default = each
        form = option.form or "|".join(option.choices) or _FORMS[option.kind]
        if option.kind == "count" and option.choices:
            form = "|".join(("N", *option.choices))
        zero = "0" if option.kind in _NUMBERS else "Empty"
        text = option.meaning + (f" {zero}: {option.off}." if option.off else "")
        rows = [(f"--{option_name(name)} {form}", default_text(each), text)]
        rows += [
            (f"--{alias} {form}", "", f"Alias of --{option_name(name)}.")
            for alias in each.long_names[1:]
        ]
        for signature, default, description in rows:
            cells = (f"`{signature.strip()}`", f"`{default}`" if default else "")
            lines.append(f"| {_cell(cells[0])} | {_cell(cells[1])} | {description} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
