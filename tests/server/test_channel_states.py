"""Tests of the states of an HTTP/1.1 connection: the table, and real channels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.matrices import assert_event, assert_table, matrix
from txgreenwsgi import sleep
from txgreenwsgi._server.channel import CLOSE_SECONDS
from txgreenwsgi._server.h1_channel import CONNECTION

from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi.testing import MemoryClient

    Act = Callable[[MemoryClient], object]

MATRIX = matrix(
    """
              | bytes | request | next | drain    | upgrade  | close     | lose
    idle      | head  | serving | -    | -        | -        | lingering | closed
    head      | -     | serving | -    | -        | -        | lingering | closed
    serving   | -     | -       | idle | draining | upgraded | lingering | closed
    upgraded  | -     | -       | -    | -        | -        | lingering | closed
    draining  | -     | -       | idle | -        | -        | lingering | closed
    lingering | -     | -       | -    | -        | -        | -         | closed
    closed    | -     | -       | -    | -        | -        | -         | closed
    """
)

#: The first half of a request, and the rest.
FIRST, REST = get()[:8], get()[8:]
#: Seconds that the application sleeps at /sleep.
SECONDS = 1.0
#: The length of a body of which a connection drains the unread rest.
LENGTH = 100


def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer without reading the body; at /sleep after a second."""
    if environ["PATH_INFO"] == "/sleep":
        sleep(SECONDS)
    start_response("200 OK", [])
    return [b"ok"]


class ChannelStateTests(WireTestCase):
    """Channels in each state."""

    #: A call that brings a connection into each state.
    BEGINNINGS: tuple[tuple[str, Act], ...] = (
        ("idle", lambda client: None),
        ("head", lambda client: client.send(FIRST)),
        ("serving", lambda client: client.send(get("/sleep"))),
        ("draining", lambda client: client.send(post("/", b"x" * LENGTH)[:-1])),
        ("lingering", lambda client: client.send(b"x\r\n\r\n")),
        ("closed", lambda client: client.disconnect()),
    )

    def in_state(self, state: str) -> MemoryClient:
        """Return the client of a connection that was brought into `state`."""
        client = self.connected(application, on_disconnect="cancel")
        dict(self.BEGINNINGS)[state](client)
        self.assertEqual(client.channel.state, state)
        return client

    def assert_moves(self, event: str, act: Act, *states: str) -> None:
        """Fail unless `act` moves a connection in each of `states` as tabulated."""
        for state in states:
            client = self.in_state(state)
            assert_event(
                self,
                MATRIX[state][event],
                partial(act, client),
                partial(getattr, client.channel, "state"),
                f"{event!r} in {state!r}",
            )

    def assert_stays(self, act: Act, *states: str) -> None:
        """Fail unless `act` leaves a connection in each of `states` as it is."""
        for state in states:
            client = self.in_state(state)
            act(client)
            self.assertEqual(client.channel.state, state)

    def test_table(self) -> None:
        """The table allows the listed events in each state, and no others."""
        assert_table(self, CONNECTION, MATRIX)

    def test_bytes(self) -> None:
        """A part of a head is noticed on an idle connection, and kept in others."""
        self.assert_moves("bytes", lambda client: client.send(FIRST), "idle")
        self.assert_stays(
            lambda client: client.send(REST[:1]), "head", "serving", "lingering"
        )
        client = self.in_state("closed")
        client.channel.dataReceived(FIRST)
        self.assertEqual(client.channel.state, "closed")

    def test_request(self) -> None:
        """A complete head begins an exchange; a second request waits for its end."""
        self.assert_moves("request", lambda client: client.send(get("/sleep")), "idle")
        client = self.in_state("head")
        client.send(REST.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n"))
        # It was answered without its body.
        self.assertEqual(client.channel.state, "draining")
        self.assert_stays(lambda client: client.send(get()), "lingering")
        client = self.in_state("serving")
        client.send(get())
        self.assertEqual(client.channel.state, "serving")
        client.server.advance(SECONDS)
        self.assertEqual(len(client.responses()), 2)
        client = self.in_state("closed")
        client.channel.dataReceived(get())
        self.assertEqual(client.channel.state, "closed")

    def test_request_behind_a_drained_body(self) -> None:
        """A request behind a drained body is served."""
        client = self.in_state("draining")
        client.send(b"x" + get("/sleep"))
        self.assertEqual(client.channel.state, "serving")

    def test_next(self) -> None:
        """The end of an exchange, or of its body, makes the connection idle."""
        server = self.recorded(application, on_disconnect="cancel")
        client = server.connect()
        client.send(get("/sleep"))
        server.advance(SECONDS)
        self.assertEqual(client.channel.state, MATRIX["serving"]["next"])
        self.assert_moves("next", lambda client: client.send(b"x"), "draining")

    def test_drain(self) -> None:
        """A response before the end of a short body drains the rest."""
        server = self.recorded(application, on_disconnect="cancel")
        client = server.connect()
        client.send(post("/sleep", b"x" * LENGTH)[:-1])
        self.assertEqual(client.channel.state, "serving")
        server.advance(SECONDS)
        self.assertEqual(client.channel.state, MATRIX["serving"]["drain"])

    def test_close(self) -> None:
        """The connection lingers after its last response and after a refusal."""
        for state, act in (
            ("idle", lambda client: client.send(b"x\r\n\r\n")),
            ("head", lambda client: client.send(b"\n\r\n\r\n")),
            ("serving", lambda client: client.server.advance(SECONDS)),
        ):
            client = self.connected(application, on_disconnect="cancel")
            beginning = get("/sleep", "Connection: close", "Content-Length: 2")
            client.send({"idle": b"", "head": FIRST, "serving": beginning}[state])
            self.assertEqual(client.channel.state, state)
            act(client)
            self.assertEqual(client.channel.state, MATRIX[state]["close"])

    def test_close_without_lingering(self) -> None:
        """With no byte left to come, the connection closes at once."""
        client = self.connected(application)
        client.send(get("/sleep", "Connection: close"))
        client.server.advance(SECONDS)
        self.assertEqual(client.channel.state, "closed")
        self.assertTrue(client.closed)

    def test_close_after_draining(self) -> None:
        """A body that is not drained in time closes the connection."""
        server = self.recorded(application, on_disconnect="cancel")
        client = server.connect()
        client.send(post("/", b"x" * LENGTH)[:-1])
        self.assertEqual(client.channel.state, "draining")
        server.advance(CLOSE_SECONDS)
        self.assertEqual(client.channel.state, MATRIX["draining"]["close"])

    def test_lose(self) -> None:
        """A client that leaves, or an abort, closes a connection in every state."""
        states = [state for state, _ in self.BEGINNINGS if state != "closed"]
        self.assert_moves("lose", lambda client: client.disconnect(), *states)
        self.assert_moves(
            "lose", lambda client: client.channel.abort(), *states, "closed"
        )

    def test_stop(self) -> None:
        """A stop closes idle connections, after a time; it closes no others."""

        def stop(client: MemoryClient) -> None:
            client.server.site.stop()
            client.server.advance(2)

        self.assert_moves("close", stop, "idle")
        self.assert_stays(
            lambda client: client.channel.stop(),
            "idle",
            "head",
            "serving",
            "draining",
            "lingering",
            "closed",
        )

    def test_end_of_grace(self) -> None:
        """The end of the grace period closes connections without a request."""
        self.assert_stays(
            lambda client: client.channel.end_of_grace(),
            "serving",
            "draining",
            "lingering",
            "closed",
        )

    def test_events_of_exchanges_that_have_ended(self) -> None:
        """The end of an exchange that the connection has forgotten is ignored."""
        client = self.in_state("serving")
        exchange = client.channel.exchange
        client.disconnect()
        client.channel.ended(exchange)
        self.assertEqual(client.channel.state, "closed")
