"""What a green connection of SQLite has called in its thread: the calls that block.

They are called directly where there is no such thread. They know the standard module,
and what `sqlite3.py` keeps in its cursors and connections.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from time import monotonic
from typing import Any

__all__ = [
    "MOST_ROWS",
    "close_connection",
    "close_cursor",
    "close_forgotten",
    "execute",
    "execute_many",
    "execute_script",
    "finalize",
    "leaves_transactions",
    "read",
    "read_all",
    "takes_for_all",
    "undo",
]

#: How many rows are read ahead at most, and for how long: what is slow to find, or
#: large, is not read before it is wanted.
READ_AHEAD_ROWS = 200
READ_AHEAD_SECONDS = 0.002

_RealConnection: Any = sqlite3.Connection
_RealCursor: Any = sqlite3.Cursor
# What leaves transactions to the statements, as before Python 3.12.
_LEGACY = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)

#: So many rows may be asked for at once; to some versions of Python more is too much.
MOST_ROWS = 0x7FFFFFFF


def takes_for_all(size: Any) -> bool:
    """Does the original take a size that is no number of rows for all there are?

    Older versions do, of none and of fewer.

    Raises:
        Exception: what the original raises.
    """
    with closing(_RealConnection(":memory:")) as connection:
        return bool(connection.execute("SELECT 1").fetchmany(size))


def execute(
    cursor: Any, outside: list[bool], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Execute one statement, and read what rows are there at once."""
    _note_transaction(cursor, outside)
    _forget_rows(cursor)
    _RealCursor.execute(cursor, *args, **kwargs)
    if cursor.description is None:
        cursor._more = False
    else:
        _read_ahead(cursor)


def execute_many(
    cursor: Any, outside: list[bool], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Execute one statement for each of many parameters."""
    _note_transaction(cursor, outside)
    _forget_rows(cursor)
    _RealCursor.executemany(cursor, *args, **kwargs)


def execute_script(
    cursor: Any, outside: list[bool], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Execute many statements."""
    _note_transaction(cursor, outside)
    _RealCursor.executescript(cursor, *args, **kwargs)


def _note_transaction(cursor: Any, outside: list[bool]) -> None:
    outside.append(not cursor._connection.in_transaction)


def undo(connection: Any, outside: list[bool]) -> None:
    """Leave the connection fit for use after a call that nobody waits for any more.

    SQLite waits for a lock though it was interrupted, and then begins its
    transaction: whoever asked was told that it did not, and what he does next would
    never be committed.

    Args:
        connection: whose call it was.
        outside: whether it was in no transaction before; empty if it began none.
    """
    if connection._closed:
        return
    try:
        _RealCursor(connection).execute("SELECT 1")
    except sqlite3.OperationalError:
        # All is interrupted until no statement is left that was begun before.
        for cursor in list(connection._cursors or ()):
            if cursor._more:
                read(cursor, 1)
    if outside == [True] and connection.in_transaction:
        # As a statement: there are modes in which `rollback()` does nothing.
        _RealCursor(connection).execute("ROLLBACK")


def _forget_rows(cursor: Any) -> None:
    cursor._rows.clear()
    cursor._error = None
    cursor._more = True


def close_cursor(cursor: Any) -> None:
    """Close it, and forget its rows."""
    _RealCursor.close(cursor)
    _forget_rows(cursor)


def read(cursor: Any, wanted: int) -> None:
    """Read at least `wanted` rows; an error waits behind those that were read."""
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


def _read_ahead(cursor: Any) -> None:
    thread = getattr(cursor._connection, "_thread", None)
    if thread is None or not thread.is_here:
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


def read_all(cursor: Any) -> None:
    """Read all rows that were not read yet."""
    cursor._rows.extend(_RealCursor.fetchall(cursor))
    cursor._more = False


def leaves_transactions(connection: Any) -> bool:
    """Does it begin and end none but by statements and when it is told to?"""
    return bool(getattr(connection, "autocommit", _LEGACY) == _LEGACY)


def close_connection(connection: Any) -> None:
    """Close it, with all that was begun, and end its thread."""
    # SQLite keeps the locks of a connection that is closed while it has statements,
    # and a cursor, with its statement, lives as long as a traceback that has it.
    for cursor in list(connection._cursors or ()):
        if cursor._more:
            close_cursor(cursor)
    with suppress(sqlite3.Error):  # what is wrong is told by closing
        if leaves_transactions(connection) and connection.in_transaction:
            _RealConnection.rollback(connection)
    _RealConnection.close(connection)
    connection._closed = True
    thread, connection._thread = connection._thread, None
    if thread is not None:
        thread.end()


def finalize(connection: Any) -> None:
    """Do what a finalizer does."""
    # Since Python 3.13 it warns if the connection is open, and closes it.
    finalize = getattr(_RealConnection, "__del__", None)
    if finalize is not None:
        finalize(connection)


def close_forgotten(connection: Any) -> None:
    """Close a connection that nobody has any more."""
    finalize(connection)
    # Else it is closed when its memory is freed, which a finalizer has put off.
    with suppress(sqlite3.ProgrammingError):  # it was never opened
        _RealConnection.close(connection)
