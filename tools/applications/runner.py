"""Install an application, serve it, run its client, report, and remove everything.

Knows the command line of the server. It must never know an application.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .client import FOLDER_VARIABLE
from .commands import CommandFailed, output_of
from .table import APPLICATIONS, Application

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run_application"]

ROOT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
DRIVE_SECONDS: Final = 900.0
#: The script `twistd`, whose first line has a limited length.
_TWISTD: Final = (
    "import sys; del sys.path[0]; from twisted.scripts.twistd import run; run()"
)


class _FailedError(Exception):
    """A step that failed; the message is for the report."""


def run_application(
    name: str,
    environment: Path | None = None,
    log: Path | None = None,
    options: Sequence[str] = (),
    install: bool = True,
) -> bool:
    """Run one application and print a report.

    Args:
        name: as in the table.
        environment: virtual environment to use, or to create and keep; None for a
            temporary one.
        log: file to append the log of the server to.
        options: further options of `twistd greenwsgi`.
        install: False if the environment has everything already.

    Returns:
        Whether everything passed.
    """
    application = APPLICATIONS[name]
    print(f"=== {application.title}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        _check_programs(application)
        environment = (environment or folder / "environment").absolute()
        if install:
            _install(application, environment)
        python = environment / "bin" / "python"
        data = folder / "data"
        data.mkdir()
        _Run(name, python, data, options).report(log)
    except _FailedError as error:
        print(f"{application.title}: FAILED: {error}", flush=True)
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _check_programs(application: Application) -> None:
    for program, package in application.programs.items():
        if shutil.which(program) is None:
            raise _FailedError(f"{program} is not installed: apt install {package}")


def _install(application: Application, environment: Path) -> None:
    """Install the application and this checkout."""
    python = environment / "bin" / "python"
    if not python.exists():
        _call([sys.executable, "-m", "venv", str(environment)])
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _call([*pip, "install", "--editable", str(ROOT), *application.packages])


def _call(command: Sequence[str]) -> str:
    try:
        return output_of(command, ROOT)
    except CommandFailed as error:
        raise _FailedError(str(error)) from None


class _Run:
    """One server process and its client.

    Args:
        name: as in the table.
        python: the interpreter of the environment.
        data: folder for the data of the application.
        options: further options of `twistd greenwsgi`.
    """

    def __init__(
        self, name: str, python: Path, data: Path, options: Sequence[str]
    ) -> None:
        self._application = APPLICATIONS[name]
        self._module = self._application.module or f"{__package__}.{name}"
        self._python = str(python)
        self._environ = {
            **os.environ,
            FOLDER_VARIABLE: str(data),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self._log = data.parent / "server.log"
        self._options = [*self._application.options, *options]

    def report(self, log: Path | None) -> None:
        """Serve, drive, stop, and print the result.

        Raises:
            _FailedError: any of these failed.
        """
        self._step("prepare")
        with self._log.open("wb") as output:
            server = subprocess.Popen(
                self._command(),
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            port = self._wait_listening(server)
            print(self._step("drive", f"http://127.0.0.1:{port}"), end="")
            server.terminate()
            status = server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise _FailedError(f"{error}\n{self._tail()}") from None
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
            if log is not None:
                with log.open("ab") as file:
                    file.write(self._log.read_bytes())
        text = self._log.read_text("utf-8", "replace")
        if status or "Server Shut Down." not in text:
            raise _FailedError(f"the server ended with status {status}\n{self._tail()}")
        failures = text.count("Traceback (most recent call last)")
        print(
            f"{self._application.title} {self._version()}: passed; tracebacks in the "
            f"server's log: {failures}",
            flush=True,
        )

    def _command(self) -> list[str]:
        return [
            *(self._python, "-c", _TWISTD),
            "-n",
            "--pidfile=",
            "greenwsgi",
            f"--app={self._module}:make_app()",
            f"--chdir={ROOT}",
            "--listen=tcp:0:interface=127.0.0.1",
            *self._options,
        ]

    def _step(self, *arguments: str) -> str:
        """Run a function of the application's module in its environment."""
        done = subprocess.run(
            [self._python, "-m", self._module, *arguments],
            cwd=ROOT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=DRIVE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise _FailedError(f"{arguments[0]}: {done.stdout[-6000:]}\n{self._tail()}")
        return done.stdout

    def _wait_listening(self, server: subprocess.Popen[bytes]) -> int:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and server.poll() is None:
            text = self._log.read_text("utf-8", "replace")
            if found := re.search(r" starting on (\d+)$", text, re.MULTILINE):
                return int(found[1])
            time.sleep(0.1)
        raise _FailedError(f"the server does not listen\n{self._tail()}")

    def _tail(self) -> str:
        if not self._log.exists():
            return ""
        return self._log.read_text("utf-8", "replace")[-6000:]

    def _version(self) -> str:
        name = re.split(r"[\[ <>=]", self._application.packages[0])[0]
        code = f"from importlib.metadata import version; print(version({name!r}))"
        return _call([self._python, "-c", code]).strip()
