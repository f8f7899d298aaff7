"""The temporary folders and the probes on which other tests depend."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .folders import LONGEST_PARENT, make_short_folder, short_folder
from .stdlib.presence import has_tests


class FolderTests(SynchronousTestCase):
    """Short temporary folders."""

    def make(self, *, others: bool = False) -> Path:
        """Return a folder that the test removes."""
        folder = make_short_folder(others=others)
        self.addCleanup(shutil.rmtree, folder)
        return Path(folder)

    def test_long_tmpdir(self) -> None:
        """If TMPDIR has a long path, the folder is elsewhere, and a socket fits."""
        long = Path(self.mktemp().ljust(LONGEST_PARENT + 1, "x")).absolute()
        long.mkdir(parents=True)
        self.patch(tempfile, "tempdir", str(long))
        path = self.make() / "socket"
        self.assertFalse(path.is_relative_to(long))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))

    def test_private_tmpdir(self) -> None:
        """If TMPDIR is private, a folder for another user is elsewhere."""
        private = short_folder(self)
        self.patch(tempfile, "tempdir", str(private))
        self.assertEqual(self.make().parent, private)
        self.assertNotEqual(self.make(others=True).parent, private)

    def test_cleanup(self) -> None:
        """A test's folder is removed at its end, with its content."""
        test = FolderTests()
        folder = short_folder(test)
        (folder / "file").touch()
        test.doCleanups()
        self.assertFalse(folder.exists())


class PresenceTests(SynchronousTestCase):
    """CPython's own tests are looked for as files."""

    def test_modules_and_packages(self) -> None:
        """Modules and packages below the standard library are found."""
        self.assertTrue(has_tests("json.tool"))
        self.assertTrue(has_tests("email.mime"))
        self.assertFalse(has_tests("test.test_no_such_thing"))
