"""Tests of `suspend()`: one wait, answered through its handle."""

from __future__ import annotations

import threading
import traceback
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txgreenwsgi import NotInGreenlet, Suspension, TimedOut, sleep, suspend
from txgreenwsgi._switching import guards

from .clocked import ClockTestCase
from .threaded import ThreadClock, in_thread


class SuspendedTestCase(ClockTestCase):
    """Helpers for a task that waits on a handle."""

    def suspended(self, timeout: float | None = None) -> Suspension:
        """Start such a task and return its handle."""

        def work() -> Any:
            self.handle = suspend(timeout)
            return self.handle.wait()

        self.task = self.start(work)
        return self.handle


class ResumeTests(SuspendedTestCase):
    """`resume()`."""

    def test_during_the_wait(self) -> None:
        """It ends the wait with its value and returns True."""
        self.assertTrue(self.suspended().resume("value"))
        self.assertEqual(self.result_of(self.task), "value")

    def test_before_the_wait(self) -> None:
        """An answer that comes before the wait is kept."""

        def work() -> Any:
            handle = suspend()
            self.assertTrue(handle.resume("early"))
            sleep(1)
            return handle.wait()

        task = self.start(work)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "early")

    def test_when_the_wait_begins(self) -> None:
        """An answer by a signal handler while the task is parking is kept."""
        handles: list[Suspension] = []

        def work() -> Any:
            handles.append(suspend())
            return handles[0].wait()

        def refuse_nothing() -> None:
            self.assertTrue(handles[0].resume("just now"))

        with patch.object(guards, "check_can_park", refuse_nothing):
            task = self.start(work)
        self.assertEqual(self.result_of(task), "just now")

    def test_without_a_value(self) -> None:
        """Without a value the wait returns None."""
        self.suspended().resume()
        self.assertIsNone(self.result_of(self.task))

    def test_twice(self) -> None:
        """The first answer counts; the second call returns False."""
        handle = self.suspended()
        self.assertTrue(handle.resume("first"))
        self.assertFalse(handle.resume("second"))
        self.assertEqual(self.result_of(self.task), "first")

    def test_twice_before_the_wait(self) -> None:
        """Before the wait, too, the first answer counts."""

        def work() -> Any:
            handle = suspend()
            return handle.resume(1), handle.resume(2), handle.wait()

        self.assertEqual(self.result_of(self.start(work)), (True, False, 1))

    def test_late(self) -> None:
        """A late answer does not answer the next wait."""
        handles: list[Suspension] = []

        def work() -> Any:
            handles.append(suspend(timeout=1))
            self.assertRaises(TimedOut, handles[0].wait)
            handles.append(suspend())
            return handles[1].wait()

        task = self.start(work)
        self.clock.advance(1)
        self.assertFalse(handles[0].resume("late"))
        self.assertFalse(handles[0].throw(ValueError()))
        self.assertEqual(task.state, "parked")
        self.assertTrue(handles[1].resume("its own"))
        self.assertEqual(self.result_of(task), "its own")

    def test_abandoned_before_the_wait(self) -> None:
        """Abandoning a wait that has not begun is a no-op."""

        def work() -> Any:
            handle = suspend()
            handle.abandon(ValueError())
            sleep(1)
            handle.resume("answer")
            return handle.wait()

        task = self.start(work)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "answer")

    def test_never_waited_on(self) -> None:
        """Answering a handle that is never waited on has no effect."""
        task = self.start(suspend)
        self.assertTrue(self.result_of(task).resume())
        self.assert_nothing_left()


class ThrowTests(SuspendedTestCase):
    """`throw()`."""

    def test_exception(self) -> None:
        """It ends the wait by raising the exception in the task."""
        error = ValueError()
        self.assertTrue(self.suspended().throw(error))
        self.assertIs(self.error_of(self.task, ValueError), error)

    def test_failure(self) -> None:
        """A Failure is raised with its traceback."""

        def origin_of_the_failure() -> None:
            raise ValueError

        handle = self.suspended()
        try:
            origin_of_the_failure()
        except ValueError:
            handle.throw(Failure())
        error = self.error_of(self.task, ValueError)
        text = "".join(traceback.format_exception(error))
        self.assertIn("in origin_of_the_failure", text)

    def test_failure_without_its_frames(self) -> None:
        """A Failure whose traceback is text only has it as the cause."""

        def origin_of_the_failure() -> None:
            raise ValueError

        handle = self.suspended()
        try:
            origin_of_the_failure()
        except ValueError:
            failure = Failure()
        failure.cleanFailure()  # as Deferreds do, up to Twisted 25
        handle.throw(failure)
        error = self.error_of(self.task, ValueError)
        text = "".join(traceback.format_exception(error))
        self.assertIn("in origin_of_the_failure", text)
        self.assertIn("direct cause", text)

    def test_before_the_wait(self) -> None:
        """An error that comes before the wait is raised by the wait."""

        def work() -> Any:
            handle = suspend()
            handle.throw(ValueError())
            return handle.wait()

        self.error_of(self.start(work), ValueError)


class TimeoutTests(SuspendedTestCase):
    """`suspend(timeout)`."""

    def test_expires(self) -> None:
        """The wait ends by TimedOut, a TimeoutError that names the seconds."""
        self.suspended(2.5)
        self.clock.advance(2)
        self.assertEqual(self.task.state, "parked")
        self.clock.advance(0.5)
        error = self.error_of(self.task, TimedOut)
        self.assertIsInstance(error, TimeoutError)
        self.assertIn("2.5 seconds", str(error))
        self.assertFalse(self.handle.answered)

    def test_counts_from_the_wait(self) -> None:
        """The time is measured from the wait, not from `suspend()`."""

        def work() -> Any:
            handle = suspend(2)
            sleep(5)
            return handle.wait()

        task = self.start(work)
        self.clock.advance(5)
        self.clock.advance(1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(1)
        self.error_of(task, TimedOut)

    def test_answered_in_time(self) -> None:
        """An answer in time leaves no delayed call."""
        self.suspended(2).resume("in time")
        self.assertEqual(self.result_of(self.task), "in time")
        self.assertTrue(self.handle.answered)
        self.assert_nothing_left()

    def test_bad_timeout(self) -> None:
        """A bad timeout raises an error that names the call and the value."""
        error = self.error_of(self.start(suspend, -1), ValueError)
        self.assertIn("suspend(timeout)", str(error))
        self.assertIn("-1", str(error))
        self.error_of(self.start(suspend, "soon"), TypeError)


class MisuseTests(SuspendedTestCase):
    """Wrong uses of handles."""

    def test_waiting_twice(self) -> None:
        """A second wait raises an error that names the remedy."""

        def work() -> None:
            handle = suspend()
            handle.resume()
            handle.wait()
            handle.wait()

        error = self.error_of(self.start(work), RuntimeError)
        self.assertIn("call suspend() for a new one", str(error))

    def test_waiting_again_after_a_timeout(self) -> None:
        """A second wait is refused after a timeout, too."""

        def work() -> None:
            handle = suspend(1)
            self.assertRaises(TimedOut, handle.wait)
            handle.wait()

        task = self.start(work)
        self.clock.advance(1)
        self.error_of(task, RuntimeError)

    def test_waiting_in_another_task(self) -> None:
        """A wait in another task is refused; the error names both tasks."""
        handle = self.suspended()
        error = self.error_of(self.start(handle.wait), RuntimeError)
        self.assertIn("call suspend() in the task that is to wait", str(error))

    def test_outside_of_tasks(self) -> None:
        """Outside tasks a handle can be answered only."""
        self.assertRaises(NotInGreenlet, suspend)
        self.assertRaises(NotInGreenlet, self.suspended().wait)


class ThreadTests(SuspendedTestCase):
    """Answers from threads."""

    def make_clock(self) -> ThreadClock:
        """Return a clock that accepts calls from threads."""
        return ThreadClock()

    def test_resume(self) -> None:
        """An answer from a thread resumes the task in the reactor's thread."""
        threads = []

        def work() -> Any:
            self.handle = suspend()
            value = self.handle.wait()
            threads.append(threading.current_thread())
            return value

        task = self.start(work)
        self.assertTrue(in_thread(lambda: self.handle.resume("from a thread")))
        self.assertEqual(task.state, "parked")
        self.turn()
        self.assertEqual(self.result_of(task), "from a thread")
        self.assertEqual(threads, [threading.current_thread()])

    def test_throw(self) -> None:
        """An error from a thread is raised in the task."""
        handle = self.suspended()
        self.assertTrue(in_thread(lambda: handle.throw(ValueError())))
        self.turn()
        self.error_of(self.task, ValueError)

    def test_two_threads(self) -> None:
        """Of two threads that answer, one resumes the task."""
        handle = self.suspended()
        in_thread(lambda: handle.resume("first"))
        in_thread(lambda: handle.resume("second"))
        self.turn()
        self.assertEqual(self.result_of(self.task), "first")
        self.assertFalse(in_thread(lambda: handle.resume("third")))

    def test_before_the_wait(self) -> None:
        """A thread may answer before the wait begins."""

        def work() -> Any:
            handle = suspend()
            in_thread(lambda: handle.resume("fast"))
            return handle.wait()

        task = self.start(work)
        self.turn()
        self.assertEqual(self.result_of(task), "fast")

    def test_after_the_timeout(self) -> None:
        """An answer from a thread after the timeout has no effect."""
        handle = self.suspended(1)
        self.clock.advance(1)
        self.error_of(self.task, TimedOut)
        self.assertFalse(in_thread(lambda: handle.resume("late")))
        self.turn()

    def test_late_by_a_turn(self) -> None:
        """An answer that is being delivered at the timeout has no effect."""
        handle = self.suspended(1)
        self.assertTrue(in_thread(lambda: handle.resume("under way")))
        Clock.advance(self.clock, 1)
        self.error_of(self.task, TimedOut)
        self.turn()
        self.error_of(self.task, TimedOut)


class NoThreadsTests(SuspendedTestCase):
    """A reactor that does not accept calls from threads."""

    def test_clear_error(self) -> None:
        """The thread gets a clear error."""
        handle = self.suspended()
        error = self.assertRaises(NotInGreenlet, in_thread, handle.resume, "pool-3")
        self.assertIn("'pool-3'", str(error))
