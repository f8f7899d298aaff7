"""Green threads, thread-locals, queues and time, on a clock."""

from __future__ import annotations

import gc
import io
import sys
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.green import _locals, _thread, queue, threading, time
from txgreenwsgi.green.concurrent import futures

from .clock import TaskClock, result_of


class ThreadTests(SynchronousTestCase):
    """A thread that a task starts is a task."""

    def test_start_and_join(self) -> None:
        """The thread runs, has an ident and a name of its own, and is joined."""
        idents: list[int] = []

        def note() -> None:
            idents.append(threading.get_ident())
            idents.append(threading.current_thread().ident)

        def program() -> None:
            thread = threading.Thread(target=note)
            thread.start()
            thread.join()
            self.assertFalse(thread.is_alive())
            self.assertEqual(idents, [thread.ident] * 2)
            self.assertNotEqual(threading.get_ident(), thread.ident)

        TaskClock().result(program)

    def test_timer(self) -> None:
        """A Timer calls its function when the reactor's time has come."""
        clock = TaskClock()
        called: list[str] = []
        clock.spawn(lambda: threading.Timer(5, called.append, ["now"]).start())
        self.assertEqual(called, [])
        clock.advance(5)
        clock.settle()
        self.assertEqual(called, ["now"])

    def test_what_a_bare_thread_raises_is_told(self) -> None:
        """Its traceback is printed, by the interpreter's own hook or by another."""

        def fail() -> None:
            raise ValueError("on purpose")

        def program() -> None:
            _thread.start_new_thread(fail, ())
            time.sleep(0)

        for hook in (sys.__unraisablehook__, None):
            told: list[Any] = []
            printed = io.StringIO()
            with (
                patch.object(sys, "unraisablehook", hook or told.append),
                patch.object(sys, "stderr", printed),
            ):
                TaskClock().result(program)
            if hook is None:
                self.assertIsInstance(told[0].exc_value, ValueError)
                continue
            self.assertIn("thread started by", printed.getvalue())
            self.assertIn("ValueError: on purpose", printed.getvalue())

    def test_tasks_are_forgotten(self) -> None:
        """Asking a task for its current thread leaves nothing behind."""
        before = len(threading._active)
        TaskClock().result(threading.current_thread)
        self.assertEqual(len(threading._active), before)

    def test_pool_of_tasks(self) -> None:
        """A ThreadPoolExecutor's calls wait at the same time."""
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
    """`local` has a namespace for each task."""

    def test_each_task_sees_its_own(self) -> None:
        """What one task sets no other sees, nor the reactor greenlet."""
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

    def test_what_it_held_is_dropped_with_the_task(self) -> None:
        """A task's namespace ends when the task does."""
        clock, mine = TaskClock(), threading.local()

        def use() -> None:
            mine.thing = "x"

        clock.result(use)
        namespaces: Any = object.__getattribute__(mine, "_txgreenwsgi_namespaces")
        self.assertEqual(namespaces.of_task, {})

    def test_many_in_a_task_that_lives_long(self) -> None:
        """The objects that a task made and dropped leave nothing behind in it."""
        clock = TaskClock()

        def use() -> None:
            for _ in range(1000):
                threading.local().thing = "x"
            time.sleep(1)

        task = clock.spawn(use)
        gc.collect()
        self.assertLess(len(task._on_end or ()), 10)
        self.assertEqual(len(_locals._used_by[id(task)]), 0)
        clock.advance(1)
        self.assertTrue(task.done)
        self.assertNotIn(id(task), _locals._used_by)

    def test_init_is_called_for_each_task(self) -> None:
        """A subclass begins each namespace by its `__init__`, with its arguments."""

        class Counter(threading.local):  # type: ignore[misc]
            def __init__(self, start: int) -> None:
                self.value = start

        counter = Counter(7)
        counter.value += 1
        self.assertEqual(TaskClock().result(lambda: counter.value), 7)
        self.assertEqual(counter.value, 8)


class QueueTests(SynchronousTestCase):
    """Queues park those who get and those who put."""

    def test_get_waits_for_put(self) -> None:
        """Both kinds of queue wake a task that waits for an item."""
        for kind in (queue.Queue, queue.SimpleQueue):
            clock, items = TaskClock(), kind()
            getter = clock.spawn(items.get)
            self.assertFalse(getter.done)
            clock.spawn(items.put, "item")
            self.assertEqual(result_of(getter), "item")

    def test_nothing_came(self) -> None:
        """`get(timeout=...)` raises Empty when the time is over."""
        for kind in (queue.Queue, queue.SimpleQueue):
            clock, items = TaskClock(), kind()
            getter = clock.spawn(lambda items=items: items.get(timeout=0.01))
            clock.advance(0.02)
            # Their limits are the real clock's as well.
            while not getter.done:
                clock.advance(0.01)
            with self.assertRaises(queue.Empty):
                result_of(getter)

    def test_put_waits_for_room(self) -> None:
        """A full Queue parks who puts until somebody has got."""
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
        """It ends when the reactor's clock says so, and refuses what is no time."""
        clock = TaskClock()
        task = clock.spawn(time.sleep, 3)
        clock.advance(2)
        self.assertFalse(task.done)
        clock.advance(1)
        self.assertTrue(task.done)
        for wrong, kind in ((-1, ValueError), ("x", TypeError)):
            with self.assertRaises(kind):
                clock.result(time.sleep, wrong)
