"""Sphinx extension: files outside of docs/ as pages, and links between both.

`ARCHITECTURE.md`, `CHANGELOG.md` and others stay at the root of the repository,
where code hosts show them. Each has a stub in docs/ that takes its text when the
site is built. A link to such a file becomes a link to its page; a link to any
other file outside of docs/ becomes plain text, as the site has no copy of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS: Final = Path(__file__).resolve().parents[1]
REPOSITORY: Final = DOCS.parent

#: The file that a stub takes its text from, relative to the repository.
PAGES: Final = {
    "architecture": "ARCHITECTURE.md",
    "benchmarks": "benchmarks/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "deployment-files": "examples/deploy/README.md",
    "examples": "examples/README.md",
    "security": "SECURITY.md",
}
_PAGE_OF: Final = {
    **{path: f"docs/{page}.md" for page, path in PAGES.items()},
    "README.md": "docs/index.md",
}
_LINK: Final = re.compile(r"(!?)\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace a stub's text, and rewrite the links of any page."""
    path = PAGES.get(docname, f"docs/{docname}.md")
    text = source[0]
    if docname in PAGES:
        text = (REPOSITORY / path).read_text("utf-8")
        app.env.note_dependency(str(REPOSITORY / path), docname=docname)
    if docname == "figures/benchmarks":  # written by `python -m benchmarks`
        text = f"# Benchmark results\n\n{text}"
    source[0] = rewrite(text, path, f"docs/{docname}.md")


def rewrite(text: str, path: str, page: str) -> str:
    """Return `text` with its links to files made links of the site.

    Args:
        text: Markdown.
        path: file that the text is from, relative to the repository.
        page: file of docs/ that it becomes, relative to the repository.
    """

    def link(match: re.Match[str]) -> str:
        image, label, target, anchor = match.groups(default="")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        found = os.path.normpath(os.path.join(os.path.dirname(path), target))
        found = _PAGE_OF.get(found, found)
        if (REPOSITORY / found).is_dir():
            found = f"{found}/index.md"
        if not found.startswith("docs/"):
            return label
        relative = os.path.relpath(found, os.path.dirname(page))
        return f"{image}[{label}]({relative}{anchor})"

    # Odd pieces are blocks of code, which are left alone.
    pieces = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)$)", text, flags=re.M | re.S)
    pieces[::2] = [_LINK.sub(link, piece) for piece in pieces[::2]]
    return "".join(pieces)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension. Called by Sphinx."""
    app.connect("source-read", read_source)
    return {"parallel_read_safe": True}
