"""A client of HTTP/2 that sends any bytes: frames are built and read by hand.

This file knows the wire. It must never know the server.
"""

from __future__ import annotations

from struct import pack, unpack_from
from typing import TYPE_CHECKING, NamedTuple

from hpack.hpack import Decoder, Encoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi.testing import MemoryClient, MemoryServer

__all__ = [
    "ACK",
    "CANCEL",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "ENHANCE_YOUR_CALM",
    "GOAWAY",
    "GREATEST_WINDOW",
    "HEADERS",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PRIORITY_UPDATE",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Frame",
    "RawClient",
    "frame",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
PRIORITY_UPDATE = 16

END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
PRIORITY_FLAG = 32

# RFC 9113 section 7.
CANCEL = 8
ENHANCE_YOUR_CALM = 11

GREATEST_WINDOW = 2**31 - 1

Fields = list[tuple[str, str]]


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return pack(">L", len(payload))[1:] + pack(">BBL", kind, flags, stream) + payload


class RawClient:
    """The client's end of a connection in memory.

    Args:
        server: the server.
        room: as for `MemoryServer.connect`.
        settings: the payload of its SETTINGS frame; None to send no preface.
    """

    def __init__(
        self,
        server: MemoryServer,
        room: float = float("inf"),
        settings: bytes | None = b"",
    ) -> None:
        self.memory: MemoryClient = server.connect(room)
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._read = 0
        self.frames: list[Frame] = []
        if settings is not None:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data: bytes) -> None:
        """Send bytes; the server processes them before this returns."""
        self.memory.send(data)

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        """Return an encoded header block."""
        encoded: bytes = self._encoder.encode(list(fields))
        return encoded

    def head(
        self,
        path: str = "/",
        more: Fields | None = None,
        method: str = "GET",
        authority: str = "test",
    ) -> bytes:
        """Return the header block of a request."""
        fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
        ]
        return self.block([*fields, *(more or [])])

    def request(
        self, stream: int, path: str = "/", more: Fields | None = None, **rest: str
    ) -> bytes:
        """Return the frame of a request without a body."""
        block = self.head(path, more, **rest)
        return frame(HEADERS, END_STREAM | END_HEADERS, stream, block)

    def upload(self, stream: int, more: Fields | None = None) -> bytes:
        """Return the frame of the head of a request with a body."""
        return frame(HEADERS, END_HEADERS, stream, self.head("/", more, "POST"))

    def received(self) -> list[Frame]:
        """Return the frames received since the last call."""
        data = self.memory.received
        new: list[Frame] = []
        while self._read + 9 <= len(data):
            high, low, kind, flags, stream = unpack_from(">HBBBL", data, self._read)
            end = self._read + 9 + (high << 8 | low)
            if end > len(data):
                break
            new.append(Frame(kind, flags, stream, data[self._read + 9 : end]))
            self._read = end
        self.frames += new
        return new

    def of_kind(self, kind: int) -> list[Frame]:
        """Return all received frames of a kind."""
        self.received()
        return [each for each in self.frames if each.kind == kind]

    def error(self) -> int | None:
        """Return the error code of the last GOAWAY; None without one."""
        found = self.of_kind(GOAWAY)
        return unpack_from(">L", found[-1].payload, 4)[0] if found else None

    def resets(self) -> list[tuple[int, int]]:
        """Return stream and error code of each RST_STREAM."""
        return [
            (each.stream, unpack_from(">L", each.payload)[0])
            for each in self.of_kind(RST_STREAM)
        ]

    def responses(self) -> dict[int, int]:
        """Return the status of each response by its stream."""
        found: dict[int, int] = {}
        for each in self.of_kind(HEADERS):
            fields = Decoder().decode(each.payload)
            found[each.stream] = int(dict(fields)[":status"])  # type: ignore[index]
        return found

    def body(self, stream: int) -> bytes:
        """Return the body received on a stream."""
        return b"".join(
            each.payload for each in self.of_kind(DATA) if each.stream == stream
        )
