"""The status page as an application, over a connection in memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._status.access import Access, is_local_name
from txgreenwsgi._status.application import StatusApplication
from txgreenwsgi._status.feed import Feed
from txgreenwsgi.testing import LeakCheckMixin

from .snapshots import HOSTILE, FakeServer, snapshot

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryServer, Response

TOKEN = "a-secret-of-the-operator"


class StatusCase(LeakCheckMixin, SynchronousTestCase):
    """Tests with a status page."""

    token = ""

    def setUp(self) -> None:
        """Serve the page."""
        super().setUp()
        self.controlled = FakeServer()
        self.access = Access(self.token)

        def app(environ: Any, start_response: Any) -> Any:
            return self.app(environ, start_response)

        self.memory: MemoryServer = self.serve(app)
        self.feed = Feed(self.controlled, self.memory.reactor)
        self.app = StatusApplication(self.controlled, self.feed, self.access)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes = b"",
        host: str = "127.0.0.1:9091",
        **fields: str,
    ) -> Response:
        """Return the response to a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [
            f"{name.replace('_', '-')}: {value}" for name, value in fields.items()
        ]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        client = self.memory.connect()
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        self.memory.advance(1)
        method_of = [method] if method == "HEAD" else []
        (response,) = client.responses(*method_of)
        return response


class ApplicationTests(StatusCase):
    """`StatusApplication` without a token."""

    def test_page(self) -> None:
        """The page has the fields that keep a browser safe, and is never stored."""
        response = self.ask("/")
        self.assertEqual(response.status, 200)
        self.assertIn(b"1f6a-2", response.body)
        policy = response.header("Content-Security-Policy") or ""
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(response.header("Cache-Control"), "no-store")
        self.assertEqual(response.header("X-Content-Type-Options"), "nosniff")
        self.assertEqual(response.header("Content-Type"), "text/html; charset=utf-8")

    def test_head(self) -> None:
        """HEAD is answered like GET, without a body."""
        for path in ("/", "/events", "/status.js"):
            lines = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            client = self.memory.connect()
            client.send(f"{lines}\r\n".encode())
            self.memory.advance(1)
            self.assertTrue(client.received.startswith(b"HTTP/1.1 200 OK\r\n"))
            self.assertTrue(client.received.endswith(b"\r\n\r\n"))

    def test_assets(self) -> None:
        """Script and style are those of the package."""
        for path, kind, text in [
            ("/status.js", "text/javascript", b"EventSource"),
            ("/status.css", "text/css", b"prefers-color-scheme"),
        ]:
            for _ in range(2):
                response = self.ask(path)
                self.assertEqual(response.status, 200)
                self.assertIn(kind, response.header("Content-Type") or "")
                self.assertIn(text, response.body)
        for path in ("/page.py", "/assets/status.js", "/../page.py", "/status.js/"):
            self.assertEqual(self.ask(path).status, 404, path)

    def test_json(self) -> None:
        """A program gets the snapshot."""
        response = self.ask("/snapshot.json")
        self.assertEqual(response.header("Content-Type"), "application/json")
        self.assertEqual(json.loads(response.body), snapshot())

    def test_things(self) -> None:
        """Requests, workers and failures have pages, whose text is escaped."""
        for path, call, text in [
            ("/requests/1f6a-2", ("stacks", "1f6a-2"), b"stack of 1f6a-2"),
            ("/workers/1", ("stacks", "1"), b"stack of 1"),
            ("/failures/ab12-1", ("failure", "ab12-1"), b"Traceback"),
        ]:
            response = self.ask(path)
            self.assertEqual(response.status, 200, path)
            self.assertIn(call, self.controlled.calls)
            self.assertIn(text, response.body)
            self.assertNotIn(b"<img", response.body)
            self.assertIn(b'href="../status.css"', response.body)

    def test_gone(self) -> None:
        """Of a request that has ended, the page says so."""
        response = self.ask("/requests/1f6a-9")
        self.assertEqual(response.status, 404)
        self.assertIn(b"there is no request 1f6a-9 in flight", response.body)

    def test_no_identity(self) -> None:
        """Other text than an identity is asked of no worker."""
        for path in (
            "/requests/7",
            "/requests/%3Cimg%3E",
            "/requests/" + "a" * 100,
            "/failures/..",
            "/workers/x",
            "/workers/" + "1" * 50,
            "/requests/",
            "/nothing%0d%0aX: y",
        ):
            response = self.ask(path.replace(" ", "%20"))
            self.assertEqual(response.status, 404, path)
            self.assertNotIn(b"<img", response.body)
        self.assertEqual(self.controlled.calls, [])

    def test_methods(self) -> None:
        """Other methods are refused, and the response names the right one."""
        for path, method, allowed in [
            ("/", "POST", "GET"),
            ("/requests/1f6a-2", "DELETE", "GET"),
            ("/requests/1f6a-2/cancel", "GET", "POST"),
        ]:
            response = self.ask(path, method)
            self.assertEqual(response.status, 405)
            self.assertEqual(response.header("Allow"), allowed)
        self.assertEqual(self.ask("/status.js", "POST").status, 404)

    def test_cancel(self) -> None:
        """A request is cancelled by the form of its page alone."""
        self.assertNotIn(b"<form", self.ask("/requests/1f6a-2").body)
        self.controlled.found = snapshot(can_cancel=True)
        page = self.ask("/requests/1f6a-2").body.decode()
        token = page.partition('name="form" value="')[2].partition('"')[0]
        path = "/requests/1f6a-2/cancel"
        for body in (b"form=wrong", b"", b"form=", b"x" * 10000, b"\xff=&&"):
            self.assertEqual(self.ask(path, "POST", body).status, 403)
        self.assertNotIn(("cancel", "1f6a-2"), self.controlled.calls)
        response = self.ask(path, "POST", f"form={token}".encode())
        self.assertEqual(response.status, 200)
        self.assertIn(("cancel", "1f6a-2"), self.controlled.calls)

    def test_foreign_name(self) -> None:
        """Without a token, a name that could be of another site is refused.

        Its owner could let it resolve to this machine, and read the page in a browser.
        """
        for host in ("127.0.0.1", "localhost:9091", "[::1]:9091", "a.localhost"):
            self.assertEqual(self.ask("/", host=host).status, 200, host)
        for host in ("evil.example:9091", "localhost.evil.example", "127.0.0.1.x"):
            for path in ("/", "/events", "/snapshot.json", "/status.css"):
                response = self.ask(path, host=host)
                self.assertEqual(response.status, 403, host)
                self.assertNotIn(b"1f6a-2", response.body)

    def test_local_names(self) -> None:
        """IP addresses and localhost are no names of the DNS."""
        for host in ("10.0.0.1:80", "[fe80::1]", "LOCALHOST.", "::1", ""):
            self.assertEqual(is_local_name(host), host not in ("::1", ""), host)
        for host in ("a b", "[::1", "x:y", "1.2.3.4.5"):
            self.assertFalse(is_local_name(host), host)

    def test_unix_socket(self) -> None:
        """Behind a UNIX socket, any name may be the proxy's."""
        self.app = StatusApplication(
            self.controlled, self.feed, Access("", any_name=True)
        )
        self.assertEqual(self.ask("/", host="status.shop.example").status, 200)


class EventTests(StatusCase):
    """Server-sent events."""

    def events(self) -> Any:
        """Open a page."""
        client = self.memory.connect()
        client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.memory.advance(0)
        return client

    def test_events(self) -> None:
        """Each second, a page gets its content as one event."""
        client = self.events()
        self.memory.advance(0.01)
        self.assertIn(b"text/event-stream", client.received)
        self.assertEqual(client.received.count(b"retry: 2000\ndata: <header>"), 1)
        self.memory.advance(1)
        self.memory.advance(1)
        self.assertEqual(client.received.count(b"retry: 2000\ndata: <header>"), 3)
        self.assertEqual(self.controlled.asked, 3)
        client.disconnect()
        self.memory.advance(5)
        self.assertEqual(self.controlled.asked, 3)

    def test_two_pages(self) -> None:
        """Two pages share the snapshots."""
        clients = [self.events(), self.events()]
        self.memory.advance(1)
        self.assertEqual(self.controlled.asked, 2)
        for client in clients:
            self.assertEqual(client.received.count(b"data: <header>"), 2)
            client.disconnect()
        self.memory.advance(1)

    def test_line_ends(self) -> None:
        """Text with line ends cannot end an event, or begin another field."""
        self.controlled.found = snapshot(app=f"a\n\ndata: x\r\revent: y{HOSTILE}")
        client = self.events()
        self.memory.advance(0.01)
        event = client.received.partition(b"retry: 2000\n")[2]
        self.assertEqual(event.count(b"\ndata: "), 0)
        self.assertTrue(event.startswith(b"data: "))
        self.assertNotIn(b"event: y\r", event)
        client.disconnect()
        self.memory.advance(1)

    def test_stop(self) -> None:
        """When the server stops, the events end."""
        client = self.events()
        self.memory.advance(0.01)
        stopped = self.memory.site.stop(10)
        self.memory.advance(0.01)
        self.assertEqual(self.memory.site.requests(), [])
        client.disconnect()
        self.memory.advance(0.01)
        self.successResultOf(stopped)
        self.assertIn(b"\r\n0\r\n\r\n", client.received)

    def test_server_fails(self) -> None:
        """If the server cannot answer, the events end, and a browser tries again."""
        client = self.events()
        self.memory.advance(0.01)
        self.controlled.later = fail(ControlError("starting"))
        self.memory.advance(1)
        self.assertIn(b"\r\n0\r\n\r\n", client.received)


class TokenTests(StatusCase):
    """`StatusApplication` with a token."""

    token = TOKEN

    def test_refused(self) -> None:
        """Without the token, nothing but the form and its style is to be had."""
        for path in ("/", "/events", "/snapshot.json", "/requests/1f6a-2", "/x"):
            response = self.ask(path)
            self.assertEqual(response.status, 401, path)
            self.assertIn(b'type="password"', response.body)
            self.assertNotIn(b"/orders/7", response.body)
        self.assertEqual(self.ask("/status.css").status, 200)
        self.assertEqual(self.controlled.asked, 0)
        self.assertEqual(self.controlled.calls, [])

    def test_form(self) -> None:
        """The form sets a cookie that a script cannot read."""
        wrong = self.ask("/login", "POST", b"token=wrong")
        self.assertEqual(wrong.status, 401)
        self.assertIsNone(wrong.header("Set-Cookie"))
        response = self.ask("/login", "POST", f"token={TOKEN}".encode())
        self.assertEqual(response.status, 303)
        self.assertEqual(response.header("Location"), "./")
        cookie = response.header("Set-Cookie") or ""
        self.assertIn("HttpOnly; SameSite=Lax", cookie)
        self.assertNotIn(TOKEN, cookie)
        value = cookie.partition(";")[0]
        page = self.ask("/", Cookie=f"a=b; {value}")
        self.assertEqual(page.status, 200)
        self.assertIn(b"/orders/7", page.body)
        # A site with a token may have any name.
        self.assertEqual(self.ask("/", host="x.example", Cookie=value).status, 200)

    def test_bearer(self) -> None:
        """A program sends the token in a field."""
        response = self.ask("/snapshot.json", Authorization=f"Bearer {TOKEN}")
        self.assertEqual(response.status, 200)
        for value in (TOKEN, "Bearer", "Bearer x", f"Basic {TOKEN}", "Bearer \xe4"):
            self.assertEqual(self.ask("/", Authorization=value).status, 401, value)

    def test_wrong_cookies(self) -> None:
        """Cookies of other sites, and malformed ones, are no token."""
        name = self.access.cookie().partition("=")[0]
        for value in (
            f"{name}=",
            f"{name}={TOKEN}",
            f"{name}=\xe4",
            Access("another-secret-of-the-operator").cookie().partition(";")[0],
            "=;;,,[]",
        ):
            self.assertEqual(self.ask("/", Cookie=value).status, 401, value)
