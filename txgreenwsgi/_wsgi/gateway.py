"""The WSGI gateway: one call of the application and its response (PEP 3333).

The call, the iteration and `close()` run in the request's task. Must never know
connections: the response goes to a `ResponseSink`.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from txgreenwsgi._http.writer import ResponseHead
from txgreenwsgi._native import lanes
from txgreenwsgi._switching.greenlets import require_task
from txgreenwsgi._switching.thread_calls import in_task_of_thread

from .files import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    Application: TypeAlias = WSGIApplication

    class ResponseSink(Protocol):
        """The receiver of one response."""

        @property
        def code(self) -> int:
            """The status code that was sent; 0 before."""

        #: True if the response has no body, whatever the application sends. Valid
        #: after `begin`.
        bodiless: bool

        @property
        def crosses(self) -> bool:
            """Whether the methods may be called in the thread of the application.

            They have the task of the request send then.
            """

        @property
        def error(self) -> BaseException | None:
            """The error that each further call raises; None if there is none."""

        @property
        def accepts_blocks(self) -> bool:
            """Whether a `write` would neither raise nor wait, as far as is known.

            May be read in any thread.
            """

        def fields_dropped(self, names: Iterable[str], place: str) -> None:
            """Note that hop-by-hop fields of the head were dropped.

            `place` is the file and line of the call of `start_response`.
            """

        def begin_iteration(self) -> None:
            """Mark the start of the iteration of the application's iterable."""

        def end_iteration(self) -> None:
            """Mark the end of the iteration, before `close()` is called."""

        def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
            """Send the head and the first block. May park.

            `length` is the length of the whole body in bytes, None if unknown.
            """

        def respond(self, head: ResponseHead, block: bytes) -> None:
            """Send a complete response whose body is one block. May park.

            Equals `begin` followed by `finish`.
            """

        def write(self, block: bytes) -> None:
            """Send a non-empty block. Parks while the client is slow to read."""

        def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
            """Send a whole body from a file; return False to have it iterated."""

        def turn(self) -> None:
            """Park for one reactor turn."""

        def finish(self) -> None:
            """Complete the response: the body has been sent."""


__all__ = ["NoStartResponse", "StartResponse", "serve"]

_log = Logger()

#: Number of blocks of a list whose lengths are added up in one reactor turn.
_BLOCKS_PER_TURN = 100_000

_BYTES_LIKE: frozenset[type] = frozenset({bytes, bytearray, memoryview})

_TEXT_OR_BYTES = (str, bytes, bytearray, memoryview)


class NoStartResponse(AssertionError):
    """The application has not called `start_response`."""

    def __init__(self) -> None:
        super().__init__(
            "the application sent a body, or returned, without having called "
            "start_response (PEP 3333)"
        )


@lanes.with_lanes
class StartResponse(lanes.StartResponseState):
    """The `start_response` of one request (PEP 3333, "The start_response() Callable").

    Attributes:
        head: The head passed in the last call; None before the first.
        sent: True once the head has been sent and can no longer be replaced.
    """

    __slots__ = lanes.slots(
        lanes.StartResponseState,
        (
            "_sink",
            "head",
            "sent",
        ),
    )

    def __init__(self, sink: ResponseSink) -> None:
        self._sink = sink
        self.head: ResponseHead | None = None
        self.sent = False

    def __call__(
        self,
        status: str,
        headers: Iterable[tuple[str, str]],
        exc_info: OptExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """Store the head of the response. Sends nothing and never parks."""
        if exc_info is not None:
            try:
                if self.sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # The traceback refers to this frame: a cycle.
        elif self.head is not None:
            raise AssertionError(
                "start_response was called twice without exc_info (PEP 3333)"
            )
        if self.sent:
            raise AssertionError(
                "start_response was called after the head had been sent, with an "
                "exc_info without an exception (PEP 3333)"
            )
        self.head = head = ResponseHead(status, headers)
        if head.dropped:
            caller = sys._getframe(1)
            place = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            self._sink.fields_dropped(head.dropped, place)
        return self.write

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` now, after the head if it has not been sent. May park.

        The `write` callable of PEP 3333. Parks while the client is slow to read.

        Raises:
            NotInGreenlet: Not called from a task, so it could not park.
        """
        in_task = in_task_of_thread()
        if in_task is None:
            require_task("write()")
        if in_task is None or self._sink.crosses:
            self.send(data, None)
        else:
            in_task(self.send, data, None)

    def send(self, block: bytes | bytearray | memoryview, length: int | None) -> None:
        """Send a block, with the head if it is the first. May park.

        Args:
            block: The block, any bytes-like object; an empty one is ignored.
            length: The length of the whole body in bytes, None if unknown.
        """
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
        """Return the head.

        Raises:
            NoStartResponse: The application has not called `start_response`.
        """
        if self.head is None:
            raise NoStartResponse
        return self.head


@lanes.lent
def _as_bytes(block: Any) -> bytes:
    """Return a block as bytes; copy it, because its owner may change it."""
    if type(block) is bytes:
        return block
    try:
        with memoryview(block) as view:
            return view.tobytes()
    except TypeError:
        if isinstance(block, str) and not block:
            # Applications ported from Python 2 yield "" as an empty block.
            return b""
    raise TypeError(
        f"a block of the response must be bytes, not {type(block).__name__}: "
        f"{block!r:.60} (PEP 3333)"
    )


@lanes.with_lane
def serve(
    application: Application, environ: WSGIEnvironment, sink: ResponseSink
) -> None:
    """Call `application` and send its response to `sink`. May park.

    An exception of the application propagates, after `close()` has been called once.
    """
    start = StartResponse(sink)
    blocks = application(environ, start)
    kind: type[object] = type(blocks)
    if (kind is list or kind is tuple) and len(blocks) == 1:  # type: ignore[arg-type]
        block = blocks[0]  # type: ignore[index]
        head = start.head
        if type(block) is bytes and block and head is not None and not start.sent:
            # The common case. A list or tuple has no close().
            start.sent = True
            sink.respond(head, block)
            return
    _finish_response(application, start, blocks, sink)


@lanes.lent
def _finish_response(
    application: Application,
    start: StartResponse,
    blocks: Iterable[bytes],
    sink: ResponseSink,
) -> None:
    """Send the response that the application has returned, and close it. May park."""
    kind: type[object] = type(blocks)
    try:
        if (kind is list or kind is tuple) and len(blocks) == 1:  # type: ignore[arg-type]
            block = _as_bytes(blocks[0])  # type: ignore[index]
            start.send(block, len(block))
        elif kind is FileWrapper and _send_file(start, blocks, sink):  # type: ignore[arg-type]
            pass
        else:
            if not hasattr(kind, "__iter__") or issubclass(kind, _TEXT_OR_BYTES):
                _check_response(application, blocks)
            sink.begin_iteration()
            _send_blocks(start, blocks, sink)
        if not start.sent:
            head = start.head_to_send()
            start.sent = True
            sink.begin(head, 0, b"")
        sink.finish()
    finally:
        _close_response(blocks, sink)


def _check_response(application: Application, blocks: object) -> None:
    """Raise TypeError if `blocks` cannot be a response; the message gives the remedy.

    An empty str or bytes passes: it contains no block.
    """
    if hasattr(type(blocks), "__getitem__") and not isinstance(blocks, _TEXT_OR_BYTES):
        return  # iterable by index
    remedy = "return an iterable of bytes, such as [b'text'] (PEP 3333)"
    if isinstance(blocks, bytes | bytearray | memoryview):
        kind = type(blocks).__name__
        problem = f"returned {kind}, {blocks!r:.60}, whose items are int"
        remedy = "return a list with this block: [body] (PEP 3333)"
    elif isinstance(blocks, str):
        problem = f"returned a str, {blocks!r:.60}"
        remedy = "encode it and return a list: [text.encode()] (PEP 3333)"
    elif blocks is None:
        problem = "returned None"
        remedy += "; a missing return statement also returns None"
    elif inspect.isawaitable(blocks) or inspect.isasyncgen(blocks):
        problem = f"returned {blocks!r:.80}, which is asynchronous"
        remedy += ", and use txgreenwsgi.wait() to wait for an awaitable"
    else:
        problem = f"returned {blocks!r:.80}, which is not iterable"
    if blocks or not isinstance(blocks, _TEXT_OR_BYTES):
        raise TypeError(f"the application {application!r:.80} {problem}; {remedy}")


def _send_blocks(
    start: StartResponse, blocks: Iterable[bytes], sink: ResponseSink
) -> None:
    kind: type[object] = type(blocks)
    count = length = None
    if kind is list or kind is tuple:
        head = start.head
        if head is not None and head.content_length is None and not start.sent:
            blocks, length = _with_length(blocks, sink)  # type: ignore[arg-type]
    elif hasattr(kind, "__len__"):
        count = _count(blocks)
    elif kind is FileWrapper and start.head is not None and not start.sent:
        blocks = blocks.blocks(start.head.content_length)  # type: ignore[attr-defined]
    for block in blocks:
        if type(block) is not bytes:
            block = _as_bytes(block)
        if block:
            if start.sent:
                sink.write(block)
            else:
                start.send(block, len(block) if count == 1 else length)
            if sink.bodiless:
                # The remaining blocks would be discarded, and may be endless.
                break
        else:
            sink.turn()


def _with_length(
    blocks: list[bytes] | tuple[bytes, ...], sink: ResponseSink
) -> tuple[Sequence[bytes], int | None]:
    """Return the blocks of a body and its length, None unless all are bytes-like.

    The blocks are copied, because the application may change the list while they are
    sent. Empty blocks at the end are left out: the body is complete before them.
    Parks if there are very many blocks.
    """
    copied = list(blocks)
    length = 0
    for first in range(0, len(copied), _BLOCKS_PER_TURN):
        if first:
            sink.turn()
        part = copied[first : first + _BLOCKS_PER_TURN]
        kinds = set(map(type, part))
        if kinds != {bytes}:
            if not kinds <= _BYTES_LIKE:
                return blocks, None
            part = list(map(_as_bytes, part))
            copied[first : first + _BLOCKS_PER_TURN] = part
        length += sum(map(len, part))
    if length:
        end = len(copied)
        while not copied[end - 1]:
            end -= 1
        copied = copied[:end]
    return copied, length


def _count(blocks: Iterable[bytes]) -> int | None:
    """Return the number of blocks, None where len() fails.

    See PEP 3333, "Specification Details". The type of a transparent proxy has `__len__`
    whatever it stands for.
    """
    try:
        return len(blocks)  # type: ignore[arg-type]
    except Exception:
        return None


def _send_file(start: StartResponse, blocks: FileWrapper, sink: ResponseSink) -> bool:
    head = None if start.sent else start.head_to_send()
    # Set first: an exception raised from here on is a failure of the body.
    was_sent, start.sent = start.sent, True
    if sink.send_file(head, blocks):
        return True
    start.sent = was_sent
    return False


@lanes.lent
def _close_response(blocks: object, sink: ResponseSink) -> None:
    """Call the `close()` of the application's iterable, if it has one."""
    close = getattr(blocks, "close", None)
    if close is not None:
        sink.end_iteration()
        _close(close)


def _close(close: Callable[[], object]) -> None:
    if sys.exc_info()[0] is None:
        close()
        return
    try:
        close()
    except Exception:
        # The first exception propagates: it determines the response.
        _log.failure("close() of a response failed after the response had failed")
