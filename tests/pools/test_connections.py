"""What state a connection is in when it is taken, and what becomes of it."""

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
    """Connections do not grow old."""

    def test_too_old_when_given_back(self) -> None:
        """One past `max_age` is closed by who gives it back."""
        self.pool = self.make_pool(max_age=10)
        taken = self.pool.take()
        self.clock.advance(11)
        self.pool.give_back(taken)
        self.assertEqual(self.database.told, ["close 1"])
        self.assertEqual(self.counts("size", "discarded"), (0, 1))

    def test_too_old_when_taken(self) -> None:
        """One that grew too old while it was idle is replaced, in its own place."""
        self.pool = self.make_pool(max_size=1, max_age=10, max_idle=None)
        self.pool.give_back(self.pool.take())
        self.clock.advance(11)
        self.assertEqual(self.pool.take().number, 2)
        self.assertEqual(self.database.most, 1)

    def test_too_long_idle(self) -> None:
        """What is not used for long is closed when another is given back."""
        first, second = self.pool.take(), self.pool.take()
        self.pool.give_back(first)
        self.clock.advance(700)
        self.pool.give_back(second)
        self.assertEqual(self.database.open, [second])

    def test_long_in_use(self) -> None:
        """Only the time without use counts as idle, not that before it."""
        self.pool.give_back(self.pool.take())
        self.clock.advance(500)
        taken = self.pool.take()
        self.clock.advance(500)
        self.pool.give_back(taken)
        self.assertEqual(self.database.open, [taken])

    def test_for_ever(self) -> None:
        """None is no limit."""
        self.pool = self.make_pool(max_age=None, max_idle=None)
        self.pool.give_back(self.pool.take())
        self.clock.advance(10**9)
        self.assertEqual(self.pool.take().number, 1)


class CheckTests(PoolTestCase):
    """`check`: is what was idle still alive?"""

    def setUp(self) -> None:
        """A pool that asks."""
        super().setUp()
        self.pool = self.make_pool(max_size=1, check=Connection.ping)

    def test_only_what_was_idle(self) -> None:
        """A new connection, and one handed over directly, are not asked."""
        taken = self.pool.take()
        self.clock.spawn(self.use, "next")
        self.pool.give_back(taken)
        self.clock.advance(1)
        self.assertEqual(self.database.told, [])
        taken = self.pool.take()
        self.assertEqual(self.database.told, ["ping 1"])
        self.clock.spawn(self.use, "next")
        self.pool.give_back(taken)
        self.clock.advance(1)
        self.assertEqual(self.told, [("next", 1)] * 2)
        self.assertEqual(self.database.told, ["ping 1"])

    def test_a_dead_one_is_replaced(self) -> None:
        """Whoever takes one never sees that the idle one had died."""
        dead = self.pool.take()
        self.pool.give_back(dead)
        dead.is_dead = True
        self.assertEqual(self.pool.take().number, 2)
        self.assertEqual(self.database.told, ["ping 1", "close 1"])
        self.assertEqual(self.counts("made", "discarded", "size"), (2, 1, 1))
        self.assertEqual(self.database.most, 1)

    def test_while_something_else_is_handled(self) -> None:
        """A dead one is replaced as well for who is just handling a `TimedOut`."""
        dead = self.pool.take()
        self.pool.give_back(dead)
        dead.is_dead = True
        try:
            raise TimedOut("an earlier wait")
        except TimedOut:
            self.assertEqual(self.pool.take().number, 2)

    def test_cancelled_while_checking(self) -> None:
        """Who is cancelled in the midst of the check leaves no connection in doubt."""
        self.pool.give_back(self.pool.take())
        self.database.ping_seconds = 5
        task = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")
        task.cancel()
        self.clock.settle()
        self.assertRaises(Cancelled, result_of, task)
        self.assertEqual(self.told, [("second", 2)])
        self.assertEqual(self.database.told, ["ping 1", "close 1"])

    def test_wrapped_by_the_driver(self) -> None:
        """An interruption that the driver wrapped in an error of its own is one."""

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
        """Have a block end by `error`; the connection that it had."""
        found = []
        with contextlib.suppress(type(error)), self.pool.connection() as connection:
            found.append(connection)
            connection.in_transaction = True
            raise error
        return found[0]

    def test_any_exception_without_reset(self) -> None:
        """Without `reset` nobody knows how a failed block left its connection."""
        self.assertFalse(self.end_by(ValueError("no")).is_open)
        self.assertEqual(self.counts("size", "discarded"), (0, 1))

    def test_an_error_of_the_applications(self) -> None:
        """With `reset`, a connection survives errors that are not the wait's."""
        self.pool = self.make_pool(reset=Connection.rollback)
        connection = self.end_by(ValueError("no"))
        self.assertTrue(connection.is_open)
        self.assertFalse(connection.in_transaction)
        self.assertIs(self.pool.take(), connection)

    def test_while_something_else_is_handled(self) -> None:
        """An error in a block is no interruption because one was handled around it."""
        self.pool = self.make_pool(reset=Connection.rollback)
        try:
            raise TimedOut("an earlier wait")
        except TimedOut:
            self.assertTrue(self.end_by(ValueError("no")).is_open)

    def test_interrupted(self) -> None:
        """Whatever cuts a wait short leaves the connection in doubt: it is closed."""
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
        """What a block forgot to finish is not the next one's."""
        self.pool = self.make_pool(reset=Connection.rollback)
        with self.pool.connection() as connection:
            connection.in_transaction = True
        self.assertFalse(connection.in_transaction)

    def test_reset_fails(self) -> None:
        """One that cannot be reset is closed, and the block is none the worse."""
        self.pool = self.make_pool(reset=Connection.rollback)
        with self.pool.connection() as connection:
            connection.is_dead = True
        self.assertEqual(self.database.open, [])
        self.assertEqual(self.counts("size", "discarded"), (0, 1))

    def test_killed(self) -> None:
        """The connection of a task that is killed is closed, or at least forgotten."""
        self.database.close_seconds = 1  # which a killed task cannot wait
        task = self.clock.spawn(self.use, "killed", 60)
        task.kill()
        self.clock.settle()
        self.assertEqual(self.counts("size", "in_use"), (0, 0))

    def test_cancelled_while_closing(self) -> None:
        """A goodbye is not cut short: it would be open, and counted as closed."""
        self.pool = self.make_pool(max_size=1)
        self.database.close_seconds = 5

        def fail() -> None:
            with self.pool.connection():
                raise ValueError("no")

        task = self.clock.spawn(fail)
        task.cancel()
        self.clock.spawn(self.use, "second")
        self.clock.advance(4)
        self.assertEqual(self.told, [])
        self.clock.advance(1)
        self.clock.settle()
        self.assertEqual(self.told, [("second", 2)])
        self.assertEqual(self.database.most, 1)
        self.assertRaises(ValueError, result_of, task)


class GivingBackTests(PoolTestCase):
    """`give_back()`."""

    def test_twice(self) -> None:
        """The second time is an error: somebody else may have it by now."""
        taken = self.pool.take()
        self.pool.give_back(taken)
        error = self.assertRaises(ValueError, self.pool.give_back, taken)
        self.assertIn("<connection 1>", str(error))
        self.assertIn("once", str(error))

    def test_a_stranger(self) -> None:
        """What was not taken from this pool is refused."""
        stranger = self.database.connect()
        self.assertRaises(ValueError, self.pool.give_back, stranger)

    def test_by_the_collector(self) -> None:
        """A finalizer that runs while the pool is busy can give back and no harm."""
        pool = self.pool = self.make_pool(max_size=1)
        taken = pool.take()

        class Forgotten:
            """Gives its connection back when it is collected."""

            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                pool.give_back(taken)

        gc.disable()  # it is to run when we say so
        self.addCleanup(gc.enable)
        Forgotten()
        self.clock.spawn(self.use, "waits")
        # As if the collector ran in the midst of `take`.
        pool._mutex.acquire()
        gc.collect()
        self.assertEqual(self.told, [])
        pool._unlock()
        self.clock.settle()
        self.assertEqual(self.told, [("waits", 1)])

    def test_from_another_thread(self) -> None:
        """What one thread took another may give back."""
        taken = self.pool.take()
        thread = threading.Thread(target=self.pool.give_back, args=(taken,))
        thread.start()
        thread.join()
        self.assertIs(self.pool.take(timeout=0), taken)


class ForkTests(PoolTestCase):
    """The child of a fork leaves the parent's connections alone."""

    def test_the_child_begins_empty(self) -> None:
        """Its pool has connections of its own; giving back the parent's closes none."""
        taken, idle = self.pool.take(), self.pool.take()
        self.pool.give_back(idle)
        # What happens in the child; it is told by the interpreter.
        self.pool._after_fork()
        self.assertEqual(self.counts("size", "in_use", "idle"), (0, 0, 0))
        self.pool.give_back(taken)
        self.assertEqual(self.database.told, [])
        self.assertEqual(self.pool.take().number, 3)

    def test_it_is_told(self) -> None:
        """A real child finds its pool empty."""
        self.pool.give_back(self.pool.take())
        child = os.fork()
        if child == 0:
            os._exit(self.pool.statistics().size)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(self.counts("idle"), (1,))


class SettingTests(SynchronousTestCase):
    """What makes no sense is refused when the pool is made."""

    def test_refused(self) -> None:
        """The message names the option, the value, and what it may be."""
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
    """`was_interrupted` tells a wait that was cut short from other errors."""

    def test_chains(self) -> None:
        """It looks at what an error was raised from, however long that takes."""
        self.assertFalse(was_interrupted(ValueError()))
        self.assertFalse(was_interrupted(TimeoutError()))
        self.assertTrue(was_interrupted(TimedOut()))
        outer, inner = ValueError(), KeyError()
        outer.__context__, inner.__cause__ = inner, Cancelled()
        self.assertTrue(was_interrupted(outer))
        inner.__cause__, inner.__context__ = None, outer  # round in a circle
        self.assertFalse(was_interrupted(outer))
