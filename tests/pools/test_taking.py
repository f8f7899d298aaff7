"""Connections are taken, waited for and given back, in order and never too many."""

from __future__ import annotations

import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.green.clock import TaskClock, result_of
from txgreenwsgi import Cancelled, NotInGreenlet, TimedOut, sleep, timeout
from txgreenwsgi.pools import ConnectionPool, PoolClosed, PoolTimeout

from .databases import Connection, Database


class PoolTestCase(SynchronousTestCase):
    """A database in memory, a clock with tasks, and a pool of both."""

    def setUp(self) -> None:
        """An empty pool of two."""
        self.clock = TaskClock()
        self.database = Database()
        self.pool = self.make_pool(max_size=2)
        self.told: list[Any] = []

    def make_pool(self, **settings: Any) -> ConnectionPool[Connection]:
        """A pool by the clock."""
        return ConnectionPool(
            self.database.connect, clock=self.clock.seconds, name="shop", **settings
        )

    def use(self, name: str, seconds: float = 1.0) -> None:
        """Have a connection for a while."""
        with self.pool.connection() as connection:
            self.told.append((name, connection.number))
            sleep(seconds)

    def counts(self, *names: str) -> tuple[int, ...]:
        """Some of the pool's statistics."""
        found = self.pool.statistics()
        return tuple(getattr(found, name) for name in names)


class TakingTests(PoolTestCase):
    """Tasks that want a connection."""

    def test_made_when_wanted(self) -> None:
        """A pool opens nothing before somebody asks, and uses again what it has."""
        self.assertEqual(self.database.open, [])
        for _ in range(3):
            self.clock.spawn(self.use, "a")
            self.clock.advance(1)
        self.assertEqual(self.told, [("a", 1)] * 3)
        self.assertEqual(self.counts("size", "idle", "in_use"), (1, 1, 0))
        self.assertEqual(self.counts("taken", "made", "discarded"), (3, 1, 0))

    def test_the_last_used_is_used_first(self) -> None:
        """What is not needed stays idle, so that it can grow old and be closed."""
        self.clock.spawn(self.use, "a", 1)
        self.clock.spawn(self.use, "b", 2)
        self.clock.advance(1)
        self.clock.advance(1)
        self.clock.spawn(self.use, "c")
        self.assertEqual(self.told[-1], ("c", 2))

    def test_never_too_many(self) -> None:
        """Of ten who want one, two have it at once; all have it in the end."""
        for number in range(10):
            self.clock.spawn(self.use, str(number))
        self.assertEqual(self.counts("size", "waiting"), (2, 8))
        for _ in range(5):
            self.clock.advance(1)
            self.clock.settle()
        self.assertEqual([name for name, _ in self.told], list("0123456789"))
        self.assertEqual(self.database.most, 2)
        self.assertEqual(self.counts("waiting", "idle", "longest_wait"), (0, 2, 4.0))

    def test_connecting_counts(self) -> None:
        """Whoever is just connecting has a place: the others wait for it."""
        self.database.connect_seconds = 5
        for name in "abc":
            self.clock.spawn(self.use, name)
        self.assertEqual(len(self.database.open), 2)
        self.assertEqual(self.counts("size", "waiting"), (2, 1))

    def test_closing_counts(self) -> None:
        """A connection that says a long goodbye has its place until it is gone."""
        self.pool = self.make_pool(max_size=1, max_age=0.5)
        self.database.close_seconds = 3
        self.clock.spawn(self.use, "a")
        self.clock.spawn(self.use, "b")
        self.clock.advance(1)
        self.assertEqual(self.told, [("a", 1)])
        self.clock.advance(3)
        self.clock.settle()
        self.assertEqual(self.told, [("a", 1), ("b", 2)])
        self.assertEqual(self.database.most, 1)

    def test_connecting_holds_nobody_up(self) -> None:
        """One who connects slowly does not keep others from what comes back."""
        self.clock.spawn(self.use, "a", 1)
        self.clock.settle()
        self.database.connect_seconds = 60
        self.clock.spawn(self.use, "slow")
        self.clock.spawn(self.use, "b")
        self.clock.advance(1)
        self.clock.settle()
        self.assertEqual(self.told, [("a", 1), ("b", 1)])

    def test_newcomers_do_not_overtake(self) -> None:
        """What comes back belongs to who waits, even if he has not run yet."""
        first, second = self.pool.take(), self.pool.take()
        self.clock.spawn(self.use, "waits")
        self.pool.give_back(first)
        with self.assertRaises(PoolTimeout):
            self.pool.take(timeout=0)
        self.pool.give_back(second)
        self.clock.settle()
        self.assertEqual(self.told, [("waits", 1)])

    def test_refused_connection(self) -> None:
        """A connection that cannot be made is the error of who wanted it."""
        self.database.refuses = True
        task = self.clock.spawn(self.use, "a")
        with self.assertRaises(ConnectionRefusedError):
            result_of(task)
        self.database.refuses = False
        self.clock.spawn(self.use, "b")
        self.clock.spawn(self.use, "c")
        self.assertEqual([name for name, _ in self.told], ["b", "c"])

    def test_a_refusal_lets_the_next_try(self) -> None:
        """Who waits while another's connecting fails connects for himself."""
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
        self.assertEqual([name for name, _ in self.told], ["b"])


class WaitingTests(PoolTestCase):
    """How a wait for a connection ends."""

    def setUp(self) -> None:
        """A pool of one, which is in use."""
        super().setUp()
        self.pool = self.make_pool(max_size=1)
        self.taken = self.pool.take()

    def test_time_limit(self) -> None:
        """The error says which pool it was, how large, and what to do."""
        task = self.clock.spawn(self.pool.take, 5)
        self.clock.advance(5)
        error = self.assertRaises(PoolTimeout, result_of, task)
        for part in ("shop", "max_size=1", "5 seconds", "raise max_size"):
            self.assertIn(part, str(error))
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(self.counts("timeouts", "waiting"), (1, 0))
        self.pool.give_back(self.taken)
        self.assertIs(self.pool.take(timeout=0), self.taken)

    def test_the_pools_own_limit(self) -> None:
        """`wait_timeout` holds for who gives no other; None is without limit."""
        self.pool.wait_timeout = 2
        limited = self.clock.spawn(self.pool.take)
        patient = self.clock.spawn(self.pool.take, None)
        self.clock.advance(2)
        self.clock.advance(1_000)
        self.assertRaises(PoolTimeout, result_of, limited)
        self.pool.give_back(self.taken)
        self.clock.settle()
        self.assertIs(result_of(patient), self.taken)

    def test_in_time_at_the_last_moment(self) -> None:
        """What is given back in the very moment the time is over is not lost."""
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
        """Who is cancelled leaves the line; the next one gets the connection."""
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")
        first.cancel()
        self.clock.settle()
        self.assertRaises(Cancelled, result_of, first)
        self.pool.give_back(self.taken)
        self.clock.settle()
        self.assertEqual(self.told, [("second", 1)])

    def test_cancelled_just_after_it_was_given(self) -> None:
        """Who is cancelled when it was given, but has not run yet, holds up nobody."""
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")

        def give_and_cancel() -> None:
            # In a task: who is woken runs at the next turn only.
            self.pool.give_back(self.taken)
            first.cancel()

        self.clock.spawn(give_and_cancel)
        # The first has it, hears of its end where it next waits, and lets go of it.
        self.assertEqual([name for name, _ in self.told], ["first", "second"])
        self.assertRaises(Cancelled, result_of, first)
        self.assertEqual(self.database.most, 1)

    def test_cancelled_just_before_it_was_given(self) -> None:
        """The same the other way round: cancelled first, then given."""
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")

        def cancel_and_give() -> None:
            first.cancel()
            self.pool.give_back(self.taken)

        self.clock.spawn(cancel_and_give)
        self.clock.settle()
        self.assertRaises(Cancelled, result_of, first)
        self.assertEqual(self.told, [("second", 1)])

    def test_timed_out_by_its_owner(self) -> None:
        """A `with timeout(...)` round the wait ends it, by its own exception."""

        def hurried() -> None:
            with timeout(3):
                self.pool.take()

        task = self.clock.spawn(hurried)
        self.clock.advance(3)
        self.assertRaises(TimedOut, result_of, task)
        self.pool.give_back(self.taken)
        self.assertEqual(self.counts("waiting", "idle"), (0, 1))

    def test_killed_while_waiting(self) -> None:
        """A task that is ended with its reactor takes no connection with it."""
        task = self.clock.spawn(self.use, "killed")
        self.clock.spawn(self.use, "second")
        task.kill()
        self.pool.give_back(self.taken)
        self.clock.settle()
        self.assertEqual(self.told, [("second", 1)])

    def test_cancelled_while_connecting(self) -> None:
        """Who is cancelled while he connects gives his place to the next."""
        self.pool.give_back(self.taken, discard=True)
        self.database.connect_seconds = 5
        first = self.clock.spawn(self.use, "first")
        self.clock.spawn(self.use, "second")
        first.cancel()
        self.clock.settle()
        self.clock.advance(5)
        self.clock.settle()
        self.assertEqual([name for name, _ in self.told], ["second"])
        self.assertEqual(len(self.database.open), 1)

    def test_the_reactor_is_not_stopped(self) -> None:
        """Outside tasks a pool whose connections tasks have is one clear error."""
        self.pool.give_back(self.taken)
        self.clock.spawn(self.use, "holder")
        error = self.assertRaises(NotInGreenlet, self.pool.take)
        self.assertIn("shop", str(error))
        self.assertIn("timeout=0", str(error))

    def test_what_a_parked_task_waits_on(self) -> None:
        """The table of requests shows which pool a request waits for."""
        task = self.clock.spawn(self.use, "first")
        self.assertEqual(repr(task.waiting_on), "<ConnectionPool shop 1 of 1>")


class ClosingTests(PoolTestCase):
    """`close()`."""

    def test_idle_ones_now_others_later(self) -> None:
        """What is idle is closed at once, what is in use when it comes back."""
        taken, idle = self.pool.take(), self.pool.take()
        self.pool.give_back(idle)
        self.pool.close()
        self.assertEqual(self.database.open, [taken])
        self.pool.give_back(taken)
        self.assertEqual(self.database.open, [])
        self.assertEqual(self.counts("size", "idle"), (0, 0))

    def test_who_waits_is_refused(self) -> None:
        """Those in line get an error, and so does whoever comes later."""
        self.pool.take()
        self.pool.take()
        waiting = self.clock.spawn(self.pool.take)
        self.pool.close()
        self.clock.settle()
        self.assertRaises(PoolClosed, result_of, waiting)
        error = self.assertRaises(PoolClosed, self.pool.take)
        self.assertIn("shop", str(error))

    def test_who_connects_gets_it(self) -> None:
        """One who was connecting has his connection; it is closed afterwards."""
        self.database.connect_seconds = 2
        self.clock.spawn(self.use, "a")
        self.pool.close()
        self.clock.advance(2)
        self.assertEqual(self.told, [("a", 1)])
        self.clock.advance(1)
        self.assertEqual(self.database.open, [])

    def test_closing_twice(self) -> None:
        """The second time has nothing to do."""
        self.pool.give_back(self.pool.take())
        self.pool.close()
        self.pool.close()
        self.assertEqual(self.database.told, ["close 1"])


class ThreadTests(PoolTestCase):
    """Real threads take connections as well, without any reactor."""

    def test_a_thread_blocks_until_one_is_free(self) -> None:
        """A thread waits for another thread's connection, and gets that one."""
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

    def test_a_threads_time_limit(self) -> None:
        """A thread waits no longer than it was told to."""
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
        """Eight threads share three connections a thousand times, one each."""
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
