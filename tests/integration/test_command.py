"""The command: successful starts, failed starts, and the ways to end.

The processes are started as a user starts them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.folders import short_folder

from .processes import CHECKOUT, LOOPBACK, STOP_SECONDS, TWISTD, serve, start

TWIST = (
    sys.executable,
    "-c",
    "import sys; del sys.path[0];"
    "from twisted.application.twist._twist import Twist; Twist.main()",
)

BROKEN = """
def broken():
    return {}["a key that is not there"]

broken()
"""

BLOCKING = """
import threading
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/block":
        open(__file__ + ".blocked", "w").close()
        take_a_long_time()
    if environ["PATH_INFO"] == "/thread":
        threading.Thread(target=take_a_long_time).start()
    if environ["PATH_INFO"] == "/park":
        environ["txgreenwsgi.sleep"](60)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]

def take_a_long_time():
    time.sleep(60)
"""


class CommandTestCase(TestCase):
    """Tests with a directory that contains two applications."""

    def setUp(self) -> None:
        """Write the applications."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "broken_app.py").write_text(BROKEN)
        (self.directory / "blocking_app.py").write_text(BLOCKING)

    def run_command(self, command: tuple[str, ...], *arguments: str) -> tuple[int, str]:
        """Run a command that ends by itself; return its status and its output."""
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def wait_for(self, path: Path, text: str) -> str:
        """Wait until a file contains a text; return the content of the file."""
        for _ in range(1500):
            if path.exists() and text in (held := path.read_text()):
                return held
            time.sleep(0.02)
        self.fail(f"{text!r} is not in {path}")


class StartTests(CommandTestCase):
    """Starts that fail."""

    listen = f"--listen=tcp:0:interface={LOOPBACK}"

    def test_broken_application(self) -> None:
        """A failed import of the application ends the process; the line is shown."""
        for command in ((*TWISTD, "-n", "--pidfile="), TWIST):
            status, output = self.run_command(
                command, "greenwsgi", "--app=broken_app", self.listen
            )
            self.assertEqual(status, 1, output)
            self.assertIn('broken_app.py", line 3, in broken', output)
            self.assertIn("KeyError: 'a key that is not there'", output)

    def test_broken_application_of_a_daemon(self) -> None:
        """The parent process of a daemon reports it; the log has the traceback."""
        status, output = self.run_command(
            (*TWISTD, "--logfile=d.log", "--pidfile=d.pid"),
            *("greenwsgi", "--app=broken_app", self.listen),
        )
        self.assertEqual(status, 1, output)
        self.assertIn("KeyError: 'a key that is not there'", output)
        log = self.wait_for(self.directory / "d.log", "KeyError: 'a key that")
        self.assertIn('broken_app.py", line 3, in broken', log)
        self.assertFalse((self.directory / "d.pid").exists())

    def test_wrong_application(self) -> None:
        """A misspelled application is reported in one line, with the right spelling."""
        for command in ((*TWISTD, "-n", "--pidfile=t.pid"), TWIST):
            status, output = self.run_command(
                command, "greenwsgi", "--app=blocking_app:ap", self.listen
            )
            self.assertEqual(status, 1, output)
            self.assertIn(
                "txgreenwsgi cannot start: --app 'blocking_app:ap': module "
                "blocking_app has no ap; did you mean app?\n",
                output,
            )
            self.assertNotIn("Traceback", output)
            self.assertFalse((self.directory / "t.pid").exists())

    def test_port_in_use(self) -> None:
        """A port that is in use ends the process; the error names the port."""
        server = serve(self, "wsgiref.simple_server:demo_app")
        for command in ((*TWISTD, "-n", "--pidfile="), TWIST):
            status, output = self.run_command(
                command,
                "greenwsgi",
                "--app=blocking_app",
                f"--listen=tcp:{server.port}:interface={LOOPBACK}",
            )
            self.assertEqual(status, 1, output)
            self.assertIn(
                f"txgreenwsgi cannot start: cannot listen on 'tcp:{server.port}:"
                f"interface={LOOPBACK}' ([Errno ",
                output,
            )
            self.assertIn("): stop the process that uses this address, or", output)
            self.assertNotIn("Traceback", output)

    def test_wrong_option(self) -> None:
        """An unknown option ends the command before anything starts."""
        for command in ((*TWISTD, "-n", "--pidfile="), TWIST):
            status, output = self.run_command(command, "greenwsgi", "--port=80")
            self.assertNotEqual(status, 0)
            self.assertIn(
                "--port is not an option: use --listen with an endpoint string: "
                "--listen tcp:80\n",
                output,
            )

    def test_help(self) -> None:
        """Both commands list greenwsgi, and its --help explains the options."""
        for command in (TWISTD, TWIST):
            _status, output = self.run_command(command, "--help")
            self.assertIn("greenwsgi ", output)
            status, output = self.run_command(command, "greenwsgi", "--help")
            self.assertEqual(status, 0)
            self.assertIn("--keep-alive=", output)

    def test_demonstration(self) -> None:
        """Without --app, the demonstration is served."""
        server = start(self, "greenwsgi", self.listen)
        answer = server.fetch("/")
        self.assertEqual(answer.status, 200)
        self.assertIn("<html", answer.text)


class EndTests(CommandTestCase):
    """The shutdown of servers."""

    def serve(self, *options: str, grace: float = 30) -> None:
        """Serve the application that blocks."""
        self.log = self.directory / "access.log"
        self.server = serve(
            self,
            "blocking_app:app",
            f"--chdir={self.directory}",
            f"--access-log={self.log}",
            "--access-log-format=json",
            f"--graceful-timeout={grace}",
            "--patch=none",  # else its time.sleep would not block
            *options,
        )

    def logged(self) -> list[tuple[str, int, str]]:
        """Return target, status and outcome of each line of the access log."""
        return [
            (line["target"], line["status"], line["outcome"])
            for line in map(json.loads, self.log.read_text().splitlines())
        ]

    def request(self, path: str) -> None:
        """Send a request that will not be answered soon."""
        client = self.server.connect()
        self.addCleanup(client.socket.close)
        # The first answer shows that the second request has been read.
        client.send(
            b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        client.read_until(b"/first")

    def test_status(self) -> None:
        """A graceful shutdown by SIGTERM ends the process with status 0."""
        self.serve()
        self.assertEqual(self.server.fetch("/a").text, "/a")
        self.server.ask_to_stop()
        self.assertEqual(self.server.process.wait(STOP_SECONDS), 0)
        self.assertEqual(self.logged(), [("/a", 200, "finished")])

    def test_interrupted(self) -> None:
        """Ctrl-C ends the process by SIGINT, so that a shell loop also ends."""
        process = subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", "greenwsgi", StartTests.listen],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
            # A background job of a shell ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        for line in process.stdout:
            if found := re.search(r" starting on (\d+)$", line):
                break
        # The running reactor has installed its signal handlers, and answers.
        assert found is not None
        with socket.create_connection((LOOPBACK, int(found[1])), 20) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            self.assertTrue(client.recv(1))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(STOP_SECONDS), -signal.SIGINT)

    def test_second_signal(self) -> None:
        """At the second SIGTERM, the server does not wait for requests in flight."""
        self.serve()
        self.request("/park")
        self.server.ask_to_stop()
        self.server.wait_logged("requests in flight have 30 s to end")
        self.server.ask_to_stop()
        self.assertEqual(self.server.process.wait(STOP_SECONDS), 0)
        [first, parked] = self.logged()
        self.assertEqual(first, ("/first", 200, "finished"))
        self.assertEqual((parked[0], parked[2]), ("/park", "cancelled"))

    def test_blocked(self) -> None:
        """A server exits although an application blocks it, or has left a thread.

        The stack of the code that blocks the reactor is logged, or the thread.
        """
        self.serve(grace=0)
        blocked = self.server
        self.request("/block")
        self.serve(grace=0)
        self.assertEqual(self.server.fetch("/thread").status, 200)
        blocked.ask_to_stop()
        self.server.ask_to_stop()
        self.assertEqual(blocked.process.wait(STOP_SECONDS), 1)
        self.assertIn("in take_a_long_time\n", blocked.log())
        self.assertEqual(self.server.process.wait(STOP_SECONDS), 0)
        self.assertRegex(self.server.log(), "not waiting for <Thread.*take_a_long_time")

    def test_blocked_daemon(self) -> None:
        """The stack traces of a blocked daemon are in its log."""
        path = str(short_folder(self) / "socket")
        status, output = self.run_command(
            (*TWISTD, "--logfile=d.log", "--pidfile=d.pid"),
            *("greenwsgi", "--app=blocking_app", "--graceful-timeout=0"),
            *("--patch=none", f"--listen=unix:{path}"),
        )
        self.assertEqual(status, 0, output)
        pid = int(self.wait_for(self.directory / "d.pid", ""))
        self.addCleanup(_kill, pid)
        log = self.directory / "d.log"
        self.wait_for(log, "listening on")
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b"200 OK", client.recv(1000))
        client.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        self.wait_for(self.directory / "blocking_app.py.blocked", "")
        os.kill(pid, signal.SIGTERM)
        # Written in pieces.
        self.wait_for(log, "in take_a_long_time\n")

    def test_rotation(self) -> None:
        """After logrotate has moved the access log, a new file is written."""
        self.serve()
        self.server.fetch("/before")
        rotated = self.directory / "access.log.1"
        self.wait_for(self.log, "/before")
        self.log.rename(rotated)
        self.server.fetch("/after")
        self.wait_for(self.log, "/after")
        self.assertEqual(self.logged(), [("/after", 200, "finished")])
        self.assertIn("/before", rotated.read_text())


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # as expected
