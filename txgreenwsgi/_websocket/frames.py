"""The frames of a WebSocket server (RFC 6455 section 5, RFC 7692), without I/O.

wsproto parses received frames; `MessageLimits` is its extension that decompresses
messages and bounds their size before they are in memory. It must never know
connections, clocks or tasks.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from wsproto.frame_protocol import FrameDecoder, FrameProtocol

    class Inflater(Protocol):
        """A decompressor of zlib."""

        @property
        def eof(self) -> bool:
            """Whether the final block has ended."""

        @property
        def unused_data(self) -> bytes:
            """The bytes after the final block."""

        def decompress(self, data: bytes, max_length: int = ..., /) -> bytes:
            """Return at most `max_length` bytes."""


__all__ = [
    "COMPRESSED_BYTES",
    "MessageLimits",
    "compress",
    "encode_close",
    "encode_frame",
    "is_sendable_code",
]

#: Minimum size of a message that is compressed: shorter ones hardly shrink.
COMPRESSED_BYTES: Final = 256

#: The size of the pieces in which a message is compressed.
_PIECE_BYTES: Final = 65536

# The end of each block of Z_SYNC_FLUSH, which is not sent (RFC 7692 section 7.2.1).
_TAIL: Final = b"\x00\x00\xff\xff"

#: Excess of a compressed message over its content: frames of empty blocks.
_SLACK_BYTES: Final = 1024

_FIN: Final = 0x80
_RSV1: Final = 0x40
#: Maximum length of the reason in a close frame (RFC 6455 sections 5.5 and 5.5.1).
_REASON_BYTES: Final = 123

_NO_BITS: Final = RsvBits(False, False, False)
_RSV1_ALLOWED: Final = RsvBits(True, False, False)


class MessageLimits(Extension):
    """Decompresses the messages of the client and limits their size.

    Args:
        max_message: the largest message in bytes, after decompression.
        inflates: whether permessage-deflate was negotiated.

    Attributes:
        reason: the reason of the last error that a method has returned.
    """

    name = "permessage-deflate"

    def __init__(self, max_message: int, inflates: bool) -> None:
        self.reason = ""
        self._max = max_message
        self._inflates = inflates
        # Of the current message. The client does not take over the context, so each
        # message has its own decompressor.
        self._size = 0
        self._received = 0
        self._compressed = False
        self._inflater: Inflater | None = None
        # Of the current frame: control frames may come between those of a message.
        self._control = False

    @property
    def message_bytes(self) -> int:
        """The size of the current message so far, decompressed."""
        return self._size if self._compressed else self._received

    def enabled(self) -> bool:
        """Return True: it is in use from the start."""
        return True

    def offer(self) -> bool:
        """Return False: a server offers no extension."""
        return False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Check the header of a frame."""
        self._control = opcode.iscontrol()
        if self._control:
            return _NO_BITS
        if opcode is not Opcode.CONTINUATION:
            self._size = self._received = 0
            self._compressed = self._inflates and rsv.rsv1
            self._inflater = None
        elif rsv.rsv1:
            self.reason = "RSV1 is set in a continuation frame"
            return CloseReason.PROTOCOL_ERROR
        self._received += payload_length
        if self._received > self._max + (_SLACK_BYTES if self._compressed else 0):
            return self._too_big()
        return _RSV1_ALLOWED if self._inflates else _NO_BITS

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """Return the content of a piece of a frame."""
        if self._control or not self._compressed:
            return data
        return self._inflate(bytes(data))

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        """Return the rest of the content at the end of a message."""
        if self._control or not fin or not self._compressed:
            return None
        rest = self._inflate(_TAIL)
        self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        parts: list[bytes] = []
        while data:
            if self._inflater is None:
                # Any window that the client may use.
                self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # One byte more than allowed, which shows the excess.
                part = self._inflater.decompress(data, self._max - self._size + 1)
            except zlib.error:
                self.reason = "a compressed message is invalid"
                return CloseReason.INVALID_FRAME_PAYLOAD_DATA
            self._size += len(part)
            if self._size > self._max:
                return self._too_big()
            parts.append(part)
            data = b""
            if self._inflater.eof:
                # A final block within the message (RFC 7692 section 7.2.3.4).
                data = self._inflater.unused_data
                self._inflater = None
                if data == _TAIL:
                    break
        return b"".join(parts)

    def _too_big(self) -> CloseReason:
        self.reason = f"a message is longer than {self._max} bytes"
        return CloseReason.MESSAGE_TOO_BIG


def compress(data: bytes, window_bits: int, pause: Callable[[], object]) -> bytes:
    """Return the compressed payload of a message (RFC 7692 section 7.2.1).

    Args:
        data: the message.
        window_bits: the negotiated size of the window.
        pause: called between two pieces of a long message.
    """
    deflater = zlib.compressobj(wbits=-window_bits)
    parts = []
    for start in range(0, len(data), _PIECE_BYTES):
        if start:
            pause()
        parts.append(deflater.compress(data[start : start + _PIECE_BYTES]))
    parts.append(deflater.flush(zlib.Z_SYNC_FLUSH))
    return b"".join(parts)[: -len(_TAIL)]


def encode_frame(opcode: int, payload: bytes, compressed: bool = False) -> bytes:
    """Return an unmasked frame that is a whole message, or a control frame."""
    first = _FIN | opcode | (_RSV1 if compressed else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def encode_close(code: int, reason: str) -> bytes:
    """Return a close frame; one without payload if the code cannot be sent.

    The reason is shortened to what a close frame can carry.
    """
    if not is_sendable_code(code):
        return encode_frame(Opcode.CLOSE, b"")
    text = reason.encode("utf-8", "replace")[:_REASON_BYTES]
    text = text.decode("utf-8", "ignore").encode("utf-8")
    return encode_frame(Opcode.CLOSE, struct.pack("!H", code) + text)


def is_sendable_code(code: int) -> bool:
    """Return whether a close frame may have this code (RFC 6455 section 7.4)."""
    return 1000 <= code <= 4999 and code not in (1004, 1005, 1006, 1015)
