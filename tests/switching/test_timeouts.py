"""Tests of `timeout()` and `shield()`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

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
from txgreenwsgi._parking.locks import Lock

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Callable


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
        """A block that ends in time leaves no delayed call."""

        def work() -> bool:
            with timeout(2) as limit:
                sleep(1)
            return limit.expired

        task = self.start(work)
        self.clock.advance(1)
        self.assertFalse(self.result_of(task))
        self.assert_nothing_left()

    def test_left_by_an_exception(self) -> None:
        """A block left by another exception leaves no delayed call."""

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
        """Time that passes without a wait is noticed at the next wait inside."""

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
        """A loop whose data is always ready is timed out too."""
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
        """A block that does not wait after its timeout is not interrupted."""

        def work() -> bool:
            with timeout(2) as limit:
                self.clock.advance(5)
            sleep(1)
            return limit.expired

        task = self.start(work)
        self.clock.advance(1)
        self.assertTrue(self.result_of(task))

    def test_raised_once(self) -> None:
        """A task that catches it inside the block may continue."""

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
        """Of two nested blocks the one that expires first ends the wait."""

        def work() -> tuple[bool, bool, str]:
            with timeout(5) as outer:
                try:
                    with timeout(2) as inner:
                        sleep(60)
                except TimedOut:
                    sleep(1)  # inside the outer block there is time left
                    return inner.expired, outer.expired, "went on"
            return inner.expired, outer.expired, ""

        task = self.start(work)
        self.clock.advance(2)
        self.clock.advance(1)
        self.assertEqual(self.result_of(task), (True, False, "went on"))
        self.assert_nothing_left()

    def test_outer_first(self) -> None:
        """When the outer block expires, the inner one is left as well."""

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
        """Two blocks that expire together interrupt once."""

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
        """One object cannot be two blocks at once; the error names the remedy."""

        def work() -> None:
            limit = timeout(2)
            with limit, limit:
                raise AssertionError("entered twice")

        error = self.error_of(self.start(work), RuntimeError)
        self.assertIn("write a new `with timeout(seconds):`", str(error))
        self.assert_nothing_left()

    def test_used_again(self) -> None:
        """One object may be used for several blocks in succession."""

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
        """With a timeout of 0, results that are available are returned."""
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
        """Bad values raise an error that names the call and the value."""
        for value in (-1, float("nan")):
            error = self.assertRaises(ValueError, timeout, value)
            self.assertIn(
                f"timeout() takes a number of seconds >= 0, not {value}", str(error)
            )
        error = self.assertRaises(TypeError, timeout, "5")
        self.assertIn("'5'", str(error))

    def test_outside_of_tasks(self) -> None:
        """Outside a task it is refused."""
        self.assertRaises(NotInGreenlet, timeout(1).__enter__)
        self.assert_nothing_left()

    def test_never_entered(self) -> None:
        """Leaving a block that could not be entered raises no second error."""
        timeout(1).__exit__(None, None, None)
        shield().__exit__(None, None, None)
        self.assert_nothing_left()


class ShieldTests(ClockTestCase):
    """`with shield()`."""

    def setUp(self) -> None:
        """Make a list of events."""
        super().setUp()
        self.events: list[str] = []

    def shielded(self) -> None:
        """Run a shielded block, then a wait."""
        with shield():
            sleep(2)
            self.events.append("whole")
        self.events.append("left")
        sleep(60)
        self.events.append("went on")

    def test_cancelled_inside(self) -> None:
        """A cancellation is held back until the first wait after the block."""
        task = self.start(self.shielded)
        self.assertTrue(task.cancel())
        self.assertEqual(task.state, "parked")
        self.clock.advance(2)
        self.error_of(task, Cancelled)
        self.assertEqual(self.events, ["whole", "left"])

    def test_timeout_outside(self) -> None:
        """An enclosing timeout is held back as well."""

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
        """A timeout given inside the block works."""

        def work() -> None:
            with shield(), timeout(1):
                sleep(60)

        task = self.start(work)
        self.clock.advance(1)
        self.error_of(task, TimedOut)

    def test_timeout_of_a_wait_inside(self) -> None:
        """The timeout of a single wait inside the block works."""

        def work() -> None:
            with shield():
                wait(Deferred[None](), timeout=1)

        task = self.start(work)
        self.clock.advance(1)
        self.error_of(task, TimedOut)

    def test_nested(self) -> None:
        """Interruptions are held back until the end of the outermost block."""

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
        """A timeout between two shields gets through the outer one only."""

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
        """Several pending interruptions are raised in order, one at each wait."""
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
        """A block that raises lowers the shield."""

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
        """One object cannot be two blocks at once; the error names the remedy."""

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
        """Outside a task it is refused."""
        self.assertRaises(NotInGreenlet, shield().__enter__)


class StallTests(ClockTestCase):
    """Timeouts that expire during a stall of the reactor."""

    def setUp(self) -> None:
        """Take a late delayed call for a stall, as with a real reactor."""
        super().setUp()
        self.hub.detects_stalls = True

    def test_result_in_time(self) -> None:
        """A result that the reactor reads after the stall wins over the timeout."""

        def limited(work: Callable[[], object]) -> object:
            with timeout(5):
                return work()

        for start in (
            lambda deferred: wait(deferred, timeout=5),
            lambda deferred: limited(lambda: wait(deferred)),
        ):
            deferred: Deferred[str] = Deferred()
            task = self.start(start, deferred)
            self.clock.advance(60)
            self.assertEqual(task.state, "parked")
            deferred.callback("read")
            self.assertEqual(self.result_of(task), "read")
            self.clock.advance(10)
            self.assert_nothing_left()

    def test_suspension(self) -> None:
        """So it is for a suspension, and for a lock."""
        suspensions: list[Suspension] = []

        def work() -> object:
            suspensions.append(suspend(5))
            return suspensions[0].wait()

        task = self.start(work)
        self.clock.advance(60)
        self.assertTrue(suspensions[0].resume("in time"))
        self.assertEqual(self.result_of(task), "in time")
        lock = Lock()
        lock.acquire()
        task = self.start(lock.acquire, True, 5)
        self.clock.advance(60)
        self.assertEqual(task.state, "parked")
        lock.release()
        self.assertTrue(self.result_of(task))

    def test_no_result(self) -> None:
        """Without a result, the timeout expires a quarter of a second later."""
        never: Deferred[None] = Deferred()
        task = self.start(lambda: wait(never, timeout=5))
        self.clock.advance(60)
        self.assertEqual(task.state, "parked")
        self.clock.advance(0.25)
        self.error_of(task, TimedOut)
        self.assert_nothing_left()

    def test_punctual(self) -> None:
        """A timeout that expires in time, or nearly so, is not extended."""
        for late in (0, 0.09):
            never: Deferred[None] = Deferred()
            task = self.start(wait, never, 5)
            self.clock.advance(5 + late)
            self.error_of(task, TimedOut)
            self.assert_nothing_left()

    def test_block_that_has_ended(self) -> None:
        """The extension of a timeout has no effect after the block."""

        def work() -> bool:
            with timeout(5) as limit:
                suspension.append(suspend())
                suspension[0].wait()
            sleep(10)
            return limit.expired

        suspension: list[Suspension] = []
        task = self.start(work)
        self.clock.advance(60)
        suspension[0].resume()
        self.clock.advance(1)
        self.assertEqual(task.state, "parked")
        self.clock.advance(9)
        self.assertFalse(self.result_of(task))
