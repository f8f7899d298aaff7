"""A dedicated thread that makes the calls of one object, here for blocking callers.

Calls from tasks are tested in `tests/integration/test_sqlite3.py`.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._parking.dedicated_thread import DedicatedThread


class DedicatedThreadTests(SynchronousTestCase):
    """Calls from outside tasks."""

    def setUp(self) -> None:
        """Start a thread that records its interruptions."""
        self.interruptions: list[None] = []
        self.thread = DedicatedThread(lambda: self.interruptions.append(None))
        self.addCleanup(self.thread.end)
        self.events: list[Any] = []

    def hold(self) -> threading.Event:
        """Keep the thread busy until the returned event is set."""
        begun, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            go_on.wait(20)

        self.thread.call_later(wait)
        begun.wait(20)
        return go_on

    def test_results_and_errors(self) -> None:
        """`call` returns the result of the function, or raises its exception."""
        self.assertEqual(self.thread.call(divmod, 7, 2), (3, 1))
        with self.assertRaises(ZeroDivisionError):
            self.thread.call(divmod, 7, 0)
        self.assertNotEqual(
            self.thread.call(threading.get_ident), threading.get_ident()
        )

    def test_one_thread_in_order(self) -> None:
        """All calls are made in one thread, in order."""
        go_on = self.hold()
        for number in range(5):
            self.thread.call_later(self.events.append, number)
        self.assertFalse(self.thread.idle)
        go_on.set()
        ident = self.thread.call(threading.get_ident)
        self.assertEqual(self.events, [0, 1, 2, 3, 4])
        self.assertEqual(self.thread.call(threading.get_ident), ident)

    def test_is_current(self) -> None:
        """`is_current` is True in the thread only."""
        self.assertFalse(self.thread.is_current)
        self.assertTrue(self.thread.call(lambda: self.thread.is_current))

    def test_context(self) -> None:
        """A call gets a copy of the caller's contextvars."""
        user = contextvars.ContextVar("user", default="")
        user.set("ann")

        def change() -> str:
            before = user.get()
            user.set("bob")
            return before

        self.assertEqual(self.thread.call(change), "ann")
        self.assertEqual(user.get(), "ann")

    def test_after_its_end(self) -> None:
        """Calls queued before or after `end` are made."""
        go_on = self.hold()
        self.thread.call_later(self.events.append, "before")
        self.thread.end()
        go_on.set()
        self.assertEqual(self.thread.call(lambda: "after"), "after")
        self.assertEqual(self.events, ["before"])
        # Once the thread has ended, calls are made in the caller's thread.
        while not self.thread.has_ended:
            self.thread.call(int)
        self.assertEqual(self.thread.call(threading.get_ident), threading.get_ident())

    def test_nothing_is_kept(self) -> None:
        """An idle thread keeps no reference to the arguments of its calls."""

        class Argument:
            """Records its deletion."""

            def __init__(self, events: list[Any]) -> None:
                self.events = events

            def __del__(self) -> None:
                self.events.append("deleted")

        self.thread.call(lambda argument: None, Argument(self.events))
        self.thread.call(int)
        self.assertEqual(self.events, ["deleted"])
