"""The examples of plain WSGI, Flask and Bottle, over real connections."""

from __future__ import annotations

import hashlib
import json
import time

from twisted.trial.unittest import SynchronousTestCase

from .processes import shared

HELLO = "examples.hello:app"
FLASK = "examples.flask_app:app"
BOTTLE = "examples.bottle_app:app"


def multipart(title: str, filename: str, content: bytes) -> tuple[bytes, str]:
    """Return a form with a text field and a file, and its Content-Type (RFC 7578)."""
    boundary = "frontier"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="title"\r\n\r\n{title}'
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{filename}"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


class HelloTests(SynchronousTestCase):
    """Plain WSGI."""

    def test_greets(self) -> None:
        """A plain WSGI application is served unchanged."""
        answer = shared(HELLO).fetch("/")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.body, b"Hello, world!\n")
        self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")

    def test_head_has_no_body(self) -> None:
        """HEAD has a Content-Length and no body (RFC 9110, section 9.3.2)."""
        answer = shared(HELLO).fetch("/", "HEAD")
        self.assertEqual(answer.headers["Content-Length"], "14")
        self.assertEqual(answer.body, b"")

    def test_connection_is_kept(self) -> None:
        """One connection serves several requests, including pipelined ones."""
        with shared(HELLO).connect() as client:
            client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            for _ in range(3):
                client.read_until(b"Hello, world!\n")


class FlaskTests(SynchronousTestCase):
    """The Flask example."""

    def test_json(self) -> None:
        """A view reads JSON and answers with JSON."""
        answer = shared(FLASK).fetch(
            "/json",
            "POST",
            json.dumps({"a": [1, "é"]}, ensure_ascii=False).encode("utf-8"),
            {"Content-Type": "application/json"},
        )
        self.assertEqual(
            json.loads(answer.body),
            {"greeting": "hello", "path": "/json", "received": {"a": [1, "é"]}},
        )

    def test_form_with_file(self) -> None:
        """A form with a file arrives complete, by Content-Length and in chunks."""
        content = bytes(range(256)) * 2000
        body, content_type = multipart("Holiday", "photo.jpg", content)
        expected = {
            "title": "Holiday",
            "file": {
                "name": "photo.jpg",
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            },
        }
        server = shared(FLASK)
        by_length = server.fetch("/form", "POST", body, {"Content-Type": content_type})
        self.assertEqual(json.loads(by_length.body), expected)
        with server.connect() as client:
            client.send(
                b"POST /form HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Type: " + content_type.encode() + b"\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for start in range(0, len(body), 50_000):
                block = body[start : start + 50_000]
                client.send(b"%x\r\n%b\r\n" % (len(block), block))
            client.send(b"0\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            self.assertEqual(json.loads(client.read_all()), expected)

    def test_body_above_flasks_limit(self) -> None:
        """Flask's own body limit answers 413, regardless of the rest of the body."""
        with shared(FLASK).connect() as client:
            client.send(
                b"POST /form HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: 99999999\r\n\r\n"
            )
            self.assertIn(b" 413 ", client.read_until(b"\r\n\r\n"))

    def test_sleepers_overlap(self) -> None:
        """Ten views that sleep for half a second overlap."""
        server = shared(FLASK)
        started = time.monotonic()
        clients = [server.connect() for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(
                b"GET /sleep?seconds=0.5&name=%d HTTP/1.1\r\nHost: x\r\n"
                b"Connection: close\r\n\r\n" % number
            )
        for number, client in enumerate(clients):
            with client:
                client.read_until(b"\r\n\r\n")
                answer = json.loads(client.read_all())
            # Each view still has its own request after its sleep.
            self.assertEqual(answer, {"name": str(number), "slept": 0.5})
        self.assertLess(time.monotonic() - started, 4.5)

    def test_stream_arrives_line_by_line(self) -> None:
        """The first line arrives long before the last is generated."""
        with shared(FLASK).connect() as client:
            client.send(b"GET /stream?lines=30 HTTP/1.1\r\nHost: x\r\n\r\n")
            # A busy machine may deliver it late: 2.9 seconds before the last one.
            client.read_until(b"line 1 of 30\n")
            first = time.monotonic()
            client.read_until(b"line 30 of 30\n")
            self.assertGreater(time.monotonic() - first, 0.5)

    def test_waits_for_deferreds(self) -> None:
        """A view waits for Twisted's HTTP client, which asks this same server."""
        started = time.monotonic()
        answer = shared(FLASK).fetch("/fetch")
        self.assertEqual(answer.status, 200, answer.body)
        pages = json.loads(answer.body)["pages"]
        self.assertEqual([page["name"] for page in pages], ["first", "second"])
        self.assertLess(time.monotonic() - started, 10.0)


class BottleTests(SynchronousTestCase):
    """The Bottle example."""

    def test_json(self) -> None:
        """A dict becomes JSON."""
        self.assertEqual(
            json.loads(shared(BOTTLE).fetch("/").body)["greeting"], "hello"
        )

    def test_request_is_kept_over_a_sleep(self) -> None:
        """Interleaved views each keep their own request and response."""
        server = shared(BOTTLE)
        names = [b"ann", b"bob", b"cy"]
        clients = [server.connect() for _ in names]
        for delay, (name, client) in enumerate(zip(names, clients, strict=True)):
            # The first request sleeps longest, so they wake up in reverse order.
            client.send(
                b"GET /hello/%b?seconds=%.1f HTTP/1.1\r\nHost: x\r\n"
                b"Connection: close\r\n\r\n" % (name, 0.5 - 0.2 * delay)
            )
        for name, client in zip(names, clients, strict=True):
            with client:
                answer = client.read_all()
            self.assertIn(b"\r\nX-Greeted: %b\r\n" % name, answer)
            self.assertTrue(
                answer.endswith(b"Hello, %b, at /hello/%b!\n" % (name, name)), answer
            )

    def test_upload_is_counted(self) -> None:
        """An upload is read in blocks, and never buffered completely."""
        answer = shared(BOTTLE).fetch("/count", "PUT", b"x" * 300_000)
        self.assertEqual(json.loads(answer.body), {"bytes": 300_000, "blocks": 5})

    def test_countdown_streams(self) -> None:
        """The numbers of a generator are sent one by one."""
        answer = shared(BOTTLE).fetch("/countdown/3")
        self.assertEqual(answer.text.split(), ["3", "2", "1", "lift-off"])
