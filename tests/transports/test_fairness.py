"""A request with much data at hand takes turns with the others.

The applications advance the clock themselves, as if they computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txgreenwsgi._switching.greenlets import SLICE_SECONDS

from .harness import HTTP1, TEXT, TRANSPORTS, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .harness import Environ, Server, Start

#: The length of a line of the request bodies, and of a block of the responses.
SIZE = 1024


def advance(server: Server, seconds: float) -> None:
    """Advance the clock of a server without running any call."""
    reactor = server.reactor
    if hasattr(reactor, "rightNow"):
        reactor.rightNow += seconds
    else:
        reactor.pass_time(seconds)


class FairnessCases(Cases):
    """Loops that never wait, beside another request that became ready with them.

    Attributes:
        order: the steps of the applications, in order; "other" is the other request.
    """

    def begin(
        self, step: Callable[[Environ, Start], Iterable[bytes]], **settings: Any
    ) -> Server:
        """Return a server, whose applications wait until `self.gate` fires."""
        self.order: list[str] = []
        self.gate: Deferred[None] = Deferred()

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.wait"](self.gate)
            if environ["PATH_INFO"] == "/other":
                self.order.append("other")
                start("200 OK", TEXT)
                return [b"other"]
            return step(environ, start)

        self.server = self.serve(app, **settings)
        return self.server

    def spend(self, slices: float) -> None:
        """Advance the clock without running any call."""
        advance(self.server, slices * SLICE_SECONDS)
        self.order.append("step")

    def open_gate(self) -> None:
        """Resume all applications at once."""
        self.gate.callback(None)
        self.server.settle()

    def assert_fair(self, steps: int) -> None:
        """Fail if the other request waited for most of the steps."""
        self.assertEqual(self.order.count("step"), steps)
        self.assertLess(self.order.index("other"), steps / 2)

    def check_body(self, read: Callable[[Any], bytes], **settings: Any) -> None:
        """Check a loop that reads a received body line by line."""
        steps = 50

        def step(environ: Environ, start: Start) -> Iterable[bytes]:
            body = environ["wsgi.input"]
            while read(body):
                self.spend(0.2)
            start("200 OK", TEXT)
            return [b"read"]

        server = self.begin(step, **settings)
        lines = (b"x" * (SIZE - 1) + b"\n") * steps
        reply = server.begin("POST", body=lines)
        other = server.begin(target="/other")
        self.open_gate()
        self.assert_complete(reply, b"read")
        self.assert_complete(other, b"other")
        self.assert_fair(steps)

    def test_read(self) -> None:
        """An application that reads a received body in pieces takes turns."""
        self.check_body(lambda body: body.read(SIZE))

    def test_lines(self) -> None:
        """An application that reads a received body by lines takes turns."""
        self.check_body(lambda body: body.readline())

    def test_short_lines(self) -> None:
        """An application that reads a received body by limited lines takes turns."""
        self.check_body(lambda body: body.readline(SIZE))

    def test_buffered(self) -> None:
        """An application that reads a buffered body takes turns."""
        self.check_body(lambda body: body.read(SIZE), buffer_input=True)

    def test_writes(self) -> None:
        """An application that writes small blocks and never waits takes turns."""

        def step(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            for _ in range(50):
                self.spend(0.2)
                yield b"x"

        server = self.begin(step)
        reply = server.begin()
        other = server.begin(target="/other")
        self.open_gate()
        self.assert_complete(reply, b"x" * 50)
        self.assert_complete(other)
        self.assert_fair(50)


class PipelineCases(Cases):
    """Pipelined requests on one connection."""

    def test_pipelined_requests(self) -> None:
        """Another connection does not wait for all requests of this one."""
        order: list[str] = []
        count = 30

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            order.append(environ["PATH_INFO"])
            if environ["PATH_INFO"] in ("/0", "/other"):
                environ["txgreenwsgi.wait"](gate)
            advance(server, SLICE_SECONDS / 2)
            start("200 OK", TEXT)
            return [b"done"]

        gate: Deferred[None] = Deferred()
        server = self.serve(app)
        link = server.connect(False)
        head = b"GET /%d HTTP/1.1\r\nHost: test.example\r\n\r\n"
        link.send(b"".join(head % number for number in range(count)))
        server.settle()
        other = server.begin(target="/other")
        self.assertEqual(order, ["/0", "/other"])
        finished: list[int] = []
        gate.addCallback(lambda _: finished.append(len(order)))
        gate.callback(None)
        # The other request was resumed before most of these began.
        self.assertLess(finished[0], count / 2)
        received = b""
        while received.count(b"done") < count:
            server.settle()
            piece = link.take()
            self.assertTrue(piece, received[-100:])
            received += piece
        self.assert_complete(other, b"done")
        self.assertEqual(order[2:], [f"/{number}" for number in range(1, count)])
        link.disconnect()
        server.settle()


#: A request in a thread shares no time slice with others.
_IN_TASKS = [name for name in TRANSPORTS if name != "Threads"]
globals().update(on_every_transport(FairnessCases, only=_IN_TASKS))
globals().update(on_every_transport(PipelineCases, only=HTTP1))
