"""The sink of the gateway in a thread: sends through the sink of the request's task.

It knows sinks. It must never know what sends the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._wsgi.files import FileWrapper
    from txgreenwsgi._wsgi.gateway import ResponseSink

    from .calls import ThreadCall

__all__ = ["SinkInThread"]


class SinkInThread:
    """Sends a response from a thread. The methods are called in the thread.

    Each hand-over to the task costs about 40 us. So a block that completes the response
    is handed over together with the next call, which usually is the end; or by the
    watcher of the threads, if the application computes first.

    Args:
        call: the call of the application.
        sink: the sink of the request's task.

    Attributes:
        bodiless: as that of `sink`.
    """

    __slots__ = ("_call", "_sink", "bodiless")

    def __init__(self, call: ThreadCall[None], sink: ResponseSink) -> None:
        self._call = call
        self._sink = sink
        self.bodiless = False

    @property
    def code(self) -> int:
        """The status code that was sent; 0 before."""
        return self._sink.code

    def fields_dropped(self, names: Iterable[str], place: str) -> None:
        """Log the warning in the task."""
        self._call.post(self._sink.fields_dropped, names, place)

    def begin_iteration(self) -> None:
        """Mark the start of the iteration. Never blocks."""
        # Not in the task: it only reads and sets attributes.
        self._sink.begin_iteration()

    def end_iteration(self) -> None:
        """Mark the end of the iteration. Never blocks."""
        if self._call.in_child:
            return  # the exception that ends the child must propagate
        self._call.post(self._sink.end_iteration)

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        """Send the head and the first block. Blocks unless they are the whole."""
        total = length if head.content_length is None else head.content_length
        if total == len(block):
            self._call.post_later(self._sink.begin, head, length, block)
            return
        self._call(self._sink.begin, head, length, block)
        self.bodiless = self._sink.bodiless

    def respond(self, head: ResponseHead, block: bytes) -> None:
        """Send a complete response. Never blocks."""
        self._call.post(self._sink.respond, head, block)

    def write(self, block: bytes) -> None:
        """Send a block. Blocks while the client is slow to read."""
        self._call(self._sink.write, block)
        self.bodiless = self._sink.bodiless

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """Send a whole body from a file, in the task."""
        return self._call(self._sink.send_file, head, body)

    def turn(self) -> None:
        """Block for one reactor turn, or until the awaited event."""
        self._call(self._sink.turn)

    def finish(self) -> None:
        """Complete the response."""
        self._call.post(self._sink.finish)
