"""`wait()` under a reactor that runs on an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import traceback
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from txgreenwsgi import Cancelled, TimedOut, current_task, sleep, wait
from txgreenwsgi._switching.asyncio_state import running_loop

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Awaitable


class LoopClock(Clock):
    """A clock that turns an asyncio loop too."""

    def __init__(self) -> None:
        super().__init__()
        self._asyncioEventloop = asyncio.new_event_loop()

    def advance(self, amount: float) -> None:
        """Do what is ready in the loop, then move on."""
        self._asyncioEventloop.call_soon(self._asyncioEventloop.stop)
        self._asyncioEventloop.run_forever()
        super().advance(amount)


class LoopTestCase(ClockTestCase):
    """A reactor with a loop."""

    clock: LoopClock

    def setUp(self) -> None:
        """Make it; after the test no asyncio task may be left."""
        super().setUp()
        self.loop = self.clock._asyncioEventloop
        self.addCleanup(self.loop.close)
        self.addCleanup(self.assert_no_asyncio_task)

    def assert_no_asyncio_task(self) -> None:
        """They have all ended."""
        self.hub.close()
        self.turn(5)
        self.assertEqual(asyncio.all_tasks(self.loop), set())

    def make_clock(self) -> LoopClock:
        """One with a loop."""
        return LoopClock()


class FutureTests(LoopTestCase):
    """`wait(future)`."""

    def test_result(self) -> None:
        """It returns the result, or raises the error, of a future of the loop."""
        for outcome in ("result", ValueError()):
            future = self.loop.create_future()
            task = self.start(wait, future)
            self.turn()
            self.assertEqual(task.state, "parked")
            if isinstance(outcome, str):
                future.set_result(outcome)
                self.turn()
                self.assertEqual(self.result_of(task), outcome)
            else:
                future.set_exception(outcome)
                self.turn()
                self.assertIs(self.error_of(task, ValueError), outcome)

    def test_timeout(self) -> None:
        """When the time is over it is cancelled."""
        future = self.loop.create_future()
        task = self.start(wait, future, 1)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertTrue(future.cancelled())
        self.turn()
        self.assert_nothing_left()

    def test_cancelled_by_another(self) -> None:
        """A future that somebody else cancels raises an ordinary exception."""
        future = self.loop.create_future()
        task = self.start(wait, future)
        future.cancel()
        self.turn()
        self.error_of(task, CancelledError)

    def test_of_another_loop(self) -> None:
        """A future of a loop that nobody runs is refused."""
        other = asyncio.new_event_loop()
        self.addCleanup(other.close)
        error = self.error_of(self.start(wait, other.create_future()), TypeError)
        self.assertIn("create the future in its loop", str(error))

    def test_collected(self) -> None:
        """A failed future goes with its last reference."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

        class Held:
            def __del__(self) -> None:
                gone.append("gone")

        gone: list[str] = []

        def hold() -> None:
            held = Held()  # noqa: F841
            future = self.loop.create_future()
            self.loop.call_soon(future.set_exception, ValueError())
            try:
                wait(future)
            finally:
                del future

        def work() -> None:
            with contextlib.suppress(ValueError):
                hold()
            sleep(0)

        task = self.start(work)
        self.turn(3)
        self.result_of(task)
        self.assertEqual(gone, ["gone"])


class CoroutineTests(LoopTestCase):
    """`wait(coroutine)`: it runs as an asyncio task."""

    def test_asyncio_inside(self) -> None:
        """It may use any of asyncio."""

        async def coroutine() -> str:
            self.assertIs(running_loop(), self.loop)
            first = asyncio.ensure_future(asyncio.sleep(0, "first"))
            second = await asyncio.gather(first, asyncio.sleep(0, "second"))
            return " and ".join(second)

        task = self.start(wait, coroutine())
        self.turn(10)
        self.assertEqual(self.result_of(task), "first and second")

    def test_deferreds_inside(self) -> None:
        """It may await Deferreds too, and handle their failures."""
        deferred: Deferred[str] = Deferred()
        failing: Deferred[None] = Deferred()

        async def coroutine() -> list[str]:
            got = [await succeed("before"), await deferred]
            got += [await message_of(fail(ValueError("failed")))]
            return [*got, await message_of(failing)]

        async def message_of(awaitable: Awaitable[None]) -> str:
            try:
                await awaitable
            except ValueError as error:
                return str(error)
            return "no error"

        task = self.start(wait, coroutine())
        self.turn(3)
        deferred.callback("then")
        self.turn(3)
        failing.errback(ValueError("fails"))
        self.turn(5)
        self.assertEqual(self.result_of(task), ["before", "then", "failed", "fails"])

    def test_traceback_of_a_deferred_inside(self) -> None:
        """A Deferred that fails inside keeps its traceback."""
        failing: Deferred[None] = Deferred()

        async def coroutine() -> str:
            try:
                await failing
            except ValueError:
                return traceback.format_exc()
            return "no error"

        def origin_of_the_failure() -> None:
            raise ValueError

        task = self.start(wait, coroutine())
        self.turn(3)
        succeed(None).addCallback(lambda _: origin_of_the_failure()).addErrback(
            failing.errback
        )
        self.turn(5)
        text = self.result_of(task)
        self.assertIn("in coroutine", text)
        self.assertIn("in origin_of_the_failure", text)

    def test_late_result_of_a_deferred_inside(self) -> None:
        """One that fires after the coroutine was cancelled disturbs nobody."""
        stubborn: Deferred[str] = Deferred(lambda deferred: deferred.callback("late"))

        async def coroutine() -> None:
            await stubborn

        task = self.start(wait, coroutine(), 1)
        self.turn(2)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.turn(3)
        self.assertEqual(self.successResultOf(stubborn), "late")

    def test_error(self) -> None:
        """What it raises is raised, and the traceback is whole."""

        async def origin_of_the_error() -> None:
            await asyncio.sleep(0)
            raise ValueError

        async def coroutine() -> None:
            await origin_of_the_error()

        def work() -> str:
            try:
                wait(coroutine())
            except ValueError:
                return traceback.format_exc()
            return "no error"

        task = self.start(work)
        self.turn(5)
        text = self.result_of(task)
        for name in ("work", "coroutine", "origin_of_the_error"):
            self.assertIn(f"in {name}", text)

    def test_timeout(self) -> None:
        """When the time is over it is cancelled, and what it awaits with it."""
        cancelled: list[Any] = []
        deferred: Deferred[None] = Deferred(cancelled.append)
        events: list[str] = []

        async def coroutine() -> None:
            try:
                await deferred
            finally:
                events.append("cleaned up")

        task = self.start(wait, coroutine(), 1)
        self.turn()
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.turn(5)
        self.assertEqual((events, cancelled), (["cleaned up"], [deferred]))

    def test_cancelled(self) -> None:
        """A cancellation of the task is one of the coroutine."""
        events: list[str] = []

        async def coroutine() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

        task = self.start(wait, coroutine())
        self.turn(2)
        task.cancel()
        self.error_of(task, Cancelled)
        self.turn(3)
        self.assertEqual(events, ["cancelled"])

    def test_cancelled_before_it_begins(self) -> None:
        """One that is cancelled before its first step warns of nothing."""

        async def coroutine() -> None:
            raise AssertionError("it began")

        def work() -> None:
            task = current_task()
            assert task is not None
            task.cancel()
            wait(coroutine())

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.error_of(self.start(work), Cancelled)
            self.turn(3)
            gc.collect()
        told = [str(warning.message) for warning in caught]
        self.assertEqual([text for text in told if "never awaited" in text], [])

    def test_system_exit(self) -> None:
        """One that exits ends the wait, not the reactor."""
        for error in (SystemExit(3), KeyboardInterrupt()):

            async def coroutine(error: BaseException = error) -> None:
                await asyncio.sleep(0)
                raise error

            task = self.start(wait, coroutine())
            self.turn(5)
            self.assertIs(self.error_of(task, BaseException), error)

    def test_cancels_itself(self) -> None:
        """One that ends by asyncio's CancelledError raises an ordinary exception."""

        async def coroutine() -> None:
            raise asyncio.CancelledError

        task = self.start(wait, coroutine())
        self.turn(3)
        self.error_of(task, CancelledError)

    def test_context(self) -> None:
        """It has a copy of the caller's context variables."""
        variable: ContextVar[str] = ContextVar("variable")

        async def coroutine() -> str:
            await asyncio.sleep(0)
            return variable.get()

        def work() -> str:
            variable.set("the caller's")
            return wait(coroutine())

        task = self.start(work)
        self.turn(4)
        self.assertEqual(self.result_of(task), "the caller's")

    def test_other_awaitables(self) -> None:
        """Anything with `__await__` will do."""

        class Awaitable:
            def __await__(self) -> Any:
                return (yield from asyncio.sleep(0, "slept").__await__())

        task = self.start(wait, Awaitable())
        self.turn(4)
        self.assertEqual(self.result_of(task), "slept")

    def test_error_for_another_task(self) -> None:
        """A task may fail with what a coroutine caught: that one goes on unharmed."""
        caught: list[BaseException] = []
        events: list[str] = []
        last: Deferred[str] = Deferred()

        async def coroutine() -> None:
            try:
                await Deferred[None]()
            except asyncio.CancelledError as error:
                caught.append(error)
            events.append(await last)

        task = self.start(wait, coroutine(), 1)
        self.turn(2)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.turn(3)

        def other() -> None:
            raise caught[0]

        self.error_of(self.start(other), asyncio.CancelledError)
        last.callback("unharmed")
        self.turn(5)
        self.assertEqual(events, ["unharmed"])

    def test_waiting_inside(self) -> None:
        """It runs outside of our tasks: waiting in it is refused, awaiting is not."""

        async def coroutine() -> str:
            try:
                sleep(1)
            except RuntimeError as error:
                return str(error)
            return "no error"

        task = self.start(wait, coroutine())
        self.turn(3)
        self.assertIn("outside a task", self.result_of(task))
