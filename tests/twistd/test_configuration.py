"""Options from the environment and from a file, `--print-config`, `--check-config`."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.logger import globalLogPublisher
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import StartError, _native
from txgreenwsgi._twistd.check_config import check_start
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._twistd.service import makeService

if TYPE_CHECKING:
    from twisted.logger import ILogObserver


class ConfigurationTestCase(SynchronousTestCase):
    """Tests with an environment and a file of their own."""

    def setUp(self) -> None:
        """Start with an empty environment."""
        self.environ: dict[str, str] = {}
        self.patch(os, "environ", self.environ)
        self.path = Path(self.mktemp())

    def parsed(self, *arguments: str, text: str = "", **parent: Any) -> Options:
        """Return the options for a command line, with `text` in the file."""
        options = Options()
        if parent:
            options.parent = ServerOptions()
            options.parent.update(parent)
        if text:
            self.path.write_text(text)
            arguments = (f"--config={self.path}", *arguments)
        options.parseOptions(arguments)
        return options


class SourceTests(ConfigurationTestCase):
    """The sources of the options."""

    def test_order(self) -> None:
        """The command line is stronger than the environment, that than the file."""
        self.environ["TXGREENWSGI_KEEP_ALIVE"] = "6"
        self.environ["TXGREENWSGI_THREADS"] = "6"
        options = self.parsed(
            "--threads=7", text="keep_alive = 5\nthreads = 5\nmax_headers = 5"
        )
        settings = options.settings
        self.assertEqual(
            (settings.threads, settings.keep_alive, settings.max_headers), (7, 6.0, 5)
        )
        self.assertEqual(options["threads"], 7)
        self.assertEqual(options.command.config, str(self.path))

    def test_flags(self) -> None:
        """--no-NAME switches a flag off that the environment or the file gives."""
        text = "strict = true\nbuffer_input = true"
        self.environ["TXGREENWSGI_DISPLAY_TRACEBACKS"] = "true"
        settings = self.parsed(
            "--no-strict", "--no-display-tracebacks", text=text
        ).settings
        self.assertFalse(settings.strict)
        self.assertFalse(settings.display_tracebacks)
        self.assertTrue(settings.buffer_input)
        self.assertTrue(self.parsed("--no-strict", "--strict").settings.strict)
        self.assertRaises(UsageError, self.parsed, "--no-check")

    def test_errors(self) -> None:
        """An error of a file or a variable is an error of usage."""
        self.environ["PORT"] = "x"
        error = self.assertRaises(UsageError, self.parsed)
        self.assertIn("PORT 'x' is not a port", str(error))
        del self.environ["PORT"]
        for text, message in {
            "keepalive = 5": "keepalive is not an option: did you mean keep_alive?",
            "keep-alive = 5": "keep-alive is not an option: did you mean keep_alive?",
            "KEEP-ALIVE = 5": "KEEP-ALIVE is not an option: did you mean keep_alive?",
            "port = 80": "port is not an option: use --listen",
            "xyzzy = 1": "xyzzy is not an option: ",
        }.items():
            refused: Any = self.parsed
            error = self.assertRaises(UsageError, refused, text=text)
            self.assertIn(f"{self.path}, line 1: {message}", str(error))

    def test_conditions(self) -> None:
        """Files and variables are checked under the conditions of the process."""
        self.environ["TXGREENWSGI_ACCESS_LOG"] = "-"
        refused: Any = self.parsed
        error = self.assertRaises(UsageError, refused, nodaemon=0)
        self.assertIn("TXGREENWSGI_ACCESS_LOG '-' is not possible", str(error))
        self.environ.clear()
        text = "chdir = '/no/such'"
        options = self.parsed(text=text, rundir="/srv")
        self.assertEqual(options.command.chdir, "/no/such")
        self.assertRaises(UsageError, refused, text=text)

    def test_misspelled_variable(self) -> None:
        """A variable that looks like a misspelled option is reported in the log."""
        self.environ["TXGREENWSGI_KEEPALIVE"] = "5"
        events: list[Any] = []
        observer = cast("ILogObserver", events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        makeService(self.parsed())
        [warning] = [event["problem"] for event in events if "problem" in event]
        self.assertIn("did you mean TXGREENWSGI_KEEP_ALIVE?", warning)


class PrintConfigTests(ConfigurationTestCase):
    """`--print-config`."""

    def printed(self, *arguments: str, **more: Any) -> str:
        """Return the output for a command line, which exits with status 0."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        exiting: Any = self.parsed
        error = self.assertRaises(
            SystemExit, exiting, "--print-config", *arguments, **more
        )
        self.assertEqual(error.code, 0)
        return output.getvalue()

    def test_origins(self) -> None:
        """Each value has its origin."""
        self.environ["TXGREENWSGI_THREADS"] = "6"
        text = self.printed("-l", "a.log", "--strict", text="keep_alive = 5\n")
        for line in (
            "threads = 6  # TXGREENWSGI_THREADS\n",
            "strict = true  # --strict\n",
            f"keep_alive = 5.0  # {self.path}, line 1\n",
            f'access_log = "{os.getcwd()}/a.log"  # -l\n',
            'gc = "freeze"  # default\n',
        ):
            self.assertIn(line, text)

    def test_read_again(self) -> None:
        """The output is a file with the same configuration."""
        first = self.printed("--strict", "--listen=unix:a.sock", "--patch=time")
        again = self.printed(text=first)
        self.assertEqual(
            [line.partition("  #")[0] for line in again.splitlines()],
            [line.partition("  #")[0] for line in first.splitlines()],
        )

    def test_rundir(self) -> None:
        """Relative paths are relative to the directory that twistd changes to."""
        text = self.printed("-l", "a.log", rundir="/srv")
        self.assertIn('access_log = "/srv/a.log"', text)
        text = self.printed("-l", "a.log", chroot="/srv", rundir=".")
        self.assertIn('access_log = "/a.log"', text)

    def test_pidfile(self) -> None:
        """The pidfile of a server is left alone."""
        pidfile = Path(self.mktemp())
        pidfile.write_text(str(os.getpid()))
        self.printed(pidfile=str(pidfile), nodaemon=1)
        self.assertTrue(pidfile.exists())


class CheckConfigTests(ConfigurationTestCase):
    """`--check-config`."""

    def test_beside_a_server(self) -> None:
        """The process stays in the foreground, and looks at no pidfile."""
        for option in ("--check-config", "--check"):
            options = self.parsed(option, nodaemon=0, pidfile="twistd.pid")
            assert options.parent is not None
            self.assertTrue(options.parent["nodaemon"])
            self.assertEqual(options.parent["pidfile"], "")

    def test_valid(self) -> None:
        """The application is imported, and the status is 0.

        The report says whether the server is compiled.
        """
        self.environ["TXGREENWSGI_KEEPALIVE"] = "5"
        calls: list[str] = []
        options = self.parsed("--app=a:b", "--listen=tcp:1")
        text, status = check_start(lambda: calls.append("import"), options)
        self.assertEqual((calls, status), (["import"], 0))
        self.assertRegex(
            text,
            r"\Awarning: TXGREENWSGI_KEEPALIVE is .*\n"
            rf"fast path: {re.escape(_native.description())}\nvalid: a:b on tcp:1\n\Z",
        )

    def test_access_log(self) -> None:
        """A log that cannot be opened is an error; one that can be is not created."""
        path = Path(self.mktemp())
        options = self.parsed("--access-log", str(path))
        check_start(lambda: None, options)
        self.assertFalse(path.exists())
        options = self.parsed("--access-log", "/no/such/file")
        error = self.assertRaises(StartError, check_start, lambda: None, options)
        self.assertIn("the access log cannot be opened", str(error))

    def test_import_that_takes_too_long(self) -> None:
        """The process ends with status 1, and prints the stack of the import."""
        code = (
            "import time\n"
            "from txgreenwsgi._twistd.check_config import check_start\n"
            "from txgreenwsgi._twistd.options import Options\n"
            "def import_that_hangs(): time.sleep(600)\n"
            "options = Options()\n"
            "options.parseOptions(['--boot-timeout=1'])\n"
            "check_start(import_that_hangs, options)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={},
        )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("in import_that_hangs", done.stderr)
