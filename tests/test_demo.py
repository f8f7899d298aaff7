"""The built-in demonstration: its responses and the limits of its parameters.

These tests call the views that never park. Integration tests cover the others.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.demo import app
from txgreenwsgi.demo.page import PAGE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Response:
    """The response to one request, checked against PEP 3333."""

    def __init__(self, target: str, method: str = "GET", **environ: Any) -> None:
        path, _, query = target.partition("?")
        request: WSGIEnvironment = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "wsgi.input": io.BytesIO(),
            **environ,
        }
        setup_testing_defaults(request)
        self.status = 0
        self.headers: dict[str, str] = {}
        blocks = validator(app)(request, self._start_response())
        self.body = b"".join(blocks)
        close = getattr(blocks, "close", None)
        if close is not None:
            close()

    def _start_response(self) -> StartResponse:
        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> Any:
            self.status = int(status.split()[0])
            self.headers = dict(headers)
            return lambda data: None

        return start_response

    @property
    def json(self) -> Any:
        """Return the body, parsed as JSON."""
        return json.loads(self.body)


class Record:
    """A request in flight, as the server lists it."""

    def __init__(self, path: str, request_id: str, waiting_on: object) -> None:
        self.method = "GET"
        self.path = path
        self.age = 1.23456
        self.state = "parked"
        self.waiting_on = waiting_on
        self.request_id = request_id


def in_flight(*records: Record) -> dict[str, Any]:
    """Return the environ of a server with these requests; the first is our own."""
    return {
        "txgreenwsgi.requests": lambda: list(records),
        "txgreenwsgi.request_id": records[0].request_id,
    }


class PageTests(SynchronousTestCase):
    """The page."""

    def test_self_contained(self) -> None:
        """The page contains its style and script, and refers to no other resource."""
        answer = Response("/")
        self.assertEqual((answer.status, answer.body), (200, PAGE))
        self.assertNotIn(b"{{", PAGE)
        addresses = re.findall(rb"""(?:src|href)=["']([^"']*)""", PAGE)
        outside = [each for each in addresses if not each.startswith((b"#", b"data:"))]
        self.assertEqual(outside, [])

    def test_policy_allows_its_own_parts_only(self) -> None:
        """The Content-Security-Policy names style and script by their hashes."""
        policy = Response("/").headers["Content-Security-Policy"]
        for element in (b"style", b"script"):
            [part] = re.findall(rb"<%b>(.*)</%b>" % (element, element), PAGE, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
            self.assertIn(f"{element.decode()}-src 'sha256-{digest}'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertIn("default-src 'none'", policy)

    def test_next_step(self) -> None:
        """The page gives the command that serves another application."""
        self.assertIn(b"twistd -n greenwsgi --app", PAGE)

    def test_every_control_has_a_name(self) -> None:
        """Every input has a label for screen readers."""
        for name in re.findall(rb'<input id="([\w-]+)"', PAGE):
            labelled = b'for="%b"' % name in PAGE
            self.assertTrue(
                labelled or b'<label class="switch"><input id="%b"' % name in PAGE, name
            )

    def test_mounted_without_its_slash(self) -> None:
        """Below a prefix, the URL without a slash redirects to the one with it."""
        answer = Response("", SCRIPT_NAME="/demo")
        self.assertEqual((answer.status, answer.headers["Location"]), (301, "/demo/"))


class RefusalTests(SynchronousTestCase):
    """Refused requests and their error responses."""

    def test_numbers_out_of_bounds(self) -> None:
        """For an invalid number, the response is a 400 that gives the range."""
        for target, bounds in [
            ("/sleep?seconds=6", "seconds=6: give a number from 0 to 5"),
            ("/sleep?seconds=-1", "seconds=-1: give a number from 0 to 5"),
            ("/sleep?seconds=nan", "seconds=nan: give a number from 0 to 5"),
            ("/sleep?seconds=inf", "seconds=inf: give a number from 0 to 5"),
            ("/sleep?tasks=501", "tasks=501: give a number from 1 to 500"),
            ("/sleep?tasks=many", "tasks=many: give a number from 1 to 500"),
            ("/stream?blocks=41", "blocks=41: give a number from 1 to 40"),
            ("/stream?pause=1.5", "pause=1.5: give a number from 0 to 1"),
        ]:
            answer = Response(target)
            self.assertEqual((answer.status, answer.json["error"]), (400, bounds))

    def test_too_many_fields(self) -> None:
        """A query of too many fields gets 400."""
        answer = Response("/sleep?" + "a=1&" * 5000)
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json["error"], "give at most 10 fields")

    def test_upload_keys(self) -> None:
        """A key consists of 8 to 64 hexadecimal digits."""
        for key in ("", "short", "x" * 16, "0" * 65, "0" * 8 + "%0A"):
            for method, path in (("POST", "/upload"), ("GET", "/progress")):
                answer = Response(f"{path}?key={key}", method)
                self.assertEqual(answer.status, 400, key)
                self.assertIn("8 to 64", answer.json["error"])

    def test_too_large_upload(self) -> None:
        """A body with a Content-Length above the limit is refused unread."""
        answer = Response(
            "/upload?key=0123456789", "POST", CONTENT_LENGTH=str(33 * 1024 * 1024)
        )
        self.assertEqual(answer.status, 413)
        self.assertEqual(answer.json["error"], "send at most 32 MiB")

    def test_unknown_deferred(self) -> None:
        """Clients cannot choose the name to look up or the amount of work."""
        answer = Response("/deferred?what=example.com")
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json["error"], "what: give one of timer, thread, name")

    def test_unknown_path_and_method(self) -> None:
        """An unknown path gets 404, another method 405."""
        self.assertEqual(Response("/etc/passwd").status, 404)
        answer = Response("/", "DELETE")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD"))
        answer = Response("/upload")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "POST"))


class InFlightTests(SynchronousTestCase):
    """The table of requests."""

    def test_columns(self) -> None:
        """The table has method, path, age and wait of each request."""
        answer = Response(
            "/requests",
            **in_flight(Record("/requests", "a", None), Record("/sleep", "b", "sleep")),
        )
        self.assertEqual(
            answer.json,
            {
                "count": 2,
                "requests": [
                    {
                        "method": "GET",
                        "path": "/requests",
                        "age": 1.23,
                        "waiting_on": "",
                        "ours": True,
                    },
                    {
                        "method": "GET",
                        "path": "/sleep",
                        "age": 1.23,
                        "waiting_on": "sleep",
                        "ours": False,
                    },
                ],
            },
        )

    def test_is_bounded(self) -> None:
        """The size of the table is bounded, for any number and length of paths."""
        records = [Record("/" + "x" * 8000, str(each), "read") for each in range(5000)]
        answer = Response("/requests", **in_flight(*records))
        self.assertEqual(answer.json["count"], 5000)
        self.assertEqual(len(answer.json["requests"]), 100)
        self.assertLess(len(answer.body), 40_000)
