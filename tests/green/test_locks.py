"""Green locks between tasks."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._switching import guards
from txgreenwsgi._switching.errors import Cancelled, NotInGreenlet
from txgreenwsgi.green import threading
from txgreenwsgi.green._locks import Lock, RLock, thread_ident
from txgreenwsgi.green.queue import Queue

from .clock import TaskClock, result_of


class LockTests(SynchronousTestCase):
    """`Lock` excludes tasks from each other."""

    def setUp(self) -> None:
        """A clock with tasks."""
        self.clock = TaskClock()
        self.lock = Lock()
        self.told: list[str] = []

    def hold(self, name: str) -> None:
        """Take the lock, and tell."""
        with self.lock:
            self.told.append(name)

    def test_the_second_waits(self) -> None:
        """A task that finds the lock taken goes on when it is released."""
        self.lock.acquire()
        task = self.clock.spawn(self.hold, "second")
        self.assertEqual(self.told, [])
        self.lock.release()
        self.clock.settle()
        self.assertEqual(self.told, ["second"])
        self.assertTrue(task.done)
        self.assertFalse(self.lock.locked())

    def test_first_come_first_served(self) -> None:
        """Tasks get the lock in the order in which they asked for it."""
        self.lock.acquire()
        for name in "abc":
            self.clock.spawn(self.hold, name)
        self.lock.release()
        self.clock.settle()
        self.assertEqual(self.told, ["a", "b", "c"])

    def test_cancelled_in_the_turn_it_was_released(self) -> None:
        """A notification is not lost with a waiter that is cancelled just then."""
        items: Queue[str] = Queue()
        got: list[str] = []

        def get() -> None:
            got.append(items.get())

        first = self.clock.spawn(get)
        second = self.clock.spawn(get)

        def put() -> None:
            first.cancel()
            items.put("one")  # the queue does not know yet

        self.clock.spawn(put)
        self.clock.settle()
        self.assertEqual(got, ["one"])
        self.assertEqual(items.qsize(), 0)
        second.cancel()
        self.clock.settle()
        self.assertTrue(first.done and second.done)

    def test_the_time_limit(self) -> None:
        """`acquire(timeout=...)` is False when the time is over."""
        self.lock.acquire()
        task = self.clock.spawn(self.lock.acquire, True, 5)
        # The limit is the reactor's, which is turned by hand here.
        self.clock.advance(5)
        self.assertFalse(result_of(task))
        self.lock.release()
        self.assertTrue(self.lock.acquire(False))

    def test_a_cancelled_task_passes_its_turn_on(self) -> None:
        """Whoever is cancelled when it was woken keeps nobody else from the lock."""
        self.lock.acquire()
        first = self.clock.spawn(self.hold, "first")
        self.clock.spawn(self.hold, "second")
        first.cancel()
        self.lock.release()
        self.clock.settle()
        self.assertEqual(self.told, ["second"])

    def test_the_reactor_greenlet_is_not_stopped_for_ever(self) -> None:
        """Waiting outside tasks for a task's lock is one clear error."""

        def hold_on() -> None:
            with self.lock:
                other.acquire()

        other = Lock()
        other.acquire()
        self.clock.spawn(hold_on)
        with self.assertRaises(NotInGreenlet) as caught:
            self.lock.acquire()
        self.assertIn("hold_on", str(caught.exception))
        other.release()
        self.clock.settle()

    def test_a_finalizer_does_not_stop_everything(self) -> None:
        """A finalizer in a task that wants another task's lock gets that error, too.

        The thread that it would block is the one that the lock's holder needs.
        """
        gate = Lock()
        gate.acquire()

        def hold_on() -> None:
            with self.lock:
                gate.acquire()

        def collect() -> None:
            with (
                patch.object(guards, "collecting_thread", thread_ident()),
                self.assertRaisesRegex(NotInGreenlet, "hold_on.*finalizer"),
            ):
                self.lock.acquire()

        self.clock.spawn(hold_on)
        self.clock.result(collect)
        gate.release()
        self.clock.settle()
        self.assertFalse(self.lock.locked())

    def test_wrong_arguments(self) -> None:
        """Arguments are refused as a real lock refuses them."""
        for arguments, kind in (
            ((False, 1), ValueError),
            ((True, -2), ValueError),
            ((True, 1e100), OverflowError),
        ):
            with self.assertRaises(kind):
                self.lock.acquire(*arguments)
        with self.assertRaises(RuntimeError):
            self.lock.release()


class ConditionTests(SynchronousTestCase):
    """`Condition` on each kind of lock."""

    def interrupted_before_it_has_the_lock(self, lock: Any) -> None:
        """What was notified is interrupted while another holds the lock."""
        clock = TaskClock()
        condition = threading.Condition(lock)
        gate = Lock()
        gate.acquire()
        told: list[str] = []

        def wait() -> None:
            with condition:
                condition.wait()
                told.append("has the lock")
            gate.acquire()

        def notify() -> None:
            with condition:
                condition.notify()
                gate.acquire()
                told.append("had the lock")

        waiting = clock.spawn(wait)
        notifying = clock.spawn(notify)
        waiting.cancel()
        clock.settle()
        self.assertEqual(told, [])
        gate.release()
        clock.settle()
        self.assertEqual(told, ["had the lock", "has the lock"])
        with self.assertRaises(Cancelled):
            result_of(waiting)
        self.assertIsNone(result_of(notifying))
        self.assertTrue(lock.acquire(False))

    def test_interrupted_with_a_lock(self) -> None:
        """A wait that is interrupted has its lock again before it goes on.

        Its `with` block releases the lock in any case: if it had not got it, it
        would release that of another task.
        """
        self.interrupted_before_it_has_the_lock(Lock())

    def test_interrupted_with_an_rlock(self) -> None:
        """So it is with an RLock."""
        lock = RLock()
        self.interrupted_before_it_has_the_lock(lock)
        lock.release()


class RLockTests(SynchronousTestCase):
    """`RLock` belongs to a task."""

    def test_each_task_is_another_owner(self) -> None:
        """Two tasks of one thread exclude each other; one may take it twice."""
        clock, lock, gate = TaskClock(), RLock(), Lock()
        told: list[str] = []
        gate.acquire()

        def take(name: str) -> None:
            with lock, lock:
                told.append(name)
                gate.acquire()

        clock.spawn(take, "first")
        clock.spawn(take, "second")
        self.assertEqual(told, ["first"])
        gate.release()
        clock.settle()
        self.assertEqual(told, ["first", "second"])
        gate.release()
        clock.settle()
        self.assertFalse(lock.locked())

    def test_only_the_owner_releases(self) -> None:
        """Another task's release is refused."""
        clock, lock = TaskClock(), RLock()
        lock.acquire()
        with self.assertRaises(RuntimeError):
            clock.result(lock.release)
        lock.release()
