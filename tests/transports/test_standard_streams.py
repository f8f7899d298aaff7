"""Text that an application prints: the same log lines on every transport."""

from __future__ import annotations

import gc
import io
import sys
from typing import TYPE_CHECKING

from twisted.logger import Logger, LoggingFile, LogLevel, formatEvent

from txgreenwsgi import sleep, spawn

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Start


class PrintingCases(Cases):
    """`sys.stdout` and `sys.stderr`, redirected as by twistd."""

    def setUp(self) -> None:
        """Redirect the streams to the log, as twistd does."""
        super().setUp()
        for name, level in ("stdout", LogLevel.info), ("stderr", LogLevel.error):
            self.patch(sys, name, LoggingFile(Logger(name), level))

    def printed(self) -> list[str]:
        """Return the lines of both streams."""
        return [
            f"{event['log_namespace']}: {formatEvent(event)}"
            for event in self.events
            if event["log_namespace"] in ("stdout", "stderr")
        ]

    def test_lines(self) -> None:
        """Each line has the id of the request that printed it."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            assert isinstance(sys.stdout, io.TextIOWrapper)
            print("called")
            start("200 OK", TEXT)
            sys.stderr.buffer.write(b"bytes\n")
            yield b"x"
            print("iterated")

        server = self.serve(app)
        self.assert_complete(server.begin(), b"x")
        request_id = server.app.environs[0]["txgreenwsgi.request_id"]
        self.assertEqual(
            self.printed(),
            [
                f"stdout: called (request {request_id})",
                f"stderr: bytes (request {request_id})",
                f"stdout: iterated (request {request_id})",
            ],
        )

    def test_parts_of_lines(self) -> None:
        """Lines of overlapping requests are not mixed; the end logs the rest."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            name = environ["PATH_INFO"]
            print(name, end=" ")
            sleep(1)
            print("end of", name)
            print("rest of", name, end="")
            start("200 OK", TEXT)
            return [b"x"]

        server = self.serve(app)
        replies = [server.begin(target=target) for target in ("/a", "/b")]
        server.advance(1)
        for reply in replies:
            self.assert_complete(reply, b"x")
        expected = set()
        for environ in server.app.environs:
            name = environ["PATH_INFO"]
            request = f"(request {environ['txgreenwsgi.request_id']})"
            expected.add(f"stdout: {name} end of {name} {request}")
            expected.add(f"stdout: rest of {name} {request}")
        self.assertEqual(set(self.printed()), expected)
        self.assertEqual(len(self.printed()), 4)

    def test_failure(self) -> None:
        """The rest of a line is logged if the application fails or is interrupted."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            print("rest", end="")
            sleep(60)
            raise AssertionError("not interrupted")

        server = self.serve(app, request_timeout=5)
        server.begin()
        server.advance(10)
        self.flushLoggedErrors()
        [environ] = server.app.environs
        request_id = environ["txgreenwsgi.request_id"]
        self.assertEqual(self.printed(), [f"stdout: rest (request {request_id})"])

    def test_tasks(self) -> None:
        """A task that a request starts belongs to it, also after its end."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            def work() -> None:
                sleep(1)
                print("from a task")
                print("rest", end="")

            spawn(work)
            start("200 OK", TEXT)
            return [b"x"]

        server = self.serve(app)
        self.assert_complete(server.begin(), b"x")
        request_id = server.app.environs.pop()["txgreenwsgi.request_id"]
        server.advance(1)
        gc.collect()
        self.assertEqual(
            self.printed(),
            [
                f"stdout: from a task (request {request_id})",
                f"stdout: rest (request {request_id})",
            ],
        )

    def test_outside_of_requests(self) -> None:
        """Code of the reactor prints without an id."""
        server = self.serve(lambda environ, start: (start("200 OK", TEXT), [b"x"])[1])
        self.assert_complete(server.begin(), b"x")
        print("from the reactor")
        self.assertEqual(self.printed(), ["stdout: from the reactor"])


globals().update(on_every_transport(PrintingCases))
