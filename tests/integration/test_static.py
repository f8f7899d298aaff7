"""Static files of real processes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .processes import CHECKOUT, LOOPBACK, TWISTD, ServerProcess, start

APP = "tests.integration.edges_app:app"
LISTEN = f"--listen=tcp:0:interface={LOOPBACK}"
SIZE = 30_000_000


class StaticTests(SynchronousTestCase):
    """`--static`."""

    def setUp(self) -> None:
        """Write files."""
        self.folder = short_folder(self)
        (self.folder / "files").mkdir()
        block = bytes(range(256)) * 1000
        self.data = block * (SIZE // len(block))
        (self.folder / "files" / "large").write_bytes(self.data)
        (self.folder / "files" / "small.css").write_bytes(b"body{}")

    def serve(self, *options: str) -> ServerProcess:
        """Start a server whose relative paths are below the folder."""
        return start(
            self,
            *("greenwsgi", f"--app={APP}", LISTEN, f"--chdir={self.folder}"),
            *("--static=/static=files", *options),
            environ={"PYTHONPATH": str(CHECKOUT)},
        )

    def assert_serves(self, server: ServerProcess) -> None:
        """Fail unless the server sends files and calls the application."""
        answer = server.fetch("/static/large")
        self.assertEqual(
            hashlib.sha256(answer.body).digest(), hashlib.sha256(self.data).digest()
        )
        part = server.fetch("/static/large", headers={"Range": "bytes=1000000-1999999"})
        self.assertEqual((part.status, part.body), (206, self.data[10**6 : 2 * 10**6]))
        self.assertEqual(server.fetch("/static/small.css").text, "body{}")
        self.assertEqual(server.fetch("/static/../secret").status, 404)
        self.assertTrue(server.fetch("/").text.startswith(LOOPBACK))

    def test_one_process(self) -> None:
        """A relative directory is relative to --chdir."""
        server = self.serve()
        self.assert_serves(server)
        server.ask_to_stop()
        server.wait_ended()

    def test_in_threads(self) -> None:
        """Static files do not need a thread, also if all requests do."""
        self.assert_serves(self.serve("--threads-for=all", "--threads=1"))

    def test_missing(self) -> None:
        """A missing directory ends the start with one line."""
        for options, rundir, problem in (
            (["--static=/static=nowhere"], ".", "--static '/static=nowhere' names no"),
            (
                ["--static=/static=nowhere"],
                str(self.folder),  # known later
                "txgreenwsgi cannot start: static '/static=nowhere' names no",
            ),
        ):
            done = subprocess.run(
                [
                    *(*TWISTD, "-n", "--pidfile=", f"--rundir={rundir}"),
                    *("greenwsgi", "--app=wsgiref.simple_server:demo_app", LISTEN),
                    *options,
                ],
                cwd=Path(CHECKOUT),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            output = done.stdout + done.stderr
            self.assertEqual(done.returncode, 1, output)
            self.assertIn(problem, output)
            self.assertNotIn("Traceback", output)
