"""`timeout()` and `shield()`: what ends a wait before its time, and what may not."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.defer import Deferred

from txgreenwsgi import (
    Cancelled,
    NotInGreenlet,
    Suspension,
    TimedOut,
    current_task,
    shield,
    sleep,
    suspend,
    timeout,
    wait,
)

from .clocked import ClockTestCase


class TimeoutTests(ClockTestCase):
    """`with timeout(seconds)`."""

    def test_expires(self) -> None:
        """The wait that is too long ends by TimedOut, a TimeoutError."""

        def work() -> bool:
            with timeout(2) as limit:
                try:
                    sleep(1)
                    sleep(60)
                except TimeoutError as error:
                    self.assertIsInstance(error, TimedOut)
                    self.assertIn("2 seconds", str(error))
            return limit.expired

        task = self.start(work)
        self.clock.advance(1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(1)
        self.assertTrue(self.result_of(task))
        self.assert_nothing_left()

    def test_in_time(self) -> None:
        """A block that ends in time leaves nothing behind."""

        def work() -> bool:
            with timeout(2) as limit:
                sleep(1)
            return limit.expired

        task = self.start(work)
        self.clock.advance(1)
        self.assertFalse(self.result_of(task))
        self.assert_nothing_left()

    def test_left_by_an_exception(self) -> None:
        """So does one that is left by another exception."""

        def work() -> None:
            with timeout(2):
                raise ValueError

        self.error_of(self.start(work), ValueError)
        self.assert_nothing_left()

    def test_no_limit(self) -> None:
        """None is no limit."""

        def work() -> bool:
            with timeout(None) as limit:
                sleep(1000)
            return limit.expired

        task = self.start(work)
        self.clock.advance(1000)
        self.assertFalse(self.result_of(task))

    def test_while_it_does_not_wait(self) -> None:
        """Time that passes without a wait is noticed at the next one inside."""

        def work() -> str:
            with timeout(2):
                self.clock.advance(5)  # a long computation
                try:
                    sleep(1)
                except TimedOut:
                    return "noticed"
            return "not noticed"

        self.assertEqual(self.result_of(self.start(work)), "noticed")

    def test_at_a_wait_that_need_not_park(self) -> None:
        """A loop whose data is always there is timed out too."""
        fired: Deferred[None] = Deferred()
        fired.callback(None)

        def work() -> int:
            rounds = 0
            try:
                with timeout(10):
                    while rounds < 1000:
                        wait(fired)
                        rounds += 1
                        self.clock.advance(1)
            except TimedOut:
                return rounds
            return -1

        self.assertEqual(self.result_of(self.start(work)), 10)

    def test_expired_but_never_raised(self) -> None:
        """A block that does not wait after its time is not interrupted."""

        def work() -> bool:
            with timeout(2) as limit:
                self.clock.advance(5)
            sleep(1)
            return limit.expired

        task = self.start(work)
        self.clock.advance(1)
        self.assertTrue(self.result_of(task))

    def test_raised_once(self) -> None:
        """Who catches it inside the block may go on."""

        def work() -> str:
            with timeout(2):
                try:
                    sleep(60)
                except TimedOut:
                    sleep(60)
                return "went on"

        task = self.start(work)
        self.clock.advance(2)
        self.clock.advance(60)
        self.assertEqual(self.result_of(task), "went on")

    def test_inner_first(self) -> None:
        """Of two blocks the one whose time is over first ends the wait."""

        def work() -> tuple[bool, bool, str]:
            with timeout(5) as outer:
                try:
                    with timeout(2) as inner:
                        sleep(60)
                except TimedOut:
                    sleep(1)  # inside the outer one there is time left
                    return inner.expired, outer.expired, "went on"
            return inner.expired, outer.expired, ""

        task = self.start(work)
        self.clock.advance(2)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), (True, False, "went on"))
        self.assert_nothing_left()

    def test_outer_first(self) -> None:
        """And the one further out leaves the inner one with it."""

        def work() -> tuple[bool, bool]:
            try:
                with timeout(2) as outer, timeout(5) as inner:
                    sleep(60)
            except TimedOut:
                return outer.expired, inner.expired
            raise AssertionError("no timeout")

        task = self.start(work)
        self.clock.advance(2)
        self.assertEqual(self.result_of(task), (True, False))
        self.assert_nothing_left()

    def test_both_at_once(self) -> None:
        """Two that end together interrupt once, and what follows is undisturbed."""

        def work() -> str:
            try:
                with timeout(2), timeout(2):
                    sleep(60)
            except TimedOut:
                sleep(1)
                return "once"
            raise AssertionError("no timeout")

        task = self.start(work)
        self.clock.advance(2)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), "once")
        self.assert_nothing_left()

    def test_after_the_answer(self) -> None:
        """An answer that came first is not lost to a timeout of the same turn."""
        handles: list[Suspension] = []

        def work() -> object:
            with timeout(2):
                handles.append(suspend())
                return handles[0].wait()

        task = self.start(work)

        def answerer() -> None:
            handles[0].resume("in time")
            self.clock.advance(2)

        self.start(answerer)
        self.turn()
        self.assertEqual(self.result_of(task), "in time")

    def test_what_was_waited_on(self) -> None:
        """The Deferred that took too long is cancelled."""
        cancelled: list[Any] = []
        deferred: Deferred[None] = Deferred(cancelled.append)

        def work() -> None:
            with timeout(2):
                wait(deferred)

        task = self.start(work)
        self.clock.advance(2)
        self.error_of(task, TimedOut)
        self.assertEqual(cancelled, [deferred])

    def test_entered_twice(self) -> None:
        """One object cannot be two blocks at once: one would never end."""

        def work() -> None:
            limit = timeout(2)
            with limit, limit:
                raise AssertionError("entered twice")

        error = self.error_of(self.start(work), RuntimeError)
        self.assertIn("write a new `with timeout(seconds):`", str(error))
        self.assert_nothing_left()

    def test_used_again(self) -> None:
        """One object may be used for one block after another, each with its time."""

        def work() -> tuple[bool, bool]:
            limit = timeout(2)
            with contextlib.suppress(TimedOut), limit:
                sleep(5)
            first = limit.expired
            with limit:
                sleep(1)
            return first, limit.expired

        task = self.start(work)
        self.clock.advance(2)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), (True, False))

    def test_zero(self) -> None:
        """No time at all: what has its answer already is still had."""
        fired: Deferred[str] = Deferred()
        fired.callback("here")

        def work() -> str:
            with timeout(0):
                found = wait(fired)
                try:
                    sleep(1)
                except TimedOut:
                    return found
            return "too late"

        task = self.start(work)
        self.turn()
        self.assertEqual(self.result_of(task), "here")

    def test_bad_values(self) -> None:
        """What is no number of seconds is told by name and value."""
        for value in (-1, float("nan")):
            error = self.assertRaises(ValueError, timeout, value)
            self.assertIn(
                f"timeout() takes a number of seconds >= 0, not {value}", str(error)
            )
        error = self.assertRaises(TypeError, timeout, "5")
        self.assertIn("'5'", str(error))

    def test_outside_of_tasks(self) -> None:
        """It is refused where nothing can wait."""
        self.assertRaises(NotInGreenlet, timeout(1).__enter__)
        self.assert_nothing_left()

    def test_never_entered(self) -> None:
        """Leaving a block that could not be entered is no second error."""
        timeout(1).__exit__(None, None, None)
        shield().__exit__(None, None, None)
        self.assert_nothing_left()


class ShieldTests(ClockTestCase):
    """`with shield()`."""

    def setUp(self) -> None:
        """Note what happens."""
        super().setUp()
        self.events: list[str] = []

    def shielded(self) -> None:
        """Something that must not be cut, then a wait."""
        with shield():
            sleep(2)
            self.events.append("whole")
        self.events.append("left")
        sleep(60)
        self.events.append("went on")

    def test_cancelled_inside(self) -> None:
        """A cancellation waits for the end of the block, and for the next wait."""
        task = self.start(self.shielded)
        self.assertTrue(task.cancel())
        self.assertEqual(task.state, "parked")
        self.clock.advance(2)
        self.error_of(task, Cancelled)
        self.assertEqual(self.events, ["whole", "left"])

    def test_timeout_outside(self) -> None:
        """So does a timeout that was given outside of the block."""

        def work() -> None:
            with timeout(1):
                self.shielded()

        task = self.start(work)
        self.clock.advance(1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(self.events, ["whole", "left"])

    def test_timeout_inside(self) -> None:
        """A timeout that is given inside of the block works."""

        def work() -> None:
            with shield(), timeout(1):
                sleep(60)

        task = self.start(work)
        self.clock.advance(1)
        self.error_of(task, TimedOut)

    def test_timeout_of_a_wait_inside(self) -> None:
        """So does the timeout of a single wait."""

        def work() -> None:
            with shield():
                wait(Deferred[None](), timeout=1)

        task = self.start(work)
        self.clock.advance(1)
        self.error_of(task, TimedOut)

    def test_nested(self) -> None:
        """Only the outermost block's end lets an interruption through."""

        def work() -> None:
            with shield():
                with timeout(1), shield():
                    sleep(2)
                self.events.append("inner whole")
                sleep(2)
                self.events.append("outer whole")
            sleep(1)

        task = self.start(work)
        task.cancel()
        for _ in range(4):
            self.clock.advance(1)
        self.error_of(task, Cancelled)
        self.assertEqual(self.events, ["inner whole", "outer whole"])

    def test_timeout_between_two(self) -> None:
        """A timeout between two shields passes the outer one only."""

        def work() -> None:
            with shield(), timeout(1):
                with shield():
                    sleep(2)
                    self.events.append("inner whole")
                sleep(2)

        task = self.start(work)
        self.clock.advance(1)
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(self.events, ["inner whole"])

    def test_several_that_wait(self) -> None:
        """Of several interruptions each is raised, one at a wait, in their order."""
        raised: list[str] = []

        def work() -> None:
            try:
                with timeout(1):
                    self.shielded()
            finally:
                try:
                    sleep(1)
                except Cancelled:
                    raised.append("Cancelled")

        task = self.start(work)
        self.clock.advance(1)
        task.cancel()
        self.clock.advance(1)
        self.error_of(task, TimedOut)
        self.assertEqual(raised, ["Cancelled"])

    def test_left_by_an_exception(self) -> None:
        """A block that fails lowers the shield."""

        def work() -> None:
            try:
                with shield():
                    raise ValueError
            except ValueError:
                sleep(60)

        task = self.start(work)
        task.cancel()
        self.error_of(task, Cancelled)

    def test_entered_twice(self) -> None:
        """One object cannot be two blocks at once: it would never be lowered."""

        def work() -> None:
            block = shield()
            try:
                with block, block:
                    raise AssertionError("entered twice")
            finally:
                task = current_task()
                assert task is not None
                task.cancel()
                self.assertRaises(Cancelled, sleep, 1)

        self.error_of(self.start(work), RuntimeError)

    def test_outside_of_tasks(self) -> None:
        """It is refused where nothing can wait."""
        self.assertRaises(NotInGreenlet, shield().__enter__)
