"""Sphinx extension: the directive `{settings}` describes options of the command.

Its content is a list of option names without hyphens in front. Everything else
(value, default, keyword, unit, meaning) comes from `txgreenwsgi.settings` and the
command's own options, so the page cannot disagree with the program.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from sphinx.util.docutils import SphinxDirective

from txgreenwsgi import _configuration, settings

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

_TYPES: Final = {
    "count": "int",
    "bytes": "int, bytes",
    "seconds": "float, seconds",
    "flag": "bool",
    "choice": "str",
    "text": "str",
    "names": "list of str, or a str with commas",
    "words": "list of str",
    "pairs": "list of (name, value) tuples, or a mapping",
}


class Option(NamedTuple):
    """One row of the command's table of options."""

    signature: str  # "--max-body SIZE"
    default: str  # Markdown, "" for none
    meaning: str


def options() -> dict[str, Option]:
    """Return each option of the command by its name without hyphens in front."""
    found = {}
    for line in _configuration.markdown_table().splitlines()[2:]:
        cells = re.split(r"(?<!\\)\|", line.strip("|"))
        signature, default, meaning = (cell.strip() for cell in cells)
        signature = signature.strip("`").replace("\\|", "|")
        found[signature.split()[0].removeprefix("--")] = Option(
            signature, default, meaning
        )
    return found


class SettingsDirective(SphinxDirective):
    """Describe the options named in the content, in that order."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return one option description for each line of the content."""
        for module in (_configuration.options, settings):
            self.env.note_dependency(str(module.__file__))
        known = options()
        kinds = {
            name.replace("_", "-"): one.kind for name, one, _ in settings.described()
        }
        lines = []
        for name in filter(None, (line.strip() for line in self.content)):
            if name not in known:
                raise self.error(f"no option is named {name!r}")
            option = known[name]
            facts = [f"Default: {option.default}."] if option.default else []
            if name in kinds:
                keyword = name.replace("-", "_")
                facts.append(f"Keyword: `{keyword}` ({_TYPES[kinds[name]]}).")
            lines += [
                f"```{{option}} {option.signature}",
                _marked_up(option.meaning),
                "",
                " ".join(facts),
                "```",
                "",
            ]
        return self.parse_text_to_nodes("\n".join(lines))


def _marked_up(meaning: str) -> str:
    """Return plain text with options as code and pages of docs/ as links."""
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z-]+)", r"`\1`", meaning)
    return re.sub(r"docs/([\w-]+\.md)", r"[](\1)", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension. Called by Sphinx."""
    app.add_directive("settings", SettingsDirective)
    return {"parallel_read_safe": True}
