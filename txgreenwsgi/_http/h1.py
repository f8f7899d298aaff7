"""One HTTP/1.1 connection without I/O (RFC 9112).

Received bytes become events; responses become bytes to send. Each side has a
transition table: `RECEIVING` (in `parser.py`) for requests, `SENDING` (here) for
responses.

This file knows the wire. It must never know transports, clocks or tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from txgreenwsgi._native import lanes
from txgreenwsgi._states import TransitionTable

from .framing import BODILESS_CODES, CHUNKED, CLOSE, LENGTH, NONE
from .parser import RequestParser
from .writer import CONTINUE, LAST_CHUNK, encode_switching

if TYPE_CHECKING:
    from .common_fields import CommonFields
    from .head import RequestHead
    from .parser import HeadLimits
    from .writer import EarlyHints, ResponseHead

__all__ = [
    "AWAITED",
    "BODY",
    "COMPLETE",
    "IDLE",
    "LAST",
    "SENDING",
    "SWITCHED",
    "Connection",
]

#: No request awaits a response.
IDLE: Final = "idle"
#: A request was received and has no final response head yet.
AWAITED: Final = "awaited"
#: The response head was sent, the end of the response was not.
BODY: Final = "body"
#: The response is complete; the connection may carry another request.
COMPLETE: Final = "complete"
#: The response is complete and said `Connection: close`.
LAST: Final = "last"
#: A 101 was sent: the bytes on the connection are no longer HTTP/1.1.
SWITCHED: Final = "switched"

SENDING: Final = TransitionTable(
    "the response side of an HTTP/1.1 connection",
    {
        # `answer` without a request is the response to an invalid request.
        IDLE: {"request": AWAITED, "answer": LAST},
        AWAITED: {
            "interim": AWAITED,
            "head": BODY,
            "answer": LAST,
            "switch": SWITCHED,
        },
        BODY: {"data": BODY, "end": COMPLETE, "last end": LAST},
        COMPLETE: {"request": AWAITED, "answer": LAST},
        LAST: {},
        SWITCHED: {},
    },
)

_ON_REQUEST: Final = SENDING.moves("request")
_NEXT_REQUEST: Final = SENDING.after(COMPLETE, "request")
_ON_INTERIM: Final = SENDING.moves("interim")
_ON_HEAD: Final = SENDING.moves("head")
_HEAD_SENT: Final = SENDING.after(AWAITED, "head")
_ENDED: Final = SENDING.after(BODY, "end")
_ON_DATA: Final = SENDING.moves("data")
_ON_END: Final = SENDING.moves("end")
_ON_LAST_END: Final = SENDING.moves("last end")
_ON_ANSWER: Final = SENDING.moves("answer")
_ON_SWITCH: Final = SENDING.moves("switch")

_NO_REQUEST = cast("RequestHead", None)

#: Minimum length of a block that is sent as a separate part, so that it is not copied
#: behind its head or chunk framing.
_LONG_BLOCK_BYTES = 16384


class Connection(RequestParser):
    """Both directions of one HTTP/1.1 connection.

    The receiving side is `RequestParser.feed`. The sending side takes a response
    as head, blocks and end, and returns the bytes to send: one `bytes` object, or
    a tuple of parts if joining them would copy a long block.

    No method parks. All `send_...` methods raise `IllegalTransition` if the event is
    illegal in the current state.

    Args:
        limits: the limits on requests.
        common: the header fields that the server adds.

    Attributes:
        sending: the state of the sending side.
        persistent: False once a response has announced the close of the connection
            (RFC 9112 section 9.3).
        framing: the framing of the current response, a constant of `framing.py`.
    """

    __slots__ = lanes.slots(
        lanes.ConnectionState,
        (
            "_common",
            "_request",
            "framing",
            "persistent",
            "sending",
        ),
    )

    def __init__(self, limits: HeadLimits, common: CommonFields) -> None:
        super().__init__(limits)
        self._common = common
        # The request of the response in progress. Dropped at the end: an idle
        # connection must not keep its last request alive.
        self._request = _NO_REQUEST
        self.framing = NONE
        self.persistent = True
        self.sending = IDLE

    def stop_receiving(self) -> None:
        """Ignore all further bytes, and close after the current response."""
        self.stop()
        self.persistent = False

    def begin(self, request: RequestHead) -> None:
        """Begin the response to `request`, which `feed` returned."""
        if self.sending is COMPLETE:
            self.sending = _NEXT_REQUEST
        else:
            self.sending = _ON_REQUEST[self.sending]
        self._request = request

    def send_continue(self) -> bytes:
        """Return an interim 100 response (RFC 9110 section 10.1.1)."""
        self.sending = _ON_INTERIM[self.sending]
        return CONTINUE

    def send_early_hints(self, hints: EarlyHints) -> bytes:
        """Return an interim 103 response; HTTP/1.0 clients must not get one."""
        self.sending = _ON_INTERIM[self.sending]
        return hints.encode()

    def switch(self, protocol: str, head: ResponseHead | None) -> bytes:
        """Leave HTTP/1.1 (RFC 9110 section 7.8); return a 101 response.

        From now on, `send_data` returns each block unchanged.

        Args:
            protocol: the new protocol, for the Upgrade field.
            head: the further fields of the response, whose status is ignored; None if
                the application sends the response: b"" is returned.
        """
        self.sending = _ON_SWITCH[self.sending]
        self.persistent = False
        self._request = _NO_REQUEST
        if head is None:
            return b""
        common = self._common
        date, server = common.date_and_server()
        lines = server + date + common.lines_added_to(head)
        return encode_switching(protocol, head, lines)

    def send_head(
        self,
        head: ResponseHead,
        length: int | None,
        block: bytes,
        end: bool,
        persist: bool,
    ) -> bytes | tuple[bytes, ...]:
        """Return a response head and the first block of its body.

        Args:
            head: the application's head.
            length: the length of the whole body in bytes; None if unknown.
            block: the first block, at most `length` bytes; b"" for none.
            end: whether `block` ends the body. Requires a known length, or no body.
            persist: whether the connection may persist; the client, the framing and
                the head can prevent it.
        """
        self.sending = _HEAD_SENT if self.sending is AWAITED else _ON_HEAD[self.sending]
        request = self._request
        common = self._common
        lines = common.lines_added_to(head) if common.adds_fields else b""
        version = request.version
        # RFC 9112 section 6.3.
        if request.method == "HEAD" or head.code in BODILESS_CODES:
            framing = NONE
            if (
                length
                and head.content_length is None
                and head.code not in BODILESS_CODES
            ):
                # The length of the response to GET, if known.
                lines += b"Content-Length: %d\r\n" % length
        elif length is not None:
            framing = LENGTH
            if head.content_length is None:
                lines += b"Content-Length: %d\r\n" % length
        elif version == "HTTP/1.1":
            framing = CHUNKED
            lines += b"Transfer-Encoding: chunked\r\n"
        else:
            # HTTP/1.0 has no chunked coding (RFC 9112 section 7.1).
            framing = CLOSE
        self.framing = framing
        if (
            not persist
            or not request.keep_alive
            or framing is CLOSE
            or head.ends_connection
        ):
            lines += b"Connection: close\r\n"
            self.persistent = False
        elif version == "HTTP/1.0":
            lines += b"Connection: keep-alive\r\n"
        date, server = common.date_and_server()
        data = head.encode(date, server, lines)
        if end:
            self.send_end()
        if not block:
            return data
        if framing is CHUNKED:
            if len(block) < _LONG_BLOCK_BYTES:
                return b"%b%x\r\n%b\r\n" % (data, len(block), block)
            return data + b"%x\r\n" % len(block), block, b"\r\n"
        if len(block) < _LONG_BLOCK_BYTES:
            return data + block
        return data, block

    def send_data(self, block: bytes) -> bytes | tuple[bytes, ...]:
        """Return a non-empty block of the body with its framing."""
        if self.sending is not BODY:
            if self.sending is SWITCHED:
                return block
            self.sending = _ON_DATA[self.sending]  # raises
        if self.framing is not CHUNKED:
            return block
        if len(block) < _LONG_BLOCK_BYTES:
            return b"%x\r\n%b\r\n" % (len(block), block)
        return b"%x\r\n" % len(block), block, b"\r\n"

    def send_end(self) -> bytes:
        """Return the end of the response: the last chunk, or b"" without chunks.

        Illegal after `send_head` with `end`.
        """
        if self.persistent:
            self.sending = _ENDED if self.sending is BODY else _ON_END[self.sending]
        else:
            self.sending = _ON_LAST_END[self.sending]
        self._request = _NO_REQUEST
        return LAST_CHUNK if self.framing is CHUNKED else b""

    def send_answer(self, head: ResponseHead, body: bytes) -> bytes:
        """Return a complete response of the server, the last on the connection.

        Args:
            head: the head, with the Content-Length of `body`.
            body: the body; omitted in the response to HEAD.
        """
        to_head = self.sending is AWAITED and self._request.method == "HEAD"
        self.sending = _ON_ANSWER[self.sending]
        self.persistent = False
        common = self._common
        date, server = common.date_and_server()
        lines = common.lines_added_to(head) + b"Connection: close\r\n"
        data = head.encode(date, server, lines)
        return data if to_head else data + body
