"""`sys.stdout` and `sys.stderr` for applications: text streams that write to the log.

twistd replaces both by objects that only have `write`. The streams of this file are
`io.TextIOWrapper`s with a binary buffer and a descriptor; each line is one log event,
with the id of the request that printed it.

Knows the log. Must never park, and must never raise
because of the log: any code prints, logging handlers and `except` blocks included.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

from greenlet import getcurrent
from twisted.logger import LoggingFile

from txgreenwsgi._parking.real_threads import thread_ident

from .errors import current_errors
from .log_descriptor import STDERR_FD, follow_rotation, is_null_device
from .partial_lines import PartialLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import ReadableBuffer as Buffer
    from greenlet import greenlet

    from .errors import Errors
    from .partial_lines import PartialLines

__all__ = ["LogStream", "end_partial_lines", "replace_standard_streams"]


#: The greenlets in which a line of either stream is being logged.
_logging: set[greenlet] = set()


class _LogBuffer(io.BufferedIOBase):
    """The binary buffer below a `LogStream`.

    Args:
        target: the object that twistd put in the place of the stream.
        original: the stream that twistd replaced; None if there was none.
        fd: the descriptor that the stream has in other programs.

    Attributes:
        mode: as in the original streams.
        name: as in the original streams.
        encoding: of the bytes that are written.
    """

    mode = "wb"

    def __init__(self, target: LoggingFile, original: IO[str] | None, fd: int) -> None:
        self._target = target
        self._original = original
        self._fd = fd
        self._null_fd = -1
        self.name = "<stderr>" if fd == STDERR_FD else "<stdout>"
        self.encoding = "utf-8"

    # The interface of a raw file; there is no further buffer to bypass.

    @property
    def raw(self) -> io.RawIOBase:
        """The buffer itself: it passes bytes on at once."""
        return cast("io.RawIOBase", self)

    def fileno(self) -> int:
        """Return a descriptor that stays open. It bypasses the log of the process.

        In a daemon that logs to a file, it appends to that file.
        """
        if follow_rotation():
            return STDERR_FD
        if self._original is not None:
            with suppress(OSError, ValueError):  # redirected, or closed
                fd = self._original.fileno()
                os.fstat(fd)
                return fd
        # The program was started without this stream. Its descriptor may belong to
        # a socket by now, unless a daemon has opened the null device.
        if is_null_device(self._fd):
            return self._fd
        if self._null_fd < 0:
            self._null_fd = os.open(os.devnull, os.O_WRONLY)
        return self._null_fd

    def isatty(self) -> bool:
        """Return False: the log is not a terminal."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: object, /) -> int:
        """Log the complete lines of `data` and keep the rest. Never parks.

        Raises:
            TypeError: `data` is not a bytes-like object.
        """
        if isinstance(data, str):
            raise TypeError("a bytes-like object is required, not 'str'")
        with memoryview(cast("Buffer", data)) as view:
            copy = view.tobytes()
        if not self._bypass(copy):
            self._write(lambda line: line.add_bytes(copy, self.encoding))
        return len(copy)

    def write_text(self, text: str) -> None:
        """Log the complete lines of `text` and keep the rest. Never parks."""
        if not self._bypass(text):
            self._write(lambda line: line.add(text))

    def flush(self) -> None:
        """Log the partial line of this request or thread, if there is one."""
        line = _partial_lines(current_errors.get()).pop((self, thread_ident()), None)
        if line is not None:
            line.end()

    def close(self) -> None:
        """Flush. The stream belongs to all applications of the process."""
        self.flush()

    def _bypass(self, data: bytes | str) -> bool:
        """Write to the descriptor if a log observer prints while it logs a line.

        Otherwise that line would be logged too, and so on. The observer runs in the
        greenlet that printed the first line.
        """
        if _current() not in _logging:
            return False
        self._write_descriptor(data)
        return True

    def _write_descriptor(self, data: bytes | str) -> None:
        if isinstance(data, str):
            data = data.encode(self.encoding, "backslashreplace")
        with suppress(OSError):
            while data:
                data = data[os.write(self.fileno(), data) :]

    def _write(self, add: Callable[[PartialLine], object]) -> None:
        errors = current_errors.get()
        lines = _partial_lines(errors)
        key = self, thread_ident()
        # While its lines are logged, the object belongs to this call only: a log
        # observer may park, and another task of the request may print meanwhile.
        line = lines.pop(key, None)
        if line is None:
            request_id = None if errors is None else errors.request_id
            line = PartialLine(partial(self._emit, request_id))
        add(line)
        if not line.is_empty:
            lines[key] = line

    def _emit(self, request_id: str | None, line: str, continues: bool) -> None:
        target = self._target
        current = _current()
        if current is None:
            self._write_descriptor(line + "\n")
            return
        _logging.add(current)
        try:
            if request_id is None:
                target.log.emit(
                    target.level, "{log_io}", log_io=line, continues=continues
                )
            else:
                target.log.emit(
                    target.level,
                    "{log_io} (request {request_id})",
                    log_io=line,
                    request_id=request_id,
                    continues=continues,
                )
        finally:
            _logging.discard(current)


def _current() -> greenlet | None:
    """Return the current greenlet; None while the interpreter ends."""
    try:
        return getcurrent()
    except RuntimeError:
        return None


class LogStream(io.TextIOWrapper):
    """A text stream whose lines become log events.

    Encodes as UTF-8 and escapes what cannot be encoded, unless the application calls
    `reconfigure`. `flush` logs an unfinished line, `close` only flushes.

    Args:
        target: the object that twistd put in the place of the stream.
        original: the stream that twistd replaced; None if there was none.
        fd: the descriptor that the stream has in other programs, 1 or 2.
    """

    mode = "w"

    def __init__(self, target: LoggingFile, original: IO[str] | None, fd: int) -> None:
        super().__init__(
            cast("IO[bytes]", _LogBuffer(target, original, fd)),
            encoding="utf-8",
            errors="backslashreplace",
            newline="\n",
            line_buffering=True,
            write_through=True,
        )

    def write(self, text: str, /) -> int:
        """Log the complete lines of `text` and keep the rest. Never parks.

        Raises:
            TypeError: `text` is not a string.
            UnicodeEncodeError: the application has chosen an encoding or an error
                handler that does not allow this text.
            ValueError: the stream is detached.
        """
        if not isinstance(text, str):
            name = type(text).__name__
            raise TypeError(f"write() argument must be str, not {name}")
        buffer = self._attached()
        written = text
        if not text.isascii():
            encoding, errors = self.encoding, self.errors or "strict"
            written = text.encode(encoding, errors).decode(encoding, "replace")
        buffer.write_text(written)
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        """Write each string of `lines`; no newlines are added."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log the partial line of this request or thread, if there is one."""
        self._attached().flush()

    def close(self) -> None:
        """Flush. The stream belongs to all applications of the process."""
        if getattr(self, "buffer", None) is not None:
            self.flush()

    def reconfigure(self, **options: Any) -> None:
        """Change the encoding, the error handler and so on."""
        buffer = self._attached()
        super().reconfigure(**options)
        buffer.encoding = self.encoding

    def _attached(self) -> _LogBuffer:
        buffer = cast("_LogBuffer | None", getattr(self, "buffer", None))
        if buffer is None:
            raise ValueError("underlying buffer has been detached")
        return buffer


#: Partial lines that belong to no request.
_thread_lines: PartialLines = {}


def _partial_lines(errors: Errors | None) -> PartialLines:
    """Return the partial lines of a request; None for code outside of requests."""
    if errors is None:
        return _thread_lines
    if errors.partial_output is None:
        errors.partial_output = {}
    return errors.partial_output


def replace_standard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` if twistd redirects them to its log.

    Other objects, such as those of a test runner, stay. Call after the redirection;
    further calls are no-ops.
    """
    for name, fd in ("stdout", 1), ("stderr", STDERR_FD):
        stream = getattr(sys, name)
        if type(stream) is LoggingFile:
            original = getattr(sys, f"__{name}__")
            setattr(sys, name, LogStream(stream, original, fd))


def end_partial_lines() -> None:
    """Log the unfinished lines of code outside of requests.

    Call before the log ends.
    """
    while _thread_lines:
        _thread_lines.popitem()[1].end()
