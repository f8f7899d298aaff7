"""Memory of workers, with and without `--preload`.

    python -m benchmarks.memory [--workers N] [--app SPEC]

For each way, starts the server, sends some requests to every worker, and prints the
resident and the proportional set size from /proc/PID/smaps_rollup (Linux). The
proportional size divides each page by the number of processes that share it, so the sum
over all processes is the memory that the server takes.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

START_SECONDS = 120.0
REQUESTS = 200


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    """Return the ids of the children of a process, and of their children."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    except OSError:
        return []
    children = [int(child) for child in text.split()]
    return [*children, *(each for child in children for each in descendants(child))]


def sizes(pid: int) -> tuple[float, float]:
    """Return resident and proportional set size of a process, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    found = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB$", text, re.MULTILINE))
    return int(found["Rss"]) / 1024, int(found["Pss"]) / 1024


def measure(app: str, workers: int, *options: str) -> None:
    """Start a server, and print the sizes of its processes."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "txgreenwsgi", app),
                f"--listen=tcp:{port}:interface=127.0.0.1",
                f"--workers={workers}",
                "--control=none",
                *options,
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_ready(server, log.fileno(), workers)
            for _ in range(REQUESTS):
                urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
            print_sizes(" ".join(options) or "(none)", server.pid, workers)
        finally:
            server.terminate()
            server.wait()


def wait_ready(server: subprocess.Popen[bytes], log: int, workers: int) -> None:
    """Wait until all workers serve."""
    end = time.monotonic() + START_SECONDS
    while True:
        text = Path(f"/proc/self/fd/{log}").read_bytes()
        if text.count(b" is ready after ") >= workers:
            return
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit(text.decode("utf-8", "replace"))
        time.sleep(0.1)


def print_sizes(title: str, master: int, workers: int) -> None:
    """Print a line for each process, and the sum."""
    print(f"options: {title}")
    total = 0.0
    for pid in [master, *descendants(master)]:
        resident, proportional = sizes(pid)
        total += proportional
        kind = "master" if pid == master else "process"
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
