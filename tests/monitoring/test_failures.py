"""Recent failures."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.monitoring.failures import (
    MOST_FAILURES,
    FailureLog,
    failures,
    recent_failures,
)


def raised(error: BaseException) -> BaseException:
    """Return an exception that was raised here."""
    try:
        raise error
    except BaseException as caught:
        return caught


def raised_elsewhere(error: BaseException) -> BaseException:
    """Return an exception that was raised at another line."""
    try:
        raise error
    except BaseException as caught:
        return caught


class FailureLogTests(SynchronousTestCase):
    """`FailureLog`."""

    def setUp(self) -> None:
        """Make a log."""
        self.log = FailureLog()

    def test_entry(self) -> None:
        """An entry has the exception, its line, the request and the traceback."""
        self.log.add(raised(KeyError("x")), "1f-1", "GET", "/a")
        (entry,) = self.log.entries()
        self.assertEqual(entry.error, "KeyError: 'x'")
        self.assertRegex(entry.place, r"test_failures\.py:\d+ in raised\Z")
        self.assertEqual(
            (entry.count, entry.request_id, entry.method, entry.path),
            (1, "1f-1", "GET", "/a"),
        )
        self.assertIn("raise error", entry.traceback)
        self.assertTrue(entry.traceback.endswith("KeyError: 'x'\n"))
        self.assertEqual(entry.first, entry.last)

    def test_equal_failures(self) -> None:
        """Equal failures are one entry; other lines and types are others."""
        for number in range(1000):
            self.log.add(raised(ValueError(number)), f"1f-{number}", "GET", "/")
        self.log.add(raised(KeyError(1)), "2f-1", "GET", "/")
        self.log.add(raised_elsewhere(ValueError(2)), "2f-2", "GET", "/")
        self.assertEqual(
            [(entry.error, entry.count) for entry in self.log.entries()],
            [("ValueError: 2", 1), ("KeyError: 1", 1), ("ValueError: 999", 1000)],
        )
        self.assertEqual(self.log.entries()[-1].request_id, "1f-999")

    def test_same_request(self) -> None:
        """A failure that a framework has reported, and raised again, counts once."""
        error = raised(ValueError(1))
        for _ in range(2):
            self.log.add(error, "1f-1", "GET", "/")
        self.assertEqual([entry.count for entry in self.log.entries()], [1])

    def test_most(self) -> None:
        """The entries with the latest failures are kept."""
        for number in range(3 * MOST_FAILURES):
            self.log.add_text(f"timeout {number}", "stack", "1f-1", "GET", "/")
            self.log.add_text("timeout 0", "stack", f"1f-{number}", "GET", "/")
        entries = self.log.entries()
        self.assertEqual(len(entries), MOST_FAILURES)
        self.assertEqual(entries[0].error, "timeout 0")
        self.assertEqual(entries[1].error, f"timeout {3 * MOST_FAILURES - 1}")

    def test_changes(self) -> None:
        """A reader gets the entries that have changed since its last question."""
        self.log.add_text("a", "", "1f-1", "GET", "/")
        self.log.add_text("b", "", "1f-2", "GET", "/")
        changed, change = self.log.changed_after(0)
        self.assertEqual([entry.error for entry in changed], ["b", "a"])
        self.assertEqual(self.log.changed_after(change), ([], change))
        self.log.add_text("a", "", "1f-3", "GET", "/")
        changed, _ = self.log.changed_after(change)
        self.assertEqual([(each.error, each.count) for each in changed], [("a", 2)])

    def test_no_reference(self) -> None:
        """The log keeps neither the exception nor its frames."""

        class Failed(Exception):
            pass

        error = raised(Failed())
        gone = weakref.ref(error)
        self.log.add(error, "1f-1", "GET", "/")
        del error
        gc.collect()
        self.assertIsNone(gone())
        self.assertTrue(self.log.entries()[0].error.endswith("Failed"))

    def test_hostile_exceptions(self) -> None:
        """Exceptions whose text fails, is long or recurses are entries too."""

        class NoText(Exception):
            def __str__(self) -> str:
                raise ZeroDivisionError

        def recurse() -> None:
            recurse()

        self.log.add(raised(NoText()), "1f-1", "GET", "/")
        self.log.add(raised(ValueError("x" * 10**6)), "1f-2", "GET", "/")
        try:
            recurse()
        except RecursionError as error:
            self.log.add(error, "1f-3", "GET", "/")
        recursion, long, no_text = self.log.entries()
        self.assertIn("no text", no_text.error)
        self.assertLess(len(long.error), 400)
        self.assertLess(len(long.traceback), 13000)
        self.assertIn("characters left out", long.traceback)
        self.assertIn("RecursionError", recursion.error)

    def test_without_traceback(self) -> None:
        """An exception that was never raised has no line."""
        self.log.add(ValueError("x"), "1f-1", "GET", "/")
        self.assertEqual(self.log.entries()[0].place, "")

    def test_identities(self) -> None:
        """Entries of two logs have different identities."""
        other = FailureLog()
        for log in (self.log, other):
            log.add_text("a", "", "1f-1", "GET", "/")
        identities = {log.entries()[0].failure_id for log in (self.log, other)}
        self.assertEqual(len(identities), 2)

    def test_of_the_process(self) -> None:
        """`recent_failures` returns those of the process."""
        self.addCleanup(failures.reset)
        failures.reset()
        failures.add_text("a", "b", "1f-1", "GET", "/")
        self.assertEqual([each.error for each in recent_failures()], ["a"])
        failures.reset()
        self.assertEqual(recent_failures(), [])
