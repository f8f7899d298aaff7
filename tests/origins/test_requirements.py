"""What was asked for in May 2008, requirement by requirement, in memory.

| requirement | shown here, and more of it in |
|---|---|
| R1 waiting at any call depth | `AnyDepthTests`; integration/test_origins_waiting.py |
| R2 `read(n)` gives all n bytes | `ReadTests`; integration/test_origins.py |
| R3 `wsgi.input` has the standard methods only | `ReadTests` |
| R4 `write` waits for the client | `WriteTests`; integration/test_origins_waiting.py |
| R5 a poll like `select.poll` | `PollTests`; switching/test_readiness.py |
| R6 sleep by the reactor's clock | `SleepTests` |
| R7 libraries that know files | `LibraryTests`; net/test_connection.py |
| R8 PEP 3333 applications, unmodified | `PlainTests`; server/ |
| R9 the body before the call, as an option | `PlainTests`; wsgi/test_read_ahead.py |
| R10 an empty block is a turn | `EmptyBlockTests`; test_fdevent.py, test_suspend.py |
| R11 the differences are documented | test_docs.py |
| R12 nothing is left behind | `LeftoverTests`; test_fdevent.py, test_suspend.py |
| R13 they run elsewhere | `ElsewhereTests`; integration/test_origins_yielding.py |
"""

from __future__ import annotations

import csv
import gc
import io
import os
import select
import sys
import tarfile
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from twisted.internet.defer import Deferred

from txgreenwsgi import ClientDisconnected
from txgreenwsgi._switching.greenlets import GreenletHub

from .serving import GET, TEXT, ServedTestCase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serving import Application, Environ, StartResponse

POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"


class RequirementTestCase(ServedTestCase):
    """Can count how often a task has switched to the reactor."""

    def setUp(self) -> None:
        """Count the switches of all tasks."""
        self.switches = 0
        park = GreenletHub.park

        def counting(hub: GreenletHub, *args: Any) -> None:
            self.switches += 1
            park(hub, *args)

        self.patch(GreenletHub, "park", counting)


class AnyDepthTests(RequirementTestCase):
    """R1: any function waits, whoever has called it."""

    def test_any_depth(self) -> None:
        """wait, read, write, sleep and poll work forty calls deep, in odd places."""
        ours, theirs = self.pair()
        deferred: Deferred[bytes] = Deferred()

        def deep(depth: int, function: Any, *args: Any) -> Any:
            return deep(depth - 1, function, *args) if depth else function(*args)

        class Odd:
            def __init__(self, environ: Environ) -> None:
                self._environ = environ

            def __getattr__(self, name: str) -> bytes:
                found: bytes = deep(40, self._environ["wsgi.input"].read, 3)
                return found

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            write = start_response("200 OK", TEXT)
            deep(40, write, b"written ")
            result = deep(40, environ["txgreenwsgi.wait"], deferred)
            deep(40, environ["txgreenwsgi.sleep"], 1.0)
            poll = environ["txgreenwsgi.poll"]()
            poll.register(ours, select.POLLIN)
            sorted([0], key=lambda _: len(deep(40, poll.poll)))
            return [result, Odd(environ).anything]

        server = self.serve(app)
        client = server.connect()
        client.send(POST % 3)
        deferred.callback(b"waited ")
        server.advance(1.0)
        theirs.send(b"x")
        server.settle()
        client.send(b"abc")
        self.assertEqual(self.body(client), "written waited abc")


class ReadTests(RequirementTestCase):
    """R2 and R3: the request body."""

    def test_exactly(self) -> None:
        """`read(n)` suspends until all n bytes are there, and gives exactly those."""
        reads: list[bytes] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            body = environ["wsgi.input"]
            reads.extend(body.read(size) for size in (4, 0, 2, 10, 1))
            start_response("200 OK", TEXT)
            return []

        client = self.serve(app).connect()
        client.send(POST % 8)
        for byte in b"abc":
            client.send(bytes([byte]))
            self.assertEqual(reads, [])
        client.send(b"defgh")
        self.assertEqual(reads, [b"abcd", b"", b"ef", b"gh", b""])

    def test_no_switch_when_buffered(self) -> None:
        """A read of what is there does not switch; nor does one of nothing."""

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            for _ in range(4):
                environ["wsgi.input"].read(2)
                environ["wsgi.input"].read(0)
            start_response("200 OK", TEXT)
            return []

        self.serve(app).connect().send(POST % 8 + b"abcdefgh")
        self.assertEqual(self.switches, 0)

    def test_disconnect(self) -> None:
        """A client that goes makes the read raise: it is never short."""
        raised: list[Exception] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            try:
                environ["wsgi.input"].read(8)
            except OSError as error:
                raised.append(error)
            return []

        client = self.serve(app).connect()
        client.send(POST % 8 + b"abc")
        client.disconnect()
        self.assertIsInstance(raised[0], ClientDisconnected)
        self.flushLoggedErrors(AssertionError)

    def test_standard_methods_only(self) -> None:
        """`wsgi.input` has PEP 3333's methods; `recv` is a function outside."""
        found: dict[str, Any] = {}

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            body = environ["wsgi.input"]
            found["names"] = {name for name in dir(body) if not name.startswith("_")}
            found["piece"] = environ["txgreenwsgi.recv"](environ, 100)
            environ["wsgi.input"] = io.BytesIO(body.read())
            try:
                environ["txgreenwsgi.recv"](environ, 100)
            except RuntimeError as error:
                found["refused"] = str(error)
            start_response("200 OK", TEXT)
            return []

        client = self.serve(app).connect()
        client.send(POST % 5)
        client.send(b"ab")
        client.send(b"cde")
        self.assertEqual(found["names"], {"read", "readline", "readlines"})
        self.assertEqual(found["piece"], b"ab")
        self.assertIn("middleware has replaced it", found["refused"])


class WriteTests(RequirementTestCase):
    """R4: the response, at the client's pace."""

    def test_pressure(self) -> None:
        """`write` does not return while the client is behind; others run meanwhile."""
        written: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            write = start_response("200 OK", TEXT)
            if environ["PATH_INFO"] == "/other":
                write(b"other")
                return []
            for number in range(10):
                write(b"%d" % number * 1000)
                written.append(number)
            return []

        server = self.serve(app)
        client = server.connect(room=2500)
        client.send(GET)
        self.assertLessEqual(len(written), 2)
        other = server.connect()
        other.send(GET.replace(b"GET /", b"GET /other"))
        self.assertEqual(self.body(other), "other")
        while len(written) < 10:
            before = len(written)
            client.read()
            self.assertLessEqual(len(written) - before, 3)
        client.read()
        expected = "".join(str(number) * 1000 for number in range(10))
        self.assertEqual(self.body(client), expected)

    def test_peer_is_gone(self) -> None:
        """Once the client is gone, a write raises an OSError."""
        raised: list[Exception] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            write = start_response("200 OK", TEXT)
            try:
                for _ in range(1000):
                    write(b"x" * 1000)
            except OSError as error:
                raised.append(error)
                raise
            return []

        client = self.serve(app).connect(room=5000)
        client.send(GET)
        client.disconnect()
        self.assertIsInstance(raised[0], ClientDisconnected)


class PollTests(RequirementTestCase):
    """R5: the shape of `select.poll`."""

    def test_shape(self) -> None:
        """Several descriptors, milliseconds, hang-ups and invalid ones, as there."""
        (one, to_one), (two, to_two) = self.pair(), self.pair()
        closed = os.dup(one.fileno())
        os.close(closed)
        results: list[Any] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            poll = environ["txgreenwsgi.poll"]()
            poll.register(one, select.POLLIN)
            poll.register(two.fileno(), select.POLLIN)
            results.append(poll.poll(1500))
            results.append(dict(poll.poll()))
            poll.modify(one, select.POLLOUT)
            results.append(dict(poll.poll()))
            poll.unregister(one)
            results.append(dict(poll.poll()))
            poll.register(closed)
            results.append(dict(poll.poll()))
            start_response("200 OK", TEXT)
            return []

        server = self.serve(app)
        self.get(server)
        server.advance(1.4)
        self.assertEqual(results, [])
        server.advance(0.1)
        self.assertEqual(results, [[]])
        to_one.send(b"x")
        server.settle()
        self.assertEqual(results[1], {one.fileno(): select.POLLIN})
        self.assertEqual(results[2], {one.fileno(): select.POLLOUT})
        to_two.close()
        server.settle()
        self.assertTrue(results[3][two.fileno()] & select.POLLHUP)
        self.assertEqual(results[4][closed], select.POLLNVAL)


class SleepTests(RequirementTestCase):
    """R6: the reactor's clock."""

    def test_sleep(self) -> None:
        """`sleep` passes the clock's time, and `sleep(0)` is one turn."""
        order: list[str] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            sleep = environ["txgreenwsgi.sleep"]
            if environ["PATH_INFO"] == "/":
                sleep(90.0)
                order.append("slept")
            for number in range(3):
                order.append(f"{environ['PATH_INFO']} {number}")
                sleep(0)
            start_response("200 OK", TEXT)
            return []

        server = self.serve(app)
        self.get(server)
        server.advance(89.0)
        self.assertEqual(order, [])
        server.advance(1.0)
        self.assertEqual(order, ["slept", "/ 0", "/ 1", "/ 2"])
        order.clear()
        clients = [server.connect(), server.connect()]
        for client, path in zip(clients, (b"/a", b"/b"), strict=True):
            client.socket.to_server += GET.replace(b"GET /", b"GET " + path)
        server.settle()
        self.assertEqual(order, ["/a 0", "/b 0", "/a 1", "/b 1", "/a 2", "/b 2"])


class LibraryTests(RequirementTestCase):
    """R7: libraries that know nothing but files."""

    def fed(self, function: Any, body: bytes) -> Any:
        """What a function makes of `wsgi.input`, which comes seven bytes at a time."""
        found: list[Any] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            found.append(function(environ["wsgi.input"]))
            start_response("200 OK", TEXT)
            return []

        client = self.serve(app).connect()
        client.send(POST % len(body) + body, piece=7)
        self.assertGreater(self.switches, 1)
        return found[0]

    def test_csv(self) -> None:
        """The csv module reads rows as they arrive."""

        def rows(stream: Any) -> list[list[str]]:
            return list(csv.reader(line.decode() for line in stream))

        self.assertEqual(
            self.fed(rows, b'one,"a, b"\r\ntwo,c\r\n'), [["one", "a, b"], ["two", "c"]]
        )

    def test_email(self) -> None:
        """The email parser parses a message."""
        body = b"Subject: tea\r\nTo: you\r\n\r\nat five\r\n"

        def parse(stream: Any) -> Any:
            return BytesParser().parsebytes(b"".join(stream))

        self.assertEqual(self.fed(parse, body)["Subject"], "tea")

    def test_tarfile(self) -> None:
        """A tar archive is unpacked while it is uploaded."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in ("one", "two"):
                member = tarfile.TarInfo(name)
                member.size = 3000
                tar.addfile(member, io.BytesIO(name.encode() * 1000))

        def unpack(stream: Any) -> dict[str, bytes]:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                found = {}
                for member in tar:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[member.name] = file.read()
                return found

        self.assertEqual(
            self.fed(unpack, archive.getvalue()),
            {"one": b"one" * 1000, "two": b"two" * 1000},
        )


def counted(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """A plain WSGI application: tells how long each line of its body is."""
    start_response("200 OK", TEXT)
    for line in environ["wsgi.input"]:
        yield f"{len(line)} ".encode()
    yield b"end"


class PlainTests(RequirementTestCase):
    """R8 and R9: applications that know nothing of us."""

    def answer(self, app: Application, **settings: Any) -> str:
        """What an application answers to three lines that come in pieces."""
        client = self.serve(app, **settings).connect()
        client.send(POST % 12 + b"one\ntwo\nfour", piece=9)
        return self.body(client)

    def test_validator(self) -> None:
        """The validator of wsgiref finds nothing wrong, on either side of us."""
        self.assertEqual(self.answer(validator(counted)), "4 4 4 end")

    def test_before_the_call(self) -> None:
        """With the body read before the call, the result is the same."""
        self.assertEqual(
            self.answer(counted), self.answer(validator(counted), buffer_input=True)
        )


class EmptyBlockTests(RequirementTestCase):
    """R10: yielding an empty block."""

    def test_turn(self) -> None:
        """Each gives the reactor a turn, and none sends the head."""
        seen: list[bytes] = []
        clients: list[Any] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("500 Too Early", TEXT)
            for _ in range(5):
                before = self.switches
                yield b""
                self.assertEqual(self.switches, before + 1)
                seen.append(bytes(clients[0].socket.to_client))
            try:
                raise KeyError
            except KeyError:
                start_response("200 OK", TEXT, sys.exc_info())
            yield b"done"

        server = self.serve(app)
        clients.append(server.connect())
        clients[0].send(GET)
        self.assertEqual(seen, [b""] * 5)
        self.assertEqual(clients[0].responses()[0].status, 200)


class LeftoverTests(RequirementTestCase):
    """R12: what is left of requests whose clients have gone."""

    def test_ten_thousand_aborted(self) -> None:
        """10,000 that were aborted while they waited leave no task and no memory."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            try:
                start_response("200 OK", TEXT)
                kind = environ["PATH_INFO"]
                if kind == "/read":
                    environ["wsgi.input"].read(10)
                elif kind == "/suspend":
                    environ["x-wsgiorg.suspend"](60_000)
                    yield b""
                while True:
                    yield b"x" * 1000
            finally:
                ended.append(1)

        ended: list[int] = []
        requests = (
            b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
            b"GET /suspend HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /write HTTP/1.1\r\nHost: x\r\n\r\n",
        )
        server = self.serve(app)

        def abort(count: int) -> int:
            for number in range(count):
                client = server.connect(room=500)
                client.send(requests[number % 3])
                client.disconnect()
                server._clients.clear()
            ended.clear()
            gc.collect()
            return len(gc.get_objects())

        before = abort(1000)
        after = abort(10_000)
        self.assertEqual(server.tasks, [])
        self.assertEqual(server.site.server.table.exchanges, set())
        self.assertLess(after - before, 500)


class ElsewhereTests(RequirementTestCase):
    """R13: the extensions are looked for in environ."""

    def test_runs_elsewhere(self) -> None:
        """An application that asks `environ.get` runs here and elsewhere."""

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            pause = environ.get("txgreenwsgi.sleep")
            if pause is not None:
                pause(1.0)
            start_response("200 OK", TEXT)
            return [b"green" if pause else b"plain"]

        server = self.serve(app)
        client = self.get(server)
        server.advance(1.0)
        self.assertEqual(self.body(client), "green")
        environ: Environ = {}
        setup_testing_defaults(environ)
        self.assertEqual(app(environ, lambda status, headers: None), [b"plain"])


class TableTests(RequirementTestCase):
    """The table above."""

    def test_names(self) -> None:
        """What it names exists, and no requirement is missing."""
        assert __doc__ is not None
        tests = Path(__file__).parent
        rows = [line.split("|") for line in __doc__.splitlines() if "| R" in line]
        self.assertEqual(
            [row[1].split()[0] for row in rows],
            [f"R{number}" for number in range(1, 14)],
        )
        for row in rows:
            for name in row[2].replace(";", ",").replace("`", "").split(","):
                name = name.strip()
                if name.endswith("Tests"):
                    self.assertIn(name, globals())
                else:
                    places = (tests / name, tests.parent / name)
                    self.assertTrue(any(place.exists() for place in places), name)
