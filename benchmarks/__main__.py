"""The command `python -m benchmarks`.

This file knows options, the order of rounds and where results go. It must never
know how a scenario is measured or how a server is started.
"""

from __future__ import annotations

import argparse
import difflib
import os
import platform
import resource
import shlex
import shutil
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from .against import COMPARISONS, Tree, compare, fast_path, other_tree
from .against import markdown as against_markdown
from .apps import BLOCK_BYTES, BULK_BYTES, FILE_VARIABLE
from .certificate import make_certificate
from .chart import svg
from .process import ROOT, CannotMeasure, free_port, running
from .results import Results
from .scenarios import SCENARIOS, Measured, Scenario
from .servers import OURS, SERVERS, Launch, Server, is_installed
from .table import markdown, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    class _Named(Protocol):
        @property
        def name(self) -> str:
            """The name used in options."""

    _N = TypeVar("_N", bound=_Named)

_MOST_ROUNDS = 100
_MOST_SECONDS = 60
_MOST_WORKERS = 64
_MOST_REQUESTS = 1_000_000


class _CannotRun(Exception):
    """The options cannot be carried out; the message says what to do instead."""


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure txgreenwsgi side by side with other servers, or with "
        "another revision of itself.",
    )
    parser.add_argument(
        "--servers", metavar="NAME,...", help="servers to measure (default: all)"
    )
    parser.add_argument(
        "--scenarios", metavar="NAME,...", help="scenarios to measure (default: all)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="number of rounds (default: 3; with --against: 5)",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        help="duration of each measurement in seconds (default: 2)",
    )
    parser.add_argument(
        "--per-cpu",
        action="store_true",
        help="divide by the CPU time of the server instead of elapsed time: for a "
        "machine with other load",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="number of worker processes of each server (default: 1); with more, "
        "servers and client share all CPUs, and servers of one process are left out",
    )
    parser.add_argument(
        "--output",
        metavar="DIRECTORY",
        type=Path,
        help="directory for benchmarks.md and benchmarks.svg, or with --workers for "
        "workers.md and workers.svg (default: docs/figures)",
    )
    parser.add_argument(
        "--against",
        metavar="REV",
        help="compare this tree with another git revision of it, by CPU time and "
        "memory, and print a table of ratios",
    )
    parser.add_argument(
        "--requests",
        type=int,
        help="with --against: requests in each turn (default: 1000)",
    )
    parser.add_argument(
        "--other-options",
        metavar="OPTIONS",
        help="with --against: options of the other revision's server only, such as "
        "'--blocked-after 0' to see what the default costs",
    )
    parser.add_argument(
        "--list", action="store_true", help="list servers and scenarios, then exit"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Measure as the arguments say and return the exit status."""
    options = _options().parse_args(arguments)
    if options.list:
        print(_listed())
        return 0
    try:
        if options.against is None:
            _measure_servers(options)
        else:
            _measure_revisions(options)
    except _CannotRun as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def _measure_servers(options: argparse.Namespace) -> None:
    """Measure all servers in turn and write the tables and the chart."""
    _refuse_options(options, "without --against", "requests", "other_options")
    rounds = _number("--rounds", options.rounds, 3, _MOST_ROUNDS)
    seconds = _number("--seconds", options.seconds, 2, _MOST_SECONDS)
    workers = _number("--workers", options.workers, 1, _MOST_WORKERS)
    servers = _chosen("--servers", options.servers, SERVERS)
    scenarios = _chosen("--scenarios", options.scenarios, SCENARIOS)
    if workers > 1:
        servers = [each for each in servers if "workers" not in each.cannot]
        if not servers:
            raise _CannotRun(
                f"--workers {workers}: none of --servers {options.servers} can have "
                "more than one; leave one of the two options out"
            )
    output = Path("docs/figures") if options.output is None else options.output
    cpus = _two_cpus()
    if any(each.uses_wrk for each in scenarios) and shutil.which("wrk") is None:
        without = ",".join(each.name for each in SCENARIOS if not each.uses_wrk)
        raise _CannotRun(
            "wrk is not on PATH: install it (apt install wrk), or give "
            f"--scenarios {without}"
        )
    _make_directory(output)
    if workers > 1:
        # All of them share all CPUs, as they do in production.
        everywhere = os.sched_getaffinity(0)
        _set_up_process(everywhere)
        server_cpus: Collection[int] = everywhere
        where = (
            f"{workers} workers of a server and the client on {len(everywhere)} CPUs"
        )
    else:
        _set_up_process({cpus[1]})
        server_cpus = {cpus[0]}
        where = "one process of a server on one CPU, the client on another"

    load_before = os.getloadavg()
    results = Results(scenarios, servers)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        measurement = _Measurement(Path(directory), server_cpus, seconds, workers)
        for scenario in scenarios:
            for number in range(1, rounds + 1):
                for server in servers:
                    outcome = measurement.outcome(scenario, server)
                    if options.per_cpu and not isinstance(outcome, str):
                        outcome = outcome.per_cpu()
                    results.add(scenario, server, outcome)
                    _tell(scenario, number, server, outcome)
    about = [
        f"{rounds} rounds of all servers in turn, {seconds} s each; {where}; loopback; "
        "no access log",
        f"fast path of {OURS}: {fast_path()}",
        *_machine({name for server in servers for name in server.needs}, load_before),
    ]
    if options.per_cpu:
        about.insert(0, "seconds are CPU time of the server, not elapsed time")
    text = markdown(results, about)
    print(text)
    stem = "benchmarks" if workers == 1 else "workers"
    for name, content in ((f"{stem}.md", text), (f"{stem}.svg", svg(results))):
        (output / name).write_text(content)
        print(f"written: {output / name}", file=sys.stderr)


def _measure_revisions(options: argparse.Namespace) -> None:
    """Compare this tree with `--against` and print the table."""
    _refuse_options(
        options, "with --against", "servers", "seconds", "output", "workers"
    )
    if options.per_cpu:
        raise _CannotRun("--per-cpu: --against always counts CPU time; leave it out")
    rounds = _number("--rounds", options.rounds, 5, _MOST_ROUNDS)
    requests = _number("--requests", options.requests, 1000, _MOST_REQUESTS)
    comparisons = _chosen("--scenarios", options.scenarios, COMPARISONS)
    cpu, client_cpu = _two_cpus()
    _set_up_process({client_cpu})
    load_before = os.getloadavg()
    new = Tree("this tree", ROOT)
    try:
        other_options = tuple(shlex.split(options.other_options or ""))
        with other_tree(options.against, options=other_options) as old:
            paths = [f"{each.name}: {fast_path(each.path)}" for each in (old, new)]
            outcomes = compare(
                comparisons,
                old,
                new,
                rounds=rounds,
                requests=requests,
                cpu=cpu,
                tell=lambda line: print(line, file=sys.stderr, flush=True),
            )
    except (CannotMeasure, OSError) as error:
        raise _CannotRun(str(error)) from error
    about = [
        f"{rounds} rounds, {requests} requests in a turn; both servers on one CPU, the "
        "client on another; loopback; no access log",
        "; ".join(paths),
        *_machine({"Twisted", "greenlet", "httptools"}, load_before),
    ]
    print(against_markdown(outcomes, old, new, about))


def _refuse_options(options: argparse.Namespace, when: str, *names: str) -> None:
    """Raise _CannotRun if one of these options is given."""
    for name in names:
        if getattr(options, name) is not None:
            option = name.replace("_", "-")
            raise _CannotRun(f"--{option} has no meaning {when}; leave it out")


def _set_up_process(cpus: Collection[int]) -> None:
    """Prepare this process as the client, on these CPUs."""
    # Servers inherit the limit on open files, wrk inherits the CPU.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, cpus)
    # The default action ends the process without running `finally` clauses.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class _Measurement:
    """Measures one server at a time, each in a fresh process.

    Args:
        directory: for files that servers are given; the caller removes it.
        cpus: the CPUs that servers are pinned to.
        seconds: duration of a measurement.
        workers: number of worker processes of each server.
    """

    def __init__(
        self, directory: Path, cpus: Collection[int], seconds: int, workers: int
    ) -> None:
        self._directory = directory
        self._cpus = cpus
        self._seconds = seconds
        self._workers = workers

    def outcome(self, scenario: Scenario, server: Server) -> Measured | str:
        """Return the figure, or the reason why there is none."""
        for want in scenario.wants:
            if want in server.cannot:
                return server.cannot[want]
        missing = server.missing()
        if scenario.needs and not is_installed(scenario.needs):
            missing.append(scenario.needs)
        if missing:
            return f"not installed (pip install {' '.join(missing)})"
        try:
            return self._measure(scenario, server)
        except CannotMeasure as error:
            return str(error)

    def _measure(self, scenario: Scenario, server: Server) -> Measured:
        certificate, key = (
            make_certificate(self._directory)
            if "tls" in scenario.wants
            else (None,) * 2
        )
        launch = Launch(scenario.app, free_port(), certificate, key, self._workers)
        variables = {}
        if scenario.app.endswith(":file"):
            variables[FILE_VARIABLE] = str(self._file())
        with running(
            server.command(launch), launch.port, self._cpus, variables
        ) as process:
            try:
                if self._workers > 1:
                    # The port may be open before all workers are.
                    process.wait_until_idle()
                return scenario.measure(process, self._seconds)
            except (CannotMeasure, OSError) as error:
                # The last line of its output may say more than the client's error.
                print(f"  {server.name}: {process.last_words()}", file=sys.stderr)
                state = "" if process.alive() else "; the server has ended"
                raise CannotMeasure(f"{error}{state}") from error

    def _file(self) -> Path:
        """Return the file that the scenario `file` sends."""
        path = self._directory / "bulk"
        if not path.exists():
            block = os.urandom(BLOCK_BYTES)
            with open(path, "wb") as file:
                for _ in range(BULK_BYTES // BLOCK_BYTES):
                    file.write(block)
        return path


def _tell(
    scenario: Scenario, number: int, server: Server, outcome: Measured | str
) -> None:
    """Print one line of progress."""
    if isinstance(outcome, str):
        text = f"- ({outcome})"
    else:
        text = f"{shown(outcome.figure)} {scenario.unit}"
        if outcome.busy is not None:
            text += f", {outcome.busy:.0%} busy"
        if outcome.remark:
            text += f" ({outcome.remark})"
    line = f"{scenario.name}, round {number}, {server.name}: {text}"
    print(line, file=sys.stderr, flush=True)


def _machine(
    distributions: set[str], load_before: tuple[float, float, float]
) -> list[str]:
    """Return notes on the machine and on the versions of `distributions`."""
    versions = ", ".join(
        f"{name} {version(name)}"
        for name in sorted(distributions, key=str.lower)
        if is_installed(name)
    )
    return [
        f"{_cpu_model()}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}",
        versions,
        "load average before and after: "
        + ", ".join(f"{load[0]:.2f}" for load in (load_before, os.getloadavg())),
    ]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return f"{os.cpu_count()} x {value.strip()}"
    return f"{os.cpu_count()} x {platform.machine()}"


def _listed() -> str:
    """Return the names that --servers and --scenarios accept."""
    lines = ["servers:"]
    for server in SERVERS:
        missing = server.missing()
        if missing:
            state = f"not installed: pip install {' '.join(missing)}"
        else:
            state = server.versions()
        about = "; ".join(part for part in (state, server.why) if part)
        lines.append(f"  {server.name:20}{about}")
    lines.append("scenarios:")
    lines += [f"  {each.name:20}{each.title} ({each.unit})" for each in SCENARIOS]
    lines.append("scenarios with --against:")
    lines += [f"  {each.name:20}{each.title} ({each.unit})" for each in COMPARISONS]
    return "\n".join(lines)


def _chosen(option: str, names: str | None, known: Sequence[_N]) -> list[_N]:
    """Return the items that an option names, in the order given."""
    if names is None:
        return list(known)
    by_name = {each.name: each for each in known}
    chosen = []
    for name in dict.fromkeys(part.strip() for part in names.split(",")):
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1)
            remedy = f"did you mean {near[0]!r}? " if near else ""
            raise _CannotRun(
                f"{option} {names!r}: there is no {name!r}; {remedy}give some of: "
                + ", ".join(by_name)
            )
        chosen.append(by_name[name])
    return chosen


def _number(option: str, given: int | None, default: int, most: int) -> int:
    """Return the number given or its default.

    Raises:
        _CannotRun: it is out of range.
    """
    number = default if given is None else given
    if not 1 <= number <= most:
        raise _CannotRun(f"{option} {number}: give a whole number from 1 to {most}")
    return number


def _two_cpus() -> tuple[int, int]:
    """Return the CPU for servers and the CPU for the client."""
    if not sys.platform.startswith("linux"):
        raise _CannotRun(
            "processes are pinned to CPUs, which needs Linux: run it there"
        )
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise _CannotRun(
            "this process may use one CPU only, and the client would slow down the "
            "server: allow it two CPUs"
        )
    return cpus[0], cpus[1]


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Fail now rather than after all measurements.
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise _CannotRun(
            f"--output {str(path)!r} is not writable ({error}): give a writable "
            "directory"
        ) from error


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
