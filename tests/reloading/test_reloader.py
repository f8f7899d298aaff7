"""The decision to restart, with a clock and a file system in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server.logged import Logged
from txgreenwsgi._reloading.reloader import POLL_SECONDS, SETTLE_SECONDS, Reloader
from txgreenwsgi._reloading.watching import scan

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND = 10**9


class ReloaderTests(SynchronousTestCase):
    """`Reloader` for files in memory."""

    def setUp(self) -> None:
        """Watch "/extra/*" from second 100 on; the worker has loaded "/a" and "/b"."""
        self.logged = Logged(self)
        self.clock = Clock()
        self.now = 100 * SECOND
        self.files: dict[str, tuple[int, int, int]] = {}
        self.restarts: list[set[str]] = []
        self.watched: set[str] = set()
        self.held: list[Deferred[Any]] | None = None
        for name in ("/a", "/b", "/extra/x"):
            self.save(name, at=10)
        self.reloader = Reloader(
            self.clock,
            self.restarts.append,
            ["/extra/*"],
            self.in_thread,
            self.watch,
            lambda: self.now,
        )
        self.reloader.start()
        self.now += SECOND
        self.reloader.loaded(1, ["/a", "/b"])
        self.clock.advance(0)

    def in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        """Answer for the file system."""
        if function is not scan:
            return succeed({"/"})
        paths, patterns = arguments
        snapshot = {
            path: signature
            for path, signature in self.files.items()
            if path in paths or f"{path.rpartition('/')[0]}/*" in patterns
        }
        if self.held is None:
            return succeed(snapshot)
        held: Deferred[Any] = Deferred()
        held.addCallback(lambda _: snapshot)
        self.held.append(held)
        return held

    def watch(self, directories: set[str]) -> None:
        """Record the directories."""
        self.watched = directories

    def save(self, path: str, at: int | None = None) -> None:
        """Save a file, now or at a second."""
        when = self.now if at is None else at * SECOND
        self.files[path] = (when, 1, len(self.files))

    def pass_time(self, seconds: float = 3.0) -> None:
        """Let time pass."""
        for _ in range(int(seconds / SETTLE_SECONDS)):
            self.now += int(SETTLE_SECONDS * SECOND)
            self.clock.advance(SETTLE_SECONDS)

    def assert_restarted(self, *expected: Sequence[str]) -> None:
        """Fail unless there were these restarts since the last call."""
        self.assertEqual(self.restarts, [set(each) for each in expected])
        self.restarts.clear()

    def test_no_change(self) -> None:
        """Without a change there is no restart, and the directories are watched."""
        self.pass_time()
        self.assert_restarted()
        self.assertEqual(self.watched, {"/"})

    def test_change(self) -> None:
        """A saved file restarts the worker once; a log line names it."""
        self.pass_time()
        self.logged.lines()
        self.save("/a")
        self.pass_time()
        self.assert_restarted(["/a"])
        self.assertIn("a changed: restarting the worker", self.logged.lines()[0])

    def test_poll(self) -> None:
        """A change is found within a second, and acted upon when it rests."""
        self.pass_time()
        self.save("/a")
        self.clock.advance(POLL_SECONDS)
        self.assert_restarted()
        self.clock.advance(SETTLE_SECONDS)
        self.assert_restarted(["/a"])

    def test_notice(self) -> None:
        """A notice of the system makes it look at once."""
        self.pass_time()
        self.save("/a")
        self.reloader.look()
        self.clock.advance(SETTLE_SECONDS)
        self.assert_restarted(["/a"])

    def test_burst(self) -> None:
        """Many files, one after the other, are one restart."""
        for _ in range(10):
            self.save("/a")
            self.save("/b")
            self.now += SECOND // 20
            self.reloader.look()
            self.clock.advance(SETTLE_SECONDS / 2)
        self.pass_time()
        self.assert_restarted(["/a", "/b"])

    def test_endless_change(self) -> None:
        """A file that changes all the time restarts the worker after some seconds."""
        for _ in range(60):
            self.save("/a")
            self.now += SECOND // 10
            self.clock.advance(SETTLE_SECONDS)
        self.assertGreater(len(self.restarts), 0)
        self.assertLess(len(self.restarts), 4)

    def test_deleted_and_renamed(self) -> None:
        """A deleted file is a change; one that an editor replaces is one change."""
        del self.files["/a"]
        self.pass_time()
        self.assert_restarted(["/a"])
        self.save("/a")
        self.pass_time()
        self.assert_restarted(["/a"])
        content = self.files.pop("/b")
        self.reloader.look()
        self.files["/b"] = (content[0], 1, 99)
        self.pass_time()
        self.assert_restarted(["/b"])

    def test_pattern(self) -> None:
        """A new file that matches a pattern is a change, and so is its end."""
        self.save("/extra/y")
        self.pass_time()
        self.assert_restarted(["/extra/y"])
        del self.files["/extra/y"]
        self.pass_time()
        self.assert_restarted(["/extra/y"])

    def test_other_files(self) -> None:
        """Files that are not watched are no change."""
        self.save("/instance/db")
        self.pass_time()
        self.assert_restarted()

    def test_change_during_start(self) -> None:
        """A file that changes after the worker has read it restarts it again."""
        self.save("/a")
        self.pass_time()
        self.assert_restarted(["/a"])
        self.save("/b")
        self.now += SECOND
        self.reloader.loaded(2, ["/a", "/b", "/new"])
        self.pass_time()
        self.assert_restarted(["/b"])

    def test_change_before_the_list(self) -> None:
        """So does a file that was not known before; an older one does not."""
        self.save("/a")
        self.pass_time()
        self.assert_restarted(["/a"])
        self.save("/old", at=50)
        self.save("/new")
        self.now += SECOND
        self.reloader.loaded(2, ["/a", "/old", "/new"])
        self.pass_time()
        self.assert_restarted(["/new"])

    def test_clock_in_the_future(self) -> None:
        """A file with a time in the future restarts the worker once, not for ever."""
        self.save("/future", at=10_000)
        for number in range(2, 5):
            self.reloader.loaded(number, ["/a", "/future"])
            self.pass_time()
        self.assert_restarted(["/future"])

    def test_new_list(self) -> None:
        """Files that the new worker does not load are watched no more."""
        self.save("/a")
        self.pass_time()
        self.reloader.loaded(2, ["/b"])
        self.pass_time()
        self.restarts.clear()
        self.save("/a")
        del self.files["/a"]
        self.pass_time()
        self.assert_restarted()

    def test_failed_start(self) -> None:
        """If the application does not start, the files of before are watched too."""
        self.save("/a")
        self.pass_time()
        self.restarts.clear()
        self.reloader.loaded(2, ["/a"], ["/modules/*"], failed=True)
        self.pass_time()
        self.save("/b")
        self.pass_time()
        self.assert_restarted(["/b"])
        self.reloader.loaded(3, ["/a"], ["/modules/*"], failed=True)
        self.pass_time()
        self.save("/modules/missing")
        self.pass_time()
        self.assert_restarted(["/modules/missing"])

    def test_late_list(self) -> None:
        """The list of a worker that has been replaced is ignored."""
        self.reloader.loaded(2, ["/a"])
        self.reloader.loaded(1, ["/late"])
        self.pass_time()
        self.save("/late")
        self.pass_time()
        self.assert_restarted()

    def test_own_changes(self) -> None:
        """Files that the application writes at each start end in no loop."""
        for number in range(2, 9):
            self.save("/a")
            self.now += SECOND
            self.reloader.loaded(number, ["/a", "/b"])
            self.pass_time()
        self.assertLess(len(self.restarts), 4)
        self.assertIn("at each start", "".join(self.logged.lines()))
        self.restarts.clear()
        self.save("/b")
        self.pass_time()
        self.assert_restarted(["/b"])

    def test_slow_scan(self) -> None:
        """A notice during a scan is followed by another one; slow ones are rare."""
        self.pass_time()
        self.held = []
        self.clock.advance(POLL_SECONDS)
        self.save("/a")
        self.reloader.look()
        self.assertEqual(len(self.held), 1)
        self.clock.advance(2)
        self.held.pop().callback(None)
        self.clock.advance(0)
        self.held.pop().callback(None)
        self.clock.advance(SETTLE_SECONDS)
        self.held.pop().callback(None)
        self.assert_restarted(["/a"])

    def test_stop(self) -> None:
        """After the end nothing is watched, and no call is left."""
        self.pass_time()
        self.reloader.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.watched, set())
        self.reloader.look()
        self.assertEqual(self.clock.getDelayedCalls(), [])
