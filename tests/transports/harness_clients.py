"""HTTP clients that a test drives: one request on a connection of its own.

They tell a complete response from a truncated one. This file knows HTTP/1.1 (by
h11) and HTTP/2 (by h2). It must never know which server answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness_links import Link

__all__ = ["Http1Reply", "Http2Reply", "Reply"]

#: States of a reply. "waiting": no head yet. "open": the head has come and the body
#: has not ended. "complete": all of the response has come. "cut": the connection or
#: the stream ended before the response did. "malformed": it breaks the protocol.
State = Literal["waiting", "open", "complete", "cut", "malformed"]

_ENDS = (h2.events.StreamReset, h2.events.ConnectionTerminated)


class Reply(Protocol):
    """One request and what the client has seen of its response.

    Attributes:
        link: the connection.
        status: the status code; None before the head has come.
        headers: (name, value) pairs, names in lower case.
        body: the part of the body that has come.
        state: one of `State`.
        problem: why the response is malformed.
        stray: bytes that came behind the response.
        can_abandon: whether the client can give up the request and keep the
            connection.
    """

    link: Link
    status: int | None
    headers: list[tuple[str, str]]
    body: bytes
    state: State
    problem: str
    stray: bytes
    can_abandon: bool

    def send_body(self, data: bytes, end: bool = False) -> None:
        """Send a piece of the request body."""

    def pump(self) -> bool:
        """Process what has come; return whether there was anything."""

    def abandon(self) -> None:
        """Give up the request: by RST_STREAM, or by closing the connection."""

    def header(self, name: str) -> str | None:
        """Return the value of a field, several joined by ", "; None without it."""

    def values(self, name: str) -> list[str]:
        """Return all values of a field, in order."""


class _Reply:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.state: State = "waiting"
        self.problem = ""
        self.stray = b""

    def __repr__(self) -> str:
        """Show the reply for the message of a failed test."""
        return (
            f"<{type(self).__name__} {self.status} {self.state} {self.problem} "
            f"{self.headers} {len(self.body)} bytes {self.body[:50]!r}>"
        )

    def values(self, name: str) -> list[str]:
        """Return all values of a field, in order."""
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the value of a field, several joined by ", "; None without it."""
        return ", ".join(self.values(name)) or None

    @property
    def over(self) -> bool:
        """Whether nothing more of the response can come."""
        return self.state in ("complete", "cut", "malformed")

    def _break(self, error: Exception) -> None:
        self.state = "malformed"
        self.problem = repr(error)

    def _set_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = [
            (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
            for name, value in headers
        ]
        self.state = "open"


class Http1Reply(_Reply):
    """A request over HTTP/1.1.

    Args:
        link: a fresh connection.
        method: such as "GET".
        target: the request target.
        headers: the fields, Host among them.
        body: the part of the body to send at once.
        partial: whether more of the body is to come by `send_body`.
    """

    can_abandon = False

    def __init__(
        self,
        link: Link,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
        partial: bool,
    ) -> None:
        super().__init__(link)
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=10**6)
        fields = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
        request = h11.Request(method=method, target=target, headers=fields)
        data = self._connection.send(request) or b""
        if body:
            data += self._connection.send(h11.Data(data=body)) or b""
        if not partial:
            data += self._connection.send(h11.EndOfMessage()) or b""
        link.send(data)

    def send_body(self, data: bytes, end: bool = False) -> None:
        """Send a piece of the request body."""
        sent = self._connection.send(h11.Data(data=data)) or b""
        if end:
            sent += self._connection.send(h11.EndOfMessage()) or b""
        self.link.send(sent)

    def abandon(self) -> None:
        """Close the connection."""
        self.link.disconnect()

    def pump(self) -> bool:
        """Process what has come; return whether there was anything."""
        data = self.link.take()
        if self.over:
            self.stray += data
            return bool(data)
        ended = self.link.ended
        try:
            if data:
                self._connection.receive_data(data)
                self._process()
            if ended and not self.over:
                self._connection.receive_data(b"")
                self._process()
        except h11.RemoteProtocolError as error:
            if ended:
                self.state = "cut"
            else:
                self._break(error)
        if ended and not self.over:
            self.state = "cut"
        return bool(data)

    def _process(self) -> None:
        parts: list[bytes] = []
        try:
            while not self.over:
                event = self._connection.next_event()
                if isinstance(event, h11.Response):
                    self._set_head(event.status_code, event.headers.raw_items())
                elif isinstance(event, h11.Data):
                    parts.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.state = "complete"
                    self.stray = self._connection.trailing_data[0]
                elif not isinstance(event, h11.InformationalResponse):
                    break
        finally:
            self.body += b"".join(parts)


class Http2Reply(_Reply):
    """A request over HTTP/2, the only stream of its connection.

    Args:
        link: a fresh connection.
        method: such as "GET".
        target: the request target.
        headers: the fields; Host becomes :authority.
        body: the part of the body to send at once.
        partial: whether more of the body is to come by `send_body`.
    """

    can_abandon = True

    def __init__(
        self,
        link: Link,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
        partial: bool,
    ) -> None:
        super().__init__(link)
        # The fields are sent as they are: tests send odd ones.
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._connection = connection = h2.connection.H2Connection(config)
        self._unacknowledged = 0
        connection.initiate_connection()
        self._stream = connection.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":path", target)]
        pseudo += [
            (":authority", value) for name, value in headers if name.lower() == "host"
        ]
        fields = [
            (name.lower(), value) for name, value in headers if name.lower() != "host"
        ]
        connection.send_headers(
            self._stream,
            [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in pseudo + fields
            ],
            end_stream=not body and not partial,
        )
        self._unsent = body
        self._ends = not partial and bool(body)
        self._flush()

    def send_body(self, data: bytes, end: bool = False) -> None:
        """Send a piece of the request body."""
        self._unsent += data
        self._ends = self._ends or end
        self._flush()

    def abandon(self) -> None:
        """Reset the stream; the connection stays open."""
        self._connection.reset_stream(self._stream, error_code=8)  # CANCEL
        self.state = "cut"
        self._flush()

    def _flush(self) -> bool:
        connection = self._connection
        while self._unsent:
            window = connection.local_flow_control_window(self._stream)
            size = min(window, connection.max_outbound_frame_size, len(self._unsent))
            if size <= 0:
                break
            piece, self._unsent = self._unsent[:size], self._unsent[size:]
            last = self._ends and not self._unsent
            connection.send_data(self._stream, piece, end_stream=last)
            self._ends = self._ends and not last
        data = connection.data_to_send()
        if data:
            self.link.send(data)
        return bool(data)

    def pump(self) -> bool:
        """Process what has come; return whether there was anything."""
        data = self.link.take()
        try:
            if data:
                self._process(self._connection.receive_data(data))
            self._acknowledge()
        except h2.exceptions.ProtocolError as error:
            self._break(error)
        if self.link.ended and not self.over:
            self.state = "cut"
        sent = self.state != "malformed" and self._flush()
        return bool(data) or sent

    def _acknowledge(self) -> None:
        if not (self._unacknowledged and self.link.reading):
            return
        size, self._unacknowledged = self._unacknowledged, 0
        if not self.over:
            self._connection.acknowledge_received_data(size, self._stream)

    def _process(self, events: Iterable[h2.events.Event]) -> None:
        parts: list[bytes] = []
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                fields = [
                    (bytes(name), bytes(value)) for name, value in event.headers or ()
                ]
                status = int(dict(fields)[b":status"])
                self._set_head(status, [f for f in fields if f[0] != b":status"])
            elif isinstance(event, h2.events.DataReceived):
                parts.append(event.data or b"")
                self._unacknowledged += event.flow_controlled_length or 0
            elif isinstance(event, h2.events.StreamEnded):
                self.state = "complete"
            elif isinstance(event, _ENDS) and not self.over:
                self.state = "cut"
        self.body += b"".join(parts)
