"""Uploads, downloads and Django's signals, through the whole server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.signals import request_finished, request_started
from django.db import connection
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import current_task
from txgreenwsgi.testing import LeakCheckMixin

from . import uploads
from .project import application
from .test_isolation import is_closed

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryServer, Response


class FileTests(LeakCheckMixin, SynchronousTestCase):
    """Uploads and downloads."""

    def setUp(self) -> None:
        """Serve the project."""
        uploads.opened.clear()
        self.server: MemoryServer = self.serve(application)

    def test_file_response(self) -> None:
        """A FileResponse is sent completely; then file and connection are closed."""
        response = self.server.request("GET", "/more/file")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.body, Path(uploads.__file__).read_bytes())
        raw, file = uploads.opened
        self.assertTrue(is_closed(raw))
        self.assertTrue(getattr(file, "closed", None))

    def test_file_response_cut(self) -> None:
        """A disconnect closes file and connection at once."""
        client = self.server.connect(room=300)
        client.send(b"GET /more/file HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw, file = uploads.opened
        self.assertFalse(getattr(file, "closed", None))
        client.disconnect()
        self.assertTrue(is_closed(raw))
        self.assertTrue(getattr(file, "closed", None))

    def upload(self, size: int) -> Response:
        """Send a form with a file of `size` bytes."""
        body = (
            b"--edge\r\n"
            b'Content-Disposition: form-data; name="file"; filename="a.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n"
            + b"x" * size
            + b"\r\n--edge--\r\n"
        )
        kind = ("Content-Type", "multipart/form-data; boundary=edge")
        return self.server.request("POST", "/more/receive", [kind], body)

    def test_upload(self) -> None:
        """Uploads of all sizes arrive, in memory or in a temporary file."""
        for size in (0, 1, 100_000, 3_000_000):
            self.assertEqual(self.upload(size).body, f"a.bin {size}".encode())

    def test_upload_in_pieces(self) -> None:
        """Two uploads that arrive alternately are not mixed."""
        clients = [self.server.connect() for _ in range(2)]
        letters = [b"a" * 1000, b"b" * 3000]
        tails: list[bytes] = []
        for client, letter in zip(clients, letters, strict=True):
            head = (
                b"--edge\r\n"
                b"Content-Disposition: form-data; "
                b'name="file"; filename="%c.bin"\r\n\r\n' % letter[0]
            )
            tail = b"\r\n--edge--\r\n"
            client.send(
                b"POST /more/receive HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: multipart/form-data; boundary=edge\r\n"
                b"Content-Length: %d\r\n\r\n"
                % (len(head) + len(letter) + len(tail))
                + head
            )
            tails.append(letter + tail)
        for start in range(0, 3100, 100):
            for client, rest in zip(clients, tails, strict=True):
                client.send(rest[start : start + 100])
        bodies = [client.responses()[0].body for client in clients]
        self.assertEqual(bodies, [b"a.bin 1000", b"b.bin 3000"])


class SignalTests(LeakCheckMixin, SynchronousTestCase):
    """request_started and request_finished."""

    def test_in_the_task(self) -> None:
        """Both are sent in the request's task, also if the view fails."""
        server = self.serve(application)
        seen: list[tuple[str, Any]] = []

        def started(**kwargs: Any) -> None:
            seen.append(("started", current_task()))

        def finished(**kwargs: Any) -> None:
            seen.append(("finished", current_task()))

        request_started.connect(started)
        request_finished.connect(finished)
        self.addCleanup(request_started.disconnect, started)
        self.addCleanup(request_finished.disconnect, finished)
        for path in ("/more/file", "/nowhere", "/more/receive"):
            seen.clear()
            server.request("GET", path)
            (first, task), (second, same) = seen
            self.assertEqual((first, second), ("started", "finished"))
            self.assertIsNotNone(task)
            self.assertIs(task, same)
        self.assertEqual(server.tasks, [])

    def test_closed_before_the_next(self) -> None:
        """Requests on one keep-alive connection open separate database connections."""
        server = self.serve(application)
        client = server.connect()
        for _ in range(3):
            client.send(b"GET /transactions HTTP/1.1\r\nHost: localhost\r\n\r\n")
            server.advance(1)
        answers = [json.loads(each.body) for each in client.responses()]
        self.assertEqual(answers, [[False, True, 1, False]] * 3)
        self.assertIsNone(connection.connection)
