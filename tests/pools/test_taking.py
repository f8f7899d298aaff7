"""Taking, waiting for and returning connections: order and limits."""

from __future__ import annotations

import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.green.clock import TaskClock, result_of
from txgreenwsgi import Cancelled, NotInGreenlet, TimedOut, sleep, timeout
from txgreenwsgi.pools import ConnectionPool, PoolClosed, PoolTimeout

from .databases import Connection, Database


class PoolTestCase(SynchronousTestCase):
    """A fake database, a clock with tasks, and a pool for both.

    Attributes:
        uses: the name of each use of a connection and the connection's number.
    """

    def setUp(self) -> None:
        """Make an empty pool of two connections."""
        self.clock = TaskClock()
        self.database = Database()
        self.pool = self.make_pool(max_size=2)
        self.uses: list[Any] = []

    def make_pool(self, **settings: Any) -> ConnectionPool[Connection]:
        """Make a pool that uses the clock."""
        return ConnectionPool(
            self.database.connect, clock=self.clock.seconds, name="shop", **settings
        )

    def use(self, name: str, seconds: float = 1.0) -> None:
        """Use a connection for some seconds."""
        with self.pool.connection() as connection:
            self.uses.append((name, connection.number))
            sleep(seconds)

    def counts(self, *names: str) -> tuple[int, ...]:
        """Return some of the pool's statistics."""
        found = self.pool.statistics()
        return tuple(getattr(found, name) for name in names)


class TakingTests(PoolTestCase):
    """`take()` in tasks."""

    def test_lazy_and_reused(self) -> None:
        """Connections are made on demand and reused."""
        self.assertEqual(self.database.open, [])
        for _ in range(3):
            self.clock.spawn(self.use, "a")
            self.clock.advance(1)
        self.assertEqual(self.uses, [("a", 1)] * 3)
        self.assertEqual(self.counts("size", "idle", "in_use"), (1, 1, 0))
        self.assertEqual(self.counts("taken", "made", "discarded"), (3, 1, 0))

    def test_lifo(self) -> None:
        """The connection used last is taken first, so surplus ones can expire."""
        self.clock.spawn(self.use, "a", 1)
        self.clock.spawn(self.use, "b", 2)
        self.clock.advance(1)
        self.clock.advance(1)
        self.clock.spawn(self.use, "c")
        self.assertEqual(self.uses[-1], ("c", 2))

    def test_max_size(self) -> None:
        """Ten tasks share two connections, and each gets one in turn."""
        for number in range(10):
            self.clock.spawn(self.use, str(number))
        self.assertEqual(self.counts("size", "waiting"), (2, 8))
        for _ in range(5):
            self.clock.advance(1)
            self.clock.settle()
        self.assertEqual([name for name, _ in self.uses], list("0123456789"))
        self.assertEqual(self.database.most, 2)
        self.assertEqual(self.counts("waiting", "idle", "longest_wait"), (0, 2, 4.0))

    def test_connecting_counts(self) -> None:
        """A connection being made counts against `max_size`."""
        self.database.connect_seconds = 5
        for name in "abc":
            self.clock.spawn(self.use, name)
        self.assertEqual(len(self.database.open), 2)
        self.assertEqual(self.counts("size", "waiting"), (2, 1))

    def test_closing_counts(self) -> None:
        """A connection being closed counts against `max_size`."""
        self.pool = self.make_pool(max_size=1, max_age=0.5)
        self.database.close_seconds = 3
        self.clock.spawn(self.use, "a")
        self.clock.spawn(self.use, "b")
        self.clock.advance(1)
        self.assertEqual(self.uses, [("a", 1)])
        self.clock.advance(3)
        self.clock.settle()
        self.assertEqual(self.uses, [("a", 1), ("b", 2)])
        self.assertEqual(self.database.most, 1)

    def test_slow_connect_delays_no_other(self) -> None:
        """A slow connect does not delay callers that get a returned connection."""
        self.clock.spawn(self.use, "a", 1)
        self.clock.settle()
        self.database.connect_seconds = 60
        self.clock.spawn(self.use, "slow")
        self.clock.spawn(self.use, "b")
        self.clock.advance(1)
        self.clock.settle()
        self.assertEqual(self.uses, [("a", 1), ("b", 1)])

    def test_newcomers_do_not_overtake(self) -> None:
        """A returned connection belongs to the first waiter before that runs."""
        first, second = self.pool.take(), self.pool.take()
        self.clock.spawn(self.use, "waits")
        self.pool.give_back(first)
        with self.assertRaises(PoolTimeout):
            self.pool.take(timeout=0)
        self.pool.give_back(second)
        self.clock.settle()
        self.assertEqual(self.uses, [("waits", 1)])

    def test_refused_connection(self) -> None:
        """A failed connect raises in the caller, and frees its slot."""
        self.database.refuses = True
        task = self.clock.spawn(self.use, "a")
        with self.assertRaises(ConnectionRefusedError):
            result_of(task)
        self.database.refuses = False
        self.clock.spawn(self.use, "b")
        self.clock.spawn(self.use, "c")
        self.assertEqual([name for name, _ in self.uses], ["b", "c"])

    def test_failed_connect_lets_the_next_try(self) -> None:
        """When a connect fails, the first waiter makes a connection itself."""
        self.pool = self.make_pool(max_size=1)
        self.database.refuses, self.database.connect_seconds = True, 1
        first = self.clock.spawn(self.use, "a")
        self.clock.spawn(self.use, "b")
        self.clock.advance(1)
        with self.assertRaises(ConnectionRefusedError):
            result_of(first)
        self.database.refuses = False
        self.clock.advance(1)
        self.clock.settle()
        self.assertEqual([name for name, _ in self.uses], ["b"])


class WaitingTests(PoolTestCase):
    """The end of a wait for a connection."""

    def setUp(self) -> None:
        """Make a pool of one connection and take that."""
        super().setUp()
        self.pool = self.make_pool(max_size=1)
        self.taken = self.pool.take()

    def test_timeout(self) -> None:
        """The message of PoolTimeout has the pool, its size and the remedy."""
        task = self.clock.spawn(self.pool.take, 5)
        self.clock.advance(5)
        error = self.assertRaises(PoolTimeout, result_of, task)
        for part in ("shop", "max_size=1", "5 seconds", "raise max_size"):
            self.assertIn(part, str(error))
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(self.counts("timeouts", "waiting"), (1, 0))
        self.pool.give_back(self.taken)
        self.assertIs(self.pool.take(timeout=0), self.taken)

    def test_wait_timeout(self) -> None:
        """`wait_timeout` is the default; None means no limit."""
        self.pool.wait_timeout = 2
        limited = self.clock.spawn(self.pool.take)
        patient = self.clock.spawn(self.pool.take, None)
        self.clock.advance(2)
        self.clock.advance(1_000)
        self.assertRaises(PoolTimeout, result_of, limited)
        self.pool.give_back(self.taken)
        self.clock.settle()
        self.assertIs(result_of(patient), self.taken)

    def test_returned_at_the_deadline(self) -> None:
        """A connection returned at the moment of the timeout is not lost."""
        task = self.clock.spawn(self.pool.take, 5)
        self.clock.callLater(5, self.pool.give_back, self.taken)
        self.clock.advance(5)
        self.clock.settle()
        found: list[Any] = []
        task.deferred().addBoth(found.append)
        if found[0] is not self.taken:
            found[0].trap(PoolTimeout)
            found[0] = self.pool.take(timeout=0)
        self.assertIs(found[0], self.taken)

    def test_cancelled_while_waiting(self) -> None:
        """A cancelled waiter leaves the queue; the next gets the connection."""
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")
        first.cancel()
        self.clock.settle()
        self.assertRaises(Cancelled, result_of, first)
        self.pool.give_back(self.taken)
        self.clock.settle()
        self.assertEqual(self.uses, [("second", 1)])

    def test_cancelled_just_after_the_grant(self) -> None:
        """A waiter cancelled between grant and wake-up does not block the next one."""
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")

        def give_and_cancel() -> None:
            # In a task, so that the waiter runs at the next turn only.
            self.pool.give_back(self.taken)
            first.cancel()

        self.clock.spawn(give_and_cancel)
        # The first one takes it, is cancelled at its next wait, and returns it.
        self.assertEqual([name for name, _ in self.uses], ["first", "second"])
        self.assertRaises(Cancelled, result_of, first)
        self.assertEqual(self.database.most, 1)

    def test_cancelled_just_before_the_grant(self) -> None:
        """A connection returned just after a cancellation goes to the next waiter."""
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")

        def cancel_and_give() -> None:
            first.cancel()
            self.pool.give_back(self.taken)

        self.clock.spawn(cancel_and_give)
        self.clock.settle()
        self.assertRaises(Cancelled, result_of, first)
        self.assertEqual(self.uses, [("second", 1)])

    def test_timeout_block(self) -> None:
        """A `with timeout(...)` block around the wait ends it by `TimedOut`."""

        def hurried() -> None:
            with timeout(3):
                self.pool.take()

        task = self.clock.spawn(hurried)
        self.clock.advance(3)
        self.assertRaises(TimedOut, result_of, task)
        self.pool.give_back(self.taken)
        self.assertEqual(self.counts("waiting", "idle"), (0, 1))

    def test_killed_while_waiting(self) -> None:
        """A killed waiter does not take a connection with it."""
        task = self.clock.spawn(self.use, "killed")
        self.clock.spawn(self.use, "second")
        task.kill()
        self.pool.give_back(self.taken)
        self.clock.settle()
        self.assertEqual(self.uses, [("second", 1)])

    def test_cancelled_while_connecting(self) -> None:
        """A task cancelled during `connect` passes its slot to the next waiter."""
        self.pool.give_back(self.taken, discard=True)
        self.database.connect_seconds = 5
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")
        first.cancel()
        self.clock.settle()
        self.clock.advance(5)
        self.clock.settle()
        self.assertEqual([name for name, _ in self.uses], ["second"])
        self.assertEqual(len(self.database.open), 1)

    def test_reactor_is_not_blocked(self) -> None:
        """In the reactor greenlet, waiting for a task's connection raises."""
        self.pool.give_back(self.taken)
        self.clock.spawn(self.use, "holder")
        error = self.assertRaises(NotInGreenlet, self.pool.take)
        self.assertIn("shop", str(error))
        self.assertIn("timeout=0", str(error))

    def test_waiting_on(self) -> None:
        """`Task.waiting_on` names the pool."""
        task = self.clock.spawn(self.use, "first")
        self.assertEqual(repr(task.waiting_on), "<ConnectionPool shop 1 of 1>")


class ClosingTests(PoolTestCase):
    """`close()`."""

    def test_idle_now_others_on_return(self) -> None:
        """Idle connections are closed at once, others on their return."""
        taken, idle = self.pool.take(), self.pool.take()
        self.pool.give_back(idle)
        self.pool.close()
        self.assertEqual(self.database.open, [taken])
        self.pool.give_back(taken)
        self.assertEqual(self.database.open, [])
        self.assertEqual(self.counts("size", "idle"), (0, 0))

    def test_waiters_are_refused(self) -> None:
        """Waiters and later callers get PoolClosed."""
        self.pool.take()
        self.pool.take()
        waiting = self.clock.spawn(self.pool.take)
        self.pool.close()
        self.clock.settle()
        self.assertRaises(PoolClosed, result_of, waiting)
        error = self.assertRaises(PoolClosed, self.pool.take)
        self.assertIn("shop", str(error))

    def test_connecting_task_gets_its_connection(self) -> None:
        """A connection being made is used; it is closed on its return."""
        self.database.connect_seconds = 2
        self.clock.spawn(self.use, "a")
        self.pool.close()
        self.clock.advance(2)
        self.assertEqual(self.uses, [("a", 1)])
        self.clock.advance(1)
        self.assertEqual(self.database.open, [])

    def test_closing_twice(self) -> None:
        """A second `close` is a no-op."""
        self.pool.give_back(self.pool.take())
        self.pool.close()
        self.pool.close()
        self.assertEqual(self.database.calls, ["close 1"])


class ThreadTests(PoolTestCase):
    """Real threads take connections without a reactor."""

    def test_thread_blocks_until_one_is_free(self) -> None:
        """A thread waits for the connection of another thread."""
        self.pool = ConnectionPool(self.database.connect, max_size=1)
        taken = self.pool.take()
        found: list[Connection] = []
        thread = threading.Thread(target=lambda: found.append(self.pool.take()))
        thread.start()
        while not self.pool.statistics().waiting:
            thread.join(0.001)
        self.assertEqual(found, [])
        self.pool.give_back(taken)
        thread.join(20)
        self.assertEqual(found, [taken])

    def test_timeout_in_a_thread(self) -> None:
        """The timeout applies in threads."""
        self.pool = ConnectionPool(self.database.connect, max_size=1)
        self.pool.take()
        raised: list[BaseException] = []

        def take() -> None:
            try:
                self.pool.take(timeout=0.01)
            except PoolTimeout as error:
                raised.append(error)

        thread = threading.Thread(target=take)
        thread.start()
        thread.join(20)
        self.assertEqual(len(raised), 1)
        self.assertEqual(self.counts("waiting", "timeouts"), (0, 1))

    def test_many_threads(self) -> None:
        """Eight threads share three connections, a thousand uses in total."""
        self.pool = ConnectionPool(self.database.connect, max_size=3)
        users: dict[Connection, int] = {}
        wrong: list[object] = []

        def work() -> None:
            for _ in range(125):
                with self.pool.connection() as connection:
                    users[connection] = users.get(connection, 0) + 1
                    if users[connection] != 1 or len(self.database.open) > 3:
                        wrong.append(connection)
                    users[connection] -= 1

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(wrong, [])
        found = self.pool.statistics()
        self.assertEqual((found.taken, found.in_use, found.waiting), (1000, 0, 0))
        self.assertLessEqual(found.made, 3)
