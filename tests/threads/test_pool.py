"""Tests of the threads: their number, their growth, and failures of the system."""

from __future__ import annotations

import os
import sys
import threading
from queue import SimpleQueue
from unittest.mock import patch

from tests.serving.thread_runner import SECONDS
from txgreenwsgi import to_thread
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._threads import thread_states
from txgreenwsgi._threads.pool import (
    DEFAULT_THREADS,
    MAX_THREADS,
    pool_of,
    set_thread_count,
)
from txgreenwsgi.testing import MemoryReactor

from .cases import ThreadsTestCase


class PoolTests(ThreadsTestCase):
    """ThreadPool."""

    def test_size(self) -> None:
        """The highest number that a server of the reactor asks for applies."""
        hub = hub_of(MemoryReactor())
        set_thread_count(hub, 2)
        self.assertEqual(pool_of(hub).size, 2)
        set_thread_count(hub, 5)
        set_thread_count(hub, 3)
        self.assertEqual(pool_of(hub).size, 5)
        self.assertEqual(pool_of(hub_of(MemoryReactor())).size, DEFAULT_THREADS)

    def test_number_of_threads(self) -> None:
        """Short calls one after another use one thread."""
        for _ in range(20):
            self.run_in_task(lambda: to_thread(int))
        self.assertEqual(self.pool.threads, 1)

    def test_limit(self) -> None:
        """At most `size` calls run at a time."""
        self.pool.size = 2
        mutex = threading.Lock()
        inside, most = 0, 0

        def function() -> None:
            nonlocal inside, most
            with mutex:
                inside += 1
                most = max(most, inside)
            sum(range(1000))
            with mutex:
                inside -= 1

        self.finish(*(self.begin(lambda: to_thread(function)) for _ in range(40)))
        self.assertLessEqual(most, 2)
        self.assertLessEqual(self.pool.threads, 2)

    def wait_for_each_other(self) -> None:
        """Run calls that wait for others, more than run at a time."""
        items: SimpleQueue[int] = SimpleQueue()
        self.pool.size = 4
        getters = [
            self.begin(lambda: to_thread(items.get, timeout=SECONDS)) for _ in range(12)
        ]
        putters = [self.begin(lambda: to_thread(items.put, 1)) for _ in range(12)]
        self.finish(*getters, *putters)
        self.assertEqual([task.error for task in getters], [None] * 12)
        self.assertLessEqual(self.pool.threads, MAX_THREADS)

    def test_growth(self) -> None:
        """Threads that wait are replaced, so that calls may wait for queued ones."""
        self.wait_for_each_other()

    def test_growth_without_the_kernel(self) -> None:
        """Without `/proc` a call that runs for long is taken for one that waits."""
        with patch.object(thread_states, "available", lambda: False):
            super().setUp()
            self.wait_for_each_other()

    def test_growth_without_descriptors(self) -> None:
        """A process without a free descriptor serves calls, and the pool grows."""
        if not thread_states.available():
            return
        with patch.object(os, "open", side_effect=OSError):
            self.wait_for_each_other()
            states = thread_states.ThreadStates()
            states.add()
            self.assertEqual(states.sample([threading.get_ident()]), {})
            states.remove()

    def test_no_thread(self) -> None:
        """A call waits until the system allows a thread."""
        start = threading.Thread.start
        failures = 3

        def fail_first(thread: threading.Thread) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise RuntimeError("can't start new thread")
            start(thread)

        with patch.object(threading.Thread, "start", fail_first):
            task = self.begin(lambda: to_thread(int, "7"))
            while failures:
                self.reactor.advance(1)
            self.reactor.advance(1)
            self.finish(task)
        self.assertEqual(self.run_in_task(task.wait), 7)
        self.assertEqual(self.pool.threads, 1)

    def test_switch_interval(self) -> None:
        """The switch interval is short while calls run, then as before."""
        before = sys.getswitchinterval()
        seen = self.run_in_task(lambda: to_thread(sys.getswitchinterval))
        self.assertLess(seen, before)
        self.assertEqual(sys.getswitchinterval(), before)
