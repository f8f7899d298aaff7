"""The exceptions of WebSockets.

They need no third-party package: the server knows them whether wsproto is installed
or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._switching.errors import ClientDisconnected

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["WebSocketClosed", "WebSocketRefused"]


class WebSocketClosed(ClientDisconnected):
    """The WebSocket is closed; `send` and `receive` raise it.

    Attributes:
        code: the close code (RFC 6455 section 7.4.1), of the client if it has sent
            one; 1005 if it sent a close frame without a code, 1006 if it sent none.
        reason: the reason given with the code; "" without one.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        text = f"the WebSocket is closed, code {self.code}"
        return f"{text}: {self.reason}" if self.reason else text


class WebSocketRefused(Exception):
    """The request cannot become a WebSocket; the server answers it.

    Whatever the application sends afterwards is discarded.

    Attributes:
        status: the status line of the response, such as "403 Forbidden".
        reason: the reason; the client gets it too.
        fields: further fields of the response.
    """

    def __init__(
        self, status: str, reason: str, fields: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.fields = tuple(fields)

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"
