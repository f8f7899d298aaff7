"""Applications that fork: the child leaves the connection to its parent."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from txgreenwsgi import spawn

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .harness import App, Environ, Start

#: Exit status of a child whose view returns.
RETURNED = 0


def fork() -> bool:
    """Fork; return True in the child, which prints nothing to the tests' output."""
    if os.fork():
        return False
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return True


def status() -> bytes:
    """Return the exit status of the child."""
    return b"%d\n" % os.waitstatus_to_exitcode(os.wait()[1])


def exit_with(code: object) -> Callable[[], None]:
    """Return a function that ends a child."""
    return lambda: sys.exit(code)  # type: ignore[arg-type]


def fail() -> None:
    """End a child by an exception."""
    raise ZeroDivisionError


def end() -> None:
    """End a child at once."""
    os._exit(4)


#: (the end of the child, its exit status).
ENDS: list[tuple[Callable[[], object], int]] = [
    (exit_with(3), 3),
    (exit_with(None), 0),
    (exit_with("a message"), 1),
    (fail, 1),
    (end, 4),
]


class ForkCases(Cases):
    """`os.fork` in a view: the parent answers as if there had been no fork."""

    def assert_statuses(self, make: Callable[[Callable[[], object]], App]) -> None:
        """Fail unless each child of the views has its status, and writes nothing."""
        for ending, code in ENDS:
            reply = self.ask(make(ending))
            self.assert_complete(reply, b"part\n%d\n" % code)
        self.assertEqual(self.outcomes(), [(200, "finished")] * len(ENDS))

    def test_call(self) -> None:
        """The child of the call ends before or after the start of the response."""

        def make(ending: Callable[[], object]) -> App:
            def app(environ: Environ, start: Start) -> Iterable[bytes]:
                if fork():
                    ending()
                first = status()
                write = start("200 OK", TEXT)
                write(b"part\n")
                if fork():
                    ending()
                assert first == status()
                return [first]

            return app

        self.assert_statuses(make)

    def test_iteration(self) -> None:
        """The child of the iteration ends between two blocks."""

        def make(ending: Callable[[], object]) -> App:
            def app(environ: Environ, start: Start) -> Iterator[bytes]:
                start("200 OK", TEXT)
                yield b"part\n"
                if fork():
                    ending()
                yield status()

            return app

        self.assert_statuses(make)

    def test_other_task(self) -> None:
        """The child of another task of the request ends."""

        def make(ending: Callable[[], object]) -> App:
            def run() -> bytes:
                if fork():
                    ending()
                return status()

            def app(environ: Environ, start: Start) -> Iterable[bytes]:
                start("200 OK", TEXT)
                return [b"part\n", spawn(run).wait()]

            return app

        self.assert_statuses(make)

    def test_return(self) -> None:
        """A child that returns a response, or yields blocks, sends nothing."""

        def returning(environ: Environ, start: Start) -> Iterable[bytes]:
            child = fork()
            start("200 OK", TEXT)
            return [b"child" if child else status()]

        def yielding(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            child = fork()
            yield b""
            yield b"child" if child else status()

        def in_a_file(environ: Environ, start: Start) -> Any:
            child = fork()
            start("200 OK", TEXT)
            if not child:
                return [status()]
            return environ["wsgi.file_wrapper"](open(__file__, "rb"))

        for app in (returning, yielding, in_a_file):
            self.assert_complete(self.ask(app), b"%d\n" % RETURNED)

    def test_write(self) -> None:
        """A child that calls `write` gets an exception, and sends nothing."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            child = fork()
            write = start("200 OK", TEXT)
            try:
                write(b"child" if child else status())
            except RuntimeError:
                sys.exit(7)
            return []

        self.assert_complete(self.ask(app), b"7\n")

    def test_body(self) -> None:
        """The child cannot read the request body, which the parent can still read."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if fork():
                try:
                    environ["wsgi.input"].read()
                except RuntimeError as error:
                    sys.exit(5 if "belongs to the parent" in str(error) else 6)
            code = status()
            start("200 OK", TEXT)
            return [code, environ["wsgi.input"].read()]

        self.assert_complete(self.serve(app).begin("POST", body=b"body"), b"5\nbody")


globals().update(on_every_transport(ForkCases))
