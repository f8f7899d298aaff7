"""The place of a control socket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from txgreenwsgi._control import paths
from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._control.paths import (
    check_directory,
    default_path,
    found_sockets,
    remove_leftovers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: A process id above the maximum of Linux.
NO_PID = 999_999_999


class PathCase(SynchronousTestCase):
    """Tests with directories of their own in the places of the defaults."""

    def setUp(self) -> None:
        """Make the directories."""
        self.runtime = str(short_folder(self))
        self.temporary = str(short_folder(self))
        environ = {**os.environ, "XDG_RUNTIME_DIR": self.runtime}
        self.patch(os, "environ", environ)
        self.environ = environ
        self.patch(
            paths,
            "FALLBACKS",
            ("/no/such", self.temporary),
        )

    def refusal(self, function: Callable[..., object], *arguments: object) -> str:
        """Return the message of a refused path."""
        return str(self.assertRaises(ControlError, function, *arguments))


class DefaultTests(PathCase):
    """`default_path` and `found_sockets`."""

    def test_runtime_directory(self) -> None:
        """The runtime directory of the user is the first choice."""
        path = default_path()
        self.assertEqual(path, f"{self.runtime}/txgreenwsgi/{os.getpid()}.sock")
        mode = os.stat(os.path.dirname(path)).st_mode & 0o777
        self.assertEqual(mode, 0o700)
        self.assertEqual(default_path(), path)

    def test_temporary_directory(self) -> None:
        """Without a runtime directory, the name of the directory has the user's id."""
        for value in ("", "relative", "/no/such"):
            self.environ["XDG_RUNTIME_DIR"] = value
            self.assertEqual(
                default_path(),
                f"{self.temporary}/txgreenwsgi-{os.geteuid()}/{os.getpid()}.sock",
            )

    def test_runtime_directory_of_another_user(self) -> None:
        """After su, the variable names the directory of another user."""
        user = os.geteuid()
        self.patch(os, "geteuid", lambda: user + 1)
        os.mkdir(f"{self.temporary}/txgreenwsgi-{user + 1}")
        message = self.refusal(default_path)
        self.assertNotIn(self.runtime, message)
        self.assertIn("is not a directory of this user", message)

    def test_open_to_others(self) -> None:
        """A directory that others may enter is not used."""
        directory = f"{self.runtime}/txgreenwsgi"
        os.mkdir(directory)
        os.chmod(directory, 0o755)
        self.assertTrue(default_path().startswith(self.temporary))

    def test_link(self) -> None:
        """A link is not followed: another user may have made it."""
        os.symlink(short_folder(self), f"{self.runtime}/txgreenwsgi")
        self.assertTrue(default_path().startswith(self.temporary))

    def test_nowhere(self) -> None:
        """The message names the directories and the options."""
        self.environ["XDG_RUNTIME_DIR"] = ""
        self.patch(paths, "FALLBACKS", ("/no/such",))
        message = self.refusal(default_path)
        self.assertIn("/no/such/txgreenwsgi-", message)
        self.assertIn("give --control PATH, or --control none", message)

    def test_found(self) -> None:
        """Sockets in all default directories are found, by their names."""
        self.assertEqual(list(found_sockets()), [])
        first = default_path()
        self.environ["XDG_RUNTIME_DIR"] = ""
        second = default_path()
        self.environ["XDG_RUNTIME_DIR"] = self.runtime
        for path in (first, second, first + ".lock", os.path.dirname(first) + "/x"):
            open(path, "w").close()
        self.assertEqual(list(found_sockets()), [first, second])
        os.chmod(os.path.dirname(first), 0o770)
        self.assertEqual(list(found_sockets()), [second])

    def test_leftovers(self) -> None:
        """Sockets of processes that have ended are removed."""
        path = default_path()
        directory = os.path.dirname(path)
        for name in (f"{os.getpid()}.sock", "1.sock", f"{NO_PID}.sock", "other"):
            open(f"{directory}/{name}", "w").close()
        remove_leftovers(path)
        self.assertEqual(
            sorted(os.listdir(directory)),
            sorted([f"{os.getpid()}.sock", "1.sock", "other"]),
        )


class DirectoryTests(PathCase):
    """`check_directory`."""

    def test_own(self) -> None:
        """A directory of this user or of root is accepted if others may not write."""
        directory = self.runtime
        for mode in (0o700, 0o755, 0o1777):
            os.chmod(directory, mode)
            check_directory(f"{directory}/a.sock")
        check_directory("/a.sock")

    def test_others_may_write(self) -> None:
        """Others could replace the socket."""
        for mode in (0o770, 0o702):
            os.chmod(self.runtime, mode)
            message = self.refusal(check_directory, f"{self.runtime}/a.sock")
            self.assertIn("other users may write to the directory", message)
            self.assertIn(f"chmod go-w {self.runtime}", message)

    def test_another_user(self) -> None:
        """The owner of the directory could replace the socket."""
        user = os.stat(self.runtime).st_uid
        status = os.stat_result((0o40700, 0, 0, 0, user + 1, 0, 0, 0, 0, 0))
        self.patch(os, "stat", lambda path: status)
        self.patch(os, "geteuid", lambda: user)
        message = self.refusal(check_directory, f"{self.runtime}/a.sock")
        self.assertIn(f"belongs to the user {user + 1}: give", message)

    def test_missing(self) -> None:
        """A missing directory is named."""
        message = self.refusal(check_directory, "/no/such/a.sock")
        self.assertIn("'/no/such/a.sock' cannot be used ([Errno 2]", message)
        open(f"{self.runtime}/file", "w").close()
        message = self.refusal(check_directory, f"{self.runtime}/file/a.sock")
        self.assertIn("is not a directory", message)
