"""Calls one application once, and closes what it returned (PEP 3333).

It runs in the request's task, and so does everything of the application's: the
call, the iteration, `close()`. It must never know connections: the response
goes to a `ResponseSink`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from txgreenwsgi._http.writer import ResponseHead
from txgreenwsgi._switching.greenlets import require_task

from .files import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
    OptExcInfo = ExcInfo | tuple[None, None, None]
    Application = Callable[..., Iterable[bytes]]

    class ResponseSink(Protocol):
        """Where a response goes. All methods are called in the task."""

        #: Whether the response has no body, whatever the application gives;
        #: known once it has begun.
        bodiless: bool

        def begin_iteration(self) -> None:
            """The application's iterable is about to be asked for blocks."""

        def end_iteration(self) -> None:
            """It has been, and its `close()` is about to be called."""

        def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
            """Send the head with the first block; `length` is the body's, if known."""

        def write(self, block: bytes) -> None:
            """Send a block that is not empty. Parks while the client is behind."""

        def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
            """Send a whole body from a file; False if that must be done by blocks."""

        def turn(self) -> None:
            """Park for one turn of the reactor."""

        def finish(self) -> None:
            """The body is complete."""


__all__ = ["StartResponse", "serve"]

_log = Logger()


class StartResponse:
    """The `start_response` of one request (PEP 3333, "The start_response() Callable").

    Attributes:
        head: what was given last; None before.
        sent: whether the head has been sent, after which it cannot be changed.
    """

    __slots__ = ("_sink", "head", "sent")

    def __init__(self, sink: ResponseSink) -> None:
        self._sink = sink
        self.head: ResponseHead | None = None
        self.sent = False

    def __call__(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: OptExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """Take the head of the response; sends nothing and never parks."""
        if exc_info is not None:
            try:
                if self.sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the traceback holds this frame
        elif self.head is not None:
            raise AssertionError(
                "start_response was called twice without exc_info (PEP 3333)"
            )
        if self.sent:
            raise AssertionError(
                "start_response was called when the head had been sent, with an "
                "exc_info that tells of no error (PEP 3333)"
            )
        self.head = ResponseHead(status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send `data` now, with the head if it is the first. May park.

        The `write` callable of PEP 3333; it returns when the client has taken
        what came before.

        Raises:
            NotInGreenlet: this is no task, and so cannot wait for the client.
        """
        require_task("write()")
        self.send(data, None)

    def send(self, block: bytes, length: int | None) -> None:
        """Send a block; `length` is the whole body's, where it is known."""
        if type(block) is not bytes:
            block = _as_bytes(block)
        if not block:
            return
        if self.sent:
            self._sink.write(block)
        else:
            head = self.head_to_send()
            self.sent = True
            self._sink.begin(head, length, block)

    def head_to_send(self) -> ResponseHead:
        """The head, which must have been given by now."""
        if self.head is None:
            raise AssertionError(
                "the application gave a body, or ended, without having called "
                "start_response (PEP 3333)"
            )
        return self.head


def _as_bytes(block: object) -> bytes:
    if isinstance(block, bytes):
        return bytes(block)
    if block == "":
        # What applications yielded "to say nothing" before Python 3.
        return b""
    raise TypeError(
        f"a block of the response is bytes, not {type(block).__name__}: {block!r:.60} "
        "(PEP 3333)"
    )


def serve(
    application: Application, environ: dict[str, Any], sink: ResponseSink
) -> None:
    """Call `application` and send its response to `sink`. May park.

    Whatever the application raises passes through, after `close()` was called
    once.
    """
    start = StartResponse(sink)
    blocks = application(environ, start)
    try:
        kind = type(blocks)
        if (kind is list or kind is tuple) and len(blocks) == 1:  # type: ignore[arg-type]
            block = blocks[0]  # type: ignore[index]
            head = start.head
            if head is not None and not start.sent and block and type(block) is bytes:
                start.sent = True
                sink.begin(head, len(block), block)
            else:
                start.send(block, len(block) if isinstance(block, bytes) else None)
        elif kind is FileWrapper and _send_file(start, blocks, sink):  # type: ignore[arg-type]
            pass
        else:
            sink.begin_iteration()
            _send_blocks(start, blocks, sink)
        if not start.sent:
            head = start.head_to_send()
            start.sent = True
            sink.begin(head, 0, b"")
        sink.finish()
    finally:
        close = getattr(blocks, "close", None)
        if close is not None:
            sink.end_iteration()
            _close(close)


def _send_blocks(
    start: StartResponse, blocks: Iterable[bytes], sink: ResponseSink
) -> None:
    kind: Any = type(blocks)
    count = len(blocks) if hasattr(kind, "__len__") else None  # type: ignore[arg-type]
    if kind is FileWrapper and start.head is not None and not start.sent:
        blocks = blocks.blocks(start.head.content_length)  # type: ignore[attr-defined]
    for block in blocks:
        if block:
            start.send(block, len(block) if count == 1 else None)
            if sink.bodiless:
                # Nothing of the rest is sent, and it may have no end.
                break
        else:
            _as_bytes(block)
            sink.turn()


def _send_file(start: StartResponse, blocks: FileWrapper, sink: ResponseSink) -> bool:
    head = None if start.sent else start.head_to_send()
    # A failure past this point is a failure of the body.
    was_sent, start.sent = start.sent, True
    if sink.send_file(head, blocks):
        return True
    start.sent = was_sent
    return False


def _close(close: Callable[[], object]) -> None:
    if sys.exc_info()[0] is None:
        close()
        return
    try:
        close()
    except Exception:
        # The first error is the one to be answered.
        _log.failure("close() of a response failed after the response had failed")
