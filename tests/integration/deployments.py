"""The files of examples/deploy, read and run with the real programs.

The files name addresses, ports and paths of a machine that is set up for them. Here
they are replaced by free ports on the loopback interface and by temporary folders. A
name that is missing from its file is an error, so the tests cannot miss a change. The
command lines are those of the files, run by the interpreter of the tests.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tests.folders import make_short_folder

from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    START_SECONDS,
    STOP_SECONDS,
    Answer,
    Server,
)
from .services import HAProxy, Service, find_program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from unittest import TestCase

__all__ = [
    "DEPLOY",
    "DeployedHAProxy",
    "DeployedNginx",
    "DeployedServer",
    "Instruction",
    "copy_program",
    "documents",
    "instructions",
    "option",
    "options_in_comment",
    "replaced",
    "seconds_of",
    "unit_settings",
]

DEPLOY = CHECKOUT / "examples" / "deploy"

#: The server's command, run by the interpreter of the tests.
_COMMAND = (sys.executable, "-m", "txgreenwsgi")


def replaced(text: str, replacements: Mapping[str, str]) -> str:
    """Return a text with each key replaced by its value.

    Raises:
        AssertionError: a key is not in the text.
    """
    for old, new in replacements.items():
        if old not in text:
            raise AssertionError(f"{old!r} is not in:\n{text}")
        text = text.replace(old, new)
    return text


def options_in_comment(text: str) -> list[str]:
    """Return the options of the server in the comment at the top of a file."""
    lines = re.findall(r"^#   (--.*)$", text, re.MULTILINE)
    return shlex.split(" ".join(lines))


def option(words: Sequence[str], name: str) -> str | None:
    """Return the value of an option, as `--name value` or `--name=value`."""
    for place, word in enumerate(words):
        if word == name:
            return words[place + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def seconds_of(words: Sequence[str], name: str, default: float) -> float:
    """Return the value of an option in seconds."""
    value = option(words, name)
    return default if value is None else float(value)


def documents(name: str) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text("utf-8")))


def unit_settings(name: str) -> dict[str, list[str]]:
    """Return the settings of a unit of systemd, in the order of the file.

    Keys are `Section.Name`.
    """
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "systemd" / name).read_text("utf-8"))
    settings: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(f"{section}.{key}", []).append(value)
    return settings


class Instruction(NamedTuple):
    """An instruction of a Dockerfile.

    Attributes:
        name: in capitals.
        text: its arguments, on one line.
    """

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments of the exec form.

        Raises:
            ValueError: it is not in the exec form.
        """
        return [str(word) for word in json.loads(self.text)]


def instructions() -> list[Instruction]:
    """Return the instructions of the Dockerfile."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    found = []
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        found.append(Instruction(name, rest.strip()))
    return found


def copy_program(test: TestCase) -> Path:
    """Copy the application, as a deployment does; the test's cleanup removes it.

    Other users may read the folder.
    """
    folder = Path(make_short_folder("green-shop-", others=True))
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    for name in ("shop.py", "shop.sql"):
        shutil.copy(DEPLOY / name, folder / name)
    return folder


class DeployedServer(Server):
    """A server whose command line is that of a file; the test's cleanup ends it.

    Args:
        test: its cleanup ends the process.
        words: the arguments of `txgreenwsgi`.
        folder: working directory, with the application.
        address: a TCP port on the loopback interface, or the path of a UNIX socket.
        environ: added to the environment.
        wrapper: a command that runs another one, with its arguments.
    """

    def __init__(
        self,
        test: TestCase,
        words: Sequence[str],
        folder: Path,
        address: int | Path,
        *,
        environ: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.address = address
        self._log = tempfile.NamedTemporaryFile(prefix="deployed-", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*wrapper, *_COMMAND, *words],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(folder), str(CHECKOUT))),
                "PYTHONUNBUFFERED": "1",
                **(environ or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        test.addCleanup(self._kill)

    @property
    def port(self) -> int:
        """The TCP port."""
        if isinstance(self.address, Path):
            raise AssertionError(f"{self.address} is not a TCP port")
        return self.address

    def log(self) -> str:
        """Return everything that the process has written so far."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def wait_logged(self, text: str) -> None:
        """Wait until a text is in the log.

        Raises:
            AssertionError: the server ended, or timeout; the message has its log.
        """
        until = time.monotonic() + START_SECONDS
        while text not in self.log():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{text!r} is not logged:\n{self.log()}")
            time.sleep(0.05)

    def ask(self, path: str, tls_context: Any = None) -> Answer:
        """Send one request on a new connection, over TLS if there is a context.

        Raises:
            OSError: the server refuses or closes the connection.
        """
        if isinstance(self.address, Path):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(ANSWER_SECONDS)
            with sock:
                sock.connect(str(self.address))
                return self._asked(sock, path)
        with socket.create_connection((LOOPBACK, self.address), ANSWER_SECONDS) as sock:
            if tls_context is None:
                return self._asked(sock, path)
            with tls_context.wrap_socket(sock) as secured:
                return self._asked(secured, path)

    def _asked(self, sock: socket.socket, path: str) -> Answer:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = sock
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def wait_ready(self, tls_context: Any = None) -> None:
        """Wait until the server says that it is ready.

        Raises:
            AssertionError: it ended, or timeout; the message has its log.
        """
        until = time.monotonic() + START_SECONDS
        answer: object = None
        while True:
            try:
                answer = self.ask("/-/ready", tls_context)
                if answer.status == 200:
                    return
            except (OSError, http.client.HTTPException) as error:
                answer = error
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"not ready, {answer!r}:\n{self.log()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server in an orderly way.

        Raises:
            AssertionError: it ends otherwise; the message has its log.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not stop:\n{self.log()}") from None
        if status:
            raise AssertionError(f"it ended with status {status}:\n{self.log()}")

    def _kill(self) -> None:
        if self.process.poll() is None:
            # With workers, SIGKILL would leave them to find out.
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._log.close()


class DeployedHAProxy(HAProxy):
    """haproxy with a file of examples/deploy/haproxy, and without any retry.

    Args:
        name: of the file.
        servers: the servers' addresses in the file, and the ports instead of them.
        files: paths in the file, and the PEM texts that they contain.
    """

    def __init__(
        self, name: str, servers: Mapping[str, int], files: Mapping[str, bytes]
    ) -> None:
        super().__init__(list(servers.values()))
        self._text = (DEPLOY / "haproxy" / name).read_text("utf-8")
        self._servers = servers
        self._files = files

    def prepare(self, folder: str) -> None:
        """Write the PEM files."""
        for path, text in self._files.items():
            Path(folder, Path(path).name).write_bytes(text)

    def _configuration(self, folder: str) -> str:
        replacements = {
            "global\n": f"global\n    stats socket {folder}/stats\n",
            "defaults\n": "defaults\n    retries 0\n",
            "bind :443": f"bind {LOOPBACK}:{self.port}",
        }
        if "bind :80\n" in self._text:
            replacements["bind :80\n"] = f"bind unix@{folder}/plain\n"
        for address, port in self._servers.items():
            replacements[address] = f"{LOOPBACK}:{port}"
        for path in self._files:
            replacements[path] = str(Path(folder, Path(path).name))
        return replaced(self._text, replacements)

    @property
    def plain_address(self) -> str:
        """Path of the socket in place of port 80."""
        return str(Path(self._folder, "plain"))


class DeployedNginx(Service):
    """nginx with examples/deploy/nginx/shop.conf.

    Args:
        sockets: the UNIX sockets of the two instances.
        certificate: PEM.
        key: PEM.
    """

    stop_signal = signal.SIGQUIT  # graceful

    def __init__(self, sockets: Sequence[Path], certificate: bytes, key: bytes) -> None:
        super().__init__()
        self._sockets = sockets
        self._pem = {"shop.pem": certificate, "shop.key": key}

    def prepare(self, folder: str) -> None:
        """Write the PEM files."""
        for name, text in self._pem.items():
            Path(folder, name).write_bytes(text)

    def command(self, folder: str) -> list[str]:
        """Write the configuration; return a command line that uses it."""
        text = (DEPLOY / "nginx" / "shop.conf").read_text("utf-8")
        names = {f"/etc/nginx/{name}": f"{folder}/{name}" for name in self._pem}
        for number, path in enumerate(self._sockets, 1):
            names[f"unix:/run/shop/web-{number}.sock"] = f"unix:{path}"
        names["listen 443 ssl"] = f"listen {LOOPBACK}:{self.port} ssl"
        names["listen 80;"] = f"listen unix:{folder}/plain;"
        Path(folder, "shop.conf").write_text(replaced(text, names))
        places = "".join(
            f"    {kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        Path(folder, "nginx.conf").write_text(
            f"daemon off;\npid {folder}/pid;\nworker_processes 2;\n"
            f"error_log stderr;\nevents {{}}\n"
            f"http {{\n    access_log off;\n{places}    include shop.conf;\n}}\n"
        )
        return [
            *(find_program("nginx"), "-p", folder, "-c", f"{folder}/nginx.conf"),
            *("-e", "stderr"),
        ]

    def ready(self, pid: int) -> bool:
        """Compare the process id in its file, which nginx writes when it listens."""
        path = Path(self._folder, "pid")
        return path.exists() and path.read_text().strip() == str(pid)
