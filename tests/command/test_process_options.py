"""Checks of the values of twistd's options."""

from __future__ import annotations

import os

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._command.process_options import PROCESS, check_process_options
from txgreenwsgi._twistd.hints import PROCESS_OPTIONS


class CheckTests(SynchronousTestCase):
    """`check_process_options`."""

    def refusal(self, **given: str) -> str:
        """Return the message."""
        named = {name.replace("_", "-"): value for name, value in given.items()}
        return str(self.assertRaises(UsageError, check_process_options, named))

    def test_users(self) -> None:
        """Users and groups are names or numbers."""
        check_process_options({"uid": "0", "gid": "4711"})
        self.assertEqual(
            self.refusal(uid="no such"),
            "--uid 'no such' is not a user of this machine: give a name or a number",
        )
        self.assertIn("is not a group of this machine", self.refusal(gid="no such"))

    def test_umask(self) -> None:
        """The mask is an octal number."""
        for value in ("0", "27", "0027", "777"):
            check_process_options({"umask": value})
        for value in ("", "8", "x", "1777", "-1"):
            self.assertIn("give an octal number such as 027", self.refusal(umask=value))

    def test_directories(self) -> None:
        """Directories exist."""
        check_process_options({"rundir": ".", "chroot": "/"})
        self.assertEqual(
            self.refusal(rundir="/no/such"),
            "--rundir '/no/such' is not a directory: give an existing one",
        )
        self.assertIn("is not a directory", self.refusal(chroot="/no/such"))

    def test_files(self) -> None:
        """Files are in existing directories."""
        os.mkdir(path := self.mktemp())
        check_process_options({"log-file": "-"})
        for name in ("log_file", "pidfile", "profile"):
            check_process_options({name.replace("_", "-"): f"{path}/x"})
            self.assertIn("is not a file", self.refusal(**{name: path}))
            self.assertEqual(
                self.refusal(**{name: "/no/such"}),
                f"--{name.replace('_', '-')} '/no/such' cannot be written: make the "
                "directory /no, or give another",
            )

    def test_not_writable(self) -> None:
        """Files can be written."""
        self.patch(os, "access", lambda path, mode: False)
        self.assertIn(
            "cannot be written: give a path that this user may",
            self.refusal(pidfile="x"),
        )

    def test_new_root(self) -> None:
        """Paths in another root directory are not checked."""
        given = {"chroot": "/", "rundir": "/no/such", "pidfile": "/no/such"}
        check_process_options(given)

    def test_profiler(self) -> None:
        """The profiler is one of Python's."""
        check_process_options({"profiler": "cProfile"})
        self.assertIn("give cprofile or profile", self.refusal(profiler="x"))

    def test_others(self) -> None:
        """Other options are left to twistd."""
        check_process_options({"reactor": "no such", "strict": ""})

    def test_names(self) -> None:
        """The options of the help are those that twistd gets."""
        known = {option.rstrip("=") for option in PROCESS.longOpt}
        self.assertEqual(known - {"help", "version"}, set(PROCESS_OPTIONS))
