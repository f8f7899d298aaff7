"""The cost of an open status page: CPU time of short requests with it and without.

    python -m benchmarks.status
    python -m benchmarks.status --workers 2 --rounds 5

Two servers with the same options run side by side on one CPU, each with `--status`. A
client reads the events of one of the two pages, as a browser does. The servers take
turns; the figure is the CPU time of their processes for each request. The ratio is that
without the page by that with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING

from .against import trimmed_mean
from .load import KeepAliveLoad
from .process import CannotMeasure, Process, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_APP = "benchmarks.apps:hello"
_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_CONNECTIONS = 200
_REQUESTS = 1000
_PAIRS = 40
_PAGE = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
#: Time for the first event of a page.
_EVENT_SECONDS = 30.0


@contextlib.contextmanager
def open_page(port: int) -> Iterator[None]:
    """Read the events of the status page at `port`.

    Raises:
        CannotMeasure: there is no event.
    """
    arrived = threading.Event()
    with _connected(port) as page:
        page.sendall(_PAGE)

        def read() -> None:
            seen = b""
            while True:
                try:
                    data = page.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                if not arrived.is_set():
                    seen += data
                    if b"\ndata: " in seen:
                        arrived.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            if not arrived.wait(_EVENT_SECONDS):
                raise CannotMeasure(f"the status page at port {port} sent no event")
            yield
        finally:
            page.shutdown(socket.SHUT_RDWR)
            reader.join()


def _connected(port: int) -> socket.socket:
    """Return a connection; the page opens after the port of the application."""
    deadline = time.monotonic() + _EVENT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), _EVENT_SECONDS)
        time.sleep(0.05)
    raise CannotMeasure(f"the status page at port {port} does not open")


def _command(port: int, page: int, workers: int) -> list[str]:
    words = [sys.executable, "-m", "txgreenwsgi", _APP]
    words += ["--listen", f"tcp:{port}:interface=127.0.0.1"]
    words += ["--status", f"tcp:127.0.0.1:{page}", "--control", "none"]
    return [*words, "--workers", str(workers)] if workers else words


def round_of(
    workers: int, cpu: int, requests: int, pairs: int, seed: int
) -> tuple[float, float]:
    """Measure both servers; return µs a request without the page and with it."""
    figures: tuple[list[float], list[float]] = ([], [])
    with contextlib.ExitStack() as stack:
        sides: list[tuple[Process, KeepAliveLoad]] = []
        for is_open in (False, True) if seed % 2 == 0 else (True, False):
            port, page = free_port(), free_port()
            process = stack.enter_context(
                running(
                    _command(port, page, workers),
                    port,
                    {cpu},
                    {"PYTHONHASHSEED": str(seed)},
                )
            )
            if workers:
                process.wait_until_idle()
            if is_open:
                stack.enter_context(open_page(page))
            load = KeepAliveLoad(port, lambda number: _REQUEST, _CONNECTIONS)
            stack.enter_context(load)
            load.run(requests)
            sides.append((process, load))
        if seed % 2:
            sides.reverse()
        for pair in range(pairs):
            for index in (0, 1) if pair % 2 == 0 else (1, 0):
                process, load = sides[index]
                before = process.cpu_seconds()
                load.run(requests)
                used = process.cpu_seconds() - before
                figures[index].append(used / requests * 1e6)
    return trimmed_mean(figures[0]), trimmed_mean(figures[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the figures and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.status",
        description="Measure the CPU time of short requests while a status page is "
        "open, and without one.",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of rounds (default: 3)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="number of worker processes (default: 0, a single process)",
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=_REQUESTS,
        help=f"requests in each turn (default: {_REQUESTS})",
    )
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.workers < 0 or given.requests < _CONNECTIONS:
        parser.error(
            f"give --rounds of at least 1, --workers of at least 0 and --requests of "
            f"at least {_CONNECTIONS}"
        )
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[-1]})
    ratios = []
    try:
        for number in range(given.rounds):
            without, with_page = round_of(
                given.workers, cpus[0], given.requests, _PAIRS, number
            )
            ratios.append(without / with_page)
            print(
                f"round {number + 1}: {without:.1f} µs/request without the page, "
                f"{with_page:.1f} with it, ratio {ratios[-1]:.3f}",
                flush=True,
            )
    except (CannotMeasure, OSError) as error:
        print(f"benchmarks.status: {error}", file=sys.stderr)
        return 2
    print(f"median ratio {statistics.median(ratios):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
