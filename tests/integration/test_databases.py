"""Database drivers and `ConnectionPool` in interrupted tasks, with real servers."""

from __future__ import annotations

import atexit
import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .processes import CHECKOUT
from .services import MariaDB, PostgreSQL

if TYPE_CHECKING:
    from .services import Service

__all__ = ["ProgramTestCase"]

_PROGRAMS = "tests.integration.database_programs"
#: Fifty sequential queries of one second would take fifty seconds.
MOST_SECONDS = 25.0
_DRIVERS = {"psycopg": PostgreSQL, "psycopg2": PostgreSQL, "pymysql": MariaDB}


class ProgramTestCase(SynchronousTestCase):
    """Tests of `database_programs.py`; the tests of a class share one server."""

    _running: Service | None = None

    @classmethod
    def service(cls, driver: str) -> Service:
        """Return the driver's server; the first call starts it."""
        wanted = _DRIVERS[driver]
        if cls._running is None:
            service = wanted()
            cls._running = service.__enter__()
            # trial calls no tearDownClass.
            atexit.register(service.__exit__, None, None, None)
        assert isinstance(cls._running, wanted), "one class, one kind of server"
        return cls._running

    def run_program(
        self, program: str, driver: str, *needed: str, **environ: str
    ) -> list[str]:
        """Run a program to its end and return the words that it printed."""
        for package in (driver, *needed):
            if importlib.util.find_spec(package) is None:
                raise SkipTest(f"{package} is not installed")
        port = str(self.service(driver).port)
        patched = [sys.executable, "-m", "txgreenwsgi.monkey"]
        done = subprocess.run(
            [*patched, "-m", _PROGRAMS, program, driver, port],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environ},
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        words = done.stdout.split()
        self.assertEqual(words[-1], "done", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return words


class PostgreSQLTests(ProgramTestCase):
    """psycopg 3 with its C and its Python implementation, and psycopg2."""

    def test_concurrency(self) -> None:
        """Fifty queries of one second take little more than one second together."""
        for driver in ("psycopg", "psycopg2"):
            seconds = float(self.run_program("at_once", driver)[1])
            self.assertLess(seconds, MOST_SECONDS, driver)

    def test_python_code(self) -> None:
        """Psycopg 3 waits in the same way without its C implementation."""
        python = {"PSYCOPG_IMPL": "python"}
        seconds = float(self.run_program("at_once", "psycopg", **python)[1])
        self.assertLess(seconds, MOST_SECONDS)
        self.run_program("interrupted", "psycopg", **python)

    def test_interrupted_psycopg(self) -> None:
        """An interrupted query ends at the server; its connection remains usable."""
        self.run_program("interrupted", "psycopg")

    def test_interrupted_at_the_end(self) -> None:
        """A late cancellation never ends the next query, with an old libpq either."""
        for implementation in ("", "python"):
            self.run_program(
                "interrupted_at_the_end", "psycopg", PSYCOPG_IMPL=implementation
            )

    def test_other_operations(self) -> None:
        """Copies, pipelines, server-side cursors, notifications can be interrupted."""
        self.run_program("other_operations", "psycopg")
        self.run_program("other_operations", "psycopg", PSYCOPG_IMPL="python")

    def test_unanswered(self) -> None:
        """A server that ignores the cancellation request blocks no other task."""
        self.run_program("unanswered", "psycopg")
        self.run_program("unanswered", "psycopg", PSYCOPG_IMPL="python")
        self.run_program("unanswered", "psycopg2")

    def test_interrupted_psycopg2(self) -> None:
        """An interrupted query ends at the server; its connection is closed."""
        self.run_program("interrupted", "psycopg2")

    def test_interrupted_connecting(self) -> None:
        """Interrupted connection attempts leave no open connection."""
        self.run_program("interrupted_connecting", "psycopg")
        self.run_program("interrupted_connecting", "psycopg2")

    def test_transfers(self) -> None:
        """Of 200 transfers, many interrupted, none is half done; pools are bounded."""
        self.run_program("transfers", "psycopg")
        self.run_program("transfers", "psycopg2")

    def test_adbapi(self) -> None:
        """Tasks wait for Twisted's `adbapi`, with green drivers too."""
        self.run_program("adbapi", "psycopg2")
        self.run_program("adbapi", "psycopg")


class MariaDBTests(ProgramTestCase):
    """PyMySQL."""

    def test_concurrency(self) -> None:
        """Fifty queries of one second take little more than one second together."""
        seconds = float(self.run_program("at_once", "pymysql")[1])
        self.assertLess(seconds, MOST_SECONDS)

    def test_interrupted(self) -> None:
        """The connection of an interrupted query is closed, and not used half-read."""
        self.run_program("interrupted", "pymysql")

    def test_interrupted_connecting(self) -> None:
        """Interrupted connection attempts leave no open connection."""
        self.run_program("interrupted_connecting", "pymysql")

    def test_transfers(self) -> None:
        """Of 200 transfers, many interrupted, none is half done; pools are bounded."""
        self.run_program("transfers", "pymysql")
