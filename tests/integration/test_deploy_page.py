"""examples/deploy/README.md: its first section, followed block by block."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import metadata

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .command_server import CommandServer
from .deployments import DEPLOY, replaced
from .processes import CHECKOUT, LOOPBACK, STOP_SECONDS, free_ports, wait_for
from .services import find_program


def blocks() -> list[tuple[str, str]]:
    """Return the language and the text of each block of code of the section."""
    text = (DEPLOY / "README.md").read_text("utf-8")
    section = re.split(r"^## ", text, flags=re.M)[1]
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)


class DeployPageTests(SynchronousTestCase):
    """From `pip install` to two TLS workers behind HAProxy."""

    def test_followed(self) -> None:
        """Every command works: the site is served, reloads, and refuses broken code."""
        self.assertEqual(
            [language for language, _ in blocks()],
            ["sh", "python", "sh", "sh", "text", "sh", "sh", "sh"],
        )
        install, program, openssl, serve, config, proxy, ask, reload = (
            text for _, text in blocks()
        )
        self.assertIn('pip install "txgreenwsgi[tls]"', install)
        self.assertIn("tls", metadata("txgreenwsgi").get_all("Provides-Extra", []))

        # The environment of the tests is in place of a new one.
        self.folder = short_folder(self)
        script = self.folder / "venv" / "bin" / "txgreenwsgi"
        script.parent.mkdir(parents=True)
        script.write_text(
            f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(CHECKOUT))} "
            f'exec {shlex.quote(sys.executable)} -m txgreenwsgi "$@"\n'
        )
        script.chmod(0o755)
        self.shop = self.folder / "shop.py"
        self.shop.write_text(program)
        self.run_block(openssl)

        port, public = free_ports(2)
        serve = replaced(serve, {"https:8443:": f"https:{port}:"})
        words = shlex.split(serve.replace("\\\n", " "))
        self.assertEqual(words[0], "venv/bin/txgreenwsgi")
        server = CommandServer(self, words[1:], self.folder, port)
        config = replaced(
            config,
            {
                f"{LOOPBACK}:8443": f"{LOOPBACK}:{port}",
                f"{LOOPBACK}:9443": f"{LOOPBACK}:{public}",
            },
        )
        (self.folder / "haproxy.cfg").write_text(config)
        self.start_proxy(proxy)
        self.ask = replaced(ask, {":9443/": f":{public}/"})
        server.wait_for(lambda: "worker" in self.answer(), "an answer")

        self.workers(1)
        self.shop.write_text(replaced(program, {"VERSION = 1": "VERSION = 2"}))
        self.run_block(reload)
        # An old worker may answer on a connection that HAProxy keeps alive.
        wait_for(lambda: not self.answered_by(1), "answers of the new code only")

        before = self.workers(2)
        self.shop.write_text("import no_such_module\n")
        done = self.run_shell(reload)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("no_such_module", done.stdout)
        self.assertLessEqual(len(self.workers(2) | before), 2)
        server.stop()

    def run_shell(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run commands of the shell in the folder, up to the first that fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )

    def run_block(self, text: str) -> str:
        """Run commands that succeed; return their output."""
        done = self.run_shell(text)
        self.assertEqual(done.returncode, 0, f"{text}\n{done.stdout}")
        return done.stdout

    def start_proxy(self, command: str) -> None:
        """Start HAProxy; the test's cleanup ends it."""
        name, *words = shlex.split(command)
        process = subprocess.Popen(
            [find_program(name), *words], cwd=self.folder, stderr=subprocess.DEVNULL
        )

        def end() -> None:
            process.terminate()
            process.wait(STOP_SECONDS)

        self.addCleanup(end)

    def answer(self) -> str:
        """Return the page, or the reason why there is none."""
        return self.run_shell(self.ask).stdout

    def answered_by(self, version: int) -> set[str]:
        """Return the workers of this version in some answers."""
        pattern = rf"^version {version}, worker (\d+), {LOOPBACK} by https$"
        answers = "".join(self.answer() for _ in range(10))
        return set(re.findall(pattern, answers, re.M))

    def workers(self, version: int) -> set[str]:
        """Return the workers in some answers, all of which have this version."""
        found = self.answered_by(version)
        self.assertIn(len(found), (1, 2))
        self.assertEqual(self.answered_by(3 - version), set())
        return found
