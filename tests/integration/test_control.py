"""The control socket of real servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.folders import short_folder
from txgreenwsgi._command import main
from txgreenwsgi._control import paths

from .processes import CHECKOUT, LOOPBACK, STOP_SECONDS
from .test_workers import APP, LISTEN, Workers, WorkerTests

BROKEN = "import time\n\ndef view():\n    return missing_name\n\nview()\n"
WORKING = """
import os

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"version 1"]
"""


class ControlCase(WorkerTests):
    """Tests with a control socket in a directory of their own."""

    def setUp(self) -> None:
        """Choose the path."""
        self.directory = str(short_folder(self))
        self.path = f"{self.directory}/c.sock"

    def serve(self, app: str, *options: str) -> Workers:
        """Start a server without waiting for it."""
        return self.begin(f"--app={app}", LISTEN, f"--control={self.path}", *options)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a subcommand for the server."""
        return subprocess.run(
            [sys.executable, "-m", "txgreenwsgi", *words, "--control", self.path],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def answer(self, *words: str, status: int = 0) -> Any:
        """Run a subcommand and return its answer."""
        done = self.command(*words, "--json")
        self.assertEqual(done.returncode, status, done.stderr + done.stdout)
        return json.loads(done.stdout)

    def request(self, server: Workers, path: str) -> threading.Thread:
        """Send a request in a thread, which ends with the test's servers."""

        def fetch() -> None:
            # The test may end the server first.
            with contextlib.suppress(AssertionError, OSError):
                server.fetch(path)

        thread = threading.Thread(target=fetch)
        thread.start()
        self.addCleanup(thread.join, STOP_SECONDS)
        self.addCleanup(server.kill_all)
        return thread

    def wait_in_flight(self, count: int) -> list[Any]:
        """Wait for a number of requests in flight, and return them."""
        end = time.monotonic() + STOP_SECONDS
        while True:
            workers = self.answer("status")["workers"]
            found = [row for each in workers for row in each["in_flight"] or ()]
            if len(found) == count:
                return found
            self.assertLess(time.monotonic(), end, workers)


class WorkersTests(ControlCase):
    """A master with two workers."""

    def test_status_and_scale(self) -> None:
        """The status has all workers; their number changes; stacks name the view."""
        server = self.serve(APP, "--workers=2")
        server.wait_ready(2)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        status = self.answer("status")
        self.assertEqual(status["pid"], server.pid)
        self.assertEqual({each["pid"] for each in status["workers"]}, server.live())
        self.assertEqual(status["listening"], [f"http://{LOOPBACK}:{server.port}/"])
        self.request(server, "/sleep/60")
        (row,) = self.wait_in_flight(1)
        self.assertEqual((row["method"], row["path"]), ("GET", "/sleep/60"))
        self.assertIn("sleep(60", row["waiting_on"])
        text = self.command("status").stdout
        self.assertIn("2 workers, master pid", text)
        self.assertIn(row["request_id"], text)
        stacks = self.command("stacks", row["request_id"])
        self.assertIn("workers_app.py", stacks.stdout, stacks.stderr)
        self.assertIn("thread ", self.command("stacks", "1").stdout)
        done = self.command("stacks", "77")
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no worker 77: the workers are 1, 2", done.stderr)
        self.assertEqual(self.command("scale", "+1").returncode, 0)
        server.wait_live(lambda live: len(live) == 3)
        self.assertEqual(self.answer("scale", "1"), {"target": 1})
        server.kill_all()

    def test_reload(self) -> None:
        """A reload replaces the workers; broken code fails it, with its traceback."""
        module = Path(self.directory) / "code_app.py"
        module.write_text(WORKING)
        server = self.serve("code_app:app", f"--chdir={self.directory}", "--workers=2")
        server.wait_ready(2)
        before = server.live()
        outcome = self.answer("reload")
        self.assertEqual(outcome, {"succeeded": True, "replaced": 2, "reason": ""})
        after = server.wait_live(lambda live: len(live) == 2 and not live & before)
        module.write_text(BROKEN)
        done = self.command("reload")
        self.assertEqual(done.returncode, 1)
        self.assertIn("the reload failed after 0 workers", done.stdout)
        self.assertIn('code_app.py", line 4, in view', done.stdout)
        self.assertIn("NameError: name 'missing_name'", done.stdout)
        server.wait_live(lambda live: live == after)
        self.assertEqual(server.fetch("/").text, "version 1")
        self.assertIn("the last reload failed", self.command("status").stdout)
        server.kill_all()

    def test_stacks_of_a_starting_worker(self) -> None:
        """A question for stacks does not end a worker that has just been started."""
        server = self.serve(APP, "--workers=1")
        server.wait_ready(1)
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(STOP_SECONDS)
            connected.connect(self.path)
            with connected.makefile("rwb") as control:
                server.process.send_signal(signal.SIGHUP)
                while len(server.ready()) < 2 and "failed" not in server.log():
                    control.write(b'{"command": "stacks", "of": ""}\n')
                    control.flush()
                    self.assertTrue(json.loads(control.readline())["ok"])
        server.wait_reloads(1)
        self.assertNotIn("reload failed", server.log())
        server.kill_all()

    def test_hung_worker(self) -> None:
        """A blocked worker does not block the status, and its stacks are printed."""
        server = self.serve(APP, "--workers=1", "--worker-timeout=100")
        server.wait_ready(1)
        self.request(server, "/busy/100")
        end = time.monotonic() + STOP_SECONDS
        while True:
            (worker,) = self.answer("status")["workers"]
            if worker["in_flight"] is None:
                break
            self.assertLess(time.monotonic(), end)
        text = self.command("status").stdout
        self.assertIn("worker 1 (pid ", text)
        self.assertIn("has not answered", text)
        stacks = self.command("stacks", "1")
        self.assertIn("workers_app.py", stacks.stdout, stacks.stderr)
        server.kill_all()

    def test_drain(self) -> None:
        """During a shutdown, the socket still answers; it is removed at the end."""
        server = self.serve(APP, "--workers=1", "--graceful-timeout=50")
        server.wait_ready(1)
        self.request(server, "/sleep/60")
        self.wait_in_flight(1)
        server.ask_to_stop()
        server.wait_logged("stopping by request of the master")
        status = self.answer("status")
        self.assertTrue(status["stopping"])
        self.assertEqual(len(status["workers"][0]["in_flight"]), 1)
        outcome = self.answer("reload", status=1)
        self.assertEqual(outcome["reason"], "the server shuts down")
        server.ask_to_stop()
        server.process.wait(STOP_SECONDS)
        self.assertFalse(os.path.exists(self.path))

    def test_found(self) -> None:
        """Without --control, the command finds the only server of the user."""
        runtime = str(short_folder(self))
        self.patch(os, "environ", {**os.environ, "XDG_RUNTIME_DIR": runtime})
        self.patch(paths, "FALLBACKS", ())
        self.path = "auto"
        server = self.serve(APP, "--workers=1")
        server.wait_ready(1)
        path = f"{runtime}/txgreenwsgi/{server.pid}.sock"
        self.assertTrue(os.path.exists(path))
        self.assertEqual(main(["scale", "2"]), 0)
        server.wait_live(lambda live: len(live) == 2)
        server.kill_all()
        self.assertTrue(os.path.exists(path))
        self.assertEqual(main(["scale", "2"]), 1)
        # The next server removes it.
        server = self.serve(APP, "--workers=1")
        server.wait_ready(1)
        self.assertFalse(os.path.exists(path))
        server.kill_all()


class SingleProcessTests(ControlCase):
    """A server without workers."""

    def test_single_process(self) -> None:
        """Status and stacks work; reload and scale need workers."""
        server = self.serve(APP)
        server.wait_listening()
        server.wait_logged("txgreenwsgi [^ ]+ serves ")
        self.request(server, "/sleep/60")
        (row,) = self.wait_in_flight(1)
        text = self.command("status").stdout
        self.assertIn(f"\npid {server.pid}, up ", text)
        self.assertIn("/sleep/60", text)
        self.assertIn(
            "workers_app.py", self.command("stacks", row["request_id"]).stdout
        )
        for words in (["reload"], ["scale", "2"]):
            done = self.command(*words)
            self.assertEqual(done.returncode, 1)
            self.assertIn("start it with --workers", done.stderr)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        done = self.command("status")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no server is running at", done.stderr)
        again = self.serve(APP)
        again.wait_logged("txgreenwsgi [^ ]+ serves ")
        self.assertEqual(self.answer("status")["pid"], again.pid)
        again.kill()

    def test_request_in_thread(self) -> None:
        """The stack of a request in a thread is that of the thread."""
        server = self.serve(APP, "--threads-for=/sleep/*")
        server.wait_listening()
        server.wait_logged("txgreenwsgi [^ ]+ serves ")
        self.request(server, "/sleep/60")
        (row,) = self.wait_in_flight(1)
        stacks = self.command("stacks", row["request_id"]).stdout
        self.assertIn("\nin thread 0x", stacks)
        self.assertIn("workers_app.py", stacks)
        server.kill_all()

    def test_unsafe_directory(self) -> None:
        """A directory that others may write to prevents the start."""
        os.chmod(self.directory, 0o777)
        server = self.serve(APP)
        self.assertEqual(server.process.wait(STOP_SECONDS), 1)
        self.assertIn(
            "txgreenwsgi cannot start: other users may write to the directory",
            server.log(),
        )
        self.assertNotIn("Traceback", server.log())
