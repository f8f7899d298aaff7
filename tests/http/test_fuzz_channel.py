"""Whatever clients send, however it is cut, whenever they go: the server stays right.

Hypothesis makes up what several clients do at the same time, against the real
channel in memory, and shrinks what goes wrong to its essence. The runs are the same
each time; TXGREENWSGI_FUZZ multiplies their number and makes them new ones.
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
    """A good request, with or without a body."""
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


_SPOILERS = (*ALPHABET, *(line + b"\r\n" for line in LINES))


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A few requests in a row; some of them spoilt."""
    good = requests() | st.sampled_from(list(GOOD.values()))
    stream = b"".join(draw(st.lists(good, min_size=1, max_size=3)))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 1, 2)))):
        at = draw(st.integers(0, len(stream)))
        until = at + draw(st.integers(0, 3))
        put = draw(st.sampled_from(_SPOILERS) | st.binary(max_size=3))
        stream = stream[:at] + put + stream[until:]
    return stream


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream in pieces: cut anywhere, or byte by byte, or not at all."""
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
    """Clients of one server. Subclasses give its settings."""

    options: ClassVar[dict[str, object]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.watched = WatchedServer(**self.options)

    def client(self, number: int) -> WatchedClient:
        """One of those that are there."""
        clients = list(self.watched.clients.values())
        return clients[number % len(clients)]

    def some_client(self) -> bool:
        """Whether there is one."""
        return bool(self.watched.clients)

    @rule(
        room=st.sampled_from((float("inf"), float("inf"), 0, 10, 10_000)),
        pieces=split_streams(),
    )
    def begin(self, room: float, pieces: list[bytes]) -> None:
        """Another client, which may read no more than a little."""
        self.watched.connect(room).send(pieces)

    @precondition(some_client)
    @rule(number=_ANY, pieces=split_streams())
    def send(self, number: int, pieces: list[bytes]) -> None:
        """Requests, whole or in pieces."""
        self.client(number).send(pieces)

    @precondition(some_client)
    @rule(number=_ANY, size=st.integers(1, 50_000))
    def read(self, number: int, size: int) -> None:
        """What a slow reader reads."""
        client = self.client(number)
        if not client.gone:
            client.client.read(size)

    @precondition(some_client)
    @rule(number=_ANY, how=st.sampled_from(("end", "reset", "noise", *[""] * 5)))
    def leave(self, number: int, how: str) -> None:
        """A client goes, or says what nobody understands, or does not."""
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
        """Time passes; some deadlines with it."""
        self.watched.server.advance(seconds)

    def teardown(self) -> None:
        """Let all end, and judge."""
        self.watched.finish()


class FewPlaces(Clients):
    """The same, where requests queue, and windows and bodies are small."""

    options: ClassVar[dict[str, object]] = {
        "max_in_flight": 1,
        "max_queued": 1,
        "input_window": 10,
        "max_body": 2000,
        "on_disconnect": "cancel",
        "request_timeout": 2,
    }


class ChannelFuzzTests(SynchronousTestCase):
    """Two servers and whatever comes to mind."""

    def tearDown(self) -> None:
        """What the application was asked to raise is no fault."""
        self.flushLoggedErrors(Wanted)

    def test_clients(self) -> None:
        """Each request is seen as it was sent, once, and never behind a refusal."""
        run_state_machine_as_test(Clients, settings=RUNS)

    def test_few_places(self) -> None:
        """Nor does it matter that there is no room for it."""
        run_state_machine_as_test(FewPlaces, settings=RUNS)
