"""`--reload`: files change, and the worker is restarted, as real processes."""

from __future__ import annotations

import os
import pty
import select
import sys
import threading
import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .processes import ANSWER_SECONDS, LOOPBACK, START_SECONDS
from .test_workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .processes import Answer

APP = """
import time
import helper

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(300)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/events":
        return events()
    return [helper.TEXT.encode()]

def events():
    while True:
        yield b"event\\n"
        time.sleep(0.05)
"""

#: Executes a command in a session whose terminal is a descriptor.
CONTROLLING = """
import fcntl, os, sys, termios
os.setsid()
fd = int(sys.argv[1])
fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
os.dup2(fd, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""

FLASK = """
from flask import Flask, render_template

app = Flask(__name__)

@app.get("/")
def index():
    return render_template("index.html")
"""

DJANGO = """
import django.conf
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

django.conf.settings.configure(
    SECRET_KEY="x",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": ["templates"],
        }
    ],
)
urlpatterns = [path("", lambda request: render(request, "index.html"))]
app = get_wsgi_application()
"""


class ReloadTests(SynchronousTestCase):
    """A server with `--reload`."""

    def setUp(self) -> None:
        """Make the folder of the application."""
        self.folder = short_folder(self)
        self.write("helper.py", "TEXT = 'one'")
        self.write("site.py", APP)

    def write(self, name: str, text: str) -> None:
        """Write a file of the application."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def start(
        self,
        *options: str,
        app: str = "site_app:app",
        wrapper: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> Workers:
        """Start a server and wait for its worker."""
        if app == "site_app:app":  # `site` is a module of Python
            (self.folder / "site.py").rename(self.folder / "site_app.py")
        self.server = server = Workers(
            "greenwsgi",
            f"--app={app}",
            f"--chdir={self.folder}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            "--reload",
            *options,
            wrapper=wrapper,
            pass_fds=pass_fds,
        )
        self.addCleanup(server.kill)
        self.addCleanup(server.stop_if_running)
        server.wait_ready(1)
        return server

    def fetch(self, accept: str = "*/*") -> Answer:
        """Fetch "/"."""
        return self.server.fetch("/", headers={"Accept": accept})

    def wait_answer(self, condition: Callable[[Answer], bool]) -> Answer:
        """Repeat a request until the answer satisfies a condition.

        No request fails meanwhile: the socket stays open.
        """
        return self.server.wait_for(
            lambda: answer if condition(answer := self.fetch()) else None,
            lambda: f"another answer than {self.fetch()}",
        )

    def wait_text(self, text: str) -> None:
        """Wait until the application answers with a text."""
        self.wait_answer(lambda answer: answer.text == text)

    def restarts(self) -> int:
        """Return the number of restarts because of changed files."""
        return self.server.log().count("restarting the worker")

    def test_change(self) -> None:
        """A changed module is served; requests wait meanwhile, and none is refused."""
        self.start()
        self.assertEqual(self.fetch().text, "one")
        failures: list[BaseException] = []
        stopping = threading.Event()

        def visit() -> None:
            try:
                while not stopping.is_set():
                    self.fetch()
            except BaseException as error:
                failures.append(error)

        visitor = threading.Thread(target=visit)
        visitor.start()
        try:
            # Of the same size, within the same second: compiled code would be reused.
            for text in ("two", "six", "ten"):
                self.write("helper.py", f"TEXT = '{text}'")
                self.wait_text(text)
        finally:
            stopping.set()
            visitor.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.restarts(), 3)
        self.assertIn("helper.py changed: restarting the worker", self.server.log())

    def test_polling(self) -> None:
        """It works without watchfiles."""
        self.write("sitecustomize.py", "import sys; sys.modules['watchfiles'] = None")
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(self.folder)
        try:
            self.start()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
        self.assertIn("(polling)", self.server.log())
        self.write("helper.py", "TEXT = 'two'")
        self.wait_text("two")

    def test_broken_application(self) -> None:
        """A broken application is a page with the traceback, until it is fixed."""
        self.start()
        for number, (name, text, shown) in enumerate(
            [
                ("helper.py", "TEXT = '<b>", "SyntaxError"),
                ("helper.py", "import no_such_module", "ModuleNotFoundError"),
                ("helper.py", "1 / 0", "ZeroDivisionError"),
                ("helper.py", "raise SystemExit(3)", "SystemExit"),
                ("helper.py", "import os; os._exit(4)", "exited with status 4"),
                ("site_app.py", "nothing = 1", "module site_app has no app"),
            ],
            1,
        ):
            before = (self.folder / name).read_text()
            self.write(name, text)
            answer = self.wait_answer(lambda answer: answer.status == 500)
            self.assertIn(shown, answer.text)
            page = self.fetch("text/html")
            self.assertEqual(page.headers["Content-Type"], "text/html; charset=utf-8")
            self.assertNotIn("<b>", page.text)
            self.assertIn(shown, self.server.log())
            self.write(name, before)
            self.wait_text("one")
            self.assertEqual(self.restarts(), 2 * number, self.server.log())

    def test_broken_at_the_start(self) -> None:
        """The first start may fail too; creating a missing module is a fix."""
        (self.folder / "helper.py").unlink()
        self.start()
        answer = self.fetch()
        self.assertEqual(answer.status, 500)
        self.assertIn("No module named 'helper'", answer.text)
        self.write("helper.py", "TEXT = 'two'")
        self.wait_text("two")

    def test_requests_in_flight(self) -> None:
        """Slow requests and endless responses do not hold up a restart."""
        server = self.start()
        with server.connect() as slow, server.connect() as endless:
            slow.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            endless.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            endless.read_until(b"event\n")
            self.write("helper.py", "TEXT = 'two'")
            self.wait_text("two")
            self.assertIn(b"503", slow.read_all())
            endless.read_all()

    def test_new_and_deleted_modules(self) -> None:
        """Modules imported later, and deleted ones, are watched."""
        self.start()
        self.write("more.py", "TEXT = 'more'")
        self.write("helper.py", "from more import TEXT")
        self.wait_text("more")
        self.write("more.py", "TEXT = 'even more'")
        self.wait_text("even more")
        (self.folder / "more.py").unlink()
        self.wait_answer(lambda answer: answer.status == 500)
        self.write("renamed.py", "TEXT = 'again'")
        (self.folder / "renamed.py").rename(self.folder / "more.py")
        self.wait_text("again")

    def test_other_files(self) -> None:
        """Only files that match a pattern are watched besides modules."""
        self.write("helper.py", "TEXT = open('data/text').read()")
        self.write("data/text", "one")
        self.start(f"--reload-extra={self.folder}/data/*")
        self.write("instance/db.sqlite", "x")
        self.write("data/text", "two")
        self.wait_text("two")
        self.assertEqual(self.restarts(), 1)

    def test_configuration_file(self) -> None:
        """The configuration file is watched, and read again."""
        self.write("green.toml", 'server_header = "one"\n')
        self.start(f"--config={self.folder / 'green.toml'}")
        self.write("green.toml", 'server_header = "two"\n')
        self.wait_answer(lambda answer: answer.headers["Server"] == "two")

    def test_flask(self) -> None:
        """The templates of a Flask application are watched."""
        self.write("shop.py", FLASK)
        self.write("templates/index.html", "one")
        self.start(app="shop:app")
        self.assertEqual(self.fetch().text, "one")
        self.write("templates/index.html", "two")
        self.wait_text("two")

    def test_django(self) -> None:
        """The templates of a Django project are watched."""
        self.write("shop.py", DJANGO)
        self.write("templates/index.html", "one")
        self.start(app="shop:app")
        self.assertEqual(self.fetch().text, "one")
        self.write("templates/index.html", "two")
        self.wait_text("two")

    def test_debugger(self) -> None:
        """`breakpoint()` reads from the terminal and writes to it."""
        self.write(
            "shop.py",
            "def app(environ, start_response):\n"
            "    value = 1\n"
            "    breakpoint()\n"
            "    start_response('200 OK', [])\n"
            "    return [b'value %d' % value]\n",
        )
        master, terminal = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, terminal)
        # The terminal has to be the controlling one, in a session of its own.
        wrapper = (sys.executable, "-c", CONTROLLING, str(terminal))
        self.start(app="shop:app", wrapper=wrapper, pass_fds=(terminal,))
        answers: list[str] = []
        visitor = threading.Thread(target=lambda: answers.append(self.fetch().text))
        visitor.start()
        self.read_until(master, b"(Pdb) ")
        os.write(master, b"value = 42\n")
        self.read_until(master, b"(Pdb) ")
        os.write(master, b"c\n")
        visitor.join()
        self.assertEqual(answers, ["value 42"])

    def read_until(self, terminal: int, mark: bytes) -> None:
        """Read from a terminal up to a mark."""
        text = b""
        end = time.monotonic() + START_SECONDS
        while mark not in text:
            if time.monotonic() > end:
                self.fail(f"{text!r}:\n{self.server.log()}")
            if select.select([terminal], [], [], 0.1)[0]:
                text += os.read(terminal, 1024)

    def test_killed_worker(self) -> None:
        """A worker that is killed is restarted at once."""
        server = self.start()
        (pid,) = server.ready()
        os.kill(pid, 9)
        server.wait_logged(r"worker 2 .* is ready", ANSWER_SECONDS)
        self.assertEqual(self.fetch().text, "one")
