"""Health checks, on every transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .harness import OWN, OWN_HTTP1, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Server, Start


def nap(environ: Environ, start: Start) -> Iterable[bytes]:
    """Sleep for three seconds, then answer with the path."""
    environ["txgreenwsgi.sleep"](3)
    start("200 OK", TEXT)
    return [environ["PATH_INFO"].encode()]


class HealthCases(Cases):
    """`health_path`."""

    def assert_application(self, server: Server, target: str, path: str) -> None:
        """Fail unless the application answers."""
        reply = server.begin(target=target)
        server.advance(3)
        self.assert_complete(reply, path.encode())

    def test_off(self) -> None:
        """By default all paths are the application's."""
        server = self.serve(nap)
        for path in ("/-/live", "/-/ready"):
            self.assert_application(server, path, path)
        self.assertEqual([record.health for record in self.records], [False, False])

    def test_answers(self) -> None:
        """A server that serves is live and ready; the application is not called."""
        server = self.serve(nap, health_path="/-")
        for path, text in (("/-/live", b"live\n"), ("/-/ready", b"ready\n")):
            reply = server.begin(target=path)
            self.assert_complete(reply, text)
            self.assertEqual(reply.header("Content-Type"), "text/plain; charset=utf-8")
            self.assertEqual(reply.header("Cache-Control"), "no-store")
            reply = server.begin("HEAD", target=path + "?at=5", on=reply)
            self.assert_complete(reply, b"")
            self.assertEqual(reply.header("Content-Length"), str(len(text)))
        self.assertEqual(server.app.environs, [])
        self.assertEqual(self.outcomes(), [(200, "finished")] * 4)
        self.assertEqual([record.health for record in self.records], [True] * 4)
        self.assertEqual(
            [
                (record.method, record.target, record.bytes_sent)
                for record in self.records
            ][:2],
            [("GET", "/-/live", 5), ("HEAD", "/-/live?at=5", 0)],
        )

    def test_persistence(self) -> None:
        """The connection persists: checks and other requests alternate on it."""
        server = self.serve(nap, health_path="/-")
        reply = None
        for _ in range(3):
            reply = server.begin(target="/-/ready", on=reply)
            self.assert_complete(reply, b"ready\n")
            reply = server.begin(target="/x", on=reply)
            server.advance(3)
            self.assert_complete(reply, b"/x")
        self.assertEqual(len(server.connections), 1)

    def test_other_paths(self) -> None:
        """Other paths, also those below it, are the application's."""
        server = self.serve(nap, health_path="/-")
        for path in ("/-", "/-/", "/-/live/", "/-/liveness", "/-/Live", "/x/-/live"):
            self.assert_application(server, path, path)
        self.assertEqual(len(server.app.environs), 6)
        # The target is decoded first.
        self.assert_complete(server.begin(target="/%2d/l%69ve"), b"live\n")
        self.assertEqual([record.health for record in self.records][-2:], [False, True])

    def test_other_methods(self) -> None:
        """Methods besides GET and HEAD get 405."""
        server = self.serve(nap, health_path="/-")
        for method in ("POST", "OPTIONS", "DELETE", "get"):
            for path in ("/-/live", "/-/ready"):
                reply = server.begin(
                    method, path, body=b"x" if method == "POST" else b""
                )
                self.assert_complete(reply, status=405)
                self.assertEqual(reply.header("Allow"), "GET, HEAD")
        self.assertEqual(server.app.environs, [])
        self.assertEqual(self.outcomes(), [(405, "refused")] * 8)

    def test_restricted_methods(self) -> None:
        """`methods` restricts the application only."""
        server = self.serve(nap, health_path="/-", methods="POST")
        self.assert_complete(server.begin(target="/-/ready"), b"ready\n")
        self.assert_complete(server.begin(), status=405)

    def test_all_slots_taken(self) -> None:
        """A check is answered while all slots and the whole queue are taken."""
        server = self.serve(nap, health_path="/-", max_in_flight=1, max_queued=1)
        replies = [server.begin(target=f"/{number}") for number in range(2)]
        self.assert_complete(server.begin(target="/2"), status=503)
        for path in ("/-/live", "/-/ready"):
            self.assert_complete(server.begin(target=path))
        self.assertEqual([reply.state for reply in replies], ["waiting"] * 2)
        server.advance(6)
        for number, reply in enumerate(replies):
            self.assert_complete(reply, b"/%d" % number)

    def test_stopping(self) -> None:
        """While the server stops it is live, and not ready."""
        server = self.serve(nap, health_path="/-")
        connections = [server.begin(target="/-/live") for _ in range(2)]
        running = server.begin(target="/x")
        if server.version != "HTTP/1.1":  # its idle connections get GOAWAY
            connections = [running] * 2
        stop = server.stop()
        reply = server.begin(target="/-/ready", on=connections[0])
        self.assert_complete(reply, b"the server is stopping\n", status=503)
        self.assertEqual(reply.header("Retry-After"), "1")
        reply = server.begin(target="/-/live", on=connections[1])
        self.assert_complete(reply, b"live\n")
        server.advance(5)
        self.assertTrue(stop.done)
        self.assertIn((503, "finished"), self.outcomes())

    def test_proxies(self) -> None:
        """The record of a check has the client's address behind a trusted proxy."""
        server = self.serve(nap, health_path="/-", trusted_proxy="*")
        fields = [("X-Forwarded-For", "192.0.2.9")]
        self.assert_complete(server.begin(target="/-/live", headers=fields))
        self.assertEqual(self.records[0].remote_addr, "192.0.2.9")


class OwnHealthCases(Cases):
    """Health checks over our own transports."""

    def test_prefix(self) -> None:
        """The path is below the prefix; a proxy may have removed that."""
        server = self.serve(nap, health_path="/-", prefix="/app")
        for path in ("/app/-/live", "/-/live"):
            self.assert_complete(server.begin(target=path), b"live\n")
        self.assertEqual(server.app.environs, [])
        self.assertEqual([record.health for record in self.records], [True, True])

    def test_other_characters(self) -> None:
        """Paths with other characters than ASCII work, below such a prefix too."""
        server = self.serve(nap, health_path="/\xe9tat", prefix="/caf\xe9")
        for path in ("/caf%C3%A9/%C3%A9tat/live", "/%C3%A9tat/live"):
            self.assert_complete(server.begin(target=path), b"live\n")


class Http1HealthCases(Cases):
    """Health checks over our own HTTP/1.1."""

    def test_close(self) -> None:
        """The response says so if the connection does not persist."""
        server = self.serve(nap, health_path="/-")
        reply = server.begin(target="/-/live")
        self.assertIsNone(reply.header("Connection"))
        closing = server.begin(target="/-/live", headers=[("Connection", "close")])
        self.assertEqual(closing.header("Connection"), "close")
        server.stop()
        reply = server.begin(target="/-/live", on=reply)
        self.assert_complete(reply, b"live\n")
        self.assertEqual(reply.header("Connection"), "close")
        server.advance(3)

    def test_body(self) -> None:
        """A check with a body that has not arrived is answered, and the last."""
        server = self.serve(nap, health_path="/-")
        reply = server.begin("GET", "/-/live", length=5)
        self.assert_complete(reply, b"live\n")
        self.assertEqual(reply.header("Connection"), "close")
        server.advance(10)

    def test_pipelined(self) -> None:
        """Pipelined checks are answered in order."""
        server = self.serve(nap, health_path="/-")
        link = server.connect(slow=False)
        count = 500
        link.send(b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        received = b""
        for _ in range(count):
            server.settle()
            received += link.take()
            if received.count(b"\r\n\r\nlive\n") == count:
                break
        self.assertEqual(received.count(b"HTTP/1.1 200 OK\r\n"), count)
        link.disconnect()
        server.settle()

    def test_client_that_does_not_read(self) -> None:
        """A client that reads no response is closed, and cannot fill the memory."""
        server = self.serve(nap, health_path="/-")
        link = server.connect(slow=True)
        request = b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n" * 500
        for _ in range(200):
            link.send(request)
            server.settle()
        answered = len(self.records)
        self.assertTrue(0 < answered < 100_000, answered)
        link.disconnect()
        server.settle()


globals().update(on_every_transport(HealthCases))
globals().update(on_every_transport(OwnHealthCases, only=OWN))
globals().update(on_every_transport(Http1HealthCases, only=OWN_HTTP1))
