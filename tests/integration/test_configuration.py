"""Configuration of a real process: file, environment, `--check-config`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, LOOPBACK, START_SECONDS, TWISTD, free_ports, start
from .test_workers import Workers

APP = """
def app(environ, start_response):
    body = environ.get("shop.region", "none").encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


class ConfigurationTests(SynchronousTestCase):
    """A project with a configuration file."""

    def setUp(self) -> None:
        """Write the project."""
        self.project = Path(self.mktemp()).absolute()
        self.project.mkdir()
        (self.project / "shop.py").write_text(APP)
        (self.project / "pyproject.toml").write_text(
            "[tool.txgreenwsgi]\n"
            'app = "shop:app"\n'
            'chdir = "."\n'
            f'listen = "tcp:0:interface={LOOPBACK}"\n'
            'access_log = "access.log"\n'
            'server_header = "file"\n'
            'environ = {"shop.region" = "eu"}\n'
        )
        self.config = f"--config={self.project / 'pyproject.toml'}"

    def run_command(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """Run twistd without -n, and return its status and all of its output."""
        done = subprocess.run(
            [*TWISTD, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=START_SECONDS,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environ},
            cwd=self.project.parent,
        )
        return done.returncode, done.stdout

    def test_serve(self) -> None:
        """The file, the environment and the command line configure the server."""
        server = start(
            self,
            "greenwsgi",
            self.config,
            "--add-header=X-From: option",
            environ={"TXGREENWSGI_SERVER_HEADER": "environment"},
        )
        answer = server.fetch("/")
        self.assertEqual(answer.text, "eu")
        self.assertEqual(answer.headers["Server"], "environment")
        self.assertEqual(answer.headers["X-From"], "option")
        server.ask_to_stop()
        server.wait_ended()
        self.assertIn("GET / ", (self.project / "access.log").read_text())

    def test_reload(self) -> None:
        """The workers of a reload read the changed file, and so does no other one."""
        server = Workers("greenwsgi", self.config, "--workers=1")
        self.addCleanup(server.kill)
        server.wait_ready(1)
        self.assertEqual(server.fetch("/").text, "eu")
        file = self.project / "pyproject.toml"
        text = file.read_text()
        file.write_text(text.replace('"eu"', '"us"'))
        self.assertEqual(server.fetch("/").text, "eu")
        server.reload()
        self.assertEqual(server.fetch("/").text, "us")
        # A file that became invalid stops no worker.
        file.write_text(text.replace("server_header", "server_heade"))
        server.reload(2)
        server.wait_logged(r"server_heade is not an option: did you mean server_header")
        self.assertEqual(server.fetch("/").text, "us")
        server.ask_to_stop()
        server.wait_ended()

    def test_port(self) -> None:
        """PORT is the port, if no address is given."""
        (port,) = free_ports(1)
        server = start(self, "greenwsgi", environ={"PORT": str(port)})
        self.assertEqual(server.port, port)

    def test_check(self) -> None:
        """--check-config neither listens, nor daemonizes, nor writes a pidfile."""
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            listen = f"--listen=tcp:{port}:interface={LOOPBACK}"
            pidfile = self.project.parent / "twistd.pid"
            pidfile.write_text(str(os.getpid()))
            status, output = self.run_command(
                "greenwsgi", self.config, listen, "--check-config"
            )
        self.assertEqual(status, 0, output)
        self.assertIn(f"valid: shop:app on tcp:{port}", output)
        self.assertEqual(pidfile.read_text(), str(os.getpid()))
        self.assertFalse((self.project / "access.log").exists())

    def test_failed_check(self) -> None:
        """--check-config has the status 1 if the server could not start."""
        (self.project / "broken.py").write_text("1 / 0\n")
        for arguments, message in (
            (("--app=broken",), "ZeroDivisionError"),
            (("--app=missing",), "there is no module missing"),
            (("--access-log=/no/such/file",), "access log cannot be opened"),
            (("--keep-alive=x",), "--keep-alive 'x' is not a number of seconds"),
        ):
            status, output = self.run_command(
                "greenwsgi", self.config, "--check-config", *arguments
            )
            self.assertEqual(status, 1, output)
            self.assertIn(message, output)

    def test_from_gunicorn(self) -> None:
        """The translation of a gunicorn.conf.py configures a server."""
        (self.project / "gunicorn.conf.py").write_text(
            "import os\n"
            "bind = '127.0.0.1:0'\n"
            "wsgi_app = 'shop:app'\n"
            "chdir = os.path.dirname(os.path.abspath(__file__))\n"
            "worker_class = 'gevent'\n"
            "accesslog = 'access.log'\n"
            "access_log_format = '%(m)s %(U)s %({x-a}i)s'\n"
            "def post_fork(server, worker): pass\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "txgreenwsgi", "from-gunicorn"],
            capture_output=True,
            text=True,
            check=True,
            timeout=START_SECONDS,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            cwd=self.project,
        )
        self.assertIn("# - post_fork: put the code", done.stdout)
        self.assertIn("2 without a counterpart", done.stderr)
        config = self.project.parent / "txgreenwsgi.toml"
        config.write_text(done.stdout)
        server = start(self, "greenwsgi", f"--config={config}")
        self.assertEqual(server.fetch("/a?b", headers={"X-A": "1"}).text, "none")
        server.ask_to_stop()
        server.wait_ended()
        self.assertEqual((self.project / "access.log").read_text(), "GET /a 1\n")

    def test_print(self) -> None:
        """--print-config prints a file with the same configuration."""
        status, text = self.run_command(
            "greenwsgi", self.config, "--print-config", TXGREENWSGI_THREADS="3"
        )
        self.assertEqual(status, 0, text)
        self.assertIn("threads = 3  # TXGREENWSGI_THREADS\n", text)
        again = self.project.parent / "printed.toml"
        again.write_text(text)
        status, second = self.run_command(
            "greenwsgi", f"--config={again}", "--print-config"
        )
        self.assertEqual(
            [line.partition("  #")[0] for line in second.splitlines()],
            [line.partition("  #")[0] for line in text.splitlines()],
        )
