"""Tests of calls that would deadlock: each raises one clear error."""

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
        """Count the call."""
        self.runs += 1

    def iterate(self, delay: float = 0) -> None:
        """Count the call."""
        self.iterated += 1

    def callFromThread(
        self,
        callable: Callable[..., Any],  # noqa: A002 - the interface's name
        *args: object,
        **kwargs: object,
    ) -> None:
        """Call `f` at once, in the calling thread."""
        callable(*args, **kwargs)


class ReactorTests(SynchronousTestCase):
    """Calls of the reactor that deadlock inside a task."""

    def setUp(self) -> None:
        """Make a reactor whose tasks can call it."""
        self.reactor = WholeReactor()
        self.hub = hub_of(self.reactor)
        self.addCleanup(self.hub.close)

    def error_in_a_task(self, function: Callable[..., object], *args: Any) -> str:
        """Return the message of the NotInGreenlet that `function` raises in a task."""
        errors: list[str] = []

        def work() -> None:
            errors.append(str(self.assertRaises(NotInGreenlet, function, *args)))

        task: Task[None] = Task(self.hub, work)
        self.hub.start(task)
        self.successResultOf(task.deferred())
        return errors[0]

    def test_iterate(self) -> None:
        """`reactor.iterate()` in a task raises and recommends sleep(0)."""
        message = self.error_in_a_task(self.reactor.iterate)
        self.assertEqual(self.reactor.iterated, 0)
        self.assertIn("reactor.iterate()", message)
        self.assertIn("sleep(0)", message)

    def test_run(self) -> None:
        """`reactor.run()` in a task raises: the reactor is running already."""
        message = self.error_in_a_task(self.reactor.run)
        self.assertIn("reactor.run()", message)
        self.assertEqual(self.reactor.runs, 0)

    def test_outside_of_tasks(self) -> None:
        """Outside tasks the methods work as before."""
        self.reactor.iterate()
        self.reactor.run()
        self.assertEqual((self.reactor.iterated, self.reactor.runs), (1, 1))

    def test_blocking_call(self) -> None:
        """`blockingCallFromThread` in a task raises and recommends `wait`."""
        message = self.error_in_a_task(blockingCallFromThread, self.reactor, str)
        self.assertIn("wait(deferred)", message)

    def test_blocking_call_in_a_callback(self) -> None:
        """`blockingCallFromThread` raises in the reactor's thread, task or not."""
        self.assertRaises(NotInGreenlet, blockingCallFromThread, self.reactor, str)

    def test_blocking_call_in_a_thread(self) -> None:
        """`blockingCallFromThread` works in another thread."""
        answer = in_thread(
            lambda: blockingCallFromThread(self.reactor, lambda: "answer")
        )
        self.assertEqual(answer, "answer")

    def test_call_from_thread(self) -> None:
        """Other calls of `callFromThread` are unaffected."""
        called: list[str] = []
        self.reactor.callFromThread(called.append, "here")
        in_thread(lambda: self.reactor.callFromThread(called.append, "there"))
        self.assertEqual(called, ["here", "there"])


class CollectorTests(ClockTestCase):
    """Finalizers that the garbage collector calls."""

    def test_finalizer(self) -> None:
        """A finalizer that waits is refused; the interrupted task is unharmed."""
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
        """A finalizer run by the loss of the last reference may wait."""
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
        """A collection in another thread does not prevent a wait."""
        with patch.object(guards, "collecting_thread", -1):
            task = self.start(sleep, 1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(1)
        self.assertTrue(task.done)


class SignalTests(ClockTestCase):
    """Signal handlers."""

    def interrupted_by(self, handler: Any) -> list[str]:
        """Return the errors that a waiting `handler` gets inside a task."""
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

    def try_to_wait(self) -> None:
        """Wait, and record the error."""
        try:
            sleep(1)
        except NotInGreenlet as error:
            self.errors.append(str(error))

    def test_function(self) -> None:
        """A handler that waits is refused; the error names it and the remedy."""

        def on_signal(number: int, frame: object) -> None:
            self.try_to_wait()

        [message] = self.interrupted_by(on_signal)
        self.assertIn("'on_signal'", message)
        self.assertIn("reactor.callFromThread(spawn, function)", message)

    def test_other_callables(self) -> None:
        """Methods, partial functions and objects with `__call__` are recognized."""

        class Handler:
            def __init__(self, try_to_wait: Callable[[], None]) -> None:
                self.try_to_wait = try_to_wait

            def __call__(self, number: int, frame: object) -> None:
                self.try_to_wait()

            def method(self, number: int, frame: object) -> None:
                self.try_to_wait()

            def third(self, word: str, number: int, frame: object) -> None:
                self.try_to_wait()

        handler = Handler(self.try_to_wait)
        for other in (
            handler,
            handler.method,
            functools.partial(handler.third, "word"),
        ):
            self.assertEqual(len(self.interrupted_by(other)), 1)

    def test_handlers_that_do_not_wait(self) -> None:
        """Handlers that do not wait have no effect on waits."""

        def on_signal(number: int, frame: object) -> None: ...

        self.assertEqual(self.interrupted_by(on_signal), [])

    def test_asked_for_seldom(self) -> None:
        """The signal handlers are not looked up at every wait."""
        guards.clear_handler_cache()
        self.addCleanup(guards.clear_handler_cache)
        with patch.object(
            guards, "find_handler_codes", return_value=frozenset()
        ) as find:
            for _ in range(10):
                self.start(sleep, 1)
        self.assertEqual(find.call_count, 1)


class SecondsTests(SynchronousTestCase):
    """`require_seconds`."""

    def test_good(self) -> None:
        """Every number >= 0 is accepted."""
        for value in (0, 0.0, 1, 2.5, True, float("inf")):
            guards.require_seconds("it", value)

    def test_bad(self) -> None:
        """Other values raise an error with the name and the value."""
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
