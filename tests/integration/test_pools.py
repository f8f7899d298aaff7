"""A pool shared by tasks and real threads, under a real reactor."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import TestCase

from txgreenwsgi import in_greenlet, offload, sleep, spawn, timeout
from txgreenwsgi.pools import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred


class _Connection:
    """A connection that counts its users."""

    def __init__(self) -> None:
        self.users = 0

    def close(self) -> None:
        """There is nothing to close."""


class MixedTests(TestCase):
    """Tasks and threads take and return connections of one pool."""

    timeout = 60

    def run_in_task(self, function: Callable[[], object]) -> Deferred[object]:
        """Run the test's main function in a task."""
        return in_greenlet(function)()

    def test_task_waits_for_thread(self) -> Deferred[object]:
        """A task gets the connection that a thread returns."""
        pool = ConnectionPool(_Connection, max_size=1)

        def main() -> None:
            taken = offload(pool.take)
            giving = threading.Timer(0.1, pool.give_back, (taken,))
            giving.start()
            self.assertIs(pool.take(timeout=20), taken)
            giving.join()

        return self.run_in_task(main)

    def test_thread_waits_for_task(self) -> Deferred[object]:
        """A thread gets the connection that a task returns."""
        pool = ConnectionPool(_Connection, max_size=1)

        def main() -> None:
            taken = pool.take()
            waiting = spawn(offload, pool.take, 20)
            while not pool.statistics().waiting:
                sleep(0.01)
            pool.give_back(taken)
            self.assertIs(waiting.wait(), taken)

        return self.run_in_task(main)

    def test_all_at_once(self) -> Deferred[object]:
        """Thirty tasks and six threads share three connections exclusively."""
        pool = ConnectionPool(
            _Connection, max_size=3, reset=lambda connection: connection.users
        )
        chance = random.Random(1)
        ends: Counter[str] = Counter()
        wrong: list[object] = []

        def use(pause: Callable[[float], object]) -> None:
            with pool.connection() as connection:
                connection.users += 1
                if connection.users != 1:
                    wrong.append(connection)
                pause(chance.random() * 0.002)
                connection.users -= 1

        def task() -> None:
            for _ in range(20):
                try:
                    with timeout(chance.random() * 0.2):
                        use(sleep)
                except TimeoutError as error:  # noqa: PERF203
                    ends[type(error).__name__] += 1
                else:
                    ends["used"] += 1

        def thread() -> None:
            for _ in range(50):
                use(threading.Event().wait)

        def main() -> None:
            workers: list[Any] = [spawn(task) for _ in range(30)]
            workers += [spawn(offload, thread) for _ in range(6)]
            for worker in workers:
                worker.wait()
            self.assertEqual(wrong, [])
            self.assertGreater(ends["used"], 50)
            self.assertGreater(ends["TimedOut"], 0)
            found = pool.statistics()
            self.assertEqual((found.in_use, found.waiting), (0, 0))
            self.assertEqual(found.idle, found.size)
            self.assertLessEqual(found.size, 3)

        return self.run_in_task(main)
