"""`wait()` on each kind of thing, `sleep()`, `spawn()` and `in_greenlet()`."""

from __future__ import annotations

import asyncio
import gc
import traceback
import types
import warnings
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    fail,
    inlineCallbacks,
    succeed,
)
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock

from txgreenwsgi import (
    Cancelled,
    NotInGreenlet,
    TimedOut,
    current_task,
    in_greenlet,
    shield,
    sleep,
    spawn,
    wait,
)
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._switching.waiting import GRACE_SECONDS, react

from .clocked import ClockTestCase, after
from .threaded import ThreadClock, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


class CancellableDeferreds:
    """Deferreds that note their cancellation."""

    def __init__(self) -> None:
        self.cancelled: list[Deferred[Any]] = []

    def make(self) -> Deferred[Any]:
        """One of them."""
        return Deferred(self.cancelled.append)


class DeferredTests(ClockTestCase):
    """`wait(deferred)`."""

    def setUp(self) -> None:
        """Something to wait on."""
        super().setUp()
        self.deferreds = CancellableDeferreds()
        self.deferred = self.deferreds.make()

    def test_result(self) -> None:
        """Its result, whether it has fired before or fires then."""
        self.assertEqual(self.result_of(self.start(wait, succeed("before"))), "before")
        task = self.start(wait, self.deferred)
        self.deferred.callback("then")
        self.assertEqual(self.result_of(task), "then")

    def test_failure(self) -> None:
        """What it failed with is raised, whether it has failed before or fails then."""
        error = ValueError()
        self.assertIs(self.error_of(self.start(wait, fail(error)), ValueError), error)
        task = self.start(wait, self.deferred)
        self.deferred.errback(error)
        self.assertIs(self.error_of(task, ValueError), error)

    def test_chained(self) -> None:
        """One that waits for another itself is waited for to its end."""
        inner: Deferred[str] = Deferred()
        outer = succeed(None).addCallback(lambda _: inner)
        task = self.start(wait, outer)
        self.assertEqual(task.state, "parked")
        inner.callback("inner")
        self.assertEqual(self.result_of(task), "inner")

    def test_success_passes_through(self) -> None:
        """A result can be waited for by any number of tasks."""
        tasks = [self.start(wait, self.deferred) for _ in range(3)]
        self.deferred.callback("shared")
        tasks.append(self.start(wait, self.deferred))
        self.assertEqual([self.result_of(task) for task in tasks], ["shared"] * 4)

    def test_failure_is_consumed(self) -> None:
        """A failure is raised once; who waits behind gets None, nothing is logged."""
        tasks = [self.start(wait, self.deferred) for _ in range(2)]
        self.deferred.errback(ValueError())
        self.error_of(tasks[0], ValueError)
        self.assertIsNone(self.result_of(tasks[1]))
        self.assertIsNone(self.result_of(self.start(wait, self.deferred)))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_waiting_again_in_the_same_task(self) -> None:
        """A task that is resumed may wait on the same Deferred at once."""
        task = self.start(lambda: (wait(self.deferred), wait(self.deferred)))
        self.deferred.callback("twice")
        self.assertEqual(self.result_of(task), ("twice", "twice"))

    def test_timeout(self) -> None:
        """After its timeout the wait ends by TimedOut, the Deferred is cancelled."""
        task = self.start(wait, self.deferred, 2)
        self.clock.advance(2)
        error = self.error_of(task, TimedOut)
        self.assertIn("2 seconds", str(error))
        self.assertEqual(self.deferreds.cancelled, [self.deferred])
        self.assert_nothing_left()

    def test_in_time(self) -> None:
        """A result that comes in time leaves nothing of the timeout."""
        task = self.start(wait, self.deferred, 2)
        self.deferred.callback("in time")
        self.assertEqual(self.result_of(task), "in time")
        self.assert_nothing_left()

    def test_timeout_of_nothing(self) -> None:
        """With a timeout of 0 a result that is there is had, another has one turn."""
        self.assertEqual(self.result_of(self.start(wait, succeed("here"), 0)), "here")
        task = self.start(wait, self.deferred, 0)
        self.assertEqual(task.state, "parked")
        self.turn()
        self.error_of(task, TimedOut)

    def test_late_result(self) -> None:
        """A result that comes after the wait was left answers no later wait."""
        stubborn: Deferred[str] = Deferred(lambda deferred: None)
        stubborn_inner: Deferred[str] = Deferred(lambda d: d.callback("late"))
        for late in (stubborn, stubborn_inner):

            def work(late: Deferred[str] = late) -> Any:
                self.assertRaises(TimedOut, wait, late, 1)
                return wait(self.deferreds.make(), 5)

            task = self.start(work)
            self.clock.advance(1)
            self.assertEqual(task.state, "parked")
            if not late.called:
                late.callback("late")
            self.assertEqual(task.state, "parked")
            self.clock.advance(5)
            self.error_of(task, TimedOut)

    def test_late_failure(self) -> None:
        """A failure that comes after the wait was left is logged: nobody sees it."""
        slow_to_cancel: Deferred[Any] = Deferred()
        slow_to_cancel.addErrback(lambda _: deferLater(self.clock, 3))
        slow_to_cancel.addCallback(lambda _: 1 / 0)
        task = self.start(wait, slow_to_cancel, 1)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.clock.advance(3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure_as_answer_to_the_cancellation(self) -> None:
        """Whatever a Deferred fails with because it is cancelled is no news."""
        rude: Deferred[None] = Deferred(lambda deferred: deferred.errback(ValueError()))
        for deferred in (rude, self.deferred):
            task = self.start(wait, deferred, 1)
            self.clock.advance(1)
            self.error_of(task, TimedOut)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failure_to_cancel(self) -> None:
        """A canceller that fails is logged, and the wait ends by what ended it."""

        def canceller(deferred: Deferred[None]) -> None:
            raise ValueError

        task = self.start(wait, Deferred[None](canceller), 1)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_left_by_one_of_two(self) -> None:
        """When one of two gives up, the other is told that it was cancelled."""
        hasty = self.start(wait, self.deferred, 1)
        patient = self.start(wait, self.deferred)
        self.clock.advance(1)
        self.error_of(hasty, TimedOut)
        self.error_of(patient, CancelledError)

    def test_traceback_of_one_that_fails_then(self) -> None:
        """The traceback leads to where the failure came from."""
        task = self.start(traceback_of, self.deferred)

        def origin_of_the_failure() -> None:
            raise ValueError

        succeed(None).addCallback(lambda _: origin_of_the_failure()).addErrback(
            self.deferred.errback
        )
        text = self.result_of(task)
        self.assertIn("in origin_of_the_failure", text)
        self.assertIn("in traceback_of", text)

    def test_traceback_of_one_that_failed_before(self) -> None:
        """Also when it had failed before anybody waited."""

        @inlineCallbacks
        def origin_of_the_failure() -> Generator[Any, Any, None]:
            yield succeed(None)
            raise ValueError

        text = self.result_of(self.start(traceback_of, origin_of_the_failure()))
        self.assertIn("in origin_of_the_failure", text)

    def test_cause_is_kept(self) -> None:
        """An exception that has a cause keeps it."""
        error = ValueError()
        error.__cause__ = KeyError()
        task = self.start(wait, fail(error))
        self.assertIsInstance(self.error_of(task, ValueError).__cause__, KeyError)

    def test_killed(self) -> None:
        """The end of the process cancels what is waited on."""
        self.start(wait, self.deferred)
        self.hub.close()
        self.assertEqual(self.deferreds.cancelled, [self.deferred])

    def test_refused(self) -> None:
        """A Deferred that a dying task may not wait on is cancelled."""

        def work() -> None:
            try:
                sleep(60)
            finally:
                self.assertRaises(NotInGreenlet, wait, self.deferred)

        task = self.start(work)
        self.hub.close()
        self.error_of(task, Cancelled)
        self.assertEqual(self.deferreds.cancelled, [self.deferred])

    def test_fired_in_a_dying_task(self) -> None:
        """Of one that has fired it gets the result: it need not wait."""
        got: list[str] = []

        def work() -> None:
            try:
                sleep(60)
            finally:
                got.append(wait(succeed("here")))

        self.start(work)
        self.hub.close()
        self.assertEqual(got, ["here"])


class ThreadTests(ClockTestCase):
    """Deferreds that are fired in the wrong thread."""

    def make_clock(self) -> ThreadClock:
        """One that takes calls from threads."""
        return ThreadClock()

    def test_fired_in_a_thread(self) -> None:
        """The task goes on in the reactor's thread all the same."""
        for fire in (
            lambda deferred: deferred.callback("done"),
            lambda deferred: deferred.errback(ValueError()),
        ):
            deferred: Deferred[str] = Deferred()
            task = self.start(wait, deferred)
            in_thread(partial(fire, deferred))
            self.assertEqual(task.state, "parked")
            self.turn()
            self.assertTrue(task.done)
            task.deferred().addErrback(lambda _: None)


def traceback_of(awaitable: Any) -> str:
    """The traceback of what waiting on it raises."""
    try:
        wait(awaitable)
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not fail")


class Plain:
    """Something with `__await__` that is no coroutine."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps

    def __await__(self) -> Generator[Any, Any, list[Any]]:
        """Await each of the steps; their results."""
        first = yield self.steps[0]
        return [first, (yield self.steps[1])]


class PlainIterator:
    """Something with `__await__` whose iterator has no send() and throw()."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.deferred = deferred

    def __await__(self) -> Iterator[Any]:
        """Only what an iterator must have."""
        return iter([self.deferred])


class CoroutineTests(ClockTestCase):
    """`wait(coroutine)`, under a reactor that is not asyncio's."""

    def setUp(self) -> None:
        """Something for coroutines to wait on."""
        super().setUp()
        self.deferreds = CancellableDeferreds()
        self.deferred = self.deferreds.make()

    def test_result(self) -> None:
        """It runs to its end, and the wait returns what it returns."""

        async def coroutine() -> tuple[str, str]:
            return await succeed("first"), await self.deferred

        task = self.start(wait, coroutine())
        self.assertEqual(task.state, "parked")
        self.deferred.callback("second")
        self.assertEqual(self.result_of(task), ("first", "second"))

    def test_without_an_await(self) -> None:
        """One that awaits nothing is run at once."""

        async def coroutine() -> str:
            return "at once"

        self.assertEqual(self.result_of(self.start(wait, coroutine())), "at once")

    def test_error(self) -> None:
        """What it raises is raised, and the traceback is whole."""

        async def origin_of_the_error() -> None:
            await self.deferred
            raise ValueError

        async def coroutine() -> None:
            await origin_of_the_error()

        task = self.start(traceback_of, coroutine())
        self.deferred.callback(None)
        text = self.result_of(task)
        for name in ("traceback_of", "coroutine", "origin_of_the_error"):
            self.assertEqual(text.count(f"in {name}"), 1)

    def test_failure_inside(self) -> None:
        """A Deferred that fails raises at its `await`, where it may be handled."""

        async def coroutine() -> str:
            try:
                await self.deferred
            except ValueError:
                return "handled"
            return "no error"

        task = self.start(wait, coroutine())
        self.deferred.errback(ValueError())
        self.assertEqual(self.result_of(task), "handled")

    def test_cancelled(self) -> None:
        """A cancellation of the task is raised at its `await`."""
        events: list[str] = []

        async def coroutine() -> None:
            try:
                await self.deferred
            finally:
                events.append("cleaned up")

        task = self.start(wait, coroutine())
        task.cancel()
        self.error_of(task, Cancelled)
        self.assertEqual(events, ["cleaned up"])
        self.assertEqual(self.deferreds.cancelled, [self.deferred])

    def test_killed(self) -> None:
        """So is the end of the process."""
        events: list[type[BaseException]] = []

        async def coroutine() -> None:
            try:
                await self.deferred
            except BaseException as error:
                events.append(type(error))
                raise

        self.start(wait, coroutine())
        self.hub.close()
        self.assertEqual(events, [GreenletExit])

    def test_waits_itself(self) -> None:
        """It may call functions that wait."""

        async def coroutine() -> str:
            sleep(1)
            found: str = wait(self.deferred)
            return found

        task = self.start(wait, coroutine())
        self.clock.advance(1)
        self.deferred.callback("it")
        self.assertEqual(self.result_of(task), "it")

    def test_context(self) -> None:
        """It runs in the task: what it sets stays set."""
        variable: ContextVar[str] = ContextVar("variable")

        async def coroutine() -> None:
            await self.deferred
            variable.set("set")

        def work() -> tuple[str, bool]:
            task = current_task()
            wait(coroutine())
            return variable.get(), task is current_task()

        task = self.start(work)
        self.deferred.callback(None)
        self.assertEqual(self.result_of(task), ("set", True))

    def test_timeout(self) -> None:
        """The timeout is for all its steps together, whatever they wait on."""

        async def by_await() -> None:
            for _ in range(10):
                await deferLater(self.clock, 1)

        async def by_waiting() -> None:
            for _ in range(10):
                sleep(1)

        for coroutine in (by_await, by_waiting):
            task = self.start(wait, coroutine(), 2.5)
            self.clock.pump([0.5] * 4)
            self.assertEqual(task.state, "parked")
            self.clock.advance(0.5)
            self.assertIn("2.5 seconds", str(self.error_of(task, TimedOut)))
            self.assert_nothing_left()

    def test_timeout_in_a_shield(self) -> None:
        """It works inside a shield."""

        async def coroutine() -> None:
            await self.deferred

        def work() -> None:
            with shield():
                wait(coroutine(), 1)

        task = self.start(work)
        self.clock.advance(1)
        self.error_of(task, TimedOut)

    def test_system_exit(self) -> None:
        """One that exits ends the wait, not the process."""

        async def coroutine() -> None:
            await succeed(None)
            raise SystemExit(3)

        self.error_of(self.start(wait, coroutine()), SystemExit)

    def test_what_cannot_be_awaited(self) -> None:
        """A coroutine that awaits something foreign is told so at its `await`."""

        @types.coroutine
        def foreign() -> Generator[str, None, None]:
            yield "foreign"

        async def coroutine() -> str:
            try:
                await foreign()
            except TypeError as error:
                return str(error)
            return "no error"

        self.assertIn("'foreign'", self.result_of(self.start(wait, coroutine())))

    def test_bare_yield(self) -> None:
        """One that only yields lets the reactor have a turn."""

        @types.coroutine
        def bare() -> Generator[None, None, None]:
            yield

        async def coroutine() -> str:
            await bare()
            return "after a turn"

        task = self.start(wait, coroutine())
        self.assertEqual(task.state, "parked")
        self.turn()
        self.assertEqual(self.result_of(task), "after a turn")

    def test_future_that_is_done(self) -> None:
        """Futures of asyncio that are done need no loop."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        done = loop.create_future()
        done.set_result("done")

        async def coroutine() -> str:
            found: str = await done
            return found

        self.assertEqual(self.result_of(self.start(wait, coroutine())), "done")
        self.assertEqual(self.result_of(self.start(wait, done)), "done")

    def test_future_that_is_not_done(self) -> None:
        """Others are refused: nobody runs their loop. The error says what to do."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def coroutine() -> None:
            await loop.create_future()

        for awaitable in (loop.create_future(), coroutine()):
            error = self.error_of(self.start(wait, awaitable), TypeError)
            self.assertIn("--reactor=asyncio", str(error))

    def test_future_that_was_cancelled(self) -> None:
        """A cancelled future raises an ordinary exception, not asyncio's."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future = loop.create_future()
        future.cancel()
        error = self.error_of(self.start(wait, future), CancelledError)
        self.assertIsInstance(error, Exception)

    def test_pending_interruption(self) -> None:
        """A future that is done is a wait too: a cancelled task is told."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        done = loop.create_future()
        done.set_result("done")

        def work() -> None:
            task = current_task()
            assert task is not None
            task.cancel()
            wait(done)

        self.error_of(self.start(work), Cancelled)


class AwaitableTests(ClockTestCase):
    """`wait()` on other things that can be awaited, and on what cannot."""

    def test_with_await(self) -> None:
        """Anything with `__await__` will do."""
        deferred: Deferred[str] = Deferred()
        task = self.start(wait, Plain(succeed(1), deferred))
        deferred.callback("2")
        self.assertEqual(self.result_of(task), [1, "2"])

    def test_with_a_plain_iterator(self) -> None:
        """Even if what `__await__` returns is no more than an iterator."""
        deferred: Deferred[None] = Deferred()
        task = self.start(wait, PlainIterator(deferred))
        deferred.callback(None)
        self.assertIsNone(self.result_of(task))

    def test_generator_coroutine(self) -> None:
        """Coroutines that are generators can be awaited, and waited on."""

        @types.coroutine
        def generator() -> Generator[Any, Any, Any]:
            return (yield succeed("it"))

        self.assertEqual(self.result_of(self.start(wait, generator())), "it")

    def test_task(self) -> None:
        """A Task is waited for as by its own `wait()`."""
        other = self.start(after, 2, "it")
        hasty = self.start(wait, other, 1)
        patient = self.start(wait, other)
        self.clock.advance(1)
        self.error_of(hasty, TimedOut)
        self.clock.advance(1)
        self.assertEqual(self.result_of(patient), "it")

    def test_nothing_of_the_kind(self) -> None:
        """Other things are refused; the error shows them."""
        things: list[Any] = [None, 5, "text", iter([]), sleep]
        for thing in things:
            error = self.error_of(self.start(wait, thing), TypeError)
            self.assertIn(repr(thing), str(error))

    def test_bad_timeout(self) -> None:
        """A timeout that is no number of seconds is told by name and value."""
        for timeout, kind in ((-1, ValueError), ("1", TypeError)):
            error = self.error_of(self.start(wait, succeed(1), timeout), kind)
            self.assertIn(
                f"wait(timeout) takes a number of seconds >= 0, not {timeout!r}",
                str(error),
            )

    def test_coroutine_that_never_begins(self) -> None:
        """A coroutine that could not be begun does not warn that nobody awaited it."""

        async def coroutine() -> None: ...

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertRaises(NotInGreenlet, wait, coroutine())
            self.error_of(self.start(wait, coroutine(), -1), ValueError)
            gc.collect()
        self.assertEqual([str(warning.message) for warning in caught], [])


class SleepTests(ClockTestCase):
    """`sleep()`."""

    def test_seconds(self) -> None:
        """It parks for so many seconds of the reactor's clock."""
        task = self.start(sleep, 2.5)
        self.clock.advance(2.4)
        self.assertEqual(task.state, "parked")
        self.clock.advance(0.2)
        self.assertIsNone(self.result_of(task))
        self.assert_nothing_left()

    def test_zero(self) -> None:
        """`sleep(0)` is one turn: all that is ready runs."""
        events: list[str] = []

        def work(name: str) -> None:
            for number in range(2):
                events.append(f"{name}{number}")
                sleep(0)

        self.start(work, "a")
        self.start(work, "b")
        self.clock.callLater(0, events.append, "reactor")
        self.turn()
        self.assertEqual(events, ["a0", "b0", "a1", "b1", "reactor"])
        self.turn(2)
        self.assert_nothing_left()

    def test_interrupted(self) -> None:
        """A sleep that is interrupted leaves nothing behind."""
        for seconds in (0, 60):
            task = self.start(sleep, seconds)
            task.cancel()
            self.error_of(task, Cancelled)
        self.turn()
        self.assert_nothing_left()

    def test_bad_values(self) -> None:
        """What is no number of seconds is told by name and value."""
        for value, kind in (
            (-1, ValueError),
            (float("nan"), ValueError),
            ("1", TypeError),
            (None, TypeError),
        ):
            error = self.error_of(self.start(sleep, value), kind)
            self.assertIn(
                f"sleep() takes a number of seconds >= 0, not {value!r}", str(error)
            )
        self.assert_nothing_left()


class SpawnTests(ClockTestCase):
    """`spawn()` and `in_greenlet()`, called in a task."""

    def test_spawn(self) -> None:
        """It begins at the next turn, with its arguments; the task is its owner's."""

        def child(*args: int, **kwargs: int) -> tuple[Any, ...]:
            sleep(1)
            return args, kwargs

        def work() -> Any:
            task = spawn(child, 1, 2, three=3)
            self.assertEqual(task.state, "new")
            return task.wait()

        task = self.start(work)
        self.turn()
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), ((1, 2), {"three": 3}))

    def test_name(self) -> None:
        """A task is called after its function."""
        self.assertIn("sleep", self.result_of(self.start(lambda: spawn(sleep, 0).name)))
        name = self.result_of(self.start(lambda: spawn(partial(sleep, 0)).name))
        self.assertIn("functools.partial", name)

    def test_context(self) -> None:
        """It inherits a copy of its spawner's context variables, and sets its own."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        seen: list[str] = []

        def child() -> None:
            seen.append(variable.get())
            variable.set("the child's")

        def work() -> str:
            variable.set("as it was spawned")
            task = spawn(child)
            variable.set("later")
            task.wait()
            return variable.get()

        task = self.start(work)
        self.turn(2)
        self.assertEqual(self.result_of(task), "later")
        self.assertEqual(seen, ["as it was spawned"])
        self.assertEqual(variable.get(), "unset")

    def test_outlives_its_spawner(self) -> None:
        """A spawned task is its own: it goes on when the other has ended."""
        events: list[str] = []

        def child() -> None:
            sleep(1)
            events.append("ended")

        self.start(lambda: spawn(child))
        self.turn()
        self.clock.advance(1)
        self.assertEqual(events, ["ended"])

    def test_no_function(self) -> None:
        """A call instead of a function is told so, there and then."""
        error = self.error_of(self.start(lambda: spawn("")), TypeError)  # type: ignore[arg-type]
        self.assertIn("spawn(function, 1, 2)", str(error))

    def test_coroutine_function(self) -> None:
        """A coroutine function is not spawned by itself; the error says how."""

        async def coroutine() -> str:
            return "ran"

        error = self.error_of(self.start(lambda: spawn(coroutine)), TypeError)
        self.assertIn("spawn(wait, function(1, 2))", str(error))
        task = self.result_of(self.start(lambda: spawn(wait, coroutine())))
        self.turn()
        self.assertEqual(self.result_of(task), "ran")

    def test_in_greenlet(self) -> None:
        """A function that waits becomes one that returns a Deferred."""

        @in_greenlet
        def double(number: int) -> int:
            """Twice the number."""
            sleep(1)
            return number * 2

        self.assertEqual(double.__doc__, "Twice the number.")
        deferred = self.made_in_a_task(double, 21)
        self.turn()
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(deferred), 42)

    def made_in_a_task(self, function: Callable[..., Any], *args: Any) -> Any:
        """What it returns, called in a task."""
        made: list[Any] = []
        self.start(lambda: made.append(function(*args)))
        return made[0]

    def test_in_greenlet_cancelled(self) -> None:
        """Cancelling that Deferred cancels the task."""
        deferred = self.made_in_a_task(in_greenlet(sleep), 60)
        self.turn()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.turn()
        self.assert_nothing_left()


class StoppableReactor(MemoryReactorClock):
    """A reactor in memory that runs until it is stopped, as if by Ctrl-C."""

    def __init__(self, *stop_after: float) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.told: list[Any] = []

    def callWhenRunning(
        self,
        callable: Callable[..., object],  # noqa: A002 - the interface's name
        *args: object,
        **kwargs: object,
    ) -> None:
        """At once if it runs, as real ones do."""
        if self.running:
            callable(*args, **kwargs)
        else:
            self.whenRunningHooks.append((callable, args, kwargs))

    def run(self) -> None:
        """Turn until something has stopped it."""
        self.running = True
        for hook, args, kwargs in self.whenRunningHooks:
            hook(*args, **kwargs)
        for seconds in self.stop_after:
            self.callLater(seconds, self.stop)
        while self.running:
            self.advance(0.1)
        waiting = []
        for trigger, args, kwargs in self.triggers["before"]["shutdown"]:
            found = trigger(*args, **kwargs)
            if isinstance(found, Deferred):
                waiting.append(found)
        while not all(deferred.called for deferred in waiting):
            self.advance(0.5)
        for trigger, args, kwargs in self.triggers["after"]["shutdown"]:
            trigger(*args, **kwargs)


class ReactTests(ClockTestCase):
    """`react()`."""

    def status(
        self, reactor: StoppableReactor, main: Callable[..., Any], *args: Any
    ) -> Any:
        """The exit status of a program."""
        return self.assertRaises(SystemExit, react, main, *args, _reactor=reactor).code

    def test_returns(self) -> None:
        """A main function that returns is a success; it gets its arguments."""
        got: list[str] = []

        def main(argument: str) -> str:
            sleep(0.1)
            got.append(argument)
            return "ignored"

        reactor = StoppableReactor()
        self.assertEqual(self.status(reactor, main, "argument"), 0)
        self.assertEqual(got, ["argument"])
        self.assertEqual(list(hub_of(reactor).tasks), [])

    def test_raises(self) -> None:
        """One that raises is logged, and the status is 1."""
        self.assertEqual(self.status(StoppableReactor(), lambda: 1 / 0), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_awaitable_main(self) -> None:
        """A main function may return a Deferred or be a coroutine function."""
        got: list[str] = []
        reactor = StoppableReactor()

        async def coroutine() -> None:
            await deferLater(reactor, 0.2)
            got.append("coroutine")

        self.assertEqual(self.status(reactor, coroutine), 0)
        other = StoppableReactor()
        self.assertEqual(
            self.status(other, lambda: deferLater(other, 0.2, got.append, "Deferred")),
            0,
        )
        self.assertEqual(got, ["coroutine", "Deferred"])

    def test_exits(self) -> None:
        """One that exits has its own status."""

        def main() -> None:
            sleep(0.1)
            raise SystemExit(3)

        self.assertEqual(self.status(StoppableReactor(), main), 3)

    def test_stopped(self) -> None:
        """When the reactor is stopped, main is cancelled, and may wait to clean up."""
        events: list[str] = []

        def main() -> None:
            try:
                sleep(60)
            except Cancelled:
                sleep(1)
                events.append("cleaned up")
                raise

        self.assertEqual(self.status(StoppableReactor(1), main), 0)
        self.assertEqual(events, ["cleaned up"])

    def test_stopped_for_too_long(self) -> None:
        """It has so many seconds for that, and then it is ended."""
        events: list[float] = []
        reactor = StoppableReactor(1)

        def main() -> None:
            try:
                sleep(60)
            finally:
                with shield():
                    try:
                        sleep(60)
                    finally:
                        events.append(reactor.seconds())

        self.assertEqual(self.status(reactor, main), 0)
        self.assertEqual(len(events), 1)
        self.assertLess(events[0], 1 + GRACE_SECONDS + 1)
        self.assertGreater(events[0], GRACE_SECONDS)

    def test_failure_while_it_cleans_up(self) -> None:
        """A failure then is logged, and the status is 1."""

        def main() -> None:
            try:
                sleep(60)
            finally:
                sleep(0)
                raise ValueError

        self.assertEqual(self.status(StoppableReactor(1), main), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
