"""Tests of `wait()` with coroutines, other awaitables, and wrong arguments."""

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
    """An object with `__await__` that is not a coroutine."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps

    def __await__(self) -> Generator[Any, Any, list[Any]]:
        """Await each of the steps; return their results."""
        first = yield self.steps[0]
        return [first, (yield self.steps[1])]


class PlainIterator:
    """An object with `__await__` whose iterator lacks send() and throw()."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.deferred = deferred

    def __await__(self) -> Iterator[Any]:
        """Return an iterator with no methods but the required ones."""
        return iter([self.deferred])


class CoroutineTests(ClockTestCase):
    """`wait(coroutine)`, under a reactor that is not asyncio's."""

    def setUp(self) -> None:
        """Make a Deferred for the coroutines."""
        super().setUp()
        self.deferreds = CancellableDeferreds()
        self.deferred = self.deferreds.make()

    def test_result(self) -> None:
        """The wait returns the coroutine's return value."""

        async def coroutine() -> tuple[str, str]:
            return await succeed("first"), await self.deferred

        task = self.start(wait, coroutine())
        self.assertEqual(task.state, "parked")
        self.deferred.callback("second")
        self.assertEqual(self.result_of(task), ("first", "second"))

    def test_without_an_await(self) -> None:
        """A coroutine without an `await` runs at once."""

        async def coroutine() -> str:
            return "at once"

        self.assertEqual(self.result_of(self.start(wait, coroutine())), "at once")

    def test_error(self) -> None:
        """The coroutine's error is raised with its complete traceback."""

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
        """A cancellation of the task is raised at the coroutine's `await`."""
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
        """A kill of the task is raised at the coroutine's `await`."""
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
        """A coroutine may call functions that wait."""

        async def coroutine() -> str:
            sleep(1)
            found: str = wait(self.deferred)
            return found

        task = self.start(wait, coroutine())
        self.clock.advance(1)
        self.deferred.callback("it")
        self.assertEqual(self.result_of(task), "it")

    def test_context(self) -> None:
        """The coroutine runs in the task's own context."""
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
        """The timeout applies to the coroutine as a whole."""

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
        """The timeout of a wait works inside a shield."""

        async def coroutine() -> None:
            await self.deferred

        def work() -> None:
            with shield():
                wait(coroutine(), 1)

        task = self.start(work)
        self.clock.advance(1)
        self.error_of(task, TimedOut)

    def test_system_exit(self) -> None:
        """SystemExit in a coroutine ends the wait, not the process."""

        async def coroutine() -> None:
            await succeed(None)
            raise SystemExit(3)

        self.error_of(self.start(wait, coroutine()), SystemExit)

    def test_what_cannot_be_awaited(self) -> None:
        """An unsupported object raises TypeError at the coroutine's `await`."""

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
        """A bare `yield` takes one turn of the reactor."""

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
        """An asyncio future that is done needs no loop."""
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
        """A pending future is refused without a loop; the error names the remedy."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def coroutine() -> None:
            await loop.create_future()

        for awaitable in (loop.create_future(), coroutine()):
            error = self.error_of(self.start(wait, awaitable), TypeError)
            self.assertIn("--reactor=asyncio", str(error))

    def test_asyncio_without_a_loop(self) -> None:
        """A coroutine that needs asyncio's loop fails with an error that says so."""

        async def thread() -> None:
            await asyncio.to_thread(int)

        async def queue() -> None:
            await asyncio.Queue[None]().get()

        async def anyio() -> None:
            raise type("NoEventLoopError", (RuntimeError,), {})("no loop")

        for coroutine in (asyncio.sleep(1), thread(), queue(), anyio()):
            error = self.error_of(self.start(wait, coroutine), RuntimeError)
            self.assertEqual(
                str(error),
                f"wait() was given {coroutine!r}, which needs a running asyncio loop, "
                "but Clock runs none: run Twisted's asyncio reactor (twistd "
                "--reactor=asyncio or asyncioreactor.install()), or call asyncio.run() "
                "in place of wait() (it blocks unless the standard library is patched)",
            )
            self.assertIsNotNone(error.__cause__)

    def test_other_errors(self) -> None:
        """Other errors of the same types propagate unchanged."""
        for raised in (RuntimeError("other"), AttributeError("create_future")):

            async def coroutine(raised: Exception = raised) -> None:
                raise raised

            task = self.start(wait, coroutine())
            self.assertIs(self.error_of(task, type(raised)), raised)

    def test_future_that_was_cancelled(self) -> None:
        """A cancelled future raises an ordinary exception, not asyncio's."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future = loop.create_future()
        future.cancel()
        error = self.error_of(self.start(wait, future), CancelledError)
        self.assertIsInstance(error, Exception)

    def test_pending_interruption(self) -> None:
        """Waiting for a done future raises a pending cancellation."""
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
    """`wait()` with other awaitables, and with wrong arguments."""

    def test_with_await(self) -> None:
        """Any object with `__await__` can be waited for."""
        deferred: Deferred[str] = Deferred()
        task = self.start(wait, Plain(succeed(1), deferred))
        deferred.callback("2")
        self.assertEqual(self.result_of(task), [1, "2"])

    def test_with_a_plain_iterator(self) -> None:
        """The iterator of `__await__` needs no methods but the required ones."""
        deferred: Deferred[None] = Deferred()
        task = self.start(wait, PlainIterator(deferred))
        deferred.callback(None)
        self.assertIsNone(self.result_of(task))

    def test_generator_coroutine(self) -> None:
        """A generator-based coroutine can be waited for."""

        @types.coroutine
        def generator() -> Generator[Any, Any, Any]:
            return (yield succeed("it"))

        self.assertEqual(self.result_of(self.start(wait, generator())), "it")

    def test_task(self) -> None:
        """`wait(task)` is the same as `task.wait()`."""
        other = self.start(after, 2, "it")
        hasty = self.start(wait, other, 1)
        patient = self.start(wait, other)
        self.clock.advance(1)
        self.error_of(hasty, TimedOut)
        self.clock.advance(1)
        self.assertEqual(self.result_of(patient), "it")

    def test_nothing_of_the_kind(self) -> None:
        """Objects that are not awaitable raise TypeError, which shows them."""
        things: list[Any] = [None, 5, "text", iter([]), sleep]
        for thing in things:
            error = self.error_of(self.start(wait, thing), TypeError)
            self.assertIn(repr(thing), str(error))

    def test_bad_timeout(self) -> None:
        """A bad timeout raises an error that names the call and the value."""
        for timeout, kind in ((-1, ValueError), ("1", TypeError)):
            error = self.error_of(self.start(wait, succeed(1), timeout), kind)
            self.assertIn(
                f"wait(timeout) takes a number of seconds >= 0, not {timeout!r}",
                str(error),
            )

    def test_coroutine_that_never_begins(self) -> None:
        """A coroutine that was refused does not warn that it was never awaited."""

        async def coroutine() -> None: ...

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertRaises(NotInGreenlet, wait, coroutine())
            self.error_of(self.start(wait, coroutine(), -1), ValueError)
            gc.collect()
        self.assertEqual([str(warning.message) for warning in caught], [])
