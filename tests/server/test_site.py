"""The state shared by the connections of a site: ids, records, request table."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from zope.interface.verify import verifyObject

from txgreenwsgi import GreenSite
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi.settings import SettingError, Settings

from .application import TEXT, application
from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .application import Environ, Start


class SiteTests(WireTestCase):
    """`GreenSite`."""

    def test_is_a_factory(self) -> None:
        """A site works behind every stream endpoint."""
        verifyObject(IProtocolFactory, GreenSite(application))

    def test_settings(self) -> None:
        """Settings are given as an object or by keyword, not both."""
        self.assertEqual(GreenSite(application, max_body=5).settings.max_body, 5)
        settings = Settings(max_body=7)
        self.assertIs(GreenSite(application, settings).settings, settings)
        error = self.assertRaises(
            TypeError, GreenSite, application, settings, max_body=5, keep_alive=1
        )
        self.assertIn("not both: max_body, keep_alive", str(error))
        error = self.assertRaises(SettingError, GreenSite, application, max_boddy=5)
        self.assertIn("did you mean max_body?", str(error))
        other: dict[str, Any] = {"port": 8080}
        error = self.assertRaises(SettingError, GreenSite, application, **other)
        self.assertEqual(
            str(error),
            "port=8080 is not a setting: give txgreenwsgi.service() "
            "listen=['tcp:8080']",
        )

    def test_reactor_is_the_installed_one(self) -> None:
        """By default, the installed reactor is used, from the first use on."""
        from twisted.internet import reactor

        site = GreenSite(application)
        self.assertIs(site.server.reactor, reactor)
        site.server.bind()
        self.assertIs(site.server.hub, hub_of(reactor))

    def test_alpn(self) -> None:
        """TLS clients that negotiate a protocol are offered http/1.1."""
        self.assertEqual(GreenSite(application).acceptableProtocols(), [b"http/1.1"])

    def test_request_ids(self) -> None:
        """Each request has a unique id, in its environ and in the log."""
        seen: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            seen.append(environ["txgreenwsgi.request_id"])
            environ["wsgi.errors"].write("a line\n")
            return application(environ, start)

        one, other = self.recorded(app), self.recorded(app)
        for server in (one, one, other):
            server.request()
        self.assertEqual(len(set(seen)), 3)
        self.assertEqual(seen, [record.request_id for record in self.records])
        for request_id in seen:
            self.assert_logged("a line", request_id)

    def test_errors_without_a_newline(self) -> None:
        """An unfinished line in wsgi.errors is logged at the end of the request."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.errors"].write("no newline")
            self.assertEqual(self.logged(), [])
            return application(environ, start)

        self.serve(app).request()
        self.assert_logged("no newline")

    def test_context(self) -> None:
        """Each request has context variables of its own, inherited from the site's."""
        variable = ContextVar("variable", default="none")
        seen: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            seen.append(variable.get())
            variable.set("changed")
            return application(environ, start)

        variable.set("the site's")
        server = self.serve(app)
        variable.set("later")
        server.request()
        server.request()
        self.assertEqual(seen, ["the site's"] * 2)
        self.assertEqual(variable.get(), "later")


class TableTests(WireTestCase):
    """The table of requests in flight."""

    def test_table(self) -> None:
        """A row contains the request, its age and its wait."""
        server = self.serve(application, max_in_flight=2)
        requests = [
            get("/sleep?seconds=5"),
            get("/echo%20", "Content-Length: 5", method="POST").replace(b"%20", b""),
            get("/queued%41", method="DELETE"),
        ]
        for request in requests:
            server.connect().send(request)
            server.advance(1)
        table = server.site.requests()
        self.assertEqual(
            [
                (each.method, each.path, each.age, each.state, each.waiting_on)
                for each in table
            ],
            [
                ("GET", "/sleep", 3.0, "parked", "sleep(5)"),
                ("POST", "/echo", 2.0, "parked", "the request body"),
                ("DELETE", "/queuedA", 1.0, "queued", ""),
            ],
        )
        self.assertEqual(len({each.request_id for each in table}), 3)
        server.advance(5)

    def test_from_the_application(self) -> None:
        """An application finds the table, and itself in it, in its environ."""
        seen: list[Any] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            seen.extend(environ["txgreenwsgi.requests"]())
            return application(environ, start)

        self.serve(app).request("GET", "/here")
        (mine,) = seen
        self.assertEqual(
            (mine.path, mine.state, mine.waiting_on), ("/here", "running", "")
        )
        with self.assertRaises(AttributeError):
            mine.path = "/there"

    def test_waiting_on_an_object(self) -> None:
        """The object of a wait is described by its repr()."""
        deferred: Deferred[None] = Deferred()

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.wait"](deferred)
            return application(environ, start)

        server = self.serve(app)
        server.connect().send(get("/"))
        (request,) = server.site.requests()
        self.assertIn("<Deferred at ", request.waiting_on)
        deferred.callback(None)


class ObserverTests(WireTestCase):
    """Observers of finished exchanges."""

    def test_record(self) -> None:
        """A record contains the client, the request and the outcome."""
        server = self.recorded(application)
        client = server.connect()
        before = time.time()
        client.send(
            post("/echo?x=%20", b"abc", "Referer: http://r/", "User-Agent: tests")
        )
        (record,) = self.records
        self.assertEqual(record.remote_addr, "192.0.2.1")
        self.assertEqual(record.remote_port, "4321")
        self.assertEqual(record.method, "POST")
        self.assertEqual(record.target, "/echo?x=%20")
        self.assertEqual(record.version, "HTTP/1.1")
        self.assertEqual(record.status, 200)
        self.assertEqual(record.bytes_sent, 3)
        self.assertEqual(record.referer, "http://r/")
        self.assertEqual(record.user_agent, "tests")
        self.assertEqual(record.outcome, "finished")
        self.assertTrue(before - 1 <= record.started <= time.time() + 1)

    def test_duration(self) -> None:
        """The duration is that of the request, not of its connection."""
        server = self.recorded(application)
        client = server.connect()
        server.advance(3)
        client.send(get("/sleep?seconds=2"))
        server.advance(2)
        self.assertEqual(self.records[0].duration, 2)

    def test_bytes_sent(self) -> None:
        """`bytes_sent` counts the body without framing; 0 if no body is sent."""
        for request, count in (
            (get("/stream?count=3&size=1000"), 3000),
            (get("/stream?count=3&size=100000"), 300_000),
            (get("/written"), 14),
            (get("/", method="HEAD"), 0),
            (get("/no-content"), 0),
            (get("/memory-file"), 10),
            (get("/empty"), 0),
        ):
            self.connected(application).send(request)
            self.assertEqual(self.records[-1].bytes_sent, count, request)

    def test_observer_that_raises(self) -> None:
        """A failing observer is logged; other observers and clients are unaffected."""

        def fail(record: Any) -> None:
            raise ValueError

        server = self.serve(application, observers=[fail, self.records.append])
        self.assertEqual(server.request().body, b"hello\n")
        self.assertEqual(len(self.records), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assert_logged("observer", "fail")

    def test_failing_deadline_check(self) -> None:
        """A failing deadline check does not stop those of other connections."""
        server = self.serve(application, keep_alive=1)
        clients = [server.connect() for _ in range(3)]

        class Broken:
            def check(self, now: float) -> None:
                raise ValueError

        broken: Any = Broken()
        server.site.server.connection_made(broken)
        server.advance(1)
        server.site.server.connection_lost(broken)
        self.assertEqual([client.closed for client in clients], [True] * 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class KeepAliveTests(WireTestCase):
    """Many requests on one connection."""

    def test_a_thousand_pipelined(self) -> None:
        """A thousand requests sent at once are answered in order."""
        client = self.connected(application)
        client.send(
            b"".join(get(f"/echo?{number}", method="POST") for number in range(500))
            + b"".join(post("/echo", b"%d" % number) for number in range(500))
        )
        self.assertEqual(
            [each.body for each in client.responses()],
            [b""] * 500 + [b"%d" % number for number in range(500)],
        )
        targets = [record.target for record in self.records[:500]]
        self.assertEqual(targets, [f"/echo?{number}" for number in range(500)])

    def test_a_thousand_pipelined_that_wait(self) -> None:
        """The same holds if each of them waits; the stack does not grow."""
        server = self.serve(application)
        client = server.connect()
        client.send(get("/stream?count=2&size=1&pause=0.01") * 1000)
        for _ in range(2100):
            server.reactor.advance(0.01)
            client.settle()
        self.assertEqual([each.body for each in client.responses()], [b"AB"] * 1000)

    def test_cost(self) -> None:
        """A plain request takes one send, no delayed call and no Deferred."""
        client = self.connected(application)
        client.send(get("/"))
        made: list[str] = []
        send = client.socket.send

        def send_noted(data: Any, flags: int = 0) -> int:
            made.append("send")
            return send(data, flags)

        def call_noted(*args: Any, **kwargs: Any) -> Any:
            made.append("delayed call")

        init = Deferred.__init__

        def init_noted(deferred: Deferred[Any], *args: Any) -> None:
            made.append("Deferred")
            init(deferred, *args)

        self.patch(client.socket, "send", send_noted)
        self.patch(client.server.reactor, "callLater", call_noted)
        self.patch(Deferred, "__init__", init_noted)
        client.send(get("/") + post("/echo", b"abc"))
        self.assertEqual(made, ["send"] * 2)
        self.assertEqual(len(client.responses()), 3)

    def test_one_at_a_time(self) -> None:
        """A pipelined request starts after the end of the one before it."""
        seen: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            seen.append("begin " + environ["PATH_INFO"])
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            yield b"x"
            environ["txgreenwsgi.sleep"](1)
            seen.append("end " + environ["PATH_INFO"])

        server = self.serve(app)
        client = server.connect()
        client.send(get("/1") + get("/2") + get("/3"))
        for _ in range(6):
            server.advance(1)
        self.assertEqual(
            seen,
            ["begin /1", "end /1", "begin /2", "end /2", "begin /3", "end /3"],
        )
        self.assertEqual(len(client.responses()), 3)
