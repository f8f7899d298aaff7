"""Which task runs, as asked from anywhere; and what is told where none does."""

from __future__ import annotations

import os
import threading

from greenlet import greenlet
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import NotInGreenlet, Task, current_task, sleep
from txgreenwsgi._switching.running import require_task

from .clocked import ClockTestCase
from .threaded import in_thread


class CurrentTaskTests(ClockTestCase):
    """`current_task()`."""

    def test_in_a_task(self) -> None:
        """It is the task that runs the code, after each wait too."""
        seen: list[object] = []

        def work() -> None:
            seen.append(current_task())
            sleep(1)
            seen.append(current_task())

        tasks = [self.start(work), self.start(work)]
        self.clock.advance(1)
        self.assertEqual(seen, [*tasks, *tasks])

    def test_in_the_reactor(self) -> None:
        """In callbacks of the reactor there is none, between tasks as before them."""
        seen = [current_task()]
        self.clock.callLater(1, lambda: seen.append(current_task()))
        self.start(sleep, 2)
        seen.append(current_task())
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(seen, [None, None, None])

    def test_in_a_child_greenlet(self) -> None:
        """What a library runs in greenlets of its own, however deep, is the task's."""

        def nested(levels: int) -> object:
            if levels:
                return greenlet(nested).switch(levels - 1)
            sleep(1)
            return current_task()

        task: Task[object] = self.start(nested, 3)
        self.clock.advance(1)
        self.assertIs(self.result_of(task), task)

    def test_in_a_greenlet_of_nobody(self) -> None:
        """A greenlet that was not made inside the task does not belong to it."""
        foreign = greenlet(lambda: current_task())
        task = self.start(lambda: foreign.switch())
        del task
        self.assertIsNone(greenlet(lambda: current_task()).switch())

    def test_in_a_thread(self) -> None:
        """A thread has none, even while a task runs."""
        seen = self.start(lambda: in_thread(current_task))
        self.assertIsNone(self.result_of(seen))


class ForkTests(ClockTestCase):
    """A task that forks its process."""

    if not hasattr(os, "fork"):
        skip = "this platform has no fork"

    def test_child(self) -> None:
        """In the child no reactor turns, so nothing there can wait; the parent can."""
        reading, writing = os.pipe()

        def work() -> int:
            child = os.fork()
            if child == 0:
                try:
                    sleep(1)
                except NotInGreenlet as error:
                    os.write(writing, str(error).encode())
                finally:
                    os._exit(0)
            sleep(1)
            return child

        task = self.start(work)
        os.close(writing)
        with open(reading) as pipe:
            self.assertIn("sleep() was called outside a task", pipe.read())
        self.clock.advance(1)
        os.waitpid(self.result_of(task), 0)


class RequireTaskTests(ClockTestCase):
    """The error where nothing can wait."""

    def test_in_the_reactor(self) -> None:
        """It names the call, and what to do instead."""
        error = self.assertRaises(NotInGreenlet, sleep, 1)
        for part in ("sleep()", "spawn()", "in_greenlet()", "use the Deferred itself"):
            self.assertIn(part, str(error))

    def test_in_a_thread(self) -> None:
        """In a thread it names the thread, and what to do there."""

        def work() -> Exception:
            error: Exception = self.assertRaises(
                NotInGreenlet, in_thread, lambda: sleep(1), "pool-5"
            )
            return error

        for error in (work(), self.result_of(self.start(work))):
            self.assertIn("'pool-5'", str(error))
            self.assertIn("blockingCallFromThread", str(error))

    def test_in_a_child_greenlet(self) -> None:
        """A child greenlet of a task may wait."""
        task = self.start(lambda: greenlet(require_task).switch("it"))
        self.assertIs(self.result_of(task), task)


class NoReactorTests(SynchronousTestCase):
    """Without any reactor."""

    def test_clear_error(self) -> None:
        """The same error, and no reactor gets installed by it."""
        self.assertEqual(threading.current_thread(), threading.main_thread())
        error = self.assertRaises(NotInGreenlet, sleep, 1)
        self.assertIn("no reactor is running", str(error))
