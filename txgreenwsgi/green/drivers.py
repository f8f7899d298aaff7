"""Cooperative drivers: psycopg 3, psycopg2, SQLAlchemy's pool, redis-py, pyOpenSSL.

psycopg2 waits in C and has a hook; psycopg 3 waits in two functions of a module. Both
are replaced with functions that park. If a task is interrupted during a query, the
query is cancelled at the server, so that it stops there. The connection is then
usable again, or closed; it is never left in the middle of a response.

SQLAlchemy's pool and redis-py wait on green sockets and locks, but do not expect an
interruption there. pyOpenSSL is in `_pyopenssl.py`.

This module knows where these drivers wait. It must never import any of them before the
program does.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import inspect
import os
import sys
from collections.abc import Generator
from functools import cache, wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.logger import Logger

from txgreenwsgi._parking import descriptors
from txgreenwsgi._parking.real_threads import start_real_thread
from txgreenwsgi._parking.waits import may_park, yield_to_others
from txgreenwsgi._switching.errors import (
    Cancelled,
    ClientDisconnected,
    RequestTimeout,
    Stopping,
    TimedOut,
)
from txgreenwsgi._switching.greenlets import Suspension
from txgreenwsgi._switching.running import current_task
from txgreenwsgi._switching.timeouts import shield
from txgreenwsgi._switching.timeouts import timeout as time_limit

from ._pyopenssl import make_pyopenssl_green

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from txgreenwsgi._switching.greenlets import Task

__all__ = [
    "interruption_of",
    "make_psycopg2_green",
    "make_psycopg_green",
    "make_pyopenssl_green",
    "make_redis_heed_interruptions",
    "make_sqlalchemy_safe",
    "wait_for_psycopg2",
    "was_interrupted",
    "watch_imports",
]

T = TypeVar("T")
_log = Logger()

#: Time for the server to end a cancelled query. After that the connection is closed.
CANCEL_SECONDS = 5.0

# The default of psycopg.
_INTERVAL = 0.1

# The exceptions that interrupt a wait. The state of the connection is unknown then.
_INTERRUPTIONS = (
    Cancelled,
    ClientDisconnected,
    RequestTimeout,
    Stopping,
    TimedOut,
)


def _do_nothing() -> None:
    """No-op callback."""


def interruption_of(
    error: BaseException, handled: BaseException | None = None
) -> BaseException | None:
    """Return the interruption of a wait that caused `error`, or None.

    Drivers wrap an interruption in exceptions of their own, so this follows the causes
    and contexts of `error`. Never parks.

    Args:
        error: the exception raised by a driver.
        handled: the exception being handled when the driver was called
            (`sys.exc_info()[1]`). It is the context of all exceptions raised
            meanwhile, but not their cause, so the search stops there.
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
    """Return whether `error` was caused by the interruption of a wait.

    The arguments are those of `interruption_of`. Never parks.
    """
    return interruption_of(error, handled) is not None


# psycopg2


class _Psycopg2Connection(Protocol):
    status: int
    dsn: str
    pgconn_ptr: int | None

    def poll(self) -> int: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def wait_for_psycopg2(connection: _Psycopg2Connection) -> None:
    """Wait until a psycopg2 connection is ready; for `set_wait_callback`.

    May park; blocks in the reactor greenlet and in threads. psycopg2 closes the
    connection if this raises.
    """
    extensions = sys.modules["psycopg2.extensions"]
    connecting = connection.status in (extensions.STATUS_SETUP, _STATUS_CONNECTING)
    deadline = _connect_deadline(connection, extensions) if connecting else None
    handled = sys.exc_info()[1]
    try:
        _poll_psycopg2(connection, extensions, deadline)
    except BaseException as error:
        if connecting:
            connection.close()  # a traceback may keep it alive
        elif was_interrupted(error, handled):
            _end_psycopg2_query(connection, extensions)
        raise


def _poll_psycopg2(
    connection: _Psycopg2Connection, extensions: ModuleType, deadline: float | None
) -> None:
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        if state == extensions.POLL_READ:
            direction = descriptors.READ
        elif state == extensions.POLL_WRITE:
            direction = descriptors.WRITE
        else:
            raise _psycopg2_errors().OperationalError(
                f"psycopg2 reports the unknown poll state {state!r}"
            )
        fd = connection.fileno()
        left = None if deadline is None else max(0.0, deadline - monotonic())
        task = current_task()
        if task is None or not may_park():
            descriptors.block(fd, direction, left)
        else:
            descriptors.wait_any(task, {fd: direction}, left, connection)
        if deadline is not None and monotonic() >= deadline:
            raise _psycopg2_errors().OperationalError("timeout expired")


def _psycopg2_errors() -> ModuleType:
    return importlib.import_module("psycopg2")


def _connect_deadline(
    connection: _Psycopg2Connection, extensions: ModuleType
) -> float | None:
    """Return the deadline of `connect_timeout`, which the callback must enforce."""
    seconds = int(extensions.parse_dsn(connection.dsn).get("connect_timeout") or 0)
    return monotonic() + seconds if seconds > 0 else None


def _end_psycopg2_query(
    connection: _Psycopg2Connection, extensions: ModuleType
) -> None:
    """Cancel the query at the server and wait until it ends. May park."""
    _request_cancel(importlib.import_module("psycopg2._psycopg"), connection.pgconn_ptr)
    task = current_task()
    if task is None or task.dying or not may_park():
        return
    try:
        with shield(), time_limit(CANCEL_SECONDS):
            _poll_psycopg2(connection, extensions, None)
    except Exception as error:
        _log.debug("cancelling a psycopg2 query failed: {error!r}", error=error)


# A constant of psycopg2's C code, without a name in Python.
_STATUS_CONNECTING = 20


def make_psycopg2_green(module: object = None) -> None:
    """Install `wait_for_psycopg2`, unless another wait callback is installed."""
    extensions = importlib.import_module("psycopg2.extensions")
    if extensions.get_wait_callback() is None:
        extensions.set_wait_callback(wait_for_psycopg2)


# psycopg 3


# psycopg's generators yield the events to wait for and are sent the ready events.
_Steps = Generator[Any, int, T]


class _PGconn(Protocol):
    pgconn_ptr: int | None
    socket: int
    transaction_status: int

    def get_cancel(self) -> _CancelRequest: ...
    def finish(self) -> None: ...


class _CancelRequest(Protocol):
    def cancel(self) -> None: ...


class _PsycopgConnection(Protocol):
    pgconn: _PGconn
    closed: bool

    def cancel_safe(self, *, timeout: float) -> None: ...


class _Waits:
    """The original wait functions of psycopg, and the API of its version."""

    def __init__(self, psycopg: ModuleType, waiting: ModuleType) -> None:
        self.wait = waiting.wait
        self.wait_conn = waiting.wait_conn
        self.of_connection = psycopg.Connection.wait
        self.errors: ModuleType = psycopg.errors
        self.active: int = psycopg.pq.TransactionStatus.ACTIVE
        self.has_cancel_safe: Callable[[], bool] = getattr(
            psycopg.capabilities, "has_cancel_safe", lambda: False
        )
        # Since 3.3 there is a time limit, and the interval is only for Ctrl-C. Before
        # 3.3 the generator checked its limits at each interval.
        self.has_limit = "timeout" in inspect.signature(waiting.wait_select).parameters
        self._extension = sys.modules.get(f"psycopg_{psycopg.pq.__impl__}.pq")

    def check_interval(self, interval: float | None) -> None:
        """Raise what the original raises for an interval that it does not accept."""
        if interval is None or interval < 0:
            self.wait(_no_steps(), -1, interval)

    def request_cancel(
        self, pgconn: _PGconn, then: Callable[[], object] = _do_nothing
    ) -> None:
        """Send a request to cancel the query of `pgconn`. Never parks.

        Args:
            pgconn: the connection.
            then: called in any thread when the request was sent or has failed.
        """
        if self._extension is not None:
            _request_cancel(self._extension, pgconn.pgconn_ptr, then)
        else:
            # The Python implementation calls libpq through ctypes, which releases the
            # GIL.
            start_real_thread(self._cancel, (pgconn.get_cancel(), then))

    def _cancel(self, request: _CancelRequest, then: Callable[[], object]) -> None:
        try:
            request.cancel()
        except self.errors.Error as error:
            _log.debug("cancelling a psycopg query failed: {error!r}", error=error)
        finally:
            then()


def _no_steps() -> _Steps[None]:
    """Return a generator that has ended, for which the original does not wait."""
    yield from ()


def make_psycopg_green(module: object = None) -> None:
    """Replace psycopg 3's wait functions: in tasks they park, elsewhere they block.

    The C and the Python implementation use the functions replaced here, so psycopg may
    have been imported before.
    """
    psycopg = importlib.import_module("psycopg")
    waiting: Any = importlib.import_module("psycopg.waiting")
    if getattr(waiting.wait, "__module__", None) == __name__:
        return
    waits = _Waits(psycopg, waiting)

    def wait(
        gen: _Steps[T],
        fileno: int,
        interval: float | None = 0.0,
        timeout: float | None = None,
    ) -> T:
        """As `psycopg.waiting.wait`. May park."""
        if current_task() is None or not may_park():
            limit = (timeout,) if waits.has_limit else ()
            result: T = waits.wait(gen, fileno, interval, *limit)
            return result
        waits.check_interval(interval)
        return _drive(waits, gen, fileno, interval, timeout)

    def wait_conn(
        gen: _Steps[T], interval: float | None = 0.0, timeout: float | None = None
    ) -> T:
        """As `psycopg.waiting.wait_conn`. May park."""
        if current_task() is None or not may_park():
            limit = (timeout,) if waits.has_limit else ()
            result: T = waits.wait_conn(gen, interval, *limit)
            return result
        waits.check_interval(interval)
        try:
            return _drive(waits, gen, None, interval, timeout)
        except BaseException:
            # It holds a partial connection, and a traceback may keep it alive.
            gen.close()
            raise

    def wait_of_connection(
        self: _PsycopgConnection, gen: _Steps[T], *args: object, **kwargs: object
    ) -> T:
        handled = sys.exc_info()[1]
        try:
            result: T = waits.of_connection(self, gen, *args, **kwargs)
            return result
        except BaseException as error:
            if was_interrupted(error, handled) and current_task() is not None:
                _end_query(waits, self, gen)
            raise

    def close(self: _PsycopgConnection) -> None:
        # libpq closes the descriptor, which the kernel does not report.
        if _waited_for and not self.closed:
            descriptors.unregister(_waited_for.pop(self.pgconn.socket, None))
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
    waits: _Waits,
    gen: _Steps[T],
    fileno: int | None,
    interval: float | None,
    limit: float | None,
) -> T:
    """Run a generator of psycopg to its end, parking at each yield.

    The generator yields the direction to wait for (with the descriptor, unless `fileno`
    is given) and is sent the ready direction, or 0 after `interval` seconds.
    """
    task = current_task()
    assert task is not None
    deadline = None if limit is None else monotonic() + limit
    # Closing the connection wakes the wait, so no interval is needed for that.
    forever = waits.has_limit and deadline is None
    try:
        asked = next(gen)
        while True:
            fd, wanted = asked if fileno is None else (fileno, asked)
            # Before it waits for reading, psycopg has read all available data.
            ready = 0 if wanted == descriptors.READ else _ready(fd, wanted)
            if ready:
                yield_to_others(task)
            else:
                seconds = None if forever and wanted == descriptors.READ else interval
                if deadline is not None:
                    seconds = max(0.0, deadline - monotonic())
                elif seconds is not None:
                    seconds = max(0.0, seconds)
                try:
                    in_time = _wait(task, fd, wanted, seconds)
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise
                    raise waits.errors.OperationalError(
                        "connection socket closed"
                    ) from error
                # After a spurious wake-up the generator reads and waits again.
                sure = in_time and wanted == descriptors.READ
                ready = wanted if sure else _ready(fd, wanted)
            if ready:
                asked = gen.send(ready)
            else:
                _require_open(waits, fd)
                gen.send(0)
            if deadline is not None and monotonic() >= deadline:
                raise waits.errors._WaitTimeout("wait timeout expired")
    except StopIteration as stop:
        result: T = stop.value
        return result


# The registrations of current waits, by descriptor, for `Connection.close`.
_waited_for: dict[int, descriptors.Registration | None] = {}


def _wait(task: Task[object], fd: int, wanted: int, seconds: float | None) -> bool:
    if wanted != descriptors.READ:
        return descriptors.wait_any(task, {fd: wanted}, seconds, "psycopg")
    registration = _waited_for[fd] = descriptors.register(task, fd, None)
    try:
        return descriptors.wait(task, fd, registration, wanted, seconds, "psycopg")
    finally:
        _waited_for.pop(fd, None)


def _ready(fd: int, wanted: int) -> int:
    return sum(
        direction
        for direction in (descriptors.READ, descriptors.WRITE)
        if wanted & direction and descriptors.is_ready(fd, direction)
    )


def _require_open(waits: _Waits, fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError as error:
        raise waits.errors.OperationalError("connection socket closed") from error


def _end_query(
    waits: _Waits, connection: _PsycopgConnection, gen: _Steps[object]
) -> None:
    """Cancel the query that `gen` waited for, and read the server's response.

    Call in the interrupted task. Parks for at most CANCEL_SECONDS; if the query does
    not end, the connection is closed.
    """
    pgconn = connection.pgconn
    if pgconn.transaction_status != waits.active:
        return
    task = current_task()
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
                # Wait until it is sent; it could cancel the next query otherwise.
                sent = Suspension(task, "sending a cancel request")
                waits.request_cancel(pgconn, sent.resume)
                sent.wait()
            _drive(waits, gen, pgconn.socket, _INTERVAL, None)
    except waits.errors.QueryCanceled:
        return  # the expected result
    except Exception as error:
        _log.debug("cancelling a psycopg query failed: {error!r}", error=error)
    finally:
        if pgconn.transaction_status == waits.active:
            # The first request may have arrived between two queries of a pipeline.
            waits.request_cancel(pgconn)
            pgconn.finish()


# Cancel requests


def _request_cancel(
    extension: ModuleType,
    connection_address: int | None,
    then: Callable[[], object] = _do_nothing,
) -> None:
    """Send a cancel request with libpq, in a new thread. Never parks.

    The drivers' functions hold the GIL until the server, which may be unreachable, has
    answered.

    Args:
        extension: a C extension module that uses libpq.
        connection_address: address of the libpq connection.
        then: called in any thread when the request was sent or has failed.
    """
    request = None
    try:
        libpq = _libpq(str(extension.__file__))
    except (AttributeError, OSError) as error:
        _log.debug("loading libpq failed: {error!r}", error=error)
    else:
        request = libpq.PQgetCancel(connection_address)
    if not request:  # no libpq, or the connection is closed
        then()
        return

    def send() -> None:
        libpq.PQcancel(request, ctypes.create_string_buffer(256), 256)
        libpq.PQfreeCancel(request)
        then()

    start_real_thread(send, ())


@cache
def _libpq(path: str) -> ctypes.CDLL:
    """Return the libpq that the extension at `path` is linked to."""
    libpq = ctypes.CDLL(path)
    libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
    libpq.PQgetCancel.restype = ctypes.c_void_p
    libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]
    libpq.PQfreeCancel.restype = None
    return libpq


# SQLAlchemy


def make_sqlalchemy_safe(module: object = None) -> None:
    """Keep SQLAlchemy's pool from stalling when a waiting task is interrupted.

    Its queue notifies the first waiter when a connection is returned. If that waiter is
    interrupted at the same moment, it does not take the connection, and the other
    waiters would keep waiting. So an interrupted waiter notifies the next one.
    """
    queue = importlib.import_module("sqlalchemy.util.queue")
    get = queue.Queue.get
    if hasattr(get, "__wrapped__"):
        return

    @wraps(get)
    def get_or_pass_on(self: Any, *args: object, **kwargs: object) -> object:
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


def make_redis_heed_interruptions(module: object = None) -> None:
    """Keep redis-py from retrying a command whose task was interrupted.

    It treats `TimedOut` and `ClientDisconnected` as network errors, and would reconnect
    and wait again, three times by default.
    """
    retry = importlib.import_module("redis.retry")
    call_with_retry = retry.Retry.call_with_retry
    if hasattr(call_with_retry, "__wrapped__"):
        return

    @wraps(call_with_retry)
    def call_until_interrupted(
        self: object,
        do: Callable[[], object],
        fail: Callable[..., object],
        *args: object,
        **kwargs: object,
    ) -> object:
        handled = sys.exc_info()[1]

        def fail_or_stop(error: Exception, *count: object) -> None:
            interruption = interruption_of(error, handled)
            try:
                fail(error, *count)  # closes the connection, and may raise `error`
            finally:
                if interruption is not None:
                    raise interruption from None

        return call_with_retry(self, do, fail_or_stop, *args, **kwargs)

    retry.Retry.call_with_retry = call_until_interrupted


# Import hook


class _DriverFinder(MetaPathFinder):
    """An import hook that makes drivers green when they are imported.

    Args:
        make_green: the functions that make a driver green, by module name.
    """

    def __init__(self, make_green: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self.make_green = make_green
        self._searching = False

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        if name not in self.make_green or self._searching:
            return None
        self._searching = True
        try:
            spec = find_spec(name)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _PatchingLoader(spec.loader, self.make_green[name])
        return spec


class _PatchingLoader(Loader):
    """A loader that delegates to the original loader and then patches the module."""

    def __init__(self, loader: Loader, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)


_MAKE_GREEN: dict[str, Callable[[ModuleType], None]] = {
    "OpenSSL.SSL": make_pyopenssl_green,
    "psycopg": make_psycopg_green,
    "psycopg2": make_psycopg2_green,
    "redis": make_redis_heed_interruptions,
    "sqlalchemy": make_sqlalchemy_safe,
}


def watch_imports(
    drivers: Mapping[str, Callable[[ModuleType], None]] = _MAKE_GREEN,
) -> None:
    """Make the imported drivers green now, and others when they are imported.

    Call after select and socket were patched; a second call is a no-op.

    Args:
        drivers: the functions that make a driver green, by module name.
    """
    for name, make_green in drivers.items():
        if name in sys.modules:
            make_green(sys.modules[name])
    if not any(
        isinstance(finder, _DriverFinder) and finder.make_green == drivers
        for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _DriverFinder(drivers))
