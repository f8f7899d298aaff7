"""`wait()` on coroutines and other awaitables, and on what cannot be waited on."""

from __future__ import annotations

import asyncio
import gc
import types
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    succeed,
)
from twisted.internet.task import deferLater

from txgreenwsgi import (
    Cancelled,
    NotInGreenlet,
    TimedOut,
    current_task,
    shield,
    sleep,
    wait,
)

from .clocked import CancellableDeferreds, ClockTestCase, after, traceback_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


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
