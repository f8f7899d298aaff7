"""`--check` and `--offload` of the command, with real drivers and a real Django."""

from __future__ import annotations

import subprocess
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import TWISTD, serve

_APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""

#: Blocks for the given time, as a driver written in C would.
_BLOCKING = """
import ctypes

def pause(seconds):
    ctypes.CDLL(None).usleep(int(seconds * 1e6))
    return b"paused"

class Session:
    def fetch(self, seconds):
        return pause(seconds)
"""


class CommandTestCase(SynchronousTestCase):
    """Tests with the files of an application."""

    def setUp(self) -> None:
        """Create a folder."""
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def write(self, name: str, code: str) -> None:
        """Write a module of the application."""
        (self.folder / name).write_text(textwrap.dedent(code))

    def run_check(self, app: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `--check` to its end."""
        command = [*TWISTD, "-n", "--pidfile=", "greenwsgi", "--check"]
        return subprocess.run(
            [*command, f"--app={app}", f"--chdir={self.folder}", *options],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def check(self, app: str, *options: str) -> tuple[int, str]:
        """Return the exit status and the lines of `--check`, without twistd's log."""
        done = self.run_check(app, *options)
        lines = [line for line in done.stdout.splitlines() if " [" not in line]
        return done.returncode, "\n".join(lines)

    def says(self, output: str, verdict: str, name: str) -> None:
        """Check that one of the lines gives this verdict of `name`."""
        lines = [line.split(maxsplit=1) for line in output.splitlines()]
        self.assertIn([verdict, name], lines, output)


class CheckTests(CommandTestCase):
    """`twistd greenwsgi --check`."""

    def test_nothing_blocks(self) -> None:
        """The status is 0 if all of the application's drivers are green."""
        self.write(
            "good.py",
            "import dns.resolver, psycopg, psycopg2, pymysql, redis, requests\n"
            "from pymemcache.client.base import Client\n"
            "from txgreenwsgi.green import sqlite3\n" + _APP,
        )
        status, output = self.check("good:app")
        for name in (
            *("dns", "psycopg", "psycopg2", "pymemcache", "pymysql", "redis"),
            *("requests", "sqlite3", "urllib3"),
        ):
            self.says(output, "green", name)
        self.assertEqual(status, 0, output)
        self.assertIn("0 of", output)

    def test_something_blocks(self) -> None:
        """The status is 1 if a driver blocks; the remedy names the importing module."""
        self.write("bad.py", "import sqlite3, requests\n" + _APP)
        status, output = self.check("bad:app")
        self.assertEqual(status, 1, output)
        self.says(output, "BLOCKS", "sqlite3")
        self.says(output, "green", "requests")
        self.assertIn("import txgreenwsgi.green.sqlite3 instead (in bad)", output)

    def test_offloaded(self) -> None:
        """A function named by --offload counts as off-loaded; others may block."""
        self.write("mixed.py", "import sqlite3\n" + _APP)
        status, output = self.check("mixed:app", "--offload=sqlite3.connect")
        self.assertEqual(status, 0, output)
        self.says(output, "off-loaded", "sqlite3")
        self.assertIn("only sqlite3.connect; its other calls block", output)

    def test_offload_of_nothing(self) -> None:
        """An unknown name ends the check with one line, without a traceback."""
        self.write("good.py", _APP)
        done = self.run_check("good:app", "--offload=good.nothing")
        self.assertNotEqual(done.returncode, 0)
        output = done.stdout + done.stderr
        self.assertIn("--offload 'good.nothing'", output)
        self.assertNotIn("Traceback", output)

    def test_unpatched(self) -> None:
        """Without patches every client blocks, and thread-locals are shared."""
        self.write(
            "plain.py",
            "import redis, threading, psycopg\nstate = threading.local()\n" + _APP,
        )
        status, output = self.check("plain:app", "--patch=none")
        self.assertEqual(status, 1, output)
        self.says(output, "BLOCKS", "redis")
        self.says(output, "BLOCKS", "psycopg")
        self.says(output, "warning", "plain.state")
        status, output = self.check("plain:app")
        self.assertEqual(status, 0, output)
        self.assertNotIn("plain.state", output)

    def django(self, database: str, more: str = "") -> None:
        """Write a Django project with this database."""
        self.write(
            "site_settings.py",
            f"SECRET_KEY = 'x'\nROOT_URLCONF = 'site_urls'\n"
            f"INSTALLED_APPS = ['django.contrib.contenttypes']\n"
            f"DATABASES = {{'default': {database}}}\n{more}",
        )
        self.write("site_urls.py", "urlpatterns = []\n")
        self.write(
            "site_app.py",
            """
            import os
            os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
            from django.core.wsgi import get_wsgi_application
            application = get_wsgi_application()
            """,
        )

    def test_blocking_django(self) -> None:
        """SQLite, persistent connections and sessions in files are each reported."""
        self.django(
            "{'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:', "
            "'CONN_MAX_AGE': 60}",
            "SESSION_ENGINE = 'django.contrib.sessions.backends.file'\n"
            "MIDDLEWARE = ['django.contrib.sessions.middleware.SessionMiddleware']\n",
        )
        status, output = self.check("site_app:application")
        self.assertEqual(status, 1, output)
        self.says(output, "BLOCKS", "DATABASES['default']['ENGINE']")
        self.says(output, "warning", "DATABASES['default']['CONN_MAX_AGE']")
        self.says(output, "warning", "SESSION_ENGINE")
        self.says(output, "green", "django.db.connections")
        self.assertIn("txgreenwsgi.django.backends.sqlite3", output)

    def test_views_of_django(self) -> None:
        """Modules imported only by views are checked; failed imports are reported."""
        self.django("{'ENGINE': 'django.db.backends.dummy'}")
        self.write("site_urls.py", "import shelf\nurlpatterns = []\n")
        self.write("shelf.py", "import sqlite3\n")
        status, output = self.check("site_app:application")
        self.assertEqual(status, 1, output)
        self.says(output, "BLOCKS", "sqlite3")
        self.assertIn("(in shelf)", output)
        self.write("shelf.py", "import nothing_of_that_name\n")
        status, output = self.check("site_app:application")
        self.assertEqual(status, 0, output)
        self.says(output, "warning", "ROOT_URLCONF")
        self.assertIn("nothing_of_that_name", output)

    def test_green_django(self) -> None:
        """The engines that the remedies name are found to be green."""
        for engine in (
            "txgreenwsgi.django.backends.sqlite3",
            "txgreenwsgi.django.backends.postgresql",
            "txgreenwsgi.django.backends.mysql",
        ):
            self.django(f"{{'ENGINE': '{engine}', 'NAME': 'x', 'CONN_MAX_AGE': 60}}")
            status, output = self.check("site_app:application")
            self.assertEqual(status, 0, output)
            self.says(output, "green", "DATABASES['default']['ENGINE']")
            self.says(output, "green", "django.db.connections")

    def test_unpatched_django(self) -> None:
        """Without patches, connections are isolated as well; their sockets block."""
        self.django("{'ENGINE': 'django.db.backends.postgresql', 'NAME': 'x'}")
        status, output = self.check("site_app:application", "--patch=none")
        self.assertEqual(status, 1, output)
        self.says(output, "green", "django.db.connections")
        self.says(output, "BLOCKS", "DATABASES['default']['ENGINE']")


class OffloadTests(CommandTestCase):
    """`twistd greenwsgi --offload`: blocking functions are called in threads."""

    def seconds(self, view: str, *options: str) -> float:
        """Return the seconds of ten concurrent requests that each block for 0.3 s."""
        self.write("blocking.py", _BLOCKING)
        self.write(
            "views.py",
            "import blocking\n\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n"
            f"    return [{view}]\n",
        )
        words = (f"--chdir={self.folder}", "--threads-for=none", *options)
        server = serve(self, "views:app", *words)
        began = time.monotonic()
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: server.fetch("/").body, range(10)))
        seconds = time.monotonic() - began
        self.assertEqual(set(answers), {b"paused"})
        return seconds

    def test_a_function(self) -> None:
        """Ten calls of an off-loaded blocking function overlap."""
        view = "blocking.pause(0.3)"
        blocking = self.seconds(view)
        self.assertGreater(blocking, 2.0)
        named = "--offload=blocking.pause"
        self.assertLess(self.seconds(view, named), 0.8 * blocking)

    def test_a_method(self) -> None:
        """A method can be off-loaded too."""
        view = "blocking.Session().fetch(0.3)"
        self.assertLess(self.seconds(view, "--offload=blocking.Session.fetch"), 2.8)
