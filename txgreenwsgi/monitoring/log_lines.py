"""The lines of the server log: text, a short form for development, and JSON.

Each line that a request causes has its id, whatever wrote it: Twisted's log, the
`logging` module, `print`, or `wsgi.errors`. The id is looked up when a line is written,
so requests that log nothing cost nothing.

It knows log events and the lines of the standard streams. It must never know files.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import (
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
    formatTime,
)

from txgreenwsgi.monitoring.log_format import iso_time
from txgreenwsgi.monitoring.log_levels import LogLevels
from txgreenwsgi.monitoring.traces import trace_id_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.logger import LogEvent

__all__ = ["AUTOMATIC", "LOG_FORMATS", "LogLines", "stream_line"]

#: The choice of `dev` in the foreground on a terminal, and of `text` elsewhere.
AUTOMATIC: Final = "auto"

#: The formats by name.
LOG_FORMATS: Final = ("text", "dev", "json")

_TIME_ONLY: Final = "%H:%M:%S"
_INDENT: Final = "    "

# Messages of Twisted that `dev` leaves out: the server says the same in one line.
_ROUTINE_NAMESPACES: Final = frozenset(
    ("twisted.scripts._twistd_unix.UnixAppLogger", "twisted.internet.base")
)
_PORT_CHANGE: Final = re.compile(r"\(.+ Port .+ Closed\)\Z|\S+ starting on \S+\Z")
_SHORT: Final = {"txgreenwsgi._wsgi.errors": "wsgi.errors", "log_legacy": "log"}
_LEGACY: Final = "log_legacy"  # twisted.python.log
_ROUTINE_LEVELS: Final = (LogLevel.debug, LogLevel.info)

# Parts of a traceback as Python prints it.
_TRACEBACK: Final = re.compile(
    r"\s*(\+ (Exception Group )?)?Traceback \(most recent call last\):"
)
_NEXT_EXCEPTION: Final = re.compile(
    r"During handling of the above exception, another exception occurred:"
    r"|The above exception was the direct cause of the following exception:"
)


class LogLines:
    """A function that turns a log event into text, for Twisted's `FileLogObserver`.

    Call in the task or thread that logs the event.

    Args:
        name: one of `LOG_FORMATS`.
        current_request: returns the id of the request to which the running code
            belongs, or None.
        current_traceparent: returns the Traceparent field of that request; "" without
            one.
        levels: the lowest level that is logged, by component.

    Raises:
        KeyError: there is no such format.
    """

    def __init__(
        self,
        name: str,
        current_request: Callable[[], str | None],
        current_traceparent: Callable[[], str] = str,
        levels: LogLevels | None = None,
    ) -> None:
        self._format = {"text": self._text, "dev": self._dev, "json": self._json}[name]
        self._current_request = current_request
        self._current_traceparent = current_traceparent
        self._levels = levels or LogLevels(())
        self._source: tuple[object, ...] | None = None
        self._traceback = _Traceback()

    def __call__(self, event: LogEvent) -> str | None:
        """Return the text for an event, with its newline; None to write nothing."""
        if not event.get("is_filtered") and not self._levels.allows(event):
            return None
        request_id = event.get("request_id")
        if request_id is None:
            request_id = self._current_request()
        return self._format(event, request_id)

    def _text(self, event: LogEvent, request_id: str | None) -> str | None:
        text = formatEventAsClassicLogText(event)
        if text is None or request_id is None:
            return text
        return _with_request(text, request_id)

    def _dev(self, event: LogEvent, request_id: str | None) -> str | None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        text = text.strip("\n")
        raw = stream_line(event)
        if not text and raw is None:
            return None
        if _is_routine(event, text):
            return None
        # A traceback on a standard stream arrives line by line.
        worker = _worker_of(event)
        source = (worker, event.get("log_namespace"), request_id)
        is_same_source = source == self._source
        if raw is None or not is_same_source:
            self._traceback.end()
        continues = False
        if raw is not None:
            continues = self._traceback.continues(raw) or bool(event.get("continues"))
            continues = continues and is_same_source
        self._source = source
        if continues:
            return f"{_INDENT}{raw}\n"
        if request_id is not None:
            text = _with_request(text, request_id)
        time = formatTime(event.get("log_time"), _TIME_ONLY)
        text = text.replace("\n", f"\n{_INDENT}")
        origin = "" if worker is None else f"{worker.partition(' (')[0]} "
        return f"{time} {origin}{_system(event)}: {text}\n"

    def _json(self, event: LogEvent, request_id: str | None) -> str | None:
        plain: Any = {"includeTimestamp": False, "includeSystem": False}
        message = eventAsText(event, includeTraceback=False, **plain)
        seconds = event.get("log_time")
        entry: dict[str, object] = {
            "time": None if seconds is None else iso_time(seconds),
            "level": getattr(event.get("log_level"), "name", None),
            "namespace": event.get("log_namespace"),
        }
        raw = stream_line(event)
        entry["message"] = message if raw is None else raw
        if request_id is not None:
            entry["request_id"] = request_id
        traceparent = event.get("traceparent") or self._current_traceparent()
        trace_id = trace_id_of(traceparent)
        if trace_id:
            entry["trace_id"] = trace_id
            entry["traceparent"] = traceparent
        worker = _worker_of(event)
        if worker is not None:
            entry["worker"] = worker
        if "log_failure" in event:
            everything = eventAsText(event, **plain)
            entry["traceback"] = everything[len(message) :].strip("\n")
        elif not message and raw is None:
            return None
        return json.dumps(entry) + "\n"


class _Traceback:
    """The recognition of the lines of a traceback that follow its first one.

    Its states are "outside", "inside" and "in group", and "after" the line of the
    exception, when the traceback of a chained exception may follow.
    """

    def __init__(self) -> None:
        self._state = "outside"

    def end(self) -> None:
        """Forget the traceback: a line of another source follows."""
        self._state = "outside"

    def continues(self, line: str) -> bool:
        """Return whether a line belongs to the same traceback as the line before."""
        state = self._state
        start = _TRACEBACK.match(line)
        if start and state != "in group":
            self._state = "inside" if start[1] is None else "in group"
            return state == "after"
        if state in ("inside", "in group"):
            if line[:1] in (" ", "\t"):
                return True
            # The exception itself, or the line after an exception group.
            self._state = "after" if state == "inside" else "outside"
            return state == "inside"
        # An empty line may introduce the next exception of a chain.
        if state == "after" and (not line or _NEXT_EXCEPTION.match(line)):
            return True
        self._state = "outside"
        return False


def stream_line(event: LogEvent) -> str | None:
    """Return the line that was written to a stream; None for another event."""
    line = event.get("log_io", event.get("stream_line"))  # of this process, of a worker
    if line is None and event.get("log_format", "").startswith("{line}"):
        line = event.get("line")  # of wsgi.errors
    return line if isinstance(line, str) else None


def _worker_of(event: LogEvent) -> str | None:
    """Return the name of the worker that has sent an event; None for another one.

    The master's own events may have a worker of another type as a fact.
    """
    worker = event.get("worker")
    return worker if isinstance(worker, str) else None


def _is_routine(event: LogEvent, text: str) -> bool:
    """Return whether `dev` leaves an event out."""
    if event.get("log_level") not in _ROUTINE_LEVELS or "log_failure" in event:
        return False
    return (
        bool(event.get("is_routine"))
        or event.get("log_namespace") in _ROUTINE_NAMESPACES
        or (event.get("log_namespace") == _LEGACY and bool(_PORT_CHANGE.match(text)))
    )


def _system(event: LogEvent) -> str:
    level = event.get("log_level")
    name = "-" if level is None else level.name
    namespace = event.get("log_namespace", "-")
    return f"{name} {_SHORT.get(namespace, namespace)}"


def _with_request(text: str, request_id: str) -> str:
    """Append the id to the first line, unless it is part of the line."""
    first, newline, rest = text.partition("\n")
    if request_id in first:
        return text
    return f"{first} (request {request_id}){newline}{rest}"
