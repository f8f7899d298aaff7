"""The comparison with another revision: arithmetic, table, git and options."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import main
from benchmarks.against import (
    COMPARISONS,
    Outcome,
    Round,
    Tree,
    compare,
    markdown,
    other_tree,
    trimmed_mean,
)
from benchmarks.process import CannotMeasure

COMMIT = "0123456789abcdef"
WORKTREE_ADD = ("worktree", "add", "--quiet", "--detach")


class FiguresTests(SynchronousTestCase):
    """Means, ratios and the table."""

    def test_trimmed_mean(self) -> None:
        """The lowest and the highest quarter of the turns do not count."""
        self.assertEqual(trimmed_mean([100.0, 2.0, 4.0, 0.0]), 3.0)
        self.assertEqual(trimmed_mean([7.0]), 7.0)

    def test_ratio(self) -> None:
        """The ratio is the median over rounds of old / new."""
        rounds = [Round(2.0, 1.0), Round(3.0, 1.0), Round(90.0, 1.0)]
        self.assertEqual(Outcome(COMPARISONS[0], rounds).ratio(), 3.0)

    def test_markdown(self) -> None:
        """Each scenario has a row with both figures, the ratio and its range."""
        outcome = Outcome(COMPARISONS[0], [Round(20.0, 10.0), Round(10.0, 10.0)])
        text = markdown([outcome], Tree("v1", Path()), Tree("this tree", Path()), ["x"])
        lines = text.splitlines()
        cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in lines[:3]]
        self.assertEqual(
            cells[0], ["scenario", "unit", "v1", "this tree", "ratio", "rounds"]
        )
        self.assertEqual(
            cells[2],
            ["hello", "µs/request", "15.0", "10.0", "1.500", "1.000 to 2.000"],
        )
        self.assertEqual({len(line) for line in lines[:3]}, {len(lines[0])})
        self.assertIn("- x\n", text)


class OtherTreeTests(SynchronousTestCase):
    """The checkout of the other revision."""

    def setUp(self) -> None:
        """Create a root with a `benchmarks` package and a fake git."""
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "benchmarks").mkdir()
        (self.root / "benchmarks" / "apps.py").write_text("current\n")
        self.commands: list[list[str]] = []
        self.status = 0

    def git(self, command: list[str], **options: object) -> object:
        """Record the command; "worktree add" makes a tree with other benchmarks."""
        self.assertEqual(command[:3], ["git", "-C", str(self.root)])
        words = command[3:]
        self.commands.append(words)
        if words[:2] == ["worktree", "add"]:
            old = Path(words[-2]) / "benchmarks"
            old.mkdir(parents=True)
            (old / "apps.py").write_text("old\n")
            (old / "gone.py").write_text("old\n")
        output = f"{COMMIT}\n" if words[0] == "rev-parse" else ""
        return subprocess.CompletedProcess(command, self.status, output, "no such\n")

    def test_checkout(self) -> None:
        """The tree has the current `benchmarks` package and is removed on exit."""
        with other_tree("v1", self.root, self.git) as tree:  # type: ignore[arg-type]
            self.assertEqual(tree.name, "v1 (012345678)")
            found = sorted((tree.path / "benchmarks").iterdir())
            self.assertEqual([each.name for each in found], ["apps.py"])
            self.assertEqual(found[0].read_text(), "current\n")
        self.assertEqual(
            self.commands,
            [
                ["rev-parse", "--verify", "v1^{commit}"],
                [*WORKTREE_ADD, str(tree.path), COMMIT],
                ["worktree", "remove", "--force", str(tree.path)],
            ],
        )
        self.assertFalse(tree.path.exists())

    def test_unknown_revision(self) -> None:
        """An unknown revision is named, with the message of git."""
        self.status = 128
        context = other_tree("v9", self.root, self.git)  # type: ignore[arg-type]
        error = self.assertRaises(CannotMeasure, context.__enter__)
        self.assertEqual(
            str(error),
            "--against 'v9': git cannot check it out (no such); give a branch, tag or "
            "commit of this repository",
        )

    def test_without_git(self) -> None:
        """Without git, the error says what to install."""

        def run(*args: object, **options: object) -> object:
            raise FileNotFoundError("git")

        context = other_tree("v1", self.root, run)  # type: ignore[arg-type]
        error = self.assertRaises(CannotMeasure, context.__enter__)
        self.assertEqual(str(error), "git is not on PATH: install it")

    def test_wrong_tree(self) -> None:
        """A tree without the package is refused instead of measuring another one."""
        tree = Tree("empty", self.root)
        error = self.assertRaises(
            CannotMeasure, compare, [], tree, tree, rounds=1, requests=1, cpu=0
        )
        self.assertIn("txgreenwsgi of empty is imported from", str(error))


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def refused(self, *words: str) -> str:
        """Return the error for a command line that cannot be carried out."""
        error = io.StringIO()
        affinity = os.sched_getaffinity(0)
        with contextlib.redirect_stderr(error):
            self.assertEqual(main(words), 2)
        self.assertEqual(os.sched_getaffinity(0), affinity)
        return error.getvalue()

    def test_conflicts(self) -> None:
        """An option that would be ignored is an error that names it."""
        cases = {
            ("--against", "main", "--servers", "gevent"): "--servers has no meaning "
            "with --against; leave it out",
            ("--against", "main", "--seconds", "3"): "--seconds has no meaning with "
            "--against; leave it out",
            ("--against", "main", "--per-cpu"): "--per-cpu: --against always counts "
            "CPU time; leave it out",
            ("--requests", "10"): "--requests has no meaning without --against; leave "
            "it out",
            ("--against", "main", "--rounds", "0"): "--rounds 0: give a whole number "
            "from 1 to 100",
        }
        for words, message in cases.items():
            self.assertEqual(self.refused(*words), f"benchmarks: {message}\n")

    def test_scenarios(self) -> None:
        """Only scenarios that can be compared are accepted."""
        error = self.refused("--against", "main", "--scenarios", "helo")
        self.assertIn("there is no 'helo'; did you mean 'hello'?", error)
        self.assertIn("asleep-5000", error)
