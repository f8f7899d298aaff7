"""The record of each exchange, as observers receive it."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING, Any

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txgreenwsgi.monitoring import ExchangeRecord

    from .harness import Environ, Start


def answer(environ: Environ, start: Start) -> Iterable[bytes]:
    """Sleep for two seconds, then answer with ten bytes."""
    environ["txgreenwsgi.sleep"](2)
    start("201 Created", TEXT)
    return [b"0123456789"]


class ObserverCases(Cases):
    """Observers, and the fields of their records."""

    def test_fields(self) -> None:
        """A record is the same on every transport."""
        server = self.serve(answer)
        server.begin(
            "POST",
            "/path%20x?q=1",
            [("Referer", "http://example.net/"), ("User-Agent", "test/1")],
            b"body",
        )
        self.assertEqual(self.records, [])
        server.advance(2)
        [record] = self.records
        environ = server.app.environs[0]
        self.assertEqual(record.method, "POST")
        self.assertEqual(record.target, "/path%20x?q=1")
        self.assertEqual(record.version, self.transport.version)
        self.assertEqual(record.status, 201)
        self.assertEqual(record.bytes_sent, 10)
        self.assertEqual(record.outcome, "finished")
        self.assertEqual(record.referer, "http://example.net/")
        self.assertEqual(record.user_agent, "test/1")
        self.assertEqual(record.duration, 2)
        self.assertEqual(record.request_id, environ["txgreenwsgi.request_id"])
        self.assertEqual(record.remote_addr, environ["REMOTE_ADDR"])
        self.assertEqual(record.remote_port, environ["REMOTE_PORT"])
        self.assertLess(abs(record.started - time.time()), 60)

    def test_absent_fields(self) -> None:
        """Without Referer and User-Agent, these fields of the record are empty."""
        server = self.serve(answer)
        server.begin()
        server.advance(2)
        [record] = self.records
        self.assertEqual((record.referer, record.user_agent), ("", ""))

    def test_bytes_sent(self) -> None:
        """bytes_sent counts the response body that was sent, without framing."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            path = environ["PATH_INFO"]
            if path == "/declared":
                start("200 OK", [*TEXT, ("Content-Length", "5")])
            else:
                start("204 No Content" if path == "/204" else "200 OK", [])
            yield b"abcd"
            yield b"efgh"
            if path == "/fail":
                raise ZeroDivisionError

        server = self.serve(app)
        for method, target, expected in [
            ("GET", "/", (200, 8, "finished")),
            ("GET", "/declared", (200, 5, "error")),
            ("GET", "/fail", (200, 8, "error")),
            ("GET", "/204", (204, 0, "finished")),
            ("HEAD", "/", (200, 0, "finished")),
        ]:
            server.begin(method, target)
            server.advance(0)
            record = self.records[-1]
            self.assertEqual(
                (record.status, record.bytes_sent, record.outcome), expected, target
            )
        self.assertEqual(len(self.records), 5)
        self.errors()

    def test_bytes_sent_by_the_server(self) -> None:
        """Responses of the server itself are also counted."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            raise ZeroDivisionError

        server = self.serve(app)
        reply = server.begin()
        [record] = self.records
        self.assertEqual((record.status, record.outcome), (500, "error"))
        self.assertEqual(record.bytes_sent, len(reply.body))
        self.errors()

    def test_short_body(self) -> None:
        """A body shorter than its Content-Length is an error."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "5")])
            return [b"abc"]

        self.ask(app)
        [record] = self.records
        self.assertEqual((record.outcome, record.bytes_sent), ("error", 3))
        self.errors()

    def test_refused_request(self) -> None:
        """A request that was rejected by a full queue is also recorded."""
        server = self.serve(answer, max_in_flight=1, max_queued=0)
        server.begin()
        server.begin("PUT", "/refused", [("User-Agent", "test/1")])
        [record] = self.records
        self.assertEqual((record.method, record.target), ("PUT", "/refused"))
        self.assertEqual((record.status, record.outcome), (503, "refused"))
        self.assertEqual(record.version, self.transport.version)
        server.advance(2)

    def test_client_that_leaves(self) -> None:
        """A request whose client disconnected is recorded when it ends."""
        server = self.serve(answer)
        reply = server.begin()
        server.disconnect(reply)
        self.assertEqual(self.records, [])
        server.advance(2)
        [record] = self.records
        self.assertEqual((record.status, record.outcome), (0, "disconnected"))
        self.assertEqual(record.bytes_sent, 0)

    def test_optional_fields(self) -> None:
        """Environ and response_headers are there if an observer needs them."""

        class Observer(list[Any]):
            needs = frozenset(["environ", "response_headers", "unknown"])

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["REMOTE_USER"] = "ada"
            start("200 OK", [*TEXT, ("X-A", "1"), ("X-A", "2")])
            if environ["PATH_INFO"] == "/fails":
                raise ZeroDivisionError
            if environ["PATH_INFO"] == "/file":
                file = tempfile.TemporaryFile()  # noqa: SIM115
                file.write(b"x" * 1000)
                file.seek(0)
                wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
                return wrapped
            blocks = [b"x", b"y"] if environ["PATH_INFO"] == "/blocks" else [b"x"]
            return iter(blocks) if environ["PATH_INFO"] == "/iterator" else blocks

        records = Observer()
        server = self.serve(app, observers=[records.append])
        for path in ("/", "/blocks", "/iterator", "/file"):
            server.begin("GET", path, [("X-B", "3")])
            record = records.pop()
            self.assertEqual(records, [])
            self.assertEqual(record.environ["REMOTE_USER"], "ada")
            self.assertEqual(record.environ["HTTP_X_B"], "3")
            fields = record.response_headers
            sent = [text for name, text in fields if name.lower() == "x-a"]
            self.assertEqual(sent, ["1", "2"], path)
        server.begin("GET", "/fails")
        [record] = records
        self.assertEqual((record.status, record.environ["PATH_INFO"]), (500, "/fails"))
        self.assertIn("content-type", [n.lower() for n, _ in record.response_headers])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_optional_fields_of_a_refusal(self) -> None:
        """Without a call of the application, environ has the request's fields."""

        class Observer(list[Any]):
            needs = frozenset(["environ", "response_headers"])

        records = Observer()
        server = self.serve(answer, observers=[records.append], methods=["GET"])
        server.begin("POST", "/", [("X-B", "3")])
        [record] = records
        self.assertEqual((record.status, record.environ["HTTP_X_B"]), (405, "3"))
        fields = {name.lower(): text for name, text in record.response_headers}
        self.assertEqual(fields["allow"], "GET")

    def test_no_optional_fields(self) -> None:
        """By default a record keeps no environ."""
        server = self.serve(answer)
        server.begin()
        server.advance(2)
        [record] = self.records
        self.assertEqual((dict(record.environ), record.response_headers), ({}, ()))

    def test_several_observers(self) -> None:
        """Each observer is called, even if one of them fails."""
        seen: list[ExchangeRecord] = []

        def fails(record: ExchangeRecord) -> None:
            raise ZeroDivisionError

        server = self.serve(answer, observers=[seen.append, fails, seen.append])
        reply = server.begin()
        server.advance(2)
        self.assert_complete(reply, b"0123456789", status=201)
        self.assertEqual(len(seen), 2)
        self.assertIs(seen[0], seen[1])
        self.assertEqual(len(self.errors()), 1)


globals().update(on_every_transport(ObserverCases))
