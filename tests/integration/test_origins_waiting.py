"""The examples that wait in plain calls, over real connections."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from examples.origins import a13_producer, a14_chargen

from .processes import LOOPBACK, ServerProcess, serve, shared, start
from .upstreams import Upstream, database


class WaitCallbackTests(SynchronousTestCase):
    """A9: a database driver with a wait callback."""

    def setUp(self) -> None:
        """Start a database, and the example that queries it."""
        self.database = Upstream(self, database)
        self.server = serve(
            self,
            "examples.origins.a09_wait_callback:app",
            f"--environ=DATABASE={self.database.address}",
        )

    def test_query(self) -> None:
        """The view waits for an answer that arrives in pieces."""
        self.assertEqual(self.server.fetch("/?select+one").text, "SELECT ONE\n")

    def test_concurrency(self) -> None:
        """Fifty slow queries overlap: none blocks the reactor."""
        query = "x" * 30  # takes 0.2 s
        started = time.monotonic()
        with ThreadPoolExecutor(50) as pool:
            answers = list(
                pool.map(lambda _: self.server.fetch(f"/?{query}").text, range(50))
            )
        self.assertEqual(set(answers), {query.upper() + "\n"})
        self.assertLess(time.monotonic() - started, 8.0)

    def test_silent(self) -> None:
        """A silent database times out; other requests are served meanwhile."""
        started = time.monotonic()
        with self.server.connect() as client:
            client.send(b"GET /?HANG HTTP/1.0\r\n\r\n")
            self.assertEqual(self.server.fetch("/?quick").text, "QUICK\n")
            self.assertLess(time.monotonic() - started, 2.9)
            self.assertIn(b"504 Gateway Timeout", client.read_all())
        self.assertGreater(time.monotonic() - started, 2.9)

    def test_unreachable(self) -> None:
        """A database that disconnects or is not reachable gets a 503."""
        answer = self.server.fetch("/?GO+AWAY")
        self.assertEqual(answer.status, 503)
        self.assertIn("gone away", answer.text)
        with socket.create_server((LOOPBACK, 0)) as closed:
            nowhere = closed.getsockname()[1]
        server = serve(
            self,
            "examples.origins.a09_wait_callback:app",
            f"--environ=DATABASE={LOOPBACK}:{nowhere}",
        )
        answer = server.fetch("/?x")
        self.assertEqual(answer.status, 503)
        self.assertIn("refused", answer.text)


class FifoTests(SynchronousTestCase):
    """A11: lines of a FIFO, sent to all listeners."""

    def setUp(self) -> None:
        """Create a FIFO, and start the example that reads it."""
        if not hasattr(os, "mkfifo"):
            raise SkipTest(f"{sys.platform} has no FIFOs")
        self.fifo = Path(self.mktemp()).absolute()
        self.fifo.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(self.fifo)
        self.server = serve(
            self, "examples.origins.a11_fifo_comet:app", f"--environ=FIFO={self.fifo}"
        )

    def write(self, text: bytes) -> None:
        """Write to the FIFO as a program would, and close it."""
        started = time.monotonic()
        while True:
            try:
                fd = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # no reader has opened it yet
                self.assertLess(time.monotonic() - started, 15.0)
                time.sleep(0.02)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)

    def listen(self) -> Any:
        """Connect a listener."""
        client = self.server.connect()
        self.addCleanup(client.socket.close)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.read_until(b"listening\n")
        return client

    def test_all_listeners(self) -> None:
        """All listeners receive each line of several writers, also in parts."""
        one, two = self.listen(), self.listen()
        self.write(b"tea is ready\n")
        self.write(b"cake ")
        self.write(b"too\nlast\n")
        for client in (one, two):
            for line in (b"tea is ready\n", b"cake too\n", b"last\n"):
                client.read_until(line)

    def test_listener_disconnects(self) -> None:
        """A disconnect does not affect others; after the last, the FIFO is closed."""
        one, two = self.listen(), self.listen()
        one.socket.close()
        self.write(b"still there?\n")
        two.read_until(b"still there?\n")
        two.socket.close()
        started = time.monotonic()
        while True:
            try:
                os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                break  # the FIFO has no reader
            self.assertLess(time.monotonic() - started, 15.0)
            time.sleep(0.02)
        three = self.listen()
        self.write(b"hello again\n")
        three.read_until(b"hello again\n")
        self.assertNotIn("Traceback", self.server.log())


class ProducerTests(SynchronousTestCase):
    """A13: a hundred megabytes."""

    APP = "examples.origins.a13_producer:app"
    SIZE = a13_producer.BLOCKS * a13_producer.BLOCK_BYTES

    def receive(self, path: bytes) -> tuple[int, int]:
        """Read slowly, then to the end; return the KiB before and while it is slow."""
        server = serve(self, self.APP)
        self.assertEqual(server.fetch("/small").text, "small\n")
        before = server.resident_kib()
        digest = hashlib.sha256()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.settimeout(15.0)
            sock.connect((LOOPBACK, server.port))
            sock.sendall(b"GET %b HTTP/1.0\r\n\r\n" % path)
            with sock.makefile("rb") as response:
                while response.readline() != b"\r\n":
                    pass
                digest.update(response.read(1 << 20))
                time.sleep(1.0)
                # The producer waits; other requests are served.
                self.assertEqual(server.fetch("/small").text, "small\n")
                meanwhile = server.resident_kib()
                size = 1 << 20
                while data := response.read(1 << 20):
                    digest.update(data)
                    size += len(data)
        self.assertEqual(size, self.SIZE)
        expected = hashlib.sha256()
        for block in a13_producer.blocks():
            expected.update(block)
        self.assertEqual(digest.digest(), expected.digest())
        return before, meanwhile

    def test_slow_reader(self) -> None:
        """A response to a slow reader, written or yielded, uses no memory."""
        if not Path("/proc/self/status").exists():
            raise SkipTest(f"{sys.platform} has no /proc with a process's memory")
        for path in (b"/write", b"/yield"):
            before, meanwhile = self.receive(path)
            self.assertLess(meanwhile - before, 8 * 1024)

    def test_reader_disconnects(self) -> None:
        """A reader that disconnects ends the response; other requests are served."""
        server = serve(self, self.APP)
        for path in (b"/write", b"/yield"):
            with server.connect() as client:
                client.send(b"GET %b HTTP/1.0\r\n\r\n" % path)
                client.read_until(b"\r\n\r\n")
            self.assertEqual(server.fetch("/small").text, "small\n")
        self.assertNotIn("Traceback", server.log())


class ChargenTests(SynchronousTestCase):
    """A14: characters until the client has enough."""

    def test_client_disconnects(self) -> None:
        """The lines are RFC 864's; after a disconnect, write raises, `finally` runs."""
        server = serve(self, "examples.origins.a14_chargen:app")
        expected = a14_chargen.lines()
        with server.connect() as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            for _ in range(200):
                self.assertEqual(client.read_until(b"\r\n"), next(expected))
        server.wait_logged(r"chargen: ClientDisconnected: .*closed")
        server.wait_logged(r"chargen: over after \d+ lines")
        self.assertNotIn("Traceback", server.log())

    def test_others_are_served(self) -> None:
        """An endless response to a fast reader does not block other requests."""
        server = serve(self, "examples.origins.a14_chargen:app")
        with server.connect() as greedy, server.connect() as other:
            greedy.send(b"GET / HTTP/1.0\r\n\r\n")
            greedy.read_until(b"\r\n\r\n")
            other.send(b"GET / HTTP/1.0\r\n\r\n")
            started = time.monotonic()
            while b"!" not in other.received:
                greedy.received = b""
                greedy.socket.recv(1 << 20)
                other.socket.settimeout(0.01)
                try:
                    other.received += other.socket.recv(100)
                except TimeoutError:
                    self.assertLess(time.monotonic() - started, 15.0)


class LongPollTests(SynchronousTestCase):
    """A15: a chat by long polling."""

    def setUp(self) -> None:
        """Start an empty chat."""
        self.server = serve(self, "examples.origins.a15_long_poll:app")

    def listen(self, after: int, seconds: float = 10.0) -> Any:
        """Return the messages after a line; wait for one."""
        return json.loads(
            self.server.fetch(f"/listen?after={after}&seconds={seconds}").body
        )

    def say(self, text: str) -> None:
        """Send a message."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.server.fetch("/say", "POST", urlencode({"text": text}), form)
        self.assertEqual(answer.status, 204)

    def wait_for_listeners(self, count: int) -> None:
        """Wait until that many listeners wait."""
        started = time.monotonic()
        while json.loads(self.server.fetch("/listeners").body)["waiting"] != count:
            self.assertLess(time.monotonic() - started, 15.0)
            time.sleep(0.02)

    def test_all_listeners(self) -> None:
        """Thirty waiting listeners receive each message at once."""
        with ThreadPoolExecutor(30) as pool:
            waiting = [pool.submit(self.listen, 0) for _ in range(30)]
            self.wait_for_listeners(30)
            started = time.monotonic()
            self.say("hello")
            answers = [each.result() for each in waiting]
            self.assertLess(time.monotonic() - started, 8.0)
        self.assertEqual(answers, [{"lines": ["hello"], "next": 1}] * 30)
        # Earlier messages are returned without a wait.
        self.assertEqual(self.listen(0), {"lines": ["hello"], "next": 1})

    def test_no_message(self) -> None:
        """After the timeout, the answer has no messages."""
        started = time.monotonic()
        self.assertEqual(self.listen(0, 0.3), {"lines": [], "next": 0})
        self.assertGreater(time.monotonic() - started, 0.28)
        self.wait_for_listeners(0)

    def test_listener_disconnects(self) -> None:
        """A listener that disconnects while it waits does not affect the others."""
        with self.server.connect() as client:
            client.send(b"GET /listen?after=0&seconds=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            self.wait_for_listeners(1)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(self.listen, 0)
            self.wait_for_listeners(2)
            self.say("hello?")
            self.assertEqual(other.result()["lines"], ["hello?"])
        self.wait_for_listeners(0)


class TemplateTests(SynchronousTestCase):
    """A16: a template that flushes."""

    APP = "examples.origins.a16_template_flush:app"

    def test_top_comes_first(self) -> None:
        """The client has part 1 before part 2 is computed, and so on."""
        with shared(self.APP).connect() as client:
            started = time.monotonic()
            client.send(b"GET /?<b> HTTP/1.0\r\n\r\n".replace(b"<b>", b"Ann"))
            client.read_until(b"Slow news for Ann")
            top = time.monotonic() - started
            client.read_until(b"item 1 &lt;of&gt; 2")
            first = time.monotonic() - started
            client.read_until(b"item 2")
            client.read_until(b"</ul>")
            last = time.monotonic() - started
        self.assertGreater(first, 0.45)
        self.assertGreater(last, 0.95)
        self.assertGreater(last - top, 0.3)

    def test_client_disconnects(self) -> None:
        """A client that disconnects after part 1 is noticed at the next flush."""
        server = serve(self, self.APP)
        with server.connect() as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            client.read_until(b"Slow news")
        time.sleep(0.7)
        self.assertIn("Slow news for you", server.fetch("/").text)
        self.assertNotIn("Traceback", server.log())


class CounterTests(SynchronousTestCase):
    """A17: counters in interleaved requests."""

    APP = "examples.origins.a17_counters:app"

    def counts(self, path: str, *options: str) -> list[str]:
        """Return the counts of ten interleaved requests."""
        server = shared(self.APP, *options)
        with ThreadPoolExecutor(10) as pool:
            return list(
                pool.map(
                    lambda steps: server.fetch(f"{path}?{steps}").text, range(1, 11)
                )
            )

    def test_context_variable(self) -> None:
        """A context variable belongs to the request: all counts are right."""
        self.assertEqual(
            self.counts("/context"),
            [f"{steps} steps, counted {steps}\n" for steps in range(1, 11)],
        )

    def test_thread_local(self) -> None:
        """An unpatched thread-local is shared by all requests: the counts are wrong."""
        wrong = [
            answer
            for answer in self.counts("/local", "--patch=none")
            if len(set(re.findall(r"\d+", answer))) > 1
        ]
        self.assertGreater(len(wrong), 3)

    def test_patched_thread_local(self) -> None:
        """With patches, the default, a thread-local belongs to the request."""
        self.assertEqual(
            self.counts("/local"),
            [f"{steps} steps, counted {steps}\n" for steps in range(1, 11)],
        )

    def test_alone(self) -> None:
        """Without other requests, both counts are right."""
        for path in ("/local", "/context"):
            answer = shared(self.APP).fetch(f"{path}?4").text
            self.assertEqual(answer, "4 steps, counted 4\n")


class FiveDeepTests(SynchronousTestCase):
    """A18: a wait five functions deep, without a yield."""

    APP = "examples.origins.a18_five_deep:app"

    def test_bill(self) -> None:
        """It waits inside a sort key, a property and a generator."""
        started = time.monotonic()
        answer = shared(self.APP).fetch("/?cherry,fig,apple")
        self.assertEqual(answer.text, "fig apple cherry: 140\n")
        self.assertGreater(time.monotonic() - started, 0.28)

    def test_error(self) -> None:
        """An exception raised at the bottom is caught at the top."""
        answer = shared(self.APP).fetch("/?fig,stone")
        self.assertEqual((answer.status, answer.text), (404, "stone is no fruit\n"))

    def test_concurrency(self) -> None:
        """Twenty concurrent requests take less than half of twenty in sequence."""
        server = shared(self.APP)
        started = time.monotonic()
        server.fetch("/?a,bb,ccc")
        one = time.monotonic() - started
        started = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            answers = set(
                pool.map(lambda _: server.fetch("/?a,bb,ccc").text, range(20))
            )
        self.assertEqual(answers, {"a bb ccc: 60\n"})
        self.assertLess(time.monotonic() - started, 10 * one)


class DjangoTests(SynchronousTestCase):
    """A20: Django with fifty concurrent slow views and isolated transactions."""

    def setUp(self) -> None:
        """Start Django with an empty database."""
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        self.server: ServerProcess = start(
            self,
            "greenwsgi",
            "--app=examples.origins.a20_django:app",
            f"--listen=tcp:0:interface={LOOPBACK}",
            environ={"NOTES_DATABASE": str(path.absolute())},
        )

    def get(self, path: str) -> Any:
        """Return the JSON that a view answers."""
        return json.loads(self.server.fetch(path).body)

    def test_slow_views_and_writers(self) -> None:
        """Fifty slow views with a transaction each, and writers at the same time.

        The slow views overlap, and each sees one state of the database from beginning
        to end, whatever is committed meanwhile.
        """
        with ThreadPoolExecutor(60) as pool:
            started = time.monotonic()
            slow = [pool.submit(self.get, "/slow?seconds=1") for _ in range(50)]
            wrote = [pool.submit(self.get, f"/write?text={n}") for n in range(10)]
            self.assertEqual(
                {each.result()["kept"] for each in wrote}, {True}, self.server.log()
            )
            found = [each.result() for each in slow]
            self.assertLess(time.monotonic() - started, 25.0)
        for seen in found:
            self.assertEqual(seen["before"], seen["after"])
        self.assertEqual(len(self.get("/notes")["notes"]), 10)

    def test_transactions_are_isolated(self) -> None:
        """No request sees what another writes and rolls back."""
        self.get("/write?text=kept")
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(self.get, "/write?text=lost&fail=1&seconds=0.6")
            while not lost.done():
                self.assertEqual(
                    self.get("/notes"), {"notes": ["kept"], "in_a_transaction": False}
                )
                time.sleep(0.02)
            self.assertEqual(lost.result(), {"seen": 2, "kept": False})
        self.assertEqual(self.get("/notes")["notes"], ["kept"])

    def test_writer_disconnects(self) -> None:
        """A writer whose client disconnects ends, and the next one gets the lock."""
        self.get("/notes")
        with self.server.connect() as client:
            client.send(b"GET /write?text=x&seconds=0.5 HTTP/1.0\r\n\r\n")
            time.sleep(0.1)
        self.assertEqual(self.get("/write?text=y")["kept"], True)
        until = time.monotonic() + 15.0
        while len(self.get("/notes")["notes"]) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(sorted(self.get("/notes")["notes"]), ["x", "y"])
