"""One HTTP/2 connection without I/O, on the library h2 (RFC 9113).

Frames are examined one by one before h2 sees them: limits apply before the work is
done, and a caller can stop between two frames. h2 keeps the states, the windows and
the settings, and answers SETTINGS and PING. Request heads, Content-Length and the limit
of streams are checked here, so that an error in one stream ends only that stream.

Data in both directions does not pass through h2, which copies it several times.

This file knows the wire. It must never know transports, clocks or tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes
from h2.settings import Settings as H2Settings
from hpack.exceptions import HPACKError

from txgreenwsgi._http.head import Malformed, Refusal

from .budgets import Budget
from .events import (
    BodyEnded,
    DataReceived,
    Failed,
    GoneAway,
    Prioritized,
    RequestReceived,
    RequestRefused,
    StreamReset,
    WindowOpened,
)
from .hpack_codec import BlockDecoder, TableUpdate, encode_fields, encode_status
from .priority import urgency_of
from .requests import StreamError, check_trailers, read_request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi._http.parser import HeadLimits

    from .events import Event

__all__ = ["PREFACE", "Connection", "Http2Limits"]

#: The first bytes of each client (RFC 9113 section 3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Size of the window of a connection, in windows of a stream.
WINDOWS: Final = 16

#: Maximum size of a received frame: the default of SETTINGS_MAX_FRAME_SIZE.
MAX_FRAME_BYTES: Final = 16384

#: Maximum number of pseudo-header fields, which do not count as fields.
PSEUDO_FIELDS: Final = 5

#: Maximum number of frames of a header block.
MAX_BLOCK_FRAMES: Final = 32

#: Streams that a client may reset, or make the server reset, before their response:
#: at once, and in a second after that.
RESETS: Final = 100
RESETS_PER_SECOND: Final = 10

#: Frames that bring nothing, such as PING or empty DATA: at once, and in a second.
USELESS: Final = 500
USELESS_PER_SECOND: Final = 50

#: Sent bytes for which a client may send another WINDOW_UPDATE, besides two for the
#: end of each block, and the maximum number of these.
BYTES_PER_UPDATE: Final = 1024
MAX_UPDATES: Final = 20_000

#: Maximum size of a sent DATA frame, if the client allows as much: streams take turns.
MAX_SENT_BYTES: Final = 65536

_DEFAULT_WINDOW: Final = 65535
_LAST_STREAM: Final = 2**31 - 1

_DATA: Final = 0
_HEADERS: Final = 1
_PRIORITY: Final = 2
_RST_STREAM: Final = 3
_SETTINGS: Final = 4
_PUSH_PROMISE: Final = 5
_PING: Final = 6
_GOAWAY: Final = 7
_WINDOW_UPDATE: Final = 8
_CONTINUATION: Final = 9
_PRIORITY_UPDATE: Final = 16

_END_STREAM: Final = 1
_ACK: Final = 1
_END_HEADERS: Final = 4
_PADDED: Final = 8

_HEADER_BYTES: Final = 9
_GOAWAY_BYTES: Final = 17

_FRAME: Final = Struct(">HBBBL")
_SETTING: Final = Struct(">HL")
_LONG: Final = Struct(">L")

_CONFIG: Final = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


# For all connections, because they take 4 KiB and do not change. The limit of streams
# is checked here: h2 would end the connection.
_LOCAL_SETTINGS: Final = H2Settings(
    client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: _LAST_STREAM}
)


def _frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return _FRAME.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """The limits of HTTP/2 connections.

    Attributes:
        heads: the limits on request heads.
        streams: maximum number of concurrent requests of a connection.
        window: bytes of a request body that a client may send before the application
            has read them.
    """

    heads: HeadLimits
    streams: int = 100
    window: int = 65536


class _H2(H2Connection):
    """h2's connection. It remembers fewer closed streams, which take memory."""

    MAX_CLOSED_STREAMS = 1024


class _Stream:
    """One open stream.

    Attributes:
        receiving: whether the request body has not ended.
        sending: whether the response has not ended.
        left: the bytes of the body that are missing; -1 if its length is unknown.
        window: the bytes of the body that the client may send now.
        read: bytes that were read and not returned to the window yet.
    """

    __slots__ = ("left", "read", "receiving", "sending", "window")

    def __init__(self, receiving: bool, left: int | None, window: int) -> None:
        self.receiving = receiving
        self.sending = True
        self.left = -1 if left is None else left
        self.window = window
        self.read = 0


class Connection:
    """Both directions of one HTTP/2 connection.

    The receiving side is `feed`, and `next_events` for each frame. The sending side
    takes responses, and `take` returns the bytes to send. No method parks.

    Args:
        limits: the limits.

    Attributes:
        failed: whether the connection has failed: nothing more is received.
        settled: whether the client's first SETTINGS frame was received.
        highest: the highest stream that a client has opened.
    """

    __slots__ = (
        "_at",
        "_block_bytes",
        "_block_frames",
        "_block_stream",
        "_buffer",
        "_decoder",
        "_encoder",
        "_h2",
        "_last",
        "_limits",
        "_out",
        "_preface",
        "_read",
        "_resets",
        "_step",
        "_stream_step",
        "_stream_window",
        "_streams",
        "_updates",
        "_urgencies",
        "_useless",
        "_window",
        "failed",
        "highest",
        "settled",
    )

    def __init__(self, limits: Http2Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._at = 0  # index of the next frame in it
        self._preface = PREFACE  # the rest of it
        self.settled = False
        self.failed = False
        self.highest = 0
        # The last stream that is served, after the final GOAWAY.
        self._last = _LAST_STREAM
        self._streams: dict[int, _Stream] = {}
        # Urgencies that came before their requests.
        self._urgencies: dict[int, int] = {}
        # The header block in progress: its stream (0 for none), frames and bytes.
        self._block_stream = self._block_frames = self._block_bytes = 0
        self._resets = Budget(max(RESETS, limits.streams), RESETS_PER_SECOND)
        self._useless = Budget(USELESS, USELESS_PER_SECOND)
        self._updates = Budget(USELESS, USELESS_PER_SECOND)
        self._out: list[bytes | memoryview] = []
        # The bytes that the client may send, and those read or dropped that were not
        # returned to its window yet. The window of streams is the default until the
        # client has confirmed the settings.
        self._window = _DEFAULT_WINDOW
        self._read = 0
        self._step = max(1, limits.window * WINDOWS // 4)
        self._stream_window = max(limits.window, _DEFAULT_WINDOW)
        self._stream_step = max(1, limits.window // 2)
        self._h2 = h2 = _H2(_CONFIG)
        h2.local_settings = _LOCAL_SETTINGS
        fields = limits.heads.fields + PSEUDO_FIELDS
        self._decoder = BlockDecoder(limits.heads.size, fields)
        self._encoder = TableUpdate()
        h2.decoder = self._decoder
        h2.encoder = self._encoder  # type: ignore[assignment]
        h2.initiate_connection()
        h2.clear_outbound_data_buffer()
        self._send_settings()

    def _send_settings(self) -> None:
        """Send SETTINGS; a new window of streams counts when the client confirms it."""
        limits = self._limits
        sent = {
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.window,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.heads.size,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        }
        payload = b"".join(_SETTING.pack(code, value) for code, value in sent.items())
        self._out.append(_frame(_SETTINGS, 0, 0, payload))
        more = limits.window * WINDOWS - _DEFAULT_WINDOW
        if more > 0:
            self._window += more
            self._open_window(0, more)
        self._step = min(self._step, self._window // 2)

    # Receiving.

    def feed(self, data: bytes) -> None:
        """Add received bytes; `next_events` interprets them."""
        if not self.failed:
            self._buffer += data

    @property
    def buffered(self) -> int:
        """The number of received bytes that were not interpreted."""
        return len(self._buffer) - self._at

    @property
    def awaits_head(self) -> bool:
        """Whether a part of a request head, or of the preface, was received."""
        if self._block_stream or not self.settled:
            return True
        return self.buffered > 3 and self._buffer[self._at + 3] in (
            _HEADERS,
            _CONTINUATION,
        )

    def next_events(self, now: float) -> list[Event] | None:
        """Return the events of the next frame; None if it is not complete.

        Args:
            now: the time in seconds, by a clock that does not go back.
        """
        if self.failed:
            return None
        buffer, at = self._buffer, self._at
        if self._preface:
            start = bytes(buffer[: len(self._preface)])
            if not self._preface.startswith(start):
                return self._fail(ErrorCodes.PROTOCOL_ERROR, "no HTTP/2 preface")
            self._h2.receive_data(start)
            self._preface = self._preface[len(start) :]
            del buffer[: len(start)]
        if len(buffer) - at < _HEADER_BYTES:
            return None
        high, low, kind, flags, stream_id = _FRAME.unpack_from(buffer, at)
        stream_id &= _LAST_STREAM
        length = high << 8 | low
        if length > MAX_FRAME_BYTES:
            return self._fail(ErrorCodes.FRAME_SIZE_ERROR, "a frame is too large")
        end = at + _HEADER_BYTES + length
        if end > len(buffer):
            return None
        if kind == _DATA and self.settled and not self._block_stream:
            padded = flags & _PADDED
            data = self._take_frame(at + _HEADER_BYTES, end)
            return self._receive_data(data, padded, flags & _END_STREAM, stream_id, now)
        frame = self._take_frame(at, end)
        if not self.settled:
            if kind != _SETTINGS or flags & _ACK:
                return self._fail(
                    ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS"
                )
            self.settled = True
        if self._block_stream:
            if kind != _CONTINUATION or stream_id != self._block_stream:
                return self._fail(
                    ErrorCodes.PROTOCOL_ERROR, "a frame inside of a header block"
                )
            return self._receive_continuation(frame, flags, now)
        if kind == _HEADERS:
            return self._receive_headers(frame, flags, stream_id, now)
        if kind == _WINDOW_UPDATE:
            if not self._updates.take(now):
                return self._calm("too many WINDOW_UPDATE frames")
            return self._apply(frame, now)
        if kind == _RST_STREAM:
            return self._receive_reset(frame, stream_id, now)
        if not self._useless.take(now):
            return self._calm("too many frames without requests or data")
        if kind == _GOAWAY:
            return self._receive_go_away(frame, stream_id)
        if kind == _PRIORITY_UPDATE:
            return self._receive_priority_update(frame, stream_id)
        if kind > _CONTINUATION:
            return []  # RFC 9113 section 5.5: ignore unknown frames
        return self._apply(frame, now)

    def _take_frame(self, start: int, end: int) -> bytes:
        """Return received bytes; the next frame begins at `end`."""
        buffer = self._buffer
        frame = bytes(memoryview(buffer)[start:end])
        if end == len(buffer):
            buffer.clear()
            self._at = 0
        elif end > MAX_FRAME_BYTES:
            del buffer[:end]
            self._at = 0
        else:
            self._at = end
        return frame

    def _apply(self, frame: bytes, now: float) -> list[Event]:
        """Pass a frame to h2; return its events."""
        try:
            received = self._h2.receive_data(frame)
        except ProtocolError as error:
            return self._fail_by(error)
        events: list[Event] = []
        for event in received:
            if isinstance(event, h2_events.WindowUpdated):
                events.append(WindowOpened(event.stream_id or 0))
            elif isinstance(event, h2_events.RemoteSettingsChanged):
                if SettingCodes.INITIAL_WINDOW_SIZE in (event.changed_settings or ()):
                    events += map(WindowOpened, self._streams)
            elif isinstance(event, h2_events.SettingsAcknowledged):
                self._settings_confirmed()
            elif isinstance(event, h2_events.StreamReset):
                # h2 has reset it, because of an error of the client.
                events += self._reset_by_error(event.stream_id or 0, now)
        return events

    def _receive_data(
        self, data: bytes, padded: int, ended: int, stream_id: int, now: float
    ) -> list[Event]:
        """Handle the payload of a DATA frame, without h2 and its copies."""
        stream = self._streams.get(stream_id)
        if stream is None and (stream_id > self.highest or not stream_id % 2):
            return self._fail(
                ErrorCodes.PROTOCOL_ERROR, "DATA for a stream that is idle"
            )
        length = len(data)
        self._window -= length
        if self._window < 0:
            return self._fail(
                ErrorCodes.FLOW_CONTROL_ERROR, "more data than the window permits"
            )
        if stream is None:
            # It was on its way when the stream was closed, perhaps.
            self.drop(length)
            if self._useless.take(now):
                return []
            return self._calm("too many DATA frames for closed streams")
        if not stream.receiving:
            self.drop(length)
            return self._stream_error(stream_id, now, ErrorCodes.STREAM_CLOSED)
        stream.window -= length
        if stream.window < 0:
            return self._fail(
                ErrorCodes.FLOW_CONTROL_ERROR, "more data than the window permits"
            )
        if padded:
            if not length or data[0] >= length:
                return self._fail(ErrorCodes.PROTOCOL_ERROR, "invalid padding")
            data = data[1 : length - data[0]]
        size = len(data)
        if not size and not ended and not self._useless.take(now):
            return self._calm("too many empty DATA frames")
        left = stream.left
        if left >= 0:
            if size > left or (ended and size < left):
                self.drop(length)
                return self._stream_error(stream_id, now)
            stream.left = left - size
        events: list[Event] = []
        if length:
            events.append(DataReceived(stream_id, data, length))
        if ended:
            # For the state of the stream in h2.
            self._h2.receive_data(_frame(_DATA, _END_STREAM, stream_id))
            self._request_ended(stream_id, stream)
            events.append(BodyEnded(stream_id))
        return events

    def _settings_confirmed(self) -> None:
        """Apply the window of streams, once the client knows it."""
        less = self._stream_window - self._limits.window
        self._stream_window = self._limits.window
        for stream in self._streams.values():
            stream.window -= less

    def _receive_headers(
        self, frame: bytes, flags: int, stream_id: int, now: float
    ) -> list[Event]:
        if not flags & _END_HEADERS:
            self._block_stream = stream_id
            self._block_frames = 1
            self._block_bytes = len(frame)
            return self._apply(frame, now) or self._check_block()
        return self._receive_block(frame, stream_id, now)

    def _receive_continuation(
        self, frame: bytes, flags: int, now: float
    ) -> list[Event]:
        self._block_frames += 1
        self._block_bytes += len(frame)
        if events := self._check_block():
            return events
        if not flags & _END_HEADERS:
            return self._apply(frame, now)
        stream_id, self._block_stream = self._block_stream, 0
        return self._receive_block(frame, stream_id, now)

    def _check_block(self) -> list[Event]:
        """Refuse a header block that is too long, before it is complete."""
        limit = self._limits.heads.size + MAX_FRAME_BYTES
        if self._block_frames > MAX_BLOCK_FRAMES or self._block_bytes > limit:
            return self._calm("a header block is too long")
        return []

    def _receive_block(self, frame: bytes, stream_id: int, now: float) -> list[Event]:
        """Handle the last frame of a header block."""
        known = self._streams.get(stream_id)
        closed = known is None and stream_id <= self.highest
        # Trailers of a stream that was reset, or an error.
        if closed and not self._useless.take(now):
            return self._calm("too many heads of closed streams")
        try:
            received = self._h2.receive_data(frame)
        except ProtocolError as error:
            return self._fail_by(error)
        for event in received:
            if isinstance(event, h2_events.RequestReceived):
                ended = event.stream_ended is not None
                return self._receive_request(stream_id, ended, now)
            if isinstance(event, h2_events.TrailersReceived):
                return self._receive_trailers(stream_id, now)
            if isinstance(event, h2_events.StreamReset):
                return self._reset_by_error(stream_id, now)
        return []

    def _receive_request(self, stream_id: int, ended: bool, now: float) -> list[Event]:
        self.highest = stream_id
        urgency = self._urgencies.pop(stream_id, None)
        if stream_id > self._last or len(self._streams) >= self._limits.streams:
            # The client may repeat it elsewhere, or later (RFC 9113 section 8.7).
            self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            if self._useless.take(now):
                return []
            return self._calm("too many concurrent streams")
        decoder = self._decoder
        fields, decoder.fields = decoder.fields, []
        heads = self._limits.heads
        window = self._stream_window
        try:
            request = read_request(fields, decoder.size, ended, heads, True)
        except StreamError:
            self._streams[stream_id] = _Stream(not ended, None, window)
            return self._stream_error(stream_id, now)
        except Malformed as error:
            self._streams[stream_id] = _Stream(not ended, None, window)
            method = dict(fields).get(b":method", b"").decode("latin-1")
            refusal = Refusal(error.status, error.reason)
            return [RequestRefused(stream_id, refusal, method, ended)]
        head = request.head
        self._streams[stream_id] = _Stream(not ended, head.content_length, window)
        if urgency is None:
            urgency = request.urgency
        return [RequestReceived(stream_id, head, ended, urgency, request.protocol)]

    def _receive_trailers(self, stream_id: int, now: float) -> list[Event]:
        stream = self._streams.get(stream_id)
        if stream is None:
            return []
        decoder = self._decoder
        refusal = None
        try:
            check_trailers(decoder.fields, decoder.size, self._limits.heads)
        except StreamError:
            return self._stream_error(stream_id, now)
        except Malformed as error:
            refusal = Refusal(error.status, error.reason)
        if stream.left > 0:
            return self._stream_error(stream_id, now)
        self._request_ended(stream_id, stream)
        return [BodyEnded(stream_id, refusal)]

    def _receive_reset(self, frame: bytes, stream_id: int, now: float) -> list[Event]:
        if stream_id > self.highest or (stream_id and not stream_id % 2):
            return self._fail(
                ErrorCodes.PROTOCOL_ERROR, "RST_STREAM for a stream that is idle"
            )
        stream = self._streams.get(stream_id)
        if stream is None and not self._useless.take(now):
            return self._calm("too many RST_STREAM frames for closed streams")
        try:
            self._h2.receive_data(frame)
        except ProtocolError as error:
            return self._fail_by(error)
        if stream is None:
            return []
        del self._streams[stream_id]
        if stream.sending and not self._resets.take(now):
            return self._calm("too many streams were reset")
        return [StreamReset(stream_id)]

    def _receive_go_away(self, frame: bytes, stream_id: int) -> list[Event]:
        """Handle GOAWAY. Not by h2, which would end the open streams."""
        if stream_id:
            return self._fail(ErrorCodes.PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(frame) < _GOAWAY_BYTES:
            return self._fail(ErrorCodes.FRAME_SIZE_ERROR, "GOAWAY is too short")
        return [GoneAway()]

    def _receive_priority_update(self, frame: bytes, stream_id: int) -> list[Event]:
        if stream_id:
            return self._fail(ErrorCodes.PROTOCOL_ERROR, "PRIORITY_UPDATE for a stream")
        if len(frame) < _HEADER_BYTES + 4:
            return self._fail(
                ErrorCodes.FRAME_SIZE_ERROR, "PRIORITY_UPDATE is too short"
            )
        prioritized: int = _LONG.unpack_from(frame, _HEADER_BYTES)[0] & _LAST_STREAM
        if not prioritized % 2:
            return self._fail(
                ErrorCodes.PROTOCOL_ERROR, "PRIORITY_UPDATE of no request"
            )
        urgency = urgency_of(frame[_HEADER_BYTES + 4 :].decode("latin-1"))
        if prioritized in self._streams:
            return [Prioritized(prioritized, urgency)]
        if prioritized > self.highest and len(self._urgencies) < self._limits.streams:
            self._urgencies[prioritized] = urgency
        return []

    # Errors.

    def _reset_by_error(self, stream_id: int, now: float) -> list[Event]:
        """Account for a stream that h2 has reset because of an error of the client."""
        if self._streams.pop(stream_id, None) is None:
            return []
        if not self._resets.take(now):
            return self._calm("too many streams had to be reset")
        return [StreamReset(stream_id)]

    def _stream_error(
        self, stream_id: int, now: float, code: int = ErrorCodes.PROTOCOL_ERROR
    ) -> list[Event]:
        """Reset a stream because of an error of the client."""
        self._h2.reset_stream(stream_id, code)
        return self._reset_by_error(stream_id, now)

    def _calm(self, reason: str) -> list[Event]:
        return self._fail(ErrorCodes.ENHANCE_YOUR_CALM, reason)

    def _fail_by(self, error: ProtocolError) -> list[Event]:
        """End the connection because of an error that h2 has found."""
        code = error.error_code
        cause = error.__cause__
        if isinstance(cause, HPACKError) and not isinstance(
            error, DenialOfServiceError
        ):
            code = ErrorCodes.COMPRESSION_ERROR  # RFC 9113 section 4.3
        # h2's GOAWAY is the last frame. The one of `_fail` gives the reason.
        self._out.append(self._h2.data_to_send()[:-_GOAWAY_BYTES])
        return self._fail(code, str(error))

    def _fail(self, code: int, reason: str) -> list[Event]:
        self._send_go_away(self.highest, code, reason.encode("ascii", "replace")[:200])
        self.failed = True
        self._buffer.clear()
        self._at = 0
        self._streams.clear()
        return [Failed(reason)]

    # Sending.

    def take(self) -> bytes:
        """Return the bytes to send; b"" if there are none."""
        data = self._h2.data_to_send()
        out = self._out
        if not out:
            return data
        out.append(data)
        joined = b"".join(out)
        out.clear()
        return joined

    def _flush_h2(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._out.append(data)

    def is_open(self, stream_id: int) -> bool:
        """Return whether a response, or the rest of it, can be sent."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.sending

    # h2 learns the end of a response only if it must keep the stream. Its own methods
    # take a third of the time of a short request: see `docs/decisions/0038-http2.md`.

    def send_head(
        self, stream_id: int, code: int, lines: Iterable[bytes], end: bool
    ) -> None:
        """Send the head of a response.

        Args:
            stream_id: the stream, which must be open.
            code: the status code; interim if below 200.
            lines: the lines of the fields, valid and with CRLF.
            end: whether the response has no body.
        """
        block = self._encoder.start() + encode_status(code) + encode_fields(lines)
        self._flush_h2()
        flags = 0
        if end and self._ends_stream(stream_id):
            flags = _END_STREAM
        size = self._h2.max_outbound_frame_size
        if len(block) <= size:
            self._out.append(_frame(_HEADERS, flags | _END_HEADERS, stream_id, block))
        else:
            self._out.append(_frame(_HEADERS, flags, stream_id, block[:size]))
            for start in range(size, len(block), size):
                piece = block[start : start + size]
                last = _END_HEADERS if start + size >= len(block) else 0
                self._out.append(_frame(_CONTINUATION, last, stream_id, piece))
        if end and not flags:
            self._h2.end_stream(stream_id)

    def send_data(self, stream_id: int, data: memoryview, end: bool) -> int:
        """Send the beginning of `data` in one frame, as far as the windows allow.

        Args:
            stream_id: the stream, which must be open.
            data: the bytes, at least one.
            end: whether they end the response.

        Returns:
            The number of bytes sent; 0 if a window is used up.
        """
        h2 = self._h2
        stream = h2.streams[stream_id]
        size = len(data)
        sent = min(
            size,
            stream.outbound_flow_control_window,
            h2.outbound_flow_control_window,
            h2.max_outbound_frame_size,
            MAX_SENT_BYTES,
        )
        if sent <= 0:
            return 0
        # A client that keeps its window small gets no credit for small frames.
        credit = sent / BYTES_PER_UPDATE if sent < size else sent / BYTES_PER_UPDATE + 2
        self._updates.give(credit, MAX_UPDATES)
        self._flush_h2()
        stream.outbound_flow_control_window -= sent
        h2.outbound_flow_control_window -= sent
        ends = end and sent == size
        flags = _END_STREAM if ends and self._ends_stream(stream_id) else 0
        out = self._out
        out.append(_FRAME.pack(sent >> 8, sent & 0xFF, _DATA, flags, stream_id))
        out.append(data if sent == size else data[:sent])
        if ends and not flags:
            h2.end_stream(stream_id)
        return sent

    @property
    def window(self) -> int:
        """The number of bytes that the client accepts on the connection."""
        return self._h2.outbound_flow_control_window

    def window_of(self, stream_id: int) -> int:
        """Return the number of bytes that the client accepts on an open stream."""
        return self._h2.streams[stream_id].outbound_flow_control_window

    def send_end(self, stream_id: int) -> None:
        """End a response; its stream must be open."""
        if self._ends_stream(stream_id):
            self._flush_h2()
            self._out.append(_frame(_DATA, _END_STREAM, stream_id))
        else:
            self._h2.end_stream(stream_id)

    def _ends_stream(self, stream_id: int) -> bool:
        """Handle the end of a response; return whether it ends the stream too.

        If not, h2 sends the end, and keeps the stream for the rest of the request.
        """
        stream = self._streams[stream_id]
        stream.sending = False
        if stream.receiving:
            return False
        del self._streams[stream_id]
        self._h2.streams.pop(stream_id, None)
        return True

    def reset(self, stream_id: int, code: int) -> None:
        """Reset a stream; a no-op if it is closed."""
        if self._streams.pop(stream_id, None) is not None:
            self._h2.reset_stream(stream_id, code)

    def credit(self, stream_id: int, size: int) -> None:
        """Return bytes that were read to the windows of stream and connection."""
        self.drop(size)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.receiving:
            stream.read += size
            if stream.read >= self._stream_step:
                stream.window += stream.read
                self._open_window(stream_id, stream.read)
                stream.read = 0

    def drop(self, size: int) -> None:
        """Return bytes that were dropped to the window of the connection only."""
        self._read += size
        if self._read >= self._step and not self.failed:
            self._window += self._read
            self._open_window(0, self._read)
            self._read = 0

    def _open_window(self, stream_id: int, size: int) -> None:
        self._flush_h2()
        self._out.append(_frame(_WINDOW_UPDATE, 0, stream_id, _LONG.pack(size)))

    def announce_end(self) -> None:
        """Send a GOAWAY that permits the requests on their way (RFC 9113, 6.8)."""
        self._send_go_away(_LAST_STREAM, 0, b"")

    def end(self) -> None:
        """Send the final GOAWAY: later streams are refused."""
        self._last = self.highest
        self._send_go_away(self.highest, 0, b"")

    def give_up(self, reason: str) -> None:
        """Send a GOAWAY with the reason; receive nothing more."""
        self._fail(ErrorCodes.NO_ERROR, reason)

    def _send_go_away(self, last: int, code: int, reason: bytes) -> None:
        self._flush_h2()
        self._out.append(
            _frame(_GOAWAY, 0, 0, _LONG.pack(last) + _LONG.pack(code) + reason)
        )

    def _request_ended(self, stream_id: int, stream: _Stream) -> None:
        stream.receiving = False
        if not stream.sending:
            del self._streams[stream_id]
