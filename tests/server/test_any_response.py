"""Random applications: h11 as a client reads their responses without ambiguity.

Applications come from a seeded generator: methods, statuses, lengths that are right or
wrong, blocks of all sizes, by list, generator or write().
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import h11

from .application import TEXT
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .application import Environ, Start

ROUNDS = 400


class Answer(NamedTuple):
    """A request, and the application's response to it."""

    method: str
    version: str
    status: str
    declared: int | None
    blocks: list[bytes]
    by: str

    @property
    def body(self) -> bytes:
        """The body that the client should get, as far as it is sent."""
        if self.method == "HEAD" or self.status[:3] in ("204", "304"):
            return b""
        return b"".join(self.blocks)[: self.declared]

    @property
    def broken(self) -> bool:
        """Whether the body is shorter than declared."""
        if self.method == "HEAD" or self.status[:3] in ("204", "304"):
            return False
        return len(self.body) < (self.declared or 0)


def draw(chance: random.Random) -> Answer:
    """Return a random answer."""
    blocks = [
        bytes([97 + number]) * chance.choice([0, 0, 1, 7, 300, 20_000])
        for number in range(chance.choice([0, 1, 1, 2, 3, 5]))
    ]
    length = sum(map(len, blocks))
    return Answer(
        chance.choice(["GET", "GET", "GET", "POST", "HEAD"]),
        chance.choice(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]),
        chance.choice(["200 OK", "200 OK", "404 No", "204 None", "304 Same"]),
        chance.choice([None, None, None, length, length, length + 3, length // 2]),
        blocks,
        chance.choice(["list", "stream", "write", "both", "slow stream"]),
    )


def application(environ: Environ, start: Start) -> Iterable[bytes]:
    """Respond as the test has put it into the environ."""
    answer: Answer = environ["answers"][int(environ["PATH_INFO"][1:])]
    fields = list(TEXT)
    if answer.declared is not None:
        fields.append(("Content-Length", str(answer.declared)))
    write = start(answer.status, fields)
    blocks = list(answer.blocks)
    if answer.by == "list":
        return blocks
    if answer.by in ("write", "both"):
        for block in blocks if answer.by == "write" else blocks[:1]:
            write(block)
        return [] if answer.by == "write" else blocks[1:]

    def stream() -> Iterator[bytes]:
        for block in blocks:
            if answer.by == "slow stream":
                environ["txgreenwsgi.sleep"](0)
            yield block

    return stream()


class AnyResponseTests(WireTestCase):
    """The responses as a strict client reads them."""

    def read(self, data: bytes, answers: list[Answer]) -> list[tuple[int, bytes, bool]]:
        """Return status, body and completeness of each response, as h11 reads them."""
        client = h11.Connection(h11.CLIENT)
        client.receive_data(data)
        client.receive_data(b"")
        found: list[tuple[int, bytes, bool]] = []
        for answer in answers:
            client.send(
                h11.Request(method=answer.method, target="/", headers=[("Host", "x")])
            )
            client.send(h11.EndOfMessage())
            status, body = 0, b""
            while True:
                try:
                    event: Any = client.next_event()
                except h11.RemoteProtocolError:
                    return [*found, (status, body, False)]
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    found.append((status, body, True))
                    break
                else:
                    return found
            if client.their_state is h11.MUST_CLOSE:
                return found
            client.start_next_cycle()
        return found

    def test_any(self) -> None:
        """h11 reads each body as sent; a truncated one is detected and the last."""
        chance = random.Random(9112)
        answered = 0
        for _ in range(ROUNDS):
            answers = [draw(chance) for _ in range(chance.randrange(1, 5))]
            server = self.serve(application)
            server.site.server.environ["answers"] = answers
            client = server.connect(chance.choice([float("inf"), 100, 5000]))
            client.send(
                b"".join(
                    get(f"/{number}", method=answer.method, version=answer.version)
                    for number, answer in enumerate(answers)
                )
            )
            while client.read():
                pass
            found = self.read(client.received, answers)
            for answer, (status, body, complete) in zip(answers, found, strict=False):
                self.assertEqual(status, int(answer.status[:3]), answers)
                self.assertTrue(body == answer.body, answers)
                self.assertEqual(complete, not answer.broken, answers)
            answered += len(found)
            # The connection has to end after the last response.
            if len(found) < len(answers):
                last = answers[len(found) - 1]
                self.assertTrue(last.broken or last.version == "HTTP/1.0", answers)
                self.assertTrue(client.closed, answers)
            else:
                self.assertEqual(client.received.count(b"HTTP/1.1 "), len(answers))
        self.assertGreater(answered, ROUNDS * 3 // 2)
