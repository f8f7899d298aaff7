"""Tests of the gate for calls that hold the GIL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._threads.gate import YOUNG_ELAPSED_SECONDS, YOUNG_SECONDS, Gate

if TYPE_CHECKING:
    from txgreenwsgi._threads.calls import ThreadCall


class FakeCall:
    """A call, of which the gate knows only the route."""

    def __init__(self, route: str) -> None:
        self.route = route


def call(route: str) -> ThreadCall[object]:
    """Return a call of `route`."""
    made: Any = FakeCall(route)
    return made  # type: ignore[no-any-return]


class GateTests(SynchronousTestCase):
    """Gate."""

    def setUp(self) -> None:
        """Make a gate that knows two routes."""
        self.gate = Gate()
        for _ in range(20):
            self.gate.note("loop", holds_gil=True)
            self.gate.note("hash", holds_gil=False)

    def test_calls_without_the_gil(self) -> None:
        """Calls that release the GIL, and unknown ones, are admitted at once."""
        for route in ("hash", "unknown") * 50:
            self.assertTrue(self.gate.admit(call(route), 0.0))
        self.assertIsNone(self.gate.release(0.0))

    def test_one_at_a_time(self) -> None:
        """Of the calls that hold the GIL, one runs; the others wait in order."""
        first, second, third = call("loop"), call("loop"), call("loop")
        self.assertEqual(
            [self.gate.admit(each, 0.0) for each in (first, second, third)],
            [True, False, False],
        )
        self.assertIsNone(self.gate.release(0.1))
        self.gate.ended(first)
        self.assertIs(self.gate.release(0.1), second)
        self.assertIsNone(self.gate.release(0.1))
        self.gate.ended(second)
        self.assertIs(self.gate.release(0.1), third)

    def test_long_call(self) -> None:
        """A call that has run for long no longer keeps the others out."""
        first, second = call("loop"), call("loop")
        self.gate.admit(first, 10.0)
        self.gate.admit(second, 10.0)
        self.assertIsNone(self.gate.release(10.0 + YOUNG_ELAPSED_SECONDS / 2))
        self.assertIs(self.gate.release(10.0 + YOUNG_ELAPSED_SECONDS * 1.1), second)
        self.gate.ended(first)
        self.gate.ended(second)

    def test_call_that_computes(self) -> None:
        """The gate opens sooner after a call that has used much CPU time."""
        first, second = call("loop"), call("loop")
        self.gate.admit(first, 10.0)
        self.gate.admit(second, 10.0)
        self.gate.used(first, YOUNG_SECONDS * 0.6)
        self.gate.used(second, YOUNG_SECONDS * 2)  # not begun
        self.assertIsNone(self.gate.release(10.1))
        self.gate.used(first, YOUNG_SECONDS * 0.6)
        self.assertIs(self.gate.release(10.1), second)

    def test_calls_of_one_instant(self) -> None:
        """Of many calls a minority that holds the GIL does not close the gate."""
        for _ in range(50):
            self.gate.note("image", 0.3)
        self.assertFalse(self.gate.may_hold("image"))
        self.assertTrue(self.gate.may_hold("loop"))
        self.assertTrue(self.gate.may_hold("never seen"))
        self.assertTrue(self.gate.admit(call("image"), 0.0))
        self.assertTrue(self.gate.admit(call("image"), 0.0))

    def test_rare_samples(self) -> None:
        """Only a route that surely releases the GIL may be sampled rarely."""
        self.assertTrue(self.gate.passes("hash"))
        self.gate.note("hash", 1.0)
        self.assertTrue(self.gate.admit(call("hash"), 0.0))
        for route in ("loop", "unknown"):
            self.assertFalse(self.gate.passes(route))

    def test_route_that_changes(self) -> None:
        """A route whose calls no longer hold the GIL passes the gate."""
        for _ in range(20):
            self.gate.note("loop", holds_gil=False)
        for _ in range(5):
            self.assertTrue(self.gate.admit(call("loop"), 0.0))

    def test_many_routes(self) -> None:
        """The number of known routes is bounded: the oldest is forgotten."""
        for number in range(5000):
            for _ in range(3):
                self.gate.note(f"route {number}", holds_gil=True)
        self.gate.admit(call("route 4999"), 0.0)
        self.assertFalse(self.gate.admit(call("route 4998"), 0.0))
        self.assertTrue(self.gate.admit(call("loop"), 0.0))
