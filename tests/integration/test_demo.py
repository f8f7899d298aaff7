"""The built-in demonstration over real connections: its waits and its limits."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .processes import LOOPBACK, shared, start

if TYPE_CHECKING:
    from .processes import ServerProcess

MEBIBYTE = 1024 * 1024


def paths_in_flight(server: ServerProcess) -> list[str]:
    """Return the paths of the requests in flight, except the request itself."""
    listed = json.loads(server.fetch("/requests").body)["requests"]
    return [each["path"] for each in listed if not each["ours"]]


class DemoTests(SynchronousTestCase):
    """The requests of the demonstration page."""

    def setUp(self) -> None:
        """Serve it."""
        self.server = shared("txgreenwsgi.demo:app")

    def test_default_application(self) -> None:
        """Without --app, the demonstration is served."""
        server = start(self, "greenwsgi", f"--listen=tcp:0:interface={LOOPBACK}")
        answer = server.fetch("/")
        self.assertEqual(answer.status, 200)
        self.assertIn(b"<h1>It works.</h1>", answer.body)

    def test_tasks_sleep_together(self) -> None:
        """300 tasks of one request that sleep half a second overlap."""
        started = time.monotonic()
        answer = self.server.fetch("/sleep?seconds=0.5&tasks=300")
        self.assertLess(time.monotonic() - started, 20.0)
        self.assertEqual(
            [json.loads(line)["finished"] for line in answer.body.splitlines()],
            list(range(1, 301)),
        )

    def test_client_disconnects(self) -> None:
        """After a client has disconnected, its request is soon no longer in flight."""
        with self.server.connect() as client:
            client.send(b"GET /stream?blocks=40&pause=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_until(b'"block": 1')
            self.assertIn("/stream", paths_in_flight(self.server))
        deadline = time.monotonic() + 20
        while "/stream" in paths_in_flight(self.server):
            self.assertLess(time.monotonic(), deadline, "it is still in flight")
            time.sleep(0.05)

    def test_in_flight(self) -> None:
        """A sleeping request is listed with its method, path, age and reason."""
        with self.server.connect() as client:
            client.send(
                b"GET /stream?blocks=40&pause=0.5&secret=s HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            client.read_until(b'"block": 1')
            answer = self.server.fetch("/requests")
            [seen] = [
                each
                for each in json.loads(answer.body)["requests"]
                if each["path"] == "/stream"
            ]
            self.assertEqual(seen["method"], "GET")
            self.assertGreaterEqual(seen["age"], 0.4)
            self.assertIn("sleep", seen["waiting_on"])
            self.assertNotIn("secret", answer.text)
            client.read_until(b'"block": 2')

    def test_upload_is_counted_as_it_arrives(self) -> None:
        """The first half of an upload is counted before the second half is sent."""
        with self.server.connect() as uploader, self.server.connect() as watcher:
            watcher.send(b"GET /progress?key=00c0ffee HTTP/1.1\r\nHost: x\r\n\r\n")
            uploader.send(
                b"POST /upload?key=00c0ffee HTTP/1.1\r\nHost: x\r\n"
                b"Content-Length: 262144\r\n\r\n" + bytes(131072)
            )
            watcher.read_until(b'{"counted": 131072}')
            uploader.send(bytes(131072))
            uploader.read_until(b'{"counted": 262144}')
            watcher.read_until(b"0\r\n\r\n")

    def test_upload_key_in_use(self) -> None:
        """Two uploads cannot share a key; it is free after the first has ended."""
        head = b"POST /upload?key=deadbeef HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
        with self.server.connect() as first:
            first.send(head + b"\r\n")
            with self.server.connect() as watcher:
                watcher.send(b"GET /progress?key=deadbeef HTTP/1.1\r\nHost: x\r\n\r\n")
                watcher.read_until(b'{"counted": 0}')
            answer = self.server.fetch("/upload?key=deadbeef", "POST", b"123456789")
            self.assertEqual(answer.status, 409)
        deadline = time.monotonic() + 20
        while self.server.fetch("/upload?key=deadbeef", "POST", b"1").status == 409:
            self.assertLess(time.monotonic(), deadline, "the key is still in use")
            time.sleep(0.05)

    def test_upload_without_length_is_bounded(self) -> None:
        """A chunked upload is rejected as soon as it exceeds the limit."""
        with self.server.connect() as client:
            client.send(
                b"POST /upload?key=0badcafe HTTP/1.1\r\nHost: x\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            block = b"%x\r\n%b\r\n" % (MEBIBYTE, bytes(MEBIBYTE))
            sent = 0
            try:
                while sent < 60:
                    client.send(block)
                    sent += 1
            except (ConnectionResetError, BrokenPipeError):
                # The server has answered and closed the connection, which it may do.
                self.assertGreater(sent, 30)
            else:
                # It has answered, and discards the rest of the body.
                self.assertIn(b" 413 ", client.read_until(b"\r\n"))

    def test_deferreds(self) -> None:
        """Waits for a timer, a thread and a name lookup overlap."""
        for what, result in [
            ("timer", "the timer fired"),
            ("thread", "ff58f8b85a4d13cc"),
            ("name", "127.0.0.1"),
        ]:
            answer = json.loads(self.server.fetch(f"/deferred?what={what}").body)
            self.assertTrue(answer["result"].startswith(result), answer)
