"""Tests of the runner: the seam between an exchange and the call of the application."""

from __future__ import annotations

from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING, Any

from tests.server.wire import WireTestCase, get, post
from txgreenwsgi import ClientDisconnected, RequestTimeout, current_task, testing

from .thread_runner import SECONDS, ThreadRunner, ThreadsReactor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi.testing import MemoryServer


class TaskRunnerTests(WireTestCase):
    """A runner that calls the application in the exchange's own task."""

    def test_wrapped(self) -> None:
        """A server calls its runner once a request, in the task of the exchange."""
        calls: list[tuple[str, str]] = []

        def application(
            environ: WSGIEnvironment, start_response: StartResponse
        ) -> list[bytes]:
            start_response("200 OK", [])
            return [b"ok"]

        server = self.recorded(application)
        run_in_task = server.site.server.runner

        def runner(application: Any, environ: dict[str, Any], sink: Any) -> None:
            self.assertIs(application, server.site.application)
            calls.append((environ["PATH_INFO"], sink.task.state))
            self.assertIs(current_task(), sink.task)
            run_in_task(application, environ, sink)

        server.site.server.runner = runner
        for path in ("/a", "/b"):
            self.assertEqual(server.request("GET", path).body, b"ok")
        self.assertEqual(calls, [("/a", "running"), ("/b", "running")])


class ThreadRunnerTests(WireTestCase):
    """A runner that calls the application in a real thread."""

    def setUp(self) -> None:
        """Give servers in memory a reactor that threads can call."""
        super().setUp()
        self.patch(testing, "MemoryReactor", ThreadsReactor)
        self.noticed: list[str] = []
        self.entered = Event()
        self.gate = Event()
        self.addCleanup(self.gate.set)

    def application(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Any:
        """Run the function that the path names, in a thread."""
        assert current_thread() is not main_thread()
        path = environ["PATH_INFO"]
        if path == "/fail":
            raise ZeroDivisionError
        if path == "/own-limit":
            environ["txgreenwsgi.set_request_timeout"](5)
        if path in ("/block", "/own-limit"):
            # The reactor is free meanwhile.
            self.entered.set()
            assert self.gate.wait(SECONDS)
            try:
                environ["wsgi.input"].read()
            except Exception as error:
                self.noticed.append(type(error).__name__)
                raise
        if path == "/read":
            try:
                body = environ["wsgi.input"].read()
            except ClientDisconnected:
                gone = environ["txgreenwsgi.client_disconnected"]()
                self.noticed.append(f"ClientDisconnected {gone}")
                raise
            start_response("200 OK", [])
            return [body]
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/write":
            write(b"written ")
        return self.stream() if path == "/stream" else [b"from a thread"]

    def stream(self) -> Iterator[bytes]:
        """Yield blocks, and note the end of the iteration."""
        try:
            for number in range(3):
                assert current_thread() is not main_thread()
                yield b"block %d\n" % number
        finally:
            self.noticed.append("closed")

    def threaded(self, **settings: Any) -> tuple[MemoryServer, ThreadRunner]:
        """Return a server with a runner of threads."""
        server = self.recorded(self.application, **settings)
        reactor = server.reactor
        assert isinstance(reactor, ThreadsReactor)
        runner = server.site.server.runner = ThreadRunner(reactor)
        return server, runner

    def run_until_ended(self, server: MemoryServer, runner: ThreadRunner) -> None:
        """Let the thread of one request do all that it does."""
        reactor = server.reactor
        assert isinstance(reactor, ThreadsReactor)
        calls = runner.calls
        reactor.run_until(lambda: runner.calls > calls)
        server.settle()

    def test_response(self) -> None:
        """Responses by list, by generator and by write() arrive, on one connection."""
        server, runner = self.threaded()
        client = server.connect()
        for path in ("/", "/stream", "/write"):
            client.send(get(path))
            self.run_until_ended(server, runner)
        bodies = [response.body for response in client.responses()]
        self.assertEqual(
            bodies,
            [
                b"from a thread",
                b"block 0\nblock 1\nblock 2\n",
                b"written from a thread",
            ],
        )
        self.assertEqual(self.noticed, ["closed"])
        self.assertEqual(self.outcomes(), [(200, "finished")] * 3)

    def test_input(self) -> None:
        """A read blocks the thread and parks the task until the body arrives."""
        server, runner = self.threaded()
        client = server.connect()
        request = post("/read", b"body")
        client.send(request[:-2])
        reactor = server.reactor
        assert isinstance(reactor, ThreadsReactor)
        reactor.run_until(lambda: self.waits(server) == ["the request body"])
        self.assertEqual(client.received, b"")
        client.send(request[-2:])
        self.run_until_ended(server, runner)
        self.assertEqual(self.only(client).body, b"body")

    def waits(self, server: MemoryServer) -> list[str]:
        """Return the waits of the requests in flight."""
        return [row.waiting_on for row in server.site.requests()]

    def blocked(self, path: str, **settings: Any) -> Any:
        """Return a server, its runner and a client whose application is blocked."""
        server, runner = self.threaded(**settings)
        client = server.connect()
        client.send(get(path))
        reactor = server.reactor
        assert isinstance(reactor, ThreadsReactor)
        if path == "/own-limit":
            exchange = client.channel.exchange
            before = exchange.deadline
            reactor.run_until(lambda: exchange.deadline != before)
        assert self.entered.wait(SECONDS)
        self.assertEqual(self.waits(server), ["the application's thread"])
        return server, runner, client

    def test_reactor_is_free(self) -> None:
        """While a thread is blocked, the table of requests and other clients work."""
        server, runner, client = self.blocked("/block")
        other = server.connect()
        other.send(b"x\r\n\r\n")
        self.assertIn(b"400 Bad Request", other.received)
        self.gate.set()
        self.run_until_ended(server, runner)
        self.assertEqual(self.only(client).body, b"from a thread")

    def test_request_timeout(self) -> None:
        """The client gets 504 in time; the thread's next call raises the timeout."""
        for path, seconds in (("/block", 30), ("/own-limit", 5)):
            self.gate.clear()
            self.entered.clear()
            self.noticed.clear()
            server, runner, client = self.blocked(path, request_timeout=30)
            server.advance(seconds)
            self.assertEqual(self.only(client).status, 504)
            self.assertEqual(len(server.tasks), 1)
            self.gate.set()
            self.run_until_ended(server, runner)
            self.assertEqual(self.noticed, [RequestTimeout.__name__])
            self.assertEqual(server.tasks, [])
            self.assertEqual(self.outcomes().pop(), (504, "timeout"))

    def test_disconnect(self) -> None:
        """After a disconnect, a thread that reads the body gets the error."""
        server, runner = self.threaded()
        client = server.connect()
        client.send(post("/read", b"body")[:-2])
        reactor = server.reactor
        assert isinstance(reactor, ThreadsReactor)
        reactor.run_until(lambda: self.waits(server) == ["the request body"])
        client.disconnect()
        self.run_until_ended(server, runner)
        self.assertEqual(self.noticed, ["ClientDisconnected True"])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])

    def test_cancelled_by_a_disconnect(self) -> None:
        """With `on_disconnect="cancel"`, the next call of a blocked thread raises."""
        server, runner, client = self.blocked("/block", on_disconnect="cancel")
        client.disconnect()
        self.gate.set()
        self.run_until_ended(server, runner)
        self.assertEqual(self.noticed, ["ClientDisconnected"])

    def test_failure(self) -> None:
        """An exception in the thread is answered and logged like any other."""
        server, runner = self.threaded()
        client = server.connect()
        client.send(get("/fail"))
        self.run_until_ended(server, runner)
        self.assertEqual(self.only(client).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.outcomes(), [(500, "error")])

    def test_slots(self) -> None:
        """A request in a thread keeps its slot; the next one waits in the queue."""
        server, runner, client = self.blocked("/block", max_in_flight=1)
        other = server.connect()
        other.send(get("/"))
        states = [row.state for row in server.site.requests()]
        self.assertEqual(states, ["parked", "queued"])
        self.gate.set()
        self.run_until_ended(server, runner)
        self.run_until_ended(server, runner)
        for each in (client, other):
            self.assertEqual(self.only(each).body, b"from a thread")

    def test_shutdown(self) -> None:
        """A shutdown waits for the response of a thread."""
        server, runner, client = self.blocked("/block")
        done = server.site.stop()
        self.assertNoResult(done)
        self.gate.set()
        self.run_until_ended(server, runner)
        client.end()
        self.successResultOf(done)
        self.assertEqual(self.only(client).header("Connection"), "close")
