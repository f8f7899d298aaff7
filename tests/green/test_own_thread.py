"""One thread that makes an object's calls, in order; here for callers that block.

Tasks wait for it in `tests/integration/test_sqlite3.py`.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.green._own_thread import OwnThread


class OwnThreadTests(SynchronousTestCase):
    """Calls from outside tasks."""

    def setUp(self) -> None:
        """A thread, and how often it was interrupted."""
        self.interruptions: list[None] = []
        self.thread = OwnThread(lambda: self.interruptions.append(None))
        self.addCleanup(self.thread.end)
        self.told: list[Any] = []

    def hold(self) -> threading.Event:
        """Keep the thread busy until the event is set."""
        begun, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            go_on.wait(20)

        self.thread.leave(wait)
        begun.wait(20)
        return go_on

    def test_results_and_errors(self) -> None:
        """A call returns what it returns there, and raises what it raises."""
        self.assertEqual(self.thread.call(divmod, 7, 2), (3, 1))
        with self.assertRaises(ZeroDivisionError):
            self.thread.call(divmod, 7, 0)
        self.assertNotEqual(
            self.thread.call(threading.get_ident), threading.get_ident()
        )

    def test_one_thread_in_order(self) -> None:
        """All calls are made in the same thread, in the order they came."""
        go_on = self.hold()
        for number in range(5):
            self.thread.leave(self.told.append, number)
        self.assertFalse(self.thread.idle)
        go_on.set()
        ident = self.thread.call(threading.get_ident)
        self.assertEqual(self.told, [0, 1, 2, 3, 4])
        self.assertEqual(self.thread.call(threading.get_ident), ident)

    def test_where_it_is(self) -> None:
        """A callback can tell that it is in the thread."""
        self.assertFalse(self.thread.is_here)
        self.assertTrue(self.thread.call(lambda: self.thread.is_here))

    def test_context(self) -> None:
        """A call sees its caller's contextvars; what it changes is not seen here."""
        who = contextvars.ContextVar("who", default="nobody")
        who.set("ann")

        def change() -> str:
            before = who.get()
            who.set("bob")
            return before

        self.assertEqual(self.thread.call(change), "ann")
        self.assertEqual(who.get(), "ann")

    def test_after_its_end(self) -> None:
        """What was asked before the end, or too late, is made all the same."""
        go_on = self.hold()
        self.thread.leave(self.told.append, "before")
        self.thread.end()
        go_on.set()
        self.assertEqual(self.thread.call(lambda: "after"), "after")
        self.assertEqual(self.told, ["before"])
        # By now there is no thread: it is made here.
        while not self.thread._ended:
            self.thread.call(int)
        self.assertEqual(self.thread.call(threading.get_ident), threading.get_ident())

    def test_nothing_is_kept(self) -> None:
        """A thread that waits for calls holds nothing of those it has made."""

        class Thing:
            """Tells when it is gone."""

            def __init__(self, told: list[Any]) -> None:
                self.told = told

            def __del__(self) -> None:
                self.told.append("gone")

        self.thread.call(lambda thing: None, Thing(self.told))
        self.thread.call(int)
        self.assertEqual(self.told, ["gone"])
