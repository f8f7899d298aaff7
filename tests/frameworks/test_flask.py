"""Flask: its contexts, sessions, streams and teardowns, with waits everywhere."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import flask  # not its names: the test runner looks at each, and `g` minds
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

from .flask_site import Teardown, make_app

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryClient, Response

MANY = 50


def get(path: str, *lines: str) -> bytes:
    """A request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode()


def post(path: str, **form: str) -> bytes:
    """A request with a form."""
    body = urlencode(form)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    return (head + body).encode()


def only(client: MemoryClient) -> Response:
    """The one response that has come."""
    (response,) = client.responses()
    return response


class FlaskCase(LeakCheckMixin, SynchronousTestCase):
    """An application, and what it tore down."""

    def setUp(self) -> None:
        """Make it."""
        self.teardowns: list[Teardown] = []
        self.app = make_app(self.teardowns)

    def assert_torn_down(self, name: str, error: str | None = None) -> None:
        """Both contexts of that request were, once, in its task, and none since."""
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


class ContextTests(FlaskCase):
    """What belongs to a request, with many of them taking turns."""

    def test_fifty_requests(self) -> None:
        """Fifty requests, waking in any order, each keep request, g and session."""
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
        """Ten visitors come back three times each; nobody gets another's session."""
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
        """An application context within a request's is left for the right one."""
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
        """Requests of one connection, sent all at once, have a context each."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(b"".join(get(f"/view?name=n{number}") for number in range(4)))
        names = [json.loads(each.body)["g"] for each in client.responses()]
        self.assertEqual(names, ["n0", "n1", "n2", "n3"])
        for name in names:
            self.assert_torn_down(name)


class StreamTests(FlaskCase):
    """`stream_with_context`.

    From Flask 3.1 on the contexts are torn down twice: when the view has returned,
    and when the stream has ended. What matters here is the second time.
    """

    def assert_stream_torn_down(self, name: str) -> None:
        """The contexts were torn down as the stream ended, in its task."""
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
        """How often it was until now."""
        return sum(each.name == name for each in self.teardowns)

    def test_fifty_streams(self) -> None:
        """Fifty streams, each line of which is made in its own request's context."""
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
        """A stream whose client goes is torn down, in its own task."""
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
        """A stream that is parked as its client does not read is torn down too."""
        server = self.serve(self.app)
        client = server.connect(room=200)
        client.send(get("/stream?name=full"))
        before = self.torn_down("full")
        client.disconnect()
        server.advance(5)
        self.assertEqual(self.torn_down("full"), before + 2)
        self.assert_stream_torn_down("full")

    def test_stream_is_cut(self) -> None:
        """A stream whose time is up is torn down."""
        server = self.serve(self.app, request_timeout=1.5)
        server.connect().send(get("/stream?name=long"))
        server.advance(1)
        before = self.torn_down("long")
        server.advance(0.5)
        self.assertEqual(self.torn_down("long"), before + 2)
        self.assert_stream_torn_down("long")


class TeardownTests(FlaskCase):
    """Teardowns happen on every path, once, in the request's own task."""

    def test_error(self) -> None:
        """A view that fails is told so, and its client."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(get("/fail?name=failing&seconds=1"))
        for _ in range(4):
            server.advance(1)
        self.assertEqual(only(client).status, 500)
        self.assert_torn_down("failing", "LookupError")

    def test_disconnect(self) -> None:
        """A view that goes on without its client is torn down at its own end."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(get("/view?name=alone&seconds=1"))
        client.disconnect()
        self.assertEqual(self.teardowns, [])
        for _ in range(4):
            server.advance(1)
        self.assert_torn_down("alone")

    def test_disconnect_cancels(self) -> None:
        """With `on_disconnect` cancel, a view ends with its client."""
        server = self.serve(self.app, on_disconnect="cancel")
        client = server.connect()
        client.send(get("/view?name=cancelled&seconds=1"))
        server.advance(1)  # before_request has slept, the view sleeps
        client.disconnect()
        server.advance(1)
        self.assert_torn_down("cancelled", "ClientDisconnected")

    def test_timeout(self) -> None:
        """A view whose time is up ends by the timeout, which its teardown sees."""
        server = self.serve(self.app, request_timeout=1.5)
        client = server.connect()
        client.send(get("/view?name=late&seconds=1"))
        server.advance(1)
        server.advance(0.5)
        server.advance(1)
        self.assertEqual(only(client).status, 504)
        self.assert_torn_down("late", "RequestTimeout")

    def test_stop(self) -> None:
        """A server that stops ends its views, with their teardowns."""
        server = self.serve(self.app, graceful_timeout=1)
        client = server.connect()
        client.send(get("/view?name=stopped&seconds=60"))
        stopped = server.site.stop()
        server.advance(1)
        server.advance(1)
        self.successResultOf(stopped)
        self.assert_torn_down("stopped", "Cancelled")

    def test_signal(self) -> None:
        """Flask's signals are sent in the context that they are about."""
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
