"""One WebSocket: its messages, its closing handshake, its pings and its limits.

Frames are parsed when they arrive, in the reactor greenlet: pings are answered and a
close is noticed while the application waits for something else. Messages wait in a
bounded queue; while it is full, reading from the client pauses. This file knows byte
streams and tasks. It must never know HTTP or transports.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Final, cast

from twisted.logger import Logger
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from txgreenwsgi._states import TransitionTable
from txgreenwsgi._switching.errors import ClientDisconnected
from txgreenwsgi._switching.greenlets import (
    Suspension,
    Task,
    current_task,
    require_task,
)
from txgreenwsgi._switching.guards import require_seconds
from txgreenwsgi._switching.thread_calls import crossing
from txgreenwsgi._switching.waiting import yield_if_due

from .errors import WebSocketClosed
from .frames import (
    COMPRESSED_BYTES,
    MessageLimits,
    compress,
    encode_close,
    encode_frame,
    is_sendable_code,
)
from .readable_flag import ReadableFlag

if TYPE_CHECKING:
    from types import TracebackType

    from .handshake import Handshake
    from .stream import ByteStream, MessageCounts

__all__ = ["WEBSOCKET", "WebSocket"]

_log = Logger()

#: Messages may be sent and received.
OPEN: Final = "open"
#: A close frame was queued or sent; that of the client is awaited.
CLOSING: Final = "closing"
#: The closing handshake is complete, or the connection failed.
CLOSED: Final = "closed"

WEBSOCKET: Final = TransitionTable(
    "a WebSocket",
    {
        OPEN: {"close": CLOSING, "end": CLOSED},
        CLOSING: {"close": CLOSING, "end": CLOSED},
        CLOSED: {"close": CLOSED, "end": CLOSED},
    },
)

_ON_CLOSE: Final = WEBSOCKET.moves("close")
_ON_END: Final = WEBSOCKET.moves("end")

#: Size of the messages in the queue from which on reading pauses, in bytes.
_QUEUE_BYTES: Final = 65536
#: Memory of a queued message besides its content.
_MESSAGE_BYTES: Final = 64

#: Time for the client to answer a close frame.
CLOSE_SECONDS: Final = 2.0

#: Number of control frames, and of empty fragments, that a client may send at once,
#: and per second in the long run.
_CONTROL_BURST: Final = 100.0
_CONTROL_RATE: Final = 10.0

# Close codes (RFC 6455 section 7.4.1).
_NORMAL: Final = 1000
_GOING_AWAY: Final = 1001
_NO_CODE: Final = 1005
_ABNORMAL: Final = 1006
_POLICY: Final = 1008
_INTERNAL_ERROR: Final = 1011


class WebSocket:
    """One WebSocket connection; `websocket()` makes it.

    Iterate to receive: the iteration ends when the WebSocket is closed. One task
    receives at a time; any task may send. In a request thread the methods block it.

        with websocket(environ) as ws:
            for message in ws:
                ws.send(message)

    Attributes:
        subprotocol: the chosen subprotocol; None for none.
    """

    __slots__ = (
        "_close_frame",
        "_closed_error",
        "_closers",
        "_closing_since",
        "_control_sent_at",
        "_controls",
        "_counts",
        "_dropped",
        "_ends_stream",
        "_flag",
        "_fragments",
        "_held",
        "_hub",
        "_input_ended",
        "_limits",
        "_messages",
        "_next_ping",
        "_ping_seconds",
        "_pongs",
        "_proto",
        "_reader",
        "_sending_controls",
        "_sends_ping",
        "_state",
        "_stream",
        "_task",
        "_unanswered",
        "_unparsed",
        "_window_bits",
        "subprotocol",
    )

    def __init__(
        self,
        stream: ByteStream,
        handshake: Handshake,
        task: Task[object],
        max_message: int,
        ping_seconds: float,
        interrupt: bool,
        counts: MessageCounts | None,
    ) -> None:
        self.subprotocol = handshake.subprotocol
        self._stream = stream
        self._hub = task.hub
        # The task to interrupt at the end.
        self._task = task if interrupt else None
        # None without metrics.
        self._counts = counts
        self._window_bits = handshake.window_bits
        self._limits = MessageLimits(max_message, bool(handshake.window_bits))
        self._proto = FrameProtocol(client=False, extensions=[self._limits])
        self._state = OPEN
        self._closed_error: WebSocketClosed | None = None
        self._messages: deque[str | bytes] = deque()
        self._held = 0
        # The fragments of a message that have arrived; None between messages.
        self._fragments: StringIO | BytesIO | None = None
        # Whether the parser holds bytes that the application has no room for.
        self._unparsed = False
        self._input_ended = False
        self._reader: Suspension | None = None
        self._closers: list[Suspension] = []
        self._flag: ReadableFlag | None = None
        self._dropped = False
        # Control frames of the client that are within the limit.
        self._controls = _CONTROL_BURST
        self._control_sent_at = self._hub.seconds()
        # Control frames to be sent, and whether a task sends them.
        self._pongs: deque[bytes] | None = None
        self._sends_ping = False
        self._close_frame: bytes | None = None
        self._ends_stream = False
        self._sending_controls = False
        # Times of `check`, which exclude stalls; 0.0 before the first.
        self._ping_seconds = ping_seconds
        self._next_ping = 0.0
        # Whether nothing has arrived since the last ping.
        self._unanswered = False
        self._closing_since = 0.0

    def __repr__(self) -> str:
        return f"<WebSocket, {self._state}>"

    # The application's side. Called in tasks and request threads.

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._state is not OPEN

    @property
    def close_code(self) -> int | None:
        """The code of `WebSocketClosed`; None before the WebSocket is closed."""
        error = self._closed_error
        return None if error is None else error.code

    @property
    def close_reason(self) -> str:
        """The reason of `WebSocketClosed`; "" before the WebSocket is closed."""
        error = self._closed_error
        return "" if error is None else error.reason

    @crossing
    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message: str for text, bytes for binary. May park.

        Args:
            timeout: seconds to wait; None for no limit.

        Raises:
            RuntimeError: another task receives.
            TimedOut: no message has arrived in `timeout` seconds.
            WebSocketClosed: the WebSocket is closed, and all messages were received.
        """
        if timeout is not None:
            require_seconds("WebSocket.receive()", timeout)
        yield_if_due()
        while not self._messages:
            if self._unparsed:
                self._read_frames()
                if self._messages:
                    break
            if self._state is CLOSED:
                raise self._end_of_messages()
            if self._reader is not None:
                raise RuntimeError(
                    "two tasks receive from one WebSocket at the same time: let one "
                    "task receive"
                )
            self._reader = suspension = Suspension(
                require_task("WebSocket.receive()"), "a WebSocket message", timeout
            )
            try:
                suspension.wait()
            finally:
                self._reader = None
        message = self._messages.popleft()
        self._held -= len(message) + _MESSAGE_BYTES
        if self._unparsed and self._held < _QUEUE_BYTES // 2:
            self._read_frames()
        self._update_flag()
        self._stream.update_backpressure()
        return message

    def __iter__(self) -> WebSocket:
        """Return this object."""
        return self

    def __next__(self) -> str | bytes:
        """Receive the next message; end when the WebSocket is closed. May park."""
        try:
            return self.receive()
        except WebSocketClosed:
            raise StopIteration from None

    @crossing
    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message: str as text, bytes as binary. Parks while the client is slow.

        Raises:
            TypeError: `message` is neither str nor bytes-like.
            WebSocketClosed: the WebSocket is closed.
        """
        if isinstance(message, str):
            opcode, payload = Opcode.TEXT, message.encode()
        elif isinstance(message, bytes | bytearray | memoryview):
            opcode, payload = Opcode.BINARY, bytes(message)
        else:
            raise TypeError(
                "WebSocket.send() takes str for a text message or bytes for a binary "
                f"one, not {type(message).__name__}: {message!r:.60}"
            )
        if self._state is not OPEN:
            raise self._not_open()
        size = len(payload)
        compressed = bool(self._window_bits) and size >= COMPRESSED_BYTES
        if compressed:
            payload = compress(payload, self._window_bits, yield_if_due)
        if self._pongs:
            # A ping that came before the message that this one answers.
            self._run_controls()
        self._send_frame(encode_frame(opcode, payload, compressed))
        counts = self._counts
        if counts is not None:
            counts.sent += 1
            counts.sent_bytes += size

    def _send_frame(self, frame: bytes, last: bool = False) -> None:
        try:
            self._stream.send(frame, last)
        except ClientDisconnected as error:
            if last or self._state is OPEN:  # else a close frame was sent before it
                self._end(_ABNORMAL, str(error))
            raise self._not_open() from error

    @crossing
    def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close the WebSocket, and wait for the client to do so too. May park.

        For 2 seconds at most. Messages that were received can still be received. A
        no-op if the WebSocket is closed.

        Args:
            code: the close code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: the reason, up to 123 bytes in UTF-8; a longer one is shortened.

        Raises:
            ValueError: `code` cannot be sent.
        """
        if not is_sendable_code(code):
            raise ValueError(
                f"WebSocket.close({code!r}): give a close code from 1000 to 1003, from "
                "1007 to 1014 or from 3000 to 4999 (RFC 6455 section 7.4)"
            )
        task = require_task("WebSocket.close()")
        if self._state is OPEN:
            self._begin_to_close(code, reason)
        while self._state is not CLOSED:
            suspension = Suspension(task, "the client to close the WebSocket")
            self._closers.append(suspension)
            try:
                suspension.wait()
            finally:
                self._closers.remove(suspension)
        if self._task is task and self._closed_error is not None:
            self._task.withdraw(self._closed_error)

    def __enter__(self) -> WebSocket:
        """Return the WebSocket; the end of the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Close the WebSocket, with code 1011 after an error.

        `WebSocketClosed` only ends the block.
        """
        if error is None or isinstance(error, WebSocketClosed):
            self.close()
            return error is not None
        if isinstance(error, Exception):
            self.close(_INTERNAL_ERROR)
        return False

    @crossing
    def fileno(self) -> int:
        """Return a descriptor that is readable while `receive` would not park.

        For select() and poll(). It belongs to the server: do not read or close it.

        Raises:
            WebSocketClosed: the request has ended.
        """
        if self._flag is None:
            if self._dropped:
                raise self._not_open()
            self._flag = ReadableFlag()
            self._update_flag()
        return self._flag.fileno()

    def _update_flag(self) -> None:
        if self._flag is not None:
            self._flag.set(self.available)

    @property
    def available(self) -> bool:
        """Whether `receive` would return or raise without a wait."""
        return bool(self._messages) or self._state is CLOSED

    def _end_of_messages(self) -> WebSocketClosed:
        """Return the error of `receive` after the last message."""
        error = self._closed_error
        assert error is not None, "a closed WebSocket has the reason"
        task = self._task
        if task is not None and task is current_task():
            task.withdraw(error)
        return WebSocketClosed(error.code, error.reason)

    def _not_open(self) -> WebSocketClosed:
        """Return the error of `send`."""
        if self._closed_error is not None:
            return self._end_of_messages()
        return WebSocketClosed(_ABNORMAL, "a close frame was sent")

    # The listener of the stream. Called in the reactor greenlet.

    @property
    def held(self) -> int:
        """The number of bytes received and not taken by the application."""
        return self._held

    @property
    def full(self) -> bool:
        """Whether reading from the client should pause."""
        return self._unparsed or self._queue_is_full

    @property
    def _queue_is_full(self) -> bool:
        # After a close frame, messages are discarded.
        return self._held >= _QUEUE_BYTES and self._state is OPEN

    @property
    def lost(self) -> bool:
        """Whether the connection ended without a closing handshake."""
        return self.close_code == _ABNORMAL

    def received(self, data: bytes) -> None:
        """Parse bytes of the client."""
        if self._state is CLOSED:
            return
        self._unanswered = False
        self._proto.receive_bytes(data)
        if not self.full:
            self._read_frames()
        else:
            self._unparsed = True

    def ended(self) -> None:
        """Handle the end of the client's bytes."""
        self._input_ended = True
        if not self._unparsed:
            self._end(_ABNORMAL)

    def check(self, now: float) -> None:
        """Send a ping when it is due; give up a client that does not answer."""
        if self._state is CLOSING:
            if not self._closing_since:
                self._closing_since = now
            elif now - self._closing_since >= CLOSE_SECONDS:
                self._end(_ABNORMAL, "the client did not answer the close frame")
            return
        if self._state is not OPEN or not self._ping_seconds:
            return
        if not self._next_ping:
            self._next_ping = now + self._ping_seconds
        elif now >= self._next_ping:
            if self._unanswered and not self.full:
                _log.info(
                    "WebSocket: no answer to a ping in {seconds:g} seconds, closing "
                    "the connection",
                    seconds=self._ping_seconds,
                )
                self._end(_ABNORMAL, "the client did not answer a ping")
                self._stream.reset()
                return
            self._next_ping = now + self._ping_seconds
            self._unanswered = True
            self._sends_ping = True
            self._send_controls()

    def server_stops(self) -> None:
        """Close with code 1001."""
        if self._state is OPEN:
            self._begin_to_close(_GOING_AWAY, "the server is stopping")

    def call_ended(self, failed: bool) -> None:
        """Close at the end of the application's call. May park."""
        self.close(_INTERNAL_ERROR if failed else _NORMAL)
        # The client may await the answer to its close frame.
        self._run_controls()

    def dropped(self) -> None:
        """End all waits: the request has ended."""
        self._dropped = True
        self._end(_ABNORMAL, "the request has ended")
        if self._flag is not None:
            self._flag.close()
            self._flag = None

    # Received frames.

    def _read_frames(self) -> None:
        """Parse frames until the queue is full or the time slice is over."""
        hub = self._hub
        end = hub.seconds() + hub.slice_seconds
        self._unparsed = False
        try:
            for frame in self._proto.received_frames():
                opcode = frame.opcode
                payload = frame.payload
                if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                    if not payload and not frame.message_finished:
                        self._count_control()
                    self._add(payload, frame.message_finished)  # type: ignore[arg-type]
                elif opcode is Opcode.CLOSE:
                    code, reason = cast("tuple[int, str | None]", payload)
                    self._complete_close(int(code), reason or "", "")
                else:
                    self._count_control()
                    if opcode is Opcode.PING:
                        self._answer(bytes(cast("bytes", payload)))
                if self._state is CLOSED:
                    return
                if self._queue_is_full:
                    self._unparsed = True
                    return
                if hub.seconds() > end:
                    self._unparsed = True
                    hub.at_next_turn(self._continue)
                    return
        except ParseFailed as error:
            self._fail(int(error.code), self._limits.reason or str(error))
            return
        if self._input_ended:
            self._end(_ABNORMAL)

    def _continue(self) -> None:
        """Parse the frames that a time slice has left."""
        if self._unparsed and not self._queue_is_full:
            self._read_frames()
        self._stream.update_backpressure()

    def _add(self, payload: str | bytes, finished: bool) -> None:
        """Add a piece of a message; queue the message if it is the last."""
        fragments = self._fragments
        if fragments is not None or not finished:
            if fragments is None:
                fragments = StringIO() if isinstance(payload, str) else BytesIO()
                self._fragments = fragments
            fragments.write(payload)  # type: ignore[arg-type]
            if not finished:
                return
            payload = fragments.getvalue()
            self._fragments = None
        message = payload if isinstance(payload, str) else bytes(payload)
        if self._state is not OPEN:
            return  # RFC 6455 section 5.5.1: the server has begun to close
        counts = self._counts
        if counts is not None:
            counts.received += 1
            counts.received_bytes += self._limits.message_bytes
        self._messages.append(message)
        self._held += len(message) + _MESSAGE_BYTES
        self._wake()

    def _answer(self, payload: bytes) -> None:
        """Send a pong.

        A client that does not read gets the answers to its latest pings only.
        """
        if self._pongs is None:
            self._pongs = deque(maxlen=int(_CONTROL_BURST))
        self._pongs.append(payload)
        self._send_controls()

    def _count_control(self) -> None:
        """Limit the rate of frames that carry no data.

        Raises:
            ParseFailed: the client sends too many.
        """
        now = self._hub.seconds()
        self._controls = min(
            _CONTROL_BURST,
            self._controls + (now - self._control_sent_at) * _CONTROL_RATE,
        )
        self._control_sent_at = now
        self._controls -= 1
        if self._controls < 0:
            self._limits.reason = "too many control frames or empty fragments"
            raise ParseFailed(self._limits.reason, _POLICY)  # type: ignore[arg-type]

    def _fail(self, code: int, reason: str) -> None:
        """Close after an error of the client (RFC 6455 section 7.1.7)."""
        _log.info("WebSocket closed: code {code}, {reason}", code=code, reason=reason)
        self._complete_close(code, reason, reason)

    def _complete_close(self, code: int, reason: str, sent_reason: str) -> None:
        """Complete the closing handshake, and then end the stream.

        Args:
            code: the code of the client, or of its error.
            reason: the reason that goes with the code.
            sent_reason: the reason in the close frame, unless one was sent before.
        """
        if self._state is OPEN:
            self._close_frame = encode_close(code, sent_reason)
        self._ends_stream = True
        self._end(code, reason)
        self._send_controls()

    def _begin_to_close(self, code: int, reason: str) -> None:
        """Send a close frame; the state is OPEN."""
        self._state = _ON_CLOSE[self._state]
        self._close_frame = encode_close(code, reason)
        self._send_controls()
        # The close frame of the client may come behind messages, which are discarded.
        self._hub.at_next_turn(self._continue)

    def _end(self, code: int, reason: str = "") -> None:
        """Note that the WebSocket is closed; end all waits. Never parks."""
        if self._state is CLOSED:
            return
        self._state = _ON_END[self._state]
        self._unparsed = False
        self._fragments = None
        self._closed_error = error = WebSocketClosed(code, reason)
        if self._counts is not None:
            self._counts.closed(code)
        task = self._task
        waits = self._reader is not None and self._reader.task is task
        waits |= any(closer.task is task for closer in self._closers)
        if task is not None and not waits:
            task.interrupt(error)
        for closer in list(self._closers):
            closer.resume()
        self._wake()

    def _wake(self) -> None:
        self._update_flag()
        if self._reader is not None:
            self._reader.resume()

    # Sent control frames.

    def _send_controls(self) -> None:
        """Send the pending control frames, in a task of their own. Never parks."""
        if not self._sending_controls and not self._hub.closed:
            self._sending_controls = True
            task = Task(self._hub, self._run_controls, name="WebSocket control frames")
            self._hub.spawn(task)

    def _run_controls(self) -> None:
        """Send pending control frames."""
        try:
            while True:
                if self._close_frame is not None:
                    frame, self._close_frame = self._close_frame, None
                    self._send_frame(frame, last=True)
                elif self._ends_stream:
                    self._ends_stream = False
                    self._stream.close()
                elif self._state is OPEN and self._pongs:
                    payload = self._pongs.popleft()
                    if not self._pongs:
                        self._pongs = None  # an empty deque takes 600 bytes
                    self._send_frame(encode_frame(Opcode.PONG, payload))
                elif self._state is OPEN and self._sends_ping:
                    self._sends_ping = False
                    self._send_frame(encode_frame(Opcode.PING, b""))
                else:
                    return
        except (OSError, ValueError) as error:
            # The client is lost or the request has ended: nothing can be sent.
            self._end(_ABNORMAL, str(error))
        finally:
            self._sending_controls = False
