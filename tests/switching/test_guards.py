"""Calls that would hang: each is one clear error."""

from __future__ import annotations

import functools
import gc
import os
import signal
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import blockingCallFromThread
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txgreenwsgi import NotInGreenlet, sleep
from txgreenwsgi._switching import guards
from txgreenwsgi._switching.greenlets import Task, hub_of

from .clocked import ClockTestCase
from .threaded import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable


@implementer(IReactorFromThreads)
class WholeReactor(MemoryReactorClock):
    """A reactor in memory that can be run, iterated, and called from threads."""

    iterated = 0
    runs = 0

    def run(self) -> None:
        """Count it."""
        self.runs += 1

    def iterate(self, delay: float = 0) -> None:
        """Count it."""
        self.iterated += 1

    def callFromThread(
        self,
        callable: Callable[..., Any],  # noqa: A002 - the interface's name
        *args: object,
        **kwargs: object,
    ) -> None:
        """Do it at once, wherever it is asked for."""
        callable(*args, **kwargs)


class ReactorTests(SynchronousTestCase):
    """Calls of the reactor's own that deadlock inside a task."""

    def setUp(self) -> None:
        """A reactor whose tasks can call it."""
        self.reactor = WholeReactor()
        self.hub = hub_of(self.reactor)
        self.addCleanup(self.hub.close)

    def error_in_a_task(self, function: Callable[..., object], *args: Any) -> str:
        """The message of the NotInGreenlet that it raises in a task."""
        errors: list[str] = []

        def work() -> None:
            errors.append(str(self.assertRaises(NotInGreenlet, function, *args)))

        task: Task[None] = Task(self.hub, work)
        self.hub.start(task)
        self.successResultOf(task.deferred())
        return errors[0]

    def test_iterate(self) -> None:
        """`reactor.iterate()` in a task says to sleep instead."""
        message = self.error_in_a_task(self.reactor.iterate)
        self.assertEqual(self.reactor.iterated, 0)
        self.assertIn("reactor.iterate()", message)
        self.assertIn("sleep(0)", message)

    def test_run(self) -> None:
        """`reactor.run()` in a task says that it runs already."""
        message = self.error_in_a_task(self.reactor.run)
        self.assertIn("reactor.run()", message)
        self.assertEqual(self.reactor.runs, 0)

    def test_outside_of_tasks(self) -> None:
        """Outside of tasks they are what they were."""
        self.reactor.iterate()
        self.reactor.run()
        self.assertEqual((self.reactor.iterated, self.reactor.runs), (1, 1))

    def test_blocking_call(self) -> None:
        """`blockingCallFromThread` in a task says to wait for the Deferred."""
        message = self.error_in_a_task(blockingCallFromThread, self.reactor, str)
        self.assertIn("wait(deferred)", message)

    def test_blocking_call_in_a_callback(self) -> None:
        """In the reactor's thread it would hang outside of tasks as well."""
        self.assertRaises(NotInGreenlet, blockingCallFromThread, self.reactor, str)

    def test_blocking_call_in_a_thread(self) -> None:
        """In a thread of its own it is what it was."""
        answer = in_thread(
            lambda: blockingCallFromThread(self.reactor, lambda: "answer")
        )
        self.assertEqual(answer, "answer")

    def test_call_from_thread(self) -> None:
        """Other calls from anywhere are let through."""
        called: list[str] = []
        self.reactor.callFromThread(called.append, "here")
        in_thread(lambda: self.reactor.callFromThread(called.append, "there"))
        self.assertEqual(called, ["here", "there"])


class CollectorTests(ClockTestCase):
    """Finalizers that the collector calls."""

    def test_finalizer(self) -> None:
        """One that waits is told not to, and the task it interrupted is unharmed."""
        errors: list[str] = []

        class Finalized:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                try:
                    sleep(1)
                except NotInGreenlet as error:
                    errors.append(str(error))

        def work() -> str:
            Finalized()
            gc.collect()
            sleep(1)
            return "unharmed"

        task = self.start(work)
        self.assertEqual(len(errors), 1)
        self.assertIn("garbage collector", errors[0])
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "unharmed")

    def test_finalizer_that_is_not_collected(self) -> None:
        """One that runs because the last reference goes may wait like any code."""
        events: list[str] = []

        class Finalized:
            def __del__(self) -> None:
                sleep(1)
                events.append("waited")

        def work() -> None:
            Finalized()
            events.append("went on")

        self.start(work)
        self.clock.advance(1)
        self.assertEqual(events, ["waited", "went on"])

    def test_collector_in_another_thread(self) -> None:
        """A collection in another thread is no hindrance."""
        with patch.object(guards, "collecting_thread", -1):
            task = self.start(sleep, 1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(1)
        self.assertTrue(task.done)


class SignalTests(ClockTestCase):
    """Signal handlers."""

    def interrupted_by(self, handler: Any) -> list[str]:
        """What a handler that waits is told when it interrupts a task."""
        before = signal.signal(signal.SIGUSR1, handler)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        self.addCleanup(guards.clear_handler_cache)
        guards.clear_handler_cache()

        def work() -> str:
            os.kill(os.getpid(), signal.SIGUSR1)
            for _ in range(100):  # the handler runs between two instructions
                pass
            sleep(1)
            return "unharmed"

        self.errors: list[str] = []
        task = self.start(work)
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "unharmed")
        return self.errors

    def wait_in_vain(self) -> None:
        """What the handlers do."""
        try:
            sleep(1)
        except NotInGreenlet as error:
            self.errors.append(str(error))

    def test_function(self) -> None:
        """A handler that waits is told not to, by name, and what to do."""

        def on_signal(number: int, frame: object) -> None:
            self.wait_in_vain()

        [message] = self.interrupted_by(on_signal)
        self.assertIn("'on_signal'", message)
        self.assertIn("reactor.callFromThread(spawn, function)", message)

    def test_other_callables(self) -> None:
        """Methods, partial functions and objects with `__call__` are handlers too."""

        class Handler:
            def __init__(self, wait_in_vain: Callable[[], None]) -> None:
                self.wait_in_vain = wait_in_vain

            def __call__(self, number: int, frame: object) -> None:
                self.wait_in_vain()

            def method(self, number: int, frame: object) -> None:
                self.wait_in_vain()

            def third(self, word: str, number: int, frame: object) -> None:
                self.wait_in_vain()

        handler = Handler(self.wait_in_vain)
        for other in (
            handler,
            handler.method,
            functools.partial(handler.third, "word"),
        ):
            self.assertEqual(len(self.interrupted_by(other)), 1)

    def test_handlers_that_do_not_wait(self) -> None:
        """A process with handlers of its own waits as ever."""

        def on_signal(number: int, frame: object) -> None: ...

        self.assertEqual(self.interrupted_by(on_signal), [])

    def test_asked_for_seldom(self) -> None:
        """The interpreter is not asked for its handlers at every wait."""
        guards.clear_handler_cache()
        self.addCleanup(guards.clear_handler_cache)
        with patch.object(
            guards, "find_handler_codes", return_value=frozenset()
        ) as find:
            for _ in range(10):
                self.start(sleep, 1)
        self.assertEqual(find.call_count, 1)


class SecondsTests(SynchronousTestCase):
    """Numbers of seconds."""

    def test_good(self) -> None:
        """Any number that is not negative will do."""
        for value in (0, 0.0, 1, 2.5, True, float("inf")):
            guards.require_seconds("it", value)

    def test_bad(self) -> None:
        """Others are told with the name and the value."""
        cases: list[tuple[Any, type[Exception]]] = [
            (-1, ValueError),
            (float("nan"), ValueError),
            ("1", TypeError),
            (None, TypeError),
            ([], TypeError),
        ]
        for value, kind in cases:
            error = self.assertRaises(kind, guards.require_seconds, "it", value)
            self.assertEqual(
                str(error), f"it takes a number of seconds >= 0, not {value!r}"
            )
