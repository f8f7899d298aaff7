"""The running loop and current task of asyncio: the reactor's, and each task's own."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from txgreenwsgi import sleep
from txgreenwsgi._switching.asyncio_state import swap_state

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def marks() -> tuple[Any, Any]:
    """The running loop and its current asyncio task; None for none."""
    loop = asyncio._get_running_loop()
    return loop, None if loop is None else asyncio.current_task(loop)


class MarksTests(ClockTestCase):
    """Who sees which."""

    def setUp(self) -> None:
        """A loop that plays the reactor's."""
        super().setUp()
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    def run_in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns."""
        return self.loop.run_until_complete(coroutine)

    def test_no_loop_runs_in_a_task(self) -> None:
        """A task believes itself in no loop: Django's ORM works in it."""

        async def reactor() -> tuple[Any, Any]:
            inside = self.result_of(self.start(marks))
            self.result_of(self.start(lambda: asyncio.run(asyncio.sleep(0))))
            return inside, marks()

        inside, outside = self.run_in_loop(reactor())
        self.assertEqual(inside, (None, None))
        self.assertIs(outside[0], self.loop)
        self.assertIsNotNone(outside[1])

    def test_reactor_keeps_its_marks(self) -> None:
        """Whatever tasks do, the coroutine that resumes them is what it was."""

        async def reactor() -> tuple[Any, list[Any]]:
            before = marks()
            seen = []
            task = self.start(sleep, 1)
            seen.append(marks())
            self.clock.advance(1)
            seen.append(marks())
            self.assertTrue(task.done)
            await asyncio.sleep(0)
            seen.append(marks())
            return before, seen

        before, seen = self.run_in_loop(reactor())
        self.assertEqual(seen, [before] * 3)

    def test_loop_inside_a_task(self) -> None:
        """A task that waits inside a loop of its own finds it running afterwards."""
        seen: list[Any] = []

        async def inner() -> None:
            seen.append(marks())
            sleep(1)
            seen.append(marks())
            await asyncio.sleep(0)
            seen.append(marks())

        def work() -> str:
            asyncio.run(inner())
            return "done"

        async def reactor() -> None:
            before = marks()
            task = self.start(work)
            self.assertEqual(marks(), before)
            # Another task does not see it, nor does the reactor.
            self.assertEqual(self.result_of(self.start(marks)), (None, None))
            self.clock.advance(1)
            self.assertEqual(self.result_of(task), "done")
            self.assertEqual(marks(), before)

        self.run_in_loop(reactor())
        self.assertIsNotNone(seen[0][1])
        self.assertEqual(seen, [seen[0]] * 3)

    def test_without_a_loop_outside(self) -> None:
        """The same under a reactor that is not asyncio's."""
        seen: list[Any] = []

        async def inner() -> None:
            seen.append(marks())
            sleep(1)
            seen.append(marks())

        task = self.start(lambda: asyncio.run(inner()))
        self.assertEqual(marks(), (None, None))
        self.clock.advance(1)
        self.result_of(task)
        self.assertEqual(marks(), (None, None))
        self.assertEqual(seen, [seen[0]] * 2)
        self.assertEqual(self.result_of(self.start(marks)), (None, None))

    def test_loops_of_two_tasks(self) -> None:
        """Two tasks may each wait in a loop of their own."""

        async def inner() -> bool:
            before = marks()
            sleep(1)
            return before == marks()

        tasks = [self.start(lambda: asyncio.run(inner())) for _ in range(2)]
        self.clock.advance(1)
        self.assertEqual([self.result_of(task) for task in tasks], [True, True])

    def test_eager_tasks(self) -> None:
        """A loop inside a task may run its tasks eagerly (Python 3.12)."""
        if sys.version_info < (3, 12):
            return

        async def child() -> Any:
            sleep(1)
            return marks()[1]

        async def inner() -> bool:
            me = marks()[1]
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            task = asyncio.create_task(child())
            return marks()[1] is me and await task is task

        task = self.start(lambda: asyncio.run(inner()))
        self.clock.advance(1)
        self.assertTrue(self.result_of(task))


class SwapTests(ClockTestCase):
    """The swap_state itself."""

    def test_there_and_back(self) -> None:
        """What is put aside is what was there, and goes back as it was."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def coroutine() -> None:
            before = marks()
            aside = swap_state(None)
            self.assertEqual(marks(), (None, None))
            self.assertIsNone(swap_state(aside))
            self.assertEqual(marks(), before)

        loop.run_until_complete(coroutine())
