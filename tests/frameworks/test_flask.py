"""Flask's contexts, sessions, streams and teardowns around waits."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import flask  # not its names: trial inspects module attributes, and `g` would raise
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

from .flask_site import Teardown, make_app

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryClient, Response

MANY = 50


def get(path: str, *lines: str) -> bytes:
    """Return a GET request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode()


def post(path: str, **form: str) -> bytes:
    """Return a POST request with a form."""
    body = urlencode(form)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    return (head + body).encode()


def only(client: MemoryClient) -> Response:
    """Return the only response received."""
    (response,) = client.responses()
    return response


class FlaskCase(LeakCheckMixin, SynchronousTestCase):
    """A test with an application and its recorded teardowns."""

    def setUp(self) -> None:
        """Create the application."""
        self.teardowns: list[Teardown] = []
        self.app = make_app(self.teardowns)

    def assert_torn_down(self, name: str, error: str | None = None) -> None:
        """Assert that both contexts were torn down once, in their own task."""
        mine = [each for each in self.teardowns if each.name == name]
        self.assertEqual(
            mine,
            [
                Teardown("request", name, error, own_task=True),
                Teardown("app", name, error, own_task=True),
            ],
        )
        self.assertFalse(flask.has_app_context())
        self.assertFalse(flask.has_request_context())


class FileTests(FlaskCase):
    """Files sent by `flask.send_file`."""

    def test_ranges(self) -> None:
        """A range request is answered by the range, read from its position."""
        content = bytes(range(256)) * 4000
        path = Path(self.mktemp()).absolute()
        path.write_bytes(content)
        positions: list[int] = []

        def send() -> flask.Response:
            response = flask.send_file(path, conditional=True)
            wrapper: Any = response.response
            while hasattr(wrapper, "iterable"):
                wrapper = wrapper.iterable
            seek = wrapper.seek

            def counted(position: int) -> None:
                positions.append(position)
                seek(position)

            wrapper.seek = counted
            return response

        self.app.add_url_rule("/file", view_func=send)
        server = self.serve(self.app)
        for begin, end in [(0, 10), (70_000, 70_001), (1_023_996, 1_024_000)]:
            client = server.connect()
            client.send(get("/file", f"Range: bytes={begin}-{end - 1}"))
            server.advance(0)
            response = only(client)
            self.assertEqual(response.status, 206)
            self.assertEqual(response.body, content[begin:end])
            self.assertEqual(positions.pop(), begin)


class ContextTests(FlaskCase):
    """Contexts and sessions of interleaved requests."""

    def test_fifty_requests(self) -> None:
        """Fifty requests that wake in random order keep their own g and session."""
        server = self.serve(self.app)
        chance = random.Random(50)
        clients = []
        for number in range(MANY):
            client = server.connect()
            path = f"/view?name=n{number}&seconds={chance.randint(1, 40) / 10}"
            client.send(post(path, name=f"posted {number}"))
            clients.append((number, path, client))
        self.assertEqual(len(server.tasks), MANY)
        for _ in range(130):
            server.advance(0.1)
        for number, path, client in clients:
            response = only(client)
            self.assertEqual(response.header("X-Name"), f"n{number}")
            self.assertEqual(
                json.loads(response.body),
                {
                    "g": f"n{number}",
                    "argument": f"n{number}",
                    "path": path,
                    "posted": f"posted {number}",
                    "session": [f"n{number}"],
                },
            )
            self.assert_torn_down(f"n{number}")

    def test_sessions(self) -> None:
        """Each of ten clients keeps its own session over three requests."""
        server = self.serve(self.app)
        cookies: dict[int, str] = {}
        for visit in range(3):
            clients = []
            for number in range(10):
                client = server.connect()
                cookie = [f"Cookie: {cookies[number]}"] if visit else []
                seconds = (number * 7 + visit * 3) % 10 / 10
                path = f"/view?name=n{number}&seconds={seconds}"
                client.send(get(path, *cookie))
                clients.append(client)
            for _ in range(40):
                server.advance(0.1)
            for number, client in enumerate(clients):
                response = only(client)
                told = json.loads(response.body)
                self.assertEqual(told["session"], [f"n{number}"] * (visit + 1))
                set_cookie = response.header("Set-Cookie")
                assert set_cookie is not None
                cookies[number] = set_cookie.partition(";")[0]

    def test_nested_contexts(self) -> None:
        """Leaving a nested application context restores the request's context."""
        server = self.serve(self.app)
        clients = [server.connect() for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(get(f"/nested?name=n{number}&seconds={5 - number}"))
        for _ in range(20):
            server.advance(1)
        for number, client in enumerate(clients):
            self.assertEqual(
                json.loads(only(client).body), {"inner": "inner", "outer": f"n{number}"}
            )

    def test_one_connection(self) -> None:
        """Pipelined requests of one connection have separate contexts."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(b"".join(get(f"/view?name=n{number}") for number in range(4)))
        names = [json.loads(each.body)["g"] for each in client.responses()]
        self.assertEqual(names, ["n0", "n1", "n2", "n3"])
        for name in names:
            self.assert_torn_down(name)


class RecipeTests(FlaskCase):
    """Recipes that are common in Flask applications."""

    def test_server_sent_events(self) -> None:
        """A stream of events may set hop-by-hop headers, which the server drops."""
        client = self.serve(self.app).connect()
        client.send(get("/events"))
        self.assertIn(b"data: 0\n\n", client.received)
        self.assertNotIn(b"data: 1", client.received)
        client.server.advance(1)
        client.server.advance(1)
        response = only(client)
        self.assertEqual(response.status, 200)
        self.assertEqual(response.body, b"data: 0\n\ndata: 1\n\n")
        self.assertIsNone(response.header("Connection"))
        self.assertFalse(client.closed)

    def test_own_method_and_early_hints(self) -> None:
        """A view gets any method that its route allows, and can send early hints."""
        client = self.serve(self.app).connect()
        client.send(get("/method").replace(b"GET", b"BREW"))
        self.assertTrue(client.received.startswith(b"HTTP/1.1 103 Early Hints\r\n"))
        self.assertEqual(only(client).body, b"BREW")


class StreamTests(FlaskCase):
    """`stream_with_context`.

    Flask 3.1 and later tear the contexts down twice: after the view has returned and
    after the stream has ended. These tests check the second teardown.
    """

    def assert_stream_torn_down(self, name: str) -> None:
        """Assert that the contexts were torn down in the task, at the stream's end."""
        times = [each for each in self.teardowns if each.name == name]
        self.assertIn(len(times), (2, 4))
        last = times[-2:]
        self.assertEqual([each.kind for each in last], ["request", "app"])
        self.assertTrue(all(each.own_task for each in times))
        self.assertIn(
            {each.error for each in last},
            ({None}, {"GeneratorExit"}, {"ClientDisconnected"}, {"RequestTimeout"}),
        )
        self.assertFalse(flask.has_app_context())

    def torn_down(self, name: str) -> int:
        """Return the number of teardowns so far."""
        return sum(each.name == name for each in self.teardowns)

    def test_fifty_streams(self) -> None:
        """Each of fifty streams produces its lines in its own request's context."""
        server = self.serve(self.app)
        clients = [server.connect() for _ in range(MANY)]
        for number, client in enumerate(clients):
            client.send(get(f"/stream?name=n{number}"))
            server.advance(0.03)
        before = [self.torn_down(f"n{number}") for number in range(MANY)]
        for _ in range(4):
            server.advance(1)
        for number, client in enumerate(clients):
            expected = "".join(f"{line} n{number} n{number}\n" for line in range(3))
            self.assertEqual(only(client).body.decode(), expected)
            self.assert_stream_torn_down(f"n{number}")
            self.assertEqual(self.torn_down(f"n{number}"), before[number] + 2)

    def test_client_goes_between_lines(self) -> None:
        """A stream whose client disconnects is torn down in its own task."""
        server = self.serve(self.app)
        staying, going = server.connect(), server.connect()
        staying.send(get("/stream?name=staying"))
        going.send(get("/stream?name=going"))
        going.disconnect()
        for _ in range(4):
            server.advance(1)
        self.assert_stream_torn_down("going")
        self.assertIn(b"2 staying staying", only(staying).body)
        self.assert_stream_torn_down("staying")

    def test_client_stops_reading(self) -> None:
        """A stream parked on a slow client is torn down when the client leaves."""
        server = self.serve(self.app)
        client = server.connect(room=200)
        client.send(get("/stream?name=full"))
        before = self.torn_down("full")
        client.disconnect()
        server.advance(5)
        self.assertEqual(self.torn_down("full"), before + 2)
        self.assert_stream_torn_down("full")

    def test_stream_is_cut(self) -> None:
        """A stream that exceeds the request timeout is torn down."""
        server = self.serve(self.app, request_timeout=1.5)
        server.connect().send(get("/stream?name=long"))
        server.advance(1)
        before = self.torn_down("long")
        server.advance(0.5)
        self.assertEqual(self.torn_down("long"), before + 2)
        self.assert_stream_torn_down("long")


class TeardownTests(FlaskCase):
    """Teardowns run once in the request's task, however the request ends."""

    def test_error(self) -> None:
        """A failing view is answered with 500, and its teardown gets the error."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(get("/fail?name=failing&seconds=1"))
        for _ in range(4):
            server.advance(1)
        self.assertEqual(only(client).status, 500)
        self.assert_torn_down("failing", "LookupError")

    def test_disconnect(self) -> None:
        """By default, a view whose client disconnects runs to its end."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(get("/view?name=alone&seconds=1"))
        client.disconnect()
        self.assertEqual(self.teardowns, [])
        for _ in range(4):
            server.advance(1)
        self.assert_torn_down("alone")

    def test_disconnect_cancels(self) -> None:
        """With on_disconnect="cancel", a disconnect ends the view."""
        server = self.serve(self.app, on_disconnect="cancel")
        client = server.connect()
        client.send(get("/view?name=cancelled&seconds=1"))
        server.advance(1)  # before_request has slept, the view sleeps
        client.disconnect()
        server.advance(1)
        self.assert_torn_down("cancelled", "ClientDisconnected")

    def test_timeout(self) -> None:
        """A request timeout ends the view with 504 and is passed to its teardown."""
        server = self.serve(self.app, request_timeout=1.5)
        client = server.connect()
        client.send(get("/view?name=late&seconds=1"))
        server.advance(1)
        server.advance(0.5)
        server.advance(1)
        self.assertEqual(only(client).status, 504)
        self.assert_torn_down("late", "RequestTimeout")

    def test_stop(self) -> None:
        """A view that exceeds the graceful timeout is cancelled and torn down."""
        server = self.serve(self.app, graceful_timeout=1)
        client = server.connect()
        client.send(get("/view?name=stopped&seconds=60"))
        stopped = server.site.stop()
        server.advance(1)
        server.advance(1)
        self.successResultOf(stopped)
        self.assert_torn_down("stopped", "Cancelled")

    def test_signal(self) -> None:
        """Flask's signals are sent in the context of their request."""
        seen: list[str] = []

        def torn_down(sender: object, **extra: object) -> None:
            seen.append(flask.g.name)

        server = self.serve(self.app)
        clients = [server.connect() for _ in range(3)]
        with flask.request_tearing_down.connected_to(torn_down, self.app):
            for number, client in enumerate(clients):
                client.send(get(f"/view?name=n{number}&seconds={3 - number}"))
            for _ in range(9):
                server.advance(1)
        self.assertEqual(seen, ["n2", "n1", "n0"])
