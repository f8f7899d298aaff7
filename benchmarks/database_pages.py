"""Pages that wait for PostgreSQL: ours against gunicorn's two ways to wait.

    python -m benchmarks.database_pages
    python -m benchmarks.database_pages --peers /path/to/python --rounds 7

The Django site of the examples, its user logged in: each page asks for session
and user, then for what it shows. Every server is one process on one CPU; the
database and the client share the other. All have as many connections to the
database, which are fewer than clients, and all keep them open: ours by its own
backend, gevent by django-db-geventpool or by Django's pool, threads one each. By
`--all` also as Django's defaults have it: a new connection for each request.
It starts a PostgreSQL of its own, or takes an empty database by `--database`.
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

#: What is asked for, and how many queries that is.
PAGES = {
    "post": ("/posts/1000", "one post with its files: 4 queries"),
    "slow": ("/slow", "the same after one that takes 50 ms: 5 queries"),
    "many": ("/many", "25 posts, each by a query of its own: 27 queries"),
    "list": ("/", "20 posts with authors and files in one table: 5 queries"),
}


@dataclass(frozen=True)
class Way:
    """A server with a driver and a way to keep connections.

    Attributes:
        name: its row.
        server: which command starts it.
        database: for `database_site/settings.py`.
        best: whether it is the best that was found for its server.
    """

    name: str
    server: str
    database: str
    best: bool = False


WAYS = (
    Way("txgreenwsgi, psycopg 3", OURS, "psycopg+green", best=True),
    Way("txgreenwsgi, psycopg2", OURS, "psycopg2+green", best=True),
    Way("gevent, psycopg 3", "gevent", "psycopg+pool", best=True),
    Way("gevent, psycopg2 in geventpool", "gevent", "psycopg2+geventpool", best=True),
    Way("gthread, psycopg 3", "gthread", "psycopg+thread", best=True),
    Way("gthread, psycopg2", "gthread", "psycopg2+thread", best=True),
    Way("gevent, Django's defaults", "gevent", "psycopg+closed"),
    Way("gthread, Django's defaults", "gthread", "psycopg+closed"),
)


def _command(way: Way, port: int, connections: int, peers: str) -> list[str]:
    if way.server == OURS:
        twistd = Path(sys.executable).with_name("twistd")
        words = [str(twistd), "-n", "--pidfile=", "greenwsgi", "--app", _APP]
        return [*words, "--listen", f"tcp:{port}:interface=127.0.0.1"]
    words = [peers, "-m", "gunicorn", "--workers", "1", "--log-level", "warning"]
    words += ["--keep-alive", "120", "--bind", f"127.0.0.1:{port}"]
    if way.server == "gevent":
        words += ["--worker-class", "gevent"]
    else:
        words += ["--worker-class", "gthread", "--threads", str(connections)]
    return [*words, _APP]


class Comparison:
    """Rounds of all ways, and what came of them.

    Args:
        url: of a database that may be filled.
        clients: how many ask at once.
        connections: how many to the database a server may have.
        seconds: how long each is asked for each page.
        peers: an interpreter that has gunicorn, gevent and the drivers.
        per_cpu: whether to count by the CPU time of the server.
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
        """Fill the database, and log a user in."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.database_site"],
            env={**os.environ, **self._variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CannotMeasure(f"the tables cannot be filled: {done.stderr[-2000:]}")
        self._cookie = f"Cookie: sessionid={done.stdout.split()[-1]}"

    @contextlib.contextmanager
    def serving(self, way: Way, cpu: int) -> Iterator[tuple[Process, int]]:
        """One of the servers, with its pages looked at; and its port."""
        port = free_port()
        variables = {**self._variables, "BENCHMARK_DATABASE": way.database}
        command = _command(way, port, self._connections, self._peers)
        with running(command, port, cpu, variables) as server:
            for path, _ in PAGES.values():
                self._check(port, path)
            yield server, port

    def measure(self, way: Way, page: str, server: Process, port: int) -> None:
        """One turn of one server, on one page."""
        url = f"http://127.0.0.1:{port}{PAGES[page][0]}"
        before = server.cpu_seconds()
        counted = count_requests(
            url, self._clients, self._seconds, fields=[self._cookie]
        )
        if counted.remark:
            raise CannotMeasure(f"{way.name}, {page}: {counted.remark}")
        used = server.cpu_seconds() - before
        rate = counted.count / (used if self._per_cpu else counted.seconds)
        self.rates.setdefault((way.name, page), []).append(rate)
        told = f"{way.name}, {page}: {rate:,.0f}/s, {used / counted.seconds:.0%} busy"
        print(f"  {told}", file=sys.stderr, flush=True)

    def _check(self, port: int, path: str) -> None:
        """See that the page is there, and the session's own."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        name, _, value = self._cookie.partition(": ")
        connection.request("GET", path, headers={name: value})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        if answer.status != 200 or "Log out user-0<" not in text:
            raise CannotMeasure(f"{path}: {answer.status} {text[-500:]}")

    def forget_first(self) -> None:
        """Leave out what was measured to warm up."""
        self.rates = {key: rates[1:] for key, rates in self.rates.items()}

    def table(self, ways: Sequence[Way], pages: Sequence[str]) -> str:
        """Medians of all rounds; behind each how many times faster our best is."""
        lines = [f"| page | {' | '.join(way.name for way in ways)} |"]
        lines.append("|---|" + "---|" * len(ways))
        for page in pages:
            ours = self._best(page, [way for way in ways if way.server == OURS])
            cells = []
            for way in ways:
                rates = self.rates[way.name, page]
                cell = f"{statistics.median(rates):,.0f}/s"
                if way.server != OURS:
                    cell += f" ({_median_ratio(ours, rates):.2f})"
                cells.append(cell)
            lines.append(f"| {page}: {PAGES[page][1]} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def ratio(self, ways: Sequence[Way], page: str) -> float:
        """How many times faster the best of ours is than the best of the peers."""
        ours = self._best(page, [way for way in ways if way.server == OURS])
        peers = self._best(page, [way for way in ways if way.server != OURS])
        return _median_ratio(ours, peers)

    def _best(self, page: str, ways: Sequence[Way]) -> list[float]:
        """The rounds of the one with the highest median.

        Not the best of each round: of many that are alike, one is always lucky.
        """
        return max((self.rates[way.name, page] for way in ways), key=statistics.median)


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(one / other for one, other in pairs)


@contextlib.contextmanager
def _database(url: str) -> Iterator[str]:
    """The database that was given, or one of our own for as long as it takes."""
    if url:
        yield url
        return
    # The tests know how to start one.
    from tests.integration.services import PostgreSQL

    with PostgreSQL() as server:
        yield f"postgresql://postgres@127.0.0.1:{server.port}/postgres"


def main() -> int:
    """Run what the command line asks for; give the exit status."""
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
    parser.add_argument("--database", metavar="URL", default="", help="an empty one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="for each turn")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--connections", type=int, default=20, help="to the database")
    parser.add_argument(
        "--per-cpu",
        action="store_true",
        help="count by the CPU time of the server, for a machine that others use",
    )
    parser.add_argument("--pages", default=",".join(PAGES), metavar="NAME,...")
    parser.add_argument("--all", action="store_true", help="also Django's defaults")
    said = parser.parse_args()
    pages = said.pages.split(",")
    if unknown := set(pages) - set(PAGES):
        parser.error(f"--pages: there is no {', '.join(unknown)}, but {list(PAGES)}")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        parser.error("one CPU is not enough: allow this process two")
    # What is started without a CPU of its own, the database too, is here.
    os.sched_setaffinity(0, {cpus[1]})
    ways = [way for way in WAYS if said.all or way.best]
    try:
        with _database(said.database) as url:
            comparison = Comparison(
                url,
                clients=said.clients,
                connections=said.connections,
                seconds=said.seconds,
                peers=said.peers,
                per_cpu=said.per_cpu,
            )
            comparison.fill()
            with contextlib.ExitStack() as stack:
                # All at once: idle they cost nothing, and so the turns of one
                # round are seconds apart, whatever else the machine does.
                servers = [
                    stack.enter_context(comparison.serving(way, cpus[0]))
                    for way in ways
                ]
                for page in pages:
                    for number in range(-1, said.rounds):  # the first warms up
                        print(f"{page}, round {number + 1}", file=sys.stderr)
                        for way, (server, port) in zip(ways, servers, strict=True):
                            comparison.measure(way, page, server, port)
                comparison.forget_first()
    except CannotMeasure as error:
        print(f"benchmarks.database_pages: {error}", file=sys.stderr)
        return 1
    print(comparison.table(ways, pages))
    for page in pages:
        print(f"{page}: {comparison.ratio(ways, page):.2f} x the best peer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
