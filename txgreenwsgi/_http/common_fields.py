"""Response header fields that the server adds.

Date and Server, unless the application sets them, and the fields that the deployer
configures. This file knows the wire format and the wall clock. It must never know the
rest of a response.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from txgreenwsgi._native import lanes

from .writer import date_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .writer import ResponseHead

__all__ = ["CommonFields"]


@lanes.with_lanes
class CommonFields(lanes.CommonFieldsState):
    """The header fields that the server adds, encoded once.

    Args:
        server: the value of Server; "" to omit the field.
        added: (name, value) pairs to add to each response unless the application
            sets a field of that name.

    Attributes:
        adds_fields: whether the deployer has configured fields.
    """

    __slots__ = lanes.slots(
        lanes.CommonFieldsState,
        (
            "_added",
            "_date_line",
            "_date_valid_from",
            "_date_valid_until",
            "_server_line",
            "adds_fields",
        ),
    )

    def __init__(self, server: str, added: Iterable[tuple[str, str]] = ()) -> None:
        self._added = [
            (name.lower().encode("latin-1"), name, value) for name, value in added
        ]
        replaced = any(lower == b"server" for lower, _, _ in self._added)
        sent = server and not replaced
        self._server_line = f"Server: {server}\r\n".encode("latin-1") if sent else b""
        self._date_line = b""
        self._date_valid_from = self._date_valid_until = 0.0
        self.adds_fields = bool(self._added)

    def date_and_server(self) -> tuple[bytes, bytes]:
        """Return the Date and Server lines of a response sent now.

        The Date line is formatted once a second.
        """
        now = time()
        # Comparing floats is faster than making an int of the second.
        if not self._date_valid_from <= now < self._date_valid_until:
            second = now // 1
            self._date_valid_from, self._date_valid_until = second, second + 1
            self._date_line = date_field(second)
        return self._date_line, self._server_line

    def added_to(self, head: ResponseHead) -> list[tuple[str, str]]:
        """Return the configured fields that `head` lacks."""
        return [
            (name, value) for lower, name, value in self._added if not head.has(lower)
        ]

    def lines_added_to(self, head: ResponseHead) -> bytes:
        """Return the configured fields that `head` lacks, as encoded lines."""
        return b"".join(
            f"{name}: {value}\r\n".encode("latin-1")
            for name, value in self.added_to(head)
        )
