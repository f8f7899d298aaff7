"""The statements of docs/switching-guide.md, one test each."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from contextvars import ContextVar
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txgreenwsgi import (
    Cancelled,
    ClientDisconnected,
    NotInGreenlet,
    RequestTimeout,
    TimedOut,
    in_greenlet,
    shield,
    sleep,
    spawn,
    wait,
)
from txgreenwsgi.testing import LeakCheckMixin, MemoryServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    View = Callable[[dict[str, Any]], Iterable[bytes] | bytes | str | None]


def application(view: View) -> Any:
    """Return a WSGI application that calls a function of the environ."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        found = view(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if isinstance(found, str):
            return [found.encode()]
        if isinstance(found, bytes):
            return [found]
        return [] if found is None else found

    return app


class GuideTestCase(LeakCheckMixin, SynchronousTestCase):
    """Requests to a view, in memory."""

    def overlapping(self, view: View, count: int = 2, **settings: Any) -> list[str]:
        """Send concurrent requests; return the body of each response."""
        server = self.serve(application(view), **settings)
        clients = [server.connect() for _ in range(count)]
        for number, client in enumerate(clients):
            client.send(f"GET /?{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for _ in range(10):
            server.advance(1)
        answers = []
        for client in clients:
            [response] = client.responses()
            answers.append(response.body.decode())
        return answers


class SwitchingTests(GuideTestCase):
    """Where a request can be switched."""

    def test_alone_between_waits(self) -> None:
        """Code between two waits runs alone."""
        running = 0

        def view(environ: dict[str, Any]) -> str:
            nonlocal running
            seen = []
            for _ in range(5):
                running += 1
                seen.append(running)
                running -= 1
                sleep(0)
            return str(seen)

        self.assertEqual(self.overlapping(view), ["[1, 1, 1, 1, 1]"] * 2)

    def test_what_was_true_before_a_wait(self) -> None:
        """A condition checked before a wait may not hold after it."""
        cache: dict[str, str] = {}
        fetched: list[str] = []

        def view(environ: dict[str, Any]) -> str:
            if "key" not in cache:
                fetched.append(environ["QUERY_STRING"])
                sleep(1)
                cache["key"] = "value"
            return cache["key"]

        self.assertEqual(self.overlapping(view), ["value", "value"])
        self.assertEqual(fetched, ["0", "1"])

    def order(self, step: Callable[[dict[str, Any]], object]) -> str:
        """Return the order in which two requests begin and end a step."""
        order: list[str] = []

        def view(environ: dict[str, Any]) -> str:
            order.append(environ["QUERY_STRING"])
            step(environ)
            order.append(environ["QUERY_STRING"])
            return ""

        server = self.serve(application(view))
        clients = [server.connect(), server.connect()]
        for number, client in enumerate(clients):
            client.send(f"GET /?{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        server.advance(1)
        return "".join(order)

    def test_sleep_switches(self) -> None:
        """sleep() switches to other requests."""
        self.assertEqual(self.order(lambda environ: sleep(1)), "0101")

    def test_a_fired_deferred_does_not_switch(self) -> None:
        """wait() on a Deferred that has fired does not switch."""
        self.assertEqual(self.order(lambda environ: wait(succeed(1))), "0011")

    def test_logging_does_not_switch(self) -> None:
        """Writing to wsgi.errors does not switch."""
        self.assertEqual(
            self.order(lambda environ: environ["wsgi.errors"].write("x\n")), "0011"
        )

    def test_read_switches_only_for_what_is_missing(self) -> None:
        """A read parks only for bytes that have not arrived."""
        parts: list[bytes] = []

        def view(environ: dict[str, Any]) -> str:
            read = environ["wsgi.input"].read
            parts.append(read(2))
            parts.append(read(2))
            parts.append(read(2))
            return ""

        server = self.serve(application(view))
        client = server.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabcde")
        self.assertEqual(parts, [b"ab", b"cd"])
        client.send(b"f")
        self.assertEqual(parts, [b"ab", b"cd", b"ef"])

    def test_an_empty_block_is_a_turn(self) -> None:
        """Yielding b"" switches to other requests and sends nothing."""
        order: list[str] = []

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            sleep(1)  # until both requests have started
            for _ in range(3):
                order.append(environ["QUERY_STRING"])
                yield b""
            yield b"end"

        self.assertEqual(self.overlapping(view), ["end", "end"])
        self.assertEqual("".join(order), "010101")

    def test_write_waits_for_the_client(self) -> None:
        """The next block is not requested while the client is slow."""
        taken = 0

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            nonlocal taken
            for _ in range(100):
                taken += 1
                yield b"x" * 1000

        server = self.serve(application(view))
        client = server.connect(room=3000)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertLess(taken, 10)
        while client.read():
            pass
        self.assertEqual(taken, 100)


class LockTests(GuideTestCase):
    """Locks."""

    def inside(self, lock: Callable[[], Any], unlock: Callable[[], Any]) -> int:
        """Return how many of three requests hold the lock at the same time."""
        now = most = 0

        def view(environ: dict[str, Any]) -> str:
            nonlocal now, most
            lock()
            try:
                now += 1
                most = max(most, now)
                sleep(1)
                now -= 1
            finally:
                unlock()
            return ""

        self.overlapping(view, 3)
        return most

    def test_rlock_does_not_exclude(self) -> None:
        """An RLock sees all requests as the same owner."""
        lock = threading.RLock()
        self.assertEqual(self.inside(lock.acquire, lock.release), 3)

    def test_deferred_lock(self) -> None:
        """A DeferredLock admits one request at a time."""
        lock = DeferredLock()
        self.assertEqual(self.inside(lambda: wait(lock.acquire()), lock.release), 1)


class ContextTests(GuideTestCase):
    """Request state and shared state."""

    def test_context_variables(self) -> None:
        """A context variable is per request, across all waits."""
        variable: ContextVar[str] = ContextVar("variable", default="unset")

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            before = variable.get()
            variable.set(environ["QUERY_STRING"])
            sleep(1)
            yield f"{before} {variable.get()} ".encode()
            yield variable.get().encode()

        self.assertEqual(self.overlapping(view), ["unset 0 0", "unset 1 1"])

    def test_spawned_tasks_inherit(self) -> None:
        """A spawned task starts with a copy of its request's context."""
        variable: ContextVar[str] = ContextVar("variable")

        def child() -> str:
            inherited = variable.get()
            variable.set("the child's")
            return inherited

        def view(environ: dict[str, Any]) -> str:
            variable.set(environ["QUERY_STRING"])
            return str(spawn(child).wait()) + variable.get()

        self.assertEqual(self.overlapping(view), ["00", "11"])

    def test_decimal(self) -> None:
        """The decimal context is per request."""

        def view(environ: dict[str, Any]) -> str:
            with localcontext() as context:
                context.prec = 2 + int(environ["QUERY_STRING"])
                sleep(1)
                return str(Decimal(1) / Decimal(3))

        self.assertEqual(self.overlapping(view), ["0.33", "0.333"])

    def test_thread_locals_are_shared(self) -> None:
        """Without patching, a threading.local is shared by all requests."""
        local = threading.local()

        def view(environ: dict[str, Any]) -> str:
            local.value = environ["QUERY_STRING"]
            sleep(1)
            return str(local.value)

        self.assertEqual(self.overlapping(view), ["1", "1"])

    def test_redirect_stdout_is_shared(self) -> None:
        """State that is global to the process is shared by all requests."""
        texts: list[str] = []

        def view(environ: dict[str, Any]) -> str:
            if environ["QUERY_STRING"] == "1":
                print("the other's")
                return ""
            with contextlib.redirect_stdout(io.StringIO()) as text:
                sleep(1)
            texts.append(text.getvalue())
            return ""

        self.overlapping(view)
        self.assertEqual(texts, ["the other's\n"])


class EndTests(GuideTestCase):
    """Exceptions at waits."""

    def ended(
        self, view: View, end: Callable[[MemoryServer, Any], object], **settings: Any
    ) -> None:
        """Start a request, and end it."""
        server = self.serve(application(view), **settings)
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        end(server, client)
        server.settle()

    def test_kinds(self) -> None:
        """Each exception has a base class that libraries already catch."""
        self.assertTrue(issubclass(ClientDisconnected, ConnectionResetError))
        self.assertTrue(issubclass(RequestTimeout, TimeoutError))
        self.assertTrue(issubclass(TimedOut, TimeoutError))
        self.assertTrue(issubclass(Cancelled, Exception))

    def test_disconnect_at_a_read(self) -> None:
        """A client that disconnects ends a read of its body."""
        seen: list[BaseException] = []

        def view(environ: dict[str, Any]) -> str:
            try:
                environ["wsgi.input"].read(5)
            except OSError as error:
                seen.append(error)
            return ""

        server = self.serve(application(view))
        client = server.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        client.disconnect()
        self.assertIsInstance(seen[0], ClientDisconnected)

    def sleeper(self) -> tuple[list[object], View]:
        """Return a view that sleeps for an hour, and the events that it records."""
        seen: list[object] = []

        def view(environ: dict[str, Any]) -> str:
            try:
                sleep(3600)
            except Exception as error:
                seen.append(type(error))
            seen.append("end")
            return ""

        return seen, view

    def test_disconnect_at_any_wait(self) -> None:
        """With --on-disconnect cancel, a disconnect ends any wait of the request."""
        seen, view = self.sleeper()
        self.ended(
            view, lambda server, client: client.disconnect(), on_disconnect="cancel"
        )
        self.assertEqual(seen, [ClientDisconnected, "end"])

    def test_disconnect_otherwise(self) -> None:
        """By default, a client that disconnects does not cancel a sleeping view."""
        seen, view = self.sleeper()

        def end(server: MemoryServer, client: Any) -> None:
            client.disconnect()
            self.assertEqual(seen, [])
            server.advance(3600)

        self.ended(view, end)
        self.assertEqual(seen, ["end"])

    def test_request_timeout(self) -> None:
        """RequestTimeout is raised at the wait of a request past its time limit."""
        seen, view = self.sleeper()
        self.ended(view, lambda server, client: server.advance(5.5), request_timeout=5)
        self.assertEqual(seen, [RequestTimeout, "end"])

    def test_server_stops(self) -> None:
        """Cancelled is raised after the graceful timeout of a shutdown."""
        seen, view = self.sleeper()

        def end(server: MemoryServer, client: Any) -> None:
            stopped = server.site.stop()
            server.advance(29)
            self.assertEqual(seen, [])
            server.advance(1)
            client.end()
            self.successResultOf(stopped)

        self.ended(view, end)
        self.assertEqual(seen, [Cancelled, "end"])

    def test_shield(self) -> None:
        """A shielded block is not interrupted; the next wait after it raises."""
        seen: list[object] = []

        def view(environ: dict[str, Any]) -> str:
            with shield():
                sleep(10)
                seen.append("whole")
            try:
                sleep(1)
            except RequestTimeout:
                seen.append(RequestTimeout)
            return ""

        def end(server: MemoryServer, client: Any) -> None:
            server.advance(9)
            server.advance(1)

        self.ended(view, end, request_timeout=5)
        self.assertEqual(seen, ["whole", RequestTimeout])

    def test_what_was_waited_on_is_cancelled(self) -> None:
        """A wait that ends early cancels its Deferred."""
        cancelled: list[Deferred[None]] = []

        def view(environ: dict[str, Any]) -> str:
            with contextlib.suppress(TimedOut):
                wait(Deferred(cancelled.append), timeout=1)
            return str(len(cancelled))

        self.assertEqual(self.overlapping(view, 1), ["1"])

    def test_generators_are_closed(self) -> None:
        """When a client disconnects, its parked generator is closed."""
        seen: list[object] = []

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            try:
                while True:
                    yield b"tick"
                    sleep(1)
            finally:
                seen.append("closed")

        self.ended(view, lambda server, client: client.disconnect())
        self.assertEqual(seen, ["closed"])


class PlaceTests(GuideTestCase):
    """Where waiting is not possible."""

    def test_outside_of_a_task(self) -> None:
        """A wait outside of a task raises an error with the remedy."""
        error = self.assertRaises(NotInGreenlet, wait, Deferred())
        self.assertIn("in_greenlet", str(error))

    def test_environ(self) -> None:
        """The flags of the environ follow the definitions of PEP 3333."""

        def view(environ: dict[str, Any]) -> str:
            return " ".join(
                str(environ[f"wsgi.{name}"])
                for name in ("multithread", "multiprocess", "input_terminated")
            )

        self.assertEqual(self.overlapping(view, 1), ["True False True"])
        self.assertEqual(
            self.overlapping(view, 1, max_in_flight=1), ["False False True"]
        )


class WayInTests(TestCase):
    """From Twisted code into a task, under trial's own reactor."""

    def test_in_greenlet(self) -> Deferred[None]:
        """A function made by in_greenlet may wait and returns a Deferred."""
        gate: Deferred[str] = Deferred()
        result = in_greenlet(lambda: wait(gate) + "!")()
        self.assertNoResult(result)
        gate.callback("open")
        return result.addCallback(self.assertEqual, "open!")


class PageTests(SynchronousTestCase):
    """The page itself."""

    def test_names_this_file(self) -> None:
        """The page names the file with its tests."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        with open(os.path.join(root, "docs", "switching-guide.md")) as page:
            self.assertIn("`tests/test_switching_guide.py`", page.read())
