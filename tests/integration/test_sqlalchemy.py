"""SQLAlchemy with its own pool, patched, with real servers."""

from __future__ import annotations

import importlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

from twisted.trial.unittest import SkipTest

from .processes import LOOPBACK, start
from .test_databases import ProgramTestCase


class PostgreSQLTests(ProgramTestCase):
    """SQLAlchemy over psycopg 3 and psycopg2."""

    def test_concurrency(self) -> None:
        """Fifty sessions share ten connections, and each session is isolated."""
        self.run_program("sqlalchemy_at_once", "psycopg", "sqlalchemy")
        self.run_program("sqlalchemy_at_once", "psycopg2", "sqlalchemy")

    def test_transfers(self) -> None:
        """Interrupted transfers leave no transaction open and no connection in use."""
        self.run_program("sqlalchemy_transfers", "psycopg", "sqlalchemy")
        self.run_program("sqlalchemy_transfers", "psycopg2", "sqlalchemy")

    def test_passed_on(self) -> None:
        """A connection returned to a cancelled waiter goes to the next waiter."""
        self.run_program("sqlalchemy_passes_on", "psycopg", "sqlalchemy")


class MariaDBTests(ProgramTestCase):
    """SQLAlchemy over PyMySQL."""

    def test_concurrency(self) -> None:
        """Fifty sessions share ten connections, and each session is isolated."""
        self.run_program("sqlalchemy_at_once", "pymysql", "sqlalchemy")

    def test_transfers(self) -> None:
        """Interrupted transfers leave no transaction open and no connection in use."""
        self.run_program("sqlalchemy_transfers", "pymysql", "sqlalchemy")


class FlaskTests(ProgramTestCase):
    """Flask-SQLAlchemy in the server: a session per request, however it ends."""

    def setUp(self) -> None:
        """Start a server whose requests are cancelled when their clients disconnect."""
        if find_spec("flask_sqlalchemy") is None:
            raise SkipTest("Flask-SQLAlchemy is not installed")
        self.database = self.service("psycopg")
        url = f"postgresql+psycopg://postgres@{LOOPBACK}:{self.database.port}/postgres"
        listen = f"--listen=tcp:0:interface={LOOPBACK}"
        self.server = start(
            self,
            "greenwsgi",
            "--app=tests.integration.flask_sqlalchemy_app:app",
            listen,
            "--on-disconnect=cancel",
            "--graceful-timeout=1",
            environ={"DATABASE_URL": url},
        )

    def state(self) -> dict[str, int]:
        """Return the application's statistics of its pool."""
        found: dict[str, int] = json.loads(self.server.fetch("/state").body)
        return found

    def busy(self) -> tuple[int, int]:
        """Return the database's numbers of in-transaction and busy connections."""
        psycopg: Any = importlib.import_module("psycopg")
        with psycopg.connect(
            f"host={LOOPBACK} port={self.database.port} user=postgres dbname=postgres"
        ) as connection:
            found: tuple[int, int] = connection.execute(
                "select count(*) filter (where state like 'idle in trans%'), "
                "count(*) filter (where state = 'active') from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> pg_backend_pid()"
            ).fetchone()
            return found

    def wait_until_idle(self) -> None:
        """Wait until no connection is in use."""
        until = time.monotonic() + 20
        while self.state()["in_use"] or self.busy() != (0, 0):
            self.assertLess(time.monotonic(), until, (self.state(), self.busy()))
            time.sleep(0.05)

    def wait_until_busy(self) -> None:
        """Wait until all connections run a query."""
        until = time.monotonic() + 20
        while self.state()["in_use"] < 5 or self.busy()[1] < 5:
            self.assertLess(time.monotonic(), until, "they never began")

    def test_stopped(self) -> None:
        """A server that stops leaves no query and no transaction at the database."""
        clients = [self.server.connect() for _ in range(12)]
        for number, client in enumerate(clients):
            request = f"GET /add/stopped{number}/60.0 HTTP/1.1\r\nHost: x\r\n\r\n"
            client.send(request.encode())
        self.wait_until_busy()
        self.server.ask_to_stop()
        self.server.wait_ended()
        until = time.monotonic() + 20
        while self.busy() != (0, 0):
            self.assertLess(time.monotonic(), until, self.busy())
        for client in clients:
            client.socket.close()

    def test_sessions(self) -> None:
        """Thirty requests share five connections, and each sees its own rows only."""
        wanted = [f"name{number}" for number in range(30)]
        with ThreadPoolExecutor(30) as threads:
            began = time.monotonic()
            answers = list(
                threads.map(
                    lambda name: self.server.fetch(f"/add/{name}/0.4").text, wanted
                )
            )
            seconds = time.monotonic() - began
        self.assertEqual(answers, wanted)
        self.assertGreater(seconds, 2.3)
        self.assertLess(seconds, 12.0)
        names = json.loads(self.server.fetch("/names").body)
        self.assertEqual(sorted(set(names) & set(wanted)), sorted(wanted))
        self.wait_until_idle()

    def test_disconnected(self) -> None:
        """A disconnect leaves no query, no transaction and no connection in use."""
        before = self.state()["torn_down"]
        clients = [self.server.connect() for _ in range(12)]
        for number, client in enumerate(clients):
            path = f"/add/gone{number}/60.0" if number % 2 else "/stream"
            client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.wait_until_busy()
        for client in clients:
            client.socket.close()
        self.wait_until_idle()
        names = json.loads(self.server.fetch("/names").body)
        self.assertEqual([name for name in names if "gone" in name], [])
        self.assertEqual([name for name in names if "streamed" in name], [])
        # All of the committed rows, and some of the uncommitted requests' names.
        self.assertGreaterEqual(self.state()["torn_down"], before + 12)
        self.assertEqual(self.server.fetch("/add/after/0.0").text, "after")
