"""The body of one request, on its way from the connection to `wsgi.input`.

The channel puts its pieces in, a task takes them out by `receive`. Whatever
makes the rest of the body unreachable becomes `error`, which every further read
raises: a read is never silently short.

This file parks the task that reads. It must never know the response.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from txgreenwsgi._http.writer import CONTINUE
from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.waiting import sleep
from txgreenwsgi._wsgi.input import PIECE_BYTES

if TYPE_CHECKING:
    from txgreenwsgi._http.head import RequestHead

    from .channel import Channel

__all__ = [
    "DRAIN_BYTES",
    "NO_BODY",
    "BadBody",
    "NoBody",
    "RequestBody",
    "after_the_end",
]

#: What an application leaves of a request body is read and thrown away up to
#: this size, so that the connection lives on; beyond, it is closed.
DRAIN_BYTES = 256 * 1024

#: So many pieces are held at most: one of few bytes takes some 60 as an object.
_MOST_PIECES = 1024

#: How long a client may be slower than `min_body_rate`.
_SLOW_SECONDS = 60.0

_NEVER_ENDS = float("inf")

# Of all bodies of which nothing is held; most requests have none. Never changed.
_NO_PIECES: deque[bytes] = deque(maxlen=0)


class BadBody(OSError):
    """The rest of the request body cannot be had; the client has to be told why.

    Attributes:
        status: the status to answer with, if the application does not answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def after_the_end() -> ValueError:
    """What a read raises when nobody can have a use for it."""
    return ValueError("wsgi.input was read after the request had ended")


class NoBody:
    """What takes the place of a `RequestBody` where a request has none.

    Shared by all such requests; so it keeps nothing, and `wsgi.input` asks the
    exchange.
    """

    __slots__ = ()

    complete: Final = True
    held: Final = 0
    full: Final = False
    client_waits: Final = False
    error: Final = None
    reader: Final = None
    most_left_to_come: Final = 0.0

    def received(self, piece: bytes) -> None:
        """Nothing comes."""
        raise AssertionError("the parser has told of a body and of none")

    def fail(self, error: BadBody) -> None:
        """Nothing that comes can be wrong."""
        raise AssertionError("the parser has told of a body and of none")

    def ended(self) -> None:
        """It had before it began."""

    drop = ended

    def check(self, now: float) -> None:
        """Nobody is waited for."""

    def cut(self, error: BaseException) -> None:
        """The exchange itself knows."""

    lose = cut


NO_BODY: Final = NoBody()


class RequestBody:
    """The pieces of one request's body.

    Attributes:
        complete: whether all of it has come.
        held: how many bytes have come and were not taken.
        error: what a read raises; None while all is well.
        reader: the wait of the task that reads; None while none waits.
        client_waits: whether the client sends nothing until it has a
            100 Continue or the response.
    """

    __slots__ = (
        "_channel",
        "_length",
        "_pieces",
        "_received",
        "_waited",
        "client_waits",
        "complete",
        "error",
        "held",
        "reader",
    )

    def __init__(self, channel: Channel, head: RequestHead) -> None:
        self._channel = channel
        self._length = head.content_length
        self._pieces = _NO_PIECES
        self._received = 0
        # For how many seconds it was waited for, up to the last read.
        self._waited = 0.0
        self.client_waits = head.expects_continue
        self.complete = False
        self.held = 0
        self.error: BaseException | None = None
        self.reader: Suspension | None = None

    # Called by the channel and the exchange, in the reactor greenlet.

    def received(self, piece: bytes) -> None:
        """A piece of the body has come."""
        if not self._count(piece):
            return
        if self._pieces is _NO_PIECES:
            self._pieces = deque()
        self._pieces.append(piece)
        self.held += len(piece)
        if self.reader is not None:
            self.reader.resume()

    def _count(self, piece: bytes) -> bool:
        """Whether the piece can be read; it cannot after an error."""
        self._received += len(piece)
        if self.error is not None:
            return False
        limit = self._channel.site.settings.max_body
        if limit and self._received > limit:
            self.fail(BadBody(413, f"the body is longer than {limit} bytes"))
            return False
        return True

    def ended(self) -> None:
        """The whole body has come."""
        self.complete = True
        if self.reader is not None:
            self.reader.resume()

    def fail(self, error: BadBody) -> None:
        """The rest is no body, or not wanted; what follows is never interpreted."""
        self._channel.closing = True
        self._tell(error)

    def check(self, now: float) -> None:
        """See to the deadlines of a client that is waited for."""
        if self.reader is None:
            return
        settings = self._channel.site.settings
        silence, rate = settings.body_timeout, settings.min_body_rate
        waited = now - self.reader.since
        if not silence:
            return
        if waited >= silence:
            self.fail(BadBody(408, f"no byte of the body came for {silence:g} seconds"))
        elif rate and (
            self._waited + waited > max(_SLOW_SECONDS, silence) + self._received / rate
        ):
            self.fail(BadBody(408, f"the body came slower than {rate} bytes a second"))

    def cut(self, error: BaseException) -> None:
        """Every further read raises `error`; who reads now is told by the caller."""
        if self.error is None:
            self.error = error
        self._pieces = _NO_PIECES
        self.held = 0

    def drop(self) -> None:
        """The request is over: what was not read never will be."""
        # Not what cut it short, the frames of which lead back to here.
        self.error = None
        self._tell(after_the_end())  # another task of its may be reading

    def lose(self, error: BaseException) -> None:
        """The client is gone: what has not come never will."""
        if not self.complete:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        self.cut(error)
        if self.reader is not None:
            self.reader.resume()

    @property
    def full(self) -> bool:
        """Whether no more should come until some of it is taken."""
        return (
            self.held >= self._channel.site.settings.input_window
            or len(self._pieces) >= _MOST_PIECES
        )

    @property
    def most_left_to_come(self) -> float:
        """How many bytes of a body that is not complete may still come, at most."""
        if self._length is None:
            return _NEVER_ENDS
        return self._length - self._received

    # What wsgi.input calls, in a task.

    def receive(self, wanted: int = PIECE_BYTES) -> bytes:
        """The next piece, b"" at the end; `wanted` is how long it had best be.

        May park.
        """
        channel = self._channel
        while True:
            if self.held:
                piece = self._pieces.popleft()
                self.held -= len(piece)
                if channel.reading_paused:
                    channel.see_to_reading()
                return piece
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            if self.reader is not None:
                raise RuntimeError(
                    "two tasks read the body of one request at the same time"
                )
            if self.client_waits:
                # RFC 9110 section 10.1.1: only now is the body wanted.
                self.client_waits = False
                channel.output.send(CONTINUE)
                continue
            read = channel.read_body(wanted)
            if read and self._count(read):
                return read
            if read or read is None:
                continue
            self.reader = suspension = Suspension(
                require_task("wsgi.input"), "the request body"
            )
            try:
                suspension.wait()
            finally:
                self.reader = None
                self._waited += channel.site.reactor.seconds() - suspension.since

    def reader_turn(self) -> None:
        """Park for a turn; a request that ended early raises. May park."""
        if self.error is not None:
            raise self.error
        sleep(0)
