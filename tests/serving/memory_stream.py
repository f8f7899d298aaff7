"""A stream in memory: the smallest implementation of the port of `_serving`.

It records the calls of its exchange and follows the test's instructions. It must
never know HTTP.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from txgreenwsgi._http.head import RequestHead
from txgreenwsgi._serving.exchange import Exchange
from txgreenwsgi._serving.stream import Ends
from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.waiting import sleep

if TYPE_CHECKING:
    from txgreenwsgi._http.writer import EarlyHints, ResponseHead
    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._serving.stream import Carried, Output

__all__ = ["ENDS", "MemoryOutput", "MemoryStream", "request_head"]

ENDS = Ends(
    server_name="server.test",
    server_port="8080",
    remote_addr="192.0.2.1",
    remote_port="4321",
    url_scheme="http",
)


def request_head(
    method: str = "GET",
    path: str = "/",
    length: int | None = 0,
    expects_continue: bool = False,
    **variables: str,
) -> RequestHead:
    """Return the head of a request.

    Args:
        method: its method.
        path: its path and target.
        length: the length of its body in bytes; None for a chunked body.
        expects_continue: whether the client waits for a 100 response.
        variables: the variables of its fields.
    """
    return RequestHead(
        method=method,
        target=path.encode("latin-1"),
        path=path,
        query="",
        version="HTTP/1.1",
        variables=variables,
        content_length=length,
        keep_alive=True,
        expects_continue=expects_continue,
        upgrade="",
    )


class MemoryOutput:
    """The backpressure of a stream in memory.

    Attributes:
        blocked: whether a send parks until `unblock`.
        waiting: the suspension of the task that is parked in a send.
        may_buffer: always False.
        flushing: always False.
    """

    may_buffer = False
    flushing = False

    def __init__(self) -> None:
        self.blocked = False
        self.waiting: Suspension | None = None
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        """Keep `data`; park while the output is blocked."""
        self.sent.append(data)
        self.wait()

    def send_parts(self, *parts: bytes) -> None:
        """Keep the parts as one."""
        self.send(b"".join(parts))

    def wait(self) -> None:
        """Park while the output is blocked."""
        while self.blocked:
            self.waiting = suspension = Suspension(
                require_task("write()"), "the client to take more"
            )
            try:
                suspension.wait()
            finally:
                self.waiting = None

    def unblock(self) -> None:
        """Let the parked send return in the reactor's next turn."""
        self.blocked = False
        if self.waiting is not None:
            self.waiting.resume()

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        """Return None: there is no kernel to send the file."""
        return None

    def turn(self) -> None:
        """Park for a turn of the reactor."""
        sleep(0)

    def flush(self) -> None:
        """No-op: all bytes are kept at once."""

    def send_last(self, data: bytes) -> bool:
        """Keep `data`."""
        self.sent.append(data)
        return True

    def has_unread_input(self) -> bool:
        """Return False: there is no kernel to hold bytes."""
        return False

    def detach(self) -> None:
        """No-op: there is no transport."""

    def disconnected(self) -> None:
        """No-op: there is no transport."""


class MemoryStream:
    """The way of one exchange to a client that is the test.

    Args:
        server: of the application.
        head: of the request.
        kernel_sends_files: whether files are sent by `send_file`.

    Attributes:
        exchange: the exchange, which is neither admitted nor started.
        backpressure: parks sends where the test says so.
        output: `backpressure`, as the exchange knows it.
        reading_paused: whether the body is not wanted at present.
        connected: whether the client is there.
        calls: the names of the methods that the exchange has called, in order.
        hints: the fields of all early hints, in order.
        head: the head of the response; None before.
        length: the length of the response as given with its head.
        body: the body of the response so far.
        finished: whether the response was ended.
        to_read: the bytes that `read_body` returns next.
    """

    def __init__(
        self,
        server: ApplicationServer,
        head: RequestHead | None = None,
        kernel_sends_files: bool = False,
    ) -> None:
        self.backpressure = MemoryOutput()
        self.output: Output = self.backpressure
        self.reading_paused = False
        self.body_is_stored = False
        self.ends = ENDS
        self.connected = True
        self.calls: list[str] = []
        self.hints: list[tuple[bytes, bytes]] = []
        self.head: ResponseHead | None = None
        self.length: int | None = None
        self.body = b""
        self.finished = False
        self.to_read = b""
        self._kernel_sends_files = kernel_sends_files
        head = head or request_head()
        self.exchange = Exchange(self, server, head, head.content_length == 0)

    # The port.

    @property
    def waiting(self) -> Suspension | None:
        """The suspension of the task that is parked by backpressure."""
        return self.output.waiting

    def early_hints(self, hints: EarlyHints) -> None:
        """Keep the fields of an interim response."""
        self.calls.append("early_hints")
        self.hints += hints.fields()
        self.backpressure.wait()

    def start(
        self, head: ResponseHead, length: int | None, block: bytes, end: bool
    ) -> None:
        """Keep the head and the first block."""
        self.calls.append("start")
        self.head, self.length = head, length
        self.finished = end
        self.body += block
        self.backpressure.wait()

    def data(self, block: bytes) -> None:
        """Keep a block."""
        self.calls.append("data")
        self.body += block
        self.backpressure.wait()

    def send_file(
        self, head: ResponseHead, length: int, fd: int, offset: int, count: int
    ) -> int | None:
        """Keep the head, and a part of the file if the kernel can send it."""
        self.calls.append("send_file")
        self.head, self.length = head, length
        if not self._kernel_sends_files:
            return None
        return self.more_of_file(fd, offset, count)

    def more_of_file(self, fd: int, offset: int, count: int) -> int:
        """Keep a part of the file."""
        block = os.pread(fd, count, offset)
        self.body += block
        self.backpressure.wait()
        return len(block)

    def finish(self) -> None:
        """Note the end of the response."""
        self.calls.append("finish")
        self.finished = True

    def end_sending(self) -> None:
        """Record the end of the sending side."""
        self.calls.append("end_sending")

    def upgrade(self, protocol: str, head: ResponseHead | None) -> None:
        """Keep the head, and the blocks after it as the body."""
        self.calls.append("upgrade")
        self.head = head
        self.backpressure.wait()

    def answer(self, head: ResponseHead, body: bytes, last: bool = True) -> None:
        """Keep a whole response."""
        self.calls.append("answer")
        self.head, self.body = head, body
        self.finished = True

    def break_off(self) -> None:
        """Note that the response stays incomplete."""
        self.calls.append("break_off")

    def reset(self) -> None:
        """Note that the client is cut off."""
        self.calls.append("reset")
        self.connected = False

    def send_continue(self) -> None:
        """Note that the body is wanted."""
        self.calls.append("send_continue")

    def stored_body(self) -> None:
        """Return None: the body comes in pieces."""

    def read_body(self, wanted: int) -> bytes | None:
        """Return the bytes that the test has provided."""
        data, self.to_read = self.to_read, b""
        return data

    def read_now(self) -> bool:
        """Return False: there is no kernel to hold bytes."""
        return False

    def update_backpressure(self) -> None:
        """Pause reading while the body is full."""
        self.reading_paused = self.exchange.body.full

    def stop_receiving(self) -> None:
        """Note that the rest of the body is ignored."""
        self.calls.append("stop_receiving")

    def ended(self, exchange: Carried) -> None:
        """Note the end of the exchange."""
        self.calls.append("ended")

    # The client.

    def leave(self) -> None:
        """Let the client disconnect."""
        self.connected = False
        self.exchange.peer_lost()
