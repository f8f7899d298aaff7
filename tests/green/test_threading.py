"""Green threads, thread-locals, queues and time, on a clock."""

from __future__ import annotations

import _thread
import ctypes
import gc
import io
import pickle
import sys
import weakref
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._parking.real_threads import thread_ident as real_thread_ident
from txgreenwsgi._parking.task_local import local_count
from txgreenwsgi._switching.greenlets import Task
from txgreenwsgi.green import queue, thread, threading, time
from txgreenwsgi.green.concurrent import futures

from .clock import TaskClock, result_of


class ThreadTests(SynchronousTestCase):
    """A thread started in a task is a task."""

    def test_start_and_join(self) -> None:
        """A thread runs, has its own ident, and can be joined."""
        idents: list[int] = []

        def note() -> None:
            idents.append(threading.get_ident())
            idents.append(threading.current_thread().ident)

        def program() -> None:
            started = threading.Thread(target=note)
            started.start()
            started.join()
            self.assertFalse(started.is_alive())
            self.assertEqual(idents, [started.ident] * 2)
            self.assertNotEqual(threading.get_ident(), started.ident)

        TaskClock().result(program)

    def test_idents_do_not_come_back(self) -> None:
        """Tasks that follow each other have different idents."""
        clock = TaskClock()
        idents = [clock.result(threading.get_ident) for _ in range(1000)]
        self.assertEqual(len(set(idents)), 1000)
        self.assertNotIn(real_thread_ident(), idents)

    def test_ident_in_c_code(self) -> None:
        """C code that takes an ident for a real thread finds memory there."""
        ident = TaskClock().result(threading.get_ident)
        self.assertEqual(ctypes.string_at(ident, 8192), bytes(8192))

    def test_names_of_types(self) -> None:
        """Locks are of types of `_thread`, as trio requires."""
        for make in (threading.Lock, threading.RLock):
            self.assertEqual(make().__class__.__module__, "_thread")
        self.assertIn("_thread.RLock", repr(threading.RLock()))

    def test_pickle(self) -> None:
        """`allocate_lock` is pickled by name; a manager's process has the original."""
        with patch.object(_thread, "allocate_lock", thread.allocate_lock):
            pickled = pickle.dumps(thread.allocate_lock)
        self.assertIs(pickle.loads(pickled), _thread.allocate_lock)

    def test_timer(self) -> None:
        """A Timer calls its function by the reactor's clock."""
        clock = TaskClock()
        called: list[str] = []
        clock.spawn(lambda: threading.Timer(5, called.append, ["now"]).start())
        self.assertEqual(called, [])
        clock.advance(5)
        clock.settle()
        self.assertEqual(called, ["now"])

    def test_unhandled_exception_is_reported(self) -> None:
        """An exception in `start_new_thread` goes to `sys.unraisablehook`."""

        def fail() -> None:
            raise ValueError("on purpose")

        def program() -> None:
            thread.start_new_thread(fail, ())
            time.sleep(0)

        for hook in (sys.__unraisablehook__, None):
            reported: list[Any] = []
            printed = io.StringIO()
            with (
                patch.object(sys, "unraisablehook", hook or reported.append),
                patch.object(sys, "stderr", printed),
            ):
                TaskClock().result(program)
            if hook is None:
                self.assertIsInstance(reported[0].exc_value, ValueError)
                continue
            self.assertIn("thread started by", printed.getvalue())
            self.assertIn("ValueError: on purpose", printed.getvalue())

    def test_current_thread_of_task_is_dropped(self) -> None:
        """`current_thread()` in a task leaves nothing behind after its end."""
        before = threading.enumerate()
        TaskClock().result(threading.current_thread)
        self.assertEqual(threading.enumerate(), before)

    def test_pool_of_tasks(self) -> None:
        """The calls of a ThreadPoolExecutor wait concurrently."""
        clock = TaskClock()

        def program() -> list[int]:
            def wait_for(number: int) -> int:
                time.sleep(1)
                return number

            with futures.ThreadPoolExecutor(10) as pool:
                return list(pool.map(wait_for, range(10)))

        task = clock.spawn(program)
        clock.advance(1)
        clock.settle()
        self.assertEqual(result_of(task), list(range(10)))


class LocalTests(SynchronousTestCase):
    """`local` has one namespace per task."""

    def test_each_task_sees_its_own(self) -> None:
        """An attribute set in one task is invisible elsewhere."""
        clock, mine = TaskClock(), threading.local()
        mine.name = "reactor"

        def use(name: str) -> str:
            self.assertFalse(hasattr(mine, "name"))
            mine.name = name
            time.sleep(1)
            return str(mine.name)

        tasks = [clock.spawn(use, name) for name in "abc"]
        clock.advance(1)
        clock.settle()
        self.assertEqual([result_of(task) for task in tasks], ["a", "b", "c"])
        self.assertEqual(mine.name, "reactor")

    def test_namespace_is_dropped_with_the_task(self) -> None:
        """The values of a task are released when it ends."""

        class Value:
            """An object that can be referenced weakly."""

        clock, mine = TaskClock(), threading.local()

        def use() -> weakref.ref[Value]:
            mine.value = Value()
            return weakref.ref(mine.value)

        self.assertIsNone(clock.result(use)())

    def test_many_in_a_long_lived_task(self) -> None:
        """`local` objects that a task made and dropped leave nothing behind in it."""
        clock = TaskClock()
        callbacks: list[object] = []
        self.patch(Task, "call_at_end", lambda task, call: callbacks.append(call))

        def use() -> None:
            for _ in range(1000):
                threading.local().thing = "x"
            time.sleep(1)

        task = clock.spawn(use)
        gc.collect()
        self.assertEqual(len(callbacks), 1)
        self.assertEqual(local_count(task), 0)
        clock.advance(1)
        self.assertTrue(task.done)
        callbacks[0]()  # type: ignore[operator]
        self.assertIsNone(local_count(task))

    def test_init_is_called_for_each_task(self) -> None:
        """The `__init__` of a subclass runs in each namespace, with the arguments."""

        class Counter(threading.local):  # type: ignore[misc]
            def __init__(self, start: int) -> None:
                self.value = start

        counter = Counter(7)
        counter.value += 1
        self.assertEqual(TaskClock().result(lambda: counter.value), 7)
        self.assertEqual(counter.value, 8)


class QueueTests(SynchronousTestCase):
    """`get` and `put` park."""

    def test_get_waits_for_put(self) -> None:
        """`put` wakes a task in `get`, for both kinds of queue."""
        for kind in (queue.Queue, queue.SimpleQueue):
            clock, items = TaskClock(), kind()
            getter = clock.spawn(items.get)
            self.assertFalse(getter.done)
            clock.spawn(items.put, "item")
            self.assertEqual(result_of(getter), "item")

    def test_get_timeout(self) -> None:
        """`get(timeout=...)` raises Empty after the timeout."""
        for kind in (queue.Queue, queue.SimpleQueue):
            clock, items = TaskClock(), kind()
            getter = clock.spawn(lambda items=items: items.get(timeout=0.01))
            clock.advance(0.02)
            # The timeout also depends on the real clock.
            while not getter.done:
                clock.advance(0.01)
            with self.assertRaises(queue.Empty):
                result_of(getter)

    def test_put_waits_for_room(self) -> None:
        """`put` to a full Queue waits for a `get`."""
        clock, items = TaskClock(), queue.Queue(1)
        items.put(1)
        putter = clock.spawn(items.put, 2)
        self.assertFalse(putter.done)
        self.assertEqual(clock.result(items.get), 1)
        clock.settle()
        self.assertTrue(putter.done)


class SleepTests(SynchronousTestCase):
    """`time.sleep` parks."""

    def test_sleep(self) -> None:
        """It ends by the reactor's clock; invalid arguments raise."""
        clock = TaskClock()
        task = clock.spawn(time.sleep, 3)
        clock.advance(2)
        self.assertFalse(task.done)
        clock.advance(1)
        self.assertTrue(task.done)
        for wrong, kind in ((-1, ValueError), ("x", TypeError)):
            with self.assertRaises(kind):
                clock.result(time.sleep, wrong)
