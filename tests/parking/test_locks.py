"""Green locks between tasks."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.green.clock import TaskClock, result_of
from txgreenwsgi._parking.locks import Lock, RLock
from txgreenwsgi._parking.real_threads import thread_ident
from txgreenwsgi._switching import guards
from txgreenwsgi._switching.errors import Cancelled, NotInGreenlet
from txgreenwsgi.green import threading
from txgreenwsgi.green.queue import Queue


class LockTests(SynchronousTestCase):
    """`Lock` is a mutual exclusion lock for tasks."""

    def setUp(self) -> None:
        """Make a clock with tasks, and a lock."""
        self.clock = TaskClock()
        self.lock = Lock()
        self.events: list[str] = []

    def hold(self, name: str) -> None:
        """Take the lock and record that."""
        with self.lock:
            self.events.append(name)

    def test_second_task_waits(self) -> None:
        """A task waits for a held lock until it is released."""
        self.lock.acquire()
        task = self.clock.spawn(self.hold, "second")
        self.assertEqual(self.events, [])
        self.lock.release()
        self.clock.settle()
        self.assertEqual(self.events, ["second"])
        self.assertTrue(task.done)
        self.assertFalse(self.lock.locked())

    def test_fifo_order(self) -> None:
        """Tasks get the lock in the order of their `acquire` calls."""
        self.lock.acquire()
        for name in "abc":
            self.clock.spawn(self.hold, name)
        self.lock.release()
        self.clock.settle()
        self.assertEqual(self.events, ["a", "b", "c"])

    def test_cancelled_in_the_turn_it_was_released(self) -> None:
        """A notification survives the cancellation of its waiter in the same turn."""
        items: Queue[str] = Queue()
        got: list[str] = []

        def get() -> None:
            got.append(items.get())

        first = self.clock.spawn(get)
        second = self.clock.spawn(get)

        def put() -> None:
            first.cancel()
            items.put("one")  # the cancelled task is still in the queue

        self.clock.spawn(put)
        self.clock.settle()
        self.assertEqual(got, ["one"])
        self.assertEqual(items.qsize(), 0)
        second.cancel()
        self.clock.settle()
        self.assertTrue(first.done and second.done)

    def test_timeout(self) -> None:
        """`acquire(timeout=...)` returns False after the timeout."""
        self.lock.acquire()
        task = self.clock.spawn(self.lock.acquire, True, 5)
        # The timeout is a delayed call of the clock.
        self.clock.advance(5)
        self.assertFalse(result_of(task))
        self.lock.release()
        self.assertTrue(self.lock.acquire(False))

    def test_cancelled_task_passes_the_lock_on(self) -> None:
        """A task that is cancelled after its wake-up passes the lock on."""
        self.lock.acquire()
        first = self.clock.spawn(self.hold, "first")
        self.clock.spawn(self.hold, "second")
        first.cancel()
        self.lock.release()
        self.clock.settle()
        self.assertEqual(self.events, ["second"])

    def test_reactor_greenlet_does_not_deadlock(self) -> None:
        """Waiting outside tasks for a task's lock raises NotInGreenlet."""

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

    def test_finalizer_does_not_deadlock(self) -> None:
        """A finalizer that waits for a task's lock raises NotInGreenlet.

        It would block the thread that the holder of the lock needs.
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
        """Invalid arguments raise as with a real lock."""
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
    """`Condition` with both kinds of locks."""

    def check_interrupted_while_lock_is_held(self, lock: Any) -> None:
        """Interrupt a notified task while another task holds the lock."""
        clock = TaskClock()
        condition = threading.Condition(lock)
        gate = Lock()
        gate.acquire()
        events: list[str] = []

        def wait() -> None:
            with condition:
                condition.wait()
                events.append("has the lock")
            gate.acquire()

        def notify() -> None:
            with condition:
                condition.notify()
                gate.acquire()
                events.append("had the lock")

        waiting = clock.spawn(wait)
        notifying = clock.spawn(notify)
        waiting.cancel()
        clock.settle()
        self.assertEqual(events, [])
        gate.release()
        clock.settle()
        self.assertEqual(events, ["had the lock", "has the lock"])
        with self.assertRaises(Cancelled):
            result_of(waiting)
        self.assertIsNone(result_of(notifying))
        self.assertTrue(lock.acquire(False))

    def test_interrupted_with_a_lock(self) -> None:
        """An interrupted `Condition.wait` takes its lock again before it raises.

        The `with` block around it releases the lock in any case; without taking it, it
        would release the lock of another task.
        """
        self.check_interrupted_while_lock_is_held(Lock())

    def test_interrupted_with_an_rlock(self) -> None:
        """The same holds for an RLock."""
        lock = RLock()
        self.check_interrupted_while_lock_is_held(lock)
        lock.release()


class RLockTests(SynchronousTestCase):
    """`RLock` is owned by a task."""

    def test_each_task_is_a_separate_owner(self) -> None:
        """Two tasks of one thread exclude each other; one task may take it twice."""
        clock, lock, gate = TaskClock(), RLock(), Lock()
        events: list[str] = []
        gate.acquire()

        def take(name: str) -> None:
            with lock, lock:
                events.append(name)
                gate.acquire()

        clock.spawn(take, "first")
        clock.spawn(take, "second")
        self.assertEqual(events, ["first"])
        gate.release()
        clock.settle()
        self.assertEqual(events, ["first", "second"])
        gate.release()
        clock.settle()
        self.assertFalse(lock.locked())

    def test_only_the_owner_releases(self) -> None:
        """`release` by another task raises RuntimeError."""
        clock, lock = TaskClock(), RLock()
        lock.acquire()
        with self.assertRaises(RuntimeError):
            clock.result(lock.release)
        lock.release()
