"""`python -m txgreenwsgi.patched`: commands that are patched from the start."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .processes import LOOPBACK, start

PATCHED = (sys.executable, "-m", "txgreenwsgi.patched")

#: Prints what a process sees.
_REPORT = """
import os, sys, time
from txgreenwsgi.green.patched import is_patched
started_in = [path for path in sys.path if path.endswith("startup")]
print(sys.argv[1:], is_patched("socket"), time.sleep.__module__,
      sys.modules["sitecustomize"].__file__ if "sitecustomize" in sys.modules else "",
      os.environ.get("PYTHONPATH"), os.environ.get("TXGREENWSGI_PATCHED"), started_in,
      "twisted.internet.reactor" in sys.modules)
"""

#: As the launchers of agents: run a command in this process, with a `sitecustomize`.
_WRAPPER = """
import os, sys
here = os.path.dirname(os.path.abspath(__file__))
os.environ["PYTHONPATH"] = os.path.join(here, "agent")
os.execl(sys.executable, sys.executable, *sys.argv[1:])
"""


class PatchedTests(SynchronousTestCase):
    """Programs run by the module."""

    def setUp(self) -> None:
        """Write a program, and an agent with its wrapper."""
        self.folder = short_folder(self)
        self.write("report.py", _REPORT)
        self.write("wrapper.py", _WRAPPER)
        (self.folder / "agent").mkdir()
        self.write(
            "agent/sitecustomize.py",
            """
            import sys, time
            print("agent", time.sleep.__module__, flush=True)
            sys.modules["sitecustomize"].ran = True
            """,
        )

    def write(self, name: str, code: str) -> None:
        """Write a file of the program."""
        (self.folder / name).write_text(textwrap.dedent(code))

    def run_command(
        self, *command: str, status: int = 0, **environ: str
    ) -> tuple[str, str]:
        """Run a command by the module; return its output and its errors."""
        return self.run_process(*PATCHED, *command, status=status, **environ)

    def run_process(
        self, *command: str, status: int = 0, **environ: str
    ) -> tuple[str, str]:
        """Run a command; return its output and its errors."""
        variables = {**os.environ, **environ}
        if "PYTHONPATH" not in environ:
            variables.pop("PYTHONPATH", None)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
            env=variables,
        )
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout, done.stderr

    def test_program(self) -> None:
        """A program is patched; no reactor is installed, no variable is left."""
        output, errors = self.run_command(sys.executable, "report.py", "argument")
        self.assertIn("['argument'] True txgreenwsgi.green.time", output)
        self.assertIn("None None [] False", output)
        self.assertEqual(errors, "")

    def test_wrapper(self) -> None:
        """A wrapper executes a program whose agent runs after patching."""
        output, errors = self.run_command(sys.executable, "wrapper.py", "report.py")
        agent = str(self.folder / "agent")
        self.assertEqual(output.splitlines()[0], "agent txgreenwsgi.green.time")
        self.assertIn(f"{agent}/sitecustomize.py {agent} None []", output)
        self.assertEqual(errors, "")

    def test_path(self) -> None:
        """An agent in PYTHONPATH runs after patching, and not before with -I."""
        agent = str(self.folder / "agent")
        command = (sys.executable, "report.py")
        output, _ = self.run_command(*command, PYTHONPATH=agent)
        self.assertEqual(output.count("agent time\n"), 1)
        self.assertEqual(output.count("agent txgreenwsgi.green.time\n"), 1)
        isolated = (sys.executable, "-I", "-m", "txgreenwsgi.patched")
        output, _ = self.run_process(*isolated, *command, PYTHONPATH=agent)
        self.assertTrue(output.startswith("agent txgreenwsgi.green.time\n"), output)

    def test_agent_that_fails(self) -> None:
        """An exception of the agent's module is reported as Python reports it."""
        self.write("agent/sitecustomize.py", "raise LookupError('no licence')")
        output, errors = self.run_command(
            sys.executable, "report.py", PYTHONPATH=str(self.folder / "agent")
        )
        self.assertIn("True txgreenwsgi.green.time", output)
        self.assertIn("LookupError: no licence", errors)

    def test_other_processes(self) -> None:
        """Processes that the program starts are not patched."""
        self.write(
            "parent.py",
            """
            import os, subprocess, sys
            command = [sys.executable, "report.py"]
            subprocess.run([*command, "child"], check=True)
            pid = os.fork()
            if not pid:
                os.execv(sys.executable, [*command, "forked"])
            os.waitpid(pid, 0)
            os.execvpe(sys.executable, [*command, "same"], {"A": "b"})
            """,
        )
        output, _ = self.run_command(sys.executable, "parent.py")
        patched = {
            line.split("]")[0].strip("['"): line.split()[1] == "True"
            for line in output.splitlines()
        }
        self.assertEqual(patched, {"child": False, "forked": False, "same": True})

    def test_other_interpreters(self) -> None:
        """A wrapper may run in an environment without txgreenwsgi, or without site."""
        self.write(
            "other.py",
            """
            import os, sys
            os.execv(sys.argv[1], sys.argv[1:])
            """,
        )
        base = os.path.join(sys.base_prefix, "bin", "python3")
        for wrapper in ((base, "other.py"), (sys.executable, "-S", "other.py")):
            output, errors = self.run_command(*wrapper, sys.executable, "report.py")
            self.assertIn("] True txgreenwsgi.green.time", output)
            self.assertIn("None None [] False", output)
            self.assertEqual(errors, "")

    def test_closed_streams(self) -> None:
        """A command is executed without standard streams too."""
        closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
        command = [*closing, *PATCHED, sys.executable, "-c", "raise SystemExit(3)"]
        self.assertEqual(subprocess.run(command, timeout=60).returncode, 3)

    def test_errors(self) -> None:
        """A command that does not exist ends with its name and a remedy."""
        _, errors = self.run_command(status=1)
        self.assertIn("usage: python -m txgreenwsgi.patched COMMAND", errors)
        for command in ("no-such-command", "report.py", str(self.folder)):
            _, errors = self.run_command(command, status=1)
            self.assertIn(f"{command!r} is not an executable program: give", errors)
            self.assertNotIn("Traceback", errors)
        self.write("broken", "no interpreter\n")
        (self.folder / "broken").chmod(0o755)
        _, errors = self.run_command("./broken", status=1)
        self.assertIn("cannot be executed", errors)

    def test_reactors(self) -> None:
        """The command serves patched views with the reactor that it is given."""
        self.write(
            "reactor_app.py",
            """
            import http.client, time
            from twisted.internet import reactor

            def app(environ, start_response):
                time.sleep(0.01)
                if environ["PATH_INFO"] == "/outer":
                    client = http.client.HTTPConnection(environ["HTTP_HOST"])
                    client.request("GET", "/inner")
                    assert client.getresponse().read()
                start_response("200 OK", [])
                return [type(reactor).__name__.encode()]
            """,
        )
        for name, expected in (
            ("epoll", "EPollReactor"),
            ("asyncio", "AsyncioSelectorReactor"),
            ("poll", "PollReactor"),
            ("select", "SelectReactor"),
        ):
            server = start(
                self,
                f"--reactor={name}",
                "greenwsgi",
                "--app=reactor_app:app",
                f"--chdir={self.folder}",
                f"--listen=tcp:0:interface={LOOPBACK}",
                wrapper=PATCHED,
            )
            self.assertEqual(server.fetch("/outer").text, expected, server.log())
            server.ask_to_stop()
            server.wait_ended()

    def test_patch_option(self) -> None:
        """`--patch` cannot undo it; the log says so."""
        server = start(
            self,
            *("greenwsgi", "--patch=socket", f"--listen=tcp:0:interface={LOOPBACK}"),
            wrapper=PATCHED,
        )
        server.wait_logged("has patched time, os, thread, .* earlier")
