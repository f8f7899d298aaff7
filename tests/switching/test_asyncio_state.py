"""Tests of asyncio's running loop and current task: the reactor's and each task's."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from txgreenwsgi import sleep
from txgreenwsgi._switching import asyncio_state
from txgreenwsgi._switching.asyncio_state import set_generator_hooks, swap_state

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def state() -> tuple[Any, Any]:
    """Return the running loop and its current asyncio task; None without a loop."""
    loop = asyncio._get_running_loop()
    return loop, None if loop is None else asyncio.current_task(loop)


class StateTests(ClockTestCase):
    """The state that each piece of code finds."""

    def setUp(self) -> None:
        """Make a loop that stands for the reactor's."""
        super().setUp()
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    def run_in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of the coroutine."""
        return self.loop.run_until_complete(coroutine)

    def test_no_loop_runs_in_a_task(self) -> None:
        """A task finds no running loop, so Django's ORM works in it."""

        async def reactor() -> tuple[Any, Any]:
            inside = self.result_of(self.start(state))
            self.result_of(self.start(lambda: asyncio.run(asyncio.sleep(0))))
            return inside, state()

        inside, outside = self.run_in_loop(reactor())
        self.assertEqual(inside, (None, None))
        self.assertIs(outside[0], self.loop)
        self.assertIsNotNone(outside[1])

    def test_reactor_keeps_its_state(self) -> None:
        """The coroutine that resumes tasks keeps its own loop and asyncio task."""

        async def reactor() -> tuple[Any, list[Any]]:
            before = state()
            seen = []
            task = self.start(sleep, 1)
            seen.append(state())
            self.clock.advance(1)
            seen.append(state())
            self.assertTrue(task.done)
            await asyncio.sleep(0)
            seen.append(state())
            return before, seen

        before, seen = self.run_in_loop(reactor())
        self.assertEqual(seen, [before] * 3)

    def test_loop_inside_a_task(self) -> None:
        """A task that waits inside its own loop finds it running afterwards."""
        seen: list[Any] = []

        async def inner() -> None:
            seen.append(state())
            sleep(1)
            seen.append(state())
            await asyncio.sleep(0)
            seen.append(state())

        def work() -> str:
            asyncio.run(inner())
            return "done"

        async def reactor() -> None:
            before = state()
            task = self.start(work)
            self.assertEqual(state(), before)
            # Neither another task nor the reactor finds the loop running.
            self.assertEqual(self.result_of(self.start(state)), (None, None))
            self.clock.advance(1)
            self.assertEqual(self.result_of(task), "done")
            self.assertEqual(state(), before)

        self.run_in_loop(reactor())
        self.assertIsNotNone(seen[0][1])
        self.assertEqual(seen, [seen[0]] * 3)

    def test_without_a_loop_outside(self) -> None:
        """The same under a reactor that is not asyncio's."""
        seen: list[Any] = []

        async def inner() -> None:
            seen.append(state())
            sleep(1)
            seen.append(state())

        task = self.start(lambda: asyncio.run(inner()))
        self.assertEqual(state(), (None, None))
        self.clock.advance(1)
        self.result_of(task)
        self.assertEqual(state(), (None, None))
        self.assertEqual(seen, [seen[0]] * 2)
        self.assertEqual(self.result_of(self.start(state)), (None, None))

    def test_loops_of_two_tasks(self) -> None:
        """Two tasks may each wait inside their own loop."""

        async def inner() -> bool:
            before = state()
            sleep(1)
            return before == state()

        tasks = [self.start(lambda: asyncio.run(inner())) for _ in range(2)]
        self.clock.advance(1)
        self.assertEqual([self.result_of(task) for task in tasks], [True, True])

    def test_eager_tasks(self) -> None:
        """A loop inside a task may run its tasks eagerly (Python 3.12)."""
        if sys.version_info < (3, 12):
            return

        async def child() -> Any:
            sleep(1)
            return state()[1]

        async def inner() -> bool:
            me = state()[1]
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            task = asyncio.create_task(child())
            return state()[1] is me and await task is task

        task = self.start(lambda: asyncio.run(inner()))
        self.clock.advance(1)
        self.assertTrue(self.result_of(task))


class GeneratorHooksTests(ClockTestCase):
    """The hooks for asynchronous generators: one pair for each task."""

    def setUp(self) -> None:
        """Restore the state of the module after the test."""
        super().setUp()
        self.patch(asyncio_state, "hooks_used", asyncio_state.hooks_used)

    def test_overlapping_loops(self) -> None:
        """Loops that overlap in two tasks keep their own hooks, and leave none."""
        seen = []

        def run_loop(seconds: float) -> None:
            # As asyncio and trio do.
            def firstiter(generator: object) -> None:
                """Have an identity."""

            before = sys.get_asyncgen_hooks()
            set_generator_hooks(firstiter=firstiter)
            sleep(seconds)
            seen.append(sys.get_asyncgen_hooks().firstiter is firstiter)
            set_generator_hooks(*before)

        first = self.start(run_loop, 1)
        self.assertEqual(sys.get_asyncgen_hooks(), (None, None))
        second = self.start(run_loop, 2)
        self.clock.advance(1)
        self.assertTrue(first.done)
        self.assertEqual(sys.get_asyncgen_hooks(), (None, None))
        self.clock.advance(1)
        self.assertTrue(second.done)
        self.assertEqual(sys.get_asyncgen_hooks(), (None, None))
        self.assertEqual(seen, [True, True])

    def test_loops_of_asyncio(self) -> None:
        """The same for two loops of asyncio, without `set_generator_hooks`."""
        self.patch(asyncio_state, "hooks_used", False)

        async def inner() -> bool:
            before = sys.get_asyncgen_hooks()
            sleep(1)
            return before == sys.get_asyncgen_hooks() != (None, None)

        tasks = [self.start(lambda: asyncio.run(inner())) for _ in range(2)]
        self.assertEqual(sys.get_asyncgen_hooks(), (None, None))
        self.clock.advance(1)
        self.assertEqual([self.result_of(task) for task in tasks], [True, True])
        self.assertEqual(sys.get_asyncgen_hooks(), (None, None))


class SwapStateTests(ClockTestCase):
    """`swap_state`."""

    def test_there_and_back(self) -> None:
        """`swap_state` returns the previous state and restores it when given it."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def coroutine() -> None:
            before = state()
            aside = swap_state(None)
            self.assertEqual(state(), (None, None))
            self.assertIsNone(swap_state(aside))
            self.assertEqual(state(), before)

        loop.run_until_complete(coroutine())
