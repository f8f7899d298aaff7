"""Real clients, patched, against real servers: at once, not one after the other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, TestCase

from .services import MariaDB, Memcached, PostgreSQL, Redis

if TYPE_CHECKING:
    from .services import Service

_PROGRAM = Path(__file__).with_name("green_clients.py")
#: 200 waits of a second, one after the other, take 200 seconds.
MOST_SECONDS = 20.0


class ClientTests(TestCase):
    """200 calls from 200 threads, which are tasks, take the time of the slowest."""

    timeout = 240

    def check(self, name: str, service: type[Service] | None, package: str) -> None:
        """Run the program `name` against `service`."""
        if importlib.util.find_spec(package) is None:
            raise SkipTest(f"{package} is not installed")
        if service is None:
            self.run_program(name, 0)
        else:
            with service() as running:
                self.run_program(name, running.port)

    def run_program(self, name: str, port: int) -> None:
        """Run it, and see how long it took."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "txgreenwsgi.monkey",
                str(_PROGRAM),
                name,
                str(port),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        words = done.stdout.split()
        self.assertEqual(words[-1], "done", done.stderr)
        self.assertLess(float(words[1]), MOST_SECONDS)

    def test_http_client(self) -> None:
        """http.client, and the standard threading server that answers it."""
        self.check("http_client", None, "http")

    def test_requests(self) -> None:
        """Requests on urllib3; a read timeout leaves the session usable."""
        self.check("requests", None, "requests")

    def test_redis(self) -> None:
        """redis-py; a timeout leaves the pool usable."""
        self.check("redis", Redis, "redis")

    def test_memcached(self) -> None:
        """Pymemcache."""
        self.check("memcached", Memcached, "pymemcache")

    def test_pymysql(self) -> None:
        """PyMySQL on MariaDB; after a timeout the connection is made anew."""
        self.check("pymysql", MariaDB, "pymysql")

    def test_psycopg(self) -> None:
        """Psycopg 3 on PostgreSQL."""
        self.check("psycopg", PostgreSQL, "psycopg")

    def test_psycopg2(self) -> None:
        """psycopg2 on PostgreSQL, by its wait callback."""
        self.check("psycopg2", PostgreSQL, "psycopg2")
