"""A pooled backend: taking and returning connections, and their state.

The backend of `tests.django.plain` never parks by itself; all waits here are for the
pool.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from django.core.signals import request_finished
from django.db import OperationalError, ProgrammingError, connections, transaction
from django.db.utils import ConnectionHandler

from tests.switching.clocked import ClockTestCase
from txgreenwsgi import Cancelled, sleep
from txgreenwsgi.django import pool_statistics
from txgreenwsgi.django.pooled import close_pools

from . import project
from .plain.base import DatabaseWrapper

if TYPE_CHECKING:
    from txgreenwsgi import Task
    from txgreenwsgi.pools import PoolStatistics

assert project.FOLDER.is_dir(), "Django is set up by it"

ALIAS = "pooled"


class PooledTests(ClockTestCase):
    """Connections of tasks and of threads."""

    def setUp(self) -> None:
        """Start with an empty pool."""
        super().setUp()
        close_pools(ALIAS)
        DatabaseWrapper.pings = 0
        DatabaseWrapper.dead = set()
        self.used: list[Any] = []
        self.addCleanup(connections.close_all)
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS kept")
            cursor.execute("CREATE TABLE kept (id integer)")
        connections[ALIAS].close()

    def assert_closed(self, raw: Any) -> None:
        """Assert that a connection of sqlite3 is closed."""
        self.assertRaises(sqlite3.ProgrammingError, getattr, raw, "total_changes")

    def insert(self) -> None:
        """Insert a row."""
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("INSERT INTO kept VALUES (1)")

    def kept(self) -> int:
        """Return the number of rows."""
        with connections[ALIAS].cursor() as cursor:
            count: int = cursor.execute("SELECT count(*) FROM kept").fetchone()[0]
            return count

    @property
    def statistics(self) -> PoolStatistics:
        """The statistics of the pool."""
        return pool_statistics()[ALIAS]

    def use(self, seconds: float = 0) -> Any:
        """Use a connection for some seconds and return the driver's connection."""
        connection = connections[ALIAS]
        connection.ensure_connection()
        raw = connection.connection
        self.used.append(raw)
        if seconds:
            sleep(seconds)
        return raw

    def test_reuse(self) -> None:
        """The next task reuses a returned connection."""
        first = self.result_of(self.start(self.use))
        second = self.result_of(self.start(self.use))
        self.assertIs(first, second)
        found = self.statistics
        self.assertEqual((found.made, found.taken, found.idle), (1, 2, 1))

    def test_bounded(self) -> None:
        """At most max_size connections are open; other tasks wait."""
        tasks = [self.start(self.use, 1) for _ in range(6)]
        for _ in range(3):
            found = self.statistics
            self.assertEqual((found.size, found.in_use), (2, 2))
            self.clock.advance(1)
        raws = {id(self.result_of(task)) for task in tasks}
        self.assertEqual((len(raws), self.statistics.made), (2, 2))

    def test_close(self) -> None:
        """`connection.close()` returns the connection before the task ends."""

        def view() -> None:
            self.use()
            connections[ALIAS].close()
            sleep(10)

        tasks = [self.start(view) for _ in range(5)]
        self.assertEqual((self.statistics.made, self.statistics.in_use), (1, 0))
        self.clock.advance(10)
        for task in tasks:
            self.result_of(task)

    def test_wait_timeout(self) -> None:
        """After `wait_timeout` the task gets an OperationalError with the remedy."""
        holders = [self.start(self.use, 100) for _ in range(2)]
        late = self.start(self.use)
        self.clock.advance(5)
        error = self.error_of(late, OperationalError)
        text = str(error)
        for word in ("'pooled'", "max_size=2", "after 5 seconds", "green_pool"):
            self.assertIn(word, text)
        self.assertEqual(self.statistics.timeouts, 1)
        self.end(*holders)

    def end(self, *tasks: Task[Any]) -> None:
        """Cancel some tasks."""
        for task in tasks:
            task.cancel()
            self.error_of(task, Cancelled)

    def test_cancelled_while_waiting(self) -> None:
        """A task cancelled in the wait queue takes no connection with it."""
        holders = [self.start(self.use, 1) for _ in range(2)]
        self.end(self.start(self.use))
        self.clock.advance(1)
        for holder in holders:
            self.result_of(holder)
        self.assertEqual((self.statistics.idle, self.statistics.waiting), (2, 0))

    def test_left_in_transaction(self) -> None:
        """A connection returned in a transaction is closed."""

        def view() -> None:
            atomic = transaction.atomic(using=ALIAS)
            atomic.__enter__()
            connections[ALIAS].close()

        self.result_of(self.start(view))
        found = self.statistics
        self.assertEqual((found.size, found.discarded), (0, 1))

    def test_cut_in_transaction(self) -> None:
        """A task cancelled in a transaction rolls back and returns its connection."""

        def view() -> None:
            with transaction.atomic(using=ALIAS):
                self.insert()
                sleep(100)

        self.end(self.start(view))
        self.assertEqual(self.result_of(self.start(self.kept)), 0)
        self.assertEqual((self.statistics.in_use, self.statistics.made), (0, 1))

    def test_autocommit_restored(self) -> None:
        """A transaction begun by `set_autocommit(False)` ends with the task."""

        def view() -> None:
            connection = connections[ALIAS]
            connection.set_autocommit(False)
            self.insert()
            self.assertTrue(connection.connection.in_transaction)

        def look() -> tuple[bool, bool, int]:
            raw = self.use()
            return connections[ALIAS].get_autocommit(), raw.in_transaction, self.kept()

        self.result_of(self.start(view))
        self.assertEqual(self.result_of(self.start(look)), (True, False, 0))
        self.assertEqual(self.statistics.made, 1)

    def test_error(self) -> None:
        """A connection on which a query failed is closed on its return."""

        def view() -> None:
            try:
                with connections[ALIAS].cursor() as cursor:
                    cursor.execute("SELECT nonsense")
            except OperationalError:
                return

        self.result_of(self.start(view))
        self.assertEqual(self.statistics.discarded, 1)

    def test_old_cursor(self) -> None:
        """A cursor is closed when its connection is returned."""

        def view() -> None:
            cursor = connections[ALIAS].cursor()
            cursor.execute("SELECT 1")
            connections[ALIAS].close()
            self.assertRaises(ProgrammingError, cursor.execute, "SELECT 2")

        self.result_of(self.start(view))
        self.assertEqual(self.statistics.idle, 1)

    def test_in_atomic_block_no_other(self) -> None:
        """In an atomic block whose connection was closed, none is taken again."""

        def view() -> None:
            with (
                self.assertRaises(ProgrammingError),
                transaction.atomic(using=ALIAS),
            ):
                connections[ALIAS].close()
                connections[ALIAS].cursor()

        self.result_of(self.start(view))
        self.assertEqual(self.statistics.made, 1)

    def test_health_check(self) -> None:
        """With CONN_HEALTH_CHECKS a dead idle connection is replaced."""
        settings = connections[ALIAS].settings_dict
        settings["CONN_HEALTH_CHECKS"] = True
        self.addCleanup(settings.__setitem__, "CONN_HEALTH_CHECKS", False)
        first = self.result_of(self.start(self.use))
        again = self.result_of(self.start(self.use))
        self.assertIs(first, again)
        self.assertEqual(DatabaseWrapper.pings, 1)
        DatabaseWrapper.dead.add(id(first))
        self.assertIsNot(self.result_of(self.start(self.use)), first)
        self.assertEqual(self.statistics.discarded, 1)

    def test_handed_over(self) -> None:
        """With CONN_HEALTH_CHECKS a dead connection is not handed to a waiter."""
        settings = connections[ALIAS].settings_dict
        settings["CONN_HEALTH_CHECKS"] = True
        self.addCleanup(settings.__setitem__, "CONN_HEALTH_CHECKS", False)
        holders = [self.start(self.use, 1), self.start(self.use, 2)]
        waiter = self.start(self.use)
        DatabaseWrapper.dead.update(id(raw) for raw in self.used)
        self.clock.advance(1)
        raw = self.result_of(holders[0])
        self.assertIsNot(self.result_of(waiter), raw)
        self.assert_closed(raw)
        self.clock.advance(1)
        # Without a waiter the connection is not checked on its return.
        self.assertEqual(DatabaseWrapper.pings, 1)
        self.result_of(holders[1])

    def test_elsewhere(self) -> None:
        """The main thread and other threads connect and close without the pool."""
        raws = [self.use()]
        connections[ALIAS].close()

        def in_thread() -> None:
            raws.append(self.use())
            connections.close_all()

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        for raw in raws:
            self.assert_closed(raw)
        self.assertNotIn(ALIAS, pool_statistics())

    def test_no_pool(self) -> None:
        """With `green_pool` False each task opens its own connection."""
        handler = ConnectionHandler(
            {
                "default": {
                    "ENGINE": "tests.django.plain",
                    "NAME": project.FOLDER / "other.sqlite3",
                    "OPTIONS": {"green_pool": False},
                }
            }
        )

        def view() -> Any:
            handler["default"].ensure_connection()
            return handler["default"].connection

        first, second = (self.result_of(self.start(view)) for _ in range(2))
        self.assertIsNot(first, second)
        self.assertNotIn("default", pool_statistics())

    def test_many_databases(self) -> None:
        """Changing the name of the database changes the pool."""
        settings = connections[ALIAS].settings_dict
        first = self.result_of(self.start(self.use))
        name = settings["NAME"]
        settings["NAME"] = project.FOLDER / "test.sqlite3"
        self.addCleanup(settings.__setitem__, "NAME", name)
        self.assertIsNot(self.result_of(self.start(self.use)), first)

    def test_close_pool(self) -> None:
        """`close_pool` closes idle connections now and others on their return."""
        idle = self.start(self.use)
        task = self.start(self.use, 1)
        other = self.start(self.use, 0.5)
        self.clock.advance(0.5)
        connections[ALIAS].close_pool()
        self.assertRaises(
            sqlite3.ProgrammingError, getattr, self.result_of(other), "total_changes"
        )
        self.clock.advance(0.5)
        self.assertRaises(
            sqlite3.ProgrammingError, getattr, self.result_of(task), "total_changes"
        )
        self.result_of(idle)

    def test_request_finished(self) -> None:
        """At the end of a request the connection is returned at once."""

        def view() -> int:
            self.use()
            request_finished.send(sender=None)
            return self.statistics.in_use

        self.assertEqual(self.result_of(self.start(view)), 0)
