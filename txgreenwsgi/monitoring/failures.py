"""Recent failures of the application, with their tracebacks.

Equal failures are one entry with a number, so that a storm of one failure leaves the
others in place, and is cheap. It knows exceptions. It must never know the server.
"""

from __future__ import annotations

import os
import traceback
from _thread import allocate_lock
from collections import OrderedDict
from dataclasses import dataclass, replace
from time import time
from typing import TYPE_CHECKING, Final

from .stacks import CodeLine, application_line

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "MOST_FAILURES",
    "FailureLog",
    "RecentFailure",
    "failures",
    "recent_failures",
]

#: Maximum number of entries; beyond it, the one whose last failure is oldest goes.
MOST_FAILURES: Final = 50

#: Maximum number of characters of a traceback. Its middle is left out.
_MOST_CHARACTERS: Final = 12_000

#: Maximum number of characters of the text of an exception.
_MOST_ERROR_CHARACTERS: Final = 300

#: Maximum number of frames of which a place is chosen.
_MOST_FRAMES: Final = 200

#: Interval at which the traceback of a repeated failure is formatted again.
_FORMAT_SECONDS: Final = 1.0


@dataclass(frozen=True)
class RecentFailure:
    """Failures of the same kind at the same line.

    The text of exceptions may contain data of clients: escape it before output.

    Attributes:
        failure_id: identity of the entry, unique across processes.
        error: the exception of the last one, such as "ValueError: invalid id".
        place: the line of the application, such as "shop/views.py:17 in detail"; "" if
            it is unknown.
        count: the number of failures.
        first: the time of the first one, in seconds since 1970 (UTC).
        last: the time of the last one.
        request_id: identity of the last request.
        method: the method of the last request.
        path: the decoded path of the last request.
        traceback: the traceback of the last failure, or of one up to a second earlier.
    """

    failure_id: str
    error: str
    place: str
    count: int
    first: float
    last: float
    request_id: str
    method: str
    path: str
    traceback: str


class FailureLog:
    """The recent failures of one process. Call from any thread; never parks.

    Only `str` of an exception may: it is code of the application.
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._entries: OrderedDict[object, _Entry] = OrderedDict()
        self._prefix = ""
        self._count = 0
        self._changes = 0

    def add(
        self, error: BaseException, request_id: str, method: str, path: str
    ) -> None:
        """Add an exception that ended a request. Keeps no reference to it.

        A no-op if the last failure of its kind is that of the same request.
        """
        line = _place(error.__traceback__)
        key = type(error), line
        known = self._entries.get(key)
        if known is not None and known.failure.request_id == request_id:
            return
        self._note(key, _described(error), line, request_id, method, path, error, "")

    def add_text(
        self, error: str, text: str, request_id: str, method: str, path: str
    ) -> None:
        """Add a failure without an exception, such as a timeout.

        Args:
            error: its description, without details of the request.
            text: in place of the traceback, such as the stack of the request.
            request_id: identity of the request.
            method: its method.
            path: its decoded path.
        """
        self._note((error, path), error, None, request_id, method, path, None, text)

    def _note(
        self,
        key: object,
        error: str,
        line: CodeLine | None,
        request_id: str,
        method: str,
        path: str,
        exception: BaseException | None,
        text: str,
    ) -> None:
        now = time()
        with self._lock:
            known = self._entries.get(key)
            formatted = "" if known is None else known.failure.traceback
            must_format = known is None or now - known.formatted >= _FORMAT_SECONDS
        if must_format:
            # Without the lock: it runs code of the application, which may park.
            formatted = _shortened(text if exception is None else _formatted(exception))
        with self._lock:
            entry = self._entries.get(key) or self._new_entry(key, error, line, now)
            self._entries.move_to_end(key)
            if must_format:
                entry.formatted = now
            self._changes += 1
            entry.change = self._changes
            entry.failure = replace(
                entry.failure,
                error=error,
                count=entry.failure.count + 1,
                last=now,
                request_id=request_id,
                method=method,
                path=path,
                traceback=formatted,
            )

    def _new_entry(
        self, key: object, error: str, line: CodeLine | None, now: float
    ) -> _Entry:
        self._count += 1
        self._prefix = self._prefix or os.urandom(4).hex()
        entry = self._entries[key] = _Entry(
            RecentFailure(
                failure_id=f"{self._prefix}-{self._count:x}",
                error=error,
                place="" if line is None else str(line),
                count=0,
                first=now,
                last=now,
                request_id="",
                method="",
                path="",
                traceback="",
            )
        )
        if len(self._entries) > MOST_FAILURES:
            self._entries.popitem(last=False)
        return entry

    def entries(self) -> list[RecentFailure]:
        """Return all entries, the latest first."""
        with self._lock:
            return [entry.failure for entry in reversed(self._entries.values())]

    def changed_after(self, change: int) -> tuple[list[RecentFailure], int]:
        """Return the entries that have changed, the latest first.

        Args:
            change: the number of the last change that the caller knows; 0 for all.

        Returns:
            The entries, and the number of the last change.
        """
        with self._lock:
            changed = [
                entry.failure
                for entry in reversed(self._entries.values())
                if entry.change > change
            ]
            return changed, self._changes

    def reset(self) -> None:
        """Forget all failures, in the child of a fork for instance."""
        self._lock = allocate_lock()
        self._entries.clear()
        self._prefix = ""
        self._changes = 0


class _Entry:
    """An entry, the time at which its traceback was formatted, and its last change."""

    __slots__ = ("change", "failure", "formatted")

    def __init__(self, failure: RecentFailure) -> None:
        self.failure = failure
        self.formatted = float("-inf")
        self.change = 0


def _place(trace: TracebackType | None) -> CodeLine | None:
    """Return the line of the application that raised."""
    lines: list[CodeLine] = []
    while trace is not None and len(lines) < _MOST_FRAMES:
        code = trace.tb_frame.f_code
        lines.append(CodeLine(code.co_filename, trace.tb_lineno or 0, code.co_name))
        trace = trace.tb_next
    return application_line(tuple(reversed(lines))) if lines else None


def _described(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
    except Exception:  # of the application
        text = "(no text: __str__ has failed)"
    if not text:
        return name
    if len(text) > _MOST_ERROR_CHARACTERS:
        text = f"{text[:_MOST_ERROR_CHARACTERS]}..."
    return f"{name}: {text}"


def _formatted(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except Exception:  # of the application: its __str__, or a source that is not text
        lines = traceback.format_tb(error.__traceback__)
        lines.append(f"{type(error).__qualname__}\n")
    return "".join(lines)


def _shortened(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    left = len(text) - 2 * half
    return f"{text[:half]}\n[... {left} characters left out ...]\n{text[-half:]}"


#: The failures of this process.
failures: Final = FailureLog()


def recent_failures() -> list[RecentFailure]:
    """Return recent failures of all applications in this process, the latest first.

    These are exceptions that reached the server, those that Django and Flask answered
    themselves, and request timeouts. Call from any thread; never parks.
    """
    return failures.entries()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=failures.reset)
