"""A trivial page beside work that blocks: txgreenwsgi against threaded servers.

    python -m benchmarks.mixed
    python -m benchmarks.mixed --peers /path/to/python --work pbkdf2,image --rounds 5

The trivial page is requested 20 times a second while six clients request one kind of
work. Each cell shows the median and the 99th percentile of the page's latency, the work
completed, and the peak memory: medians of the rounds. All servers may use all CPUs, as
may the clients. Then, with txgreenwsgi alone: the time of 500 requests that each sleep
for a second, and the CPU time of a short request with its default settings relative to
`--threads-for none`.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .against import trimmed_mean
from .load import KeepAliveLoad
from .mixed_app import WORK as BLOCKS
from .mixed_load import TIMEOUT_SECONDS, request_work, trivial_page
from .process import CannotMeasure, Process, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OURS = "txgreenwsgi"
_APP = "benchmarks.mixed_app:application"
_PROBES_PER_SECOND = 20.0
_SLEEPERS = 500
_HELLO_TURNS = 20
_HELLO_REQUESTS = 500
#: The kinds of work; "pack" has no function that returns its response.
WORK = (*BLOCKS, "pack")


@dataclass(frozen=True)
class Setup:
    """A server with its options.

    Attributes:
        name: heading of its column.
        words: its command line without the interpreter; PORT is replaced.
    """

    name: str
    words: tuple[str, ...]

    @property
    def ours(self) -> bool:
        """Whether the server is txgreenwsgi."""
        return self.name.startswith(OURS)

    def command(self, port: int, peers: str) -> list[str]:
        """Return the command line.

        Args:
            port: the port to listen on.
            peers: the interpreter of the other servers.
        """
        words = [word.replace("PORT", str(port)) for word in self.words]
        if self.ours:
            twistd = Path(sys.executable).with_name("twistd")
            return [str(twistd), "-n", "--pidfile=", "greenwsgi", *words]
        return [peers, "-m", *words]


def _ours(name: str, *options: str) -> Setup:
    listen = "tcp:PORT:interface=127.0.0.1"
    words = ("--app", _APP, "--listen", listen, "--keep-alive", "120", *options)
    return Setup(f"{OURS}{name}", words)


def _gunicorn(worker: str, *options: str) -> Setup:
    words = ("gunicorn", "--worker-class", worker, *options, "--keep-alive", "120")
    words += ("--log-level", "error", "--timeout", "120", "--bind", "127.0.0.1:PORT")
    return Setup(f"gunicorn {worker}", (*words, _APP))


SETUPS = {
    "default": _ours(""),
    "patterns": _ours(", patterns", "--threads-for", "/work/*"),
    "none": _ours(", none", "--threads-for", "none"),
    "gthread": _gunicorn("gthread", "--threads", "8"),
    "gevent": _gunicorn("gevent"),
    "granian": Setup(
        "granian",
        (
            *("granian", "--interface", "wsgi", "--blocking-threads", "8"),
            *("--no-ws", "--log-level", "error", "--host", "127.0.0.1"),
            *("--port", "PORT", _APP),
        ),
    ),
    "waitress": Setup(
        "waitress",
        (
            *("waitress", "--threads", "8", "--channel-timeout", "120"),
            *("--listen", "127.0.0.1:PORT", _APP),
        ),
    ),
}


@dataclass(frozen=True)
class Result:
    """One measurement, or the medians of several.

    Attributes:
        p50: median latency of the trivial page, in seconds.
        p99: the 99th percentile.
        work: requests for work completed per second.
        memory: peak resident memory, in bytes.
    """

    p50: float
    p99: float
    work: float
    memory: float

    def __str__(self) -> str:
        """Return the four figures, with units."""
        return (
            f"{self.p50 * 1000:.1f} / {self.p99 * 1000:.0f} ms, "
            f"{self.work:.1f}/s, {self.memory / 1e6:.0f} MB"
        )


def median(results: Sequence[Result]) -> Result:
    """Return the median of each figure."""
    return Result(
        p50=statistics.median(one.p50 for one in results),
        p99=statistics.median(one.p99 for one in results),
        work=statistics.median(one.work for one in results),
        memory=statistics.median(one.memory for one in results),
    )


def percentile(figures: Sequence[float], share: float) -> float:
    """Return the smallest figure that at least `share` of all do not exceed."""
    return sorted(figures)[math.ceil(share * len(figures)) - 1]


class Comparison:
    """The rounds of all servers and their results.

    Args:
        folder: the files of the work; see `mixed_app.prepare`.
        peers: an interpreter that has the other servers.
        clients: number of clients that request work.
        seconds: duration of each measurement.
    """

    def __init__(
        self, folder: Path, *, peers: str, clients: int, seconds: float
    ) -> None:
        self._peers = peers
        self._clients = clients
        self._seconds = seconds
        self._cpus = os.sched_getaffinity(0)
        self._variables = {"MIXED_FOLDER": str(folder)}
        self.results: dict[tuple[str, str], list[Result]] = {}

    @contextlib.contextmanager
    def serving(self, setup: Setup, cpus: set[int] | None = None) -> Iterator[Process]:
        """Run a server."""
        port = free_port()
        command = setup.command(port, self._peers)
        with running(command, port, cpus or self._cpus, self._variables) as server:
            yield server

    def measure_all(self, work: str, setups: Sequence[Setup], rounds: int) -> None:
        """Measure one kind of work with all servers, which take turns."""
        with contextlib.ExitStack() as stack:
            # All run at once: idle servers cost nothing, and the measurements of one
            # round are only seconds apart, under the same other load.
            servers = []
            for setup in setups:
                server = self._started(stack, setup, work)
                if server is not None:
                    servers.append((setup, server))
            for number in range(rounds):
                for setup, server in servers:
                    result = self._measure(work, server)
                    self.results.setdefault((work, setup.name), []).append(result)
                    _tell(f"{work}, round {number + 1}, {setup.name}: {result}")

    def _started(
        self, stack: contextlib.ExitStack, setup: Setup, work: str
    ) -> Process | None:
        """Start a server and check the work; return None if it fails."""
        try:
            server = stack.enter_context(self.serving(setup))
            request_work(server.port, f"/work/{work}", 1, 0.001)
        except CannotMeasure as error:
            _tell(f"{setup.name}, {work}: {error}")
            return None
        return server

    def _measure(self, work: str, server: Process) -> Result:
        server.forget_peak()
        words = [str(server.port), f"/work/{work}", str(self._clients)]
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.mixed_load", *words, str(self._seconds)],
            stdout=subprocess.PIPE,
            text=True,
        ) as clients:
            time.sleep(0.2)  # until the clients have begun
            latencies = trivial_page(
                server.port, _PROBES_PER_SECOND, self._seconds - 0.2
            )
            output, _ = clients.communicate(timeout=TIMEOUT_SECONDS + self._seconds)
        if clients.returncode:
            raise CannotMeasure(f"{work}: the clients failed")
        return Result(
            p50=percentile(latencies, 0.5),
            p99=percentile(latencies, 0.99),
            work=float(output),
            memory=server.peak_bytes(),
        )

    def table(self, works: Sequence[str], setups: Sequence[Setup]) -> str:
        """Return a table of the medians."""
        lines = [f"| work | {' | '.join(setup.name for setup in setups)} |"]
        lines.append("|---|" + "---|" * len(setups))
        for work in works:
            cells = []
            for setup in setups:
                results = self.results.get((work, setup.name))
                cells.append(str(median(results)) if results else "-")
            lines.append(f"| {work} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def ratios(self, works: Sequence[str], setups: Sequence[Setup]) -> str:
        """Return a table: each txgreenwsgi relative to the best of the others.

        For each figure the best of the others is that of the server with the best
        median. A ratio is the median of the ratios of the rounds, with the lowest and
        the highest.
        """
        lines = [
            "| work | server | p50 | p99 | work | memory |",
            "|---|---|---|---|---|---|",
        ]
        for work in works:
            peers = [
                results
                for setup in setups
                if not setup.ours and (results := self.results.get((work, setup.name)))
            ]
            for setup in setups:
                ours = self.results.get((work, setup.name))
                if not setup.ours or not ours or not peers:
                    continue
                cells = [
                    _ratio([getattr(one, figure) for one in ours], best)
                    for figure in ("p50", "p99", "work", "memory")
                    for best in [_best(peers, figure)]
                ]
                lines.append(f"| {work} | {setup.name} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def sleepers(self, setup: Setup) -> float:
        """Return the seconds until 500 requests that sleep for a second have ended."""
        with self.serving(setup) as server:
            request_work(server.port, "/", 1, 0.001)
            request = b"GET /sleep HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with KeepAliveLoad(server.port, lambda _: request, _SLEEPERS) as load:
                began = time.monotonic()
                load.run(_SLEEPERS)
                return time.monotonic() - began

    def hello(self, rounds: int) -> list[float]:
        """Return, for each round, the CPU time of a short request without threads.

        It is relative to that with the default settings: above 1, the default is
        faster.
        """
        cpus = sorted(self._cpus)
        setups = SETUPS["none"], SETUPS["default"]
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ratios = []
        os.sched_setaffinity(0, {cpus[-1]})
        for _ in range(rounds):
            with contextlib.ExitStack() as stack:
                servers = [
                    stack.enter_context(self.serving(setup, {cpus[0]}))
                    for setup in setups
                ]
                loads = [
                    stack.enter_context(KeepAliveLoad(one.port, lambda _: request, 50))
                    for one in servers
                ]
                seconds: tuple[list[float], list[float]] = [], []
                for turn in range(_HELLO_TURNS):
                    for index in (0, 1) if turn % 2 else (1, 0):
                        before = servers[index].cpu_seconds()
                        loads[index].run(_HELLO_REQUESTS)
                        seconds[index].append(servers[index].cpu_seconds() - before)
                ratios.append(trimmed_mean(seconds[0]) / trimmed_mean(seconds[1]))
        os.sched_setaffinity(0, cpus)
        return ratios


def _best(peers: Sequence[Sequence[Result]], figure: str) -> list[float]:
    choose = max if figure == "work" else min
    best = choose(peers, key=lambda results: getattr(median(results), figure))
    return [getattr(one, figure) for one in best]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _chosen(
    parser: argparse.ArgumentParser, option: str, names: str, known: Sequence[str]
) -> list[str]:
    chosen = names.split(",")
    if unknown := set(chosen) - set(known):
        parser.error(
            f"{option}: unknown {', '.join(unknown)}; give some of {list(known)}"
        )
    return chosen


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        default=sys.executable,
        help="an interpreter with gunicorn, gevent, granian, waitress, Pillow, dulwich "
        "and Jinja2 (default: this one; it needs the last three in any case)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=5, help="duration of a measurement"
    )
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--work", default=",".join(WORK), metavar="NAME,...")
    parser.add_argument("--servers", default=",".join(SETUPS), metavar="NAME,...")
    parser.add_argument(
        "--no-waits", action="store_true", help="skip the sleepers and the CPU time"
    )
    options = parser.parse_args()
    works = _chosen(parser, "--work", options.work, WORK)
    names = _chosen(parser, "--servers", options.servers, list(SETUPS))
    setups = [SETUPS[name] for name in names]
    try:
        with tempfile.TemporaryDirectory(prefix="mixed-") as folder:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.mixed_app", folder], check=True
            )
            comparison = Comparison(
                Path(folder),
                peers=options.peers,
                clients=options.clients,
                seconds=options.seconds,
            )
            for work in works:
                comparison.measure_all(work, setups, options.rounds)
            print(comparison.table(works, setups))
            print()
            print(comparison.ratios(works, setups))
            if not options.no_waits:
                asleep = comparison.sleepers(SETUPS["default"])
                print(f"\n{_SLEEPERS} requests that sleep 1 s: {asleep:.2f} s")
                ratios = comparison.hello(options.rounds)
                print(
                    "CPU time of a short request, none / default: "
                    f"{statistics.median(ratios):.3f} "
                    f"({min(ratios):.3f} to {max(ratios):.3f})"
                )
    except (CannotMeasure, subprocess.CalledProcessError) as error:
        _tell(f"benchmarks.mixed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
