"""Tests of the adapters: nginx, uWSGI, pause_output, Tornado, meinheld."""

from __future__ import annotations

import importlib
import select
import sys
import threading
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import spawn
from txgreenwsgi.origins import (
    NAMES,
    UnknownOrigin,
    adapt,
    awsgi,
    meinheld,
    ngx,
    pause_output,
    prepare,
    tornado,
    uwsgi,
)

from .serving import GET, TEXT, ServedTestCase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serving import Environ, StartResponse


class NamesTests(SynchronousTestCase):
    """The adapters by name."""

    def test_every_name_is_a_module(self) -> None:
        """Each name is a module with `adapt` whose docstring names its source."""
        for name in NAMES:
            module = importlib.import_module(f"txgreenwsgi.origins.{name}")
            self.assertTrue(callable(module.adapt))
            self.assertIn("Source:", module.__doc__ or "")

    def test_all_at_once(self) -> None:
        """Several adapters may be combined in one application."""
        seen: Environ = {}

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            seen.update(environ)
            return []

        names = [name for name in NAMES if name != "awsgi"]
        list(adapt(app, names)({}, cast("Any", None)))
        for key in ("ngx.poll", "wsgi.pause_output", "async.suspend", "uwsgi.ready_fd"):
            self.assertIn(key, seen)
        self.assertIsInstance(seen["meinheld.continuation"], meinheld.Continuation)

    def test_unknown(self) -> None:
        """An unknown name raises an error that lists the known ones."""
        for function in (prepare, lambda names: adapt(lambda e, s: [], names)):
            with self.assertRaisesRegex(
                UnknownOrigin, "'nginx' is not an origin: .* or uwsgi"
            ):
                function(["nginx"])


class NgxTests(ServedTestCase):
    """The `ngx.*` keys."""

    def test_poll(self) -> None:
        """After the yield `state()` returns the ready connection and its flags."""
        ours, theirs = self.pair()
        told: list[Any] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            conn = environ["ngx.connection_wrapper"](ours.fileno())
            environ["ngx.poll_register"](conn, environ["ngx.WSGI_POLLIN"])
            state = environ["ngx.poll"](1000)
            told.append(state())
            yield b""
            told.append((state()[0] is conn, state()[1]))
            ours.recv(1)
            environ["ngx.poll"](1000)
            yield b""
            told.append(state()[1])
            start_response("200 OK", TEXT)
            yield b"done"

        server = self.serve(ngx.adapt(app))
        client = self.get(server)
        self.assertEqual(told, [(None, 0)])
        theirs.send(b"x")
        server.settle()
        self.assertEqual(told, [(None, 0), (True, ngx.WSGI_POLLIN)])
        server.advance(1.0)
        # The result of a state is constant, whatever is polled later.
        self.assertEqual(told[2], ngx.WSGI_POLLIN)
        self.assertEqual(self.body(client), "done")

    def test_timeout(self) -> None:
        """After a timeout `state()` returns (None, 0)."""
        ours, _theirs = self.pair()
        told: list[Any] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            conn = environ["ngx.connection_wrapper"](ours.fileno())
            environ["ngx.poll_register"](conn, environ["ngx.WSGI_POLLIN"])
            state = environ["ngx.poll"](250)
            yield b""
            told.append(state())
            start_response("200 OK", TEXT)
            yield b"done"

        server = self.serve(ngx.adapt(app))
        client = self.get(server)
        server.advance(0.2)
        self.assertEqual(told, [])
        server.advance(0.1)
        self.assertEqual(told, [(None, 0)])
        self.assertEqual(self.body(client), "done")

    def test_several_in_turn(self) -> None:
        """Of several connections that are always ready each has its turn."""
        ones = [self.pair()[0] for _ in range(3)]
        told: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            for one in ones:
                conn = environ["ngx.connection_wrapper"](one.fileno())
                environ["ngx.poll_register"](conn, environ["ngx.WSGI_POLLOUT"])
            for _ in range(6):
                state = environ["ngx.poll"](-1)
                yield b""
                conn, flags = state()
                told.append(conn.fileno())
                assert flags == environ["ngx.WSGI_POLLOUT"]
            start_response("200 OK", TEXT)
            yield b"done"

        self.assertEqual(self.body(self.get(self.serve(ngx.adapt(app)))), "done")
        self.assertEqual(told, [one.fileno() for one in ones] * 2)

    def test_hang_up(self) -> None:
        """A hang-up is reported with the registered flags."""
        ours, theirs = self.pair()
        theirs.close()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            conn = environ["ngx.connection_wrapper"](ours.fileno())
            environ["ngx.poll_register"](conn, environ["ngx.WSGI_POLLIN"])
            state = environ["ngx.poll"]()
            yield b""
            start_response("200 OK", TEXT)
            yield str(state()[1]).encode()

        self.assertEqual(self.body(self.get(self.serve(ngx.adapt(app)))), "1")

    def test_unregister(self) -> None:
        """An unregistered connection is not polled; twice is a RuntimeError."""
        ours, theirs = self.pair()
        theirs.send(b"x")

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            conn = environ["ngx.connection_wrapper"](ours.fileno())
            environ["ngx.poll_register"](conn, environ["ngx.WSGI_POLLIN"])
            environ["ngx.poll_unregister"](conn)
            try:
                environ["ngx.poll_unregister"](conn)
            except RuntimeError as error:
                start_response("200 OK", TEXT)
                yield str(error).encode()
            state = environ["ngx.poll"](1000)
            yield b""
            yield f"; {state()}".encode()

        server = self.serve(ngx.adapt(app))
        client = self.get(server)
        self.assertNotIn(b"None", client.received)
        server.advance(1.0)
        self.assertRegex(self.body(client), r"is not registered: .*; \(None, 0\)")

    def test_unregistered_during_the_poll(self) -> None:
        """A ready connection that was unregistered during the poll is dropped."""
        ours, theirs = self.pair()
        theirs.send(b"x")

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            conn = environ["ngx.connection_wrapper"](ours.fileno())
            environ["ngx.poll_register"](conn, environ["ngx.WSGI_POLLIN"])
            state = environ["ngx.poll"](1000)
            yield b""
            environ["ngx.poll_unregister"](conn)
            start_response("200 OK", TEXT)
            yield str(state()).encode()

        self.assertEqual(self.body(self.get(self.serve(ngx.adapt(app)))), "(None, 0)")

    def test_wrong_flags(self) -> None:
        """Wrong flags raise an error that lists the right ones."""
        for flags in (0, 2, 5 | 8):
            with self.assertRaisesRegex(ValueError, r"ngx\.WSGI_POLLIN"):
                ngx.Poller().register(ngx.Connection(0), flags)

    def test_sleep(self) -> None:
        """`ngx.sleep(ms)` and a yield sleep for that time."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            environ["ngx.sleep"](700)
            yield b""
            start_response("200 OK", TEXT)
            yield b"awake"

        server = self.serve(ngx.adapt(app))
        client = self.get(server)
        server.advance(0.6)
        self.assertEqual(client.received, b"")
        server.advance(0.1)
        self.assertEqual(self.body(client), "awake")


class SuspensionTests(ServedTestCase):
    """`wsgi.pause_output` and `async.suspend`."""

    def test_resumed(self) -> None:
        """Both suspend at the empty block until their callable is called."""
        for adapter, key, answer in (
            (pause_output.adapt, "wsgi.pause_output", None),
            (tornado.adapt, "async.suspend", True),
        ):
            resumes: list[Any] = []

            def app(
                environ: Environ,
                start_response: StartResponse,
                key: str = key,
                resumes: list[Any] = resumes,
            ) -> Iterator[bytes]:
                resumes.append(environ[key]())
                yield b""
                start_response("200 OK", TEXT)
                yield b"resumed"

            server = self.serve(adapter(app))
            client = self.get(server)
            server.advance(3600.0)
            self.assertEqual(client.received, b"")
            self.assertIs(resumes[0](), answer)
            client.settle()
            self.assertEqual(self.body(client), "resumed")


class MeinheldTests(ServedTestCase):
    """`meinheld.continuation`."""

    def setUp(self) -> None:
        """Make a list of continuations."""
        self.found: list[meinheld.Continuation] = []

    def suspending(self, timeout: float = 0) -> Any:
        """Run an application that suspends three calls deep."""

        def deep(environ: Environ, depth: int) -> Any:
            if depth:
                return deep(environ, depth - 1)
            return environ[meinheld.CONTINUATION_KEY].suspend(timeout)

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            self.found.append(environ[meinheld.CONTINUATION_KEY])
            try:
                value = deep(environ, 3)
            except TimeoutError:
                value = "timed out"
            start_response("200 OK", TEXT)
            return [repr(value).encode()]

        return meinheld.adapt(app)

    def test_values(self) -> None:
        """`suspend()` returns the arguments of `resume`, as greenlet's switch."""
        server = self.serve(self.suspending())
        for args, kwargs, value in (
            ((), {}, ()),
            ((1,), {}, 1),
            ((1, 2), {}, (1, 2)),
            ((), {"a": 1}, {"a": 1}),
            ((1,), {"a": 1}, (1, {"a": 1})),
            ((1, 2), {"a": 1}, ((1, 2), {"a": 1})),
        ):
            client = self.get(server)
            self.found.pop().resume(*args, **kwargs)
            client.settle()
            self.assertEqual(self.body(client), repr(value))

    def test_timeout(self) -> None:
        """A timeout is raised by `suspend`."""
        server = self.serve(self.suspending(3))
        client = self.get(server)
        server.advance(3.0)
        self.assertEqual(self.body(client), "'timed out'")

    def test_resumed_in_a_thread(self) -> None:
        """A `resume` in a thread resumes in the reactor's thread."""
        server = self.serve(self.suspending())
        client = self.get(server)
        asked: list[Any] = []
        self.patch(server.hub, "call_from_thread", asked.append)
        thread = threading.Thread(target=self.found[0].resume, args=("value",))
        thread.start()
        thread.join()
        self.assertEqual(client.received, b"")
        (call,) = asked
        call()
        client.settle()
        self.assertEqual(self.body(client), "'value'")

    def test_resumed_when_not_suspended(self) -> None:
        """`resume` is an OSError before the suspension, and the second time."""
        continuation = meinheld.Continuation()
        with self.assertRaisesRegex(OSError, "not suspended"):
            continuation.resume()
        server = self.serve(self.suspending())
        errors: list[str] = []

        def twice() -> None:
            self.found[0].resume()
            try:
                self.found[0].resume()
            except OSError as error:
                errors.append(str(error))

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            if environ["PATH_INFO"] == "/":
                return list(self.suspending()(environ, start_response))
            # In a task: the resumed one continues at the reactor's next turn.
            twice()
            start_response("200 OK", TEXT)
            return [b"resumed"]

        server.site.application = app
        client = self.get(server)
        server.connect().send(GET.replace(b"GET /", b"GET /resume"))
        client.settle()
        self.assertEqual(self.body(client), "()")
        self.assertEqual(errors, ["not suspended or dead"])

    def test_suspended_twice(self) -> None:
        """Two tasks of a request cannot be suspended by one continuation."""

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            continuation = environ[meinheld.CONTINUATION_KEY]
            other = spawn(continuation.suspend)
            environ["txgreenwsgi.sleep"](0)
            try:
                continuation.suspend()
            except OSError as error:
                start_response("200 OK", TEXT)
                return [str(error).encode()]
            finally:
                continuation.resume()
                other.wait()
            return []

        self.assertEqual(
            self.body(self.get(self.serve(meinheld.adapt(app)))), "already suspended"
        )

    def test_negative_timeout(self) -> None:
        """A negative timeout is a ValueError."""
        with self.assertRaisesRegex(ValueError, ">= 0, not -1"):
            meinheld.Continuation().suspend(-1)


class UwsgiTests(ServedTestCase):
    """The `uwsgi` module."""

    def test_module(self) -> None:
        """`import uwsgi` finds the functions; uWSGI's own module is kept."""
        with patch.dict(sys.modules):
            sys.modules.pop("uwsgi", None)
            prepare(["uwsgi"])
            found = importlib.import_module("uwsgi")
            self.assertIs(found, uwsgi.module)
            self.assertIs(found.wait_fd_read, uwsgi.wait_fd_read)
            self.assertFalse(hasattr(found, "adapt"))
            sys.modules["uwsgi"] = real = type(sys)("uwsgi")
            uwsgi.adapt(lambda environ, start_response: [])
            self.assertIs(sys.modules["uwsgi"], real)

    def test_yielding(self) -> None:
        """After several waits and a yield, function and environ name the ready fd."""
        (one, _), (two, to_two) = self.pair(), self.pair()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            uwsgi.module.wait_fd_read(one.fileno(), 2)
            yield uwsgi.module.wait_fd_read(two.fileno())
            start_response("200 OK", TEXT)
            ready = [uwsgi.module.ready_fd(), environ["uwsgi.ready_fd"]]
            late = environ["x-wsgiorg.fdevent.timeout"]
            yield f"{ready} {bool(late)};".encode()

        server = self.serve(uwsgi.adapt(app))
        client = self.get(server)
        to_two.send(b"x")
        server.settle()
        fd = two.fileno()
        self.assertEqual(self.body(client), f"{[fd, fd]} False;")
        two.recv(1)
        client = self.get(server)
        server.advance(2.0)
        self.assertEqual(self.body(client), "[-1, None] True;")

    def test_suspending(self) -> None:
        """`suspend()` waits at any depth, without a yield."""
        ours, theirs = self.pair()
        self.fill(ours)

        def deep() -> int:
            uwsgi.module.wait_fd_write(ours, 5)
            uwsgi.module.suspend()
            ready: int = uwsgi.module.ready_fd()
            return ready

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            uwsgi.module.suspend()  # no event registered: one turn
            first = deep()
            uwsgi.module.async_sleep(3)
            uwsgi.module.suspend()
            start_response("200 OK", TEXT)
            late = bool(environ["x-wsgiorg.fdevent.timeout"])
            return [f"{first} {uwsgi.module.ready_fd()} {late}".encode()]

        server = self.serve(uwsgi.adapt(app))
        client = self.get(server)
        while not select.select([], [ours], [], 0)[1]:
            theirs.recv(1 << 20)
        server.settle()
        self.assertEqual(client.received, b"")
        server.advance(3.0)
        self.assertEqual(self.body(client), f"{ours.fileno()} -1 True")

    def test_closed(self) -> None:
        """The application's own `close` is called."""
        closed: list[str] = []

        class Blocks:
            def __iter__(self) -> Iterator[bytes]:
                yield b"block"

            def close(self) -> None:
                closed.append("closed")

        def app(environ: Environ, start_response: StartResponse) -> Any:
            start_response("200 OK", TEXT)
            return Blocks()

        for module in (uwsgi, awsgi):
            self.assertEqual(
                self.body(self.get(self.serve(module.adapt(app)))), "block"
            )
        self.assertEqual(closed, ["closed", "closed"])
