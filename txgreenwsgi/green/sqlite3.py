"""Green `sqlite3`: each connection has a real thread of its own, and tasks wait for it.

SQLite waits in C, for the disk and for other connections' locks. In a task, what
may block is called in the connection's thread, in order, while the task parks;
outside tasks a connection that no task ever used is called as it always was. A task
that is interrupted in the midst of a query has the query interrupted.

Rows are read ahead, a little at a time, so that `fetchone()` seldom waits. Row
factories are called where the rows are fetched, other callbacks in the connection's
thread, with the caller's contextvars.

It knows the standard module, and nothing of what is asked of a database.
"""

from __future__ import annotations

import sqlite3 as _standard
import weakref as _weakref
from collections import deque as _deque
from contextlib import suppress as _suppress
from functools import partial as _partial
from itertools import islice as _islice
from operator import index as _index
from typing import TYPE_CHECKING, Any

from ._locks import get_ident as _get_ident
from ._own_thread import OwnThread as _OwnThread
from ._place import here as _here
from ._place import may_park as _may_park
from ._sqlite_calls import MOST_ROWS as _MOST_ROWS
from ._sqlite_calls import close_connection as _close_connection
from ._sqlite_calls import close_cursor as _close_cursor
from ._sqlite_calls import close_forgotten as _close_forgotten
from ._sqlite_calls import execute as _execute
from ._sqlite_calls import execute_many as _execute_many
from ._sqlite_calls import execute_script as _execute_script
from ._sqlite_calls import finalize as _finalize
from ._sqlite_calls import leaves_transactions as _leaves_transactions
from ._sqlite_calls import read as _read
from ._sqlite_calls import read_all as _read_all
from ._sqlite_calls import takes_for_all as _takes_for_all
from ._sqlite_calls import undo as _undo

if TYPE_CHECKING:
    from collections.abc import Callable

    def __getattr__(name: str) -> Any: ...


#: How many parameters of an iterator `executemany` hands over at a time. They are
#: made in the task, for their maker may wait itself.
MANY_AT_A_TIME = 500

_RealConnection: Any = _standard.Connection
_RealCursor: Any = _standard.Cursor


class Cursor(_standard.Cursor):
    """A cursor whose connection may be in a thread of its own."""

    # What the original says of one whose __init__ was not called, it says then.
    _connection: Any = None
    _factory: Any = None
    _many_count: int | None = None

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._connection = connection
        if isinstance(connection, Connection) and connection._cursors is not None:
            connection._cursors.add(self)
        # Filled in the connection's thread, emptied by whoever fetches.
        self._rows: _deque[Any] = _deque()
        # Whether the statement may have more rows than these.
        self._more = True
        # What was raised when the row behind them was read.
        self._error: BaseException | None = None

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        connection = self._connection
        if isinstance(connection, Connection):
            return connection._run(function, self, *args)
        return function(self, *args)  # of the standard class: as it always was

    def _run_statements(
        self, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        connection, outside = self._connection, list[bool]()
        if isinstance(connection, Connection):
            connection._run(function, self, outside, args, kwargs, outside=outside)
        else:
            function(self, outside, args, kwargs)

    # Executing.

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Cursor.execute`. May park."""
        if self._connection is None:
            return super().execute(*args, **kwargs)
        self._check()
        self._many_count = None
        self._run_statements(_execute, args, kwargs)
        return self

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Cursor.executemany`. May park."""
        if self._connection is None:
            return super().executemany(*args, **kwargs)
        self._check()
        self._many_count = None
        if (
            len(args) == 2
            and not kwargs
            and not isinstance(args[1], (list, tuple))
            and hasattr(args[1], "__iter__")
            and _here() is not None
        ):
            self._execute_iterator(*args)
        else:
            self._run_statements(_execute_many, args, kwargs)
        return self

    def _execute_iterator(self, sql: Any, parameters: Any) -> None:
        iterator = iter(parameters)
        some = list(_islice(iterator, MANY_AT_A_TIME))
        self._run_statements(_execute_many, (sql, some), {})
        count = super().rowcount
        while some := list(_islice(iterator, MANY_AT_A_TIME)):
            self._run_statements(_execute_many, (sql, some), {})
            count += max(super().rowcount, 0)
        self._many_count = count

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Cursor.executescript`. May park."""
        if self._connection is None:
            return super().executescript(*args, **kwargs)
        self._check()
        self._run_statements(_execute_script, args, kwargs)
        return self

    def close(self) -> None:
        """As `sqlite3.Cursor.close`. May park, to end a statement that has more."""
        connection = self._connection
        if isinstance(connection, Connection):
            if self._more:
                connection._run(_close_cursor, self, unstoppable=True)
            else:
                connection._run_at_once(_close_cursor, self)
        elif connection is None:
            super().close()
        else:
            _close_cursor(self)

    # Fetching.

    def _check(self) -> None:
        """Raise what the original would, if it cannot be used, or not here."""
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

    def __next__(self) -> Any:
        self._check()
        while not self._rows:
            self._raise_error()
            if not self._more:
                raise StopIteration
            self._run(_read, 1)
        row = self._rows.popleft()
        factory = self._factory
        return row if factory is None else factory(self, row)

    def fetchone(self) -> Any:
        """As `sqlite3.Cursor.fetchone`. May park."""
        return next(self, None)

    def fetchmany(self, size: Any = None) -> Any:
        """As `sqlite3.Cursor.fetchmany`. May park."""
        if size is None:
            size = self.arraysize
        self._check()
        if not (hasattr(size, "__index__") and 1 <= _index(size) <= _MOST_ROWS):
            return self.fetchall() if _takes_for_all(size) else []
        size = _index(size)
        missing = size - len(self._rows)
        if missing > 0 and self._more and self._error is None:
            self._run(_read, missing)
        return list(_islice(self, size))

    def fetchall(self) -> Any:
        """As `sqlite3.Cursor.fetchall`. May park."""
        self._check()
        if self._more and self._error is None:
            self._run(_read_all)
        rows, self._rows = self._rows, _deque()
        self._raise_error()
        factory = self._factory
        return list(rows) if factory is None else [factory(self, row) for row in rows]

    # What C would use in the connection's thread.

    @property
    def row_factory(self) -> Any:
        """What rows are made into; None for tuples."""
        return self._factory

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        self._factory = factory

    @property
    def rowcount(self) -> int:
        """As `sqlite3.Cursor.rowcount`."""
        count = self._many_count
        return super().rowcount if count is None else count


class Connection(_standard.Connection):
    """A connection that, once a task uses it, lives in a thread of its own."""

    # Until its __init__ was called.
    _thread: _OwnThread | None = None
    _owner: int | None = None
    _closed = False
    _factory: Any = None
    _stop_backup = False
    _cursors: _weakref.WeakSet[Cursor] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        same_thread: Any = True
        if len(args) > 4:
            same_thread, args = args[4], (*args[:4], False, *args[5:])
        else:
            same_thread = kwargs.pop("check_same_thread", True)
            kwargs["check_same_thread"] = False
        # A task counts as a thread, and its connection's thread does not.
        self._owner = _get_ident() if same_thread else None
        self._closed = False
        self._cursors = _weakref.WeakSet()
        try:
            self._run(_partial(_RealConnection.__init__, **kwargs), self, *args)
        except BaseException:
            thread, self._thread = self._thread, None
            if thread is not None:
                # It may just be opening what nobody will have.
                thread.leave(_RealConnection.close, self)
                thread.end()
            raise

    def __del__(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None or thread.is_lost:
            _finalize(self)
            return
        if thread.is_here:
            _close_forgotten(self)
        else:
            # Closing may wait for the disk.
            thread.leave(_close_forgotten, self)
        thread.end()

    # Where it runs.

    def _check_thread(self) -> None:
        owner = self._owner
        if owner is None or owner == _get_ident():
            return
        thread = self._thread
        if thread is not None and (thread.is_here or thread.is_lost):
            return
        raise _standard.ProgrammingError(
            "SQLite objects created in a thread can only be used in that same thread. "
            f"The object was created in thread id {owner} and this is thread id "
            f"{_get_ident()}. Each task counts as a thread; give "
            "check_same_thread=False to hand a connection on"
        )

    def _run(
        self,
        function: Callable[..., Any],
        *args: Any,
        unstoppable: bool = False,
        outside: list[bool] | None = None,
    ) -> Any:
        """What `function(*args)`, which may block, returns. May park."""
        self._check_thread()
        thread = self._thread
        if thread is None:
            if self._closed or _here() is None or not _may_park():
                return function(*args)
            thread = self._thread = self._make_thread()
        elif thread.is_here or thread.is_lost:
            return function(*args)
        undo = _partial(_undo, self, [] if outside is None else outside)
        return thread.call(function, *args, unstoppable=unstoppable, undo=undo)

    def _run_at_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """As `_run`, for what does not block unless the connection is busy."""
        thread = self._thread
        if thread is not None and not thread.idle:
            return self._run(function, *args)
        self._check_thread()
        return function(*args)

    def _make_thread(self) -> _OwnThread:
        # The thread does not keep the connection alive.
        reference = _weakref.ref(self)

        def interrupt() -> None:
            connection = reference()
            if connection is not None:
                connection._stop_backup = True
                # It is not open yet, or not any more.
                with _suppress(_standard.ProgrammingError):
                    connection.interrupt()

        return _OwnThread(interrupt)

    @property
    def _in_no_transaction(self) -> bool:
        """Has a commit nothing to do?"""
        return not self.in_transaction and _leaves_transactions(self)

    # Cursors.

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Connection.cursor`. Never parks."""
        self._check_thread()
        if not args and "factory" not in kwargs:
            args = (Cursor,)
        cursor: Any = super().cursor(*args, **kwargs)
        if self._factory is not None:
            cursor.row_factory = self._factory
        return cursor

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Connection.execute`. May park."""
        return self.cursor().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Connection.executemany`. May park."""
        return self.cursor().executemany(*args, **kwargs)

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Connection.executescript`. May park."""
        return self.cursor().executescript(*args, **kwargs)

    @property
    def row_factory(self) -> Any:
        """What the rows of new cursors are made into; None for tuples."""
        return self._factory

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        self._factory = factory

    # Transactions.

    def commit(self) -> None:
        """As `sqlite3.Connection.commit`. May park."""
        if self._in_no_transaction:
            self._run_at_once(_RealConnection.commit, self)
        else:
            self._run(_RealConnection.commit, self)

    def rollback(self) -> None:
        """As `sqlite3.Connection.rollback`. May park; it is done in any case."""
        if self._in_no_transaction:
            self._run_at_once(_RealConnection.rollback, self)
        else:
            self._run(_RealConnection.rollback, self, unstoppable=True)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> Any:
        leave, args = _RealConnection.__exit__, (self, kind, error, traceback)
        if self._in_no_transaction:
            return self._run_at_once(leave, *args)
        return self._run(leave, *args, unstoppable=kind is not None)

    @property
    def isolation_level(self) -> Any:
        """As `sqlite3.Connection.isolation_level`; setting it to None commits."""
        return _RealConnection.isolation_level.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        set_level = _RealConnection.isolation_level.__set__
        if level is None and self.in_transaction:
            self._run(set_level, self, level)
        else:
            self._run_at_once(set_level, self, level)

    @isolation_level.deleter
    def isolation_level(self) -> None:
        _RealConnection.isolation_level.__delete__(self)  # its AttributeError

    def close(self) -> None:
        """As `sqlite3.Connection.close`; its thread ends. May park."""
        self._run(_close_connection, self, unstoppable=True)

    def backup(self, target: Any, **kwargs: Any) -> Any:
        """As `sqlite3.Connection.backup`. May park; interrupted between its steps."""
        progress = kwargs.pop("progress", None)

        def after_step(*state: Any) -> None:
            if self._stop_backup:
                raise _standard.OperationalError("interrupted")
            if progress is not None:
                progress(*state)

        self._stop_backup = False
        # One that cannot be called is for the original to refuse.
        kwargs["progress"] = (
            after_step if progress is None or callable(progress) else progress
        )
        self._run(_partial(_RealConnection.backup, **kwargs), self, target)


def _waiting(name: str) -> Any:
    original = getattr(_RealConnection, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._run(_partial(original, **kwargs), self, *args)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"As `sqlite3.Connection.{name}`. May park."
    return method


def _brief(name: str) -> Any:
    original = getattr(_RealConnection, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._run_at_once(_partial(original, **kwargs), self, *args)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = (
        f"As `sqlite3.Connection.{name}`. May park, for what goes on in its thread."
    )
    return method


_METHODS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("deserialize", "load_extension", "serialize"), _waiting),
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
        _brief,
    ),
}
for _name, _made in _METHODS.items():
    if hasattr(_RealConnection, _name):  # some came with later versions
        setattr(Connection, _name, _made(_name))

if hasattr(_RealConnection, "autocommit"):  # since Python 3.12

    def _get_autocommit(self: Any) -> Any:
        return _RealConnection.autocommit.__get__(self)

    def _set_autocommit(self: Any, value: Any) -> None:
        self._run(_RealConnection.autocommit.__set__, self, value)

    setattr(  # noqa: B010 - a property that not every version has
        Connection, "autocommit", property(_get_autocommit, _set_autocommit)
    )

if hasattr(_RealConnection, "blobopen"):  # since Python 3.11
    from ._blobs import Blob

    def _blobopen(self: Any, *args: Any, **kwargs: Any) -> Blob:
        """As `sqlite3.Connection.blobopen`. May park."""
        return Blob(
            self, self._run(_partial(_RealConnection.blobopen, **kwargs), self, *args)
        )

    _blobopen.__name__ = _blobopen.__qualname__ = "blobopen"
    setattr(Connection, "blobopen", _blobopen)  # noqa: B010 - as above


def connect(*args: Any, **kwargs: Any) -> Any:
    """As `sqlite3.connect`; the connection is green. May park."""
    factory = args[5] if len(args) > 5 else kwargs.get("factory", Connection)
    return factory(*args, **kwargs)


_mine = dict(globals())
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in _mine)
    }
)
#: What is not as it was; to be put in the place of the original's.
REPLACED: dict[str, Any] = {
    name: globals()[name]
    for name in ("Blob", "Connection", "Cursor", "connect")
    if name in globals()
}
del _name, _made
