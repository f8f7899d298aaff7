"""The Django site of the examples on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import atexit
import csv
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .browser import NAMES, Browser, find_browser
from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    RawClient,
    ServerProcess,
    free_ports,
    start,
    wait_for,
)
from .services import PostgreSQL
from .visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSWORD = "correct horse battery"
MANAGE = (sys.executable, "examples/django_site/manage.py")
#: Well below the 30 s that a server waits for requests in flight when it stops.
SOON_SECONDS = 20.0
CONNECTIONS = 5
READERS = 40


def manage(*words: str, environ: Mapping[str, str]) -> str:
    """Run a management command of the site and return its output.

    Raises:
        AssertionError: it failed; the message has its output.
    """
    done = subprocess.run(
        [*MANAGE, *words],
        cwd=CHECKOUT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise AssertionError(f"{words}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def read_event(client: RawClient) -> dict[str, Any]:
    """Return the `data` of the next event of a stream; skip heartbeats."""
    while True:
        text = client.read_until(b"\n\n").decode()
        if found := re.search(r"^data: (.*)$", text, re.MULTILINE):
            event: dict[str, Any] = json.loads(found[1])
            return event


def multipart(token: str, content: bytes) -> bytes:
    """Return a form with a token and a file; its boundary is "frontier"."""
    return (
        b'--frontier\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"'
        b"\r\n\r\n" + token.encode() + b"\r\n--frontier\r\nContent-Disposition: "
        b'form-data; name="file"; filename="a photo.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n--frontier--\r\n"
    )


class SiteTests:
    """Tests for both databases."""

    environ: Mapping[str, str]
    server: ServerProcess
    driver: str

    def serve(self: Any) -> ServerProcess:
        """Start a server of the site on the test's database."""
        return start(
            self,
            "greenwsgi",
            "--app=examples.django_site.wsgi:application",
            f"--listen=tcp:0:interface={LOOPBACK}",
            environ=self.environ,
        )

    def sign_up(self: Any, name: str) -> Visitor:
        """Return a visitor logged in as a new user."""
        visitor = Visitor(self.server)
        answer = visitor.submit(
            "/accounts/signup", username=name, password1=PASSWORD, password2=PASSWORD
        )
        self.assertEqual(answer.status, 302, answer.text)
        return visitor

    def write(self: Any, visitor: Visitor, title: str) -> str:
        """Create a post and return its path."""
        answer = visitor.submit("/posts/new", title=title, text="some text")
        self.assertEqual(answer.status, 302, answer.text)
        return str(answer.headers["Location"])

    def test_posts(self: Any) -> None:
        """Accounts, posts, search and export work, and enforce their permissions."""
        ann, bob = self.sign_up("ann"), self.sign_up("bob")
        address = self.write(ann, "Green <tea>")
        self.write(bob, "Black tea")
        self.assertIn("Green &lt;tea&gt;", bob.fetch(address).text)
        self.assertEqual(bob.fetch(f"{address}/edit").status, 403)
        answer = ann.submit(f"{address}/edit", title="Herbs", text="-")
        self.assertEqual(answer.headers["Location"], address)
        found = bob.fetch("/?q=TEA").text
        self.assertIn("Black tea", found)
        self.assertNotIn("Herbs", found)
        rows = list(csv.reader(bob.fetch("/export.csv").text.splitlines()))
        told = [(row[1], row[3]) for row in rows[1:]]
        self.assertEqual(told, [("ann", "Herbs"), ("bob", "Black tea")])
        self.assertEqual(ann.submit("/accounts/logout", page="/").status, 302)
        login = ann.fetch("/posts/new").headers["Location"]
        self.assertEqual(login, "/accounts/login?next=/posts/new")

    def test_concurrency(self: Any) -> None:
        """Thirty visitors at a time, more than connections: no post is mixed up.

        Five users, in six browsers each, write three posts from each browser.
        """
        users = [self.sign_up(f"user-{number}") for number in range(5)]

        def visit(number: int) -> None:
            user = number % 5
            visitor = Visitor(self.server)
            visitor.cookies = dict(users[user].cookies)
            for turn in range(3):
                title = f"post {turn} of browser {number}"
                address = self.write(visitor, title)
                page = visitor.fetch(address).text
                self.assertIn(title, page)
                self.assertIn(f"Log out user-{user}<", page)

        with ThreadPoolExecutor(30) as pool:
            list(pool.map(visit, range(30)))
        export = Visitor(self.server).fetch("/export.csv")
        self.assertEqual(export.status, 200, export.text)
        rows = list(csv.reader(export.text.splitlines()))
        self.assertEqual(len(rows), 1 + 90, export.text)
        expected = sorted(
            (f"user-{number % 5}", f"post {turn} of browser {number}")
            for number in range(30)
            for turn in range(3)
        )
        self.assertEqual(sorted((row[1], row[3]) for row in rows[1:]), expected)

    def test_upload(self: Any) -> None:
        """An upload reports its progress while it runs, and arrives complete."""
        ann = self.sign_up("ann")
        address = self.write(ann, "Holiday")
        content = os.urandom(2_000_000)
        body = multipart(ann.token(address), content)
        with (
            ann.listen("/uploads/k1/progress") as watching,
            self.server.connect() as up,
        ):
            self.assertEqual(read_event(watching)["received"], 0)
            up.send(
                f"POST {address}/attach?progress=k1 HTTP/1.0\r\nHost: localhost\r\n"
                f"Content-Type: multipart/form-data; boundary=frontier\r\n"
                f"Content-Length: {len(body)}\r\nCookie: {ann.cookie}\r\n\r\n".encode()
            )
            for start_of in range(0, 1_500_000, 500_000):
                up.send(body[start_of : start_of + 500_000])
                # This event precedes the rest of the upload. Bytes that the server has
                # read ahead have not reached the application.
                while (event := read_event(watching))["received"] < start_of + 300_000:
                    self.assertFalse(event["ended"])
                self.assertLessEqual(event["received"], start_of + 500_000)
                self.assertEqual(event["total"], len(body))
            up.send(body[1_500_000:])
            while not (event := read_event(watching))["ended"]:
                pass
            self.assertEqual(event["received"], len(content))
            self.assertIn(b" 302 ", up.read_until(b"\r\n\r\n"))
        page = ann.fetch(address).text
        found = re.search(r'href="(/attachments/\d+)"', page)
        assert found is not None, page
        answer = Visitor(self.server).fetch(found[1])
        self.assertEqual(answer.body, content)
        self.assertIn("attachment", answer.headers["Content-Disposition"])

    def test_aborted_upload(self: Any) -> None:
        """An aborted upload changes no post, and the server keeps running."""
        ann = self.sign_up("ann")
        address = self.write(ann, "Holiday")
        body = multipart(ann.token(address), bytes(500_000))
        with self.server.connect() as up:
            up.send(
                f"POST {address}/attach HTTP/1.0\r\nHost: localhost\r\n"
                f"Content-Type: multipart/form-data; boundary=frontier\r\n"
                f"Content-Length: {len(body)}\r\nCookie: {ann.cookie}\r\n\r\n".encode()
            )
            up.send(body[:200_000])
        self.assertNotIn("/attachments/", ann.fetch(address).text)
        self.write(ann, "Afterwards")

    def test_live(self: Any) -> None:
        """Dozens of readers, more than connections, all receive each new post."""
        ann = self.sign_up("ann")
        self.write(ann, "before")
        readers = [ann.listen("/live/events") for _ in range(READERS)]
        for reader in readers:
            self.addCleanup(reader.socket.close)
            reader.read_until(b"retry: 2000\n\n")
        for number in range(3):
            self.write(ann, f"news {number}")
        for reader in readers:
            titles = [read_event(reader)["title"] for _ in range(3)]
            self.assertEqual(titles, ["news 0", "news 1", "news 2"])

    def test_reconnect(self: Any) -> None:
        """After a reconnect, a reader receives the missed posts, once."""
        ann = self.sign_up("ann")
        with ann.listen("/live/events") as reader:
            reader.read_until(b"retry: 2000\n\n")
            self.write(ann, "seen")
            seen = read_event(reader)
        self.write(ann, "missed")
        with ann.listen("/live/events", Last_Event_ID=str(seen["id"])) as reader:
            self.assertEqual(read_event(reader)["title"], "missed")
            self.write(ann, "new")
            self.assertEqual(read_event(reader)["title"], "new")

    def test_stop(self: Any) -> None:
        """At shutdown, the server ends the live pages, and exits soon."""
        reader = Visitor(self.server).listen("/live/events")
        reader.read_until(b"retry: 2000\n\n")
        began = time.monotonic()
        self.server.ask_to_stop()
        self.assertEqual(reader.read_all(), b"")
        self.server.wait_ended()
        self.assertLess(time.monotonic() - began, SOON_SECONDS)

    def test_pages_during_password_hashing(self: Any) -> None:
        """While passwords are hashed, other pages are served."""
        visitors = [Visitor(self.server) for _ in range(6)]
        tokens = [visitor.token("/accounts/signup") for visitor in visitors]
        self.assertEqual(len(set(tokens)), 6)
        signing = [
            threading.Thread(target=self.sign_up, args=(f"user-{number}",))
            for number in range(6)
        ]
        for thread in signing:
            thread.start()
        served = 0
        while any(thread.is_alive() for thread in signing):
            self.assertEqual(Visitor(self.server).fetch("/accounts/login").status, 200)
            served += 1
        # Six hashes are about two seconds of computing. If each of them blocked the
        # reactor, at most two pages would be served for each.
        self.assertGreater(served, 12)

    def test_own_tests(self: Any) -> None:
        """The site's own tests pass."""
        told = manage("test", "examples", "--noinput", environ=self.environ)
        self.assertRegex(told, r"Ran \d\d tests")
        self.assertRegex(told, r"\nOK")

    def test_check(self: Any) -> None:
        """`--check` finds nothing in the site that would block the reactor."""
        checking = ServerProcess(
            "greenwsgi",
            "--check",
            "--app=examples.django_site.wsgi:application",
            environ=self.environ,
        )
        self.addCleanup(checking.kill)
        checking.wait_ended()
        self.assertRegex(checking.log(), rf"(?m)^green +{self.driver}$")
        self.assertRegex(checking.log(), r"(?m)^0 of \d+ would block")


@functools.cache
def migrated_sqlite() -> Path:
    """Return a folder with a database of empty tables."""
    folder = Path("django-site-tables").absolute()
    folder.mkdir()
    manage("migrate", environ={"DJANGO_SITE_DATA": str(folder)})
    return folder


class SQLiteTests(SiteTests, SynchronousTestCase):
    """Without any database server."""

    driver = "sqlite3"

    def setUp(self) -> None:
        """Serve the site, with empty tables."""
        folder = Path(self.mktemp()).absolute()
        shutil.copytree(migrated_sqlite(), folder)
        self.environ = {"DJANGO_SITE_DATA": str(folder)}
        self.server = self.serve()

    def test_rungreen(self) -> None:
        """`manage.py rungreen` serves the site, including its live page."""
        (port,) = free_ports(1)
        command = [*MANAGE, "rungreen", "--noreload", f"{LOOPBACK}:{port}"]
        with subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env={**os.environ, **self.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                said = ""
                while "Quit the server" not in said:
                    line = process.stdout.readline()
                    self.assertTrue(line, said)
                    said += line
                asked = f"GET /live/events HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n"
                with RawClient(
                    socket.create_connection((LOOPBACK, port), ANSWER_SECONDS)
                ) as reader:
                    reader.send(asked.encode())
                    reader.read_until(b"retry: 2000\n\n")
                    process.terminate()
                    self.assertEqual(reader.read_all(), b"")
                self.assertEqual(process.wait(SOON_SECONDS), 0)
            finally:
                process.kill()

    def test_live_page_in_a_browser(self) -> None:
        """An open page shows a post that another user writes."""
        executable = find_browser()
        if executable is None:
            raise SkipTest(f"no browser is installed: none of {', '.join(NAMES)}")
        ann = self.sign_up("ann")
        self.write(ann, "before")
        browser = Browser(self, executable)
        browser.open(f"http://{LOOPBACK}:{self.server.port}/live")
        browser.wait_true("document.getElementById('state').innerText == 'connected'")
        self.write(ann, "<i>now</i>")
        browser.wait_true(
            "document.querySelector('#posts a').innerText == '<i>now</i>'"
        )
        self.assertEqual(
            browser.run("document.querySelectorAll('#posts li').length"), 2
        )
        self.assertEqual(browser.complaints, [])

    def test_upload_in_a_browser(self) -> None:
        """The page of a post uploads a file, with a progress bar, and then shows it."""
        executable = find_browser()
        if executable is None:
            raise SkipTest(f"no browser is installed: none of {', '.join(NAMES)}")
        ann = self.sign_up("ann")
        address = self.write(ann, "Holiday")
        browser = Browser(self, executable)
        here = f"http://{LOOPBACK}:{self.server.port}"
        browser.open(f"{here}/accounts/login")
        for name, value in ann.cookies.items():
            browser.call("Network.setCookie", name=name, value=value, url=here)
        browser.open(here + address)
        browser.run(
            "(() => { const chosen = new DataTransfer();"
            "chosen.items.add(new File([new Uint8Array(40_000_000)], 'large.bin'));"
            "document.querySelector('#attach [name=file]').files = chosen.files;"
            "sessionStorage.told = '';"
            "new MutationObserver(() => { sessionStorage.told +="
            " document.getElementById('status').innerText + '|'; }).observe("
            "document.getElementById('status'), {childList: true});"
            "document.querySelector('#attach button').click(); })()"
        )
        browser.wait_true("document.body?.innerText.includes('large.bin')")
        # How often it reported progress depends on the network: see test_upload.
        self.assertRegex(
            browser.run("sessionStorage.told"), r"^(the server has [\d,]+ bytes\|)+done"
        )
        self.assertEqual(browser.complaints, [])


@functools.cache
def postgresql() -> PostgreSQL:
    """Return one server for all tests of this process, with a template database."""
    service = PostgreSQL()
    service.__enter__()
    atexit.register(service.__exit__, None, None, None)
    with admin(service) as connection:
        connection.execute("CREATE DATABASE site_tables")
    manage("migrate", environ={"DJANGO_SITE_DATABASE": url(service, "site_tables")})
    return service


def url(service: PostgreSQL, name: str) -> str:
    """Return the URL of a database, as the site's settings take it."""
    return f"postgresql://postgres@{LOOPBACK}:{service.port}/{name}"


def admin(service: PostgreSQL) -> psycopg.Connection[Any]:
    """Return a connection to the server's own database."""
    return psycopg.connect(url(service, "postgres"), autocommit=True)


class PostgreSQLTests(SiteTests, SynchronousTestCase):
    """On PostgreSQL, chosen by one setting."""

    driver = "psycopg"

    def setUp(self) -> None:
        """Serve the site, with empty tables."""
        service = postgresql()
        self.admin = admin(service)
        self.addCleanup(self.admin.close)
        self.name = f"site_{uuid.uuid4().hex}"
        self.admin.execute(f"CREATE DATABASE {self.name} TEMPLATE site_tables")
        folder = Path(self.mktemp()).absolute()
        self.environ = {
            "DJANGO_SITE_DATABASE": url(service, self.name),
            "DJANGO_SITE_CONNECTIONS": str(CONNECTIONS),
            "DJANGO_SITE_DATA": str(folder),
            "DJANGO_SITE_SECRET_KEY": "the same for all processes of a test",
        }
        self.server = self.serve()

    def sessions(self) -> list[tuple[int, str, str]]:
        """Return the database server's list of the site's connections."""
        rows = self.admin.execute(
            # Not of autovacuum, which may visit a new database at any time.
            "SELECT pid, state, query FROM pg_stat_activity WHERE datname = %s"
            " AND backend_type = 'client backend'",
            [self.name],
        ).fetchall()
        return [(pid, state, query) for pid, state, query in rows]

    def listeners(self) -> list[int]:
        """Return the process ids of the backends that LISTEN."""
        return [pid for pid, _, query in self.sessions() if "LISTEN" in query]

    def test_connections_are_bounded(self) -> None:
        """All readers of the live page share one connection; pages share the others."""
        visitor = Visitor(self.server)
        readers = [visitor.listen("/live/events") for _ in range(READERS)]
        for reader in readers:
            self.addCleanup(reader.socket.close)
            reader.read_until(b"retry: 2000\n\n")
        with ThreadPoolExecutor(30) as pool:
            pages = [pool.submit(visitor.fetch, "/") for _ in range(60)]
            while not all(page.done() for page in pages):
                self.assertLessEqual(len(self.sessions()), CONNECTIONS + 1)
            self.assertEqual({page.result().status for page in pages}, {200})
        self.assertEqual(len(self.listeners()), 1)
        # A connection is returned after the response.
        wait_for(
            lambda: {state for _, state, _ in self.sessions()} == {"idle"},
            lambda: f"only idle sessions: {self.sessions()}",
        )

    def test_two_processes(self) -> None:
        """Readers connected to one process receive what another process writes."""
        ann = self.sign_up("ann")
        other = self.serve()
        there = Visitor(other)
        there.cookies = ann.cookies
        with there.listen("/live/events") as reader:
            reader.read_until(b"retry: 2000\n\n")
            self.write(ann, "from the first")
            self.assertEqual(read_event(reader)["title"], "from the first")

    def test_closed_session(self) -> None:
        """When PostgreSQL ends the session, readers are disconnected, and catch up."""
        ann = self.sign_up("ann")
        with ann.listen("/live/events") as reader:
            reader.read_until(b"retry: 2000\n\n")
            self.write(ann, "first")
            first = read_event(reader)
            (pid,) = self.listeners()
            self.admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            self.assertEqual(reader.read_all(), b"")
        self.write(ann, "second")
        with ann.listen("/live/events", Last_Event_ID=str(first["id"])) as reader:
            self.assertEqual(read_event(reader)["title"], "second")
            self.write(ann, "third")
            self.assertEqual(read_event(reader)["title"], "third")

    def test_last_reader_disconnects(self) -> None:
        """After the last reader disconnects, the listening connection is closed."""
        visitor = Visitor(self.server)
        with visitor.listen("/live/events") as reader:
            reader.read_until(b"retry: 2000\n\n")
            self.assertTrue(
                [query for *_, query in self.sessions() if "LISTEN" in query]
            )
        ann = self.sign_up("ann")
        until = time.monotonic() + 20
        while self.listeners():
            # The server notices by a write to the reader or the end of its connection.
            self.write(ann, "is anybody there?")
            self.assertLess(time.monotonic(), until)
