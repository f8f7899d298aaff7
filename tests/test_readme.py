"""The README: what it says of the options, and the files that it names."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.options import markdown_table

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]


def prose(page: Path) -> str:
    """A page without its code."""
    text = page.read_text("utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


class ReadmeTests(SynchronousTestCase):
    """The texts of the project."""

    def test_options(self) -> None:
        """The table of options is what the command and the settings say."""
        readme = (CHECKOUT / "README.md").read_text("utf-8")
        _before, _mark, rest = readme.partition("<!-- options:")
        table = rest.partition("-->\n")[2].partition("<!-- end of options -->")[0]
        self.assertEqual(table.strip(), markdown_table().strip())

    def test_links(self) -> None:
        """Every link to a file of the project leads to one."""
        self.assertGreater(len(PAGES), 5)
        for page in PAGES:
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose(page)):
                if not re.match(r"[a-z]+:", target):
                    self.assertTrue((page.parent / target).exists(), (page, target))

    def test_anchors(self) -> None:
        """Every link into a page leads to a heading of it."""
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

    def test_commands_for_a_fresh_clone(self) -> None:
        """The two commands that a newcomer types each stand on one line."""
        lines = (CHECKOUT / "README.md").read_text("utf-8").splitlines()
        for end in ("twistd -n greenwsgi", "trial -j2 tests"):
            [_command] = [
                line
                for line in lines
                if line.startswith("python3 -m venv .venv && .venv/bin/pip install")
                and line.endswith(f" && .venv/bin/{end}")
            ]
