"""Isolation of Django's per-thread state by task, without patching."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from asgiref.local import Local
from django.db import DatabaseError, connection, connections, transaction
from twisted.trial.unittest import SynchronousTestCase

from tests.switching.clocked import ClockTestCase
from txgreenwsgi import Cancelled, sleep, spawn
from txgreenwsgi.isolation import isolate_loaded, namespace_count
from txgreenwsgi.testing import LeakCheckMixin

from .project import application, caches, held

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi.testing import MemoryServer


def open_one() -> Any:
    """Return the driver's connection of the current task, opened if needed."""
    connection.ensure_connection()
    return connection.connection


def is_closed(raw: Any) -> bool:
    """Return whether a connection of sqlite3 is closed."""
    try:
        raw.total_changes  # noqa: B018 - it raises
    except Exception:
        return True
    return False


class ConnectionTests(ClockTestCase):
    """`django.db.connections`, on Django's own backend."""

    def test_own(self) -> None:
        """Concurrent tasks have separate connections."""

        def view() -> Any:
            raw = open_one()
            sleep(1)
            self.assertIs(connection.connection, raw)
            return raw

        tasks = [self.start(view) for _ in range(2)]
        self.clock.advance(1)
        first, second = (self.result_of(task) for task in tasks)
        self.assertIsNot(first, second)

    def test_transactions(self) -> None:
        """A transaction in one task is invisible to others."""

        def begin() -> None:
            with transaction.atomic():
                sleep(2)

        self.start(begin)
        seen = self.start(lambda: connection.in_atomic_block)
        self.assertFalse(self.result_of(seen))
        self.clock.advance(2)

    def test_elsewhere(self) -> None:
        """The main thread and other threads have their own connections."""
        self.addCleanup(connections.close_all)
        mine = open_one()
        found: list[Any] = []
        theirs = self.start(open_one)

        def in_thread() -> None:
            found.append(open_one())
            connections.close_all()

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        self.assertIs(connection.connection, mine)
        self.assertFalse(is_closed(mine))
        raws = [mine, found[0], self.result_of(theirs)]
        self.assertEqual(len({id(raw) for raw in raws}), 3)

    def test_children(self) -> None:
        """A spawned task has its own connection."""

        def child() -> Any:
            return open_one()

        def parent() -> tuple[Any, Any]:
            raw = open_one()
            other = spawn(child).wait()
            self.assertFalse(is_closed(raw))
            return raw, other

        task = self.start(parent)
        self.turn(2)
        raw, other = self.result_of(task)
        self.assertIsNot(raw, other)
        self.assertTrue(is_closed(other))

    def test_lent_by_mistake(self) -> None:
        """Using the connection of another task raises DatabaseError."""
        lent: list[Any] = []

        def lender() -> None:
            lent.append(connections["default"])
            open_one()
            sleep(2)

        def borrower() -> None:
            lent[0].cursor()

        self.start(lender)
        error = self.error_of(self.start(borrower), DatabaseError)
        self.assertIn("can only be used in that same thread", str(error))
        self.clock.advance(2)

    def test_lent_on_purpose(self) -> None:
        """A connection shared by Django's API is closed by its owner."""
        lent: list[Any] = []

        def lender() -> bool:
            mine = connections["default"]
            mine.inc_thread_sharing()
            raw = open_one()
            lent.append(mine)
            sleep(2)
            mine.dec_thread_sharing()
            return is_closed(raw)

        def borrower() -> Any:
            connections["default"] = lent[0]
            with connection.cursor() as cursor:
                return cursor.execute("SELECT 7").fetchone()[0]

        owner = self.start(lender)
        self.assertEqual(self.result_of(self.start(borrower)), 7)
        self.clock.advance(2)
        self.assertFalse(self.result_of(owner))
        self.assertTrue(is_closed(lent[0].connection or lent[0]))

    def test_dropped(self) -> None:
        """The connections of a task are dropped at its end."""
        for _ in range(3):
            self.result_of(self.start(open_one))
        self.assertEqual(namespace_count(connections), 0)

    def test_delete(self) -> None:
        """`del connections[alias]` removes the connection of the current task only."""
        self.addCleanup(connections.close_all)
        mine = connections["default"]

        def view() -> list[str]:
            before = connections["default"]
            del connections["default"]
            self.assertIsNot(connections["default"], before)
            before.close()
            with self.assertRaises(AttributeError):
                del connections["pooled"]
            return [one.alias for one in connections.all(initialized_only=True)]

        self.assertEqual(self.result_of(self.start(view)), ["default"])
        self.assertIs(connections["default"], mine)


class EndTests(ClockTestCase):
    """The connections of a task are closed in the task before it ends."""

    def assert_closed(self, end: Callable[[], object]) -> None:
        """Assert that a task that opens a connection and ends by `end` closes it."""
        raws: list[Any] = []

        def view() -> None:
            raws.append(open_one())
            end()

        task = self.start(view)
        self.clock.advance(1)
        if not task.done:
            task.cancel()
        self.assertTrue(task.done)
        task.deferred().addErrback(lambda _: None)
        self.assertTrue(is_closed(raws[0]))

    def test_return(self) -> None:
        """A task that returns closes its connections."""
        self.assert_closed(lambda: None)

    def test_raise(self) -> None:
        """A task that raises closes its connections."""
        self.assert_closed(lambda: 1 / 0)

    def test_exit(self) -> None:
        """A task that raises SystemExit closes its connections."""
        self.assert_closed(sys.exit)

    def test_cancel(self) -> None:
        """A cancelled task that parks once more closes its connections at its end."""

        def wait() -> None:
            try:
                sleep(100)
            except Cancelled:
                sleep(0.5)

        raws: list[Any] = []

        def view() -> None:
            raws.append(open_one())
            wait()

        task = self.start(view)
        task.cancel()
        self.assertFalse(is_closed(raws[0]))
        self.clock.advance(0.5)
        self.assertTrue(task.done)
        self.assertTrue(is_closed(raws[0]))

    def test_in_transaction(self) -> None:
        """A task cancelled in a transaction rolls back and closes its connection."""

        def view() -> None:
            with transaction.atomic():
                raws.append(connection.connection)
                sleep(100)

        raws: list[Any] = []
        task = self.start(view)
        task.cancel()
        self.error_of(task, Cancelled)
        self.assertTrue(is_closed(raws[0]))

    def test_kill(self) -> None:
        """A task killed at the stop of the reactor closes its connections."""
        raws: list[Any] = []

        def view() -> None:
            with transaction.atomic():
                raws.append(connection.connection)
                sleep(100)

        self.start(view)
        self.hub.close()
        self.assertTrue(is_closed(raws[0]))

    def test_one_that_fails(self) -> None:
        """A failure to close one connection is logged; the others are closed."""
        raws: list[Any] = []

        class Stubborn:
            def close(self) -> None:
                raise OSError("stuck")

        def view() -> None:
            connections["stubborn"] = Stubborn()
            raws.append(open_one())

        self.result_of(self.start(view))
        self.assertTrue(is_closed(raws[0]))
        (failure,) = self.flushLoggedErrors(OSError)
        self.assertEqual(failure.getErrorMessage(), "stuck")

    def test_closing_that_waits(self) -> None:
        """Closing may park, and a cancellation does not interrupt it."""
        done: list[str] = []

        class Slow:
            def close(self) -> None:
                sleep(2)
                done.append("closed")

        def view() -> None:
            connections["slow"] = Slow()

        task = self.start(view)
        self.assertFalse(task.done)
        task.cancel()
        self.clock.advance(1)
        self.assertEqual((done, task.done), ([], False))
        self.clock.advance(1)
        self.assertEqual((done, task.done), (["closed"], True))
        self.result_of(task)


class LocalTests(ClockTestCase):
    """asgiref's `Local`, which Django uses."""

    def test_critical(self) -> None:
        """A thread-critical `Local` is separate in each task."""
        local = Local(thread_critical=True)
        local.value = "main"

        def view(value: str) -> tuple[Any, Any]:
            before = getattr(local, "value", None)
            local.value = value
            sleep(1)
            return before, local.value

        tasks = [self.start(view, value) for value in "ab"]
        self.clock.advance(1)
        self.assertEqual(
            [self.result_of(task) for task in tasks], [(None, "a"), (None, "b")]
        )
        self.assertEqual(local.value, "main")

    def test_caches(self) -> None:
        """Concurrent tasks have separate cache objects."""

        def view() -> int:
            cache = caches["default"]
            sleep(1)
            self.assertIs(caches["default"], cache)
            return id(cache)

        tasks = [self.start(view) for _ in range(2)]
        self.clock.advance(1)
        self.assertEqual(len({self.result_of(task) for task in tasks}), 2)


class LaterTests(SynchronousTestCase):
    """Modules imported after `isolate_loaded()`."""

    def test_import_later(self) -> None:
        """Django imported later is isolated too."""
        code = (
            "from txgreenwsgi.isolation import isolate_loaded, is_isolated\n"
            "isolate_loaded()\n"
            "import sys; assert 'django' not in sys.modules\n"
            "from django.db import connections\n"
            "from django.core.cache import caches\n"
            "import django.db.backends.base.base as base, asgiref.local, inspect\n"
            "from txgreenwsgi._parking import locks, task_local\n"
            "print(is_isolated(connections), is_isolated(caches),\n"
            "      base._thread.get_ident is locks.get_ident,\n"
            "      asgiref.local.threading.local is task_local.local,\n"
            "      'class Local' in inspect.getsource(asgiref.local))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.stdout.split(), ["True"] * 5, done.stderr)

    def test_again(self) -> None:
        """A second call is a no-op."""
        before = sys.meta_path[:]
        default = connections["default"]
        isolate_loaded()
        self.assertEqual(sys.meta_path, before)
        self.assertIs(connections["default"], default)

    def test_nothing_loaded(self) -> None:
        """It does not import Django or asgiref."""
        code = (
            "import txgreenwsgi, sys\n"
            "txgreenwsgi.isolation.isolate_loaded()\n"
            "print('django' in sys.modules, 'asgiref' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", "import txgreenwsgi.isolation\n" + code],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.stdout.split(), ["False", "False"], done.stderr)


class RequestTests(LeakCheckMixin, SynchronousTestCase):
    """Concurrent requests, on one clock."""

    def setUp(self) -> None:
        """Serve the project."""
        held.clear()
        self.server: MemoryServer = self.serve(application)

    def ask(self, target: str, **headers: str) -> Any:
        """Send a request and return its client."""
        client = self.server.connect()
        lines = [f"GET {target} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        client.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        return client

    def test_transactions(self) -> None:
        """Fifty concurrent requests each see only their own transaction."""
        clients = [self.ask("/transactions") for _ in range(50)]
        self.server.advance(1)
        for client in clients:
            (response,) = client.responses()
            self.assertEqual(response.body, b"[false, true, 1, false]")

    def test_mixed(self) -> None:
        """Language, time zone, messages, URLconf and caches are per request."""
        import json

        clients = [self.ask(f"/mine?number={number}") for number in range(50)]
        for _ in range(6):
            self.server.advance(1)
        for number, client in enumerate(clients):
            (response,) = client.responses()
            self.assertEqual(
                json.loads(response.body),
                {
                    "language": ("en", "de", "fr")[number % 3],
                    "yes": ("Yes", "Ja", "Oui")[number % 3],
                    "zone": (
                        ("Europe/Berlin", "Asia/Tokyo", "America/New_York", "UTC")[
                            number % 4
                        ]
                    ),
                    "urlconf": f"urlconf{number}",
                    "prefix": "/",
                    "messages": [f"message {number}"],
                    "same_cache": True,
                    "debug": bool(number % 2),
                },
            )

    def test_stream(self) -> None:
        """A streamed response keeps its transaction until it is complete."""
        client = self.ask("/stream")
        self.server.advance(1)
        other = self.ask("/transactions")
        for _ in range(3):
            self.server.advance(1)
        (response,) = client.responses()
        self.assertEqual(response.body, b"True\n" * 3)
        (response,) = other.responses()
        self.assertEqual(response.body, b"[false, true, 1, false]")

    def test_client_gone(self) -> None:
        """A disconnect during a streamed response ends its transaction at once."""
        client = self.ask("/stream")
        self.server.advance(1)
        client.disconnect()
        self.assertEqual(self.server.tasks, [])

    def test_timeout(self) -> None:
        """A request timeout answers 504 and closes the database connection."""
        server = self.serve(application, request_timeout=2.0)
        self.server = server
        client = self.ask("/hold")
        for _ in range(3):
            server.advance(1)
        (response,) = client.responses()
        self.assertEqual(response.status, 504)
        self.assertTrue(is_closed(held[0]))

    def test_disconnect(self) -> None:
        """With `on_disconnect="cancel"` a disconnect ends the transaction."""
        self.server = self.serve(application, on_disconnect="cancel")
        client = self.ask("/hold")
        self.assertFalse(is_closed(held[0]))
        client.disconnect()
        self.assertTrue(is_closed(held[0]))
        self.assertEqual(self.server.tasks, [])

    def test_no_response(self) -> None:
        """The connection of a view that raises SystemExit is closed."""
        client = self.ask("/stay")
        (response,) = client.responses()
        self.assertEqual(response.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)
        self.assertTrue(is_closed(held[0]))

    def test_stop(self) -> None:
        """A request ended by shutdown leaves no connection open."""
        self.ask("/hold")
        self.server.site.stop(1)
        for _ in range(3):
            self.server.advance(1)
        self.assertTrue(is_closed(held[0]))
