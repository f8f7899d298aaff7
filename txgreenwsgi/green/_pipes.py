"""Files on pipes whose reading and writing parks: `io` as subprocess wants it.

A descriptor is asked whether it is ready before it is read or written, so it
may stay a blocking one, which another process shares. It knows descriptors.
"""

from __future__ import annotations

import io as _standard
import select
import warnings
from types import ModuleType
from typing import Any

from . import _events
from ._events import READ, WRITE
from ._place import here, may_park

__all__ = ["PipeFile", "io"]

_kernel_poll = select.poll
#: The most that a pipe takes for certain when poll says that it is writable.
_CERTAIN: int = getattr(select, "PIPE_BUF", 512)


class PipeFile(_standard.FileIO):
    """`io.FileIO` on a pipe, a terminal or a socket. Reading and writing may park."""

    def _wait(self, direction: int) -> None:
        task = here()
        if task is None:
            return
        fd = self.fileno()
        kernel = _kernel_poll()
        kernel.register(fd, select.POLLIN if direction == READ else select.POLLOUT)
        while not kernel.poll(0):
            if not may_park():
                return
            _events.wait_any(task, {fd: direction}, None, self)

    def readinto(self, buffer: Any, /) -> Any:
        """Read what there is, waiting for the first byte. May park."""
        self._wait(READ)
        return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> Any:
        """Read at most `size` bytes; all until the end, if negative. May park."""
        if size is None or size < 0:
            return self.readall()
        self._wait(READ)
        return super().read(size)

    def readall(self) -> Any:
        """Read until the end. May park."""
        pieces = []
        while piece := self.read(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, data: Any, /) -> Any:
        """Write some of `data`, as much as is certain not to block. May park."""
        if here() is None:
            return super().write(data)
        self._wait(WRITE)
        with memoryview(data) as view, view.cast("B") as flat:
            return super().write(flat[:_CERTAIN])

    def close(self) -> None:
        """Close the descriptor; whoever waits on it is told."""
        if self.closed or not self.closefd:
            super().close()
            return
        fd = self.fileno()
        _events.forget_number(fd)
        super().close()
        _events.tell_closed(fd)


def _open(
    file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any
) -> Any:
    """`io.open`, with green files for descriptors that are opened as bytes."""
    if not isinstance(file, int) or "b" not in mode or args or kwargs:
        return open(file, mode, buffering, *args, **kwargs)
    raw = PipeFile(file, mode.replace("b", ""))
    if buffering == 0:
        return raw
    if buffering == 1:
        warnings.warn(
            "line buffering is for text: this pipe gets a buffer of the usual size",
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
