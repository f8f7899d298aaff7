"""Green `sqlite3`: each connection has a dedicated real thread, for which tasks wait.

SQLite blocks in C, on the disk and on the locks of other connections. In a task, calls
that may block run in the connection's thread, in order, while the task parks. A
connection that no task has used is called directly, as the original. If a task is
interrupted during a query, the query is interrupted.

Rows are read ahead in small batches, so `fetchone()` rarely parks. Row factories run
in the task that fetches the rows; other callbacks run in the connection's thread, with
the caller's contextvars.

It knows the standard module. It must never know what a database is used for.
"""

from __future__ import annotations

import sqlite3 as _standard
import weakref as _weakref
from collections import deque as _deque
from collections.abc import Callable as _Callable
from contextlib import suppress as _suppress
from functools import partial as _partial
from itertools import islice as _islice
from operator import index as _index
from typing import TYPE_CHECKING, Any
from typing import Literal as _Literal
from typing import TypeVar as _TypeVar

from txgreenwsgi._parking.dedicated_thread import DedicatedThread as _DedicatedThread
from txgreenwsgi._parking.locks import get_ident as _get_ident
from txgreenwsgi._parking.waits import may_park as _may_park
from txgreenwsgi._switching.running import current_task as _current_task

from ._sqlite_calls import MAX_ROWS as _MAX_ROWS
from ._sqlite_calls import accepts_for_all_rows as _accepts_for_all_rows
from ._sqlite_calls import close_connection as _close_connection
from ._sqlite_calls import close_cursor as _close_cursor
from ._sqlite_calls import close_unreferenced as _close_unreferenced
from ._sqlite_calls import execute as _execute
from ._sqlite_calls import execute_many as _execute_many
from ._sqlite_calls import execute_script as _execute_script
from ._sqlite_calls import finalize as _finalize
from ._sqlite_calls import has_legacy_transactions as _has_legacy_transactions
from ._sqlite_calls import read as _read
from ._sqlite_calls import read_all as _read_all
from ._sqlite_calls import undo as _undo

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Self

    def __getattr__(name: str) -> Any: ...


#: Number of parameter sets that `executemany` passes to the thread at a time. The task
#: itself reads them from the iterator, which may park.
MANY_BATCH_SIZE = 500

_T = _TypeVar("_T")
# A row is whatever the row factory returns.
_Row = Any
_RowFactory = _Callable[..., _Row]

# Called with arguments that only the original checks.
_RealConnection: Any = _standard.Connection
_RealCursor: Any = _standard.Cursor


class Cursor(_standard.Cursor):
    """A cursor of a connection that may have a dedicated thread."""

    # None before __init__: then the original's methods raise the error.
    _connection: _standard.Connection | None = None
    _factory: _RowFactory | None = None
    _many_count: int | None = None

    def __init__(self, connection: _standard.Connection) -> None:
        super().__init__(connection)
        self._connection = connection
        if isinstance(connection, Connection) and connection._cursors is not None:
            connection._cursors.add(self)
        # Appended to in the connection's thread, consumed by the fetch methods.
        self._rows: _deque[_Row] = _deque()
        # True if the statement may have further rows.
        self._more = True
        # The error of reading the row after `_rows`.
        self._error: BaseException | None = None

    def _run(self, function: _Callable[..., _T], *args: object) -> _T:
        connection = self._connection
        if isinstance(connection, Connection):
            return connection._run(function, self, *args)
        return function(self, *args)  # a connection of the standard class

    def _run_statements(
        self,
        function: _Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        connection, outside = self._connection, list[bool]()
        if isinstance(connection, Connection):
            connection._run(function, self, outside, args, kwargs, outside=outside)
        else:
            function(self, outside, args, kwargs)

    # Executing.

    def execute(self, *args: object, **kwargs: object) -> Self:
        """As `sqlite3.Cursor.execute`. May park."""
        if self._connection is None:
            _RealCursor.execute(self, *args, **kwargs)  # it raises
        self._check()
        self._many_count = None
        self._run_statements(_execute, args, kwargs)
        return self

    def executemany(self, *args: object, **kwargs: object) -> Self:
        """As `sqlite3.Cursor.executemany`. May park."""
        if self._connection is None:
            _RealCursor.executemany(self, *args, **kwargs)  # it raises
        self._check()
        self._many_count = None
        if (
            len(args) == 2
            and not kwargs
            and not isinstance(args[1], (list, tuple))
            and hasattr(args[1], "__iter__")
            and _current_task() is not None
        ):
            self._execute_iterator(args[0], args[1])
        else:
            self._run_statements(_execute_many, args, kwargs)
        return self

    def _execute_iterator(self, sql: object, parameters: Iterable[object]) -> None:
        iterator = iter(parameters)
        batch = list(_islice(iterator, MANY_BATCH_SIZE))
        self._run_statements(_execute_many, (sql, batch), {})
        count = super().rowcount
        while batch := list(_islice(iterator, MANY_BATCH_SIZE)):
            self._run_statements(_execute_many, (sql, batch), {})
            count += max(super().rowcount, 0)
        self._many_count = count

    def executescript(self, *args: object, **kwargs: object) -> Self:
        """As `sqlite3.Cursor.executescript`. May park."""
        if self._connection is None:
            _RealCursor.executescript(self, *args, **kwargs)  # it raises
        self._check()
        self._run_statements(_execute_script, args, kwargs)
        return self

    def close(self) -> None:
        """As `sqlite3.Cursor.close`. May park if the statement has further rows."""
        connection = self._connection
        if isinstance(connection, Connection):
            if self._more:
                connection._run(_close_cursor, self, unstoppable=True)
            else:
                connection._run_directly(_close_cursor, self)
        elif connection is None:
            super().close()
        else:
            _close_cursor(self)

    # Fetching.

    def _check(self) -> None:
        """Raise the original's error if the cursor is unusable, or in this thread."""
        connection = self._connection
        if isinstance(connection, Connection):
            connection._check_thread()
            if connection._closed:
                raise _standard.ProgrammingError("Cannot operate on a closed database.")
        elif connection is None:
            super().fetchone()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    def __next__(self) -> _Row:
        self._check()
        while not self._rows:
            self._raise_error()
            if not self._more:
                raise StopIteration
            self._run(_read, 1)
        row = self._rows.popleft()
        factory = self._factory
        return row if factory is None else factory(self, row)

    def fetchone(self) -> _Row:
        """As `sqlite3.Cursor.fetchone`. May park."""
        return next(self, None)

    def fetchmany(self, size: object = None) -> list[_Row]:
        """As `sqlite3.Cursor.fetchmany`. May park."""
        if size is None:
            size = self.arraysize
        self._check()
        if not (hasattr(size, "__index__") and 1 <= _index(size) <= _MAX_ROWS):
            return self.fetchall() if _accepts_for_all_rows(size) else []
        wanted = _index(size)
        missing = wanted - len(self._rows)
        if missing > 0 and self._more and self._error is None:
            self._run(_read, missing)
        return list(_islice(self, wanted))

    def fetchall(self) -> list[_Row]:
        """As `sqlite3.Cursor.fetchall`. May park."""
        self._check()
        if self._more and self._error is None:
            self._run(_read_all)
        rows, self._rows = self._rows, _deque()
        self._raise_error()
        factory = self._factory
        return list(rows) if factory is None else [factory(self, row) for row in rows]

    # Attributes that the original would use in the connection's thread.

    @property
    def row_factory(self) -> _RowFactory | None:
        """The function that makes a row; None for tuples."""
        return self._factory

    @row_factory.setter
    def row_factory(self, factory: _RowFactory | None) -> None:
        self._factory = factory

    @property
    def rowcount(self) -> int:
        """As `sqlite3.Cursor.rowcount`."""
        count = self._many_count
        return super().rowcount if count is None else count


class Connection(_standard.Connection):
    """A connection that gets a dedicated thread at its first use in a task."""

    # Defaults before __init__.
    _thread: _DedicatedThread | None = None
    _owner: int | None = None
    _closed = False
    _factory: _RowFactory | None = None
    _stop_backup = False
    _cursors: _weakref.WeakSet[Cursor] | None = None

    def __init__(self, *args: object, **kwargs: object) -> None:
        same_thread: object = True
        if len(args) > 4:
            same_thread, args = args[4], (*args[:4], False, *args[5:])
        else:
            same_thread = kwargs.pop("check_same_thread", True)
            kwargs["check_same_thread"] = False
        # A task counts as a thread; the dedicated thread does not.
        self._owner = _get_ident() if same_thread else None
        self._closed = False
        self._cursors = _weakref.WeakSet()
        try:
            open_it = _partial(_RealConnection.__init__, **kwargs)
            self._run(open_it, self, *args, undoable=False)
        except BaseException:
            thread, self._thread = self._thread, None
            if thread is not None:
                # The thread may still be opening the connection.
                thread.call_later(_RealConnection.close, self)
                thread.end()
            raise

    def __del__(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None or thread.is_lost:
            _finalize(self)
            return
        if thread.is_current:
            _close_unreferenced(self)
        else:
            # Closing may block on the disk.
            thread.call_later(_close_unreferenced, self)
        thread.end()

    # Running calls in the right thread.

    def _check_thread(self) -> None:
        owner = self._owner
        if owner is None or owner == _get_ident():
            return
        thread = self._thread
        if thread is not None and (thread.is_current or thread.is_lost):
            return
        raise _standard.ProgrammingError(
            "SQLite objects created in a thread can only be used in that same thread. "
            f"The object was created in thread id {owner} and this is thread id "
            f"{_get_ident()}. Each task counts as a thread; connect with "
            "check_same_thread=False to share a connection"
        )

    def _run(
        self,
        function: _Callable[..., _T],
        *args: object,
        unstoppable: bool = False,
        undoable: bool = True,
        outside: list[bool] | None = None,
    ) -> _T:
        """Return `function(*args)`, which may block. May park.

        Args:
            function: the function to call.
            args: its arguments.
            unstoppable: make the call even if the task is interrupted.
            undoable: call `_sqlite_calls.undo` if the task is interrupted. It crashes
                the process if the connection was never opened.
            outside: set by the call, for `_sqlite_calls.undo`.
        """
        self._check_thread()
        thread = self._thread
        if thread is None:
            if self._closed or _current_task() is None or not _may_park():
                return function(*args)
            thread = self._thread = self._make_thread()
        elif thread.is_current or thread.is_lost:
            return function(*args)
        undo = _partial(_undo, self, [] if outside is None else outside)
        return thread.call(
            function,
            *args,
            unstoppable=unstoppable,
            undo=undo if undoable else None,
        )

    def _run_directly(self, function: _Callable[..., _T], *args: object) -> _T:
        """As `_run`, for a call that only blocks while the connection is busy."""
        thread = self._thread
        if thread is not None and not thread.idle:
            return self._run(function, *args)
        self._check_thread()
        return function(*args)

    def _make_thread(self) -> _DedicatedThread:
        # The thread must not keep the connection alive.
        reference = _weakref.ref(self)

        def interrupt() -> None:
            connection = reference()
            if connection is not None:
                connection._stop_backup = True
                # Not open yet, or already closed.
                with _suppress(_standard.ProgrammingError):
                    connection.interrupt()

        return _DedicatedThread(interrupt)

    @property
    def _is_commit_noop(self) -> bool:
        """True if there is no transaction to commit or roll back."""
        return not self.in_transaction and _has_legacy_transactions(self)

    # Cursors.

    def cursor(self, *args: object, **kwargs: object) -> Any:
        """As `sqlite3.Connection.cursor`. Never parks."""
        self._check_thread()
        if not args and "factory" not in kwargs:
            args = (Cursor,)
        cursor = _RealConnection.cursor(self, *args, **kwargs)
        if self._factory is not None:
            cursor.row_factory = self._factory
        return cursor

    def execute(self, *args: object, **kwargs: object) -> Any:
        """As `sqlite3.Connection.execute`. May park."""
        return self.cursor().execute(*args, **kwargs)

    def executemany(self, *args: object, **kwargs: object) -> Any:
        """As `sqlite3.Connection.executemany`. May park."""
        return self.cursor().executemany(*args, **kwargs)

    def executescript(self, *args: object, **kwargs: object) -> Any:
        """As `sqlite3.Connection.executescript`. May park."""
        return self.cursor().executescript(*args, **kwargs)

    @property
    def row_factory(self) -> _RowFactory | None:
        """The row factory of new cursors; None for tuples."""
        return self._factory

    @row_factory.setter
    def row_factory(self, factory: _RowFactory | None) -> None:
        self._factory = factory

    # Transactions.

    def commit(self) -> None:
        """As `sqlite3.Connection.commit`. May park."""
        if self._is_commit_noop:
            self._run_directly(_RealConnection.commit, self)
        else:
            self._run(_RealConnection.commit, self)

    def rollback(self) -> None:
        """As `sqlite3.Connection.rollback`; not interruptible. May park."""
        if self._is_commit_noop:
            self._run_directly(_RealConnection.rollback, self)
        else:
            self._run(_RealConnection.rollback, self, unstoppable=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> _Literal[False]:
        leave, args = _RealConnection.__exit__, (self, kind, error, traceback)
        if self._is_commit_noop:
            self._run_directly(leave, *args)
        else:
            self._run(leave, *args, unstoppable=kind is not None)
        return False

    @property
    def isolation_level(self) -> Any:
        """As `sqlite3.Connection.isolation_level`; setting it to None commits."""
        return _RealConnection.isolation_level.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: object) -> None:
        set_level = _RealConnection.isolation_level.__set__
        if level is None and self.in_transaction:
            self._run(set_level, self, level)
        else:
            self._run_directly(set_level, self, level)

    @isolation_level.deleter
    def isolation_level(self) -> None:
        _RealConnection.isolation_level.__delete__(self)  # raises AttributeError

    def close(self) -> None:
        """As `sqlite3.Connection.close`; it ends the thread. May park."""
        self._run(_close_connection, self, unstoppable=True)

    def backup(self, target: object, **kwargs: Any) -> None:
        """As `sqlite3.Connection.backup`. May park; interruptible between its steps."""
        progress = kwargs.pop("progress", None)

        def after_step(*state: object) -> None:
            if self._stop_backup:
                raise _standard.OperationalError("interrupted")
            if progress is not None:
                progress(*state)

        self._stop_backup = False
        # The original raises for a `progress` that is not callable.
        kwargs["progress"] = (
            after_step if progress is None or callable(progress) else progress
        )
        self._run(_partial(_RealConnection.backup, **kwargs), self, target)


def _parking_method(name: str) -> _Callable[..., object]:
    original = getattr(_RealConnection, name)

    def method(self: Connection, *args: object, **kwargs: object) -> object:
        return self._run(_partial(original, **kwargs), self, *args)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"As `sqlite3.Connection.{name}`. May park."
    return method


def _direct_method(name: str) -> _Callable[..., object]:
    original = getattr(_RealConnection, name)

    def method(self: Connection, *args: object, **kwargs: object) -> object:
        return self._run_directly(_partial(original, **kwargs), self, *args)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = (
        f"As `sqlite3.Connection.{name}`. May park while its thread is busy."
    )
    return method


_METHODS: dict[str, _Callable[[str], _Callable[..., object]]] = {
    **dict.fromkeys(("deserialize", "load_extension", "serialize"), _parking_method),
    **dict.fromkeys(
        (
            "create_aggregate",
            "create_collation",
            "create_function",
            "create_window_function",
            "enable_load_extension",
            "getconfig",
            "getlimit",
            "set_authorizer",
            "set_progress_handler",
            "set_trace_callback",
            "setconfig",
            "setlimit",
        ),
        _direct_method,
    ),
}
for _name, _made in _METHODS.items():
    if hasattr(_RealConnection, _name):  # some exist in later versions only
        setattr(Connection, _name, _made(_name))

if hasattr(_RealConnection, "autocommit"):  # since Python 3.12

    def _get_autocommit(self: Connection) -> object:
        return _RealConnection.autocommit.__get__(self)

    def _set_autocommit(self: Connection, value: object) -> None:
        self._run(_RealConnection.autocommit.__set__, self, value)

    setattr(  # noqa: B010 - a property that older versions lack
        Connection, "autocommit", property(_get_autocommit, _set_autocommit)
    )

if hasattr(_RealConnection, "blobopen"):  # since Python 3.11
    from ._blobs import Blob

    def _blobopen(self: Connection, *args: object, **kwargs: object) -> Blob:
        """As `sqlite3.Connection.blobopen`. May park."""
        blob = self._run(_partial(_RealConnection.blobopen, **kwargs), self, *args)
        return Blob(self._run, blob)

    _blobopen.__name__ = _blobopen.__qualname__ = "blobopen"
    setattr(Connection, "blobopen", _blobopen)  # noqa: B010 - as above


def connect(*args: object, **kwargs: object) -> Any:
    """As `sqlite3.connect`, with a green connection. May park."""
    factory: Any = args[5] if len(args) > 5 else kwargs.get("factory", Connection)
    return factory(*args, **kwargs)


_mine = dict(globals())
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in _mine)
    }
)
#: The names that differ from the original, for programs that patch it.
REPLACED: dict[str, Any] = {
    name: globals()[name]
    for name in ("Blob", "Connection", "Cursor", "connect")
    if name in globals()
}
del _name, _made
