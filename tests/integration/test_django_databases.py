"""Django on real databases: at once, whole transactions, and no connection too many.

The bank is served by a process of its own. What the databases say of connections
and transactions is asked of the databases themselves.
"""

from __future__ import annotations

import json
import random
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import psycopg
import pymysql
from twisted.trial.unittest import SynchronousTestCase

from .children import ChildTestCase
from .processes import LOOPBACK, start
from .services import MariaDB, PostgreSQL

if TYPE_CHECKING:
    from .processes import ServerProcess
    from .services import Service

POOL = 20
MOVES = 200
#: Fifty waits of a second take fifty seconds, one after the other.
MOST_SECONDS = 2.0
REQUEST_SECONDS = 3.0
ACCOUNTS = 100
#: "gone": the client goes away; "late": it takes longer than a request may.
FATES = [*[""] * 10, *["fail"] * 4, *["nested"] * 2, *["gone"] * 3, "late"]


class Bank:
    """The bank, served, and its database."""

    engine = ""
    service: type[Service]
    driver = ""
    name = ""
    timeout = 240

    def setUp(self) -> None:
        """Start the database."""
        self.database = self.service()
        self.database.__enter__()
        self.addCleanup(self.database.__exit__, None, None, None)  # type: ignore[attr-defined]
        self.make_database()

    def make_database(self) -> None:
        """Make an empty one."""

    def serve(
        self,
        *options: str,
        size: int = POOL,
        reactor: str = "default",
        **environ: str,
    ) -> ServerProcess:
        """Serve the bank, with a pool of so many connections."""
        return start(
            self,  # type: ignore[arg-type]
            f"--reactor={reactor}",
            "greenwsgi",
            "--app=tests.django.bank.wsgi:application",
            f"--listen=tcp:0:interface={LOOPBACK}",
            *options,
            environ={
                "BANK_ENGINE": self.engine,
                "BANK_DRIVER": self.driver,
                "BANK_NAME": self.name,
                "BANK_PORT": str(self.database.port),
                "BANK_POOL": json.dumps({"max_size": size, "wait_timeout": 20}),
                **environ,
            },
        )

    def connections(self) -> tuple[int, int, int]:
        """How many there are, in a transaction, and with a query that runs."""
        raise NotImplementedError


def ask(server: ServerProcess, path: str) -> socket.socket:
    """Send a request, and leave the response for later."""
    client = socket.create_connection((LOOPBACK, server.port), 30)
    client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    return client


def answer(client: socket.socket) -> tuple[int, bytes]:
    """The status and the body; 0 if the server hung up before."""
    data = b""
    with client:
        while True:
            try:
                block = client.recv(65536)
            except ConnectionResetError:
                break
            if not block:
                break
            data += block
    if not data:
        return 0, b""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


class BankTests(Bank):
    """What holds on every database; the classes below say which."""

    def fetch(self, server: ServerProcess, path: str) -> Any:
        """The JSON at `path`."""
        got = server.fetch(path)
        self.assertEqual(got.status, 200, server.log())  # type: ignore[attr-defined]
        return json.loads(got.body)

    def test_at_once(self) -> None:
        """Fifty views that wait a second for the database take less than two."""
        server = self.serve(size=50)
        # Django asks the server for its version once, and imports its pages.
        answer(ask(server, "/slow?seconds=0"))
        began = time.monotonic()
        clients = [ask(server, "/slow?seconds=1") for _ in range(50)]
        got = [answer(client) for client in clients]
        seconds = time.monotonic() - began
        self.assertEqual([status for status, _ in got], [200] * 50, server.log())  # type: ignore[attr-defined]
        self.assertLess(seconds, MOST_SECONDS)  # type: ignore[attr-defined]

    def test_money(self) -> None:
        """Of 200 interleaved moves, each is done whole or not at all.

        Whatever becomes of the requests: they fail, their clients go away, their
        time is up. Afterwards no connection is in a transaction, and at no time
        are there more of them than the pool allows.
        """
        server = self.serve(
            f"--request-timeout={REQUEST_SECONDS}", "--on-disconnect=cancel"
        )
        self.assertEqual(server.fetch("/prepare").status, 200, server.log())  # type: ignore[attr-defined]
        dice = random.Random(20)
        most = 0
        clients: list[tuple[str, socket.socket]] = []
        for _ in range(MOVES):
            fate = dice.choice(FATES)
            source, target = dice.sample(range(1, ACCOUNTS + 1), 2)
            seconds = {"late": 30.0, "gone": 1.0}.get(fate, dice.random() / 50)
            word = f"&{fate}" if fate in ("fail", "nested") else ""
            client = ask(
                server,
                f"/move?source={source}&target={target}&amount={dice.randint(1, 50)}"
                f"&sleep={seconds}{word}",
            )
            if fate == "gone" and dice.random() < 0.5:
                client.close()
            clients.append((fate, client))
        told: dict[str, list[int]] = {}
        with ThreadPoolExecutor(1) as pool:
            watching = True

            def watch() -> int:
                seen = 0
                while watching:
                    seen = max(seen, self.connections()[0])
                    time.sleep(0.02)
                return seen

            watcher = pool.submit(watch)
            time.sleep(0.5)
            for fate, client in clients:
                if fate == "gone":
                    client.close()
            for fate, client in clients:
                if fate != "gone":
                    told.setdefault(fate, []).append(answer(client)[0])
            watching = False
            most = watcher.result()
        found = self.fetch(server, "/sums")
        self.assertEqual(found["total"], ACCOUNTS * 1000)  # type: ignore[attr-defined]
        self.assertTrue(found["as_told"], found)  # type: ignore[attr-defined]
        moved = sum(status == 200 for each in told.values() for status in each)
        self.assertGreaterEqual(found["moves"], moved)  # type: ignore[attr-defined]
        self.assertGreater(moved, 0)  # type: ignore[attr-defined]
        self.assertEqual(set(told["fail"]) - {500, 504}, set())  # type: ignore[attr-defined]
        self.assertEqual(set(told["late"]), {504})  # type: ignore[attr-defined]
        self.assertLessEqual(most, POOL)  # type: ignore[attr-defined]
        until = time.monotonic() + 5
        while self.connections()[1:] != (0, 0) and time.monotonic() < until:
            time.sleep(0.1)
        self.assertEqual(self.connections()[1:], (0, 0), server.log())  # type: ignore[attr-defined]
        statistics = self.fetch(server, "/pool")["default"]
        self.assertLessEqual(statistics["size"], POOL)  # type: ignore[attr-defined]
        self.assertLessEqual(statistics["in_use"], 1)  # type: ignore[attr-defined]


class MoreTests(BankTests):
    """What need be tried with one driver of each database only."""

    def prepared(self, *options: str, **keywords: Any) -> ServerProcess:
        """The bank, with accounts."""
        server = self.serve(*options, **keywords)
        self.assertEqual(server.fetch("/prepare").status, 200, server.log())  # type: ignore[attr-defined]
        return server

    def assert_at_rest(self, server: ServerProcess) -> None:
        """No connection is busy or in a transaction, none is in use."""
        until = time.monotonic() + 5
        while self.connections()[1:] != (0, 0) and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(self.connections()[1:], (0, 0), server.log())  # type: ignore[attr-defined]
        statistics = self.fetch(server, "/pool")["default"]
        self.assertEqual(statistics["in_use"], 0, server.log())  # type: ignore[attr-defined]

    def test_streamed(self) -> None:
        """A response that is made of rows as they are read gives all back at its end.

        Also if its client goes away in the midst of it.
        """
        server = self.prepared()
        whole = [ask(server, "/listing") for _ in range(10)]
        broken = [ask(server, "/listing?sleep=0.2") for _ in range(10)]
        for client in whole:
            status, body = answer(client)
            self.assertEqual((status, body.count(b" 1000\n")), (200, ACCOUNTS))  # type: ignore[attr-defined]
        for client in broken:
            client.recv(100)
            client.close()
        self.assert_at_rest(server)

    def test_async(self) -> None:
        """Fifty `async` views wait at the same time, under asyncio's reactor too."""
        for reactor in ("default", "asyncio"):
            server = self.prepared(reactor=reactor)
            answer(ask(server, "/later"))
            began = time.monotonic()
            clients = [ask(server, "/later?sleep=1") for _ in range(50)]
            for client in clients:
                status, body = answer(client)
                self.assertEqual(status, 200, server.log())  # type: ignore[attr-defined]
                self.assertEqual(  # type: ignore[attr-defined]
                    json.loads(body), {"accounts": ACCOUNTS, "balance": 1000}
                )
            seconds = time.monotonic() - began
            self.assertLess(seconds, 10)  # type: ignore[attr-defined]
            self.assertEqual(server.fetch("/later_stream").text, "1\n2\n3\n")  # type: ignore[attr-defined]
            self.assert_at_rest(server)
            self.assertNotIn("SynchronousOnlyOperation", server.log())  # type: ignore[attr-defined]
            server.kill()
            self.forget()

    def forget(self) -> None:
        """Drop the tables."""
        raise NotImplementedError

    def test_atomic_requests(self) -> None:
        """With ATOMIC_REQUESTS a view that fails, or is cut short, has done nothing."""
        server = self.prepared(
            "--request-timeout=2", "--on-disconnect=cancel", BANK_ATOMIC="1"
        )
        clients = [ask(server, "/spend?fail") for _ in range(5)]
        gone = [ask(server, "/spend?sleep=30") for _ in range(5)]
        time.sleep(0.5)
        for client in gone:
            client.close()
        # They all want the same row.
        self.assertEqual({answer(client)[0] for client in clients}, {500})  # type: ignore[attr-defined]
        late = ask(server, "/spend?sleep=30")
        self.assertEqual(answer(late)[0], 504)  # type: ignore[attr-defined]
        self.assertEqual(server.fetch("/spend").status, 200)  # type: ignore[attr-defined]
        self.assertEqual(self.fetch(server, "/sums")["total"], ACCOUNTS * 1000 - 1)  # type: ignore[attr-defined]
        self.assert_at_rest(server)

    def test_connections_lost(self) -> None:
        """When the server has ended the idle connections, no request fails of it."""
        server = self.prepared()
        clients = [ask(server, "/slow?seconds=0.5") for _ in range(10)]
        self.assertEqual({answer(client)[0] for client in clients}, {200})  # type: ignore[attr-defined]
        self.end_connections()
        while self.connections()[0]:
            time.sleep(0.01)
        clients = [ask(server, "/sums") for _ in range(10)]
        self.assertEqual({answer(client)[0] for client in clients}, {200})  # type: ignore[attr-defined]

    def end_connections(self) -> None:
        """Have the database end all of the bank's."""
        raise NotImplementedError

    def test_stop(self) -> None:
        """A server that stops leaves no connection and no query behind."""
        server = self.prepared("--graceful-timeout=0.5")
        clients = [
            ask(server, f"/move?source={n}&target={n + 10}&amount=1&sleep=30")
            for n in range(1, 6)
        ]
        time.sleep(0.5)
        server.ask_to_stop()
        server.wait_ended()
        # Who is not answered within a second is cut off, on a busy machine.
        answers = {answer(client)[0] for client in clients}
        self.assertLessEqual(answers, {503, 0})  # type: ignore[attr-defined]
        until = time.monotonic() + 5
        while self.connections() != (0, 0, 0) and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(self.connections(), (0, 0, 0))  # type: ignore[attr-defined]


class PostgreSQLBank(MoreTests):
    """PostgreSQL says itself who is connected."""

    engine = "txgreenwsgi.django.backends.postgresql"
    service = PostgreSQL
    name = "postgres"

    def connections(self) -> tuple[int, int, int]:
        """From pg_stat_activity."""
        with psycopg.connect(
            host=LOOPBACK, port=self.database.port, user="postgres", autocommit=True
        ) as connection:
            row = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in%'),"
                " count(*) FILTER (WHERE state = 'active') FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone()
        assert row is not None
        return row[0], row[1], row[2]

    def execute(self, query: str) -> None:
        """Run a statement."""
        with psycopg.connect(
            host=LOOPBACK, port=self.database.port, user="postgres", autocommit=True
        ) as connection:
            connection.execute(query.encode())

    def forget(self) -> None:
        """Drop the tables."""
        self.execute("DROP TABLE move, account")

    def end_connections(self) -> None:
        """By pg_terminate_backend."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


class PsycopgTests(PostgreSQLBank, SynchronousTestCase):
    """By psycopg 3."""


class Psycopg2Tests(PostgreSQLBank, SynchronousTestCase):
    """By psycopg2."""

    driver = "psycopg2"


class PyMySQLTests(MoreTests, SynchronousTestCase):
    """MariaDB, by PyMySQL."""

    engine = "txgreenwsgi.django.backends.mysql"
    service = MariaDB
    name = "bank"

    def connect(self, **keywords: Any) -> Any:
        """A connection of the test's own."""
        return pymysql.connect(
            host=LOOPBACK,
            port=self.database.port,
            user="root",
            autocommit=True,
            **keywords,
        )

    def make_database(self) -> None:
        """Make an empty one."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE bank")

    def connections(self) -> tuple[int, int, int]:
        """From information_schema."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT COUNT(*), COALESCE(SUM(command <> 'Sleep'), 0)"
                " FROM information_schema.processlist WHERE db = 'bank'"
            )
            (count, busy) = cursor.fetchone()
            cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx")
            (transactions,) = cursor.fetchone()
        return int(count), int(transactions), int(busy)

    def forget(self) -> None:
        """Drop the tables."""
        with self.connect(database="bank") as connection:
            connection.cursor().execute("DROP TABLE move, account")

    def end_connections(self) -> None:
        """By KILL."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE db = 'bank'"
            )
            for (number,) in cursor.fetchall():
                cursor.execute(f"KILL {number}")


class SQLiteTests(SynchronousTestCase):
    """SQLite, each connection in a thread of its own."""

    def setUp(self) -> None:
        """Serve the bank on a file."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.server = start(
            self,
            "greenwsgi",
            "--app=tests.django.bank.wsgi:application",
            f"--listen=tcp:0:interface={LOOPBACK}",
            "--graceful-timeout=1",
            environ={
                "BANK_ENGINE": "txgreenwsgi.django.backends.sqlite3",
                "BANK_NAME": str(Path(folder.name, "bank.sqlite3")),
                "BANK_POOL": '{"max_size": 5}',
            },
        )
        self.assertEqual(self.server.fetch("/prepare").status, 200, self.server.log())

    def test_money(self) -> None:
        """Moves that wait for each other's locks keep nobody else waiting.

        Money is neither made nor lost, and there are no more connections than the
        pool allows.
        """
        # It holds the lock while it waits, and the server answers all the same.
        first = ask(self.server, "/move?source=1&target=2&amount=5&sleep=3")
        time.sleep(0.3)
        moves = [
            ask(self.server, f"/move?source={1 + n % 9}&target={n % 80 + 11}&amount=2")
            for n in range(60)
        ]
        began = time.monotonic()
        self.assertIn(b'"default"', self.server.fetch("/pool").body)
        self.assertLess(time.monotonic() - began, 2.5)
        statuses = [answer(client)[0] for client in (first, *moves)]
        if django.VERSION >= (5, 1):
            self.assertEqual(set(statuses), {200}, self.server.log())
        found = json.loads(self.server.fetch("/sums").body)
        self.assertEqual(found["total"], ACCOUNTS * 1000)
        self.assertEqual(found["moves"], statuses.count(200))
        self.assertTrue(found["as_told"])
        statistics = json.loads(self.server.fetch("/pool").body)["default"]
        self.assertLessEqual(statistics["size"], 5)
        self.assertEqual(statistics["in_use"], 0)

    def test_stop(self) -> None:
        """The server ends, threads and all, while somebody waits for a lock."""
        clients = [
            ask(self.server, f"/move?source={n}&target={n + 1}&amount=5&sleep=30")
            for n in range(1, 4)
        ]
        time.sleep(0.5)
        self.server.ask_to_stop()
        self.server.wait_ended()
        for client in clients:
            client.close()


class CutShortTests(ChildTestCase):
    """What a connection of PyMySQL knows of its end."""

    def test_who_cut_it(self) -> None:
        """A wait that ended early leaves the server busy; a lost server is idle.

        Even where the query is made by who handles the end of another wait.
        """
        output, _ = self.run_program(
            """
            from pymysql import OperationalError
            from txgreenwsgi import TimedOut
            from txgreenwsgi.django.backends.mysql.base import Connection

            class Socket:
                def __init__(self, error):
                    self.error = error
                def settimeout(self, seconds):
                    pass
                def sendall(self, data):
                    raise self.error
                def close(self):
                    pass

            def is_cut_short(error):
                connection = Connection(defer_connect=True)
                connection._sock = Socket(error)
                connection._rfile = connection._current_timeout = None
                try:
                    connection.query("SELECT 1")
                except OperationalError:
                    return connection.cut_short

            print(is_cut_short(TimedOut("cut")), is_cut_short(OSError("lost")))
            try:
                raise TimedOut("of another")
            except TimedOut:
                print(is_cut_short(TimedOut("cut")), is_cut_short(OSError("lost")))
            """
        )
        self.assertEqual(output.split(), ["True", "False", "True", "False"])
