"""The sink of the gateway in a thread: sends through the sink of the request's task.

It knows sinks. It must never know what sends the response.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from greenlet import GreenletExit

from txgreenwsgi._switching.errors import ClientDisconnected
from txgreenwsgi._switching.thread_calls import in_task_of_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._wsgi.files import FileWrapper
    from txgreenwsgi._wsgi.gateway import ResponseSink

    from .calls import ThreadCall

__all__ = ["SinkInThread"]

P = ParamSpec("P")
T = TypeVar("T")

#: Maximum size of the blocks that the thread has written and the task has not sent.
_AHEAD_BYTES: Final = 256 * 1024
#: Memory of a queued block besides its content.
_BLOCK_BYTES: Final = 128
#: Small blocks are joined to sends of about this size.
_JOINED_BYTES: Final = 64 * 1024


class SinkInThread:
    """Sends a response from a thread. The methods are called in the thread.

    Each hand-over to the task costs about 40 us. So a block that completes the response
    is handed over together with the next call, which usually is the end; or by the
    watcher of the threads, if the application computes first. Further blocks are queued
    while the transport takes them at once: the thread computes the next block while the
    task sends (PEP 3333, "Buffering and Streaming").

    The application sees the same failures as without the queue: those that are known
    at the time of a write in this write, others some blocks later.

    Args:
        call: the call of the application.
        sink: the sink of the request's task.

    Attributes:
        bodiless: as that of `sink`.
    """

    __slots__ = (
        "_begun",
        "_blocks",
        "_call",
        "_left",
        "_queued_bytes",
        "_sending",
        "_sent_bytes",
        "_sink",
        "bodiless",
    )

    crosses: Final = True

    def __init__(self, call: ThreadCall[None], sink: ResponseSink) -> None:
        self._call = call
        self._sink = sink
        self.bodiless = False
        # Whether the head was sent, and the end was not.
        self._begun = False
        # Bytes of the body still to be written; None if its length is unknown.
        self._left: int | None = None
        self._blocks: deque[bytes] = deque()
        # Whether the task will call `_send_blocks`. A late True costs nothing: the
        # thread reads it after it has queued a block, the task clears it before it
        # takes the blocks.
        self._sending = False
        # The sizes of the blocks, with `_BLOCK_BYTES`, that the thread has queued and
        # the task has sent. Each is changed on one side only.
        self._queued_bytes = 0
        self._sent_bytes = 0

    @property
    def code(self) -> int:
        """The status code that was sent; 0 before."""
        return self._sink.code

    @property
    def error(self) -> BaseException | None:
        """The error that each further call raises; None if there is none."""
        return self._sink.error

    @property
    def accepts_blocks(self) -> bool:
        """Whether `write` would neither raise nor wait, as far as is known."""
        return self._begun and not self.bodiless and self._sink.accepts_blocks

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
        self._cross(self._sink.begin, head, length, block)
        self.bodiless = self._sink.bodiless
        self._left = None if total is None else total - len(block)
        self._begun = True

    def respond(self, head: ResponseHead, block: bytes) -> None:
        """Send a complete response. Never blocks."""
        self._call.post(self._sink.respond, head, block)

    def write(self, block: bytes) -> None:
        """Send a block. Blocks while the client is slow to read."""
        left = self._left
        size = len(block) + _BLOCK_BYTES
        if (
            self.accepts_blocks
            and (left is None or len(block) <= left)
            and self._queued_bytes - self._sent_bytes + size <= _AHEAD_BYTES
            and not self._call.timeouts
            and in_task_of_thread() is self._call
            and not self._call.in_child
        ):
            if left is not None:
                self._left = left - len(block)
            self._queued_bytes += size
            self._blocks.append(block)
            if not self._sending:
                self._sending = True
                self._call.post(self._send_blocks)
            return
        self._cross(self._sink.write, block)
        if left is not None:
            self._left = max(0, left - len(block))
        self.bodiless = self._sink.bodiless

    def _send_blocks(self) -> None:
        """Send the queued blocks. Called in the task; may park."""
        self._sending = False
        blocks = self._blocks
        try:
            while blocks:
                joined: list[bytes] = []
                size = 0
                while blocks and size < _JOINED_BYTES:
                    joined.append(blocks.popleft())
                    size += len(joined[-1])
                self._sink.write(joined[0] if len(joined) == 1 else b"".join(joined))
                self._sent_bytes += size + len(joined) * _BLOCK_BYTES
        except GreenletExit:
            raise
        except ClientDisconnected:
            # The thread's next call of the sink raises it, `finish` at the latest.
            blocks.clear()
        except BaseException as error:
            blocks.clear()
            if error is not self._sink.error:
                self._call.interrupt(error)

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """Send a whole body from a file, in the task."""
        return self._cross(self._sink.send_file, head, body)

    def turn(self) -> None:
        """Block for one reactor turn, or until the awaited event."""
        self._cross(self._sink.turn)

    def _cross(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a method of the sink in the task, unless an earlier one has failed."""
        self._call.raise_unreported()
        return self._call(function, *args, **kwargs)

    def finish(self) -> None:
        """Complete the response. Never blocks."""
        self._begun = False
        self._call.post(self._sink.finish)
