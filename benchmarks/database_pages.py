"""Pages that wait for PostgreSQL: txgreenwsgi against gunicorn.

    python -m benchmarks.database_pages
    python -m benchmarks.database_pages --peers /path/to/python --rounds 7

The Django site of the examples with a logged-in user: each page queries the session
and the user, then its content. Each server is one process on one CPU; the database
and the client share the other. All servers have the same number of persistent
connections to the database, fewer than there are clients: txgreenwsgi in its own
backend's pool, gevent in django-db-geventpool or Django's pool, gthread one for each
thread. `--all` adds Django's defaults, a new connection for each request. Starts its
own PostgreSQL unless `--database` names an empty database.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .process import CannotMeasure, Process, free_port, running
from .wrk import count_requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OURS = "txgreenwsgi"
_APP = "benchmarks.database_site.wsgi:application"

#: Path and description of each page.
PAGES = {
    "post": ("/posts/1000", "one post with its files: 4 queries"),
    "slow": ("/slow", "the same after a query of 50 ms: 5 queries"),
    "many": ("/many", "25 posts, each with its own query: 27 queries"),
    "list": ("/", "20 posts with authors and files in one table: 5 queries"),
}


@dataclass(frozen=True)
class Setup:
    """A server with a driver and a connection pool.

    Attributes:
        name: heading of its column.
        server: "txgreenwsgi", or the worker class of gunicorn.
        database: value of `BENCHMARK_DATABASE`.
        best: whether it is among the fastest setups of its server.
    """

    name: str
    server: str
    database: str
    best: bool = False


SETUPS = (
    Setup("txgreenwsgi, psycopg 3", OURS, "psycopg+green", best=True),
    Setup("txgreenwsgi, psycopg2", OURS, "psycopg2+green", best=True),
    Setup("gevent, psycopg 3", "gevent", "psycopg+pool", best=True),
    Setup("gevent, psycopg2 in geventpool", "gevent", "psycopg2+geventpool", best=True),
    Setup("gthread, psycopg 3", "gthread", "psycopg+thread", best=True),
    Setup("gthread, psycopg2", "gthread", "psycopg2+thread", best=True),
    Setup("gevent, Django's defaults", "gevent", "psycopg+closed"),
    Setup("gthread, Django's defaults", "gthread", "psycopg+closed"),
)


def _command(setup: Setup, port: int, connections: int, peers: str) -> list[str]:
    if setup.server == OURS:
        twistd = Path(sys.executable).with_name("twistd")
        words = [str(twistd), "-n", "--pidfile=", "greenwsgi", "--app", _APP]
        return [*words, "--listen", f"tcp:{port}:interface=127.0.0.1"]
    words = [peers, "-m", "gunicorn", "--workers", "1", "--log-level", "warning"]
    words += ["--keep-alive", "120", "--bind", f"127.0.0.1:{port}"]
    if setup.server == "gevent":
        words += ["--worker-class", "gevent"]
    else:
        words += ["--worker-class", "gthread", "--threads", str(connections)]
    return [*words, _APP]


class Comparison:
    """The rounds of all setups and their results.

    Args:
        url: of an empty database.
        clients: number of concurrent clients.
        connections: most connections of a server to the database.
        seconds: duration of each measurement.
        peers: an interpreter that has gunicorn, gevent and the drivers.
        per_cpu: whether to divide by CPU time of the server instead of elapsed time.
    """

    def __init__(
        self,
        url: str,
        *,
        clients: int,
        connections: int,
        seconds: int,
        peers: str,
        per_cpu: bool,
    ) -> None:
        self._clients = clients
        self._connections = connections
        self._seconds = seconds
        self._peers = peers
        self._per_cpu = per_cpu
        self._variables = {
            "DJANGO_SITE_DATABASE": url,
            "DJANGO_SITE_CONNECTIONS": str(connections),
            "DJANGO_SITE_HOSTS": "127.0.0.1",
        }
        self._cookie = ""
        self.rates: dict[tuple[str, str], list[float]] = {}

    def fill(self) -> None:
        """Fill the database and log a user in."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.database_site"],
            env={**os.environ, **self._variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CannotMeasure(f"cannot fill the tables: {done.stderr[-2000:]}")
        self._cookie = f"Cookie: sessionid={done.stdout.split()[-1]}"

    @contextlib.contextmanager
    def serving(self, setup: Setup, cpu: int) -> Iterator[tuple[Process, int]]:
        """Run a server, check its pages, and yield it with its port."""
        port = free_port()
        variables = {**self._variables, "BENCHMARK_DATABASE": setup.database}
        command = _command(setup, port, self._connections, self._peers)
        with running(command, port, cpu, variables) as server:
            for path, _ in PAGES.values():
                self._check(port, path)
            yield server, port

    def measure(self, setup: Setup, page: str, server: Process, port: int) -> None:
        """Measure one page of one server once."""
        url = f"http://127.0.0.1:{port}{PAGES[page][0]}"
        before = server.cpu_seconds()
        counted = count_requests(
            url, self._clients, self._seconds, fields=[self._cookie]
        )
        if counted.remark:
            raise CannotMeasure(f"{setup.name}, {page}: {counted.remark}")
        used = server.cpu_seconds() - before
        rate = counted.count / (used if self._per_cpu else counted.seconds)
        self.rates.setdefault((setup.name, page), []).append(rate)
        line = f"{setup.name}, {page}: {rate:,.0f}/s, {used / counted.seconds:.0%} busy"
        print(f"  {line}", file=sys.stderr, flush=True)

    def _check(self, port: int, path: str) -> None:
        """Raise CannotMeasure unless the page is answered for the logged-in user."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        name, _, value = self._cookie.partition(": ")
        connection.request("GET", path, headers={name: value})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        if answer.status != 200 or "Log out user-0<" not in text:
            raise CannotMeasure(f"{path}: {answer.status} {text[-500:]}")

    def forget_first(self) -> None:
        """Discard the first round, which warms up."""
        self.rates = {key: rates[1:] for key, rates in self.rates.items()}

    def table(self, setups: Sequence[Setup], pages: Sequence[str]) -> str:
        """Return a table of medians, with how many times faster txgreenwsgi is."""
        lines = [f"| page | {' | '.join(setup.name for setup in setups)} |"]
        lines.append("|---|" + "---|" * len(setups))
        for page in pages:
            ours = self._best(page, [setup for setup in setups if setup.server == OURS])
            cells = []
            for setup in setups:
                rates = self.rates[setup.name, page]
                cell = f"{statistics.median(rates):,.0f}/s"
                if setup.server != OURS:
                    cell += f" ({_median_ratio(ours, rates):.2f})"
                cells.append(cell)
            lines.append(f"| {page}: {PAGES[page][1]} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def ratio(self, setups: Sequence[Setup], page: str) -> float:
        """Return how many times faster the best of ours is than the best peer."""
        ours = self._best(page, [setup for setup in setups if setup.server == OURS])
        peers = self._best(page, [setup for setup in setups if setup.server != OURS])
        return _median_ratio(ours, peers)

    def _best(self, page: str, setups: Sequence[Setup]) -> list[float]:
        """Return the rounds of the setup with the highest median.

        The best of each round would be biased: among equal setups, one is lucky.
        """
        return max(
            (self.rates[setup.name, page] for setup in setups), key=statistics.median
        )


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(one / other for one, other in pairs)


@contextlib.contextmanager
def _database(url: str) -> Iterator[str]:
    """Yield the URL given, or that of a temporary PostgreSQL."""
    if url:
        yield url
        return
    # The tests have the code that starts one.
    from tests.integration.services import PostgreSQL

    with PostgreSQL() as server:
        yield f"postgresql://postgres@127.0.0.1:{server.port}/postgres"


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.database_pages", description=__doc__
    )
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        default=sys.executable,
        help="an interpreter with gunicorn, gevent, psycopg[binary,pool], "
        "psycopg2-binary, psycogreen and django-db-geventpool (default: this one)",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        default="",
        help="an empty database (default: a temporary PostgreSQL)",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=int, default=2, help="duration of a measurement"
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument(
        "--connections", type=int, default=20, help="of each server to the database"
    )
    parser.add_argument(
        "--per-cpu",
        action="store_true",
        help="divide by CPU time of the server, for a machine with other load",
    )
    parser.add_argument("--pages", default=",".join(PAGES), metavar="NAME,...")
    parser.add_argument("--all", action="store_true", help="also Django's defaults")
    options = parser.parse_args()
    pages = options.pages.split(",")
    if unknown := set(pages) - set(PAGES):
        parser.error(
            f"--pages: unknown {', '.join(unknown)}; give some of {list(PAGES)}"
        )
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        parser.error("this process may use one CPU only: allow it two")
    # The database inherits this CPU; the servers are pinned to the other.
    os.sched_setaffinity(0, {cpus[1]})
    setups = [setup for setup in SETUPS if options.all or setup.best]
    try:
        with _database(options.database) as url:
            comparison = Comparison(
                url,
                clients=options.clients,
                connections=options.connections,
                seconds=options.seconds,
                peers=options.peers,
                per_cpu=options.per_cpu,
            )
            comparison.fill()
            with contextlib.ExitStack() as stack:
                # All run at once: idle servers cost nothing, and the measurements of
                # one round are only seconds apart, under the same other load.
                servers = [
                    stack.enter_context(comparison.serving(setup, cpus[0]))
                    for setup in setups
                ]
                for page in pages:
                    for number in range(-1, options.rounds):  # the first warms up
                        print(f"{page}, round {number + 1}", file=sys.stderr)
                        for setup, (server, port) in zip(setups, servers, strict=True):
                            comparison.measure(setup, page, server, port)
                comparison.forget_first()
    except CannotMeasure as error:
        print(f"benchmarks.database_pages: {error}", file=sys.stderr)
        return 1
    print(comparison.table(setups, pages))
    for page in pages:
        print(f"{page}: {comparison.ratio(setups, page):.2f} x the best peer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
