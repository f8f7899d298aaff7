"""Tests of the end of the process: the tasks that are left."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from unittest.mock import patch

from greenlet import GreenletExit, greenlet
from twisted.internet.defer import Deferred

from txgreenwsgi import (
    Cancelled,
    NotInGreenlet,
    Suspension,
    current_task,
    shield,
    sleep,
    suspend,
    wait,
)
from txgreenwsgi._switching import greenlets

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Task


class KillTests(ClockTestCase):
    """At the end of the process all remaining tasks are killed."""

    def test_finally_runs(self) -> None:
        """The `finally` blocks of every parked task run."""
        events: list[str] = []

        def work(name: str) -> None:
            try:
                sleep(60)
            finally:
                events.append(name)

        tasks = [self.start(work, name) for name in "abc"]
        self.hub.close()
        self.assertEqual(sorted(events), ["a", "b", "c"])
        self.assertEqual({task.state for task in tasks}, {"failed"})
        self.error_of(tasks[0], Cancelled)
        self.assert_nothing_left()

    def test_except_exception_does_not_catch_it(self) -> None:
        """GreenletExit passes `except Exception`."""
        events: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            except Exception:
                events.append("went on")

        self.start(work)
        self.hub.close()
        self.assertEqual(events, [])

    def test_shield_does_not_hold_it_up(self) -> None:
        """A shield does not delay a kill."""

        def work() -> None:
            with shield():
                sleep(60)

        task = self.start(work)
        self.hub.close()
        self.error_of(task, Cancelled)

    def test_finally_may_not_wait(self) -> None:
        """A wait in a `finally` block of a killed task is refused at once."""
        refusals: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                try:
                    sleep(1)
                except NotInGreenlet as error:
                    refusals.append(str(error))

        task = self.start(work)
        self.hub.close()
        self.assertTrue(task.done)
        self.assertIn("reactor stops", refusals[0])
        self.assertIn("work", refusals[0])
        self.assert_nothing_left()

    def test_refused_wait_is_over(self) -> None:
        """Answering a refused wait returns False."""
        late: list[bool] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                handle = suspend()
                self.assertRaises(NotInGreenlet, handle.wait)
                late.append(handle.resume())

        self.killed(work)
        self.assertEqual(late, [False])

    def test_refusal_that_is_not_caught(self) -> None:
        """A refused wait that is not caught is logged: the cleanup is incomplete."""

        def work() -> None:
            try:
                sleep(60)
            finally:
                sleep(1)

        self.error_of(self.killed(work), NotInGreenlet)

    def killed(self, function: Callable[[], object]) -> Task[object]:
        """Return a task that waits and is then killed."""
        task = self.start(function)
        self.hub.close()
        return task

    def test_what_was_waited_on_is_cancelled(self) -> None:
        """The Deferred that a killed task waited on is cancelled."""
        cancelled: list[Deferred[None]] = []
        deferred: Deferred[None] = Deferred(cancelled.append)
        self.killed(lambda: wait(deferred))
        self.assertEqual(cancelled, [deferred])

    def test_one_that_swallows_everything(self) -> None:
        """A task that catches everything and waits again is abandoned."""
        over = False

        def stubborn() -> None:
            while not over:
                with contextlib.suppress(BaseException):
                    sleep(60)

        with patch.object(greenlets, "MAX_REFUSALS", 10):
            task = self.killed(stubborn)
        over = True
        self.assertFalse(task.done)
        self.assertEqual(self.hub.abandoned, [task])
        self.assertEqual(len(self.hub.tasks), 0)
        self.hub.close()  # a second call is a no-op
        self.assertFalse(task.done)

    def test_task_in_line(self) -> None:
        """A ready task that has not run yet is ended too."""
        events: list[object] = []
        deferred: Deferred[str] = Deferred()

        def work() -> None:
            events.append(wait(deferred))
            try:
                sleep(60)
                events.append("went on")
            except GreenletExit:
                events.append("told")
                raise

        task = self.start(work)
        self.start(deferred.callback, "answer")
        self.assertEqual(task.state, "ready")
        self.hub.close()
        self.assertEqual(events, ["answer", "told"])
        self.error_of(task, Cancelled)
        self.turn()
        self.assert_nothing_left()

    def test_task_that_never_began(self) -> None:
        """A spawned task that has not begun never runs; its waiter is resumed."""
        events: list[str] = []
        task = self.spawn(events.append, "ran")
        ended = task.deferred()
        self.hub.close()
        self.failureResultOf(ended, Cancelled)
        self.turn()
        self.assertEqual(events, [])
        self.assert_nothing_left()

    def test_one_that_answers_another_in_finally(self) -> None:
        """A `finally` block may answer another task that is being killed."""
        handles: dict[str, Suspension] = {}

        def work(name: str, other: str) -> None:
            handles[name] = suspend()
            try:
                handles[name].wait()
            finally:
                handles[other].resume()

        tasks = [self.start(work, "a", "b"), self.start(work, "b", "a")]
        self.hub.close()
        self.assertTrue(all(task.done for task in tasks))
        self.turn()
        self.assert_nothing_left()

    def test_one_inside_a_child_greenlet(self) -> None:
        """A task that waits in a child greenlet is killed at its next wait."""
        events: list[str] = []

        def in_child() -> None:
            try:
                sleep(60)
            finally:
                events.append("child ended")

        def work() -> None:
            greenlet(in_child).switch()
            try:
                sleep(60)
            except GreenletExit:
                events.append("task told")
                raise

        self.error_of(self.killed(work), Cancelled)
        self.assertEqual(events, ["child ended", "task told"])

    def test_one_that_runs_on(self) -> None:
        """A task that kills itself gets the exception at its next wait."""

        def work() -> None:
            task = current_task()
            assert task is not None
            task.kill()
            sleep(1)

        task = self.start(work)
        self.error_of(task, Cancelled)
        task.kill()
        self.assert_nothing_left()

    def test_nothing_begins_afterwards(self) -> None:
        """After the reactor has stopped, a new task is refused."""
        self.hub.close()
        for begin in (self.start, self.spawn):
            error = self.assertRaises(NotInGreenlet, begin, sleep, 1)
            self.assertIn("the reactor has stopped", str(error))
        self.assert_nothing_left()

    def test_nothing_begins_in_finally(self) -> None:
        """A task spawned in a `finally` block is refused."""
        errors: list[Exception] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                try:
                    self.spawn(sleep, 1)
                except NotInGreenlet as error:
                    errors.append(error)

        self.killed(work)
        self.assertEqual(len(errors), 1)
        self.assert_nothing_left()


class ThreadTests(ClockTestCase):
    """Tasks that outlive the reactor, while the interpreter's exit handlers run."""

    def thread(self, events: list[str]) -> Task[object]:
        """Return such a task."""

        def work() -> None:
            try:
                sleep(60)
                events.append("woken")
                sleep(60)
            finally:
                events.append("ended")

        task = self.start(work)
        self.hub.threads.add(task)
        return task

    def test_close(self) -> None:
        """They stay parked when the others are killed."""
        events: list[str] = []
        task = self.thread(events)
        other = self.start(sleep, 60)
        self.hub.close()
        self.assertTrue(other.done)
        self.assertEqual((task.state, events), ("parked", []))
        error = self.assertRaises(NotInGreenlet, self.spawn, sleep, 1)
        self.assertIn("the reactor has stopped", str(error))
        self.hub.end()

    def test_reopen(self) -> None:
        """They run on, and tasks can start, until the end."""
        events: list[str] = []
        task = self.thread(events)
        self.hub.close()
        self.hub.reopen()
        late = self.spawn(sleep, 60)
        self.clock.advance(60)
        self.assertEqual(
            (task.state, late.state, events), ("parked", "parked", ["woken"])
        )
        self.hub.end()
        self.assertEqual(events, ["woken", "ended"])
        self.error_of(task, Cancelled)
        self.error_of(late, Cancelled)
        self.assertRaises(NotInGreenlet, self.spawn, sleep, 1)
        self.assert_nothing_left()

    def test_call_at_end(self) -> None:
        """A callback runs once, when no task can run any more."""
        events: list[str] = []
        self.hub.call_at_end(lambda: events.append("callback"))
        self.thread(events)
        self.hub.close()
        self.assertEqual(events, [])
        self.hub.end()
        self.hub.end()
        self.assertEqual(events, ["ended", "callback"])

    def test_call_at_end_without_threads(self) -> None:
        """Without threads this is when the reactor has stopped."""
        events: list[str] = []
        self.hub.call_at_end(lambda: events.append("callback"))
        self.hub.close()
        self.assertEqual(events, ["callback"])
