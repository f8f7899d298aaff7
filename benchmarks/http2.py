"""HTTP/2 beside other servers, with h2load of nghttp2.

`python -m benchmarks.http2` starts each installed server on one CPU, over TLS and,
where it can, without (prior knowledge). For each it prints the CPU time of the server
per short request with 1 and with 32 streams on one connection, and requests per second;
CPU time and MB per second of a download and an upload of 256 MB; and the time of 1,000
requests that sleep for a second each, on one connection. `--list` shows the command
lines. hypercorn, gunicorn and granian are measured if they are installed
(`pip install hypercorn 'gunicorn[http2]' granian`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .certificate import make_certificate
from .http2_app import LARGE_BYTES
from .process import CannotMeasure, free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .process import Process

_APP = "benchmarks.http2_app:app"
_STREAMS = 1000
_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s|m)\b")
_SUCCEEDED = re.compile(r"(\d+) succeeded")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_TIMEOUT_SECONDS = 60.0


class Target(NamedTuple):
    """The port and the certificate of a server; no certificate for plain HTTP/2."""

    port: int
    certificate: Path | None
    key: Path | None


def _ours(target: Target) -> list[str]:
    where = f"{target.port}:interface=127.0.0.1"
    words = ["-m", "txgreenwsgi", _APP, "--threads-for=none"]
    words += [f"--http2-max-streams={_STREAMS}"]
    if target.certificate is None:
        return [*words, f"--listen=tcp:{where}", "--http2=h2c"]
    return [
        *words,
        f"--listen=https:{where}:cert={target.certificate}:key={target.key}",
        "--http2=tls",
    ]


def _hypercorn(target: Target) -> list[str]:
    words = ["-m", "hypercorn", "--workers=1", f"wsgi:{_APP}"]
    words += [f"--bind=127.0.0.1:{target.port}"]
    words += ["--config=python:benchmarks.http2_hypercorn"]
    if target.certificate is not None:
        words += [f"--certfile={target.certificate}", f"--keyfile={target.key}"]
    return words


def _gunicorn(target: Target) -> list[str]:
    words = ["-m", "gunicorn", "--workers=1", "--worker-class=gthread", "--threads=64"]
    words += [_APP, f"--bind=127.0.0.1:{target.port}", "--http-protocols=h2,h1"]
    words += [f"--http2-max-concurrent-streams={_STREAMS}", "--timeout=120"]
    if target.certificate is None:
        return [*words, "--http2-cleartext=prior-knowledge"]
    return [*words, f"--certfile={target.certificate}", f"--keyfile={target.key}"]


def _granian(target: Target) -> list[str]:
    words = ["-m", "granian", "--interface=wsgi", "--workers=1", "--http=2"]
    words += ["--blocking-threads=64", "--host=127.0.0.1", f"--port={target.port}"]
    words += [f"--http2-max-concurrent-streams={_STREAMS}", "--no-ws", _APP]
    if target.certificate is None:
        return words
    return [
        *words,
        f"--ssl-certificate={target.certificate}",
        f"--ssl-keyfile={target.key}",
    ]


def _twist(target: Target) -> list[str]:
    port = f"ssl:{target.port}:interface=127.0.0.1"
    return [
        *("-m", "twisted", "web", "--wsgi=benchmarks.http2_app.app"),
        f"--listen={port}:privateKey={target.key}:certKey={target.certificate}",
    ]


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        name: its name.
        module: the module that must be installed.
        command: returns the words behind the interpreter.
        plain: whether it serves HTTP/2 without TLS.
    """

    name: str
    module: str
    command: Callable[[Target], list[str]]
    plain: bool = True


SERVERS = (
    Server("txgreenwsgi", "txgreenwsgi", _ours),
    Server("hypercorn", "hypercorn", _hypercorn),
    Server("gunicorn", "gunicorn", _gunicorn),
    Server("granian", "granian", _granian),
    Server("twist web", "priority", _twist, plain=False),
)


class Load(NamedTuple):
    """The result of one run of h2load.

    Attributes:
        seconds: its duration.
        cpu: the CPU time of the server, in seconds.
    """

    seconds: float
    cpu: float


def _load(server: Process, url: str, count: int, streams: int, *more: str) -> Load:
    """Run h2load over one connection."""
    words = ["h2load", f"-n{count}", "-c1", f"-m{streams}", "-w30", "-W30", *more, url]
    before = server.cpu_seconds()
    try:
        output = subprocess.run(
            words, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        ).stdout
    except subprocess.TimeoutExpired:
        raise CannotMeasure(f"not within {_TIMEOUT_SECONDS:.0f} s") from None
    finished = _FINISHED.search(output)
    succeeded = _SUCCEEDED.search(output)
    if finished is None or succeeded is None or int(succeeded[1]) != count:
        done = "none" if succeeded is None else succeeded[1]
        raise CannotMeasure(f"{done} of {count} requests")
    seconds = float(finished[1]) * _UNITS[finished[2]]
    return Load(seconds, server.cpu_seconds() - before)


def _hello(server: Process, base: str, streams: int, args: argparse.Namespace) -> str:
    _load(server, base + "/", 200, streams)
    runs = [_load(server, base + "/", args.requests, streams) for _ in range(args.runs)]
    cpu = statistics.median(run.cpu for run in runs) / args.requests
    rate = args.requests / statistics.median(run.seconds for run in runs)
    return f"{cpu * 1e6:.0f} us, {rate:.0f}/s"


def _large(server: Process, base: str, path: str, *more: str) -> str:
    run = _load(server, base + path, 1, 1, *more)
    return f"{run.cpu:.2f} s, {LARGE_BYTES / 1e6 / run.seconds:.0f} MB/s"


def _sleepers(server: Process, base: str) -> str:
    run = _load(server, base + "/sleep", _STREAMS, _STREAMS)
    return f"{run.seconds:.1f} s"


def _cell(measure: Callable[[], str]) -> str:
    try:
        return measure()
    except CannotMeasure as error:
        return f"failed: {error}"


def _row(
    name: str, server: Process, base: str, upload: str, args: argparse.Namespace
) -> list[str]:
    return [
        name,
        _cell(lambda: _hello(server, base, 1, args)),
        _cell(lambda: _hello(server, base, 32, args)),
        _cell(lambda: _large(server, base, "/down")),
        _cell(lambda: _large(server, base, "/up", f"-d{upload}")),
        _cell(lambda: _sleepers(server, base)),
    ]


HEADINGS = (
    "server",
    "hello, 1 stream",
    "hello, 32 streams",
    "256 MB down",
    "256 MB up",
    "1,000 sleepers",
)


def _print(rows: Iterable[Sequence[str]]) -> None:
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.http2", description=__doc__
    )
    parser.add_argument("--servers", default="", help="names, separated by commas")
    parser.add_argument("--requests", type=int, default=5000, help="of each run")
    parser.add_argument("--runs", type=int, default=3, help="the median counts")
    parser.add_argument("--list", action="store_true", help="print the command lines")
    args = parser.parse_args()
    wanted = {name for name in args.servers.split(",") if name}
    servers = [each for each in SERVERS if not wanted or each.name in wanted]
    if args.list:
        for each in servers:
            target = Target(8443, Path("cert.pem"), Path("key.pem"))
            print(" ".join(["python", *each.command(target)]))
        return
    if shutil.which("h2load") is None:
        sys.exit("h2load is not installed: run apt install nghttp2-client")
    cpu = min(os.sched_getaffinity(0))
    _print([HEADINGS, ["---"] * len(HEADINGS)])
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        try:
            certificate, key = make_certificate(Path(directory))
        except CannotMeasure as error:
            sys.exit(str(error))
        upload = Path(directory) / "upload"
        with open(upload, "wb") as file:
            file.truncate(LARGE_BYTES)
        for each in servers:
            if importlib.util.find_spec(each.module) is None:
                _print([[each.name, "not installed"]])
                continue
            for tls in (True, False):
                if not tls and not each.plain:
                    continue
                port = free_port()
                target = Target(port, *((certificate, key) if tls else (None, None)))
                name = f"{each.name}, {'TLS' if tls else 'plain'}"
                base = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
                command = [sys.executable, *each.command(target)]
                try:
                    with running(command, port, cpu, {}) as server:
                        server.wait_until_idle()
                        _print([_row(name, server, base, str(upload), args)])
                except CannotMeasure as error:
                    _print([[name, str(error)]])


if __name__ == "__main__":
    main()
