"""Real clients and real servers: concurrent use in views, and interruptions."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .clients_app import SLOW_SECONDS, SOON_SECONDS
from .processes import ServerProcess, shared
from .services import MariaDB, Memcached, PostgreSQL, Redis, Service
from .slow_clients import CLIENTS
from .slow_servers import SlowServers

AT_ONCE = 200
#: Sequentially they take 400 seconds.
MOST_SECONDS = 60.0
#: Time in which a process must have closed its connections.
SETTLE_SECONDS = 20.0

WAYS = ("timeout", "cancel", "disconnect", "its own limit")

_SERVICES: dict[str, type[Service]] = {
    "redis": Redis,
    "pymysql": MariaDB,
    "psycopg": PostgreSQL,
    "psycopg2": PostgreSQL,
    "sqlalchemy": PostgreSQL,
}
_started: dict[Any, Any] = {}


def _start(service: type[Service]) -> int:
    """Return the port of a server that runs until this process ends."""
    if service not in _started:
        running = service().__enter__()
        atexit.register(running.__exit__, None, None, None)
        _started[service] = running.port
    port: int = _started[service]
    return port


def _slow_servers() -> dict[str, Any]:
    if SlowServers not in _started:
        folder = tempfile.mkdtemp(prefix="slow-servers-")
        atexit.register(shutil.rmtree, folder)
        servers = SlowServers(Path(folder), _start(Memcached)).__enter__()
        atexit.register(servers.__exit__, None, None, None)
        _started[SlowServers] = servers.ports
    ports: dict[str, Any] = _started[SlowServers]
    return ports


class ClientTestCase(SynchronousTestCase):
    """Tests of clients in the views of a patched server."""

    def server(self, name: str) -> tuple[ServerProcess, dict[str, str]]:
        """Return the server of the views, and the header with the other ports."""
        kind = CLIENTS[name]
        if kind.module and find_spec(kind.module.partition(".")[0]) is None:
            raise SkipTest(f"{kind.module} is not installed")
        ports = dict(_slow_servers())
        if name in _SERVICES:
            service = _SERVICES[name]
            ports[service.__name__.lower()] = _start(service)
        server = shared("tests.integration.clients_app:app", "--on-disconnect=cancel")
        return server, {"X-Ports": json.dumps(ports)}

    def view(self, name: str, *words: object, method: str = "GET") -> Any:
        """Return the JSON that a view answers.

        Raises:
            AssertionError: it failed; the message has the server's log.
        """
        server, headers = self.server(name)
        path = "/" + "/".join(quote(str(word)) for word in words)
        answer = server.fetch(path, headers=headers)
        if answer.status != 200:
            raise AssertionError(f"{path}: {answer.status}\n{server.log()[-6000:]}")
        return json.loads(answer.body)

    def leave(self, name: str, *words: object) -> None:
        """Send a request and disconnect before it is answered."""
        server, headers = self.server(name)
        path = "/" + "/".join(quote(str(word)) for word in words)
        with server.connect() as client:
            ports = headers["X-Ports"]
            client.send(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Ports: {ports}\r\n\r\n".encode()
            )
            time.sleep(2 * SOON_SECONDS)

    def settles(self, name: str, before: dict[str, int]) -> None:
        """Check that interrupted queries leave no connection or waiter."""
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            now = self.view(name, "count")
            more = {what: now[what] for what in now if now[what] > before[what]}
            if not more:
                return
            if time.monotonic() > until:
                self.assertEqual(now, before)
            time.sleep(0.1)


class ClientTests(ClientTestCase):
    """Each client: overlapping questions and interruptions."""

    def check(self, name: str) -> None:
        """Check all guarantees for one client."""
        self.at_once(name)
        ways = [way for way in WAYS if CLIENTS[name].has_limit or "limit" not in way]
        before = self.view(name, "count")
        with ThreadPoolExecutor(len(ways)) as pool:
            # Each way has its own client object.
            errors = list(pool.map(lambda way: self.interrupted(name, way), ways))
        self.assertEqual(len(errors), len(ways))
        self.settles(name, before)

    def at_once(self, name: str) -> None:
        """200 slow questions overlap, and each gets its own answer."""
        start = threading.Barrier(AT_ONCE + 1)

        def ask(number: int) -> str:
            start.wait()
            return str(self.view(name, "once", name, number))

        self.view(name, "once", name, 0)  # imports and initialisation
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = [pool.submit(ask, number) for number in range(AT_ONCE)]
            start.wait()
            began = time.monotonic()
            for number, answer in enumerate(answers):
                self.assertEqual(answer.result(), str(number))
        seconds = time.monotonic() - began
        self.view(name, "end", name)
        self.assertGreater(seconds, SLOW_SECONDS)
        self.assertLess(seconds, MOST_SECONDS)

    def interrupted(self, name: str, way: str) -> list[str]:
        """Interrupt a wait; later answers must be right. Return the first error."""
        if way == "disconnect":
            self.leave(name, "begin", way, name)
        else:
            self.view(name, "begin", way, name)
        errors: list[str] = self.view(name, "after", way, name)
        # At most the first question fails: some clients notice only then that their
        # connection is closed.
        self.assertLessEqual(len(errors), 1, (way, errors))
        return errors

    def test_http_client(self) -> None:
        """http.client: one persistent connection."""
        self.check("http.client")

    def test_urllib3(self) -> None:
        """The pool of urllib3."""
        self.check("urllib3")

    def test_urllib3_over_https(self) -> None:
        """The pool of urllib3 over TLS."""
        self.check("urllib3 over https")

    def test_requests(self) -> None:
        """A session of Requests."""
        self.check("requests")

    def test_requests_over_https(self) -> None:
        """A session of Requests over TLS."""
        self.check("requests over https")

    def test_httpx(self) -> None:
        """A client of HTTPX."""
        self.check("httpx")

    def test_smtplib(self) -> None:
        """A connection of smtplib."""
        self.check("smtplib")

    def test_ftplib(self) -> None:
        """A connection of ftplib, with its data connections."""
        self.check("ftplib")

    def test_xmlrpc(self) -> None:
        """A proxy of xmlrpc.client."""
        self.check("xmlrpc.client")

    def test_dnspython(self) -> None:
        """A resolver of dnspython."""
        self.check("dnspython")

    def test_redis(self) -> None:
        """redis-py and its pool."""
        self.check("redis")

    def test_memcached(self) -> None:
        """The pool of pymemcache."""
        self.check("pymemcache")

    def test_pymysql(self) -> None:
        """PyMySQL on MariaDB."""
        self.check("pymysql")

    def test_psycopg(self) -> None:
        """Psycopg 3 on PostgreSQL."""
        self.check("psycopg")

    def test_psycopg2(self) -> None:
        """psycopg2 on PostgreSQL, through its wait callback."""
        self.check("psycopg2")

    def test_sqlalchemy(self) -> None:
        """An engine of SQLAlchemy on Psycopg 3."""
        self.check("sqlalchemy")

    def test_the_table(self) -> None:
        """Each client of the table has a test."""
        tested = {word for word in dir(self) if word.startswith("test_")}
        self.assertEqual(len(tested), len(CLIENTS) + 1)


class DisconnectingClientTests(ClientTestCase):
    """Ten libraries while a quarter of the clients disconnect.

    The pool has as many connections as there are requests, so that all overlap.
    """

    requests_at_once = 50

    def check(self, name: str) -> None:
        """Check the answers, and what is left of interrupted requests."""
        self.view(name, "size", name, 1)
        self.view(name, "once", name, 0)  # imports and initialisation
        self.view(name, "end", name)
        before = self.view(name, "count")
        self.view(name, "size", name, self.requests_at_once)
        self.round(name, leaving=4)
        until = time.monotonic() + SETTLE_SECONDS
        while self.view(name, "busy", name):
            self.assertLess(time.monotonic(), until, "the pool has lost connections")
            time.sleep(0.1)
        seconds = self.round(name, leaving=0)
        self.assertLess(seconds, MOST_SECONDS)
        self.view(name, "end", name)
        self.settles(name, before)

    def round(self, name: str, leaving: int) -> float:
        """Send all requests at once; return the seconds that they take.

        Args:
            name: of the client.
            leaving: each n-th client disconnects before the answer; 0 for none.
        """
        start = threading.Barrier(self.requests_at_once + 1)

        def ask(number: int) -> str | None:
            start.wait()
            if leaving and number % leaving == 0:
                self.leave(name, "once", name, number)
                return None
            return str(self.view(name, "once", name, number))

        with ThreadPoolExecutor(self.requests_at_once) as pool:
            answers = [pool.submit(ask, n) for n in range(self.requests_at_once)]
            start.wait()
            began = time.monotonic()
            for number, answer in enumerate(answers):
                self.assertIn(answer.result(), (str(number), None))
        return time.monotonic() - began

    def test_requests(self) -> None:
        """A session of Requests."""
        self.check("requests")

    def test_urllib3(self) -> None:
        """The pool of urllib3, over TLS."""
        self.check("urllib3 over https")

    def test_httpx(self) -> None:
        """A client of HTTPX."""
        self.check("httpx")

    def test_redis(self) -> None:
        """redis-py and its pool."""
        self.check("redis")

    def test_pymemcache(self) -> None:
        """The pool of pymemcache."""
        self.check("pymemcache")

    def test_pymysql(self) -> None:
        """PyMySQL, with a connection for each request."""
        self.check("pymysql")

    def test_psycopg(self) -> None:
        """Psycopg 3, with a connection for each request."""
        self.check("psycopg")

    def test_psycopg2(self) -> None:
        """psycopg2, with a connection for each request."""
        self.check("psycopg2")

    def test_sqlalchemy(self) -> None:
        """An engine of SQLAlchemy."""
        self.check("sqlalchemy")

    def test_dnspython(self) -> None:
        """A resolver of dnspython."""
        self.check("dnspython")
