"""The language check: words, openings, code that is left out, line numbers."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.check_language import (
    LIMIT,
    Report,
    area,
    folder,
    hits,
    prose_of,
    read,
    words,
)


def found(text: str, path: str = "page.md") -> list[tuple[int, str]]:
    """Return line and word of each hit in a text."""
    text = textwrap.dedent(text)
    return [
        (hit.line, hit.found)
        for prose in prose_of(path, text)
        for hit in sorted(hits(path, prose))
    ]


def count(text: str, path: str = "page.md") -> int:
    """Return the number of words in a text."""
    return sum(words(prose) for prose in prose_of(path, textwrap.dedent(text)))


class PronounTests(SynchronousTestCase):
    """Words that stand for an actor."""

    def test_words(self) -> None:
        """Each of the five words counts, whatever its case and place."""
        text = "A task who waits, to whom\nwhoever, NOBODY and Somebody.\n"
        self.assertEqual(
            found(text),
            [(1, "who"), (1, "whom"), (2, "NOBODY"), (2, "Somebody"), (2, "whoever")],
        )

    def test_contractions(self) -> None:
        """Possessives and contractions of the words count."""
        self.assertEqual(
            found("in somebody's, or who's next"), [(1, "somebody"), (1, "who")]
        )

    def test_other_words(self) -> None:
        """Longer words and other pronouns do not count."""
        self.assertEqual(found("The whole of it, whose, anybody, everybody."), [])


class OpeningTests(SynchronousTestCase):
    """Sentences that open with `What`, `Who` or `Whoever`."""

    HIT = (
        "What came back.",
        "It ends. What is left is closed.",
        "Does it end? What then?",
        "It ends.\nWhat is left is closed.",
        "It ends.) What is left is closed.",
        "It ends. (What is left is closed.)",
        "*What happens when a client leaves?*",
        "# What is measured",
        "Text\n\nWhat is it?",
        "- what is listened on",
        "1. What is listened on",
        "> What is listened on",
        "| name | what it does |",
        "Note: What follows is bytes.",
        "**Wait**: What is it?",
    )
    NO_HIT = (
        "It says what came back.",
        "This is\nwhat came back.",
        "It is e.g. what came back.",
        "Two things: what came back, and when.",
        "Whatever it is.",
        "Whether it ends.",
    )

    def test_openings(self) -> None:
        """Headings, questions, list items and cells are sentences too."""
        for text in self.HIT:
            self.assertEqual([word.lower() for _, word in found(text)], ["what"], text)

    def test_within(self) -> None:
        """A clause within a sentence is no hit."""
        for text in self.NO_HIT:
            self.assertEqual(found(text), [], text)

    def test_once(self) -> None:
        """A sentence that opens with one of the pronouns is one hit."""
        self.assertEqual(
            found("Who waits. Whoever waits."), [(1, "Who"), (1, "Whoever")]
        )


class MarkdownTests(SynchronousTestCase):
    """Documentation."""

    def test_code(self) -> None:
        """Fenced blocks, inline code and addresses are no prose."""
        text = """\
            Use `nobody` or ``who``.

            ```python
            # Who is it?
            ```
            See [the page](who.md) and https://example.net/who, then
            whom.
        """
        self.assertEqual(found(text), [(7, "whom")])
        # Inline code and an address are one word each.
        self.assertEqual(count(text), 11)

    def test_fence_in_list(self) -> None:
        """An indented fence ends where it ends."""
        text = "- Item:\n\n  ```\n  who\n  ```\n\n- nobody\n"
        self.assertEqual(found(text), [(7, "nobody")])


class PythonTests(SynchronousTestCase):
    """Source files."""

    def test_places(self) -> None:
        """Comments and docstrings count; strings and names do not."""
        text = '''\
            """Module of somebody."""

            #: For nobody.
            LIMIT = "who"  # for whom

            class C:
                """A class.

                Who made it.
                """

                def who(self):
                    r"""What it is."""
                    """whoever"""
        '''
        self.assertEqual(
            sorted(found(text, "file.py")),
            [(1, "somebody"), (3, "nobody"), (4, "whom"), (9, "Who"), (13, "What")],
        )
        self.assertEqual(count(text, "file.py"), 15)

    def test_comment_blocks(self) -> None:
        """Comment lines that follow each other are one text."""
        text = "# It says\n# what came back.\nx = 1\n# what came back.\n"
        self.assertEqual(found(text, "file.py"), [(4, "what")])

    def test_entries(self) -> None:
        """The text of an entry in a docstring's section is a sentence."""
        text = '''\
            def f(port, name):
                """Serve.

                Args:
                    port: what is listened on.
                    name, other (str): what it is called, and what it is.

                Returns:
                    What was served.
                """
        '''
        self.assertEqual(
            found(text, "file.py"), [(5, "what"), (6, "what"), (9, "What")]
        )

    def test_pragmas(self) -> None:
        """Comments for tools are no prose."""
        text = "x = 1  # type: ignore[who]\ny = 2  # noqa: nobody\n"
        self.assertEqual(found(text, "file.py"), [])
        self.assertEqual(count(text, "file.py"), 0)


class OtherFilesTests(SynchronousTestCase):
    """Files of other kinds."""

    def test_shell(self) -> None:
        """Comments of a script without a suffix are found by its first line."""
        text = "#!/bin/sh\n# For whom.\necho who $# # nobody\n"
        self.assertEqual(found(text, "run"), [(2, "whom"), (3, "nobody")])

    def test_html(self) -> None:
        """Text counts, each element on its own; tags, scripts and styles do not."""
        text = "<p id=who>It is<b>What?</b></p>\n<script>who</script>\n<i>nobody</i>"
        self.assertEqual(found(text, "page.html"), [(1, "What"), (3, "nobody")])

    def test_unknown(self) -> None:
        """Files of unknown kinds are left out."""
        self.assertEqual(found("who", "data.csv"), [])


class ReportTests(SynchronousTestCase):
    """Rates and limits."""

    def test_limit(self) -> None:
        """Each area may have as many hits in a thousand words as the limit says."""
        report = Report()
        report.add("docs/a.md", "word " * 9_999 + "who who who")
        report.add("tests/a.md", "word " * 999 + "who")
        self.assertEqual(len(report.failures()), 1)
        self.assertIn(f"allowed are {LIMIT}", report.failures()[0])
        self.assertTrue(report.failures()[0].startswith("tests: 1.00 in each thousand"))
        self.assertEqual(report.worst_files(), [("docs/a.md", 3), ("tests/a.md", 1)])

    def test_groups(self) -> None:
        """Documents in the root are a part of the documentation."""
        self.assertEqual(area("README.md"), "docs")
        self.assertEqual(area("docs/decisions/0001.md"), "docs")
        self.assertEqual(area("tests/http/test_parser.py"), "tests")
        self.assertEqual(folder("tests/http/test_parser.py"), "tests/http")
        self.assertEqual(folder("docs/decisions/0001.md"), "docs")
        self.assertEqual(folder("README.md"), "README.md")

    def test_read(self) -> None:
        """Files are found below the root, and chosen by paths."""
        root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        for name in (
            "README.md",
            "docs/a.md",
            "docs/_build/b.md",
            "tests/__pycache__/c.md",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("nobody\n")
        self.assertEqual(sorted(read(root).words), ["README.md", "docs/a.md"])
        self.assertEqual(list(read(root, ["docs/"]).words), ["docs/a.md"])
        self.assertEqual(
            str(read(root, ["docs/a.md"]).hits[0]), "docs/a.md:1: nobody: nobody"
        )
