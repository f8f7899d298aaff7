"""The README and the pages of docs/: options, links and commands."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._configuration import markdown_table

CHECKOUT = Path(__file__).resolve().parent.parent
README = CHECKOUT / "README.md"
PAGES = [
    *CHECKOUT.glob("*.md"),
    *CHECKOUT.glob("docs/*.md"),
    *CHECKOUT.glob("docs/*/*.md"),
    *CHECKOUT.glob("benchmarks/*.md"),
    *CHECKOUT.glob("examples/**/*.md"),
]


def prose(page: Path) -> str:
    """Return the text of a page without its code."""
    text = page.read_text("utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def rows(table: str) -> dict[str, str]:
    """Return the default of each option of a Markdown table, by its first cell."""
    found = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if line.startswith("|") and cells[0].startswith("`--"):
            found[cells[0]] = cells[1]
    return found


class ReadmeTests(SynchronousTestCase):
    """The README."""

    def test_options(self) -> None:
        """The README shows ten options, with their values and defaults."""
        all_options = rows(markdown_table())
        shown = rows(README.read_text("utf-8"))
        self.assertEqual(len(shown), 10)
        for option, default in shown.items():
            self.assertEqual(default, all_options.get(option), option)

    def test_commands_for_a_fresh_clone(self) -> None:
        """The commands for serving and testing each are one line."""
        lines = README.read_text("utf-8").splitlines()
        for end in ("twistd -n greenwsgi", "trial -j2 tests"):
            [_command] = [
                line
                for line in lines
                if line.startswith("python3 -m venv .venv && .venv/bin/pip install")
                and line.endswith(f" && .venv/bin/{end}")
            ]


class ConfigurationReferenceTests(SynchronousTestCase):
    """docs/configuration.md, which is generated when the site is built."""

    def test_every_option_is_documented(self) -> None:
        """Each option of the command appears in exactly one group."""
        page = (CHECKOUT / "docs" / "configuration.md").read_text("utf-8")
        groups = re.findall(r"^```\{settings\}\n(.*?)^```$", page, re.M | re.S)
        documented = [name for group in groups for name in group.split()]
        options = [
            option.strip("`").split()[0].removeprefix("--")
            for option in rows(markdown_table())
        ]
        self.assertGreater(len(options), 30)
        self.assertEqual(sorted(documented), sorted(options))


class ApiReferenceTests(SynchronousTestCase):
    """docs/api.md, which is generated from docstrings when the site is built."""

    def test_every_public_name_is_documented(self) -> None:
        """The page describes each name in `__all__` of the modules on the page.

        Exceptions: constants, the functions that patch a single module, and the
        internals of the settings, which have a page of their own.
        """
        page = (CHECKOUT / "docs" / "api.md").read_text("utf-8")
        sections = page.split("\n.. module:: ")[1:]
        self.assertGreater(len(sections), 5)
        for section in sections:
            module = import_module(section.split("\n", 1)[0])
            documented = set(re.findall(r"^\.\. auto\w+:: (\w+)", section, re.M))
            if module.__name__ == "txgreenwsgi.settings":
                continue
            missing = {
                name
                for name in set(module.__all__) - documented
                if not name.isupper() and not name.startswith("patch_")
            }
            self.assertEqual(missing, set(), module.__name__)


class LinkTests(SynchronousTestCase):
    """The links of all pages, without a network."""

    def test_links(self) -> None:
        """Each link to a file of the project leads to an existing file."""
        self.assertGreater(len(PAGES), 30)
        for page in PAGES:
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose(page)):
                if not re.match(r"[a-z]+:", target):
                    self.assertTrue((page.parent / target).exists(), (page, target))

    def test_anchors(self) -> None:
        """Each link into a page leads to a heading of that page."""
        for page in PAGES:
            links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", prose(page))
            for target, anchor in links:
                there = (page.parent / target) if target else page
                headings = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.M)
                slugs = [
                    re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
                    for heading in headings
                ]
                self.assertIn(anchor, slugs, (page, target))

    def test_pages_are_reachable(self) -> None:
        """The start page of the documentation links to each page."""
        docs = CHECKOUT / "docs"
        start = docs / "index.md"
        targets = re.findall(r"\]\(([^)#:]+)\)", prose(start))
        decisions = docs / "decisions"
        targets += [
            f"decisions/{target}"
            for target in re.findall(r"\]\(([^)#:]+)\)", prose(decisions / "index.md"))
        ]
        linked = {(docs / target).resolve() for target in targets}
        stubs = {  # their text is at the root of the repository
            page
            for page in docs.glob("*.md")
            if "when the site is built" in page.read_text("utf-8")
        }
        missing = {*docs.glob("*.md"), *decisions.glob("*.md")} - linked - stubs
        self.assertEqual(missing - {start}, set())
