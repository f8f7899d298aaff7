r"""The access log: one line for each finished request.

This file knows the two formats, the escaping and the file. It must never know
the wire or the server (a line is made from an `ExchangeRecord` alone), and
must never raise into the request that it tells of.

Everything that a client may choose is escaped, so that a line can be neither
split nor forged: control characters, quotes and backslashes leave as `\x0a`,
`\"` and `\\`.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["FORMATS", "AccessLog", "combined", "json_line"]

# Not strftime("%b"), which speaks the language of the machine's locale.
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)

# Outside of quotes a space separates fields, so there it is escaped as well.
_UNSAFE_QUOTED: Final = re.compile(r"[^ !#-\[\]-~]")
_UNSAFE_BARE: Final = re.compile(r"[^!#-\[\]-~]")


def _escape(unsafe: re.Match[str]) -> str:
    character = unsafe[0]
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _quoted(text: str) -> str:
    return _UNSAFE_QUOTED.sub(_escape, text) or "-"


def _bare(text: str) -> str:
    return _UNSAFE_BARE.sub(_escape, text) or "-"


def _common_log_time(second: int) -> str:
    t = time.gmtime(second)
    return (
        f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year:04d}"
        f":{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
    )


def combined(record: ExchangeRecord) -> str:
    """A line of Apache's combined format, then seconds taken and request id.

    The time is UTC. Without a size, a referer or a user agent there is a "-".
    The status is 000 when nothing was sent.
    """
    if record.method:
        request = f"{record.method} {record.target} {record.version}"
    else:
        request = ""  # the head was not one: Apache writes "-" then
    return (
        f"{_bare(record.remote_addr)} - - [{_common_log_time(int(record.started))}] "
        f'"{_quoted(request)}" {record.status:03d} {record.bytes_sent or "-"} '
        f'"{_quoted(record.referer)}" "{_quoted(record.user_agent)}" '
        f"{record.duration:.6f} {_bare(record.request_id)}\n"
    )


def json_line(record: ExchangeRecord) -> str:
    """A line that is one JSON object: the record's fields by their names.

    `started` leaves as `time`, in ISO 8601 and UTC with milliseconds; bytes
    of the client's that are not ASCII leave as the latin-1 character of the
    same number.
    """
    # Rounded once, as integers, lest 59.9996 s be written as :60.000.
    second, millisecond = divmod(round(record.started * 1000), 1000)
    t = time.gmtime(second)
    return (
        json.dumps(
            {
                "time": time.strftime(f"%Y-%m-%dT%H:%M:%S.{millisecond:03d}Z", t),
                "request_id": record.request_id,
                "remote_addr": record.remote_addr,
                "remote_port": record.remote_port,
                "method": record.method,
                "target": record.target,
                "version": record.version,
                "status": record.status,
                "bytes_sent": record.bytes_sent,
                "duration": round(record.duration, 6),
                "outcome": record.outcome,
                "referer": record.referer,
                "user_agent": record.user_agent,
            }
        )
        + "\n"
    )


#: The formats by the names that `--access-log-format` has for them.
FORMATS: Final[dict[str, Callable[[ExchangeRecord], str]]] = {
    "combined": combined,
    "json": json_line,
}

_STDOUT_FD: Final = 1


class AccessLog:
    """Writes a line for each finished request; give its `observe` to a server.

    Lines are collected and written by one system call a reactor turn. A file
    that was moved away or deleted (logrotate) is made anew within a turn, with
    no signal needed. While writing fails, as on a full disk, requests go on:
    the log of the process says so once, and tells how many lines were lost
    when writing works again.

    Args:
        target: Path of a file to append to, or "-" for the process's standard
            output. What it points at must take writes without delay (a file,
            or a pipe somebody reads): they happen in the reactor's thread.
        format_name: "combined" or "json".

    Raises:
        ValueError: there is no such format.
    """

    _log = Logger()

    def __init__(self, target: str, format_name: str = "combined") -> None:
        if format_name not in FORMATS:
            raise ValueError(
                f"there is no access log format {format_name!r}: "
                f"give {' or '.join(FORMATS)}"
            )
        self._target = target
        self._format = FORMATS[format_name]
        self._lines: list[str] = []
        self._clock: IReactorTime | None = None
        self._fd = -1
        self._identity = (0, 0)
        # Lines lost since writing last worked; above 0, writing fails.
        self._lost = 0
        # The file was moved away and the new one cannot be opened.
        self._stranded = False
        # The last byte in the file is not the end of a line.
        self._torn = False

    def open(self, clock: IReactorTime) -> None:
        """Open the file and begin to write. Call from the reactor greenlet.

        A relative path is relative to the directory that is current now.

        Raises:
            OSError: the file cannot be opened for appending.
        """
        if self._target == "-":
            # Not sys.stdout: under twistd that leads into the log.
            self._fd = _STDOUT_FD
        else:
            self._target = os.path.abspath(self._target)
            self._open_file()
        self._clock = clock

    def close(self) -> None:
        """Write what is left and close the file. Later records are ignored."""
        if self._clock is None:
            return
        self._flush()
        self._clock = None
        if self._lost:
            self._tell_of_lost_lines()
        if self._fd != _STDOUT_FD:
            os.close(self._fd)
        self._fd = -1

    def observe(self, record: ExchangeRecord) -> None:
        """Take note of a finished exchange. Never parks, never raises."""
        if self._clock is None:
            return
        if not self._lines:
            self._clock.callLater(0, self._flush)
        self._lines.append(self._format(record))

    def _open_file(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._target, flags, 0o644)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        status = os.fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        self._torn = False

    def _flush(self) -> None:
        """Write the lines collected since the last turn."""
        if self._clock is None or not self._lines:
            return  # closed since then, which has written them
        lines, self._lines = self._lines, []
        if self._target != "-":
            self._follow_rotation()
        self._write(lines)

    def _follow_rotation(self) -> None:
        """Open the file anew if the one we have is no longer at its path."""
        try:
            if not self._is_in_place():
                self._open_file()
        except OSError as error:
            # The old file is still open: better there than nowhere.
            if not self._stranded:
                self._stranded = True
                self._log.error(
                    "Access log: {path} was moved away and cannot be opened anew "
                    "({error}); going on in the old file",
                    path=self._target,
                    error=error,
                )
        else:
            if self._stranded:
                self._stranded = False
                self._log.info("Access log: {path} is open again", path=self._target)

    def _is_in_place(self) -> bool:
        try:
            status = os.stat(self._target)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _write(self, lines: list[str]) -> None:
        """Write lines, and keep count of those that cannot be."""
        begin = b"\n" if self._torn else b""
        data = begin + "".join(lines).encode("ascii")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            written = data[: len(data) - len(rest)]
            whole_lines = written[len(begin) :].count(b"\n")
            if written:
                self._torn = not written.endswith(b"\n")
            if not self._lost:
                self._log.error(
                    "Access log: {path} cannot be written ({error}); lines are "
                    "lost until it can",
                    path=self._target,
                    error=error,
                )
            self._lost += len(lines) - whole_lines
        else:
            self._torn = False
            if self._lost:
                self._tell_of_lost_lines()

    def _tell_of_lost_lines(self) -> None:
        lost, self._lost = self._lost, 0
        self._log.error(
            "Access log: {lost} lines were lost from {path}",
            lost=lost,
            path=self._target,
        )
