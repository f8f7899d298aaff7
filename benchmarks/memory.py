"""Memory of workers, with and without `--preload`.

    python -m benchmarks.memory [--workers N] [--app SPEC]

For each way, starts the server, sends some requests to every worker, and prints the
resident and the proportional set size from /proc/PID/smaps_rollup (Linux). The
proportional size divides each page by the number of processes that share it, so the sum
over all processes is the memory that the server takes.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from .process import free_port, running

if TYPE_CHECKING:
    from collections.abc import Collection

REQUESTS = 200


def sizes(pid: int) -> tuple[float, float]:
    """Return resident and proportional set size of a process, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    found = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB$", text, re.MULTILINE))
    return int(found["Rss"]) / 1024, int(found["Pss"]) / 1024


def measure(app: str, workers: int, *options: str) -> None:
    """Start a server, and print the sizes of its processes."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "txgreenwsgi", app),
        f"--listen=tcp:{port}:interface=127.0.0.1",
        f"--workers={workers}",
        "--control=none",
        *options,
    ]
    with running(command, port, os.sched_getaffinity(0), {}) as server:
        server.wait_until_idle()
        for _ in range(REQUESTS):
            urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
        print_sizes(" ".join(options) or "(none)", server.pids(), workers)


def print_sizes(title: str, pids: Collection[int], workers: int) -> None:
    """Print a line for each process, and the sum."""
    print(f"options: {title}")
    total = 0.0
    for pid in pids:
        resident, proportional = sizes(pid)
        total += proportional
        kind = "master" if os.getpgid(pid) == pid else "process"
        print(
            f"  {kind:8} {pid:8}  RSS {resident:6.1f} MiB  PSS {proportional:6.1f} MiB"
        )
    print(f"  sum of PSS {total:.1f} MiB for {workers} workers")


def main() -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--app", default="benchmarks.memory_app:app")
    options = parser.parse_args()
    measure(options.app, options.workers)
    measure(options.app, options.workers, "--preload")


if __name__ == "__main__":
    main()
