"""Check the wording of comments, docstrings and documentation.

`python -m tools.check_language` counts two things that make technical prose hard
to read and to search: pronouns that stand for an actor (`who`, `whom`, `whoever`,
`somebody`, `nobody`), and sentences that open with `What`, `Who` or `Whoever`,
questions, headings and list items included. At most `LIMIT` of them are allowed in
each thousand words of an area (the package, the tests, the documentation, ...).
Exits with status 1 if an area has more. `--list` prints each place, the file with
most first; paths select files or folders.

Code is left out: fenced blocks, `inline code`, URLs, and strings that are not
docstrings.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["LIMIT", "Hit", "Prose", "Report", "hits", "prose_of", "words"]

ROOT: Final = Path(__file__).resolve().parents[1]
#: Hits allowed in a thousand words.
LIMIT: Final = 0.3

#: The folders of each area; documents in the root belong to "docs".
AREAS: Final[Mapping[str, str]] = {
    "txgreenwsgi": "txgreenwsgi",
    "twisted": "txgreenwsgi",
    "tests": "tests",
    "examples": "examples",
    "benchmarks": "benchmarks",
    "docs": "docs",
    "tools": "tools",
    ".ci": "tools",
}
_SKIPPED_FOLDERS: Final = frozenset(("__pycache__", "_build", "site"))

_WORD = re.compile(r"[A-Za-z][A-Za-z'\u2019-]*")
_PRONOUN = re.compile(r"\b(?:who|whom|whoever|somebody|nobody)\b", re.I)
_MARKS = r"[\"'\u201c\u2018(\[*_]*"
# Where prose begins anew: at the start, after an empty line, at a list item, a
# heading, a quotation, a table cell, a section or an entry of a docstring.
_UNIT_OPENING = re.compile(
    r"(?:\A|\n[ \t]*\n"
    r"|^[ \t]*(?:[-*+>]|\d+[.)]|\#{1,6})[ \t]+"
    r"|\|[ \t]*"
    r"|^[ \t]*(?:Args|Attributes|Returns|Raises|Yields|Notes?|Examples?):[ \t]*\n"
    r"|^[ \t]+\*{0,2}[\w.]+(?:,[ ][\w.]+)*(?:[ ]\([^)\n]*\))?:[ \t]+"
    rf")\s*{_MARKS}(what|who|whoever)\b",
    re.I | re.M,
)
# Within prose only a capital shows that a sentence begins ("e.g. what").
_SENTENCE_OPENING = re.compile(
    rf"[.!?:][\"'\u201d\u2019)\]*_]*\s+{_MARKS}(What|Who|Whoever)\b"
)

_FENCE = re.compile(r"^([ \t]*)(```+|~~~+).*?^[ \t]*\2[ \t]*$", re.M | re.S)
_INLINE_CODE = re.compile(r"(`+)(?:(?!\1).)+?\1", re.S)
_URL = re.compile(r"(?:https?|ftp)://[^\s)>\]]+")
_LINK_TARGET = re.compile(r"\]\([^)\s]*\)")
_PRAGMA = re.compile(r"#\s*(?:noqa|type:|pragma|fmt:|pylint|mypy:|ruff:).*$")
_HTML_CODE = re.compile(
    r"<(script|style|code|pre)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.S | re.I
)


@dataclass(frozen=True)
class Prose:
    """A piece of text that a person reads.

    Attributes:
        line: number of its first line in the file.
        text: its lines, with code blanked out.
    """

    line: int
    text: str


@dataclass(frozen=True, order=True)
class Hit:
    """A place that counts.

    Attributes:
        path: of the file.
        line: counted from 1.
        found: the word.
        context: the line's text.
    """

    path: str
    line: int
    found: str
    context: str

    def __str__(self) -> str:
        """The line that is printed."""
        return f"{self.path}:{self.line}: {self.found}: {self.context}"


def _blank(match: re.Match[str]) -> str:
    """Return spaces and the newlines of a match, so that lines keep their number."""
    return re.sub(r"[^\n]", " ", match[0])


def _code_word(match: re.Match[str]) -> str:
    """Return a stand-in for inline code: one word, no hit, with its newlines."""
    return "x" + "\n" * match[0].count("\n")


def _without_code(text: str) -> str:
    text = _LINK_TARGET.sub("]", text)
    text = _INLINE_CODE.sub(_code_word, text)
    return _URL.sub("x", text)


def _markdown(text: str) -> Iterator[Prose]:
    yield Prose(1, _without_code(_FENCE.sub(_blank, text)))


def _html(text: str) -> Iterator[Prose]:
    # A tag ends the unit, as an empty line does.
    def boundary(match: re.Match[str]) -> str:
        return "|" + "\n" * match[0].count("\n")

    yield Prose(1, _HTML_CODE.sub(boundary, text))


def _blocks(lines: Iterable[tuple[int, str]]) -> Iterator[Prose]:
    """Join comments on lines that follow each other."""
    block: list[str] = []
    first = previous = 0
    for number, line in lines:
        if block and number != previous + 1:
            yield Prose(first, _without_code("\n".join(block)))
            block = []
        if not block:
            first = number
        block.append(line)
        previous = number
    if block:
        yield Prose(first, _without_code("\n".join(block)))


def _line_comments(mark: str) -> Callable[[str], Iterator[Prose]]:
    """Return a reader of comments that begin a line or follow a space."""
    comment = re.compile(rf"(?:^|(?<=\s)){re.escape(mark)}[!:]?(?P<text>.*)$")

    def read(text: str) -> Iterator[Prose]:
        found = (
            (n, comment.search(line)) for n, line in enumerate(text.split("\n"), 1)
        )
        yield from _blocks((n, match["text"]) for n, match in found if match)

    return read


def _python(text: str) -> Iterator[Prose]:
    comments = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment = _PRAGMA.sub("", token.string).lstrip("#:! ")
            if comment:
                comments.append((token.start[0], comment))
    yield from _blocks(comments)
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        string = node.body[0]
        assert string.end_lineno is not None
        source = "\n".join(lines[string.lineno - 1 : string.end_lineno])
        source = re.sub(r"^\s*[rRuU]*(?:\"\"\"|'''|\"|')", "", source)
        source = re.sub(r"(?:\"\"\"|'''|\"|')\s*(?:#.*)?$", "", source)
        yield Prose(string.lineno, _without_code(_FENCE.sub(_blank, source)))


_READERS: Final[Mapping[str, Callable[[str], Iterator[Prose]]]] = {
    ".html": _html,
    ".js": _line_comments("//"),
    ".lua": _line_comments("--"),
    ".md": _markdown,
    ".py": _python,
    ".rst": _markdown,
    ".sh": _line_comments("#"),
    ".tac": _python,
    ".toml": _line_comments("#"),
    ".txt": _markdown,
    ".yml": _line_comments("#"),
}


def prose_of(path: str, text: str) -> list[Prose]:
    """Return the prose in a file, whose kind its suffix or first line tells."""
    suffix = Path(path).suffix
    if not suffix and text.startswith("#!"):
        suffix = ".py" if "python" in text.partition("\n")[0] else ".sh"
    reader = _READERS.get(suffix)
    return [] if reader is None else list(reader(text))


def words(prose: Prose) -> int:
    """Return the number of words."""
    return len(_WORD.findall(prose.text))


def hits(path: str, prose: Prose) -> list[Hit]:
    """Return the places that count, each once, in their order."""
    text = prose.text
    places = {match.start(): match[0] for match in _PRONOUN.finditer(text)}
    for pattern in (_UNIT_OPENING, _SENTENCE_OPENING):
        places |= {match.start(1): match[1] for match in pattern.finditer(text)}
    lines = text.split("\n")
    found = []
    for place, word in sorted(places.items()):
        number = text.count("\n", 0, place)
        context = re.sub(r"\s+", " ", lines[number]).strip()
        found.append(Hit(path, prose.line + number, word, context))
    return found


@dataclass
class Report:
    """Words and hits by file.

    Attributes:
        words: number of words of each path.
        hits: the hits, in order of files and lines.
    """

    words: dict[str, int] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)

    def add(self, path: str, text: str) -> None:
        """Count a file."""
        prose = prose_of(path, text)
        self.words[path] = sum(map(words, prose))
        self.hits += sorted(hit for each in prose for hit in hits(path, each))

    def rates(self, group: Callable[[str], str]) -> dict[str, tuple[int, int, float]]:
        """Return words, hits and hits in a thousand words for each group of paths."""
        counted: defaultdict[str, int] = defaultdict(int)
        found: defaultdict[str, int] = defaultdict(int)
        for path, count in self.words.items():
            counted[group(path)] += count
        for hit in self.hits:
            found[group(hit.path)] += 1
        return {
            name: (count, found[name], 1000 * found[name] / max(1, count))
            for name, count in sorted(counted.items())
        }

    def failures(self) -> list[str]:
        """Return one line for each area that is above the limit."""
        return [
            f"{name}: {rate:.2f} in each thousand words, allowed are {LIMIT}"
            for name, (_, _, rate) in self.rates(area).items()
            if rate > LIMIT
        ]

    def worst_files(self) -> list[tuple[str, int]]:
        """Return the paths that have hits, the one with most first."""
        files = self.rates(lambda path: path)
        counts = [(path, found) for path, (_, found, _) in files.items() if found]
        return sorted(counts, key=lambda each: (-each[1], each[0]))


def area(path: str) -> str:
    """Return the area that a path belongs to."""
    return AREAS.get(path.split("/")[0], "docs")


def folder(path: str) -> str:
    """Return the part of the project that a path belongs to, for the table."""
    names = path.split("/")
    if names[0] == "docs" or len(names) < 3:
        return names[0] if len(names) > 1 else path
    return "/".join(names[:2])


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.suffix in (".md", ".rst", ".toml") and path.is_file():
            yield path
    for name in AREAS:
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and _SKIPPED_FOLDERS.isdisjoint(path.parts):
                yield path


def read(root: Path = ROOT, paths: Sequence[str] = ()) -> Report:
    """Count all files, or those in `paths`."""
    report = Report()
    prefixes = tuple(path.rstrip("/") for path in paths)
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if prefixes and not (
            name in prefixes or name.startswith(tuple(f"{each}/" for each in prefixes))
        ):
            continue
        if path.suffix in _READERS or not path.suffix:
            report.add(name, path.read_text("utf-8"))
    return report


def main(arguments: Sequence[str]) -> int:
    """Print the counts; return 1 if an area is above the limit."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_language",
        description="Count pronouns for actors and sentences that open with What, Who "
        "or Whoever in comments, docstrings and documentation.",
    )
    parser.add_argument("--list", action="store_true", help="print each place")
    parser.add_argument(
        "paths", nargs="*", help="files or folders, relative to the root (default: all)"
    )
    options = parser.parse_args(arguments)
    report = read(paths=options.paths)
    failures = report.failures()
    if options.list:
        for path, _ in report.worst_files():
            print(*(hit for hit in report.hits if hit.path == path), sep="\n")
    if options.list or failures:
        print(f"{'folder':32}{'words':>8}{'hits':>6}{'rate':>7}")
        for name, (count, found, rate) in report.rates(folder).items():
            print(f"{name:32}{count:8}{found:6}{rate:7.2f}")
        print("files with most hits:")
        for path, found in report.worst_files()[:10]:
            print(f"{found:6}  {path}")
    total, found, rate = report.rates(lambda path: "")[""]
    print(f"{found} hits in {total} words: {rate:.2f} in each thousand")
    print(*failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
