"""Tests of `react()`: a program whose main function waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import (
    Deferred,
)
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock

from txgreenwsgi import (
    Cancelled,
    shield,
    sleep,
)
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._switching.waiting import GRACE_SECONDS, react

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Callable


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
        """Call at once if it runs, as real reactors do."""
        if self.running:
            callable(*args, **kwargs)
        else:
            self.whenRunningHooks.append((callable, args, kwargs))

    def run(self) -> None:
        """Run turns until it is stopped."""
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
        """Return the exit status of a program."""
        return self.assertRaises(SystemExit, react, main, *args, _reactor=reactor).code

    def test_returns(self) -> None:
        """A main function that returns exits with 0; it gets its arguments."""
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
        """A main function that raises is logged, and the status is 1."""
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
        """SystemExit sets the status."""

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
        """A cleanup that exceeds the grace period is ended."""
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
        """A failure during the cleanup is logged, and the status is 1."""

        def main() -> None:
            try:
                sleep(60)
            finally:
                sleep(0)
                raise ValueError

        self.assertEqual(self.status(StoppableReactor(1), main), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
