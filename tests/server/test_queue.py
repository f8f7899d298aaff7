"""Limits on concurrent requests and on open connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from .application import application
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryClient, MemoryServer


class QueueTests(WireTestCase):
    """--max-in-flight, --max-queued and --queue-timeout."""

    def crowd(
        self, count: int, target: str = "/sleep", **settings: Any
    ) -> tuple[MemoryServer, list[MemoryClient]]:
        """Return a server, and clients that have each sent it one request."""
        server = self.recorded(application, **settings)
        clients = [server.connect() for _ in range(count)]
        for client in clients:
            client.send(get(target))
        return server, clients

    def statuses(self, clients: list[MemoryClient]) -> list[int]:
        """Return the status that each client has received, 0 for none."""
        return [
            client.responses()[0].status if client.received else 0 for client in clients
        ]

    def test_at_most_so_many_run(self) -> None:
        """Further requests wait, and start in the order of their arrival."""
        server, clients = self.crowd(5, max_in_flight=2)
        self.addCleanup(server.advance, 9)
        states = [request.state for request in server.site.requests()]
        self.assertEqual(states, ["parked"] * 2 + ["queued"] * 3)
        self.assertEqual(len(server.tasks), 2)
        server.advance(1)
        self.assertEqual(self.statuses(clients), [200, 200, 0, 0, 0])
        server.advance(1)
        server.advance(1)
        self.assertEqual(self.statuses(clients), [200] * 5)
        self.assertEqual(server.site.server.admission.running, 0)

    def test_queue_is_full(self) -> None:
        """With a full queue, a request gets 503 with Retry-After."""
        server, clients = self.crowd(4, max_in_flight=1, max_queued=2)
        self.assertEqual(self.statuses(clients), [0, 0, 0, 503])
        response = clients[3].responses()[0]
        self.assertEqual(response.header("Retry-After"), "1")
        self.assertEqual(response.body, b"too many requests at once\n")
        self.assertTrue(clients[3].closed)
        self.assertEqual(self.outcomes(), [(503, "refused")])
        for _ in range(3):
            server.advance(1)
        self.assertEqual(self.statuses(clients), [200, 200, 200, 503])

    def test_no_queue(self) -> None:
        """Without a queue, further requests get 503 at once; pipelined ones do not."""
        server, clients = self.crowd(2, max_in_flight=1, max_queued=0)
        self.assertEqual(self.statuses(clients), [0, 503])
        clients[0].send(get("/") + get("/"))
        server.advance(1)
        self.assertEqual([each.status for each in clients[0].responses()], [200] * 3)

    def test_waiting_too_long(self) -> None:
        """A request that waits longer than --queue-timeout gets 503."""
        server, clients = self.crowd(
            2, "/sleep?seconds=9", max_in_flight=1, queue_timeout=3
        )
        server.advance(2.75)
        self.assertEqual(self.statuses(clients), [0, 0])
        server.advance(0.25)
        self.assertEqual(self.statuses(clients), [0, 503])
        self.assertEqual(clients[1].responses()[0].header("Retry-After"), "1")
        self.assertIn(b"no slot became free in 3 seconds", clients[1].received)
        server.advance(6)
        self.assertEqual(self.statuses(clients), [200, 503])
        self.assertEqual(self.outcomes(), [(503, "refused"), (200, "finished")])

    def test_request_timeout_in_the_queue(self) -> None:
        """The time in the queue counts towards --request-timeout."""
        server, clients = self.crowd(
            2, "/sleep?seconds=9", max_in_flight=1, queue_timeout=0, request_timeout=5
        )
        server.advance(5)
        self.assertEqual(self.statuses(clients), [504, 503])
        self.assertEqual(server.site.server.admission.running, 0)

    def test_client_leaves_the_queue(self) -> None:
        """A request whose client leaves the queue never starts; the queue has room."""
        server, clients = self.crowd(3, max_in_flight=1, max_queued=2)
        clients[1].disconnect()
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assertEqual(self.records[0].remote_addr, "192.0.2.1")
        late = server.connect()
        late.send(get("/sleep"))
        for _ in range(3):
            server.advance(1)
        self.assertEqual(self.statuses([clients[0], clients[2], late]), [200] * 3)
        self.assertEqual(len(self.records), 4)

    def race(self, **settings: Any) -> tuple[MemoryServer, list[MemoryClient]]:
        """Return clients, the second of which has a slot and has not started."""
        server, clients = self.crowd(3, "/sleep?seconds=9", max_in_flight=1, **settings)
        server.reactor.rightNow += 9
        (wake,) = (call for call in server.reactor.calls if "resume" in str(call))
        server.reactor.calls.remove(wake)
        wake.called = 1
        wake.func()
        self.assertEqual(server.site.server.admission.queued, 1)
        self.assertEqual(server.tasks, [])
        return server, clients

    def test_client_leaves_as_its_turn_comes(self) -> None:
        """If it leaves now, its slot goes to the next request."""
        server, clients = self.race()
        clients[1].channel.abort()
        clients[1].transport.connectionLost(Failure(ConnectionDone()))
        server.settle()
        self.assertEqual(self.outcomes(), [(200, "finished"), (0, "disconnected")])
        server.advance(9)
        self.assertEqual(self.statuses([clients[0], clients[2]]), [200, 200])
        self.assertEqual(server.site.server.admission.running, 0)

    def test_refused_as_its_turn_comes(self) -> None:
        """If it is refused now, it never starts, and its slot is freed."""
        server, clients = self.race(queue_timeout=9)
        clients[1].channel.check(server.reactor.seconds())
        server.settle()
        self.assertEqual(self.statuses(clients[:2]), [200, 503])
        server.advance(9)
        self.assertEqual(server.site.server.admission.running, 0)
        self.assertEqual(server.tasks, [])

    def test_stop_with_a_client_that_leaves_the_queue(self) -> None:
        """A stop completes when the last queued client leaves."""
        server, clients = self.crowd(2, max_in_flight=1)
        stopped: list[object] = []
        server.site.stop().addCallback(stopped.append)
        server.advance(0.5)
        clients[0].disconnect()
        server.advance(0.5)
        clients[1].disconnect()
        server.advance(1)
        self.assertEqual(stopped, [None])

    def test_body_in_the_queue(self) -> None:
        """The body of a queued request is held up to the window."""
        server, (first,) = self.crowd(1, max_in_flight=1)
        second = server.connect()
        body = b"x" * 500_000
        second.send(get("/echo", f"Content-Length: {len(body)}", method="POST") + body)
        self.assertTrue(second.channel.reading_paused)
        server.advance(1)
        self.assertEqual(second.responses()[0].body, body)
        self.assertEqual(first.responses()[0].status, 200)


class ConnectionLimitTests(WireTestCase):
    """--max-connections."""

    def test_too_many(self) -> None:
        """A connection beyond the limit is closed; one that ends makes room."""
        server = self.serve(application, max_connections=2)
        first, second, third = (server.connect() for _ in range(3))
        self.assertEqual(
            [first.closed, second.closed, third.closed], [False, False, True]
        )
        first.disconnect()
        fourth = server.connect()
        fourth.send(get("/"))
        self.assertEqual(len(fourth.responses()), 1)
