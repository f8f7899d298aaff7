"""HTTP clients that a test drives: connections, and the replies to their requests.

They distinguish a complete response from a truncated one. This file knows HTTP/1.1 (by
h11) and HTTP/2 (by h2). It must never know which server answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness_links import Link

    Fields = list[tuple[str, str]]

__all__ = ["Connection", "Http1Connection", "Http2Connection", "Reply"]

#: States of a reply. "waiting": no head yet. "open": the head was received, the body
#: has not ended. "complete": the whole response was received. "cut": the connection or
#: stream ended before the response did. "malformed": it violates the protocol.
State = Literal["waiting", "open", "complete", "cut", "malformed"]

#: Enlargement of the default flow-control window of a connection, in bytes.
_CONNECTION_WINDOW = 1024**2

_CANCEL = 8  # RFC 9113 section 7


class Reply:
    """The response to one request, as received by the client so far.

    Attributes:
        connection: the connection of the request.
        status: the status code; None before the head.
        headers: (name, value) pairs, names in lower case.
        hints: the fields of each 103 response that preceded the head.
        body: the received part of the body.
        state: one of `State`.
        problem: the reason why the response is malformed.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.status: int | None = None
        self.headers: Fields = []
        self.hints: list[Fields] = []
        self.body = b""
        self.state: State = "waiting"
        self.problem = ""

    def __repr__(self) -> str:
        """Return a description for the message of a failed test."""
        return (
            f"<Reply {self.status} {self.state} {self.problem} {self.headers} "
            f"{len(self.body)} bytes {self.body[:50]!r}>"
        )

    def values(self, name: str) -> list[str]:
        """Return all values of a field, in order."""
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the values of a field joined by ", "; None without the field."""
        return ", ".join(self.values(name)) or None

    @property
    def over(self) -> bool:
        """Whether the response can grow no further."""
        return self.state in ("complete", "cut", "malformed")

    # Called by the connection.

    def head_received(
        self, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Store the head."""
        self.status = status
        self.headers = _decoded(headers)
        self.state = "open"

    def interim_received(
        self, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Store the fields of a 103 response."""
        if status == 103:
            self.hints.append(_decoded(headers))

    def end(self, state: State, problem: object = "") -> None:
        """Store the end, unless it was stored before."""
        if not self.over:
            self.state = state
            self.problem = repr(problem) if problem else ""


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return [
        (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
        for name, value in headers
    ]


class Connection(ABC):
    """A client's connection.

    Args:
        link: the carrier of its bytes.

    Attributes:
        replies: the replies to its requests, in order.
        makes_room: whether the HTTP/2 client enlarges the windows of its streams
            (RFC 9113 section 5.2) after it has received data.
        stray: bytes outside of any response.
        goes_away: whether the server has announced the end of the connection.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.goes_away = False
        self.replies: list[Reply] = []
        self.makes_room = True
        self.stray = b""

    @abstractmethod
    def request(
        self, method: str, target: str, headers: Fields, body: bytes, partial: bool
    ) -> Reply:
        """Send a request.

        Args:
            method: the method, such as "GET".
            target: the request target.
            headers: the fields, including Host.
            body: the first part of the body.
            partial: whether `send_body` will send more of the body.
        """

    @abstractmethod
    def send_body(self, reply: Reply, data: bytes, end: bool) -> None:
        """Send a piece of a request body."""

    @abstractmethod
    def abandon(self, reply: Reply) -> None:
        """Abort a request: by RST_STREAM, or by closing the connection."""

    @abstractmethod
    def pump(self) -> bool:
        """Process received bytes; return whether there were any."""


class Http1Connection(Connection):
    """An HTTP/1.1 connection, with one request after the other."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=10**6)

    def request(
        self, method: str, target: str, headers: Fields, body: bytes, partial: bool
    ) -> Reply:
        """Send a request; the previous response must be complete."""
        if self.replies:
            self._h11.start_next_cycle()
        fields = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
        request = h11.Request(method=method, target=target, headers=fields)
        data = self._h11.send(request) or b""
        if body:
            data += self._h11.send(h11.Data(data=body)) or b""
        if not partial:
            data += self._h11.send(h11.EndOfMessage()) or b""
        reply = Reply(self)
        self.replies.append(reply)
        self.link.send(data)
        return reply

    def send_body(self, reply: Reply, data: bytes, end: bool) -> None:
        """Send a piece of the request body."""
        sent = self._h11.send(h11.Data(data=data)) or b""
        if end:
            sent += self._h11.send(h11.EndOfMessage()) or b""
        self.link.send(sent)

    def abandon(self, reply: Reply) -> None:
        """Close the connection."""
        self.link.disconnect()

    def pump(self) -> bool:
        """Process received bytes; return whether there were any."""
        data = self.link.take()
        ended = self.link.ended
        reply = self.replies[-1]
        if reply.over:
            self.stray += data
            if ended:
                self.link.disconnect()
            return bool(data)
        try:
            if data:
                self._h11.receive_data(data)
                self._process(reply)
            if ended and not reply.over:
                self._h11.receive_data(b"")
                self._process(reply)
        except h11.RemoteProtocolError as error:
            if ended:
                reply.end("cut")
            else:
                reply.end("malformed", error)
        if ended:
            reply.end("cut")
            self.link.disconnect()
        return bool(data)

    def _process(self, reply: Reply) -> None:
        parts: list[bytes] = []
        try:
            while not reply.over:
                event = self._h11.next_event()
                if isinstance(event, h11.Response):
                    reply.head_received(event.status_code, event.headers.raw_items())
                elif isinstance(event, h11.Data):
                    parts.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    reply.end("complete")
                    self.stray += self._h11.trailing_data[0]
                elif isinstance(event, h11.InformationalResponse):
                    reply.interim_received(event.status_code, event.headers.raw_items())
                else:
                    break
        finally:
            reply.body += b"".join(parts)


class _Stream:
    """One request of an HTTP/2 connection.

    Attributes:
        reply: its reply.
        unsent: the part of the request body that awaits the server's window.
        ends: whether the request ends after it.
        ended: whether its end was sent.
        unacknowledged: number of received bytes without a window update.
    """

    def __init__(self, reply: Reply, body: bytes, ends: bool) -> None:
        self.reply = reply
        self.unsent = body
        self.ends = ends
        self.ended = False
        self.unacknowledged = 0


class _Http2Client(h2.connection.H2Connection):
    """A client whose open streams survive a graceful GOAWAY (RFC 9113 section 6.8).

    h2 itself ends them.
    """

    def _receive_goaway_frame(self, frame: Any) -> Any:
        state = self.state_machine.state
        result = super()._receive_goaway_frame(frame)
        if not frame.error_code:
            self.state_machine.state = state
        return result


class Http2Connection(Connection):
    """An HTTP/2 connection, with any number of concurrent requests."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        # Send fields without validation: tests send invalid ones.
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = _Http2Client(config)
        self._h2.initiate_connection()
        # One stalled stream must not stall the connection.
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW)
        self._streams: dict[int, _Stream] = {}
        self._broken = False

    def request(
        self, method: str, target: str, headers: Fields, body: bytes, partial: bool
    ) -> Reply:
        """Send a request on a new stream; Host becomes :authority."""
        reply = Reply(self)
        self.replies.append(reply)
        number = self._h2.get_next_available_stream_id()
        self._streams[number] = _Stream(reply, body, not partial and bool(body))
        pseudo = [(":method", method), (":scheme", "http"), (":path", target)]
        pseudo += [
            (":authority", value) for name, value in headers if name.lower() == "host"
        ]
        fields = [
            (name.lower(), value) for name, value in headers if name.lower() != "host"
        ]
        self._h2.send_headers(
            number,
            [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in pseudo + fields
            ],
            end_stream=not body and not partial,
        )
        self._streams[number].ended = not body and not partial
        self._flush()
        return reply

    def _number(self, reply: Reply) -> int:
        [number] = [
            number for number, stream in self._streams.items() if stream.reply is reply
        ]
        return number

    def send_body(self, reply: Reply, data: bytes, end: bool) -> None:
        """Send a piece of the request body."""
        stream = self._streams[self._number(reply)]
        stream.unsent += data
        stream.ends = stream.ends or end
        self._flush()

    def abandon(self, reply: Reply) -> None:
        """Reset the stream; the connection and its other streams stay open."""
        if not reply.over:
            self._h2.reset_stream(self._number(reply), error_code=_CANCEL)
            reply.end("cut")
            self._flush()

    def _flush(self) -> bool:
        for number, stream in self._streams.items():
            if not stream.reply.over:
                self._send_body(number, stream)
        data = self._h2.data_to_send()
        if data:
            self.link.send(data)
        return bool(data)

    def _send_body(self, number: int, stream: _Stream) -> None:
        while stream.unsent:
            window = self._h2.local_flow_control_window(number)
            size = min(window, self._h2.max_outbound_frame_size, len(stream.unsent))
            if size <= 0:
                break
            piece, stream.unsent = stream.unsent[:size], stream.unsent[size:]
            last = stream.ends and not stream.unsent
            stream.ended = last
            self._h2.send_data(number, piece, end_stream=last)
        if stream.ends and not stream.unsent and not stream.ended:
            stream.ended = True
            self._h2.end_stream(number)

    def pump(self) -> bool:
        """Process received bytes; return whether there were any."""
        data = self.link.take()
        sent = False
        if self._broken:
            self.stray += data
        else:
            try:
                if data:
                    self._process(self._h2.receive_data(data))
                self._make_room()
                sent = self._flush()
            except h2.exceptions.ProtocolError as error:
                self._broken = True
                for reply in self.replies:
                    reply.end("malformed", error)
        if self.link.ended:
            self._cut_all()
        return bool(data) or sent

    def _cut_all(self) -> None:
        for reply in self.replies:
            reply.end("cut")

    def _goes_away(self, last: int) -> None:
        """Give up the streams that the server does not serve; close an idle one."""
        self.goes_away = True
        for number, stream in self._streams.items():
            if number > last:
                stream.reply.end("cut")
        if all(reply.over for reply in self.replies):
            self.link.disconnect()

    def _make_room(self) -> None:
        if not self.link.reading or not self.makes_room:
            return
        for number, stream in self._streams.items():
            size, stream.unacknowledged = stream.unacknowledged, 0
            if size and not stream.reply.over:
                self._h2.acknowledge_received_data(size, number)
            elif size:
                # The stream has ended; update only the connection's window.
                self._h2.increment_flow_control_window(size)

    def _process(self, events: Iterable[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                fields = [
                    (bytes(name), bytes(value)) for name, value in event.headers or ()
                ]
                status = int(dict(fields)[b":status"])
                self._reply_of(event).head_received(
                    status, [field for field in fields if field[0] != b":status"]
                )
            elif isinstance(event, h2.events.InformationalResponseReceived):
                fields = [
                    (bytes(name), bytes(value)) for name, value in event.headers or ()
                ]
                status = int(dict(fields)[b":status"])
                self._reply_of(event).interim_received(
                    status, [field for field in fields if field[0] != b":status"]
                )
            elif isinstance(event, h2.events.DataReceived):
                self._reply_of(event).body += event.data or b""
                stream = self._streams[event.stream_id or 0]
                stream.unacknowledged += event.flow_controlled_length or 0
            elif isinstance(event, h2.events.StreamEnded):
                self._reply_of(event).end("complete")
            elif isinstance(event, h2.events.StreamReset):
                self._reply_of(event).end("cut")
            elif isinstance(event, h2.events.ConnectionTerminated):
                self._goes_away(event.last_stream_id or 0)

    def _reply_of(
        self,
        event: (
            h2.events.ResponseReceived
            | h2.events.InformationalResponseReceived
            | h2.events.DataReceived
            | h2.events.StreamEnded
            | h2.events.StreamReset
        ),
    ) -> Reply:
        return self._streams[event.stream_id or 0].reply
