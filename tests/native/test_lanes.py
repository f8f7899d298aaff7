"""Each lane is taken in its common case, and gives the result of the Python method."""

from __future__ import annotations

import os
import select
from contextvars import ContextVar, copy_context
from sys import getrefcount
from typing import TYPE_CHECKING, Any
from unittest import skipUnless

from greenlet import getcurrent

from tests.server.pairs import PairClient
from tests.server.wire import WireTestCase, get
from txgreenwsgi import sleep
from txgreenwsgi._http.head import RequestHead
from txgreenwsgi._native import ACTIVE, description, lanes
from txgreenwsgi._serving.exchange import Exchange
from txgreenwsgi._switching.steady_clock import is_steady
from txgreenwsgi._switching.tasks import Task
from txgreenwsgi.green import patched
from txgreenwsgi.green import select as green_select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from txgreenwsgi.monitoring.records import ExchangeRecord

    Environ = dict[str, Any]
    Start = Callable[..., Any]

HELLO = [("Content-Type", "text/plain"), ("Content-Length", "6")]
POST = get("/", "Content-Type: text/plain", method="POST", body=b"a" * 100)
_variable: ContextVar[str] = ContextVar("_variable", default="outside")


def hello(environ: Environ, start_response: Start) -> list[bytes]:
    """Answer with one short block."""
    start_response("200 OK", HELLO)
    return [b"hello\n"]


class DescriptionTests(WireTestCase):
    """The choice of the module."""

    def test_description(self) -> None:
        """The description agrees with the choice, and names the reason for Python."""
        if ACTIVE:
            self.assertEqual(description(), "compiled")
            self.assertEqual(lanes.INTERFACE, 1)
        else:
            self.assertTrue(description().startswith("pure Python ("))
            self.assertEqual(lanes.counts(), {})

    def test_forced(self) -> None:
        """TXGREENWSGI_PURE=1 forces pure Python."""
        if os.environ.get("TXGREENWSGI_PURE") == "1":
            self.assertFalse(ACTIVE)
            self.assertIn("TXGREENWSGI_PURE=1", description())

    def test_attributes(self) -> None:
        """State classes have the attributes of their class, and no dict."""
        for made in (Exchange, RequestHead, Task):
            self.assertNotIn("__dict__", dir(made))

    def test_heads_compare(self) -> None:
        """A request head is a dataclass in both modes."""
        one, other = (
            RequestHead("GET", b"/", "/", "", "HTTP/1.1", {}, 0, True, False, "")
            for _ in range(2)
        )
        self.assertEqual(one, other)
        self.assertIn("method='GET'", repr(one))


@skipUnless(hasattr(select, "epoll"), "this platform has no epoll")
class LaneTests(WireTestCase):
    """Requests over real sockets, in both modes; with lanes, those are taken."""

    def taken(self, before: dict[str, int]) -> dict[str, int]:
        """Return how often each lane was taken since then, without zeros."""
        counts = {name: lanes.counts()[name] - n for name, n in before.items()}
        counts.pop("poll", None)  # depends on the number of turns
        return {name: count for name, count in counts.items() if count}

    def second(self, application: Any, request: bytes, **settings: Any) -> bytes:
        """Send a request twice; return the second response. Sets `counts`."""
        server = self.serve(application, **settings)
        client = PairClient(server)
        client.send(request)
        first = client.read_all()
        before = lanes.counts()
        client.send(request)
        second = client.read_all()[len(first) :]
        self.counts = self.taken(before)
        client.close()
        self.assertEqual(self.without_date(first), self.without_date(second))
        return second

    @staticmethod
    def without_date(response: bytes) -> bytes:
        """Return a response without its Date."""
        lines = response.split(b"\r\n")
        return b"\r\n".join(line for line in lines if not line.startswith(b"Date: "))

    def expect(self, **counts: int) -> None:
        """Assert that these lanes were taken, if there are any."""
        self.assertEqual(self.counts, counts if ACTIVE else {})

    def test_poller_with_patched_select(self) -> None:
        """The poller keeps its lane, and the kernel's epoll, if `select` is patched."""

        def poll_of_tasks(*_: object) -> None:
            raise AssertionError("the poller uses the green epoll")

        self.patch(green_select.epoll, "poll", poll_of_tasks)
        self.patch(select, "epoll", green_select.epoll)
        self.patch(patched.record, "modules", {"select"})
        before = lanes.counts()
        self.second(hello, get("/"))
        polls = lanes.counts().get("poll", 0) - before.get("poll", 0)
        self.assertEqual(polls > 0, ACTIVE)

    def test_short_response(self) -> None:
        """A known head and a response of one block take all lanes."""
        response = self.second(hello, get("/"))
        self.assertEqual(
            self.without_date(response),
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n"
            b"Server: txgreenwsgi\r\n\r\nhello\n",
        )
        self.expect(head=1, start=1, serve=1, response=1, end=1)

    def test_recorded_fields(self) -> None:
        """A record has the fields that the server adds to the response."""
        seen: list[list[str]] = []

        class Observer:
            needs = frozenset(["response_headers"])

            def __call__(self, record: ExchangeRecord) -> None:
                seen.append([name for name, _ in record.response_headers])

        def application(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"hello\n"]

        client = PairClient(self.serve(application, observers=[Observer()]))
        for _ in range(2):
            client.send(get("/"))
            self.assertTrue(client.read_all().endswith(b"hello\n"))
        client.close()
        names = ["Content-Type", "Server", "Date", "Content-Length"]
        self.assertEqual(seen, [names, names])

    def test_stopped_server(self) -> None:
        """No template refers to a server that has stopped."""
        server = self.serve(hello)
        shared = server.site.server.environ
        references = getrefcount(shared)
        client = PairClient(server)
        before = lanes.counts()
        for _ in range(5):
            client.send(get("/"))
        self.assertEqual(self.taken(before).get("template", 0) > 0, ACTIVE)
        self.assertEqual(getrefcount(shared) > references, ACTIVE)
        client.close()
        server.site.stop(0)
        self.assertEqual(getrefcount(shared), references)

    def test_cookie_and_query(self) -> None:
        """Other cookies and queries take the lane, and reach the application."""
        seen = []

        def application(environ: Environ, start: Start) -> list[bytes]:
            seen.append((environ["QUERY_STRING"], environ.get("HTTP_COOKIE")))
            seen.append((environ["RAW_URI"], environ["PATH_INFO"]))
            return hello(environ, start)

        client = PairClient(self.serve(application))
        client.send(get("/p%20q?a=1", "Cookie: a=b"))
        client.read_all()
        before = lanes.counts()
        client.send(get("/p%20q?\xe4=2".encode().decode("latin-1"), "Cookie: a=b"))
        self.assertIn(b" 400 ", client.read_all())
        client.close()
        client = PairClient(self.serve(application))
        client.send(get("/p%20q?b=2", "cookie:  \xe4=c\t"))
        client.read_all()
        self.assertEqual(seen[2], ("b=2", "\xe4=c"))
        self.assertEqual(seen[3], ("/p%20q?b=2", "/p q"))
        self.assertEqual(self.taken(before).get("head"), 1 if ACTIVE else None)
        client.close()

    def test_body(self) -> None:
        """A body that came with its head is read in every way."""
        ways: list[Callable[[Any], object]] = [
            lambda body: body.read(),
            lambda body: body.read(100),
            lambda body: body.read(1000),
            lambda body: body.read(None),
            lambda body: (body.read(10), body.read(), body.read(1)),
            lambda body: (body.read(0), body.read(99), body.readline()),
            lambda body: (body.readline(7), body.readlines()),
            lambda body: list(body),
        ]
        for index, way in enumerate(ways):
            results: list[object] = []

            def application(
                environ: Environ,
                start: Start,
                way: Callable[[Any], object] = way,
                results: list[object] = results,
            ) -> list[bytes]:
                results.append(way(environ["wsgi.input"]))
                return hello(environ, start)

            self.second(application, POST)
            result = results[1]
            if isinstance(result, tuple):
                parts = [b"".join(p) if isinstance(p, list) else p for p in result]
                result = b"".join(parts)
            elif isinstance(result, list):
                result = b"".join(result)
            self.assertEqual(result, b"a" * 100, index)
            self.assertEqual(self.counts.get("head"), 1 if ACTIVE else None)

    def test_body_after_the_request(self) -> None:
        """A body that was not read raises after the request."""
        inputs = []

        def application(environ: Environ, start: Start) -> list[bytes]:
            inputs.append(environ["wsgi.input"])
            return hello(environ, start)

        self.second(application, POST)
        for body in inputs:
            self.assertRaises(ValueError, body.read)

    def test_chunks(self) -> None:
        """Each block of a chunked response is one send, by the lane."""

        def application(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            yield b"a"
            yield b"b" * 1000
            yield b"c"

        response = self.second(application, get("/"))
        body = b"1\r\na\r\n3e8\r\n" + b"b" * 1000 + b"\r\n1\r\nc\r\n0\r\n\r\n"
        self.assertTrue(response.endswith(b"\r\n\r\n" + body))
        self.expect(head=1, start=1, iterate=1, response=1, block=2, end=1)

    def test_iterable(self) -> None:
        """A block of known length is one send, and `close` is called after it."""
        events: list[str] = []

        class Response:
            def __iter__(self) -> Iterator[bytes]:
                yield b"hello\n"
                events.append("sent")

            def close(self) -> None:
                events.append("closed")

        def application(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", HELLO)
            return Response()

        response = self.second(application, get("/"))
        self.assertEqual(events, ["sent", "closed"] * 2)
        self.assertTrue(response.endswith(b"\r\n\r\nhello\n"))
        self.assertNotIn(b"chunked", response)
        self.expect(head=1, start=1, iterate=1, response=1, end=1)

    def test_other_fields(self) -> None:
        """A field that differs in each response does not leave the lane."""
        values = iter("12")

        def application(environ: Environ, start: Start) -> list[bytes]:
            start("200 OK", [*HELLO, ("X-Number", next(values))])
            return [b"hello\n"]

        client = PairClient(self.serve(application))
        for value in (b"1", b"2"):
            before = lanes.counts()
            client.send(get("/"))
            self.assertIn(b"\r\nX-Number: " + value + b"\r\n", client.read_all())
        self.counts = self.taken(before)
        client.close()
        self.expect(head=1, start=1, serve=1, response=1, end=1)

    def test_iterables_of_wrong_length(self) -> None:
        """A body that is too long is cut, and one that is too short ends it all."""
        for length, sent in ((4, b"hell"), (8, b"hello\n")):

            def application(
                environ: Environ, start: Start, length: int = length
            ) -> Iterable[bytes]:
                start("200 OK", [("Content-Length", str(length))])
                yield b"hel"
                yield b"lo\n"

            client = PairClient(self.serve(application))
            client.send(get("/"))
            self.assertTrue(client.read_all().endswith(b"\r\n\r\n" + sent))
            self.assertEqual(client.ended, length == 8)
            client.close()

    def test_iterables_that_fail(self) -> None:
        """`close` is called once wherever the iteration fails."""
        closed: list[str] = []

        class Response:
            def __init__(self, target: str) -> None:
                self.target = target

            def __iter__(self) -> Iterator[bytes]:
                if self.target == "first":
                    raise ZeroDivisionError("first")
                yield b"hello\n"
                if self.target == "later":
                    raise ZeroDivisionError("later")

            def close(self) -> None:
                closed.append(self.target)
                if self.target == "close":
                    raise ZeroDivisionError("close")

        def application(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [])
            return Response(environ["QUERY_STRING"])

        for target, end in (
            ("first", b"500"),
            ("later", b"hello"),
            ("close", b"0\r\n"),
        ):
            client = PairClient(self.serve(application))
            client.send(get(f"/?{target}"))
            self.assertIn(end, client.read_all(), target)
            self.assertEqual(client.ended, target != "close")
            client.close()
            self.assertEqual(closed.pop(), target)
            self.assertEqual(closed, [])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_too_long(self) -> None:
        """A block beyond Content-Length is cut in both modes."""

        def application(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Length", "4")])
            return [b"ab", b"cd", b"ef"]

        client = PairClient(self.serve(application))
        client.send(get("/"))
        self.assertTrue(client.read_all().endswith(b"\r\n\r\nabcd"))
        client.close()
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_connection_close(self) -> None:
        """A request that ends the connection is answered, then it is closed."""
        client = PairClient(self.serve(hello))
        client.send(get("/", "Connection: close"))
        response = client.read_all()
        self.assertIn(b"\r\nConnection: close\r\n\r\nhello\n", response)
        client = PairClient(self.serve(hello))
        before = lanes.counts()
        client.send(get("/", "Connection: close"))
        again = client.read_all()
        self.assertEqual(self.without_date(response), self.without_date(again))
        self.assertEqual(self.taken(before).get("response"), 1 if ACTIVE else None)
        self.assertTrue(client.ended)
        client.close()

    def test_head_and_bodiless(self) -> None:
        """HEAD, 204 and 304 have no body in both modes."""

        def application(environ: Environ, start: Start) -> list[bytes]:
            start(environ["QUERY_STRING"].replace("+", " ") or "200 OK", [])
            return [b"body"]

        for request in (get("/", method="HEAD"), get("/?204+No"), get("/?304+No")):
            response = self.second(application, request)
            self.assertTrue(response.endswith(b"\r\n\r\n"), request)

    def test_pipelined(self) -> None:
        """Requests in one read are answered in order, by Python."""
        client = PairClient(self.serve(hello))
        client.send(get("/") * 3)
        self.assertEqual(client.read_all().count(b"hello\n"), 3)
        client.close()

    def test_parked(self) -> None:
        """A request that parks has its own Context, task and end."""
        seen = []

        def application(environ: Environ, start: Start) -> list[bytes]:
            seen.append(_variable.get())
            _variable.set("request")
            task = environ["txgreenwsgi.current_task"]()
            seen.append(task.state)
            sleep(1)
            seen.append(_variable.get())
            context = getcurrent().gr_context
            assert context is not None
            seen.append(context[_variable])
            seen.append(copy_context()[_variable])
            return hello(environ, start)

        server = self.serve(application)
        client = PairClient(server)
        for _ in range(2):
            seen.clear()
            client.send(get("/"))
            [row] = server.site.requests()
            self.assertEqual(row.state, "parked")
            server.advance(1)
            self.assertTrue(client.read_all().endswith(b"hello\n"))
            expected = ["outside", "running", "request", "request", "request"]
            self.assertEqual(seen, expected)
        client.close()

    def test_failures(self) -> None:
        """An exception is answered by 500 and logged; the next request is served."""

        def application(environ: Environ, start: Start) -> list[bytes]:
            if environ["QUERY_STRING"] == "fail":
                raise ZeroDivisionError("a defect")
            start("200 OK", [])
            start("200 OK", [])  # twice
            return []

        for target, kind in (("/?fail", ZeroDivisionError), ("/?x", AssertionError)):
            client = PairClient(self.serve(application))
            client.send(get(target))
            self.assertIn(b" 500 ", client.read_all())
            client.close()
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_clock(self) -> None:
        """The compiled clock is steady, and agrees with the reactor's."""
        if ACTIVE:
            clock = lanes.steady_seconds(1000.0)
            assert clock is not None
            self.assertTrue(1000.0 <= clock() <= clock() < 2000.0)
        self.assertFalse(is_steady(self.serve(hello).reactor))
