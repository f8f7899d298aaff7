"""The blocking calls of a green SQLite connection, made in its thread.

Connections without a thread call these functions directly. This file knows the standard
module and the state that `sqlite3.py` keeps in its cursors and connections. It must
never park.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from txgreenwsgi._parking.dedicated_thread import DedicatedThread

__all__ = [
    "MAX_ROWS",
    "accepts_for_all_rows",
    "close_connection",
    "close_cursor",
    "close_unreferenced",
    "execute",
    "execute_many",
    "execute_script",
    "finalize",
    "has_legacy_transactions",
    "read",
    "read_all",
    "undo",
]

#: Limits for reading ahead. Slow or large rows are not read before they are fetched.
READ_AHEAD_ROWS = 200
READ_AHEAD_SECONDS = 0.002

# Called with arguments that only the original checks.
_RealConnection: Any = sqlite3.Connection
_RealCursor: Any = sqlite3.Cursor
# The mode in which statements control transactions, the only one before Python 3.12.
_LEGACY = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)

#: Maximum size of `fetchmany`; some versions of Python raise for larger ones.
MAX_ROWS = 0x7FFFFFFF


class _Connection(Protocol):
    """The state of a green connection that these functions use."""

    _closed: bool
    _thread: DedicatedThread | None

    @property
    def in_transaction(self) -> bool: ...

    @property
    def _cursors(self) -> Iterable[_Cursor] | None: ...


class _Cursor(Protocol):
    """The state of a green cursor that these functions use."""

    _rows: deque[Any]
    _more: bool
    _error: BaseException | None

    @property
    def description(self) -> object: ...

    @property
    def _connection(self) -> sqlite3.Connection | None: ...


def accepts_for_all_rows(size: object) -> bool:
    """Return whether the original's `fetchmany` returns all rows for this size.

    Older versions do so for sizes below 1.

    Raises:
        Exception: the exception of the original.
    """
    with closing(_RealConnection(":memory:")) as connection:
        return bool(connection.execute("SELECT 1").fetchmany(size))


def execute(
    cursor: _Cursor,
    outside: list[bool],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    """Execute one statement and read its first rows."""
    _note_transaction(cursor, outside)
    _clear_rows(cursor)
    _RealCursor.execute(cursor, *args, **kwargs)
    if cursor.description is None:
        cursor._more = False
    else:
        _read_ahead(cursor)


def execute_many(
    cursor: _Cursor,
    outside: list[bool],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    """Execute one statement with each of several parameter sets."""
    _note_transaction(cursor, outside)
    _clear_rows(cursor)
    _RealCursor.executemany(cursor, *args, **kwargs)


def execute_script(
    cursor: _Cursor,
    outside: list[bool],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    """Execute several statements."""
    _note_transaction(cursor, outside)
    _RealCursor.executescript(cursor, *args, **kwargs)


def _note_transaction(cursor: _Cursor, outside: list[bool]) -> None:
    connection = cursor._connection
    assert connection is not None
    outside.append(not connection.in_transaction)


def undo(connection: _Connection, outside: list[bool]) -> None:
    """Make the connection usable again after a call whose task was interrupted.

    SQLite keeps waiting for a lock despite an interruption, and then opens its
    transaction. The caller got an error for that statement, so its next changes would
    never be committed.

    Args:
        connection: the connection that made the call.
        outside: True if there was no transaction before the call; empty if the call
            opens none.
    """
    if connection._closed:
        return
    try:
        _RealCursor(connection).execute("SELECT 1")
    except sqlite3.OperationalError:
        # SQLite interrupts all calls until the earlier statements have ended.
        for cursor in list(connection._cursors or ()):
            if cursor._more:
                read(cursor, 1)
    if outside == [True] and connection.in_transaction:
        # As a statement, because `rollback()` is a no-op in some modes.
        _RealCursor(connection).execute("ROLLBACK")


def _clear_rows(cursor: _Cursor) -> None:
    cursor._rows.clear()
    cursor._error = None
    cursor._more = True


def close_cursor(cursor: _Cursor) -> None:
    """Close a cursor and drop its rows."""
    _RealCursor.close(cursor)
    _clear_rows(cursor)


def read(cursor: _Cursor, wanted: int) -> None:
    """Read at least `wanted` rows; defer an error until the rows are fetched."""
    rows, step = cursor._rows, _RealCursor.__next__
    try:
        for _ in range(wanted):
            rows.append(step(cursor))
    except StopIteration:
        cursor._more = False
    except BaseException as error:
        cursor._error = error
    else:
        _read_ahead(cursor)


def _read_ahead(cursor: _Cursor) -> None:
    thread: DedicatedThread | None = getattr(cursor._connection, "_thread", None)
    if thread is None or not thread.is_current:
        return
    rows, step, until = cursor._rows, _RealCursor.__next__, monotonic()
    until += READ_AHEAD_SECONDS
    try:
        while len(rows) < READ_AHEAD_ROWS and monotonic() < until:
            rows.append(step(cursor))
    except StopIteration:
        cursor._more = False
    except BaseException as error:
        cursor._error = error


def read_all(cursor: _Cursor) -> None:
    """Read all remaining rows."""
    cursor._rows.extend(_RealCursor.fetchall(cursor))
    cursor._more = False


def has_legacy_transactions(connection: object) -> bool:
    """Return whether transactions are controlled by statements, not by `autocommit`."""
    return bool(getattr(connection, "autocommit", _LEGACY) == _LEGACY)


def close_connection(connection: _Connection) -> None:
    """Close a connection and its open statements, and end its thread."""
    # SQLite keeps the locks of a closed connection that has open statements, and a
    # traceback may keep a cursor, with its statement, alive.
    for cursor in list(connection._cursors or ()):
        if cursor._more:
            close_cursor(cursor)
    with suppress(sqlite3.Error):  # `close` reports errors
        if has_legacy_transactions(connection) and connection.in_transaction:
            _RealConnection.rollback(connection)
    _RealConnection.close(connection)
    connection._closed = True
    thread, connection._thread = connection._thread, None
    if thread is not None:
        thread.end()


def finalize(connection: object) -> None:
    """Call the original's finalizer, if it has one."""
    # Since Python 3.13 it warns about an open connection and closes it.
    finalize = getattr(_RealConnection, "__del__", None)
    if finalize is not None:
        finalize(connection)


def close_unreferenced(connection: object) -> None:
    """Close a connection that is being garbage collected."""
    finalize(connection)
    # Without this, SQLite closes it when its memory is freed, which its finalizer
    # delays.
    with suppress(sqlite3.ProgrammingError):  # never opened
        _RealConnection.close(connection)
