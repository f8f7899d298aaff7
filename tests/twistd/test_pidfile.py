"""Stale pidfiles."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd import pidfile
from txgreenwsgi._twistd.pidfile import remove_stale_pidfile, started_at


class PidfileTests(SynchronousTestCase):
    """`remove_stale_pidfile`."""

    def remains(self, text: str, age: float = 0.0) -> bool:
        """Return whether a pidfile stays that was written `age` seconds ago."""
        path = Path(self.mktemp())
        path.write_text(text)
        written = time.time() - age
        os.utime(path, (written, written))
        remove_stale_pidfile(str(path))
        return path.exists()

    def test_live(self) -> None:
        """The file of a process that was running when it was written stays."""
        self.patch(pidfile, "started_at", lambda pid: time.time() - 60)
        self.assertTrue(self.remains("1"))
        self.assertTrue(self.remains("1\n", age=50))

    def test_pid_in_use_again(self) -> None:
        """The file is removed if its pid belongs to a younger process."""
        self.patch(pidfile, "started_at", lambda pid: time.time() - 60)
        self.assertFalse(self.remains("1", age=70))

    def test_started_while_it_was_written(self) -> None:
        """Within the resolution of the times, the process may be the writer."""
        self.patch(pidfile, "started_at", lambda pid: time.time() - 60)
        self.assertTrue(self.remains("1", age=60.5))

    def test_own_pid(self) -> None:
        """The file is removed if its pid is that of this process."""
        self.assertFalse(self.remains(str(os.getpid())))

    def test_empty(self) -> None:
        """A file that a power failure has emptied is removed."""
        for text in ("", "\n", "\0\0\0\0"):
            self.assertFalse(self.remains(text))

    def test_not_a_pidfile(self) -> None:
        """A file with other contents stays: the option may have a wrong path."""
        for text in ("root:x:0:0", "12 34", "-1", "1234567890123"):
            self.assertTrue(self.remains(text, age=1e6))

    def test_unused_pid(self) -> None:
        """The file of a process that has ended is left to twistd."""
        self.patch(pidfile, "started_at", lambda pid: None)
        self.assertTrue(self.remains("5", age=1e6))

    def test_missing(self) -> None:
        """A path without a file is not an error."""
        remove_stale_pidfile(self.mktemp())

    def test_started_at(self) -> None:
        """On Linux the start of a process is known, elsewhere of none."""
        started = started_at(os.getpid())
        if os.path.exists("/proc/self/stat"):
            assert started is not None
            self.assertLess(started, time.time() + 1)
            parent = started_at(os.getppid())
            assert parent is not None
            self.assertLessEqual(parent, started + 1)
        else:
            self.assertIsNone(started)
        self.assertIsNone(started_at(999999999))
