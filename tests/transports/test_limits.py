"""Limits on running and queued requests, and the table of requests in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Start


def nap(environ: Environ, start: Start) -> Iterable[bytes]:
    """Sleep for a second, then answer with the path."""
    environ["txgreenwsgi.sleep"](1)
    start("200 OK", TEXT)
    return [environ["PATH_INFO"].encode()]


class LimitCases(Cases):
    """max_in_flight and max_queued."""

    def test_queue(self) -> None:
        """Requests beyond max_in_flight are queued in FIFO order."""
        server = self.serve(nap, max_in_flight=2, max_queued=10)
        replies = [server.begin(target=f"/{number}") for number in range(5)]
        ended: list[list[int]] = []
        for _ in range(3):
            server.advance(1)
            ended.append([reply.status or 0 for reply in replies])
        self.assertEqual(
            ended,
            [[200, 200, 0, 0, 0], [200, 200, 200, 200, 0], [200] * 5],
        )
        for number, reply in enumerate(replies):
            self.assert_complete(reply, b"/%d" % number)

    def test_refusal(self) -> None:
        """A request beyond the queue limit gets 503 with Retry-After at once."""
        server = self.serve(nap, max_in_flight=1, max_queued=1)
        first = server.begin(target="/first")
        second = server.begin(target="/second")
        third = server.begin(target="/third")
        self.assert_complete(third, status=503)
        self.assertEqual(third.header("Retry-After"), "1")
        self.assertEqual(third.header("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(len(server.app.requests()), 2)
        self.assertEqual(self.outcomes(), [(503, "refused")])
        server.advance(1)
        server.advance(1)
        self.assert_complete(first, b"/first")
        self.assert_complete(second, b"/second")
        self.assertEqual(
            self.outcomes(), [(503, "refused"), (200, "finished"), (200, "finished")]
        )
        self.assertEqual(self.errors(), [])

    def test_refusal_without_a_queue(self) -> None:
        """With max_queued=0, no request is queued."""
        server = self.serve(nap, max_in_flight=1, max_queued=0)
        first = server.begin()
        for method in ("GET", "HEAD"):
            refused = server.begin(method)
            self.assert_complete(refused, status=503)
            self.assertEqual(refused.header("Retry-After"), "1")
        self.assertEqual(refused.body, b"")
        server.advance(1)
        self.assert_complete(first, b"/")
        again = server.begin()
        server.advance(1)
        self.assert_complete(again, b"/")

    def test_max_body(self) -> None:
        """A body longer than max_body is answered 413."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            body = environ["wsgi.input"].read()
            start("200 OK", TEXT)
            return [body]

        server = self.serve(app, max_body=100)
        self.assert_complete(server.begin("POST", body=b"x" * 100), b"x" * 100)
        for size in (101, 10_000):
            self.assert_complete(server.begin("POST", body=b"x" * size), status=413)
        self.assertEqual([record.status for record in self.records], [200, 413, 413])
        self.assertEqual(self.errors(), [])

    def test_multithread(self) -> None:
        """wsgi.multithread is True if requests may overlap."""
        for most, overlap in [(1, False), (2, True)]:
            server = self.serve(nap, max_in_flight=most)
            server.begin()
            server.advance(1)
            self.assertIs(server.app.environs[0]["wsgi.multithread"], overlap)
            self.assertIs(server.app.environs[0]["wsgi.multiprocess"], False)

    def test_table(self) -> None:
        """environ["txgreenwsgi.requests"] lists running and queued requests."""
        server = self.serve(nap, max_in_flight=1, max_queued=1)
        first = server.begin(target="/a%20b?c=d")
        server.advance(0.5)
        second = server.begin("POST", "/second")
        table = server.app.requests()
        self.assertEqual(
            [(each.method, each.path, each.age, each.state) for each in table],
            [("GET", "/a b", 0.5, "parked"), ("POST", "/second", 0.0, "queued")],
        )
        self.assertIn("sleep", table[0].waiting_on)
        self.assertEqual(table[1].waiting_on, "")
        self.assertEqual(
            server.app.requests()[0].request_id,
            server.app.environs[0]["txgreenwsgi.request_id"],
        )
        server.advance(0.5)
        server.advance(1)
        self.assertEqual(server.app.requests(), [])
        self.assertEqual([first.status, second.status], [200, 200])


globals().update(on_every_transport(LimitCases))
