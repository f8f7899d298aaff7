"""`python -m benchmarks`: starts each server in turn, measures, tells.

The file knows options, the order of rounds and where results go. It must never
know what is measured, or how a server is started.
"""

from __future__ import annotations

import argparse
import difflib
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from .apps import BLOCK_BYTES, BULK_BYTES, FILE_VARIABLE
from .chart import svg
from .process import CannotMeasure, free_port, running
from .results import Results
from .scenarios import SCENARIOS, Measured, Scenario
from .servers import SERVERS, Launch, Server, is_installed
from .table import markdown, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    class _Named(Protocol):
        @property
        def name(self) -> str:
            """What options call it."""

    _N = TypeVar("_N", bound=_Named)

_MOST_ROUNDS = 100
_MOST_SECONDS = 60


class _CannotRun(Exception):
    """The options ask for what cannot be had; the message says what would do."""


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure txgreenwsgi side by side with other servers.",
    )
    parser.add_argument(
        "--servers", metavar="NAME,...", help="which servers; all by default"
    )
    parser.add_argument(
        "--scenarios", metavar="NAME,...", help="which scenarios; all by default"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of all servers (default: 3)"
    )
    parser.add_argument(
        "--seconds",
        type=int,
        default=2,
        help="how long each measurement asks (default: 2)",
    )
    parser.add_argument(
        "--per-cpu",
        action="store_true",
        help="count by the CPU time of the server, not by the clock: for a machine "
        "that others use",
    )
    parser.add_argument(
        "--output",
        metavar="DIRECTORY",
        type=Path,
        default=Path("docs/figures"),
        help="where benchmarks.md and benchmarks.svg go (default: docs/figures)",
    )
    parser.add_argument(
        "--list", action="store_true", help="list servers and scenarios, and end"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; returns the exit status."""
    options = _options().parse_args(arguments)
    try:
        if options.list:
            print(_listed())
            return 0
        _check_number("--rounds", options.rounds, _MOST_ROUNDS)
        _check_number("--seconds", options.seconds, _MOST_SECONDS)
        servers = _chosen("--servers", options.servers, SERVERS)
        scenarios = _chosen("--scenarios", options.scenarios, SCENARIOS)
        cpu, client_cpu = _two_cpus()
        if any(each.uses_wrk for each in scenarios) and shutil.which("wrk") is None:
            without = ",".join(each.name for each in SCENARIOS if not each.uses_wrk)
            raise _CannotRun(
                "wrk is not on PATH: install it (apt install wrk), or give "
                f"--scenarios {without}"
            )
        _make_directory(options.output)
    except _CannotRun as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    # What the servers inherit is room for a crowd; what wrk inherits is the CPU.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {client_cpu})
    # By default it ends the process without its `finally` clauses.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    load_before = os.getloadavg()
    results = Results(scenarios, servers)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        measurement = _Measurement(Path(directory), cpu, options.seconds)
        for scenario in scenarios:
            for number in range(1, options.rounds + 1):
                for server in servers:
                    outcome = measurement.outcome(scenario, server)
                    if options.per_cpu and not isinstance(outcome, str):
                        outcome = outcome.per_cpu()
                    results.add(scenario, server, outcome)
                    _tell(scenario, number, server, outcome)
    about = _about(servers, options.rounds, options.seconds, load_before)
    if options.per_cpu:
        about.insert(0, "a second is one of the server's CPU time, not of the clock")
    text = markdown(results, about)
    print(text)
    for name, content in (("benchmarks.md", text), ("benchmarks.svg", svg(results))):
        (options.output / name).write_text(content)
        print(f"written: {options.output / name}", file=sys.stderr)
    return 0


class _Measurement:
    """One server after the other, each in a fresh process.

    Args:
        directory: for what the servers are given; it is removed afterwards.
        cpu: where servers run.
        seconds: how long each is asked.
    """

    def __init__(self, directory: Path, cpu: int, seconds: int) -> None:
        self._directory = directory
        self._cpu = cpu
        self._seconds = seconds

    def outcome(self, scenario: Scenario, server: Server) -> Measured | str:
        """The figure, or why there is none."""
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
            self._certificate() if "tls" in scenario.wants else (None,) * 2
        )
        launch = Launch(scenario.app, free_port(), certificate, key)
        variables = {}
        if scenario.app.endswith(":file"):
            variables[FILE_VARIABLE] = str(self._file())
        with running(
            server.command(launch), launch.port, self._cpu, variables
        ) as process:
            try:
                return scenario.measure(process, self._seconds)
            except (CannotMeasure, OSError) as error:
                # What it has printed may say more than what the client saw.
                print(f"  {server.name}: {process.last_words()}", file=sys.stderr)
                state = "" if process.alive() else "; the server has ended"
                raise CannotMeasure(f"{error}{state}") from error

    def _file(self) -> Path:
        """What the scenario of that name sends."""
        path = self._directory / "bulk"
        if not path.exists():
            block = os.urandom(BLOCK_BYTES)
            with open(path, "wb") as file:
                for _ in range(BULK_BYTES // BLOCK_BYTES):
                    file.write(block)
        return path

    def _certificate(self) -> tuple[Path, Path]:
        """A certificate of our own, and its key."""
        certificate = self._directory / "certificate.pem"
        key = self._directory / "key.pem"
        if not certificate.exists():
            words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            words += " -days 2 -subj /CN=localhost"
            try:
                subprocess.run(
                    ["openssl", *words.split(), "-keyout", key, "-out", certificate],
                    check=True,
                    capture_output=True,
                    timeout=60,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise CannotMeasure(
                    f"openssl is needed to make a certificate, and failed ({error})"
                ) from error
        return certificate, key


def _tell(
    scenario: Scenario, number: int, server: Server, outcome: Measured | str
) -> None:
    """One line of progress."""
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


def _about(
    servers: Sequence[Server],
    rounds: int,
    seconds: int,
    load_before: tuple[float, float, float],
) -> list[str]:
    """How and where it was measured."""
    distributions = {name for server in servers for name in server.needs}
    versions = ", ".join(
        f"{name} {version(name)}"
        for name in sorted(distributions, key=str.lower)
        if is_installed(name)
    )
    return [
        f"{rounds} rounds of all servers in turn, {seconds} s each; one process of a "
        "server on one CPU, the client on another; loopback; no access log",
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
    """What can be given to --servers and --scenarios."""
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
    return "\n".join(lines)


def _chosen(option: str, names: str | None, known: Sequence[_N]) -> list[_N]:
    """What the names in an option mean, in the order given."""
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


def _check_number(option: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise _CannotRun(f"{option} {number}: give a whole number from 1 to {most}")


def _two_cpus() -> tuple[int, int]:
    """One for the server, one for the client."""
    if not sys.platform.startswith("linux"):
        raise _CannotRun("processes are pinned to CPUs as Linux does it: run it there")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise _CannotRun(
            "one CPU is not enough: the client would slow down the server; allow this "
            "process two"
        )
    return cpus[0], cpus[1]


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Now, and not when all has been measured.
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise _CannotRun(
            f"--output {str(path)!r} cannot be written to ({error}): give a directory "
            "that you may write"
        ) from error


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
