"""State machines of tasks and suspensions: every pair of state and event."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Suspension, Task, current_task, sleep, suspend
from txgreenwsgi._states import IllegalTransition
from txgreenwsgi._switching import greenlets, suspensions, tasks
from txgreenwsgi._switching.suspensions import SUSPENSION_TRANSITIONS as SUSPENSION
from txgreenwsgi._switching.tasks import TASK_TRANSITIONS as TASK

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Callable


class TableTests(SynchronousTestCase):
    """The tables."""

    def test_end_states(self) -> None:
        """No event leaves an end state."""
        for state in (tasks.FINISHED, tasks.FAILED, tasks.ABANDONED):
            self.assertLessEqual(set(TASK.table[state].values()), {state})
        self.assertEqual(
            set(SUSPENSION.table[suspensions.OVER].values()), {suspensions.OVER}
        )


class TaskTests(ClockTestCase):
    """`Task.state` follows `TASK_TRANSITIONS`."""

    def in_state(self, state: str) -> Task[object]:
        """Return a task in `state`, parked or ready in `sleep(1)`."""
        task: Task[object]
        if state == "new":
            return Task(self.hub, sleep, (1,))
        if state == "finished":
            return self.start(int)
        if state == "failed":
            task = self.spawn(int)
            task.cancel()
            self.turn()
            return task
        if state == "abandoned":
            return self.abandoned()
        task = self.start(sleep, 1)
        if state == "ready":
            self.in_task(lambda: self.hub.wake(task))
        return task

    def abandoned(self) -> Task[object]:
        """Return a task that was killed and kept waiting in a loop."""
        ended = False

        def stubborn() -> None:
            while not ended:
                with contextlib.suppress(BaseException):
                    sleep(60)

        with patch.object(greenlets, "MAX_REFUSALS", 3):
            task = self.start(stubborn)
            task.kill()
        ended = True
        return task

    def in_task(self, function: Callable[[], object]) -> None:
        """Call `function` in another task, where no task can be resumed at once."""
        task = self.start(function)
        if task.error is not None:
            raise self.error_of(task, IllegalTransition)

    def deliver(self, task: Task[object], event: str) -> None:
        """Cause `event` in a task that is not running."""
        if event == "start":
            self.hub.start(task)
        elif event == "cancel":
            self.in_task(task.cancel)
        elif event == "park":
            self.hub.park(task, Suspension(task))
        elif event == "wake":
            self.in_task(lambda: self.hub.wake(task))
        else:
            task.run()

    def next_of(self, state: str, event: str) -> str:
        """Return the state that `event` leads to, for a task that is not running."""
        seen: list[str] = []

        def note() -> None:
            task = current_task()
            assert task is not None
            seen.append(task.state)
            sleep(1)

        if event == "start" and state == "new":
            # It is ready for no longer than the call takes.
            task: Task[object] = Task(self.hub, note)
            self.hub.start(task)
            self.assertEqual(seen, ["running"])
            return "ready"
        task = self.in_state(state)
        self.assertEqual(task.state, state)
        self.deliver(task, event)
        return task.state

    def test_not_running(self) -> None:
        """A pair in the table leads to its next state; all others raise one error."""
        states = set(TASK.states) - {"running"}
        # The hub alone resumes and abandons tasks, as the tests below do.
        events = set(TASK.events) - {"resume", "abandon", "fail"}
        for state in sorted(states):
            for event in sorted(events):
                with self.subTest(state=state, event=event):
                    expected = TASK.table[state].get(event)
                    if expected is not None:
                        self.assertEqual(self.next_of(state, event), expected)
                        continue
                    task = self.in_state(state)
                    self.assertRaises(IllegalTransition, self.deliver, task, event)
                    self.assertEqual(task.state, state)

    def test_running(self) -> None:
        """A running task parks, ends, or is cancelled at its next wait."""
        running = TASK.table["running"]
        for event in sorted(set(TASK.events)):
            with self.subTest(event=event):
                if event == "abandon":
                    self.assertEqual(self.abandoned().state, running[event])
                elif event == "park":
                    self.assertEqual(self.start(sleep, 1).state, running[event])
                elif event == "finish":
                    self.assertEqual(self.start(int).state, running[event])
                elif event == "fail":
                    task = self.start(int, "x")
                    self.error_of(task, ValueError)
                    self.assertEqual(task.state, running[event])
                else:
                    self.assertEqual(self.during_run(event), running.get(event))

    def during_run(self, event: str) -> str | None:
        """Return the state of a task that caused `event` to itself; None if refused."""

        def act() -> str | None:
            task = current_task()
            assert task is not None
            self.assertEqual(task.state, "running")
            if event == "resume":
                return None  # only the hub resumes, and only ready tasks
            try:
                if event == "cancel":
                    task.cancel()
                elif event == "start":
                    self.hub.start(task)
                else:
                    self.hub.wake(task)
            except IllegalTransition:
                self.assertEqual(task.state, "running")
                return None
            return task.state

        return self.result_of(self.start(act))

    def test_resume(self) -> None:
        """At its turn a ready task runs; a turn changes no other state."""
        for state in sorted(set(TASK.states) - {"running"}):
            with self.subTest(state=state):
                task = self.in_state(state)
                self.turn()
                if state == "ready":
                    self.assertEqual(task.state, "finished")
                else:
                    self.assertEqual(task.state, state)


class SuspensionTests(ClockTestCase):
    """`Suspension.state` follows `SUSPENSION_TRANSITIONS`."""

    def apply(self, state: str, event: str) -> str:
        """Return the state after `event`, in a suspension in `state`."""
        states: list[str] = []

        def act() -> None:
            suspension = suspend()
            task = suspension.task
            assert task is not None
            if state in ("answered", "over"):
                suspension.resume()
            if state == "over":
                suspension.wait()
            self.assertEqual(suspension.state, state)
            if event == "answer":
                self.assertEqual(suspension.resume(), state == "unanswered")
            elif event == "abandon":
                suspension.abandon(ValueError())
            elif event == "refuse":
                task.interrupt(ValueError())
                self.hub.park(task, suspension)
            else:
                other = Task(self.hub, lambda: states.append(suspension.state))
                self.hub.spawn(other)
                suspension.wait()
            states.append(suspension.state)

        if state == "waiting":
            states.append(self.apply_to_waiting(event))
        else:
            task = self.start(act)
            self.turn()
            if task.error is not None and state == "over":
                self.error_of(task, RuntimeError)
                states.append("refused")
        return states[-1]

    def apply_to_waiting(self, event: str) -> str:
        """Return the state after `event` in a suspension that is waited on."""
        handles: list[Suspension] = []

        def act() -> None:
            handles.append(suspend())
            handles[0].wait()

        task = self.start(act)
        [suspension] = handles
        self.assertEqual(suspension.state, "waiting")
        if event == "answer":
            self.assertTrue(suspension.resume())
            self.result_of(task)
        elif event == "abandon":
            suspension.abandon(ValueError())
            self.error_of(task, ValueError)
        else:
            self.error_of(self.start(suspension.wait), RuntimeError)
            return "refused"
        return suspension.state

    def test_every_pair(self) -> None:
        """A pair in the table leads to its next state; a second wait raises."""
        events = set(SUSPENSION.events)
        for state in SUSPENSION.states:
            for event in sorted(events):
                with self.subTest(state=state, event=event):
                    expected = SUSPENSION.table[state].get(event)
                    if expected is not None:
                        self.assertEqual(self.apply(state, event), expected)
                    elif event == "wait":
                        self.assertEqual(self.apply(state, event), "refused")
                    # else "refuse": the hub refuses only a wait that begins.
