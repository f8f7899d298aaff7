"""Requests in threads and in tasks of one process, with the standard library.

The paths under /t/ of the application are served in threads, those under /g/ in tasks.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, LOOPBACK, ServerProcess, serve, shared, start

if TYPE_CHECKING:
    from collections.abc import Sequence

APP = "tests.integration.threads_app:app"
THREADS = "--threads-for=/t/*"

#: Maximum time for an event in a server, in seconds.
PATIENCE = 60


def fetch_all(
    server: ServerProcess, paths: Sequence[str], body: bytes | None = None
) -> list[str]:
    """Request all paths at once; return the texts, each with its status before it."""
    texts = [""] * len(paths)

    def fetch(index: int) -> None:
        method = "GET" if body is None else "POST"
        try:
            answer = server.fetch(paths[index], method, body)
        except AssertionError as error:
            texts[index] = str(error)
        else:
            texts[index] = f"{answer.status} {answer.text.strip()}"

    threads = [threading.Thread(target=fetch, args=(i,)) for i in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return texts


def mixed(view: str, count: int) -> list[str]:
    """Return paths of a view, every second one for a thread."""
    return [f"/{'tg'[number % 2]}/{view}" for number in range(count)]


def in_threads(view: str, count: int) -> list[str]:
    """Return paths of a view, all for threads."""
    return [f"/t/{view}"] * count


class StdlibTests(SynchronousTestCase):
    """The standard library, patched, between threads and tasks."""

    modules = "all"
    # Without patches, a task that waits for a lock blocks the reactor.
    sharing = staticmethod(mixed)

    def setUp(self) -> None:
        """Share a server."""
        self.server = shared(APP, THREADS, f"--patch={self.modules}")

    def assert_all(self, expected: str, paths: list[str]) -> None:
        """Fail unless all responses have this text."""
        self.assertEqual(set(fetch_all(self.server, paths)), {f"200 {expected}"})

    def test_places(self) -> None:
        """A pattern chooses the thread."""
        self.assert_all("thread", in_threads("kind", 4))
        self.assert_all("task", ["/g/kind"] * 4)

    def test_bank(self) -> None:
        """A lock protects a balance from 200 requests."""
        texts = fetch_all(self.server, self.sharing("bank", 200))
        self.assertEqual(max(int(text.split()[1]) for text in texts), 1000)

    def test_queues(self) -> None:
        """Requests that wait for an item are woken by others, queued behind them."""
        for kind in ("", "_simple"):
            waiting = self.sharing("get" + kind, 24)
            paths = [*waiting, *self.sharing("put" + kind, 24)]
            texts = fetch_all(self.server, paths)
            self.assertEqual(texts, ["200 item"] * 24 + ["200 put"] * 24)

    def test_condition(self) -> None:
        """Requests notify each other by a condition."""
        self.assert_all("True", self.sharing("turn", 40))

    def test_semaphore(self) -> None:
        """A semaphore limits the number of requests."""
        texts = fetch_all(self.server, self.sharing("limited", 40))
        self.assertTrue(set(texts) <= {"200 1", "200 2", "200 3"}, texts)

    def test_event(self) -> None:
        """One request releases 20 others."""
        texts = fetch_all(
            self.server, [*self.sharing("wait_event", 20), "/t/set_event"]
        )
        self.assertEqual(texts, ["200 True"] * 20 + ["200 set"])

    def test_executors(self) -> None:
        """A shared executor and those of requests."""
        self.assert_all("[45, 45, 7]", mixed("executors", 8))

    def test_processes(self) -> None:
        """Subprocesses and forks."""
        self.assert_all("[b'42', 7]", mixed("processes", 4))

    def test_asyncio(self) -> None:
        """`asyncio.run` in a request."""
        self.assert_all("[0, 1, 2]", mixed("run_asyncio", 4))

    def test_locals(self) -> None:
        """Context variables belong to the request; thread-locals are not shared."""
        self.assert_all("['unset', True, True]", self.sharing("locals", 40))

    def test_api(self) -> None:
        """Every function of the API, and Deferreds that the view makes itself."""
        expected = (
            "['LATER', 'SPAWNED', 'OFFLOADED', 'THREAD', 'resumed', 'timed out', "
            "True, False]"
        )
        self.assert_all(expected, mixed("api", 10))

    def test_net(self) -> None:
        """A view connects to its own server."""
        self.assert_all("task", mixed("net", 4))

    def test_uploads(self) -> None:
        """Request bodies of 3 MB."""
        body = b"x" * 3_000_000
        digests = fetch_all(self.server, mixed("upload", 6), body)
        self.assertEqual(len(set(digests)), 1)
        self.assertRegex(digests[0], "^200 [0-9a-f]{64}$")

    def test_downloads(self) -> None:
        """A file, and blocks given to `write`, arrive as a whole."""
        texts = fetch_all(self.server, mixed("write", 4))
        self.assertEqual({len(text) for text in texts}, {5_000_004})
        files = fetch_all(self.server, mixed("file", 4))
        self.assertEqual(len(set(files)), 1)

    def test_early_end(self) -> None:
        """A complete response is sent while its iterator still waits."""
        answer = self.server.fetch("/t/early")
        self.assertEqual(answer.text, "early\n")
        self.server.fetch("/g/set_event")

    def test_failures(self) -> None:
        """An exception of a view is a 500; one of an iterator cuts the response."""
        self.assertEqual(
            set(fetch_all(self.server, mixed("fail", 4))), {"500 Internal Server Error"}
        )
        for text in fetch_all(self.server, mixed("broken", 4)):
            self.assertIn("IncompleteRead", text)

    def test_disconnects(self) -> None:
        """A client that disconnects ends the iteration; `close()` may wait."""
        before = self.closed()
        for _ in range(5):
            for kind in "tg":
                with self.server.connect() as client:
                    client.send(
                        f"GET /{kind}/stream?100000 HTTP/1.1\r\n"
                        "Host: localhost\r\n\r\n".encode()
                    )
                    client.read_until(b"data: 1")
        started = time.monotonic()
        while self.closed() != (before[0] + 5, before[1] + 5):
            self.assertLess(time.monotonic() - started, PATIENCE, self.closed())
            time.sleep(0.05)

    def closed(self) -> tuple[int, int]:
        """Return the numbers of streams that were closed, in threads and tasks."""
        words = self.server.fetch("/g/closed").text.split()
        return words.count("thread"), words.count("task")

    def test_log_lines(self) -> None:
        """Lines of threads and tasks are whole, each with its request."""
        self.assert_all("logged", mixed("logs", 8))
        lines = re.findall(
            r"<line (\S+) \d+ x{40}> \(request \1\)\n", self.server.log()
        )
        self.assertEqual((len(lines), self.server.log().count("<line")), (8000, 8000))

    def test_nothing_is_left(self) -> None:
        """Requests in threads, and disconnected ones, leave no objects behind."""
        for number in range(60):
            with self.server.connect() as client:
                path = ("stream?100000", "spin?0.01", "kind")[number % 3]
                client.send(f"GET /t/{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        self.assert_all("ended", ["/g/end_executor"])
        started = time.monotonic()
        while True:
            text = self.server.fetch("/g/objects").text
            # This request has an exchange and a task; a thread may begin or end.
            exchanges, calls, tasks, suspensions, sinks, *_ = map(int, text.split())
            if (exchanges, calls, sinks, suspensions) == (1, 0, 0, 0) and tasks <= 2:
                break
            self.assertLess(time.monotonic() - started, PATIENCE, text)
            time.sleep(0.2)


class UnpatchedTests(StdlibTests):
    """The same without patches: locks are shared between threads only."""

    modules = "none"
    sharing = staticmethod(in_threads)


class ReactorTests(SynchronousTestCase):
    """Other reactors."""

    def test_reactors(self) -> None:
        """Threads work with every reactor."""
        for reactor in ("asyncio", "poll", "select"):
            server = start(
                self,
                f"--reactor={reactor}",
                "greenwsgi",
                f"--app={APP}",
                f"--listen=tcp:0:interface={LOOPBACK}",
                THREADS,
            )
            texts = fetch_all(server, mixed("api", 4))
            self.assertEqual(len(set(texts)), 1, texts)
            self.assertIn("'resumed'", texts[0])
            server.kill()


class AutomaticTests(SynchronousTestCase):
    """The default of the command."""

    def test_move_and_return(self) -> None:
        """A slow path moves to threads, and returns when it is quick again."""
        server = serve(self, APP)
        for _ in range(8):
            server.fetch("/a/spin?0.04")
        self.assertIn("--threads-for 'GET /a/spin' makes this permanent", server.log())
        end = time.monotonic() + PATIENCE
        while "requests run in tasks again" not in server.log():
            # On a busy machine, one or the other is not quick.
            self.assertLess(time.monotonic(), end, server.log())
            server.fetch("/a/spin?0.0001")
        self.assertIn("GET /a/spin was quick 50 times in a row", server.log())
        self.assertEqual(server.log().count("requests run in threads"), 1)

    def test_wait_in_c(self) -> None:
        """A path that waits in C moves, and stays in threads."""
        server = serve(self, APP)
        for _ in range(60):
            server.fetch("/a/block_in_c")
        self.assertIn("GET /a/block_in_c has held up", server.log())
        self.assertNotIn("in tasks again", server.log())


class StopTests(SynchronousTestCase):
    """The end of the server while threads run."""

    def begin(self, view: str, *options: str) -> ServerProcess:
        """Start a server and a request."""
        server = serve(self, APP, THREADS, *options)
        server.fetch("/t/kind")
        client = server.connect()
        self.addCleanup(client.socket.close)
        client.send(f"GET /t/{view} HTTP/1.0\r\n\r\n".encode())
        self.client = client
        # The request has begun when a later one has ended.
        server.fetch("/t/kind")
        return server

    def test_drain(self) -> None:
        """A request in a thread finishes after SIGTERM."""
        server = self.begin("spin?1")
        server.ask_to_stop()
        self.assertIn(b"spun", self.client.read_all())
        server.wait_ended()

    def test_endless_threads(self) -> None:
        """An endless thread is named with its line, and the process exits."""
        for view in ("forever", "waits_in_c"):
            server = self.begin(view, "--graceful-timeout=1")
            server.ask_to_stop()
            server.wait_ended()
            self.assertRegex(
                server.log(),
                rf"GET /t/{view} \(request \S+\) did not end after its cancellation, "
                rf"killing it; waiting on its thread, at \S+threads_app.py:\d+ "
                rf"in {view}",
            )

    def test_second_signal(self) -> None:
        """A second SIGTERM ends the grace period."""
        server = self.begin("forever")
        server.ask_to_stop()
        server.wait_logged("SIGTERM: stopping")
        server.ask_to_stop()
        server.wait_ended()
        self.assertIn("in forever", server.log())

    def test_deadline(self) -> None:
        """A deadline during a computation is a 504; the thread continues."""
        server = self.begin("forever", "--request-timeout=1", "--graceful-timeout=1")
        self.assertIn(b"504 Gateway Timeout", self.client.read_all())
        self.assertEqual(server.fetch("/t/kind").text, "thread\n")


class TwistedTests(SynchronousTestCase):
    """Code that uses Twisted directly, in threads and in tasks."""

    def test_twisted(self) -> None:
        """Deferreds that the view makes itself work in threads."""
        server = shared("tests.integration.twisted_threads_app:app", THREADS)
        for view, expected in (
            ("agent", "b'task\\n'"),
            ("process", "b'42'"),
            ("pool", "7"),
            ("inline", "9"),
            ("loop", "3"),
            ("limit", "timed out"),
            ("lock", "locked"),
            ("query", "[(1,)]"),
        ):
            texts = fetch_all(server, mixed(view, 10))
            self.assertEqual(set(texts), {f"200 {expected}"}, view)


class EmbeddedTests(SynchronousTestCase):
    """Several servers in one process."""

    def test_patterns(self) -> None:
        """Each server has its own patterns, and all share the threads."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        file = folder / "servers.tac"
        file.write_text(_SERVERS)
        server = start(
            self, "-y", str(file), endpoints=3, environ={"CHECKOUT": str(CHECKOUT)}
        )
        places = (("thread", "task"), ("task", "thread"), ("thread", "task"))
        for port, kinds in zip(list(server.ports), places, strict=True):
            server.ports[0] = port
            texts = fetch_all(server, ["/t/kind", "/g/kind"])
            self.assertEqual(texts, [f"200 {kind}" for kind in kinds], port)
            self.assertEqual(len(set(fetch_all(server, mixed("api", 4)))), 1)
            digests = fetch_all(server, mixed("upload", 2), b"x" * 100_000)
            self.assertEqual(len(set(digests)), 1, digests)


_SERVERS = """\
import os, sys
sys.path.insert(0, os.environ["CHECKOUT"])
from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.server import Site
from txgreenwsgi import monkey
monkey.patch_all()
from txgreenwsgi import GreenWSGIResource, service
from tests.integration.threads_app import app

listen = "tcp:0:interface=127.0.0.1"
application = Application("servers")
for patterns in (["/t/*"], ["auto", "/g/*"]):
    service(app, [listen], threads_for=patterns, threads=2).setServiceParent(
        application
    )
site = Site(GreenWSGIResource(app, threads_for=["GET /t/*", "POST /t/*"]))
StreamServerEndpointService(
    serverFromString(reactor, listen), site
).setServiceParent(application)
"""
