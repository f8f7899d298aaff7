"""The buffer of the request body between the stream and `wsgi.input`.

The stream adds pieces; a task takes them with `receive`. Every failure that makes
the rest of the body unavailable becomes `error`, which each further read raises: a
read is never silently short.

This file parks the reading task. It must never know the response.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from txgreenwsgi._native import lanes
from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.thread_calls import in_task_of_thread, tasks_of_threads
from txgreenwsgi._switching.waiting import sleep
from txgreenwsgi._wsgi.input import PIECE_BYTES
from txgreenwsgi._wsgi.read_ahead import ClientPaused

if TYPE_CHECKING:
    from txgreenwsgi._http.head import RequestHead

    from .limits import Limits
    from .stream import Stream

__all__ = ["NO_BODY", "BadBody", "NoBody", "RequestBody", "read_after_end_error"]

#: Maximum number of buffered pieces: each costs some 60 bytes besides its content.
_MAX_PIECES = 1024

#: Time for which a client may be slower than `Limits.body_rate`.
SLOW_SECONDS = 60.0

_UNBOUNDED = float("inf")

# Shared by all bodies without buffered pieces, which are most. Never modified.
_NO_PIECES: deque[bytes] = deque(maxlen=0)
lanes.lend(no_pieces=_NO_PIECES)


class BadBody(OSError):
    """The rest of the request body is invalid, too long or too late.

    Attributes:
        status: the status code of the response if the application sends none.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def read_after_end_error() -> ValueError:
    """Return the error of a read after the end of the request."""
    return ValueError("wsgi.input was read after the request had ended")


class NoBody:
    """The body of a request without one.

    All such requests share one stateless object: `wsgi.input` reads from the
    exchange instead.
    """

    __slots__ = ()

    complete: Final = True
    held: Final = 0
    full: Final = False
    client_waits: Final = False
    error: Final = None
    reader: Final = None
    max_missing_bytes: Final = 0.0
    received_bytes: Final = 0

    def received(self, piece: bytes) -> None:
        """Never called: no piece can arrive."""
        raise AssertionError("received a piece of a body for a request without one")

    def fail(self, error: BadBody) -> None:
        """Never called: no piece can be invalid."""
        raise AssertionError("a piece of a body failed for a request without one")

    def ended(self) -> None:
        """No-op: the body was complete from the start."""

    drop = ended

    def check(self, now: float) -> None:
        """No-op: there is no waiting reader."""

    def cut(self, error: BaseException) -> None:
        """No-op: the exchange holds the error."""

    lose = cut


NO_BODY: Final = NoBody()
lanes.lend(no_body=NO_BODY)


@lanes.with_lanes
class RequestBody(lanes.RequestBodyState):
    """The pieces of one request body.

    Args:
        stream: carries the request.
        head: the request head.
        limits: the limits of the exchange.

    Attributes:
        limits: as given; `Exchange.replace_limits` replaces them.
        pause_seconds: time without a byte after which `receive` raises
            `ClientPaused`; 0 to wait without this limit.
        complete: whether the whole body was received.
        held: the number of buffered bytes.
        error: the error that each further read raises; None if there is none.
        reader: the suspension of the parked reader; None if there is none.
        client_waits: whether the client waits for 100 Continue, or the response,
            before it sends the body.
    """

    __slots__ = lanes.slots(
        lanes.RequestBodyState,
        (
            "_length",
            "_paused",
            "_pieces",
            "_received",
            "_stalled",
            "_stream",
            "_waited",
            "client_waits",
            "complete",
            "error",
            "held",
            "limits",
            "pause_seconds",
            "reader",
        ),
    )

    def __init__(self, stream: Stream, head: RequestHead, limits: Limits) -> None:
        self._stream = stream
        self.limits = limits
        self._length = head.content_length
        self._pieces = _NO_PIECES
        self._received = 0
        # Seconds that readers have waited in total, up to the last read.
        self._waited = 0.0
        self._paused = False
        self._stalled = False
        self.pause_seconds = 0.0
        self.client_waits = head.expects_continue
        self.complete = False
        self.held = 0
        self.error: BaseException | None = None
        self.reader: Suspension | None = None

    # Called by the stream and the exchange, in the reactor greenlet.

    def received(self, piece: bytes) -> None:
        """Add a non-empty piece."""
        if not self._count(piece):
            return
        if self._pieces is _NO_PIECES:
            self._pieces = deque()
        self._pieces.append(piece)
        self.held += len(piece)
        if self.reader is not None:
            self._paused = False
            self.reader.resume()

    def _count(self, piece: bytes) -> bool:
        """Count a piece; return False if an error makes it unreadable."""
        self._received += len(piece)
        if self.error is not None:
            return False
        limit = self.limits.body_bytes
        if limit and self._received > limit:
            self.fail(BadBody(413, f"the body is longer than {limit} bytes"))
            return False
        return True

    def ended(self) -> None:
        """Mark the body as complete."""
        self.complete = True
        if self.reader is not None:
            self.reader.resume()

    def fail(self, error: BadBody) -> None:
        """Discard the rest of the body and all further input of the connection."""
        self._stream.stop_receiving()
        self._raise_in_reads(error)

    def check(self, now: float) -> None:
        """Apply the deadlines while a reader waits for the client."""
        reader = self.reader
        if (
            reader is not None
            and self.pause_seconds
            and now - reader.since >= self.pause_seconds
        ):
            if not self._stream.read_now():
                self._paused = True
                reader.resume()
            return
        reason = self._overdue(now)
        if reason and self._stream.read_now():
            reason = self._overdue(now)
        if reason:
            self.fail(BadBody(408, reason))

    def _overdue(self, now: float) -> str:
        """Return the reason why the client is too slow; "" if it is in time."""
        limits = self.limits
        silence, rate = limits.body_seconds, limits.body_rate
        if self.reader is None or not silence:
            return ""
        waited = now - self.reader.since
        if waited >= silence:
            return f"no byte of the body in {silence:g} seconds"
        if rate and (
            self._waited + waited > max(SLOW_SECONDS, silence) + self._received / rate
        ):
            return f"the body was slower than {rate} bytes a second"
        return ""

    def cut(self, error: BaseException) -> None:
        """Raise `error` in further reads; the caller ends a read in progress."""
        if self.error is None:
            self.error = error
        self._pieces = _NO_PIECES
        self.held = 0

    def drop(self) -> None:
        """Discard the unread rest after the end of the request."""
        # Drop the earlier error: its traceback refers to this object.
        self.error = None
        # Another task of the application may be reading.
        self._raise_in_reads(read_after_end_error())

    def lose(self, error: BaseException) -> None:
        """Handle the loss of the client: the rest of an incomplete body is lost."""
        if not self.complete:
            self._raise_in_reads(error)

    def _raise_in_reads(self, error: BaseException) -> None:
        self.cut(error)
        if self.reader is not None:
            self.reader.resume()

    @property
    def full(self) -> bool:
        """Whether the buffer is full, so that reading should pause."""
        return (
            self.held >= self.limits.input_window
            or self._stalled
            or len(self._pieces) >= _MAX_PIECES
        )

    @property
    def received_bytes(self) -> int:
        """The number of bytes that have arrived."""
        return self._received

    @property
    def max_missing_bytes(self) -> float:
        """Upper bound of the bytes still missing from an incomplete body."""
        if self._length is None:
            return _UNBOUNDED
        return self._length - self._received

    # Called by wsgi.input, in a task.

    def receive(self, wanted: int = PIECE_BYTES) -> bytes:
        """Return the next piece, b"" at the end. May park.

        Args:
            wanted: the preferred length of the piece in bytes.

        Raises:
            BadBody: the rest of the body is invalid, too long or too late.
            ClientDisconnected: the client has disconnected.
            ClientPaused: no byte has arrived for `pause_seconds`.
            RuntimeError: another task is reading.
            ValueError: the request has ended.
        """
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            return in_task(self.receive, wanted)
        stream = self._stream
        while True:
            if self.held:
                piece = self._pieces.popleft()
                self.held -= len(piece)
                if stream.reading_paused:
                    stream.update_backpressure()
                return piece
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            if self._paused:
                self._paused = False
                raise ClientPaused
            if self.reader is not None:
                raise RuntimeError(
                    "two tasks read the body of one request at the same time"
                )
            if self.client_waits:
                # RFC 9110 section 10.1.1: request the body at the first read.
                self.client_waits = False
                stream.send_continue()
                continue
            read = stream.read_body(wanted)
            if read and self._count(read):
                return read
            if read or read is None:
                continue
            # Keep the task out of local variables: a traceback would make a cycle.
            self.reader = suspension = Suspension(
                require_task("wsgi.input"), "the request body"
            )
            reactor = suspension.task.hub.reactor  # type: ignore[union-attr]
            try:
                suspension.wait()
            finally:
                self.reader = None
                self._waited += reactor.seconds() - suspension.since

    def stall(self, stalled: bool) -> None:
        """Pause reading from the client, or allow it again. Never parks."""
        self._stalled = stalled
        self._stream.update_backpressure()

    def reader_turn(self) -> None:
        """Park for a reactor turn. Raises the error of a cut request."""
        if self.error is not None:
            raise self.error
        sleep(0)
