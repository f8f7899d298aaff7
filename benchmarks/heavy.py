"""The latency of a trivial page beside clients of heavy work.

`python -m benchmarks.heavy` starts the command with and without `--offload heavy` (and
`--gc`, for the row `collect`), lets six clients request one kind of work for some
seconds, and requests the trivial page every 50 ms. It prints p50 and p99 of the page in
ms, and the number of finished heavy requests. No request runs in a thread as a whole.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import threading
import time
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .heavy_app import WORK
from .process import free_port, running

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLIENTS = 6
_INTERVAL = 0.05


def _fetch(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}")


def _measure(kind: str, seconds: float, options: Sequence[str]) -> tuple[float, ...]:
    """Return p50 and p99 of the page in ms, and the count of heavy requests."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "twisted", "greenwsgi", f"--listen=tcp:{port}"),
        *("--app=benchmarks.heavy_app:app", "--threads-for=none", *options),
    ]
    if kind == "collect":
        # As large as an application.
        command[command.index("--app=benchmarks.heavy_app:app")] = (
            "--app=benchmarks.heavy:large_app()"
        )
    with running(command, port, min(os.sched_getaffinity(0)), {}):
        page = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        if kind == "pillow":
            _fetch(page, "/prepare-pillow")
        _fetch(page, f"/{kind}")
        _fetch(page, f"/{kind}")
        end = time.monotonic() + seconds
        counts = [0] * _CLIENTS

        def work(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            while time.monotonic() < end:
                _fetch(connection, f"/{kind}")
                counts[number] += time.monotonic() < end

        threads = [
            threading.Thread(target=work, args=(number,)) for number in range(_CLIENTS)
        ]
        for thread in threads:
            thread.start()
        latencies = list[float]()
        while time.monotonic() < end:
            began = time.perf_counter()
            _fetch(page, "/")
            latencies.append((time.perf_counter() - began) * 1000)
            time.sleep(_INTERVAL)
        for thread in threads:
            thread.join()
    latencies.sort()
    return (
        latencies[len(latencies) // 2],
        latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)],
        sum(counts),
    )


def large_app() -> object:
    """Return the application with Django loaded beside it."""
    import_module("benchmarks.django_app")
    app: object = import_module("benchmarks.heavy_app").app
    return app


def main(arguments: Sequence[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heavy")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("kinds", nargs="*", default=list(WORK), metavar="KIND")
    options = parser.parse_args(arguments)
    print(f"{'':10}{'without':>22}{'with':>22}   (p50 ms, p99 ms, requests)")
    for kind in options.kinds:
        if kind == "pillow" and find_spec("PIL") is None:
            print(f"{kind:10}needs Pillow")
            continue
        both = [[], ["--offload=heavy"]]
        if kind == "collect":
            both = [["--gc=unchanged"], ["--gc=freeze"]]
        row = f"{kind:10}"
        for words in both:
            p50, p99, count = _measure(kind, options.seconds, words)
            row += f"{p50:9.1f}{p99:8.1f}{count:5.0f}"
        print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
