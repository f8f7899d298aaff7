"""The wire, where the kernel matters: real sockets, TCP, UNIX and TLS.

The routes and the application are those of the tests in memory.
"""

from __future__ import annotations

import atexit
import json
import shutil
import socket
import ssl
import tempfile
import time
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import make_short_folder
from tests.server.test_routes import CASES
from tests.server.wire import get

from .processes import ANSWER_SECONDS, LOOPBACK, RawClient, ServerProcess, serve
from .test_endpoints import write_certificate

APP = "tests.server.application:application"
CHECKED = "tests.server.application:validated"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Served:
    """A server on a TCP port, a UNIX socket and a TLS port, shared by the tests."""

    def __init__(self, app: str) -> None:
        self._directory = directory = Path(make_short_folder())
        self.path = f"{directory}/web"
        self.certificate, key = write_certificate(directory)
        self.server = ServerProcess(
            "greenwsgi",
            f"--app={app}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            f"--listen=ssl:0:interface={LOOPBACK}"
            f":certKey={self.certificate}:privateKey={key}",
            f"--listen=unix:{self.path}",
        )
        atexit.register(self.close)
        self.server.wait_listening(3)

    def close(self) -> None:
        """End the process."""
        self.server.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def connect(self, kind: str) -> RawClient:
        """Connect by TCP, UNIX or TLS."""
        if kind == "UNIX":
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(ANSWER_SECONDS)
            plain.connect(self.path)
            return RawClient(plain)
        if kind == "TCP":
            return self.server.connect()
        context = ssl.create_default_context(cafile=str(self.certificate))
        client = self.server.connect(self.server.ports[1])
        return RawClient(context.wrap_socket(client.socket, server_hostname=LOOPBACK))


_served: dict[str, Served] = {}


def served(app: str = APP) -> Served:
    """Return the server of an application."""
    if app not in _served:
        _served[app] = Served(app)
    return _served[app]


def response_to(client: RawClient, request: bytes, method: str = "GET") -> HTTPResponse:
    """Send one request and return the response, with its head read."""
    client.send(request)
    response = HTTPResponse(client.socket, method=method)
    response.begin()
    return response


def census(server: ServerProcess) -> dict[str, int]:
    """Return the server's counters."""
    counted: dict[str, int] = json.loads(server.fetch("/census").body)
    return counted


class EveryTransportTests(SynchronousTestCase):
    """TCP, UNIX and TLS."""

    def test_routes(self) -> None:
        """Every route gives the same answer, each on a new connection."""
        for app in (APP, CHECKED):
            for kind in ("TCP", "UNIX", "TLS"):
                for name, case in CASES.items():
                    if app == CHECKED and not case.checked:
                        continue
                    with served(app).connect(kind) as client:
                        response = response_to(client, case.request, case.method)
                        self.assertEqual(response.status, case.status, (kind, name))
                        self.assertEqual(response.read(), case.body, (kind, name))
        # The PEP 3333 validator raises AssertionError.
        self.assertNotIn("AssertionError", served(CHECKED).server.log())

    def test_pipelined(self) -> None:
        """All requests, sent at once, are answered in order."""
        for kind in ("TCP", "UNIX", "TLS"):
            with served().connect(kind) as client:
                stop = get("/", "Connection: close")
                requests = b"".join(case.request for case in CASES.values())
                client.send(requests + stop)
                answers = client.read_all()
            self.assertEqual(answers.count(b"HTTP/1.1 "), len(CASES) + 1)
            self.assertTrue(answers.endswith(b"hello\n"))

    def test_files(self) -> None:
        """Large files arrive from their position up to the declared length."""
        content = bytes(range(256)) * 4096 * 20
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            for kind in ("TCP", "UNIX", "TLS"):
                for offset, length in ((0, ""), (12_345_678, ""), (99, "7654321")):
                    target = f"/file?path={file.name}&offset={offset}&length={length}"
                    with served().connect(kind) as client:
                        body = response_to(client, get(target)).read()
                    end = offset + int(length) if length else len(content)
                    self.assertTrue(body == content[offset:end], (kind, target))

    def test_each_block_is_handed_over(self) -> None:
        """A block arrives before the application has computed the next."""
        for kind in ("TCP", "UNIX", "TLS"):
            with served().connect(kind) as client:
                client.send(get("/busy?seconds=1.5"))
                client.read_until(b"first\n")
                first = time.monotonic()
                client.read_until(b"second\n")
                self.assertGreater(time.monotonic() - first, 0.5, kind)

    def test_continue(self) -> None:
        """100 Continue is sent when the body is read, and not before a rejection."""
        fields = ("Expect: 100-continue", "Content-Length: 3")
        for kind in ("TCP", "UNIX", "TLS"):
            with served().connect(kind) as client:
                client.send(get("/echo", *fields, method="POST"))
                self.assertEqual(client.read_until(b"\r\n\r\n"), CONTINUE)
                self.assertEqual(response_to(client, b"abc").read(), b"abc")
                client.send(get("/unread", *fields, method="POST"))
                answer = client.read_all()
                self.assertTrue(answer.startswith(b"HTTP/1.1 403 "), (kind, answer))

    def test_early_response(self) -> None:
        """A client that sends 5 MB that are not read receives the response."""
        for kind in ("TCP", "UNIX", "TLS"):
            with served().connect(kind) as client:
                head = get("/unread", "Content-Length: 5000000", method="POST")
                client.send(head)
                for _ in range(50):
                    client.send(bytes(100_000))
                    time.sleep(0.001)
                answer = client.read_all()
                self.assertTrue(answer.endswith(b"\r\n\r\nno\n"), (kind, answer))

    def test_broken_stream(self) -> None:
        """After a failure, a stream has no end, and the connection closes."""
        for kind in ("TCP", "UNIX", "TLS"):
            with served().connect(kind) as client:
                response = response_to(client, get("/fail-after") + get("/"))
                self.assertRaises(IncompleteRead, response.read)

    def test_ambiguous(self) -> None:
        """Ambiguous framing is answered 400; nothing after it is interpreted."""
        request = get(
            "/", "Transfer-Encoding: chunked", "Content-Length: 5", method="POST"
        )
        for kind in ("TCP", "UNIX", "TLS"):
            with served().connect(kind) as client:
                client.send(request + b"0\r\n\r\n" + get("/environ"))
                answer = client.read_all()
                self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))
                self.assertEqual(answer.count(b"HTTP/1.1 "), 1)


class TCPTests(SynchronousTestCase):
    """Behaviour seen best on TCP."""

    def test_broken_stream_of_http_1_0(self) -> None:
        """If the connection's end is the body's end, a failure resets it."""
        with served().connect("TCP") as client:
            client.send(get("/fail-after", version="HTTP/1.0"))
            with self.assertRaises(ConnectionResetError):
                while client.socket.recv(65536):
                    pass

    def test_never_reads(self) -> None:
        """If the client never reads, the application is asked for few blocks."""
        server = serve(self, APP)
        with server.connect() as client:
            client.send(get("/stream?count=400&size=65536"))
            blocks = -1
            for _ in range(50):
                time.sleep(0.1)
                before, blocks = blocks, census(server)["blocks"]
                if before == blocks:
                    break
            # The rest is in the kernel's buffers at both ends.
            self.assertLess(blocks, 150)
            response = HTTPResponse(client.socket)
            response.begin()
            self.assertEqual(len(response.read()), 400 * 65536)
        self.assertEqual(census(server)["blocks"], 400)

    def test_disconnect_while_nothing_is_read(self) -> None:
        """A disconnect during an unread upload is noticed at once."""
        server = serve(self, APP, "--on-disconnect=cancel")
        head = get("/sleep?seconds=60", "Content-Length: 900000", method="POST")
        with server.connect() as client:
            client.send(head + bytes(100_000))
            self.wait_until(server, 1)
        self.wait_until(server, 0)

    def test_disconnect_during_a_file(self) -> None:
        """A file is closed after its client has disconnected."""
        server = serve(self, APP)
        before = census(server)
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(50_000_000)
            for _ in range(10):
                with server.connect() as client:
                    client.send(get(f"/file?path={file.name}"))
                    client.socket.recv(1000)
            self.wait_until(server, 0)
        # A new connection may be served before the end of an older one is read.
        server.wait_for(
            lambda: census(server)["files"] <= before["files"] + 1 or None,
            lambda: f"closed files: {before}, {census(server)}",
        )
        self.assertNotIn("Traceback", server.log())

    def wait_until(self, server: ServerProcess, requests: int) -> None:
        """Wait for a number of requests in flight, not counting the query."""
        for _ in range(400):
            if census(server)["requests"] == requests:
                return
            time.sleep(0.05)
        self.fail(f"{census(server)}; the log:\n{server.log()}")

    def test_stop(self) -> None:
        """SIGTERM: requests in flight complete, queued ones are answered."""
        server = serve(self, APP)
        with server.connect() as stream, server.connect() as line:
            stream.send(get("/stream?count=4&size=5&pause=1.5"))
            line.send(get("/sleep?seconds=4") + get("/") * 2)
            stream.read_until(b"AAAAA\r\n")
            self.wait_until(server, 2)
            server.ask_to_stop()
            self.assertTrue(stream.read_all().endswith(b"DDDDD\r\n0\r\n\r\n"))
            answers = line.read_all()
            self.assertEqual(answers.count(b"HTTP/1.1 200 OK"), 3)
            self.assertEqual(answers.count(b"Connection: close"), 1)
            server.wait_ended()

    def test_stop_after_a_disconnect(self) -> None:
        """SIGTERM: a request whose client has disconnected is cancelled."""
        server = serve(self, APP, "--graceful-timeout=0.5")
        with server.connect() as client:
            client.send(get("/sleep?seconds=60"))
            self.wait_until(server, 1)
        started = time.monotonic()
        server.ask_to_stop()
        server.wait_ended()
        self.assertLess(time.monotonic() - started, 15)
        self.assertIn("GET /sleep?seconds=60 (request ", server.log())
        self.assertNotIn("did not end by itself", server.log())

    def test_slow_loris(self) -> None:
        """A head that takes too long is answered 408, in real time."""
        server = serve(self, APP, "--header-timeout=0.5")
        with server.connect() as client:
            started = time.monotonic()
            client.send(b"GET / HTTP/1.1\r\n")
            self.assertTrue(client.read_all().startswith(b"HTTP/1.1 408 "))
            self.assertLess(time.monotonic() - started, 19)  # the default is 20 s


class UNIXTests(SynchronousTestCase):
    """Behaviour of UNIX sockets."""

    def test_environ(self) -> None:
        """Required variables are not empty; there is no client address."""
        with served().connect("UNIX") as client:
            environ = json.loads(response_to(client, get("/environ")).read())
        self.assertEqual(environ["SERVER_NAME"], "localhost")
        self.assertEqual(environ["SERVER_PORT"], "80")
        self.assertEqual((environ["REMOTE_ADDR"], environ["REMOTE_PORT"]), ("", ""))

    def test_environ_of_tls(self) -> None:
        """Over TLS the scheme is https, and the ports are real."""
        with served().connect("TLS") as client:
            environ = json.loads(response_to(client, get("/environ")).read())
        self.assertEqual(environ["wsgi.url_scheme"], "https")
        self.assertEqual(environ["SERVER_PORT"], str(served().server.ports[1]))
        self.assertEqual(environ["REMOTE_ADDR"], LOOPBACK)
