"""Tests of hard cases: code below, around and between waits."""

from __future__ import annotations

import functools
import itertools
import logging
import re
import threading
import weakref
from contextvars import Context, ContextVar, copy_context
from decimal import Decimal, getcontext, localcontext
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python import context as twisted_context
from twisted.python import log
from zope.interface import implementer

from txgreenwsgi import (
    Cancelled,
    ClientDisconnected,
    NotInGreenlet,
    RequestTimeout,
    Suspension,
    Task,
    TimedOut,
    sleep,
    suspend,
    wait,
)

from .clocked import ClockTestCase, after

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


class StackTests(ClockTestCase):
    """A task may wait at any depth, below any code."""

    def assert_waits(self, function: Callable[[], Any], expected: Any) -> None:
        """Fail unless two tasks that run it at the same time get the result."""
        tasks = [self.start(function), self.start(function)]
        for _ in range(20):
            if tasks[0].done:
                break
            self.assertEqual(tasks[0].state, "parked")
            self.clock.advance(1)
        self.assertEqual([self.result_of(task) for task in tasks], [expected] * 2)
        self.assert_nothing_left()

    def test_generator(self) -> None:
        """A wait inside nested generators."""

        def numbers() -> Iterator[int]:
            for number in range(3):
                sleep(1)
                yield number

        def nested() -> Iterator[int]:
            yield from numbers()

        self.assert_waits(lambda: list(nested()), [0, 1, 2])
        self.assert_waits(lambda: sum(n for n in nested()), 3)

    def test_sorting(self) -> None:
        """A wait in the key function and in a comparison of a sort."""

        class Slow:
            def __init__(self, value: int) -> None:
                self.value = value

            def __lt__(self, other: Slow) -> bool:
                return after(1, self.value < other.value)

        self.assert_waits(
            lambda: sorted([3, 1, 2], key=lambda n: after(1, n)), [1, 2, 3]
        )
        self.assert_waits(lambda: [s.value for s in sorted(map(Slow, (2, 1)))], [1, 2])

    def test_special_methods(self) -> None:
        """A wait in methods that the interpreter calls."""

        class Slow:
            def __getattr__(self, name: str) -> str:
                return after(1, name)

            def __eq__(self, other: object) -> bool:
                return after(1, True)

            def __hash__(self) -> int:
                return after(1, 42)

            def __repr__(self) -> str:
                return after(1, "slow")

            def __iter__(self) -> Iterator[int]:
                return after(1, iter([1]))

            def __enter__(self) -> int:
                return after(1, 1)

            def __exit__(self, *_: object) -> None:
                sleep(1)

            @property
            def lazy(self) -> int:
                return after(1, 7)

        def with_block() -> int:
            with Slow() as number:
                return number

        self.assert_waits(lambda: Slow().anything, "anything")
        self.assert_waits(lambda: Slow() == 1, True)
        self.assert_waits(lambda: {Slow(): "value"}[Slow()], "value")
        self.assert_waits(lambda: f"{Slow()}", "slow")
        self.assert_waits(lambda: [*Slow()], [1])
        self.assert_waits(lambda: Slow().lazy, 7)
        self.assert_waits(with_block, 1)

    def test_callbacks_of_c_code(self) -> None:
        """A wait in a function that C code calls."""
        self.assert_waits(lambda: list(map(after, [1, 1], "ab")), ["a", "b"])
        self.assert_waits(lambda: list(filter(lambda n: after(1, n), [0, 1])), [1])
        self.assert_waits(
            lambda: functools.reduce(lambda a, b: after(1, a + b), [1, 2, 3]), 6
        )
        self.assert_waits(lambda: re.sub("[ab]", lambda m: after(1, "x"), "abc"), "xxc")
        self.assert_waits(
            lambda: [key for key, _ in itertools.groupby("aab", lambda k: after(1, k))],
            ["a", "b"],
        )
        self.assert_waits(lambda: max([1, 2], key=lambda n: after(1, n)), 2)

    def test_imports(self) -> None:
        """A wait in code that is executed from text."""
        found: dict[str, Any] = {}
        code = "from txgreenwsgi import sleep\nsleep(1)\nfound['it'] = 1"
        self.assert_waits(lambda: exec(code, {"found": found}), None)
        self.assertEqual(found, {"it": 1})

    def test_nested_try_blocks(self) -> None:
        """A wait in `except` and `finally`, which keep their exception."""

        def work() -> list[object]:
            seen: list[object] = []
            try:
                try:
                    raise ValueError("first")
                except ValueError:
                    sleep(1)
                    raise
                finally:
                    sleep(1)
                    seen.append("finally")
            except ValueError as error:
                sleep(1)
                seen.append(str(error))
                seen.append(error.__context__)
            return seen

        self.assert_waits(work, ["finally", "first", None])

    def test_weakref_callback(self) -> None:
        """A wait in the callback of a weak reference."""

        class Thing: ...

        def work() -> list[str]:
            events: list[str] = []
            thing = Thing()

            def gone(_: object) -> None:
                sleep(1)
                events.append("gone")

            reference = weakref.ref(thing, gone)
            del thing
            assert reference() is None
            return events

        self.assert_waits(work, ["gone"])

    def test_deep_down(self) -> None:
        """A wait five hundred calls deep."""

        def down(levels: int) -> str:
            return down(levels - 1) if levels else after(1, "deep")

        self.assert_waits(lambda: down(500), "deep")

    def test_generator_in_two_tasks(self) -> None:
        """A generator parked in one task cannot be advanced by another."""

        def numbers() -> Iterator[int]:
            sleep(1)
            yield 1

        generator = numbers()
        first = self.start(next, generator)
        self.error_of(self.start(next, generator), ValueError)
        self.assertRaises(ValueError, generator.close)  # type: ignore[attr-defined]
        self.clock.advance(1)
        self.assertEqual(self.result_of(first), 1)


class ContextTests(ClockTestCase):
    """The state of a task across its waits."""

    def test_context_variables(self) -> None:
        """Context variables belong to the task; the reactor keeps its own."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        variable.set("the reactor's")

        def work(value: str) -> tuple[str, str]:
            inherited = variable.get()
            variable.set(value)
            sleep(1)
            return inherited, variable.get()

        tasks = [self.start(work, name) for name in "ab"]
        self.assertEqual(variable.get(), "the reactor's")
        self.clock.advance(1)
        self.assertEqual(
            [self.result_of(task) for task in tasks],
            [("the reactor's", "a"), ("the reactor's", "b")],
        )
        self.assertEqual(variable.get(), "the reactor's")

    def test_greenlets_are_no_contexts(self) -> None:
        """A reused greenlet has none of the previous task's context."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        self.start(variable.set, "before")
        self.assertEqual(self.result_of(self.start(variable.get)), "unset")

    def test_context_that_is_given(self) -> None:
        """A task runs in the Context that it was given."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        base = copy_context()
        base.run(variable.set, "of the server")
        task: Task[str] = Task(self.hub, variable.get, context=base.copy())
        self.hub.start(task)
        self.assertEqual(self.result_of(task), "of the server")
        empty: Task[str] = Task(self.hub, variable.get, context=Context())
        self.hub.start(empty)
        self.assertEqual(self.result_of(empty), "unset")

    def test_resumed_from_another_context(self) -> None:
        """Resuming a task does not give it the resumer's context."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        deferred: Deferred[None] = Deferred()

        def work() -> str:
            variable.set("mine")
            wait(deferred)
            return variable.get()

        task = self.start(work)

        def answer() -> str:
            variable.set("the answerer's")
            deferred.callback(None)
            return variable.get()

        self.assertEqual(copy_context().run(answer), "the answerer's")
        self.assertEqual(self.result_of(task), "mine")

    def test_context_inside_a_task(self) -> None:
        """Code of a task may run in another Context, and wait there."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")

        def inside(value: str) -> str:
            variable.set(value)
            return after(1, "") + variable.get()

        def work(value: str) -> tuple[str, str]:
            variable.set(f"outer {value}")
            return copy_context().run(inside, value), variable.get()

        tasks = [self.start(work, name) for name in "ab"]
        self.clock.advance(1)
        self.assertEqual(
            [self.result_of(task) for task in tasks],
            [("a", "outer a"), ("b", "outer b")],
        )

    def test_inline_callbacks(self) -> None:
        """An inlineCallbacks generator may wait until its first `yield`."""

        @inlineCallbacks
        def steps() -> Generator[Any, Any, str]:
            sleep(1)
            found: str = yield deferLater(self.clock, 1, str, "it")
            return found

        task = self.start(lambda: wait(steps()))
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "it")

    def test_decimal(self) -> None:
        """The decimal context belongs to the task: it is a context variable."""

        def work(precision: int) -> str:
            with localcontext() as arithmetic:
                arithmetic.prec = precision
                sleep(1)
                return str(Decimal(1) / 3)

        before = getcontext().prec
        tasks = [self.start(work, precision) for precision in (2, 5)]
        self.assertEqual(getcontext().prec, before)
        self.clock.advance(1)
        results = [self.result_of(task) for task in tasks]
        self.assertEqual(results, ["0.33", "0.33333"])

    def test_twisted_context(self) -> None:
        """Twisted's context, with the log system, belongs to the task."""

        def work(name: str) -> list[Any]:
            seen = []

            def inside() -> None:
                seen.append(twisted_context.get("who"))
                sleep(1)
                seen.append(twisted_context.get("who"))

            twisted_context.call({"who": name}, inside)
            seen.append(twisted_context.get("who"))
            return seen

        tasks = [self.start(work, name) for name in "ab"]
        self.assertIsNone(twisted_context.get("who"))
        self.clock.advance(1)
        self.assertIsNone(twisted_context.get("who"))
        self.assertEqual(
            [self.result_of(task) for task in tasks],
            [["a", "a", None], ["b", "b", None]],
        )

    def test_twisted_context_of_the_starter(self) -> None:
        """A task has the Twisted context of its starter, not of its resumer."""

        def work() -> list[Any]:
            seen = [twisted_context.get("who")]
            sleep(1)
            seen.append(twisted_context.get("who"))
            return seen

        task = twisted_context.call({"who": "the starter"}, self.start, work)
        twisted_context.call({"who": "the resumer"}, self.clock.advance, 1)
        self.assertEqual(self.result_of(task), ["the starter", "the starter"])

    def test_log_system(self) -> None:
        """Log lines of a task carry its own system after a wait."""

        def work(name: str) -> None:
            def inside() -> None:
                sleep(1)
                log.msg(f"marked {name}")

            log.callWithContext({"system": name}, inside)

        systems: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            if event["message"] and event["message"][0].startswith("marked"):
                systems.append(event["system"])

        log.addObserver(observe)
        self.addCleanup(log.removeObserver, observe)
        for name in "ab":
            self.start(work, name)
        self.clock.advance(1)
        self.assertEqual(systems, ["a", "b"])


class AloneTests(ClockTestCase):
    """Between two waits no other task runs."""

    def test_answering_under_a_lock(self) -> None:
        """A task may answer another while it holds a lock that the other needs."""
        lock = threading.Lock()
        deferred: Deferred[None] = Deferred()

        def waiter() -> bool:
            wait(deferred)
            return lock.acquire(blocking=False)

        def answerer() -> None:
            with lock:
                deferred.callback(None)

        task = self.start(waiter)
        self.result_of(self.start(answerer))
        self.turn()
        self.assertTrue(self.result_of(task))

    def test_answering_inside_logging(self) -> None:
        """A log observer may answer a wait: no task runs inside the logging."""
        events: list[str] = []
        handles: list[Suspension] = []

        def waiter() -> None:
            handles.append(suspend())
            handles[0].wait()
            events.append("resumed")

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                handles[0].resume()
                events.append("logged")

        logger = logging.Logger("of an application")
        logger.addHandler(Handler())
        task = self.start(waiter)
        self.start(logger.error, "something")
        self.assertEqual(events, ["logged"])
        self.turn()
        self.assertTrue(task.done)

    def test_our_own_logging(self) -> None:
        """The same for the log lines of this package."""
        handles: list[Suspension] = []
        states: list[str] = []

        def waiter() -> None:
            handles.append(suspend())
            handles[0].wait()

        task = self.start(waiter)

        @implementer(ILogObserver)
        def observe(event: dict[str, Any]) -> None:
            if not states:
                handles[0].resume()
                states.append(task.state)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.start(Logger().info, "something")
        self.assertEqual(states, ["ready"])
        self.turn()
        self.assertTrue(task.done)

    def test_rlock(self) -> None:
        """An RLock excludes no task: all have the same thread."""
        lock = threading.RLock()

        def work() -> bool:
            with lock:
                sleep(1)
                return True

        tasks = [self.start(work) for _ in range(2)]
        self.assertEqual([task.state for task in tasks], ["parked", "parked"])
        self.clock.advance(1)
        self.assertEqual([self.result_of(task) for task in tasks], [True, True])

    def test_deferred_lock(self) -> None:
        """A DeferredLock excludes other tasks."""
        lock = DeferredLock()
        inside: list[int] = []

        def work(number: int) -> list[int]:
            wait(lock.acquire())
            try:
                inside.append(number)
                sleep(1)
                return list(inside)
            finally:
                inside.remove(number)
                lock.release()

        tasks = [self.start(work, number) for number in range(3)]
        for _ in range(6):
            self.clock.advance(1)
        self.assertEqual([self.result_of(task) for task in tasks], [[0], [1], [2]])

    def test_no_switch_without_a_wait(self) -> None:
        """A task that does not wait is not interrupted."""
        events: list[str] = []
        others = [self.start(sleep, 0) for _ in range(3)]

        def work() -> None:
            for other in others:
                other.cancel()
            self.spawn(events.append, "spawned")
            self.hub.at_next_turn(lambda: events.append("turn"))
            events.append("undisturbed")

        self.start(work)
        self.assertEqual(events, ["undisturbed"])
        self.turn()
        self.assertEqual(events, ["undisturbed", "spawned", "turn"])


class ErrorsTests(ClockTestCase):
    """The exceptions that end a wait."""

    def test_kinds(self) -> None:
        """All are ordinary exceptions, of classes that socket code handles."""
        for kind, ordinary in (
            (TimedOut, TimeoutError),
            (RequestTimeout, TimeoutError),
            (ClientDisconnected, ConnectionResetError),
            (ClientDisconnected, OSError),
            (Cancelled, Exception),
            (NotInGreenlet, RuntimeError),
        ):
            self.assertTrue(issubclass(kind, ordinary))

    def test_a_driver_cleans_up(self) -> None:
        """A driver that drops its connection on OSError does so for each of them."""
        for error in (TimedOut(), RequestTimeout(), ClientDisconnected()):
            dropped: list[str] = []

            def query(dropped: list[str] = dropped) -> None:
                try:
                    sleep(60)
                except OSError:
                    dropped.append("connection")
                    raise

            task = self.start(query)
            task.interrupt(error)
            self.assertIs(self.error_of(task, OSError), error)
            self.assertEqual(dropped, ["connection"])
