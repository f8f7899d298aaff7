"""The log of the workers, which the master writes with its own.

So the lines of all processes are in one place, whatever observers twistd has: standard
output, a file that is rotated, syslog. Neither side ever waits for the other: a worker
keeps a bounded number of bytes while the master does not read, discards further lines
and counts them.

It knows log events and sockets. It must never know what is logged.
"""

from __future__ import annotations

import json
import os
import select
import time
from _thread import allocate_lock
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import (
    ILogObserver,
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from zope.interface import implementer

from txgreenwsgi._wsgi.errors import current_errors
from txgreenwsgi.monitoring.log_levels import LogLevels
from txgreenwsgi.monitoring.log_lines import stream_line

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorFDSet
    from twisted.logger import LogEvent
    from twisted.python.failure import Failure

__all__ = ["MAX_UNSENT_BYTES", "LogReader", "LogSender"]

# Bound at import: the application patches `select` later.
_poll = select.poll

#: Maximum number of bytes that wait for the master.
MAX_UNSENT_BYTES: Final = 1 << 20

#: Time to wait for the master when the worker ends.
_FLUSH_SECONDS: Final = 1.0

_READ_BYTES: Final = 1 << 16

#: Maximum number of bytes of one line.
_MAX_LINE_BYTES: Final = 1 << 18

_STDERR_FD: Final = 2

# Keys of events that `txgreenwsgi.monitoring.log_lines` uses.
_EXTRAS: Final = (
    *("request_id", "traceparent", "continues", "is_routine", "stream_line"),
)


@implementer(ILogObserver)
class LogSender:
    """The log observer of a worker. Call from any thread; never parks or raises.

    When the master has ended, lines go to standard error.

    Args:
        connected: a stream socket; owned by the sender.
        name: the name of the worker, for lines on standard error.
    """

    def __init__(self, connected: socket.socket, name: str) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._name = name
        # Not `threading.Lock`, which parks tasks if it is patched.
        self._lock = allocate_lock()
        self._lines: deque[bytes] = deque()
        self._unsent = 0
        self._lost = 0
        self._closed = False
        # None until the options are known: the master then applies its own.
        self._levels: LogLevels | None = None

    def set_levels(self, words: Iterable[str]) -> None:
        """Send only lines of these levels, and exempt them from the master's.

        A reload may have changed the levels, while the master keeps those of its start.

        Args:
            words: as for `LogLevels`.
        """
        self._levels = LogLevels(words)

    def __call__(self, event: LogEvent) -> None:
        """Send an event."""
        levels = self._levels
        if levels is not None and not levels.allows(event):
            return
        level = event.get("log_level", LogLevel.info)
        record = {
            "time": event.get("log_time") or time.time(),
            "level": level.name,
            "namespace": event.get("log_namespace") or "",
            "system": event.get("log_system") or "",
            "text": eventAsText(event, includeTimestamp=False, includeSystem=False),
            **_extras(event),
        }
        if levels is not None:
            record["is_filtered"] = True
        line = json.dumps(record).encode("ascii") + b"\n"
        if len(line) > _MAX_LINE_BYTES:
            record["text"] = record["text"][: _MAX_LINE_BYTES // 12] + " [truncated]"
            line = json.dumps(record).encode("ascii") + b"\n"
        with self._lock:
            if self._closed:
                self._write_to_stderr(line)
                return
            if self._unsent + len(line) > MAX_UNSENT_BYTES:
                self._lost += 1
            else:
                self._lines.append(line)
                self._unsent += len(line)
            self._send()

    def flush(self) -> None:
        """Send what the socket accepts of the lines that wait."""
        with self._lock:
            self._send()

    def finish(self) -> None:
        """Send the remaining lines; wait for the master for a second at most."""
        end = time.monotonic() + _FLUSH_SECONDS
        while True:
            with self._lock:
                self._send()
                if not self._lines or self._closed or time.monotonic() > end:
                    return
            time.sleep(0.01)

    def forget(self) -> None:
        """Leave the socket to the parent process. Call in the child of a fork."""
        self._socket.detach()
        self._lines.clear()
        self._closed = True

    def _send(self) -> None:
        while self._lines and not self._closed:
            try:
                sent = self._socket.send(self._lines[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._closed = True
                for line in self._lines:
                    self._write_to_stderr(line)
                self._lines.clear()
                return
            self._unsent -= sent
            if sent < len(self._lines[0]):
                self._lines[0] = self._lines[0][sent:]
                continue
            self._lines.popleft()
            if self._lost and not self._lines:
                lost, self._lost = self._lost, 0
                record = _plain(
                    f"{lost} log lines were lost: the master did not read them"
                )
                line = json.dumps(record).encode("ascii") + b"\n"
                self._lines.append(line)
                self._unsent += len(line)

    def _write_to_stderr(self, line: bytes) -> None:
        try:
            event = _event(json.loads(line), self._name)
        except ValueError:  # the rest of a line that was sent in part
            return
        text = formatEventAsClassicLogText(event) or ""
        data = text.encode("utf-8", "backslashreplace")
        waiting = _poll()
        waiting.register(_STDERR_FD, select.POLLOUT)
        try:
            # A pipe that is ready takes as much without blocking.
            while data and waiting.poll(0) == [(_STDERR_FD, select.POLLOUT)]:
                data = data[os.write(_STDERR_FD, data[: select.PIPE_BUF]) :]
        except OSError:
            self._lost += 1
        else:
            self._lost += bool(data)


@implementer(IReadDescriptor)
class LogReader:
    """The master's end: it logs the lines of one worker.

    Call from the reactor greenlet.

    Args:
        connected: a stream socket; owned by the reader.
        reactor: watches the socket.
        name: the name of the worker.

    Attributes:
        name: as given; it may change.
    """

    def __init__(
        self, connected: socket.socket, reactor: IReactorFDSet, name: str
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._reactor = reactor
        self.name = name
        self._input = b""
        self._open = True
        reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor; -1 if the reader is closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the name for Twisted's log lines."""
        return self.name

    def doRead(self) -> None:
        """Log the lines that have arrived."""
        self._read()

    def _read(self) -> bool:
        """Log what has arrived; return False if nothing has."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                # The child of a fork has written to the same socket meanwhile.
                record = _plain(line.decode("ascii", "replace"))
            globalLogPublisher(_event(record, self.name))
        return True

    def finish(self) -> None:
        """Log the remaining lines of a worker that has ended, and close."""
        while self._open and self._read():
            pass
        self.close()

    def connectionLost(self, reason: Failure) -> None:
        """Close when the reactor stops."""
        self.finish()

    def close(self) -> None:
        """Close the socket. A no-op if it is closed."""
        if self._open:
            self._open = False
            self._reactor.removeReader(self)
            self._socket.close()


def _extras(event: LogEvent) -> dict[str, Any]:
    """Return the facts about an event that formats of the log use."""
    extras = {key: event[key] for key in _EXTRAS if event.get(key)}
    errors = current_errors.get()
    if errors is not None:
        extras.setdefault("request_id", errors.request_id)
        traceparent = getattr(errors, "traceparent", "")
        if traceparent:
            extras.setdefault("traceparent", traceparent)
    line = stream_line(event)
    if line is not None:
        extras["stream_line"] = line
    return extras


def _plain(text: str) -> dict[str, Any]:
    """Return the record of a text without level and time."""
    return {
        "time": time.time(),
        "level": "warn",
        "namespace": __name__,
        "system": "",
        "text": text,
    }


def _event(record: dict[str, Any], name: str) -> LogEvent:
    """Return the event for the master's log."""
    system = record["system"]
    if not system or system == "-":
        system = f"{record['namespace']}#{record['level']}"
    return {
        "log_time": record["time"],
        "log_level": LogLevel.levelWithName(record["level"]),
        "log_namespace": record["namespace"],
        "log_source": None,
        "log_system": f"{name} {system}",
        "log_format": "{worker_text}",
        "worker_text": record["text"],
        "worker": name,
        "is_filtered": record.get("is_filtered", False),
        **{key: record[key] for key in _EXTRAS if key in record},
    }
