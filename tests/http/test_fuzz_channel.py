"""Fuzzing of the channel: arbitrary data, splits and disconnects of several clients.

Hypothesis generates the actions of concurrent clients against the real channel in
memory, and shrinks failures to minimal examples. The runs are deterministic by
default; TXGREENWSGI_FUZZ multiplies their number and randomizes them.
"""

from __future__ import annotations

import os
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from .streams import ALPHABET, GOOD, LINES
from .watched import PATHS, Wanted, WatchedClient, WatchedServer

FACTOR = float(os.environ.get("TXGREENWSGI_FUZZ", "0"))
RUNS = settings(
    max_examples=int(35 * (FACTOR or 1)),
    stateful_step_count=25,
    deadline=None,
    database=None,
    derandomize=not FACTOR,
    suppress_health_check=list(HealthCheck),
)

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
_FIELDS = (
    *("Accept: */*", "Cookie: a=1", "Cookie: b=2", "X-Long: " + "x" * 300, "X_A: 1"),
    *("Connection: keep-alive", "Connection: close", "Connection: Upgrade"),
    *("Upgrade: websocket", "Content-Type: text/plain", "Expect: 100-continue"),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Generate a valid request, with or without a body."""
    method = draw(st.sampled_from(_METHODS))
    target = draw(st.sampled_from(PATHS)) + draw(st.sampled_from(("", "?a=1", "x%20")))
    version = draw(st.sampled_from(("1.1", "1.1", "1.1", "1.0")))
    fields = draw(st.lists(st.sampled_from(_FIELDS), max_size=4, unique=True))
    lines = [f"{method} {target} HTTP/{version}", "Host: example.com", *fields]
    body = draw(st.binary(max_size=40) | st.sampled_from((b"", b"\r\n", bytes(3000))))
    if version == "1.1" and draw(st.booleans()):
        lines.append("Transfer-Encoding: chunked")
        size = draw(st.integers(1, 3000))
        body = _chunks(body, max(size, len(body) // 50))
        body += draw(st.sampled_from((b"0\r\n\r\n", b"0;a=b\r\nX: y\r\n\r\n")))
    elif body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _chunks(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


_MUTATIONS = (*ALPHABET, *(line + b"\r\n" for line in LINES))


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Generate one to three requests with up to two mutations."""
    good = requests() | st.sampled_from(list(GOOD.values()))
    stream = b"".join(draw(st.lists(good, min_size=1, max_size=3)))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 1, 2)))):
        at = draw(st.integers(0, len(stream)))
        until = at + draw(st.integers(0, 3))
        put = draw(st.sampled_from(_MUTATIONS) | st.binary(max_size=3))
        stream = stream[:at] + put + stream[until:]
    return stream


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    """Generate a stream split anywhere, into single bytes, or not at all."""
    stream = draw(streams())
    if len(stream) < 400 and draw(st.integers(0, 5)) == 0:
        return [stream[i : i + 1] for i in range(len(stream))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    return [
        stream[begin:end]
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]


_ANY = st.integers(0, 9)


class Clients(RuleBasedStateMachine):
    """Clients of one server. Subclasses override its settings."""

    options: ClassVar[dict[str, object]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.watched = WatchedServer(**self.options)

    def client(self, number: int) -> WatchedClient:
        """Return one of the clients, by any number."""
        clients = list(self.watched.clients.values())
        return clients[number % len(clients)]

    def some_client(self) -> bool:
        """Return True if there is a client."""
        return bool(self.watched.clients)

    @rule(
        room=st.sampled_from((float("inf"), float("inf"), 0, 10, 10_000)),
        pieces=split_streams(),
    )
    def begin(self, room: float, pieces: list[bytes]) -> None:
        """Connect a client, possibly one that reads little or nothing."""
        self.watched.connect(room).send(pieces)

    @precondition(some_client)
    @rule(number=_ANY, pieces=split_streams())
    def send(self, number: int, pieces: list[bytes]) -> None:
        """Send requests, whole or in pieces."""
        self.client(number).send(pieces)

    @precondition(some_client)
    @rule(number=_ANY, size=st.integers(1, 50_000))
    def read(self, number: int, size: int) -> None:
        """Read some bytes of a response."""
        client = self.client(number)
        if not client.gone:
            client.client.read(size)

    @precondition(some_client)
    @rule(number=_ANY, how=st.sampled_from(("end", "reset", "noise", *[""] * 5)))
    def leave(self, number: int, how: str) -> None:
        """Disconnect a client, have it send garbage, or do nothing."""
        client = self.client(number)
        if client.gone:
            return
        match how:
            case "end":
                client.client.end()
            case "reset":
                client.disconnect()
            case "noise":
                client.send([b"\0noise\xff"])

    @rule(seconds=st.sampled_from((0, 0.1, 0.1, 0.3, 0.3, 1.0, 1.0, 6.0, 21.0)))
    def wait(self, seconds: float) -> None:
        """Advance the clock, past some deadlines."""
        self.watched.server.advance(seconds)

    def teardown(self) -> None:
        """Finish everything and check the result."""
        self.watched.finish()


class SmallLimits(Clients):
    """The same with a queue, small windows and small body limits."""

    options: ClassVar[dict[str, object]] = {
        "max_in_flight": 1,
        "max_queued": 1,
        "input_window": 10,
        "max_body": 2000,
        "on_disconnect": "cancel",
        "request_timeout": 2,
    }


class ChannelFuzzTests(SynchronousTestCase):
    """The state machines, with default settings and with small limits."""

    def tearDown(self) -> None:
        """Discard the errors that the application raised on purpose."""
        self.flushLoggedErrors(Wanted)

    def test_clients(self) -> None:
        """Each request arrives unchanged, once, and never after a refusal."""
        run_state_machine_as_test(Clients, settings=RUNS)

    def test_small_limits(self) -> None:
        """The same holds if requests are queued, refused and cancelled."""
        run_state_machine_as_test(SmallLimits, settings=RUNS)
