"""A/B comparison of this tree with another git revision.

Both trees serve the applications of this one, from the same virtual environment,
one process each on the same CPU. The figure is the CPU time (user and system) that
the server's processes use for a fixed number of requests, which other load on the
machine disturbs much less than it disturbs requests per second. This file knows
trees, the order of turns and ratios; it must never know how a request is sent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import client
from .apps import CHUNK_COUNT
from .load import KeepAliveLoad, connection_per_request
from .process import ROOT, CannotMeasure, Process, free_port, running
from .scenarios import SCENARIOS
from .servers import OURS, SERVERS, Launch
from .table import aligned, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

__all__ = [
    "COMPARISONS",
    "Comparison",
    "Outcome",
    "Round",
    "Tree",
    "compare",
    "fast_path",
    "markdown",
    "other_tree",
    "trimmed_mean",
]

# Many short turns, so that other load on the machine hits both trees alike. Two
# turns make a pair; every other pair is reversed, so that going second is no
# advantage of either tree.
PAIRS = 40


@dataclass(frozen=True)
class Tree:
    """A checkout of the project.

    Attributes:
        name: heading of its column.
        path: its root directory.
        options: further options of its server.
    """

    name: str
    path: Path
    options: tuple[str, ...] = ()


if TYPE_CHECKING:
    # One turn: sends requests and returns how many units of work they were.
    Turn = Callable[[], int]


@dataclass(frozen=True)
class Comparison:
    """A scenario that both trees are measured in.

    Attributes:
        name: as in `--scenarios`.
        title: one line on the load.
        unit: of the figure for each tree.
        app: "package.module:name" of the application served.
        turns: for CPU time: given a port and a number of requests, a context
            manager that opens connections and returns a `Turn`.
        scale: from seconds for each unit of work to `unit`.
        memory: for memory: measures KiB in a fresh process.
    """

    name: str
    title: str
    unit: str
    app: str
    turns: Callable[[int, int], AbstractContextManager[Turn]] | None = None
    scale: float = 1e6
    memory: Callable[[Process], float] | None = None


@dataclass(frozen=True)
class Round:
    """The result of one round.

    Attributes:
        old: figure of the other revision, in the comparison's unit.
        new: figure of this tree.
    """

    old: float
    new: float

    @property
    def ratio(self) -> float:
        """The quotient old / new: above 1, this tree needs less."""
        return self.old / self.new


@dataclass
class Outcome:
    """The rounds of one comparison.

    Attributes:
        comparison: the scenario.
        rounds: the result of each round.
    """

    comparison: Comparison
    rounds: list[Round] = field(default_factory=list)

    def ratio(self) -> float:
        """Return the median ratio of the rounds."""
        return statistics.median(each.ratio for each in self.rounds)


def trimmed_mean(figures: Sequence[float]) -> float:
    """Return the mean of the middle half of `figures`.

    It leaves out the turns that something disturbed, and varies less from round
    to round than the median.
    """
    ordered = sorted(figures)
    cut = len(ordered) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut])


def _request(fields: Sequence[str], body: bytes = b"") -> bytes:
    return "\r\n".join([*fields, "", ""]).encode() + body


_HELLO = _request(["GET / HTTP/1.1", "Host: 127.0.0.1"])
_CLOSING = _request(["GET / HTTP/1.1", "Host: 127.0.0.1", "Connection: close"])
_POSTED = b"0123456789abcdef" * 64
_POST = _request(
    [
        "POST / HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(_POSTED)}",
        "Content-Type: application/octet-stream",
    ],
    _POSTED,
)
# The head of browser.lua; the query and the cookie differ in each request.
_BROWSER = _request(
    [
        "GET /search?q=%d&page=1 HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: keep-alive",
        'sec-ch-ua: "Chromium";v="128", "Not;A=Brand";v="24"',
        "Upgrade-Insecure-Requests: 1",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
        "(KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,"
        "image/webp,*/*;q=0.8",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Mode: navigate",
        "Referer: http://127.0.0.1/",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-GB,en;q=0.9,nl;q=0.8",
        "Cookie: theme=dark; session=8f14e45fceea167a5a36dedd4bea2543%08x",
    ]
)


@contextlib.contextmanager
def _keep_alive(
    port: int, requests: int, request: Callable[[int], bytes]
) -> Iterator[Turn]:
    with KeepAliveLoad(port, request, connections=min(200, requests)) as load:

        def turn() -> int:
            load.run(requests)
            return requests

        yield turn


@contextlib.contextmanager
def _connecting(port: int, requests: int) -> Iterator[Turn]:
    def turn() -> int:
        count = max(1, requests // 2)  # a connection costs several requests
        connection_per_request(port, lambda number: _CLOSING, count, at_once=50)
        return count

    yield turn


@contextlib.contextmanager
def _uploading(port: int, requests: int) -> Iterator[Turn]:
    with client.BulkClient(port) as bulk:

        def turn() -> int:
            bulk.upload()  # 256 MiB are as much work as thousands of short requests
            return 1

        yield turn


@contextlib.contextmanager
def _streaming(port: int, requests: int) -> Iterator[Turn]:
    with client.BulkClient(port) as bulk:

        def turn() -> int:
            # Each response has 20,000 blocks: as much work as 1,000 requests.
            count = max(1, requests // 1000)
            for _ in range(count):
                bulk.read_blocks()
            return count * CHUNK_COUNT

        yield turn


def _memory(name: str) -> Comparison:
    scenario = next(each for each in SCENARIOS if each.name == name)

    def measured(process: Process) -> float:
        return scenario.measure(process, 0).figure

    return Comparison(
        name, scenario.title, scenario.unit, scenario.app, memory=measured
    )


COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        "hello",
        "14 bytes; 200 connections kept alive",
        "µs/request",
        "benchmarks.apps:hello",
        partial(_keep_alive, request=lambda number: _HELLO),
    ),
    Comparison(
        "browser",
        "the same with a browser's 12 fields; the cookie and the query differ in each "
        "request",
        "µs/request",
        "benchmarks.apps:hello",
        partial(_keep_alive, request=lambda number: _BROWSER % (number, number)),
    ),
    Comparison(
        "post",
        "1 KiB posted and echoed; 200 connections kept alive",
        "µs/request",
        "benchmarks.apps:echo",
        partial(_keep_alive, request=lambda number: _POST),
    ),
    Comparison(
        "connect",
        "14 bytes; a connection for each request, 50 at once",
        "µs/request",
        "benchmarks.apps:hello",
        _connecting,
    ),
    Comparison(
        "upload",
        "256 MiB posted, read in pieces of 64 KiB",
        "ms/request",
        "benchmarks.apps:upload",
        _uploading,
        scale=1e3,
    ),
    Comparison(
        "chunks",
        "20,000 blocks of 100 bytes, each yielded, in one response of unknown length",
        "µs/block",
        "benchmarks.apps:chunks",
        _streaming,
    ),
    _memory("idle"),
    _memory("asleep-5000"),
)


@contextlib.contextmanager
def other_tree(
    revision: str,
    root: Path = ROOT,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
    options: tuple[str, ...] = (),
) -> Iterator[Tree]:
    """Check `revision` out into a temporary directory that is removed on exit.

    Its `benchmarks` package is replaced by ours, so that both trees serve the same
    applications. If it has a compiled fast path, that is compiled in place.

    Args:
        revision: a branch, tag or commit.
        root: the checkout whose repository is used.
        run: as `subprocess.run`.
        options: further options of its server.

    Raises:
        CannotMeasure: git is missing or does not know the revision.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        try:
            done = run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise CannotMeasure("git is not on PATH: install it") from None
        if done.returncode:
            raise CannotMeasure(
                f"--against {revision!r}: git cannot check it out "
                f"({done.stderr.strip()}); give a branch, tag or commit of this "
                "repository"
            )
        return done.stdout.strip()

    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        path = Path(directory) / "tree"
        git("worktree", "add", "--quiet", "--detach", str(path), commit)
        try:
            shutil.rmtree(path / "benchmarks", ignore_errors=True)
            shutil.copytree(
                root / "benchmarks",
                path / "benchmarks",
                ignore=shutil.ignore_patterns("__pycache__"),
            )
            if (path / "tools" / "build_native.py").exists():
                _compile(path, run)
            name = " ".join([f"{revision[:40]} ({commit[:9]})", *options])
            yield Tree(name, path, options)
        finally:
            git("worktree", "remove", "--force", str(path))


def _compile(path: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Compile the fast path of a checkout.

    Raises:
        CannotMeasure: it cannot be compiled, or is not used.
    """
    command = [sys.executable, "-m", "tools.build_native"]
    done = run(command, cwd=path, capture_output=True, text=True, check=False)
    if done.returncode and not os.environ.get("TXGREENWSGI_PURE"):
        raise CannotMeasure(
            f"the fast path of the other revision cannot be compiled "
            f"({done.stderr.strip()[-200:]}); TXGREENWSGI_PURE=1 compares both "
            "revisions without it"
        )


def fast_path(root: Path = ROOT) -> str:
    """Return whether the server of a checkout is compiled, for a note."""
    program = "from txgreenwsgi import _native; print(_native.description())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    # Older revisions have no such module.
    return done.stdout.strip() or "pure Python"


def _check_imports(tree: Tree) -> None:
    """Raise CannotMeasure unless a server of `tree` runs the code of `tree`.

    An installed copy of the package must not come before it on sys.path.
    """
    command = [sys.executable, "-c", "import txgreenwsgi as it; print(it.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(tree.path)}
    done = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    found = Path(done.stdout.strip() or "/")
    if not found.is_relative_to(tree.path):
        raise CannotMeasure(
            f"txgreenwsgi of {tree.name} is imported from {found}, not from "
            f"{tree.path}: {done.stderr.strip()[-200:]}"
        )


def compare(
    comparisons: Sequence[Comparison],
    old: Tree,
    new: Tree,
    *,
    rounds: int,
    requests: int,
    cpu: int,
    pairs: int = PAIRS,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Measure both trees and return an outcome for each comparison.

    Args:
        comparisons: the scenarios.
        old: the tree that ratios refer to.
        new: the tree under test.
        rounds: how many rounds; the servers are restarted for each, since the
            memory layout of a process alone changes its speed by a percent or two.
        requests: how many requests a turn has.
        cpu: the CPU that both servers are pinned to.
        pairs: how many turns each tree has in a round.
        tell: called with one line of progress for each round.

    Raises:
        CannotMeasure: a server did not start or gave a wrong response.
    """
    for tree in (old, new):
        _check_imports(tree)
    outcomes = []
    for comparison in comparisons:
        outcome = Outcome(comparison)
        for number in range(rounds):
            # Neither tree is always the first to start.
            order = (old, new) if number % 2 == 0 else (new, old)
            if comparison.memory is None:
                figures = _cpu_round(comparison, order, requests, pairs, cpu, number)
            else:
                figures = _memory_round(comparison, order, cpu, number)
            result = Round(
                trimmed_mean(figures[order.index(old)]),
                trimmed_mean(figures[order.index(new)]),
            )
            outcome.rounds.append(result)
            tell(
                f"{comparison.name}, round {number + 1}: {shown(result.old)} -> "
                f"{shown(result.new)} {comparison.unit}, ratio {result.ratio:.3f}"
            )
        outcomes.append(outcome)
    return outcomes


def _cpu_round(
    comparison: Comparison,
    trees: tuple[Tree, Tree],
    requests: int,
    pairs: int,
    cpu: int,
    seed: int,
) -> tuple[list[float], list[float]]:
    """Run both servers side by side; return the figures of the turns of each."""
    assert comparison.turns is not None
    sides = []
    figures: tuple[list[float], list[float]] = ([], [])
    with contextlib.ExitStack() as stack:
        for tree in trees:
            process = stack.enter_context(_serving(comparison, tree, cpu, seed))
            turn = stack.enter_context(comparison.turns(process.port, requests))
            turn()  # warms up caches, the allocator and the connections
            sides.append((process, turn))
        for pair in range(pairs):
            for index in (0, 1) if pair % 2 == 0 else (1, 0):
                process, turn = sides[index]
                before = process.cpu_seconds()
                units = turn()
                used = process.cpu_seconds() - before
                figures[index].append(used / units * comparison.scale)
    return figures


def _memory_round(
    comparison: Comparison,
    trees: tuple[Tree, Tree],
    cpu: int,
    seed: int,
) -> tuple[list[float], list[float]]:
    """Run one server after the other; return one figure of each."""
    assert comparison.memory is not None
    figures: tuple[list[float], list[float]] = ([], [])
    for tree, each in zip(trees, figures, strict=True):
        with _serving(comparison, tree, cpu, seed) as process:
            each.append(comparison.memory(process))
    return figures


def _serving(
    comparison: Comparison, tree: Tree, cpu: int, seed: int
) -> AbstractContextManager[Process]:
    # Both trees have the same hash seed: it changes the cost of every dict.
    variables = {"PYTHONHASHSEED": str(seed)}
    server = next(each for each in SERVERS if each.name == OURS)
    launch = Launch(comparison.app, free_port())
    command = [*server.command(launch), *tree.options]
    return running(command, launch.port, cpu, variables, tree.path)


def markdown(
    outcomes: Sequence[Outcome], old: Tree, new: Tree, about: Sequence[str]
) -> str:
    """Return the table of ratios, with notes on how they were measured."""
    rows = [["scenario", "unit", old.name, new.name, "ratio", "rounds"]]
    for outcome in outcomes:
        ratios = [each.ratio for each in outcome.rounds]
        rows.append(
            [
                outcome.comparison.name,
                outcome.comparison.unit,
                shown(statistics.median(each.old for each in outcome.rounds)),
                shown(statistics.median(each.new for each in outcome.rounds)),
                f"{outcome.ratio():.3f}",
                f"{min(ratios):.3f} to {max(ratios):.3f}",
            ]
        )
    notes = [
        "Ratio: the other revision divided by this tree, the median over the rounds; "
        "above 1, this tree needs less CPU time or memory. Rounds: the lowest and the "
        "highest ratio of a round.",
        "\n".join(
            f"- {each.comparison.name}: {each.comparison.title}" for each in outcomes
        ),
        "\n".join(f"- {line}" for line in about),
    ]
    return "\n\n".join(["\n".join(aligned(rows, left=2)), *notes]) + "\n"
