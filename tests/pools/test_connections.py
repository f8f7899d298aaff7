"""The state of connections: age, checks, resets, and closing."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.green.clock import result_of
from txgreenwsgi import (
    Cancelled,
    ClientDisconnected,
    RequestTimeout,
    TimedOut,
    sleep,
    timeout,
)
from txgreenwsgi.pools import ConnectionPool, was_interrupted

from .databases import Connection
from .test_taking import PoolTestCase


class AgeTests(PoolTestCase):
    """`max_age` and `max_idle`."""

    def test_too_old_when_given_back(self) -> None:
        """A connection older than `max_age` is closed on its return."""
        self.pool = self.make_pool(max_age=10)
        taken = self.pool.take()
        self.clock.advance(11)
        self.pool.give_back(taken)
        self.assertEqual(self.database.calls, ["close 1"])
        self.assertEqual(self.counts("size", "discarded"), (0, 1))

    def test_too_old_when_taken(self) -> None:
        """An idle connection older than `max_age` is replaced, within `max_size`."""
        self.pool = self.make_pool(max_size=1, max_age=10, max_idle=None)
        self.pool.give_back(self.pool.take())
        self.clock.advance(11)
        self.assertEqual(self.pool.take().number, 2)
        self.assertEqual(self.database.most, 1)

    def test_too_long_idle(self) -> None:
        """A connection idle for too long is closed when another is returned."""
        first, second = self.pool.take(), self.pool.take()
        self.pool.give_back(first)
        self.clock.advance(700)
        self.pool.give_back(second)
        self.assertEqual(self.database.open, [second])

    def test_long_in_use(self) -> None:
        """The idle time restarts with each use."""
        self.pool.give_back(self.pool.take())
        self.clock.advance(500)
        taken = self.pool.take()
        self.clock.advance(500)
        self.pool.give_back(taken)
        self.assertEqual(self.database.open, [taken])

    def test_no_limit(self) -> None:
        """None means no limit."""
        self.pool = self.make_pool(max_age=None, max_idle=None)
        self.pool.give_back(self.pool.take())
        self.clock.advance(10**9)
        self.assertEqual(self.pool.take().number, 1)


class CheckTests(PoolTestCase):
    """`check`, which finds dead idle connections."""

    def setUp(self) -> None:
        """Make a pool with a check."""
        super().setUp()
        self.pool = self.make_pool(max_size=1, check=Connection.ping)

    def test_only_what_was_idle(self) -> None:
        """New connections, and those handed over directly, are not checked."""
        taken = self.pool.take()
        self.clock.spawn(self.use, "next")
        self.pool.give_back(taken)
        self.clock.advance(1)
        self.assertEqual(self.database.calls, [])
        taken = self.pool.take()
        self.assertEqual(self.database.calls, ["ping 1"])
        self.clock.spawn(self.use, "next")
        self.pool.give_back(taken)
        self.clock.advance(1)
        self.assertEqual(self.uses, [("next", 1)] * 2)
        self.assertEqual(self.database.calls, ["ping 1"])

    def test_dead_connection_is_replaced(self) -> None:
        """`take` replaces a dead idle connection."""
        dead = self.pool.take()
        self.pool.give_back(dead)
        dead.is_dead = True
        self.assertEqual(self.pool.take().number, 2)
        self.assertEqual(self.database.calls, ["ping 1", "close 1"])
        self.assertEqual(self.counts("made", "discarded", "size"), (2, 1, 1))
        self.assertEqual(self.database.most, 1)

    def test_while_something_else_is_handled(self) -> None:
        """A dead connection is replaced also while the caller handles a `TimedOut`."""
        dead = self.pool.take()
        self.pool.give_back(dead)
        dead.is_dead = True
        try:
            raise TimedOut("an earlier wait")
        except TimedOut:
            self.assertEqual(self.pool.take().number, 2)

    def test_cancelled_while_checking(self) -> None:
        """A connection is closed if its check is cancelled."""
        self.pool.give_back(self.pool.take())
        self.database.ping_seconds = 5
        task = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")
        task.cancel()
        self.clock.settle()
        self.assertRaises(Cancelled, result_of, task)
        self.assertEqual(self.uses, [("second", 2)])
        self.assertEqual(self.database.calls, ["ping 1", "close 1"])

    def test_wrapped_by_the_driver(self) -> None:
        """An interruption is recognized behind the driver's own exception."""

        def check(connection: Connection) -> None:
            try:
                sleep(5)
            except OSError as error:
                raise LookupError("lost connection during query") from error

        self.pool = self.make_pool(max_size=1, check=check)
        self.pool.give_back(self.pool.take())

        def hurried() -> None:
            with timeout(1):
                self.pool.take()

        task = self.clock.spawn(hurried)
        self.clock.advance(1)
        self.assertRaises(LookupError, result_of, task)
        self.assertEqual(self.counts("size", "made"), (0, 1))


class BlockTests(PoolTestCase):
    """`with pool.connection()`."""

    def end_by(self, error: BaseException) -> Connection:
        """Raise `error` in a block and return its connection."""
        found = []
        with contextlib.suppress(type(error)), self.pool.connection() as connection:
            found.append(connection)
            connection.in_transaction = True
            raise error
        return found[0]

    def test_any_exception_without_reset(self) -> None:
        """Without `reset`, any exception in the block closes the connection."""
        self.assertFalse(self.end_by(ValueError("no")).is_open)
        self.assertEqual(self.counts("size", "discarded"), (0, 1))

    def test_application_error_with_reset(self) -> None:
        """With `reset`, a connection survives exceptions other than interruptions."""
        self.pool = self.make_pool(reset=Connection.rollback)
        connection = self.end_by(ValueError("no"))
        self.assertTrue(connection.is_open)
        self.assertFalse(connection.in_transaction)
        self.assertIs(self.pool.take(), connection)

    def test_while_something_else_is_handled(self) -> None:
        """An interruption handled around the block does not close its connection."""
        self.pool = self.make_pool(reset=Connection.rollback)
        try:
            raise TimedOut("an earlier wait")
        except TimedOut:
            self.assertTrue(self.end_by(ValueError("no")).is_open)

    def test_interrupted(self) -> None:
        """Each kind of interruption closes the connection."""
        self.pool = self.make_pool(reset=Connection.rollback)
        for error in (
            Cancelled("c"),
            TimedOut("t"),
            ClientDisconnected("d"),
            RequestTimeout("r"),
            KeyboardInterrupt(),
            SystemExit(1),
        ):
            self.assertFalse(self.end_by(error).is_open, error)
        self.assertEqual(self.counts("size", "discarded"), (0, 6))

    def test_reset_after_success(self) -> None:
        """A transaction left open by a block is rolled back."""
        self.pool = self.make_pool(reset=Connection.rollback)
        with self.pool.connection() as connection:
            connection.in_transaction = True
        self.assertFalse(connection.in_transaction)

    def test_reset_fails(self) -> None:
        """A connection whose reset fails is closed; the block does not raise."""
        self.pool = self.make_pool(reset=Connection.rollback)
        with self.pool.connection() as connection:
            connection.is_dead = True
        self.assertEqual(self.database.open, [])
        self.assertEqual(self.counts("size", "discarded"), (0, 1))

    def test_killed(self) -> None:
        """The pool drops the connection of a killed task."""
        self.database.close_seconds = 1  # a killed task cannot park for it
        task = self.clock.spawn(self.use, "killed", 60)
        task.kill()
        self.clock.settle()
        self.assertEqual(self.counts("size", "in_use"), (0, 0))

    def test_cancelled_while_closing(self) -> None:
        """Cancelling a task does not interrupt the closing of its connection."""
        self.pool = self.make_pool(max_size=1)
        self.database.close_seconds = 5

        def fail() -> None:
            with self.pool.connection():
                raise ValueError("no")

        task = self.clock.spawn(fail)
        task.cancel()
        self.clock.spawn(self.use, "second")
        self.clock.advance(4)
        self.assertEqual(self.uses, [])
        self.clock.advance(1)
        self.clock.settle()
        self.assertEqual(self.uses, [("second", 2)])
        self.assertEqual(self.database.most, 1)
        self.assertRaises(ValueError, result_of, task)


class GivingBackTests(PoolTestCase):
    """`give_back()`."""

    def test_twice(self) -> None:
        """Giving back twice raises ValueError."""
        taken = self.pool.take()
        self.pool.give_back(taken)
        error = self.assertRaises(ValueError, self.pool.give_back, taken)
        self.assertIn("<connection 1>", str(error))
        self.assertIn("once", str(error))

    def test_foreign_connection(self) -> None:
        """A connection that was not taken from this pool raises ValueError."""
        foreign = self.database.connect()
        self.assertRaises(ValueError, self.pool.give_back, foreign)

    def test_by_a_finalizer(self) -> None:
        """A finalizer may give a connection back while the pool holds its lock."""
        idle_under_lock: list[int] = []
        readings = iter([0.0, 0.0, 0.0, 1.0])

        def seconds() -> float:
            """Run the collector at the fourth reading, which is under the lock."""
            now = next(readings, 2.0)
            if now == 1.0:
                gc.collect()
                idle_under_lock.append(pool.statistics().idle)
            return now

        pool = ConnectionPool(self.database.connect, max_size=2, clock=seconds)
        leaked, returned = pool.take(), pool.take()

        class Leak:
            """Gives its connection back when it is collected."""

            def __init__(self) -> None:
                self.cycle = self

            def __del__(self) -> None:
                pool.give_back(leaked)

        gc.disable()  # the test decides when it runs
        self.addCleanup(gc.enable)
        Leak()
        pool.give_back(returned)
        # Under the lock the finalizer only queued its connection.
        self.assertEqual(idle_under_lock, [0])
        self.assertEqual(pool.statistics().idle, 2)

    def test_from_another_thread(self) -> None:
        """Any thread may give a connection back."""
        taken = self.pool.take()
        thread = threading.Thread(target=self.pool.give_back, args=(taken,))
        thread.start()
        thread.join()
        self.assertIs(self.pool.take(timeout=0), taken)


class ForkTests(PoolTestCase):
    """The child of a fork does not touch the parent's connections."""

    def test_child_starts_empty(self) -> None:
        """The pool is empty; giving back a connection of the parent is a no-op."""
        taken, idle = self.pool.take(), self.pool.take()
        self.pool.give_back(idle)
        self.pool.reset_after_fork()  # called by the interpreter in the child
        self.assertEqual(self.counts("size", "in_use", "idle"), (0, 0, 0))
        self.pool.give_back(taken)
        self.assertEqual(self.database.calls, [])
        self.assertEqual(self.pool.take().number, 3)

    def test_real_fork(self) -> None:
        """In a real child process the pool is empty."""
        self.pool.give_back(self.pool.take())
        child = os.fork()
        if child == 0:
            os._exit(self.pool.statistics().size)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(self.counts("idle"), (1,))


class SettingTests(SynchronousTestCase):
    """Invalid settings raise when the pool is made."""

    def test_invalid(self) -> None:
        """The message names the option and the value."""
        cases: list[tuple[dict[str, Any], str]] = [
            ({"max_size": 0}, "max_size"),
            ({"max_size": "10"}, "max_size"),
            ({"max_size": True}, "max_size"),
            ({"wait_timeout": -1}, "wait_timeout"),
            ({"wait_timeout": float("nan")}, "wait_timeout"),
            ({"max_age": "1h"}, "max_age"),
            ({"max_idle": -0.1}, "max_idle"),
            ({"check": "SELECT 1"}, "check"),
            ({"reset": 1}, "reset"),
            ({"close": None}, "close"),
        ]
        for settings, option in cases:
            with self.assertRaises(ValueError) as caught:
                ConnectionPool(object, **settings)
            self.assertIn(option, str(caught.exception))
            self.assertIn(repr(settings[option]), str(caught.exception))
        with self.assertRaises(ValueError):
            ConnectionPool("connect")  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            ConnectionPool(object).take(timeout=-1)


class InterruptionTests(SynchronousTestCase):
    """`was_interrupted` distinguishes interruptions from other exceptions."""

    def test_chains(self) -> None:
        """It follows the causes and contexts of an exception."""
        self.assertFalse(was_interrupted(ValueError()))
        self.assertFalse(was_interrupted(TimeoutError()))
        self.assertTrue(was_interrupted(TimedOut()))
        outer, inner = ValueError(), KeyError()
        outer.__context__, inner.__cause__ = inner, Cancelled()
        self.assertTrue(was_interrupted(outer))
        inner.__cause__, inner.__context__ = None, outer  # a cycle
        self.assertFalse(was_interrupted(outer))
