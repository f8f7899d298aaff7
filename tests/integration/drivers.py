"""Database drivers: how to connect, and the server's statistics of connections.

Not a test module: `database_programs.py` uses it, in a task. It knows the drivers and
the servers' system views.
"""

from __future__ import annotations

import importlib
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from txgreenwsgi import sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi import Task

__all__ = [
    "ACCOUNTS",
    "DATABASES",
    "EACH",
    "Database",
    "MariaDB",
    "raised_by",
    "wait_until",
]

ACCOUNTS = 10
EACH = 100


class Database:
    """A driver and its server.

    Attributes:
        sleep: name of the SQL function that sleeps for some seconds.
        closes_when_interrupted: whether the driver then closes the connection.
        impatient: connect arguments that limit the wait for a silent server to
            two seconds.
    """

    sleep = "pg_sleep"
    closes_when_interrupted = False
    impatient: ClassVar[dict[str, int]] = {"connect_timeout": 2}
    url = "postgresql+{driver}://postgres@127.0.0.1:{port}/postgres"

    def __init__(self, driver: str, port: int) -> None:
        self.module: Any = importlib.import_module(driver)
        self.port = port
        self.url = self.url.format(driver=driver, port=port)
        self.made: WeakSet[Any] = WeakSet()
        self._watch: Any = None

    def connect(self, **options: Any) -> Any:
        """Return a new connection."""
        connection = self.module.connect(
            host="127.0.0.1",
            user="postgres",
            dbname="postgres",
            **{"port": self.port, **options},
        )
        self.made.add(connection)
        return connection

    def ask(self, sql: str) -> Any:
        """Return one row, read through a connection that is not counted."""
        if self._watch is None:
            self._watch = self.connect()
            self._watch.autocommit = True
        with closing(self._watch.cursor()) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def stop_asking(self) -> None:
        """Close the connection that is not counted."""
        watch, self._watch = self._watch, None
        if watch is not None and self.is_open(watch):
            watch.close()

    def connection_counts(self) -> tuple[int, int, int]:
        """Return the numbers of open, in-transaction and busy connections."""
        found: tuple[int, int, int] = self.ask(
            "select count(*), count(*) filter (where state like 'idle in trans%'), "
            "count(*) filter (where state = 'active') from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return found

    def count(self) -> int:
        """Return the number of open connections."""
        return self.connection_counts()[0]

    def open_connections(self) -> int:
        """Return the number of connections that this process has open.

        The server counts a connection until it detects the disconnect.
        """
        return sum(self.is_open(one) for one in self.made if one is not self._watch)

    def make_accounts(self) -> None:
        """Create ten accounts with 100 units each."""
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute("drop table if exists account")
            cursor.execute("create table account (id int primary key, money int)")
            for number in range(ACCOUNTS):
                cursor.execute(f"insert into account values ({number}, {EACH})")
            connection.commit()

    def is_open(self, connection: Any) -> bool:
        """Return whether the driver has kept the connection open."""
        return not connection.closed


class Psycopg2(Database):
    """psycopg2; it closes an interrupted connection."""

    closes_when_interrupted = True


class MariaDB(Database):
    """MariaDB with PyMySQL, which closes an interrupted connection."""

    sleep = "sleep"
    closes_when_interrupted = True
    # Its connect_timeout ends when the connection is accepted.
    impatient: ClassVar[dict[str, int]] = {"connect_timeout": 2, "read_timeout": 2}
    url = "mysql+pymysql://root@127.0.0.1:{port}/shop"

    def connect(self, **options: Any) -> Any:
        """Return a new connection."""
        connection = self.module.connect(
            host="127.0.0.1",
            user="root",
            # Else each connection loads the system's certificates, which takes 20 ms.
            ssl_disabled=True,
            **{"database": "shop", "port": self.port, **options},
        )
        self.made.add(connection)
        return connection

    def ask(self, sql: str) -> Any:
        """Return one row, read through a connection that is not counted."""
        if self._watch is None:
            self._watch = self.connect(autocommit=True)
        with closing(self._watch.cursor()) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def connection_counts(self) -> tuple[int, int, int]:
        """Return the numbers of open, in-transaction and busy connections."""
        found = self.ask(
            "select count(*), coalesce(sum(exists("
            "select 1 from information_schema.innodb_trx t "
            "where t.trx_mysql_thread_id = p.id)), 0), "
            "coalesce(sum(p.command = 'Query'), 0) "
            "from information_schema.processlist p "
            "where p.db = 'shop' and p.id <> connection_id()"
        )
        return int(found[0]), int(found[1]), int(found[2])

    def count(self) -> int:
        """Return the number of connections that this process has open."""
        return self.open_connections()

    def make_accounts(self) -> None:
        """Create ten accounts with 100 units each."""
        with closing(self.connect(database=None)) as connection:
            connection.cursor().execute("create database if not exists shop")
        super().make_accounts()

    def is_open(self, connection: Any) -> bool:
        """Return whether the driver has kept the connection open."""
        return bool(connection.open)


DATABASES: dict[str, type[Database]] = {
    "psycopg": Database,
    "psycopg2": Psycopg2,
    "pymysql": MariaDB,
}


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Poll until `condition` is true or the time is over; return its last value."""
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        # InnoDB answers from a cache that it refreshes only when it was not
        # queried for a tenth of a second.
        sleep(0.2)
    return found


def raised_by(task: Task[Any]) -> BaseException | None:
    """Return the exception that ended a task."""
    try:
        task.wait(60)
    except Exception as error:
        return error
    return None
