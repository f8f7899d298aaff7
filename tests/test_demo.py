"""The built-in demonstration: what anybody may ask of it, and what it refuses.

Only what never waits is called here; the rest is asked over real connections.
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


class Answer:
    """What the application answered to one request, checked against PEP 3333."""

    def __init__(self, target: str, method: str = "GET", **environ: Any) -> None:
        path, _, query = target.partition("?")
        asked: WSGIEnvironment = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "wsgi.input": io.BytesIO(),
            **environ,
        }
        setup_testing_defaults(asked)
        self.status = 0
        self.headers: dict[str, str] = {}
        blocks = validator(app)(asked, self._start_response())
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
        """The body as JSON."""
        return json.loads(self.body)


class Record:
    """A request in flight, as the server tells of it."""

    def __init__(self, path: str, request_id: str, waiting_on: object) -> None:
        self.method = "GET"
        self.path = path
        self.age = 1.23456
        self.state = "parked"
        self.waiting_on = waiting_on
        self.request_id = request_id


def in_flight(*records: Record) -> dict[str, Any]:
    """The environ of a server that serves these requests, the first one ours."""
    return {
        "txgreenwsgi.requests": lambda: list(records),
        "txgreenwsgi.request_id": records[0].request_id,
    }


class PageTests(SynchronousTestCase):
    """The page."""

    def test_is_whole(self) -> None:
        """One document carries its style and its script; it refers to nothing else."""
        answer = Answer("/")
        self.assertEqual((answer.status, answer.body), (200, PAGE))
        self.assertNotIn(b"{{", PAGE)
        addresses = re.findall(rb"""(?:src|href)=["']([^"']*)""", PAGE)
        outside = [each for each in addresses if not each.startswith((b"#", b"data:"))]
        self.assertEqual(outside, [])

    def test_policy_allows_its_own_parts_only(self) -> None:
        """The Content-Security-Policy names the style and script by their hashes."""
        policy = Answer("/").headers["Content-Security-Policy"]
        for element in (b"style", b"script"):
            [part] = re.findall(rb"<%b>(.*)</%b>" % (element, element), PAGE, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
            self.assertIn(f"{element.decode()}-src 'sha256-{digest}'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertIn("default-src 'none'", policy)

    def test_says_how_to_go_on(self) -> None:
        """The page tells how to serve an application of one's own."""
        self.assertIn(b"twistd -n greenwsgi --app", PAGE)

    def test_every_control_has_a_name(self) -> None:
        """Who cannot see the page is told what each of its inputs is for."""
        for name in re.findall(rb'<input id="([\w-]+)"', PAGE):
            labelled = b'for="%b"' % name in PAGE
            self.assertTrue(
                labelled or b'<label class="switch"><input id="%b"' % name in PAGE, name
            )

    def test_mounted_without_its_slash(self) -> None:
        """Below a prefix, the address without a slash leads to the one with it."""
        answer = Answer("", SCRIPT_NAME="/demo")
        self.assertEqual((answer.status, answer.headers["Location"]), (301, "/demo/"))


class RefusalTests(SynchronousTestCase):
    """What is refused, and how that is told."""

    def test_numbers_out_of_bounds(self) -> None:
        """A number that is none, or out of bounds, is a 400 that gives the bounds."""
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
            answer = Answer(target)
            self.assertEqual((answer.status, answer.json["error"]), (400, bounds))

    def test_too_many_fields(self) -> None:
        """A query of a great many fields is refused, and is no error of ours."""
        answer = Answer("/sleep?" + "a=1&" * 5000)
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json["error"], "give at most 10 fields")

    def test_upload_keys(self) -> None:
        """A key is a few hexadecimal digits, and nothing else."""
        for key in ("", "short", "x" * 16, "0" * 65, "0" * 8 + "%0A"):
            for method, path in (("POST", "/upload"), ("GET", "/progress")):
                answer = Answer(f"{path}?key={key}", method)
                self.assertEqual(answer.status, 400, key)
                self.assertIn("8 to 64", answer.json["error"])

    def test_upload_that_says_it_is_too_large(self) -> None:
        """A body that announces more than the limit is refused unread."""
        answer = Answer(
            "/upload?key=0123456789", "POST", CONTENT_LENGTH=str(33 * 1024 * 1024)
        )
        self.assertEqual(answer.status, 413)
        self.assertEqual(answer.json["error"], "send at most 32 MiB")

    def test_unknown_deferred(self) -> None:
        """Nobody chooses what is looked up or worked out."""
        answer = Answer("/deferred?what=example.com")
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json["error"], "what: give one of timer, thread, name")

    def test_unknown_path_and_method(self) -> None:
        """There is nothing but the page, and each path has its method."""
        self.assertEqual(Answer("/etc/passwd").status, 404)
        answer = Answer("/", "DELETE")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD"))
        answer = Answer("/upload")
        self.assertEqual((answer.status, answer.headers["Allow"]), (405, "POST"))


class InFlightTests(SynchronousTestCase):
    """The table of requests."""

    def test_tells_what_each_waits_for(self) -> None:
        """Method, path, age and reason of each request; which one is the asker's."""
        answer = Answer(
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
        """However many there are and however long their paths, the table is short."""
        records = [Record("/" + "x" * 8000, str(each), "read") for each in range(5000)]
        answer = Answer("/requests", **in_flight(*records))
        self.assertEqual(answer.json["count"], 5000)
        self.assertEqual(len(answer.json["requests"]), 100)
        self.assertLess(len(answer.body), 40_000)
