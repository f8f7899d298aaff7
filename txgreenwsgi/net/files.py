"""The files that `Connection.makefile` makes: one connection may have several.

It knows the io module. It must never know transports.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection

__all__ = ["make_file"]


class _File(io.BufferedIOBase):
    """One file of a connection. It has nothing of its own but its end."""

    def __init__(
        self,
        connection: Connection,
        tell_closed: Callable[[], object],
        reads: bool,
        writes: bool,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._tell_closed = tell_closed
        self._reads = reads
        self._writes = writes

    def readable(self) -> bool:
        return self._reads

    def writable(self) -> bool:
        return self._writes

    def _check(self, allowed: bool, what: str) -> Connection:
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
            self._tell_closed()


def make_file(
    connection: Connection,
    tell_closed: Callable[[], object],
    mode: str,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> Any:
    """A file on `connection`; `tell_closed` is called at its end.

    Raises:
        ValueError: the mode is none that a socket's file has.
    """
    if not set(mode) <= set("rwb") or not set(mode) & set("rw"):
        raise ValueError(
            f"{mode!r} is no mode for a connection: give 'r', 'w' or 'rw', with or "
            "without 'b'"
        )
    connection._file_opened()
    file = _File(connection, tell_closed, "r" in mode, "w" in mode)
    if "b" in mode:
        return file
    return io.TextIOWrapper(file, encoding, errors, newline, line_buffering=True)
