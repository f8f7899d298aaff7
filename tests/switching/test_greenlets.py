"""The hub: who runs when, where a task begins, and how it ends."""

from __future__ import annotations

import gc
import sys
import weakref
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
from txgreenwsgi._switching.greenlets import Hub, Task, hub_of

from .clocked import ClockTestCase, SwitchCount
from .threaded import ThreadClock, in_thread


class TurnTests(ClockTestCase):
    """Who runs when."""

    def test_start_runs_until_the_first_wait(self) -> None:
        """A task that is started runs at once, until it waits."""
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
        """What a callback of the reactor's answers goes on at once."""
        deferred: Deferred[str] = Deferred()
        task = self.start(wait, deferred)
        deferred.callback("now")
        self.assertEqual(self.result_of(task), "now")

    def test_answered_by_a_task(self) -> None:
        """A task that answers another goes on first; the other has the next turn."""
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
        """The same when a library of the task's answers in a greenlet of its own."""
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
        """Tasks that answer each other for long do so at constant depth."""
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
        """A task that waits needs nobody who holds it."""
        deferred: Deferred[str] = Deferred()
        got: list[str] = []
        self.start(lambda: got.append(wait(deferred)))
        for _ in range(3):
            gc.collect()
        deferred.callback("still here")
        self.assertEqual(got, ["still here"])

    def test_all_of_a_turn_share_one_delayed_call(self) -> None:
        """Many tasks that let others run cost the reactor one delayed call."""
        for _ in range(100):
            self.start(sleep, 0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.turn()
        self.assert_nothing_left()

    def test_one_failure_in_a_turn(self) -> None:
        """Something that fails in a turn is logged, and the rest is done."""
        done: list[str] = []
        self.hub.at_next_turn(lambda: 1 / 0)
        self.hub.at_next_turn(lambda: done.append("the rest"))
        self.turn()
        self.assertEqual(done, ["the rest"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_task_that_turns_the_clock(self) -> None:
        """A task of a test may advance the clock itself: it is where others return."""
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
        """A task that starts another gets control back when that one parks."""
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
        """A finalizer may answer a wait; the task goes on behind the collector."""
        handles: list[Suspension] = []

        class Finalized:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                handles[0].resume("found dead")

        def work() -> tuple[Any, int | None]:
            handles.append(suspend())
            value = handles[0].wait()
            sleep(1)  # it would be refused inside the collector
            return value, guards.collecting_thread

        task = self.start(work)
        Finalized()
        gc.collect()
        self.assertEqual(task.state, "ready")
        self.turn()
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), ("found dead", None))


class BeginningTests(ClockTestCase):
    """Where a task begins."""

    def test_spawn_begins_at_the_next_turn(self) -> None:
        """A spawned task does not run inside the call that spawns it."""
        events: list[str] = []
        task = self.spawn(events.append, "ran")
        self.assertEqual((events, task.state), ([], "new"))
        self.turn()
        self.assertEqual((events, task.state), (["ran"], "finished"))

    def test_recursion_depth(self) -> None:
        """A task spawned deep in a stack has the whole recursion limit for itself."""

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
        """After a crowd, only so many greenlets are kept as are worth it."""
        with patch.object(greenlets, "SPARE_GREENLETS", 4):
            tasks = [self.start(sleep, 1) for _ in range(20)]
            self.clock.advance(1)
            self.assertEqual({task.state for task in tasks}, {"finished"})
            self.assertEqual(len(self.hub.spare), 4)
            self.assertEqual(self.result_of(self.start(lambda: "ran")), "ran")

    def test_reused_greenlet_has_no_memory(self) -> None:
        """A task finds no exception that the one before it in the greenlet handled."""

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
        """It does not matter in which greenlet the package was first used."""
        clock = Clock()
        hubs: list[Hub] = []
        greenlet(lambda: hubs.append(hub_of(clock))).switch()
        task: Task[None] = Task(hubs[0], sleep, (1,))
        hubs[0].start(task)
        self.assertEqual(task.state, "parked")
        self.assertIs(hubs[0].home, getcurrent())
        clock.advance(1)
        self.assertTrue(task.done)

    def test_thread_is_where_the_reactor_runs(self) -> None:
        """A hub that was made in one thread serves a reactor that runs in another."""
        reactor = MemoryReactorClock()
        hub = in_thread(lambda: hub_of(reactor))
        reactor.run()
        task: Task[None] = Task(hub, sleep, (1,))
        hub.spawn(task)
        reactor.advance(0)
        reactor.advance(1)
        self.assertTrue(task.done)

    def test_spawn_in_another_thread(self) -> None:
        """Spawning in a worker thread is refused; the error says how to do it."""
        task: Task[None] = Task(self.hub, sleep, (1,))
        error = self.assertRaises(
            NotInGreenlet, in_thread, lambda: self.hub.spawn(task), "pool-7"
        )
        self.assertIn("'pool-7'", str(error))
        self.assertIn("reactor.callFromThread(spawn, function)", str(error))
        self.assert_nothing_left()

    def test_thread_of_a_hub(self) -> None:
        """A hub knows its reactor's thread from others."""
        self.assertTrue(self.hub.on_its_thread())
        self.assertFalse(in_thread(self.hub.on_its_thread))

    def test_one_hub_for_a_reactor(self) -> None:
        """Everybody who asks gets the same hub; each reactor has its own."""
        self.assertIs(hub_of(self.clock), self.hub)
        self.assertIsNot(hub_of(Clock()), self.hub)
        self.assertIs(self.result_of(self.start(hub_of)), self.hub)

    def test_free_threaded_python(self) -> None:
        """A Python without its global lock is refused, and told what to do."""
        with patch.object(sys, "_is_gil_enabled", lambda: False, create=True):
            error = self.assertRaises(RuntimeError, hub_of, Clock())
        self.assertIn("PYTHON_GIL=1", str(error))
        with patch.object(sys, "_is_gil_enabled", lambda: True, create=True):
            hub_of(Clock())

    def test_reactor_in_another_thread(self) -> None:
        """The first task of a reactor cannot be made where the reactor is not."""
        with patch("twisted.python.threadable.ioThread", -1):
            error = self.assertRaises(NotInGreenlet, hub_of, ThreadClock())
        self.assertIn("reactor.callFromThread(spawn, function)", str(error))


class EndTests(ClockTestCase):
    """A task's end, whatever ends it."""

    def test_anything_raised_stays_in_the_task(self) -> None:
        """Not even SystemExit or KeyboardInterrupt gets into the reactor's code."""

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
        """Waits leave no task, no delayed call and no greenlet behind."""
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
        """A clock that is dropped, its tasks ended, leaves nothing in memory."""
        clock = Clock()
        hub_of(clock).start(Task(hub_of(clock), sleep, (1,)))
        clock.advance(1)
        gone = weakref.ref(hub_of(clock))
        del clock
        gc.collect()
        self.assertIsNone(gone())

    def test_stop_tells_the_hub(self) -> None:
        """The end of a reactor ends its tasks, without anybody's doing."""
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
        """One that tells of a shutdown without a stop has tasks afterwards.

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
        """It cannot be run again, and has no new tasks."""
        reactor: Any = MemoryReactorClock()
        reactor._startedBefore = True
        hub_of(reactor).close()
        hub = hub_of(reactor)
        self.assertRaises(NotInGreenlet, hub.start, Task(hub, sleep, (1,)))


class SwitchTests(ClockTestCase):
    """What switches, and what does not."""

    def test_a_fired_deferred_does_not_switch(self) -> None:
        """Waiting on what has its result already goes straight on."""

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
        """One that parks costs two switches, not more."""

        def work() -> int:
            with SwitchCount() as count:
                sleep(1)
            return count.switches

        task = self.start(work)
        self.clock.advance(1)
        # Out of the task, and into it again.
        self.assertEqual(self.result_of(task), 2)
