"""The access log: one line for each finished request.

It knows the formats with a name, and the file. It must never know the wire or
the server (it formats lines from an `ExchangeRecord` alone), and must never raise an
exception into the request that it records.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Final, cast

from twisted.logger import Logger

from txgreenwsgi.monitoring.log_format import (
    FormatError,
    bare,
    common_log_time,
    compiled,
    iso_time,
    needs_of_format,
    quoted,
    request_line,
    user_of,
)
from txgreenwsgi.monitoring.path_patterns import PathPatterns
from txgreenwsgi.monitoring.traces import trace_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IReactorCore, IReactorTime

    from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["FORMATS", "AccessLog", "combined", "common", "format_named", "json_line"]

_log = Logger()


def combined(record: ExchangeRecord) -> str:
    """Return a line in Apache's combined format, with duration and request id.

    The time is UTC, the duration is in seconds. A missing user, size, referer or user
    agent is "-". The status is 000 if no response was sent.
    """
    return (
        f'{_common(record)} "{quoted(record.referer)}" "{quoted(record.user_agent)}" '
        f"{record.duration:.6f} {bare(record.request_id)}\n"
    )


def common(record: ExchangeRecord) -> str:
    """Return a line in the Common Log Format: `%h %l %u %t "%r" %>s %b`."""
    return f"{_common(record)}\n"


def _common(record: ExchangeRecord) -> str:
    return (
        f"{bare(record.remote_addr)} - {bare(user_of(record))} "
        f"[{common_log_time(int(record.started))}] "
        f'"{quoted(request_line(record))}" {record.status:03d} '
        f"{record.bytes_sent or '-'}"
    )


def json_line(record: ExchangeRecord) -> str:
    """Return a line with one JSON object: the fields of the record by name.

    `started` becomes `time`, in ISO 8601 and UTC with milliseconds. Non-ASCII bytes
    from the client become the latin-1 characters of the same number.
    """
    return (
        json.dumps(
            {
                "time": iso_time(record.started),
                "request_id": record.request_id,
                "remote_addr": record.remote_addr,
                "remote_port": record.remote_port,
                "user": user_of(record),
                "method": record.method,
                "target": record.target,
                "version": record.version,
                "status": record.status,
                "bytes_sent": record.bytes_sent,
                "duration": round(record.duration, 6),
                "queued": round(record.queued, 6),
                "waiting": round(record.waiting, 6),
                "blocked": round(record.blocked, 6),
                "outcome": record.outcome,
                "referer": record.referer,
                "user_agent": record.user_agent,
                "traceparent": record.traceparent,
                "trace_id": trace_id_of(record.traceparent),
            }
        )
        + "\n"
    )


#: The formats with a name, and the function for each.
FORMATS: Final[dict[str, Callable[[ExchangeRecord], str]]] = {
    "combined": combined,
    "common": common,
    "json": json_line,
}


def format_named(form: str) -> Callable[[ExchangeRecord], str]:
    """Return the function for a name of `FORMATS`, or for directives of Apache.

    Raises:
        FormatError: there is no such format, or it contains an unknown directive.
    """
    if form in FORMATS:
        return FORMATS[form]
    if "%" not in form:
        raise FormatError(
            "is not a format",
            f"give {', '.join(FORMATS)}, or directives of Apache, such as '%h %r %s'",
        )
    return compiled(form)


_STDOUT_FD: Final = 1


def _is_null_device(fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    except OSError:
        return False


def _is_permitted(path: str, mode: int) -> bool:
    # By the user that files are opened as, where the system can tell.
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


class AccessLog:
    """An observer that appends a line to a file for each finished request.

    `service()`, `GreenSite` and `GreenWSGIResource` take `access_log=`, and then open
    and close an access log of their own. To share one log among several servers, pass
    its `observe` to each of them in `observers` and call `open_until_shutdown`.

    Lines are buffered, and written with one system call per reactor turn. A file that
    was moved or deleted (logrotate) is created again within a turn, without a signal.
    While writing fails, for example on a full disk, requests are still served: the
    first failure is logged, and the number of lost lines when writing works again.

    Args:
        target: the path of a file to append to, or "-" for the standard output of
            the process. It must accept writes without delay (a file, or a pipe with
            an active reader): writes block the reactor.
        format_name: "combined", "common", "json", or directives of Apache, such as
            `%h %t "%r" %>s %b %{X-Request-Id}o`.
        skip: patterns of paths whose requests are left out, such as `/health` or
            `/internal/*`.

    Attributes:
        needs: the optional fields of a record that the format uses.

    Raises:
        ValueError: the format is unknown or contains an unknown directive, or a pattern
            is no path.
    """

    def __init__(
        self, target: str, format_name: str = "combined", skip: Iterable[str] = ()
    ) -> None:
        try:
            self._format = format_named(format_name)
        except FormatError as error:
            raise ValueError(f"the access log format {format_name!r} {error}") from None
        self.needs = needs_of_format(format_name)
        self._target = target
        patterns = PathPatterns(skip)
        self._skips = patterns.match if patterns else None
        self._lines: list[str] = []
        self._clock: IReactorTime | None = None
        self._fd = -1
        self._identity = (0, 0)
        # Lines lost since the last successful write; above 0 while writes fail.
        self._lost = 0
        # The file was moved and the new one cannot be opened.
        self._reopen_failed = False
        # A failed write left a partial line at the end of the file.
        self._ends_in_partial_line = False

    def prepare(self) -> None:
        """Resolve a relative path, and check that `open` can succeed. Never parks.

        Creates no file and opens none: to open a pipe and close it would end its
        reader. `open` may still raise.

        Raises:
            OSError: the file cannot be opened for appending.
        """
        if self._target == "-":
            return
        self._target = path = os.path.abspath(self._target)
        directory = os.path.dirname(path)
        number = 0
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            if not os.path.isdir(directory):
                raise
            if not _is_permitted(directory, os.W_OK | os.X_OK):
                number = errno.EACCES
        else:
            if stat.S_ISDIR(mode):
                number = errno.EISDIR
            elif not _is_permitted(path, os.W_OK):
                number = errno.EACCES
        if number:
            raise OSError(number, os.strerror(number), path)

    def open(self, clock: IReactorTime) -> None:
        """Open the file and start recording. Call from the reactor greenlet.

        A relative path is relative to the current working directory of this call.

        Args:
            clock: schedules the writes.

        Raises:
            OSError: the file cannot be opened for appending.
        """
        if self._target == "-":
            # Not sys.stdout, which twistd redirects to its log.
            self._fd = _STDOUT_FD
            if _is_null_device(_STDOUT_FD):
                _log.warn(
                    "access log: standard output is {path}, as in a daemon, so all "
                    "lines are lost; give a file instead of '-'",
                    path=os.devnull,
                )
        else:
            self._target = os.path.abspath(self._target)
            self._open_file()
        self._clock = clock

    def close(self) -> None:
        """Write the buffered lines and close the file. Later records are ignored."""
        if self._clock is None:
            return
        self._flush()
        self._clock = None
        if self._lost:
            self._log_lost_lines()
        if self._fd != _STDOUT_FD:
            os.close(self._fd)
        self._fd = -1

    def reopen(self) -> None:
        """Open the file at the path again if the open one was moved or deleted.

        Not necessary for a rotation, since `observe` does the same: it creates the new
        file without waiting for the next request. Call from the reactor greenlet. A
        no-op for standard output, and while the log is closed. Never raises: if the
        file cannot be opened, that is logged and the old file stays open.
        """
        if self._clock is not None and self._target != "-":
            self._follow_rotation()

    def open_until_shutdown(self, reactor: IReactorCore) -> None:
        """Open the file now, and close it when the reactor has shut down.

        Args:
            reactor: the running reactor; it also schedules the writes.

        Raises:
            OSError: the file cannot be opened for appending.
        """
        self.open(cast("IReactorTime", reactor))
        reactor.addSystemEventTrigger("after", "shutdown", self.close)

    def observe(self, record: ExchangeRecord) -> None:
        """Record a finished exchange. Never parks or raises."""
        if self._clock is None:
            return
        if self._skips is not None and self._skips(record):
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
        self._ends_in_partial_line = False

    def _flush(self) -> None:
        """Write the lines buffered since the last turn."""
        if self._clock is None or not self._lines:
            return  # `close` has written them
        lines, self._lines = self._lines, []
        if self._target != "-":
            self._follow_rotation()
        self._write(lines)

    def _follow_rotation(self) -> None:
        """Reopen the file if the open one is no longer at its path."""
        try:
            if not self._is_in_place():
                self._open_file()
        except OSError as error:
            # The old file is still open and receives the lines.
            if not self._reopen_failed:
                self._reopen_failed = True
                _log.error(
                    "access log: {path} was moved and cannot be reopened ({error}); "
                    "still writing to the old file",
                    path=self._target,
                    error=error,
                )
        else:
            if self._reopen_failed:
                self._reopen_failed = False
                _log.info("access log: {path} is open again", path=self._target)

    def _is_in_place(self) -> bool:
        try:
            status = os.stat(self._target)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _write(self, lines: list[str]) -> None:
        """Write lines, and count the lost ones."""
        begin = b"\n" if self._ends_in_partial_line else b""
        data = begin + "".join(lines).encode("ascii")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            written = data[: len(data) - len(rest)]
            whole_lines = written[len(begin) :].count(b"\n")
            if written:
                self._ends_in_partial_line = not written.endswith(b"\n")
            if not self._lost:
                _log.error(
                    "access log: cannot write to {path} ({error}); lines are lost "
                    "until writing works again",
                    path=self._target,
                    error=error,
                )
            self._lost += len(lines) - whole_lines
        else:
            self._ends_in_partial_line = False
            if self._lost:
                self._log_lost_lines()

    def _log_lost_lines(self) -> None:
        lost, self._lost = self._lost, 0
        _log.error(
            "access log: {lost} lines of {path} were lost",
            lost=lost,
            path=self._target,
        )
