"""Chunked uploads to frameworks, and half-closed connections, on real sockets."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import RawClient, serve, shared

APPS = "tests.integration.chunked_apps"
BODIES_BY_LENGTH = ("django_app", "wrapped_django_app", "bottle_app", "cgi_app")
BODIES_BY_END = ("flask_app", "pyramid_app")
FORMS = ("django_app", "wrapped_django_app", "bottle_app", "flask_app", "pyramid_app")
LONG = os.urandom(1024) * 3000
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\nHoliday\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
    + LONG[:400_000]
    + b"\r\n--x--\r\n"
)


def head(target: str = "/", *fields: str) -> bytes:
    """Return the head of a chunked upload."""
    lines = [f"POST {target} HTTP/1.1", "Host: x", "Connection: close", *fields]
    return "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()


def chunks(body: bytes, size: int = 50_000) -> list[bytes]:
    """Return the body in chunks of `size` bytes, without the last chunk."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]


def expected(body: bytes) -> bytes:
    """Return the answer to a body of known length."""
    return f"{len(body)} {len(body)} {hashlib.sha256(body).hexdigest()}".encode()


class ChunkedUploadTests(SynchronousTestCase):
    """Chunked uploads to unchanged applications, with the default options."""

    def upload(
        self, app: str, *pieces: bytes, pause: float = 0, options: str = ""
    ) -> bytes:
        """Send the pieces; return the body of the response."""
        with shared(f"{APPS}:{app}", *options.split()).connect() as client:
            for piece in pieces:
                client.send(piece)
                time.sleep(pause)
            client.read_until(b"200 OK\r\n")
            client.read_until(b"\r\n\r\n")
            return client.read_all()

    def test_bodies(self) -> None:
        """Every framework reads the whole body, short or long, and its length."""
        for app in BODIES_BY_LENGTH + BODIES_BY_END:
            for body in (b"abc=def", LONG):
                found = self.upload(app, head(), *chunks(body), b"0\r\n\r\n")
                self.assertIn(expected(body), found, app)

    def test_forms(self) -> None:
        """Every framework parses a chunked form with a file."""
        start = head("/form", "Content-Type: multipart/form-data; boundary=x")
        for app in FORMS:
            found = self.upload(app, start, *chunks(FORM), b"0\r\n\r\n")
            self.assertIn(b"Holiday 400000", found, app)

    def test_django_with_a_client_that_pauses(self) -> None:
        """Django receives the whole body, however long its client pauses."""
        for app in ("django_app", "wrapped_django_app"):
            for options in ("", "--chunked=stream", "--chunked=buffer"):
                found = self.upload(
                    app,
                    head() + b"3\r\nabc\r\n",
                    b"4\r\n=def\r\n",
                    b"0\r\n\r\n",
                    pause=1.6,
                    options=options,
                )
                self.assertIn(expected(b"abc=def"), found, (app, options))

    def test_buffer_with_a_client_that_pauses(self) -> None:
        """With --chunked=buffer, other applications receive the whole body too."""
        found = self.upload(
            "cgi_app",
            head() + b"3\r\nabc\r\n",
            b"3\r\ndef\r\n0\r\n\r\n",
            pause=1.6,
            options="--chunked=buffer",
        )
        self.assertIn(expected(b"abcdef"), found)

    def test_expectation(self) -> None:
        """A client that expects 100 Continue is asked for its body."""
        for app in ("django_app", "flask_app"):
            with shared(f"{APPS}:{app}").connect() as client:
                client.send(head("/", "Expect: 100-continue"))
                client.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
                client.send(b"3\r\nabc\r\n0\r\n\r\n")
                client.read_until(b"200 OK\r\n")
                self.assertIn(expected(b"abc"), client.read_all())

    def test_refused(self) -> None:
        """A chunked body above --max-body is refused with 413."""
        server = serve(self, f"{APPS}:django_app", "--max-body=100K")
        with server.connect() as client:
            client.send(head())
            for chunk in chunks(LONG[:200_000]):
                client.send(chunk)
            self.assertIn(b" 413 ", client.read_until(b"\r\n"))


class HalfCloseTests(SynchronousTestCase):
    """`--half-close` on TCP and UNIX sockets."""

    APP = "examples.flask_app:app"
    REQUEST = b"GET /sleep?seconds=1&name=x HTTP/1.1\r\nHost: x\r\n\r\n"

    def test_tcp(self) -> None:
        """A half-closed client gets its slow response only with serve."""
        for options, answered in ((("--half-close=serve",), True), ((), False)):
            with serve(self, self.APP, *options).connect() as client:
                client.send(self.REQUEST)
                client.socket.shutdown(socket.SHUT_WR)
                self.assertEqual(b'"slept":1.0' in client.read_all(), answered)

    def test_unix(self) -> None:
        """On a UNIX socket, a close is a disconnect also with serve."""
        directory = tempfile.mkdtemp()
        path = os.path.join(directory, "s")
        log = os.path.join(directory, "log")
        server = serve(
            self,
            self.APP,
            f"--listen=unix:{path}",
            "--half-close=serve",
            "--on-disconnect=cancel",
            f"--access-log={log}",
            "--access-log-format=json",
        )
        server.wait_listening(2)

        def connect() -> RawClient:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(20)
            client.connect(path)
            return RawClient(client)

        with connect() as client:
            client.send(self.REQUEST)
            client.socket.shutdown(socket.SHUT_WR)
            self.assertIn(b'"slept":1.0', client.read_all())
        with connect() as client:
            client.send(self.REQUEST.replace(b"seconds=1", b"seconds=30"))
            time.sleep(0.5)  # the request is in progress
            client.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 20
        while '"disconnected"' not in Path(log).read_text():
            self.assertLess(time.monotonic(), deadline, "the close was not detected")
            time.sleep(0.05)
