"""Tests of the server's use of tasks: one task per request, from call to close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import current_task, sleep
from txgreenwsgi._server.output import TransportOutput
from txgreenwsgi.testing import LeakCheckMixin

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class OneTaskTests(LeakCheckMixin, SynchronousTestCase):
    """Call, iteration and `close()` of a request."""

    def setUp(self) -> None:
        """Make a list of (step, task) pairs."""
        self.tasks: list[tuple[str, object]] = []

    def note(self, what: str) -> None:
        """Record that the current task performs `step`."""
        self.tasks.append((what, current_task()))

    def app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Wait in the call, in the iteration and in `close()`."""
        self.note("call")
        sleep(1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.blocks()

    def blocks(self) -> Iterator[bytes]:
        """Yield two blocks."""
        try:
            self.note("first block")
            yield b"first"
            sleep(1)
            self.note("second block")
            yield b"second"
        finally:
            self.note("close")

    def test_whole(self) -> None:
        """All steps of a request run in one task."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.advance(1)
        server.advance(1)
        self.assertEqual(client.responses()[0].body, b"firstsecond")
        self.assertEqual(
            [what for what, _ in self.tasks],
            ["call", "first block", "second block", "close"],
        )
        self.assertEqual(len({task for _, task in self.tasks}), 1)

    def test_client_gone(self) -> None:
        """`close()` runs in the same task when the client disconnects."""
        server = self.serve(self.app)
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.advance(1)
        client.disconnect()
        server.settle()
        self.assertEqual(
            [what for what, _ in self.tasks], ["call", "first block", "close"]
        )
        self.assertEqual(len({task for _, task in self.tasks}), 1)
        self.assertNotEqual(self.tasks[0][1], None)


class EagerTransport(StringTransport):
    """A transport that pauses its producer inside `write()`."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def write(self, data: bytes) -> None:
        """Pause the producer before the write is done."""
        self.events.append("writing")
        assert self.producer is not None
        self.producer.pauseProducing()
        super().write(data)
        self.events.append("written")


class PauseTests(ClockTestCase):
    """A transport whose buffer is full."""

    def test_paused_inside_write(self) -> None:
        """A pause during a write parks the task after that write."""
        transport = EagerTransport()
        output = TransportOutput(transport, lambda: None)

        def work() -> None:
            output.send(b"data")
            transport.events.append("went on")

        task = self.start(work)
        self.assertEqual(task.state, "parked")
        self.assertEqual(transport.events, ["writing", "written"])
        assert transport.producer is not None
        transport.producer.resumeProducing()
        self.assertEqual(transport.events, ["writing", "written", "went on"])
        self.result_of(task)
