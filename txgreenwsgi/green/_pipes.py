"""Files on pipes whose reads and writes park: the `io` module for `subprocess`.

A descriptor is polled before each read and write, so it can stay in blocking mode,
which another process may share. It knows descriptors; it must never know processes.
"""

from __future__ import annotations

import io as _standard
import select
import warnings
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from txgreenwsgi._parking import descriptors
from txgreenwsgi._parking.descriptors import READ, WRITE
from txgreenwsgi._parking.waits import may_park
from txgreenwsgi._switching.running import current_task

if TYPE_CHECKING:
    from _typeshed import FileDescriptorOrPath, ReadableBuffer, WriteableBuffer

__all__ = ["PipeFile", "io"]

_kernel_poll = select.poll
#: Number of bytes that a pipe accepts without blocking when poll reports it writable.
_ATOMIC_WRITE_BYTES: int = getattr(select, "PIPE_BUF", 512)


class PipeFile(_standard.FileIO):
    """`io.FileIO` on a pipe, a terminal or a socket. Reading and writing may park."""

    def _wait(self, direction: int) -> None:
        task = current_task()
        if task is None:
            return
        fd = self.fileno()
        kernel = _kernel_poll()
        kernel.register(fd, select.POLLIN if direction == READ else select.POLLOUT)
        while not kernel.poll(0):
            if not may_park():
                return
            descriptors.wait_any(task, {fd: direction}, None, self)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read the available data; wait for the first byte. May park."""
        self._wait(READ)
        return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes; if negative, all up to EOF. May park."""
        if size is None or size < 0:
            return self.readall()
        self._wait(READ)
        return super().read(size)

    def readall(self) -> bytes:
        """Read up to EOF. May park."""
        pieces = []
        while piece := self.read(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write as much of `data` as cannot block; return its length. May park."""
        if current_task() is None:
            return super().write(data)
        self._wait(WRITE)
        with memoryview(data) as view, view.cast("B") as flat:
            return super().write(flat[:_ATOMIC_WRITE_BYTES])

    def close(self) -> None:
        """Close the descriptor; its waiters get EBADF."""
        if self.closed or not self.closefd:
            super().close()
            return
        fd = self.fileno()
        descriptors.unregister_fd(fd)
        super().close()
        descriptors.wake_poll_waiters(fd)


def _open(
    file: FileDescriptorOrPath,
    mode: str = "r",
    buffering: int = -1,
    *args: Any,
    **kwargs: Any,
) -> IO[Any]:
    """As `io.open`; descriptors opened in binary mode become green files."""
    if not isinstance(file, int) or "b" not in mode or args or kwargs:
        return open(file, mode, buffering, *args, **kwargs)
    raw = PipeFile(file, mode.replace("b", ""))
    if buffering == 0:
        return raw
    if buffering == 1:
        warnings.warn(
            "line buffering (buffering=1) is not supported in binary mode: the default "
            "buffer size is used",
            RuntimeWarning,
            stacklevel=3,
        )
    size = _standard.DEFAULT_BUFFER_SIZE if buffering in (-1, 1) else buffering
    if "r" in mode:
        return _standard.BufferedReader(raw, size)
    return _standard.BufferedWriter(raw, size)


io: Any = ModuleType("io", _standard.__doc__)
io.__dict__.update(
    {name: value for name, value in vars(_standard).items() if name != "open"}
)
io.open = _open
