"""Tests of the hub: scheduling, and the beginning and end of tasks."""

from __future__ import annotations

import gc
import sys
import weakref
from functools import partial
from typing import Any
from unittest.mock import patch

from greenlet import GreenletExit, getcurrent, greenlet
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from txgreenwsgi import (
    Cancelled,
    NotInGreenlet,
    Suspension,
    current_task,
    sleep,
    suspend,
    wait,
)
from txgreenwsgi._switching import greenlets, guards
from txgreenwsgi._switching.greenlets import (
    MIN_SLICE_SECONDS,
    SLICE_SECONDS,
    Hub,
    Task,
    existing_hub_of,
    hub_of,
)
from txgreenwsgi.testing import MemoryReactor

from .clocked import ClockTestCase, SwitchCount
from .threaded import ThreadClock, in_thread


class TurnTests(ClockTestCase):
    """The order in which tasks run."""

    def test_start_runs_until_the_first_wait(self) -> None:
        """A started task runs at once, until its first wait."""
        events = []

        def work() -> None:
            events.append("began")
            sleep(1)
            events.append("ended")

        self.start(work)
        self.assertEqual(events, ["began"])
        self.clock.advance(1)
        self.assertEqual(events, ["began", "ended"])

    def test_answered_by_the_reactor(self) -> None:
        """A wait answered by a callback of the reactor continues at once."""
        deferred: Deferred[str] = Deferred()
        task = self.start(wait, deferred)
        deferred.callback("now")
        self.assertEqual(self.result_of(task), "now")

    def test_answered_by_a_task(self) -> None:
        """A task that answers another continues; the other runs at the next turn."""
        deferred: Deferred[str] = Deferred()
        events = []

        def waiter() -> None:
            events.append(f"got {wait(deferred)}")

        def answerer() -> None:
            deferred.callback("it")
            events.append("answered")
            sleep(1)
            events.append("went on")

        waiting = self.start(waiter)
        self.start(answerer)
        self.assertEqual(events, ["answered"])
        self.assertEqual(waiting.state, "ready")
        self.turn()
        self.assertEqual(events, ["answered", "got it"])
        self.clock.advance(1)
        self.assertEqual(events, ["answered", "got it", "went on"])

    def test_answered_by_a_child_greenlet(self) -> None:
        """The same when the answer comes from a child greenlet of the task."""
        deferred: Deferred[str] = Deferred()
        task = self.start(wait, deferred)

        def answerer() -> str:
            child = greenlet(deferred.callback)
            child.switch("it")
            return task.state

        self.assertEqual(self.result_of(self.start(answerer)), "ready")
        self.turn()
        self.assertEqual(self.result_of(task), "it")

    def test_tasks_pass_a_ball(self) -> None:
        """Tasks that keep answering each other do not deepen the stack."""
        handles: dict[str, Suspension] = {}
        depths = set()

        def player(name: str, other: str) -> int:
            for _ in range(500):
                handles[name] = suspend()
                if other in handles:
                    handles.pop(other).resume()
                handles[name].wait()
                frame: Any = sys._getframe()
                depth = 0
                while frame is not None:
                    frame, depth = frame.f_back, depth + 1
                depths.add(depth)
            if other in handles:
                handles.pop(other).resume()
            return 500

        players = [self.start(player, "a", "b"), self.start(player, "b", "a")]
        self.turn(1000)
        self.assertEqual(players[0].state, "finished")
        self.assertEqual(len(depths), 1)

    def test_parked_task_is_kept(self) -> None:
        """A parked task stays alive without other references."""
        deferred: Deferred[str] = Deferred()
        got: list[str] = []
        self.start(lambda: got.append(wait(deferred)))
        for _ in range(3):
            gc.collect()
        deferred.callback("still here")
        self.assertEqual(got, ["still here"])

    def test_all_of_a_turn_share_one_delayed_call(self) -> None:
        """Many `sleep(0)` in one turn share one delayed call."""
        for _ in range(100):
            self.start(sleep, 0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.turn()
        self.assert_nothing_left()

    def test_slice_of_a_turn(self) -> None:
        """A turn makes calls for one time slice; the others follow, in order."""
        reactor = MemoryReactor()
        hub = hub_of(reactor)
        done: list[int] = []

        def call(number: int) -> None:
            done.append(number)
            reactor.rightNow += SLICE_SECONDS * 0.6
            if number == 0:
                hub.at_next_turn(partial(call, 5))

        for number in range(5):
            hub.at_next_turn(partial(call, number))
        for expected in (2, 4, 6):
            self.assertEqual(len(reactor.getDelayedCalls()), 1)
            reactor.turn()
            self.assertEqual(done, list(range(expected)))
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_shared_slice(self) -> None:
        """The tasks of one turn share its slice; a lone task has all of it."""
        slices: list[float] = []

        def note() -> None:
            sleep(0)
            slices.append(self.hub.slice_seconds)

        self.start(note)
        self.turn()
        for _ in range(4):
            self.start(note)
        self.turn()
        for _ in range(1000):
            self.start(note)
        self.turn()
        self.assertEqual(slices[0], SLICE_SECONDS)
        self.assertEqual(slices[1:5], [SLICE_SECONDS / 4] * 4)
        self.assertEqual(set(slices[5:]), {MIN_SLICE_SECONDS})
        self.assertEqual(self.hub.slice_seconds, SLICE_SECONDS)
        self.assert_nothing_left()

    def test_close_makes_all_calls(self) -> None:
        """A hub that closes makes all calls of its last turn."""
        done: list[int] = []

        def call(number: int) -> None:
            done.append(number)
            self.clock.rightNow += SLICE_SECONDS * 2

        for number in range(5):
            self.hub.at_next_turn(partial(call, number))
        self.hub.close()
        self.assertEqual(done, [0, 1, 2, 3, 4])

    def test_one_failure_in_a_turn(self) -> None:
        """A call that fails in a turn is logged; the others are made."""
        done: list[str] = []
        self.hub.at_next_turn(lambda: 1 / 0)
        self.hub.at_next_turn(lambda: done.append("the rest"))
        self.turn()
        self.assertEqual(done, ["the rest"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_task_that_turns_the_clock(self) -> None:
        """A task may advance the clock itself; other tasks return to it."""
        events = []

        def other() -> str:
            sleep(1)
            events.append("other")
            sleep(1)
            return "other ended"

        def turner() -> str:
            self.clock.advance(1)
            me = current_task()
            events.append("turner")
            sleep(1)
            return "me" if me is current_task() is not None else "lost"

        waiting = self.start(other)
        turning = self.start(turner)
        self.assertEqual(events, ["other", "turner"])
        self.assertEqual((waiting.state, turning.state), ("parked", "parked"))
        self.clock.advance(1)
        self.assertEqual(self.result_of(waiting), "other ended")
        self.assertEqual(self.result_of(turning), "me")

    def test_start_in_a_task(self) -> None:
        """A task that starts another continues when the other parks."""
        events = []

        def inner() -> None:
            events.append("inner")
            sleep(1)
            events.append("inner again")

        def outer() -> None:
            self.start(inner)
            events.append("outer")
            sleep(2)
            events.append("outer again")

        self.start(outer)
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(events, ["inner", "outer", "inner again", "outer again"])

    def test_answered_while_the_collector_runs(self) -> None:
        """A finalizer may answer a wait; the task resumes after the collection."""
        handles: list[Suspension] = []

        class Finalized:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                handles[0].resume("found dead")

        def work() -> tuple[Any, int | None]:
            handles.append(suspend())
            value = handles[0].wait()
            sleep(1)  # sleep() would be refused during the collection
            return value, guards.collecting_thread

        task = self.start(work)
        Finalized()
        gc.collect()
        self.assertEqual(task.state, "ready")
        self.turn()
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), ("found dead", None))


class BeginningTests(ClockTestCase):
    """The beginning of a task."""

    def test_spawn_begins_at_the_next_turn(self) -> None:
        """A spawned task does not run inside the call of `spawn`."""
        events: list[str] = []
        task = self.spawn(events.append, "ran")
        self.assertEqual((events, task.state), ([], "new"))
        self.turn()
        self.assertEqual((events, task.state), (["ran"], "finished"))

    def test_recursion_depth(self) -> None:
        """A task spawned deep in a stack has the whole recursion limit."""

        def room(depth: int = 0) -> int:
            try:
                return room(depth + 1)
            except RecursionError:
                return depth

        def deep(levels: int) -> Task[int]:
            return deep(levels - 1) if levels else self.spawn(room)

        from_the_top = self.spawn(room)
        from_the_depth = deep(300)
        self.turn()
        rooms = [self.result_of(from_the_top), self.result_of(from_the_depth)]
        self.assertLess(abs(rooms[0] - rooms[1]), 5)
        self.assertGreater(rooms[1], sys.getrecursionlimit() / 2)

    def test_greenlets_are_used_again(self) -> None:
        """A thousand tasks that end at once need one greenlet."""
        used = {self.result_of(self.start(lambda: id(getcurrent())))}
        for _ in range(1000):
            used.add(self.result_of(self.start(lambda: id(getcurrent()))))
        self.assertEqual(len(used), 1)

    def test_few_greenlets_are_kept(self) -> None:
        """A limited number of spare greenlets is kept."""
        with patch.object(greenlets, "SPARE_GREENLETS", 4):
            tasks = [self.start(sleep, 1) for _ in range(20)]
            self.clock.advance(1)
            self.assertEqual({task.state for task in tasks}, {"finished"})
            self.assertEqual(len(self.hub.spare_greenlets), 4)
            self.assertEqual(self.result_of(self.start(lambda: "ran")), "ran")

    def test_reused_greenlet_has_no_memory(self) -> None:
        """A reused greenlet has no exception of the previous task."""

        def failing() -> None:
            try:
                raise ValueError
            except ValueError:
                sleep(1)
                raise

        task = self.start(failing)
        self.clock.advance(1)
        self.error_of(task, ValueError)
        self.assertEqual(self.result_of(self.start(sys.exc_info)), (None, None, None))

    def test_exception_being_handled_is_each_ones_own(self) -> None:
        """Inside `except`, a task that waited still handles its own exception."""

        def handling(error: Exception) -> bool:
            try:
                raise error
            except Exception:
                sleep(1)
                return sys.exc_info()[1] is error

        tasks = [self.start(handling, ValueError()), self.start(handling, KeyError())]
        self.assertEqual(sys.exc_info(), (None, None, None))
        self.clock.advance(1)
        self.assertEqual([self.result_of(task) for task in tasks], [True, True])

    def test_home_is_where_the_reactor_runs(self) -> None:
        """The package may first be used in any greenlet."""
        clock = Clock()
        hubs: list[Hub] = []
        greenlet(lambda: hubs.append(hub_of(clock))).switch()
        task: Task[None] = Task(hubs[0], sleep, (1,))
        hubs[0].start(task)
        self.assertEqual(task.state, "parked")
        self.assertIs(hubs[0].reactor_greenlet, getcurrent())
        clock.advance(1)
        self.assertTrue(task.done)

    def test_thread_is_where_the_reactor_runs(self) -> None:
        """A hub made in one thread serves a reactor that runs in another."""
        reactor = MemoryReactorClock()
        hub = in_thread(lambda: hub_of(reactor))
        reactor.run()
        task: Task[None] = Task(hub, sleep, (1,))
        hub.spawn(task)
        reactor.advance(0)
        reactor.advance(1)
        self.assertTrue(task.done)

    def test_spawn_in_another_thread(self) -> None:
        """`spawn` in a worker thread is refused; the error names the remedy."""
        task: Task[None] = Task(self.hub, sleep, (1,))
        error = self.assertRaises(
            NotInGreenlet, in_thread, lambda: self.hub.spawn(task), "pool-7"
        )
        self.assertIn("'pool-7'", str(error))
        self.assertIn("reactor.callFromThread(spawn, function)", str(error))
        self.assert_nothing_left()

    def test_thread_of_a_hub(self) -> None:
        """A hub distinguishes its reactor's thread from others."""
        self.assertTrue(self.hub.on_its_thread())
        self.assertFalse(in_thread(self.hub.on_its_thread))

    def test_one_hub_for_a_reactor(self) -> None:
        """Each reactor has one hub."""
        self.assertIs(hub_of(self.clock), self.hub)
        self.assertIsNot(hub_of(Clock()), self.hub)
        self.assertIs(self.result_of(self.start(hub_of)), self.hub)
        self.assertIs(existing_hub_of(self.clock), self.hub)
        self.assertIsNone(existing_hub_of(Clock()))

    def test_turn_scheduled(self) -> None:
        """It is True from `at_next_turn` until the calls are made."""
        self.assertFalse(self.hub.turn_scheduled)
        self.hub.at_next_turn(int)
        self.assertTrue(self.hub.turn_scheduled)
        self.turn()
        self.assertFalse(self.hub.turn_scheduled)

    def test_free_threaded_python(self) -> None:
        """Free-threaded Python is refused; the error names the remedy."""
        with patch.object(sys, "_is_gil_enabled", lambda: False, create=True):
            error = self.assertRaises(RuntimeError, hub_of, Clock())
        self.assertIn("PYTHON_GIL=1", str(error))
        with patch.object(sys, "_is_gil_enabled", lambda: True, create=True):
            hub_of(Clock())

    def test_reactor_in_another_thread(self) -> None:
        """The first task of a reactor must be made in the reactor's thread."""
        with patch("twisted.python.threadable.ioThread", -1):
            error = self.assertRaises(NotInGreenlet, hub_of, ThreadClock())
        self.assertIn("reactor.callFromThread(spawn, function)", str(error))


class EndTests(ClockTestCase):
    """The ways in which a task ends."""

    def test_anything_raised_stays_in_the_task(self) -> None:
        """SystemExit and KeyboardInterrupt do not reach the reactor's code."""

        def quitter(error: BaseException) -> None:
            sleep(1)
            raise error

        errors = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError()]
        tasks = [self.start(quitter, error) for error in errors]
        self.clock.advance(1)
        self.assertEqual([self.error_of(t, BaseException) for t in tasks], errors)
        self.assert_nothing_left()

    def test_greenlet_exit_of_its_own(self) -> None:
        """A task that raises GreenletExit counts as cancelled."""

        def leave() -> None:
            raise GreenletExit

        self.error_of(self.start(leave), Cancelled)

    def test_nothing_is_left_of_ten_thousand_waits(self) -> None:
        """Ten thousand waits leave no task, delayed call or greenlet behind."""
        deferreds: list[Deferred[int]] = []

        def work() -> int:
            for turn in range(100):
                deferreds.append(Deferred())
                wait(deferreds[-1], timeout=turn + 1)
                sleep(0)
            return 100

        tasks = [self.start(work) for _ in range(100)]
        for _ in range(100):
            now, deferreds[:] = deferreds[:], []
            for deferred in now:
                deferred.callback(0)
            self.turn()
        self.assertEqual([self.result_of(task) for task in tasks], [100] * 100)
        self.assert_nothing_left()

    def test_hub_of_a_finished_test_is_collected(self) -> None:
        """A hub whose clock is dropped and whose tasks have ended is freed."""
        clock = Clock()
        hub_of(clock).start(Task(hub_of(clock), sleep, (1,)))
        clock.advance(1)
        gone = weakref.ref(hub_of(clock))
        del clock
        gc.collect()
        self.assertIsNone(gone())

    def test_stop_tells_the_hub(self) -> None:
        """The shutdown of a reactor ends its tasks."""
        reactor = MemoryReactorClock()
        events: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                events.append("cleaned up")

        hub_of(reactor).start(Task(hub_of(reactor), work))
        [(trigger, args, kwargs)] = reactor.triggers["after"]["shutdown"]
        trigger(*args, **kwargs)
        self.assertEqual(events, ["cleaned up"])

    def test_reactor_that_is_run_again(self) -> None:
        """A reactor that fired its shutdown event without stopping can run tasks.

        A worker of `trial -j` does so after each test.
        """
        reactor: Any = MemoryReactorClock()
        reactor._startedBefore = False
        first = hub_of(reactor)
        self.assertIs(hub_of(reactor), first)
        first.close()
        second = hub_of(reactor)
        self.assertIsNot(second, first)
        task = Task(second, sleep, (1,))
        second.start(task)
        self.assertFalse(task.done)
        reactor.advance(1)
        self.assertTrue(task.done)
        self.assertEqual(len(reactor.triggers["after"]["shutdown"]), 2)

    def test_reactor_that_was_stopped(self) -> None:
        """A stopped reactor runs no new tasks."""
        reactor: Any = MemoryReactorClock()
        reactor._startedBefore = True
        hub_of(reactor).close()
        hub = hub_of(reactor)
        self.assertRaises(NotInGreenlet, hub.start, Task(hub, sleep, (1,)))


class SwitchTests(ClockTestCase):
    """The number of switches."""

    def test_a_fired_deferred_does_not_switch(self) -> None:
        """Waiting on a fired Deferred does not switch."""

        def work() -> int:
            fired: Deferred[str] = Deferred()
            fired.callback("here")
            done = self.start(str)
            handle = suspend()
            handle.resume()
            with SwitchCount() as count:
                wait(fired)
                wait(done)
                handle.wait()
            return count.switches

        self.assertEqual(self.result_of(self.start(work)), 0)

    def test_a_wait_switches_there_and_back(self) -> None:
        """A wait that parks costs two switches."""

        def work() -> int:
            with SwitchCount() as count:
                sleep(1)
            return count.switches

        task = self.start(work)
        self.clock.advance(1)
        # Out of the task, and back into it.
        self.assertEqual(self.result_of(task), 2)
