"""redis-py with its pools, patched, with a real server."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .services import Redis

_PROGRAMS = Path(__file__).with_name("redis_programs.py")


class RedisTests(SynchronousTestCase):
    """Two hundred concurrent tasks each get their own replies."""

    def run_program(self, program: str) -> None:
        """Run a program against its own server."""
        if importlib.util.find_spec("redis") is None:
            raise SkipTest("redis is not installed")
        module = "txgreenwsgi.monkey"
        with Redis() as service:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", module, str(_PROGRAMS)),
                    *(program, str(service.port)),
                ],
                capture_output=True,
                text=True,
                timeout=120,
            )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.split()[-1], "done", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_pool(self) -> None:
        """Sessions of 200 tasks are not mixed up, though a third is interrupted."""
        self.run_program("pool")

    def test_blocking_pool(self) -> None:
        """The same with a blocking pool: at most forty connections."""
        self.run_program("blocking_pool")

    def test_cache(self) -> None:
        """A cache with pipelines and locks computes each page once."""
        self.run_program("cache")

    def test_published(self) -> None:
        """Listeners receive every message, and can be interrupted while they listen."""
        self.run_program("published")
