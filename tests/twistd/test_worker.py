"""The options of a worker."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server.adopted import expect_from_master
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._twistd.master_process import MAX_WORKERS
from txgreenwsgi._twistd.worker import options_for
from txgreenwsgi._workers.boot import Boot
from txgreenwsgi._workers.page import RECORDS

FIRST, SECOND = "tcp:8001", "tcp:8002"


class RecordsTests(SynchronousTestCase):
    """The shared page."""

    def test_number(self) -> None:
        """It has records for three workers in each slot, as during a reload."""
        self.assertGreater(RECORDS, 3 * MAX_WORKERS)


class OptionsTests(SynchronousTestCase):
    """`options_for`."""

    def boot(self, *arguments: str, listen: tuple[str, ...], directory: str) -> Boot:
        """Return a start message."""
        self.addCleanup(expect_from_master, ())
        return Boot(
            "package.module:name",
            arguments=["--app=package:app", *arguments],
            listen=list(listen),
            directory=directory,
        )

    def test_changed_listen(self) -> None:
        """Endpoints other than those of the master, or in another order, are errors.

        The master hands sockets over by position.
        """
        for own, changes in [
            ([FIRST], f"'{SECOND}' is missing"),
            ([FIRST, SECOND, "tcp:8003"], "'tcp:8003' is new"),
            ([FIRST, "tcp:8003"], f"'tcp:8003' is new, '{SECOND}' is missing"),
            ([SECOND, FIRST], "in order"),
        ]:
            arguments = [f"--listen={text}" for text in own]
            boot = self.boot(*arguments, listen=(FIRST, SECOND), directory=os.getcwd())
            error = self.assertRaises(StartError, options_for, boot)
            self.assertEqual(
                str(error),
                f"--listen has changed ({changes}): a reload keeps the sockets of the "
                "master; send it SIGUSR2, or restart the server",
            )

    def test_removed_directory(self) -> None:
        """The current directory may have been removed, and made again, meanwhile."""
        self.addCleanup(os.chdir, os.getcwd())
        with tempfile.TemporaryDirectory(prefix="worker-") as parent:
            path = os.path.realpath(f"{parent}/site")
            os.mkdir(path)
            os.chdir(path)
            os.rmdir(path)
            boot = self.boot(f"--listen={FIRST}", listen=(FIRST,), directory=path)
            self.assertEqual(options_for(boot).command.app, "package:app")
            self.assertRaises(FileNotFoundError, os.getcwd)
            os.mkdir(path)
            options_for(boot)
            self.assertEqual(os.getcwd(), path)
