"""Stale pidfiles."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd import pidfile
from txgreenwsgi._twistd.pidfile import (
    is_ancestor,
    is_server,
    remove_stale_pidfile,
    started_at,
)


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

    def test_changed_clock(self) -> None:
        """A younger process stays the writer if it is a server with this pidfile.

        The wall clock was set forward. The shell in front of this process is not one.
        """
        self.patch(pidfile, "started_at", lambda pid: time.time() - 60)
        self.patch(pidfile, "is_server", lambda pid, path: True)
        self.assertTrue(self.remains("999999999", age=70))
        self.assertFalse(self.remains(str(os.getppid()), age=70))

    def test_is_server(self) -> None:
        """The command line has the name of twistd and of the pidfile."""
        for command, path, expected in (
            (("twistd", "--pidfile", "/run/web.pid"), "web.pid", True),
            (("twistd", "--pidfile", "/run/api.pid"), "/run/web.pid", False),
            (("twistd", "-n"), "/srv/twistd.pid", True),
            (("nginx", "-c", "web.pid"), "/run/web.pid", False),
        ):
            script = "print('started', flush=True); input()"
            child = subprocess.Popen(
                [sys.executable, "-c", script, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.addCleanup(child.communicate, b"\n")
            assert child.stdout is not None
            child.stdout.readline()
            self.assertEqual(is_server(child.pid, path), expected)

    def test_zombie(self) -> None:
        """The file is removed if its process has ended and was not waited for."""
        child = subprocess.Popen([sys.executable, "-c", ""])
        self.addCleanup(child.wait)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        self.assertFalse(self.remains(str(child.pid)))

    def test_is_ancestor(self) -> None:
        """Parents and their parents are ancestors, this process is not."""
        self.assertTrue(is_ancestor(os.getppid()))
        self.assertTrue(is_ancestor(1))
        self.assertFalse(is_ancestor(os.getpid()))
        self.assertFalse(is_ancestor(999999999))

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
