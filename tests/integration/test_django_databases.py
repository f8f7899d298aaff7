"""Django on real databases: concurrency, whole transactions, bounded connections.

The bank is served by another process. The numbers of connections and transactions are
the database servers' own.
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
from .processes import LOOPBACK, start, wait_for
from .services import MariaDB, PostgreSQL

if TYPE_CHECKING:
    from .processes import ServerProcess
    from .services import Service

POOL = 20
MOVES = 200
#: Fifty sequential waits of one second would take fifty seconds.
MOST_SECONDS = 25.0
REQUEST_SECONDS = 3.0
ACCOUNTS = 100
#: InnoDB's table of transactions is not brought up to date before it has been left
#: alone for a tenth of a second.
POLL_SECONDS = 0.2
#: "gone": the client disconnects; "late": the request exceeds its timeout.
FATES = [*[""] * 10, *["fail"] * 4, *["nested"] * 2, *["gone"] * 3, "late"]


class Bank:
    """A server of the bank, and its database."""

    engine = ""
    service: type[Service]
    driver = ""
    name = ""
    timeout = 240
    #: Further options of the server, and the prefixes of the paths of transfers.
    options: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("",)
    #: "clock" if the views sleep by time.sleep. The driver's waits of a thread, unlike
    #: those of a task, cannot be interrupted.
    sleeps = "database"
    #: Connections that threads have closed, and the database server still lists.
    closing = 0

    def setUp(self) -> None:
        """Start the database."""
        self.database = self.service()
        self.database.__enter__()
        self.addCleanup(self.database.__exit__, None, None, None)  # type: ignore[attr-defined]
        self.make_database()

    def make_database(self) -> None:
        """Create an empty database."""

    def serve(
        self,
        *options: str,
        size: int = POOL,
        reactor: str = "default",
        **environ: str,
    ) -> ServerProcess:
        """Serve the bank, with a pool of the given size."""
        return start(
            self,  # type: ignore[arg-type]
            f"--reactor={reactor}",
            "greenwsgi",
            "--app=tests.django.bank.wsgi:application",
            f"--listen=tcp:0:interface={LOOPBACK}",
            *self.options,
            *options,
            environ={
                "BANK_ENGINE": self.engine,
                "BANK_DRIVER": self.driver,
                "BANK_NAME": self.name,
                "BANK_PORT": str(self.database.port),
                "BANK_POOL": json.dumps({"max_size": size, "wait_timeout": 20}),
                "BANK_SLEEPS": self.sleeps,
                **environ,
            },
        )

    def connections(self) -> tuple[int, int, int]:
        """Return the numbers of open, in-transaction and querying connections."""
        raise NotImplementedError

    def settled(self, open_ones: int | None = None) -> tuple[int, int, int]:
        """Return `connections()` when all are idle, or after 20 seconds.

        Args:
            open_ones: the number of open ones to wait for; None for any.
        """
        until = time.monotonic() + 20
        while True:
            found = self.connections()
            expected = (found[0] if open_ones is None else open_ones, 0, 0)
            if found == expected or time.monotonic() > until:
                return found
            time.sleep(POLL_SECONDS)


def ask(server: ServerProcess, path: str) -> socket.socket:
    """Send a request; the caller reads the response later."""
    client = socket.create_connection((LOOPBACK, server.port), 30)
    client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    return client


def answer(client: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body; 0 if the server closed the connection first."""
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
    """Tests for every database; the classes below choose it."""

    def fetch(self, server: ServerProcess, path: str) -> Any:
        """Return the JSON at `path`."""
        got = server.fetch(path)
        self.assertEqual(got.status, 200, server.log())  # type: ignore[attr-defined]
        return json.loads(got.body)

    def test_concurrency(self) -> None:
        """Fifty views that wait one second for the database overlap."""
        server = self.serve(size=50)
        # Django asks the server for its version once, and imports the views.
        answer(ask(server, "/slow?seconds=0"))
        began = time.monotonic()
        clients = [ask(server, "/slow?seconds=1") for _ in range(50)]
        got = [answer(client) for client in clients]
        seconds = time.monotonic() - began
        self.assertEqual([status for status, _ in got], [200] * 50, server.log())  # type: ignore[attr-defined]
        self.assertLess(seconds, MOST_SECONDS)  # type: ignore[attr-defined]

    def test_money(self) -> None:
        """Each of 200 interleaved transfers is done completely or not at all.

        Requests fail, their clients disconnect, or they time out. Afterwards no
        connection is in a transaction, and at no time are there more connections than
        the pool allows.
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
                f"{dice.choice(self.prefixes)}/move?source={source}&target={target}"
                f"&amount={dice.randint(1, 50)}"
                f"&sleep={seconds}{word}",
            )
            if fate == "gone" and dice.random() < 0.5:
                client.close()
            clients.append((fate, client))
        statuses: dict[str, list[int]] = {}
        with ThreadPoolExecutor(1) as pool:
            watching = True

            def watch() -> int:
                seen = before = 0
                while watching:
                    # A server counts a connection until it has read its end.
                    now = self.connections()[0]
                    seen, before = max(seen, min(before, now)), now
                    time.sleep(0.05)
                return seen

            watcher = pool.submit(watch)
            time.sleep(0.5)
            for fate, client in clients:
                if fate == "gone":
                    client.close()
            for fate, client in clients:
                if fate != "gone":
                    statuses.setdefault(fate, []).append(answer(client)[0])
            watching = False
            most = watcher.result()
        self.settled()
        # The request timeout holds for this request too, after all the others.
        sums = server.wait_for(
            lambda: got if (got := server.fetch("/sums")).status == 200 else None,
            "the sums",
        )
        found = json.loads(sums.body)
        self.assertEqual(found["total"], ACCOUNTS * 1000)  # type: ignore[attr-defined]
        self.assertTrue(found["as_told"], found)  # type: ignore[attr-defined]
        moved = sum(status == 200 for each in statuses.values() for status in each)
        self.assertGreaterEqual(found["moves"], moved)  # type: ignore[attr-defined]
        self.assertGreater(moved, 0)  # type: ignore[attr-defined]
        self.assertEqual(set(statuses["fail"]) - {500, 504}, set())  # type: ignore[attr-defined]
        self.assertEqual(set(statuses["late"]), {504})  # type: ignore[attr-defined]
        self.assertLessEqual(most, POOL + self.closing)  # type: ignore[attr-defined]
        self.assertEqual(self.settled()[1:], (0, 0), server.log())  # type: ignore[attr-defined]
        statistics = self.fetch(server, "/pool")["default"]
        self.assertLessEqual(statistics["size"], POOL)  # type: ignore[attr-defined]
        self.assertLessEqual(statistics["in_use"], 1)  # type: ignore[attr-defined]


class MoreTests(BankTests):
    """Further tests, run with one driver of each database."""

    def prepared(self, *options: str, **keywords: Any) -> ServerProcess:
        """Return a server of the bank, with accounts."""
        server = self.serve(*options, **keywords)
        self.assertEqual(server.fetch("/prepare").status, 200, server.log())  # type: ignore[attr-defined]
        return server

    def assert_at_rest(self, server: ServerProcess) -> None:
        """Check that all connections are idle, outside transactions and unused."""
        self.assertEqual(self.settled()[1:], (0, 0), server.log())  # type: ignore[attr-defined]
        # A connection is returned after its last query.
        server.wait_for(
            lambda: self.fetch(server, "/pool")["default"]["in_use"] == 0,
            "no connection in use",
        )

    def test_streamed(self) -> None:
        """A response streamed from rows returns its connection at its end.

        Also if its client disconnects during the response.
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
        """Fifty `async` views wait concurrently, under the asyncio reactor too."""
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
            self.assertLess(seconds, MOST_SECONDS)  # type: ignore[attr-defined]
            self.assertEqual(server.fetch("/later_stream").text, "1\n2\n3\n")  # type: ignore[attr-defined]
            self.assert_at_rest(server)
            self.assertNotIn("SynchronousOnlyOperation", server.log())  # type: ignore[attr-defined]
            server.kill()
            self.forget()

    def forget(self) -> None:
        """Drop the tables."""
        raise NotImplementedError

    def test_atomic_requests(self) -> None:
        """With ATOMIC_REQUESTS, a failed or interrupted view has no effect."""
        server = self.prepared(
            "--request-timeout=12", "--on-disconnect=cancel", BANK_ATOMIC="1"
        )
        clients = [ask(server, "/spend?fail") for _ in range(5)]
        gone = [ask(server, "/spend?sleep=30") for _ in range(5)]
        time.sleep(0.5)
        for client in gone:
            client.close()
        # They all lock the same row.
        self.assertEqual({answer(client)[0] for client in clients}, {500})  # type: ignore[attr-defined]
        late = ask(server, "/spend?sleep=30")
        self.assertEqual(answer(late)[0], 504)  # type: ignore[attr-defined]
        self.assertEqual(server.fetch("/spend").status, 200)  # type: ignore[attr-defined]
        self.assertEqual(self.fetch(server, "/sums")["total"], ACCOUNTS * 1000 - 1)  # type: ignore[attr-defined]
        self.assert_at_rest(server)

    def test_closed_connections(self) -> None:
        """After the server has closed the idle connections, no request fails."""
        server = self.prepared()
        clients = [ask(server, "/slow?seconds=0.5") for _ in range(10)]
        self.assertEqual({answer(client)[0] for client in clients}, {200})  # type: ignore[attr-defined]
        self.end_connections()
        wait_for(lambda: not self.connections()[0], "closed connections")
        clients = [ask(server, "/sums") for _ in range(10)]
        self.assertEqual({answer(client)[0] for client in clients}, {200})  # type: ignore[attr-defined]

    def end_connections(self) -> None:
        """Close all connections of the bank at the database server."""
        raise NotImplementedError

    def test_stop(self) -> None:
        """A server that stops leaves no connection and no query at the database."""
        server = self.prepared("--graceful-timeout=0.5")
        clients = [
            ask(server, f"/move?source={n}&target={n + 10}&amount=1&sleep=30")
            for n in range(1, 6)
        ]
        time.sleep(0.5)
        server.ask_to_stop()
        server.wait_ended()
        # On a busy machine, requests may exceed the grace of a second and be cut off.
        answers = {answer(client)[0] for client in clients}
        self.assertLessEqual(answers, {503, 0})  # type: ignore[attr-defined]
        self.assertEqual(self.settled(open_ones=0), (0, 0, 0))  # type: ignore[attr-defined]


class PostgreSQLBank(MoreTests):
    """PostgreSQL, with its own statistics of connections."""

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
        """Return a connection of the test's own."""
        return pymysql.connect(
            host=LOOPBACK,
            port=self.database.port,
            user="root",
            autocommit=True,
            **keywords,
        )

    def make_database(self) -> None:
        """Create an empty database."""
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


class PsycopgInThreadsTests(PostgreSQLBank, SynchronousTestCase):
    """By psycopg 3, with every request in a thread."""

    options = ("--threads-for=all", "--threads=4")
    sleeps = "clock"
    closing = 4


class PsycopgMixedTests(PostgreSQLBank, SynchronousTestCase):
    """By psycopg 3, with some requests in threads and others in tasks."""

    options = ("--threads-for=/threads/*", "--threads=4")
    prefixes = ("", "/threads")
    sleeps = "clock"
    closing = 4


class PyMySQLMixedTests(PyMySQLTests):
    """By PyMySQL, with some requests in threads and others in tasks."""

    options = ("--threads-for=/threads/*", "--threads=4")
    prefixes = ("", "/threads")
    sleeps = "clock"
    closing = 4


class SQLiteTests(SynchronousTestCase):
    """SQLite, with a thread for each connection."""

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
        """Transfers that wait for each other's locks block no other request.

        The sum of money does not change, and there are no more connections than the
        pool allows.
        """
        # It holds the lock while it waits; meanwhile the server answers.
        first = ask(self.server, "/move?source=1&target=2&amount=5&sleep=5")
        time.sleep(0.3)
        moves = [
            ask(self.server, f"/move?source={1 + n % 9}&target={n % 80 + 11}&amount=2")
            for n in range(60)
        ]
        began = time.monotonic()
        self.assertIn(b'"default"', self.server.fetch("/pool").body)
        self.assertLess(time.monotonic() - began, 4.5)
        statuses = [answer(client)[0] for client in (first, *moves)]
        if django.VERSION >= (5, 1):
            self.assertEqual(set(statuses), {200}, self.server.log())
        found = json.loads(self.server.fetch("/sums").body)
        self.assertEqual(found["total"], ACCOUNTS * 1000)
        self.assertEqual(found["moves"], statuses.count(200))
        self.assertTrue(found["as_told"])

        def statistics() -> Any:
            return json.loads(self.server.fetch("/pool").body)["default"]

        self.assertLessEqual(statistics()["size"], 5)
        # A connection is returned after the response.
        self.server.wait_for(
            lambda: statistics()["in_use"] == 0, "no connection in use"
        )

    def test_stop(self) -> None:
        """The server stops, with its threads, while a request waits for a lock."""
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
    """How a PyMySQL connection learns of its end."""

    def test_cause_of_the_end(self) -> None:
        """An interrupted wait leaves the server busy; a lost connection leaves it idle.

        This also holds if the handler of another interrupted wait made the query.
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
