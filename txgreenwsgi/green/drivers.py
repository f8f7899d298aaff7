"""Drivers made green: what they call when they must wait, and what they do then.

psycopg2 waits in C, and has a hook; psycopg 3 waits by two functions of a module.
Both are given functions that park. A query whose task is interrupted is cancelled
at the server, so that it does not go on there for nobody; the connection is then
fit for use again, or closed, and never left in the midst of an answer.

Two more wait by green sockets and locks, but do not expect to be interrupted there:
SQLAlchemy's pool and redis-py.

It knows where these wait. It must never import any of them before they are used.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import inspect
import os
import sys
from functools import cache, wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txgreenwsgi._switching.errors import (
    Cancelled,
    ClientDisconnected,
    RequestTimeout,
    TimedOut,
)
from txgreenwsgi._switching.greenlets import Suspension
from txgreenwsgi._switching.timeouts import shield
from txgreenwsgi._switching.timeouts import timeout as time_limit

from . import _events
from ._place import give_way, here, may_park
from ._thread import _real

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from txgreenwsgi._switching.greenlets import Task

__all__ = [
    "interruption_of",
    "make_psycopg2_green",
    "make_psycopg_green",
    "make_redis_heed_interruptions",
    "make_sqlalchemy_safe",
    "wait_for_psycopg2",
    "was_interrupted",
    "watch_imports",
]

_log = Logger()

#: How long a server may take to end a query that it was asked to cancel. Then the
#: connection is closed.
CANCEL_SECONDS = 5.0

# Psycopg's own.
_INTERVAL = 0.1

#: What ends a wait from outside. Nobody knows how far the connection got.
_INTERRUPTIONS = (Cancelled, ClientDisconnected, RequestTimeout, TimedOut)


def _nobody() -> None:
    """Who is told, where nobody waits to be."""


def interruption_of(
    error: BaseException, handled: BaseException | None = None
) -> BaseException | None:
    """What cut a wait short, if that is what `error` came of; None if it is not.

    Drivers wrap what interrupts them in errors of their own, so this looks at what
    `error` was raised from as well. Never parks.

    Args:
        error: what a driver has raised.
        handled: what was being handled when the driver was called
            (`sys.exc_info()[1]`). It is the context of all that is raised
            meanwhile, and has nothing to do with it.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and found is not handled and id(found) not in seen:
        if isinstance(found, _INTERRUPTIONS) or not isinstance(found, Exception):
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


def was_interrupted(error: BaseException, handled: BaseException | None = None) -> bool:
    """Did `error` come of a wait that was cut short, and not of the other side?

    As `interruption_of`.
    """
    return interruption_of(error, handled) is not None


# psycopg2


def wait_for_psycopg2(connection: Any) -> None:
    """The wait callback of psycopg2 (`psycopg2.extensions.set_wait_callback`).

    May park; in the reactor greenlet and in threads it blocks. When it raises,
    psycopg2 closes the connection: it cannot know whose fault it was.
    """
    extensions: Any = sys.modules["psycopg2.extensions"]
    connecting = connection.status in (extensions.STATUS_SETUP, _STATUS_CONNECTING)
    deadline = _connect_deadline(connection, extensions) if connecting else None
    handled = sys.exc_info()[1]
    try:
        _poll_psycopg2(connection, extensions, deadline)
    except BaseException as error:
        if connecting:
            connection.close()  # a traceback may hold it for long
        elif was_interrupted(error, handled):
            _end_psycopg2_query(connection, extensions)
        raise


def _poll_psycopg2(connection: Any, extensions: Any, deadline: float | None) -> None:
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        if state == extensions.POLL_READ:
            direction = _events.READ
        elif state == extensions.POLL_WRITE:
            direction = _events.WRITE
        else:
            raise _psycopg2_errors().OperationalError(
                f"psycopg2 is in a state that cannot be waited on: {state!r}"
            )
        fd = connection.fileno()
        left = None if deadline is None else max(0.0, deadline - monotonic())
        task = here()
        if task is None or not may_park():
            _events.block(fd, direction, left)
        else:
            _events.wait_any(task, {fd: direction}, left, connection)
        if deadline is not None and monotonic() >= deadline:
            raise _psycopg2_errors().OperationalError("timeout expired")


def _psycopg2_errors() -> Any:
    return importlib.import_module("psycopg2")


def _connect_deadline(connection: Any, extensions: Any) -> float | None:
    """When `connect_timeout`, which libpq leaves to the callback, is over."""
    seconds = int(extensions.parse_dsn(connection.dsn).get("connect_timeout") or 0)
    return monotonic() + seconds if seconds > 0 else None


def _end_psycopg2_query(connection: Any, extensions: Any) -> None:
    """Have the server end the query, and wait until it has. May park."""
    _request_cancel(importlib.import_module("psycopg2._psycopg"), connection.pgconn_ptr)
    task = here()
    if task is None or task.dying or not may_park():
        return
    try:
        with shield(), time_limit(CANCEL_SECONDS):
            _poll_psycopg2(connection, extensions, None)
    except Exception as error:
        _log.debug("psycopg2: a query was not cancelled: {error!r}", error=error)


# As psycopg2's C code has it; it has no name in Python.
_STATUS_CONNECTING = 20


def make_psycopg2_green(module: Any = None) -> None:
    """Have psycopg2 wait by parking, unless it has another wait callback already."""
    extensions = importlib.import_module("psycopg2.extensions")
    if extensions.get_wait_callback() is None:
        extensions.set_wait_callback(wait_for_psycopg2)


# psycopg 3


class _Waits:
    """What psycopg waited by before, and what it expects of it."""

    def __init__(self, psycopg: Any, waiting: Any) -> None:
        self.wait: Callable[..., Any] = waiting.wait
        self.wait_conn: Callable[..., Any] = waiting.wait_conn
        self.of_connection: Callable[..., Any] = psycopg.Connection.wait
        self.errors: Any = psycopg.errors
        self.active: Any = psycopg.pq.TransactionStatus.ACTIVE
        self.has_cancel_safe: Callable[[], bool] = getattr(
            psycopg.capabilities, "has_cancel_safe", lambda: False
        )
        # Since 3.3 there is a time limit, and the interval is for Ctrl-C alone.
        # Before, limits were kept by whoever is called at each interval.
        self.has_limit = "timeout" in inspect.signature(waiting.wait_select).parameters
        self._extension = sys.modules.get(f"psycopg_{psycopg.pq.__impl__}.pq")

    def request_cancel(self, pgconn: Any, then: Callable[[], object] = _nobody) -> None:
        """Have the server asked to end what `pgconn` does. Never parks.

        Args:
            pgconn: the connection.
            then: called in any thread once the server has been told, or cannot be.
        """
        if self._extension is not None:
            _request_cancel(self._extension, pgconn.pgconn_ptr, then)
        else:
            # By ctypes, which lets other threads run.
            _real.start_new_thread(self._cancel, (pgconn.get_cancel(), then))

    def _cancel(self, request: Any, then: Callable[[], object]) -> None:
        try:
            request.cancel()
        except self.errors.Error as error:
            _log.debug("a query could not be cancelled: {error!r}", error=error)
        finally:
            then()


def make_psycopg_green(module: Any = None) -> None:
    """Have psycopg 3 wait by parking in tasks, and as it was elsewhere.

    Both its C and its Python code wait by the functions that this replaces, and it
    does not matter who has imported psycopg before.
    """
    psycopg: Any = importlib.import_module("psycopg")
    waiting: Any = importlib.import_module("psycopg.waiting")
    if getattr(waiting.wait, "__module__", None) == __name__:
        return
    waits = _Waits(psycopg, waiting)

    def wait(
        gen: Any, fileno: int, interval: float = 0.0, timeout: float | None = None
    ) -> Any:
        """As `psycopg.waiting.wait`. May park."""
        if here() is None or not may_park():
            limit = (timeout,) if waits.has_limit else ()
            return waits.wait(gen, fileno, interval, *limit)
        return _drive(waits, gen, fileno, interval, timeout)

    def wait_conn(gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
        """As `psycopg.waiting.wait_conn`. May park."""
        if here() is None or not may_park():
            limit = (timeout,) if waits.has_limit else ()
            return waits.wait_conn(gen, interval, *limit)
        try:
            return _drive(waits, gen, None, interval, timeout)
        except BaseException:
            # It holds a connection that is half made. A traceback may hold it.
            gen.close()
            raise

    def wait_of_connection(self: Any, gen: Any, *args: Any, **kwargs: Any) -> Any:
        handled = sys.exc_info()[1]
        try:
            return waits.of_connection(self, gen, *args, **kwargs)
        except BaseException as error:
            if was_interrupted(error, handled) and here() is not None:
                _end_query(waits, self, gen)
            raise

    def close(self: Any) -> None:
        # libpq closes the descriptor, of which the kernel tells nobody.
        if _waited_for and not self.closed:
            _events.forget(_waited_for.pop(self.pgconn.socket, None))
        close_connection(self)

    close_connection = psycopg.Connection.close
    close.__doc__ = close_connection.__doc__
    psycopg.Connection.close = close
    waiting.wait = wait
    waiting.wait_conn = wait_conn
    wait_of_connection.__name__ = "wait"
    wait_of_connection.__doc__ = waits.of_connection.__doc__
    psycopg.Connection.wait = wait_of_connection


def _drive(
    waits: _Waits, gen: Any, fileno: int | None, interval: float, limit: float | None
) -> Any:
    """Run one of psycopg's generators, parking where it says what it waits for.

    It yields what to wait for (with the descriptor, unless `fileno` is given) and
    is sent what is ready; 0 when the interval was over first.
    """
    task = here()
    assert task is not None
    deadline = None if limit is None else monotonic() + limit
    # Who closes the connection wakes it; what else the interval is for has ended.
    forever = waits.has_limit and deadline is None
    try:
        asked = next(gen)
        while True:
            fd, wanted = asked if fileno is None else (fileno, asked)
            # Who wants to read has just read all there was.
            ready = 0 if wanted == _events.READ else _ready(fd, wanted)
            if ready:
                give_way(task)
            else:
                seconds = None if forever and wanted == _events.READ else interval
                if deadline is not None:
                    seconds = max(0.0, deadline - monotonic())
                try:
                    in_time = _wait(task, fd, wanted, seconds)
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise
                    raise waits.errors.OperationalError(
                        "connection socket closed"
                    ) from error
                # It may have been woken for nothing: then it reads, and asks again.
                sure = in_time and wanted == _events.READ
                ready = wanted if sure else _ready(fd, wanted)
            if ready:
                asked = gen.send(ready)
            else:
                _require_open(waits, fd)
                gen.send(0)
            if deadline is not None and monotonic() >= deadline:
                raise waits.errors._WaitTimeout("wait timeout expired")
    except StopIteration as stop:
        return stop.value


# By descriptor: what is waited for now, for whoever closes the connection.
_waited_for: dict[int, _events.Entry | None] = {}


def _wait(task: Task[Any], fd: int, wanted: int, seconds: float | None) -> bool:
    if wanted != _events.READ:
        return _events.wait_any(task, {fd: wanted}, seconds, "psycopg")
    entry = _waited_for[fd] = _events.entry_of(task, fd, None)
    try:
        return _events.wait(task, fd, entry, wanted, seconds, "psycopg")
    finally:
        _waited_for.pop(fd, None)


def _ready(fd: int, wanted: int) -> int:
    return sum(
        direction
        for direction in (_events.READ, _events.WRITE)
        if wanted & direction and _events.is_ready(fd, direction)
    )


def _require_open(waits: _Waits, fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError as error:
        raise waits.errors.OperationalError("connection socket closed") from error


def _end_query(waits: _Waits, connection: Any, gen: Any) -> None:
    """Have the server end the query that `gen` waited for, and read its answer.

    In the task that was interrupted. May park, but not for long; what cannot be
    ended is closed.
    """
    pgconn = connection.pgconn
    if pgconn.transaction_status != waits.active:
        return
    task = here()
    assert task is not None
    if task.dying or not may_park():
        waits.request_cancel(pgconn)
        pgconn.finish()
        return
    try:
        with shield(), time_limit(CANCEL_SECONDS):
            if waits.has_cancel_safe():
                connection.cancel_safe(timeout=CANCEL_SECONDS)
            else:
                # Who did not wait for it might see it end his next query.
                told = Suspension(task, "a request to cancel")
                waits.request_cancel(pgconn, told.resume)
                told.wait()
            _drive(waits, gen, pgconn.socket, _INTERVAL, None)
    except waits.errors.QueryCanceled:
        return  # as asked for
    except Exception as error:
        _log.debug("psycopg: a query could not be cancelled: {error!r}", error=error)
    finally:
        if pgconn.transaction_status == waits.active:
            # The first may have come between two queries of a pipeline.
            waits.request_cancel(pgconn)
            pgconn.finish()


# Cancelling without waiting


def _request_cancel(
    extension: Any,
    connection_address: int | None,
    then: Callable[[], object] = _nobody,
) -> None:
    """Have libpq send a request to cancel, in a thread of its own. Never parks.

    The drivers' own functions hold Python's global lock until the server, which may
    be out of reach, has answered.

    Args:
        extension: a module in C that uses libpq.
        connection_address: libpq's connection.
        then: called in any thread once the server has been told, or cannot be.
    """
    request = None
    try:
        libpq = _libpq(extension.__file__)
    except (AttributeError, OSError) as error:
        _log.debug("libpq cannot be reached: {error!r}", error=error)
    else:
        request = libpq.PQgetCancel(connection_address)
    if not request:  # without libpq, or it is closed
        then()
        return

    def send() -> None:
        libpq.PQcancel(request, ctypes.create_string_buffer(256), 256)
        libpq.PQfreeCancel(request)
        then()

    _real.start_new_thread(send, ())


@cache
def _libpq(path: str) -> Any:
    """The functions of the libpq that the extension at `path` is linked to."""
    libpq = ctypes.CDLL(path)
    libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
    libpq.PQgetCancel.restype = ctypes.c_void_p
    libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]
    libpq.PQfreeCancel.restype = None
    return libpq


# SQLAlchemy


def make_sqlalchemy_safe(module: Any = None) -> None:
    """Let no connection of SQLAlchemy's pools be forgotten when a task is interrupted.

    Its queue tells the first of those who wait that a connection came back. One who
    is being interrupted at that very moment does not come to take it, and the others
    would go on waiting while it lies there: so he tells the next one.
    """
    queue: Any = importlib.import_module("sqlalchemy.util.queue")
    get = queue.Queue.get
    if hasattr(get, "__wrapped__"):
        return

    @wraps(get)
    def get_or_pass_on(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return get(self, *args, **kwargs)
        except queue.Empty:
            raise
        except BaseException:
            with self.not_empty:
                self.not_empty.notify()
            raise

    queue.Queue.get = get_or_pass_on


# redis-py


def make_redis_heed_interruptions(module: Any = None) -> None:
    """Let redis-py try nothing again for a task that was told to stop.

    To it, a task's `TimedOut` or `ClientDisconnected` is a network that failed, so
    it would connect anew and wait again, three times by default.
    """
    retry: Any = importlib.import_module("redis.retry")
    call_with_retry = retry.Retry.call_with_retry
    if hasattr(call_with_retry, "__wrapped__"):
        return

    @wraps(call_with_retry)
    def call_until_interrupted(
        self: Any, do: Any, fail: Any, *args: Any, **kwargs: Any
    ) -> Any:
        handled = sys.exc_info()[1]

        def fail_or_stop(error: Exception, *count: Any) -> None:
            interruption = interruption_of(error, handled)
            try:
                fail(error, *count)  # it closes the connection, and may raise `error`
            finally:
                if interruption is not None:
                    raise interruption from None

        return call_with_retry(self, do, fail_or_stop, *args, **kwargs)

    retry.Retry.call_with_retry = call_until_interrupted


# When they are imported


class _Watch(MetaPathFinder):
    """Makes drivers green as soon as somebody imports them."""

    def __init__(self) -> None:
        self._looking = False

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> ModuleSpec | None:
        if name not in _MAKE_GREEN or self._looking:
            return None
        self._looking = True
        try:
            spec = find_spec(name)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenGreen(spec.loader, _MAKE_GREEN[name])
        return spec


class _ThenGreen(Loader):
    """A driver's own loader, and what is to be done after it."""

    def __init__(self, loader: Any, then: Callable[[Any], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)


_MAKE_GREEN: dict[str, Callable[[Any], None]] = {
    "psycopg": make_psycopg_green,
    "psycopg2": make_psycopg2_green,
    "redis": make_redis_heed_interruptions,
    "sqlalchemy": make_sqlalchemy_safe,
}


def watch_imports() -> None:
    """Make the drivers green: those that are imported now, the others when they are.

    Call once select and socket are patched; a second call changes nothing.
    """
    for name, make_green in _MAKE_GREEN.items():
        if name in sys.modules:
            make_green(sys.modules[name])
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
