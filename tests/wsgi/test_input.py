"""Tests of `wsgi.input`: results equal those of `io.BytesIO`, however data arrives."""

from __future__ import annotations

import io
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Task, recv
from txgreenwsgi._switching.errors import ClientDisconnected, TimedOut
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._switching.timeouts import timeout
from txgreenwsgi._switching.waiting import sleep
from txgreenwsgi._wsgi.input import Input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Calls of an input, as (method, arguments).
Calls = list[tuple[str, tuple[Any, ...]]]

BODY = b"first line\nsecond\n\n\nno end: \xff\x00\r\n" + b"long " * 30 + b"\nlast"


class Pieces:
    """A `BodySource` that returns the given pieces and raises given exceptions."""

    def __init__(self, pieces: Iterable[bytes | Exception]) -> None:
        self.pieces = list(pieces)
        self.turns = 0

    def receive(self, wanted: int = 0) -> bytes:
        """Return or raise the next one."""
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def reader_turn(self) -> None:
        """Count the call."""
        self.turns += 1


def cut(body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Split a body into pieces of these sizes, cyclically."""
    pieces = []
    start = number = 0
    while start < len(body):
        size = sizes[number % len(sizes)]
        pieces.append(body[start : start + size])
        start += size
        number += 1
    return pieces


def results(file: Any, calls: Calls) -> list[Any]:
    """Return the results of the calls, in order."""
    found = []
    for name, arguments in calls:
        if name == "next line":
            found.append(list(islice(iter(file), 1)))
        else:
            found.append(getattr(file, name)(*arguments))
    return found


class ReadingTests(SynchronousTestCase):
    """`Input` compared with `io.BytesIO`."""

    def compare(self, body: bytes, sizes: Sequence[int], calls: Calls) -> None:
        """Fail unless an `Input` and an `io.BytesIO` return the same."""
        given = results(Input(Pieces(cut(body, sizes))), calls)
        self.assertEqual(given, results(io.BytesIO(body), calls), (sizes, calls))

    def test_each_method(self) -> None:
        """Each method returns the same as a file's, at the end and beyond it too."""
        arguments: dict[str, list[tuple[Any, ...]]] = {
            "read": [(), (None,), (-1,), (0,), (1,), (7,), (1000,)],
            "readline": [(), (None,), (-1,), (0,), (1,), (7,), (1000,)],
            "readlines": [(), (None,), (-1,), (0,), (1,), (20,), (1000,)],
            "next line": [()],
        }
        for body in (b"", b"\n", b"one", BODY):
            for sizes in ([1], [2, 3], [len(body) + 1]):
                for name, each in arguments.items():
                    for given in each:
                        self.compare(body, sizes, [(name, given)] * 15)

    def test_any_sequence(self) -> None:
        """Any sequence of calls returns the same, however the bytes arrive."""
        chance = random.Random(3333)
        names = ["read", "read", "readline", "readline", "next line", "readlines"]
        for _ in range(3000):
            body = bytes(chance.choices(b"ab\n\r", k=chance.randrange(60)))
            sizes = [chance.randrange(1, 12) for _ in range(chance.randrange(1, 5))]
            calls: Calls = []
            for _ in range(chance.randrange(1, 12)):
                name = chance.choice(names)
                size = chance.choice([(), (0,), (1,), (2,), (5,), (9,), (100,), (-1,)])
                calls.append((name, () if name == "next line" else size))
            self.compare(body, sizes, calls)
            self.compare(body, [1], calls)
            self.compare(body, [len(body) + 1], calls)

    def test_lines(self) -> None:
        """Iteration yields the lines."""
        given = Input(Pieces(cut(BODY, [4])))
        self.assertEqual(list(given), list(io.BytesIO(BODY)))
        self.assertEqual(list(given), [])

    def test_pieces_are_not_copied(self) -> None:
        """A read of exactly one piece returns that object, without a copy."""
        piece = bytes(100_000)
        given = Input(Pieces([piece]))
        self.assertIs(given.read(100_000), piece)
        given = Input(Pieces([piece]))
        self.assertIs(given.read(), piece)

    def test_no_other_methods(self) -> None:
        """It has exactly the methods of PEP 3333."""
        public = [name for name in dir(Input) if not name.startswith("_")]
        self.assertEqual(public, ["read", "readline", "readlines"])

    def test_polling_at_the_end(self) -> None:
        """Each read at the end, after the first, parks for one reactor turn."""
        source = Pieces([b"abc"])
        given = Input(source)
        self.assertEqual(given.read(), b"abc")
        self.assertEqual(source.turns, 0)
        for turns, read in enumerate((given.read, given.readline, given.readlines), 1):
            self.assertFalse(read())
            self.assertEqual(source.turns, turns)
        self.assertEqual(given.read(0), b"")
        self.assertEqual(source.turns, 3)


class InterruptionTests(SynchronousTestCase):
    """Reads interrupted by an exception."""

    def test_nothing_is_lost(self) -> None:
        """An interrupted read consumes nothing: the next read starts there."""
        first: list[Callable[[Input], Any]] = [
            lambda given: given.read(),
            lambda given: given.read(20),
            lambda given: given.readline(),
            lambda given: given.readline(30),
        ]
        for read in first:
            source = Pieces([b"abc", b"def", TimedOut(), b"gh\n", TimedOut(), b"ij"])
            given = Input(source)
            self.assertEqual(given.read(1), b"a")
            self.assertRaises(TimedOut, read, given)
            self.assertEqual(given.read(2), b"bc")
            self.assertEqual(given.readline(), b"defgh\n")
            self.assertRaises(TimedOut, read, given)
            self.assertEqual(given.read(), b"ij")

    def test_interrupted_by_a_timeout(self) -> None:
        """A read that timed out can be retried without losing data."""
        clock = Clock()
        found: list[bytes] = []

        class Slow(Pieces):
            def receive(self, wanted: int = 0) -> bytes:
                sleep(1)
                return super().receive()

        def read() -> None:
            given = Input(Slow([b"ab", b"cd", b"ef"]))
            with self.assertRaises(TimedOut), timeout(2.5):
                given.read()
            with timeout(10):
                found.append(given.read())

        hub = hub_of(clock)
        hub.start(Task(hub, read))
        clock.pump([0.5] * 20)
        self.assertEqual(found, [b"abcdef"])

    def test_disconnect(self) -> None:
        """A disconnect raises ClientDisconnected; it does not look like the end."""
        for name in ("read", "readline", "readlines"):
            given = Input(Pieces([b"abc", ClientDisconnected(), ClientDisconnected()]))
            self.assertRaises(ClientDisconnected, getattr(given, name))
            self.assertRaises(ClientDisconnected, list, given)


class RecvTests(SynchronousTestCase):
    """`recv`."""

    def test_as_data_arrives(self) -> None:
        """It returns at least one byte, at most `size`, and b"" only at the end."""
        environ = {"wsgi.input": Input(Pieces([b"a", b"bcdef", b"g"]))}
        found = [recv(environ, 3) for _ in range(6)]
        self.assertEqual(found, [b"a", b"bcd", b"ef", b"g", b"", b""])

    def test_after_readline(self) -> None:
        """Data buffered by other methods is returned first."""
        given = Input(Pieces([b"line\nrest", b"more"]))
        self.assertEqual(given.readline(), b"line\n")
        self.assertEqual(recv({"wsgi.input": given}, 100), b"rest")
        self.assertEqual(given.read(), b"more")

    def test_replaced(self) -> None:
        """If middleware has replaced the input, recv() refuses to bypass it."""
        error = self.assertRaises(
            RuntimeError, recv, {"wsgi.input": io.BytesIO(b"abc")}, 3
        )
        self.assertIn("middleware has replaced it", str(error))

    def test_size(self) -> None:
        """A size below 1 is refused, since b"" would look like the end."""
        for size in (0, -1):
            environ = {"wsgi.input": Input(Pieces([b"abc"]))}
            error = self.assertRaises(ValueError, recv, environ, size)
            self.assertIn("at least 1 byte", str(error))
