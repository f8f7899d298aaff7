"""Echo over loopback with patched blocking code: txgreenwsgi against gevent.

The same program, written with `socket` and `threading`, runs in one process patched
by txgreenwsgi and in one patched by gevent. Server and clients share the process,
so the figures show the cost of switching rather than of the network.

    python -m benchmarks.green_sockets --gevent /path/to/python-with-gevent
"""

from __future__ import annotations

import argparse
import importlib
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Address = tuple[str, int]

CLIENTS = 50
ROUND_TRIPS = 300
# For a single client: with fewer, the run ends before the CPU's clock is stable.
ROUND_TRIPS_ALONE = 10_000
CONNECTIONS = 60
MESSAGE = b"x" * 100


def _serve(listener: socket.socket) -> None:
    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def _echoes(address: Address, times: int = ROUND_TRIPS) -> None:
    with socket.create_connection(address) as sock:
        for _ in range(times):
            sock.sendall(MESSAGE)
            sock.recv(4096)


def _echoes_alone(address: Address) -> None:
    _echoes(address, ROUND_TRIPS_ALONE)


def _connections(address: Address) -> None:
    for _ in range(CONNECTIONS):
        with socket.create_connection(address) as sock:
            sock.sendall(MESSAGE)
            sock.recv(4096)


def _seconds(work: Callable[[Address], None], address: Address, clients: int) -> float:
    threads = [threading.Thread(target=work, args=(address,)) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def measure() -> dict[str, float]:
    """Return operations per second with the currently patched library."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    address: Address = listener.getsockname()
    _seconds(_connections, address, 5)
    found = {
        "round trips, one client": ROUND_TRIPS_ALONE
        / _seconds(_echoes_alone, address, 1),
        f"round trips, {CLIENTS} clients": CLIENTS
        * ROUND_TRIPS
        / _seconds(_echoes, address, CLIENTS),
        f"connections, {CLIENTS} clients": CLIENTS
        * CONNECTIONS
        / _seconds(_connections, address, CLIENTS),
    }
    listener.close()
    return found


def _run_as(flavour: str) -> None:
    def report() -> None:
        print(json.dumps(measure()), flush=True)

    if flavour == "gevent":
        importlib.import_module("gevent.monkey").patch_all()
        report()
    else:
        from txgreenwsgi import monkey

        monkey.patch_all(warn=False)
        monkey.run(report)


def _ask(flavour: str, python: str) -> dict[str, float]:
    done = subprocess.run(
        [python, __file__, "--as", flavour],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


def _compare(gevent: str | None, times: int) -> None:
    """Run both alternately, so that other load on the machine affects both."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(times):
        ours.append(_ask("txgreenwsgi", sys.executable))
        if gevent:
            theirs.append(_ask("gevent", gevent))
    for name in ours[0]:
        line = f"{name}: {statistics.median(run[name] for run in ours):,.0f}/s"
        if theirs:
            ratio = statistics.median(
                mine[name] / its[name] for mine, its in zip(ours, theirs, strict=True)
            )
            rate = statistics.median(run[name] for run in theirs)
            line += f"; gevent {rate:,.0f}/s; median ratio {ratio:.2f}"
        print(line)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--gevent", metavar="PYTHON", help="an interpreter that has gevent"
    )
    parser.add_argument(
        "--times",
        type=int,
        default=5,
        help="number of runs of each; the median is printed",
    )
    parser.add_argument("--as", dest="flavour", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.flavour:
        _run_as(said.flavour)
        return
    _compare(said.gevent, said.times)


if __name__ == "__main__":
    main()
