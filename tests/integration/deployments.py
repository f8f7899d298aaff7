"""The files of examples/deploy, read and run with the real programs.

The files name addresses, ports and paths of a machine that is set up for them. Here
they are replaced by free ports on the loopback interface and by temporary folders. A
name that is missing from its file is an error, so the tests cannot miss a change.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tests.folders import make_short_folder

from .processes import CHECKOUT, LOOPBACK
from .services import HAProxy, Nginx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from unittest import TestCase

__all__ = [
    "DEPLOY",
    "DeployedHAProxy",
    "DeployedNginx",
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
            "\nglobal\n": f"\nglobal\n    stats socket {folder}/stats\n",
            "\ndefaults\n": "\ndefaults\n    retries 0\n",
            # The tests may not raise the limit of open files.
            "maxconn 20000\n": "maxconn 400\n",
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


class DeployedNginx(Nginx):
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

    def configuration(self, folder: str) -> str:
        """Include the file, and use files below the folder only."""
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
        return (
            "worker_processes 2;\n"
            f"http {{\n    access_log off;\n{places}    include shop.conf;\n}}\n"
        )
