"""File objects for `Connection.makefile`; a connection may have several.

This module knows the io module. It must never know a transport.
"""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    Bytes = bytes | bytearray | memoryview

    class Stream(Protocol):
        """The part of `Connection` that its files use."""

        def read(self, size: int | None = -1, /) -> bytes:
            """Read exactly `size` bytes, fewer only at the end."""

        def read1(self, size: int = -1, /) -> bytes:
            """Read at least one byte and at most `size`."""

        def readline(self, limit: int | None = -1, /) -> bytes:
            """Read one line."""

        def write(self, data: Bytes, /) -> int:
            """Write all of `data`."""


__all__ = ["make_file"]


class _File(io.BufferedIOBase):
    """One file of a connection. It has no state except whether it is closed."""

    def __init__(
        self,
        connection: Stream,
        on_close: Callable[[], object],
        reads: bool,
        writes: bool,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._on_close = on_close
        self._reads = reads
        self._writes = writes

    def readable(self) -> bool:
        return self._reads

    def writable(self) -> bool:
        return self._writes

    def _check(self, allowed: bool, what: str) -> Stream:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not allowed:
            raise io.UnsupportedOperation(what)
        return self._connection

    def read(self, size: int | None = -1, /) -> bytes:
        return self._check(self._reads, "read").read(size)

    def read1(self, size: int = -1, /) -> bytes:
        return self._check(self._reads, "read1").read1(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._check(self._reads, "readline").readline(size)

    def write(self, data: Any, /) -> int:
        return self._check(self._writes, "write").write(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._on_close()


def make_file(
    connection: Stream,
    on_close: Callable[[], object],
    mode: str,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> io.BufferedIOBase | io.TextIOWrapper:
    """Return a file on `connection`; `on_close` is called when it is closed.

    Raises:
        ValueError: the mode is invalid for the file of a socket.
    """
    if not set(mode) <= set("rwb") or not set(mode) & set("rw"):
        raise ValueError(
            f"{mode!r} is not a mode for a connection: use 'r', 'w' or 'rw', with or "
            "without 'b'"
        )
    file = _File(connection, on_close, "r" in mode, "w" in mode)
    if "b" in mode:
        return file
    return io.TextIOWrapper(
        cast("IO[bytes]", file), encoding, errors, newline, line_buffering=True
    )
