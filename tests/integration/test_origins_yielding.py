"""The examples that yield what they wait for, over real connections."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from examples.origins.a03_trampoline import trampoline

from .processes import CHECKOUT, LOOPBACK, serve, shared
from .upstreams import Upstream, http_site

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


def without_date(response: bytes) -> bytes:
    """Remove the Date field, which may differ."""
    return re.sub(rb"\r\nDate: [^\r]*", b"", response)


class EchoTests(SynchronousTestCase):
    """A2, A3, A4: AWSGI, AWSGI on a trampoline, plain calls."""

    APPS = (
        "examples.origins.a02_awsgi_echo:app",
        "examples.origins.a03_trampoline:app",
        "examples.origins.a04_plain_calls:app",
    )

    def answers(self, *pieces: bytes, pause: float = 0.02) -> list[bytes]:
        """Return the answer of each of them to the same request, sent in pieces."""
        found = []
        for app in self.APPS:
            with shared(app).connect() as client:
                for piece in pieces:
                    client.send(piece)
                    time.sleep(pause)
                found.append(without_date(client.read_all()))
        return found

    def assert_equal_answers(self, answers: list[bytes], status: bytes) -> bytes:
        """Check that all three answers are equal; return their body."""
        shown = [f"{answer[:300]!r} ({len(answer)} bytes)" for answer in answers]
        self.assertEqual(len(set(answers)), 1, shown)
        head, _, body = answers[0].partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 " + status), head)
        return body

    def test_whole(self) -> None:
        """A body that arrives at once."""
        answers = self.answers(HEAD + b"Content-Length: 5\r\n\r\nhello")
        self.assertIn(b"hello", self.assert_equal_answers(answers, b"200 OK"))

    def test_in_pieces(self) -> None:
        """A body that arrives byte by byte."""
        answers = self.answers(
            HEAD + b"Content-Length: 5\r\n\r\n", b"h", b"e", b"l", b"l", b"o"
        )
        self.assertIn(b"hello", self.assert_equal_answers(answers, b"200 OK"))

    def test_chunked(self) -> None:
        """A chunked body arrives decoded."""
        head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        answers = self.answers(head, b"2\r\nhe\r\n", b"3\r\nllo\r\n", b"0\r\n\r\n")
        self.assertIn(b"hello", self.assert_equal_answers(answers, b"200 OK"))

    def test_long(self) -> None:
        """A body that is longer than any buffer."""
        body = b"0123456789abcdef" * 50_000
        answers = self.answers(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.assertIn(body, self.assert_equal_answers(answers, b"200 OK"))

    def test_empty(self) -> None:
        """An empty body."""
        self.assert_equal_answers(
            self.answers(HEAD + b"Content-Length: 0\r\n\r\n"), b"200 OK"
        )

    def test_silence(self) -> None:
        """A second without data, at the start or in the middle, is answered 408."""
        for pieces in ((b"",), (b"he", b"l")):
            started = time.monotonic()
            answers = self.answers(HEAD + b"Content-Length: 5\r\n\r\n", *pieces)
            elapsed = time.monotonic() - started
            body = self.assert_equal_answers(answers, b"408 Request Timeout")
            self.assertIn(b"nothing came for a second", body)
            self.assertGreater(elapsed, 3.0)
            self.assertLess(elapsed, 15.0)

    def test_disconnect(self) -> None:
        """A client that disconnects midway leaves no traceback and no request."""
        for app in self.APPS:
            server = shared(app)
            with server.connect() as client:
                client.send(HEAD + b"Content-Length: 5\r\n\r\nhe")
            self.assertEqual(server.fetch("/", "POST", b"next").text, "next")
            self.assertNotIn("Traceback", server.log())

    def test_origin_option(self) -> None:
        """`--origin awsgi` serves the application without an adapter in its file."""
        server = serve(self, "examples.origins.a02_awsgi_echo:echo", "--origin=awsgi")
        self.assertEqual(server.fetch("/", "POST", b"hello").text, "hello")

    def test_trampoline(self) -> None:
        """The trampoline passes results and exceptions to the caller."""
        closed: list[int] = []

        def child(value: int) -> Any:
            try:
                got = yield f"child waits {value}"
                if value == 2:
                    raise KeyError(value)
                return got
            finally:
                closed.append(value)

        def parent() -> Any:
            results = [(yield child(1))]
            try:
                yield child(2)
            except KeyError as error:
                results.append(repr(error))
            yield child(3)
            raise ValueError(results)

        steps = trampoline(parent())
        self.assertEqual(next(steps), "child waits 1")
        self.assertEqual(steps.send("one"), "child waits 2")
        self.assertEqual(steps.send(None), "child waits 3")
        with self.assertRaisesRegex(ValueError, r"\['one', 'KeyError\(2\)'\]"):
            steps.send(None)
        unfinished = trampoline(parent())
        next(unfinished)
        unfinished.close()
        self.assertEqual(closed, [1, 2, 3, 1])


class ProxyTests(SynchronousTestCase):
    """A5, A6, A7: proxies by fdevent, by fdevent on wsgiref, and by ngx.poll."""

    FDEVENT = "examples.origins.a05_fdevent_proxy:app"
    NGX = "examples.origins.a07_ngx_poll_proxy:proxy"
    PATHS = ("/missing", "/slow", "/long", "/nonsense")

    def setUp(self) -> None:
        """Start a server behind the proxies."""
        self.upstream = Upstream(self, http_site)

    def proxies(self) -> dict[str, int]:
        """Start all of them; return their ports."""
        environ = f"--environ=UPSTREAM={self.upstream.address}"
        return {
            "fdevent": serve(self, self.FDEVENT, environ).port,
            "ngx": serve(self, self.NGX, "--origin=ngx", environ).port,
            "wsgiref": self.start_wsgiref(),
        }

    def start_wsgiref(self) -> int:
        """Run the script of A6; return its port."""
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.origins.a06_fdevent_on_wsgiref", "0"],
            cwd=CHECKOUT,
            env={**os.environ, "UPSTREAM": self.upstream.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

        def stop() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(stop)
        assert process.stdout is not None
        return int(process.stdout.readline().rsplit(maxsplit=1)[1])

    def fetch(self, port: int, path: str) -> tuple[str, str, bytes]:
        """Return the status, the fields of the application, and the body."""
        with socket.create_connection((LOOPBACK, port), timeout=15.0) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            data = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = sorted(line for line in lines if line.startswith("Content-"))
        return lines[0].partition(" ")[2], "\n".join(fields), body

    def test_same_bytes(self) -> None:
        """All three proxies give the answer of the server behind them."""
        ports = self.proxies()
        answers = {
            path: {self.fetch(port, path) for port in ports.values()}
            for path in (*self.PATHS, "/silent", "/%0D%0AX:%20y")
        }
        for path, found in answers.items():
            self.assertEqual(len(found), 1, (path, found))
        statuses = {path: next(iter(found))[0] for path, found in answers.items()}
        self.assertEqual(
            statuses,
            {
                "/missing": "404 Not Found",
                "/slow": "200 OK",
                "/long": "200 OK",
                "/nonsense": "502 Bad Gateway",
                "/silent": "504 Gateway Timeout",
                "/%0D%0AX:%20y": "404 Not Found",
            },
        )
        (long,) = answers["/long"]
        self.assertEqual(long[2], bytes(range(256)) * 8192)

    def test_without_upstream(self) -> None:
        """Without a server behind them, all three answer 502."""
        with socket.create_server((LOOPBACK, 0)) as closed:
            nowhere = closed.getsockname()[1]
        environ = f"--environ=UPSTREAM={LOOPBACK}:{nowhere}"
        for app, *options in ((self.FDEVENT,), (self.NGX, "--origin=ngx")):
            answer = serve(self, app, environ, *options).fetch("/")
            self.assertEqual(answer.status, 502)
            self.assertIn("refused", answer.text)

    def test_concurrency(self) -> None:
        """Ten slow requests take as long as one: none blocks the reactor."""
        environ = f"--environ=UPSTREAM={self.upstream.address}"
        server = serve(self, self.FDEVENT, environ)
        started = time.monotonic()
        clients = [server.connect() for _ in range(10)]
        for client in clients:
            client.send(b"GET /slow HTTP/1.0\r\n\r\n")
        for client in clients:
            with client:
                self.assertIn(b"200 OK", client.read_all())
        self.assertLess(time.monotonic() - started, 5.0)  # of 6 seconds

    def test_client_disconnects(self) -> None:
        """A client that disconnects while the proxy waits ends the wait."""
        environ = f"--environ=UPSTREAM={self.upstream.address}"
        for app, *options in ((self.FDEVENT,), (self.NGX, "--origin=ngx")):
            server = serve(self, app, environ, *options)
            server.fetch("/missing")  # opens what is opened once
            before = server_files(server.pid)
            for _ in range(10):
                with server.connect() as client:
                    client.send(b"GET /silent HTTP/1.0\r\n\r\n")
                    time.sleep(0.02)
            wait_for_files(server.pid, before)
            self.assertNotIn("Traceback", server.log())


def server_files(pid: int) -> int:
    """Return the number of open descriptors of a process."""
    if not os.path.isdir(f"/proc/{pid}/fd"):
        raise SkipTest(f"{sys.platform} has no /proc with a process's files")
    return len(os.listdir(f"/proc/{pid}/fd"))


def wait_for_files(pid: int, most: int) -> None:
    """Wait until a process has at most a number of descriptors.

    Raises:
        AssertionError: timeout.
    """
    started = time.monotonic()
    while server_files(pid) > most:
        if time.monotonic() - started > 60.0:
            raise AssertionError(f"{server_files(pid)} files are open, not {most}")
        time.sleep(0.02)


class NgxSleepTests(SynchronousTestCase):
    """A8: a poll of no descriptor, and `ngx.sleep`."""

    APP = "examples.origins.a08_ngx_sleep"

    def test_ticks(self) -> None:
        """Each tick is sent on time; other requests are served meanwhile."""
        server = serve(self, f"{self.APP}:ticks", "--origin=ngx")
        with server.connect() as client:
            started = time.monotonic()
            client.send(b"GET /?2 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_until(b"tick 1, poll told None, 0\n")
            first = time.monotonic() - started
            self.assertEqual(server.fetch("/?0").text, "")
            client.read_until(b"tick 2, poll told None, 0\n")
            second = time.monotonic() - started
        self.assertGreater(first, 0.45)
        self.assertGreater(second, 0.95)
        self.assertGreater(second - first, 0.1)

    def test_adapter_in_the_file(self) -> None:
        """The same with the adapter as middleware."""
        self.assertEqual(
            shared(f"{self.APP}:app").fetch("/?1").text, "tick 1, poll told None, 0\n"
        )


class ClockTests(SynchronousTestCase):
    """A10: the UDP clock."""

    def test_ticks_and_datagrams(self) -> None:
        """It sends the time each second, and at once when a datagram arrives."""
        server = serve(self, "examples.origins.a10_udp_clock:app")
        with server.connect() as client:
            started = time.monotonic()
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_until(b"datagrams to port ")
            port = int(client.read_until(b"\n"))
            client.read_until(b": a second has passed\n")
            self.assertGreater(time.monotonic() - started, 0.98)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"ping", (LOOPBACK, port))
            self.assertNotIn(b"passed", client.read_until(b": ping\n"))
        server.wait_logged("the clock has stopped")

    def test_descriptors(self) -> None:
        """Twenty clients that disconnect leave no socket open."""
        server = serve(self, "examples.origins.a10_udp_clock:app")
        with server.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_until(b"datagrams to port")
        server.wait_logged("the clock has stopped")
        # The connection is closed soon after that.
        most = server_files(server.pid)
        clients = [server.connect() for _ in range(20)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            client.read_until(b"datagrams to port")
        self.assertGreaterEqual(server_files(server.pid), most - 1 + 40)
        for client in clients:
            client.socket.close()
        wait_for_files(server.pid, most)


class SuspendTests(SynchronousTestCase):
    """A12: `x-wsgiorg.suspend` and a Deferred."""

    APP = "examples.origins.a12_suspend_deferred:app"

    def lines(self, path: str) -> list[str]:
        """Return the lines of one case."""
        return shared(self.APP).fetch(path).text.splitlines()

    def test_deferred(self) -> None:
        """The Deferred's callback resumes; a later resume returns False."""
        self.assertEqual(
            self.lines("/deferred"),
            ["the Deferred's result", "resumed: True", "resumed afterwards: False"],
        )

    def test_timeout(self) -> None:
        """The timeout resumes; a later resume returns False."""
        started = time.monotonic()
        self.assertEqual(
            self.lines("/timeout"), ["timed out", "resumed afterwards: False"]
        )
        self.assertGreater(time.monotonic() - started, 0.28)
        shared(self.APP).wait_logged("resumed too late: False")

    def test_early(self) -> None:
        """A resume before the yield ends the suspension at once."""
        started = time.monotonic()
        self.assertEqual(
            self.lines("/early"),
            ["resumed before the yield: False", "resumed afterwards: False"],
        )
        self.assertLess(time.monotonic() - started, 10.0)

    def test_twice(self) -> None:
        """The second of two resumes returns False."""
        self.assertEqual(
            self.lines("/twice"),
            ["resumed: [True, False]", "resumed afterwards: False"],
        )

    def test_thread(self) -> None:
        """A thread resumes; the application continues in its own thread."""
        started = time.monotonic()
        self.assertEqual(
            self.lines("/thread"),
            ["in a thread: worker", "resumed afterwards: False"],
        )
        self.assertLess(time.monotonic() - started, 10.0)

    def test_fails(self) -> None:
        """A failure arrives before the status is sent."""
        answer = shared(self.APP).fetch("/fails")
        self.assertEqual(answer.status, 404)
        self.assertIn("nothing was found", answer.text)

    def test_client_disconnects(self) -> None:
        """A client that disconnects during the suspension ends it."""
        server = shared(self.APP)
        for path in (b"/deferred", b"/timeout", b"/thread"):
            with server.connect() as client:
                client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        time.sleep(0.5)
        self.assertEqual(self.lines("/early")[-1], "resumed afterwards: False")
        self.assertNotIn("Traceback", server.log())


class UwsgiTests(SynchronousTestCase):
    """A19: the two modes of uWSGI in one application."""

    def test_both_modes(self) -> None:
        """Yielding and suspending give the same output at the same pace."""
        server = serve(self, "examples.origins.a19_uwsgi_modes:app", "--origin=uwsgi")
        expected = "device 1 was ready\ntimed out\nslept\n"
        started = time.monotonic()
        clients = []
        for path in (b"/yield", b"/suspend"):
            clients.append(server.connect())
            clients[-1].send(b"GET %b HTTP/1.0\r\n\r\n" % path)
        for client in clients:
            with client:
                answer = client.read_all()
            self.assertEqual(answer.partition(b"\r\n\r\n")[2].decode(), expected)
        elapsed = time.monotonic() - started
        self.assertGreater(elapsed, 2.1)
        self.assertLess(elapsed, 4.3)

    def test_client_disconnects(self) -> None:
        """A client that disconnects in either mode leaves no descriptor open."""
        server = serve(self, "examples.origins.a19_uwsgi_modes:app", "--origin=uwsgi")
        server.fetch("/suspend")
        before = server_files(server.pid)
        for path in (b"/yield", b"/suspend") * 3:
            with server.connect() as client:
                client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                time.sleep(0.05)
        wait_for_files(server.pid, before)

    def test_without_the_option(self) -> None:
        """Without `--origin uwsgi` the import fails, with a message that names it."""
        from .processes import ServerProcess

        server = ServerProcess(
            "greenwsgi",
            "--app=examples.origins.a19_uwsgi_modes:app",
            f"--listen=tcp:0:interface={LOOPBACK}",
        )
        self.addCleanup(server.kill)
        server.wait_logged("No module named 'uwsgi'")
