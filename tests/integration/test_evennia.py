"""Evennia 5 on `GreenWSGIResource`, with only the import changed.

Evennia pins its own versions of Twisted and Django, so these tests exist only in an
environment that has it:

    python3 -m venv evennia && evennia/bin/pip install . evennia
    evennia/bin/python -m twisted.trial tests.integration.test_evennia

A game is created with Evennia's own commands and served by its two processes: the
Server has the site, and the Portal in front of it is a reverse proxy.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import make_short_folder

from .processes import LOOPBACK, STOP_SECONDS, Server, free_ports
from .visitor import Visitor

COMMAND_SECONDS = 180.0
NAME, PASSWORD = "keeper", "correct horse battery"
SLEEPERS = 40  # twice the threads of Evennia's own pool
SLEEP_SECONDS = 1.0

TWISTED_IMPORT = "from twisted.web.wsgi import WSGIResource\n"
GREEN_IMPORT = "from txgreenwsgi import GreenWSGIResource as WSGIResource\n"

#: Added to the game's settings: private ports, and all of them on the loopback.
SETTINGS = """
WEBSERVER_PORTS = [({proxy}, {web})]
TELNET_PORTS = [{telnet}]
WEBSOCKET_CLIENT_PORT = {websocket}
AMP_PORT = {amp}
AMP_HOST = "{loopback}"
TELNET_INTERFACES = WEBSERVER_INTERFACES = ["{loopback}"]
WEBSOCKET_CLIENT_INTERFACE = "{loopback}"
"""

#: Views added to the game's: where they run, and one that sleeps.
URLS = """
import threading
from django.http import HttpResponse

def where(request):
    return HttpResponse(threading.current_thread().name, content_type="text/plain")

def pause(request):
    request.environ["txgreenwsgi.sleep"](float(request.GET["seconds"]))
    return HttpResponse("slept", content_type="text/plain")

urlpatterns = [path("where/", where), path("pause/", pause), *urlpatterns]
"""


class Game(Server):
    """A game with a superuser, created in a temporary folder and started.

    Attributes:
        web: port of the Server, where the resource is.
        proxy: port of the Portal, which passes requests on to the Server.
    """

    def __init__(self) -> None:
        self.folder = Path(make_short_folder("evennia-"))
        atexit.register(self.close)
        library = self.folder / "library"
        self._change_import(library)
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(library),
            "EVENNIA_SUPERUSER_USERNAME": NAME,
            "EVENNIA_SUPERUSER_EMAIL": "keeper@example.org",
            "EVENNIA_SUPERUSER_PASSWORD": PASSWORD,
            # The launcher runs `twistd` by its name.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.defpath)),
        }
        self.game = self.folder
        self.run("--init", "game")
        self.game = self.folder / "game"
        self.proxy, self.web, telnet, websocket, amp = free_ports(5)
        self._append(
            "server/conf/settings.py",
            SETTINGS.format(
                proxy=self.proxy,
                web=self.web,
                telnet=telnet,
                websocket=websocket,
                amp=amp,
                loopback=LOOPBACK,
            ),
        )
        self._append("web/website/urls.py", URLS)
        self.run("migrate")
        self.run("start")
        # After the set-up of a new game, the Server restarts once.
        self.wait_served("restarted in 'reset' mode")

    @staticmethod
    def _change_import(library: Path) -> None:
        """Copy the installed package, with another import in its webserver.py."""
        spec = find_spec("evennia")
        assert spec is not None
        assert spec.origin is not None
        package = shutil.copytree(Path(spec.origin).parent, library / "evennia")
        path = package / "server" / "webserver.py"
        source = path.read_text("utf-8")
        assert source.count(TWISTED_IMPORT) == 1, "it imports WSGIResource otherwise"
        path.write_text(source.replace(TWISTED_IMPORT, GREEN_IMPORT), "utf-8")

    def _append(self, name: str, text: str) -> None:
        with (self.game / name).open("a", encoding="utf-8") as file:
            file.write(text)

    @property
    def port(self) -> int:
        """The port of the Portal."""
        return self.proxy

    def run(self, *arguments: str) -> str:
        """Run a command of Evennia's in the game's folder and return its output.

        Raises:
            AssertionError: it failed; the message has its output and the logs.
        """
        done = subprocess.run(
            [
                *(sys.executable, "-m", "evennia.server.evennia_launcher"),
                *arguments,
            ],
            cwd=self.game,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{arguments}: {done.stdout}\n{self.log()}")
        return done.stdout

    def log(self) -> str:
        """Return all that the two processes have logged."""
        files = sorted((self.game / "server" / "logs").glob("*.log"))
        return "\n".join(file.read_text("utf-8", "replace") for file in files)

    def wait_served(self, logged: str) -> None:
        """Wait until a line is logged and a page comes through the Portal.

        Raises:
            AssertionError: neither happened in time; the message has the logs.
        """
        until = time.monotonic() + COMMAND_SECONDS
        while True:
            if logged in self.log():
                with contextlib.suppress(AssertionError):
                    if self.fetch("/where/").status == 200:
                        return
            if time.monotonic() > until:
                raise AssertionError(f"the game is not served:\n{self.log()}")
            time.sleep(0.2)

    def pids(self) -> list[int]:
        """Return the process ids of the game's processes that are alive."""
        alive = []
        for path in (self.game / "server").glob("*.pid"):
            with contextlib.suppress(ValueError, OSError):
                pid = int(path.read_text("ascii"))
                os.kill(pid, 0)
                alive.append(pid)
        return alive

    def close(self) -> None:
        """Kill the processes, if they are still there, and remove the folder."""
        for pid in self.pids() if hasattr(self, "game") else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def game() -> Game:
    """Return one game for all tests of this process."""
    return Game()


if find_spec("evennia") is not None:

    class EvenniaTests(SynchronousTestCase):
        """The site, login and admin of a game, by way of the Portal."""

        def setUp(self) -> None:
            """Start the game, once."""
            self.game = game()

        def log_in(self, page: str) -> Visitor:
            """Return a visitor that has logged in with the form on `page`."""
            visitor = Visitor(self.game)
            answer = visitor.submit(page, username=NAME, password=PASSWORD)
            self.assertEqual(answer.status, 302, self.game.log())
            return visitor

        def test_site(self) -> None:
            """The index, pages, static files and a page that does not exist."""
            for path, status, text in [
                ("/", 200, "Evennia"),
                ("/help/", 200, "Help"),
                ("/channels/", 200, "Public"),
                ("/webclient/", 200, "webclient"),
                ("/static/website/css/website.css", 200, "body"),
                ("/nothing/here", 404, ""),
            ]:
                answer = self.game.fetch(path)
                self.assertEqual(answer.status, status, (path, self.game.log()))
                self.assertIn(text, answer.text, path)

        def test_login(self) -> None:
            """An account logs in and out; a wrong password is refused."""
            refused = Visitor(self.game).submit(
                "/auth/login/", username=NAME, password="wrong"
            )
            self.assertEqual(refused.status, 200)
            self.assertIn("username and password are incorrect", refused.text)
            visitor = self.log_in("/auth/login/")
            self.assertIn("sessionid", visitor.cookies)
            self.assertIn(f"Logged in as {NAME}", visitor.fetch("/").text)
            self.assertEqual(visitor.submit("/auth/logout/", "/").status, 200)
            self.assertNotIn("Logged in as", visitor.fetch("/").text)

        def test_admin(self) -> None:
            """The superuser logs in to the admin, and changes an object there."""
            login = "/admin/login/?next=/admin/"
            self.assertEqual(self.game.fetch("/admin/").status, 302)
            visitor = self.log_in(login)
            self.assertIn("accounts", visitor.fetch("/admin/").text.lower())
            listed = visitor.fetch("/admin/accounts/accountdb/")
            self.assertEqual(listed.status, 200)
            self.assertIn(NAME, listed.text)
            answer = visitor.submit("/admin/typeclasses/tag/add/", **TAG)
            self.assertEqual(answer.status, 302, answer.text)
            self.assertIn("green-tea", visitor.fetch("/admin/typeclasses/tag/").text)

        def test_in_the_reactor_thread(self) -> None:
            """Requests run in the reactor's thread, and more sleep than in a pool."""
            self.assertEqual(self.game.fetch("/where/").text, "MainThread")
            path = f"/pause/?seconds={SLEEP_SECONDS}"
            with ThreadPoolExecutor(SLEEPERS) as pool:
                began = time.monotonic()
                answers = list(pool.map(self.game.fetch, [path] * SLEEPERS))
                seconds = time.monotonic() - began
            self.assertEqual([answer.text for answer in answers], ["slept"] * SLEEPERS)
            self.assertLess(seconds, SLEEPERS * SLEEP_SECONDS / 2)

        def test_warning(self) -> None:
            """The log of the Server names the preferred call."""
            self.assertIn("GreenWSGIResource(application", self.game.log())

        def test_reload_and_stop(self) -> None:
            """A reload serves the site again; a stop completes requests, then exits."""
            stopping = Game()
            self.addCleanup(stopping.close)
            stopping.run("reload")
            stopping.wait_served("Server successfully reloaded")
            with stopping.connect(stopping.web) as client:
                client.send(
                    b"GET /pause/?seconds=5 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                stopping.run("stop")
                answer = client.read_all()
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
            self.assertTrue(answer.endswith(b"\r\n\r\nslept"), answer)
            until = time.monotonic() + STOP_SECONDS
            while stopping.pids():
                self.assertLess(time.monotonic(), until, stopping.log())
                time.sleep(0.1)


#: The form of a tag in the admin.
TAG = {"db_key": "green-tea", "db_category": "drinks", "tag_type": "", "tag_data": ""}
