"""A mixin for Django database backends with a connection pool.

In a task, the backend takes a connection from the pool of its database when Django
connects, and gives it back when Django closes it, at the end of the request;
`txgreenwsgi.isolation` closes leftover connections. A returned connection has no
transaction and no open cursor; otherwise it is closed. The same holds in a thread that
serves a request. In other threads and in commands, a backend connects and closes as
Django does.

It knows Django's base backend. It must never know a driver: the backends provide the
driver-specific functions.
"""

from __future__ import annotations

import atexit
import sys
import weakref
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import NO_DB_ALIAS

from txgreenwsgi._parking.descriptors import READ, is_ready
from txgreenwsgi._parking.waits import main_task
from txgreenwsgi._switching.running import current_task
from txgreenwsgi._switching.thread_calls import in_task_of_thread
from txgreenwsgi.pools import ConnectionPool, PoolTimeout, was_interrupted

from .pool_options import KEY, PoolOptions

if TYPE_CHECKING:
    from txgreenwsgi.pools import PoolStatistics

__all__ = ["PooledDatabase", "statistics"]


class Unusable(Exception):
    """The connection must not be reused; the message gives the reason."""


class PooledConnection:
    """A connection of a driver, with the pool that owns it.

    Attributes:
        raw: the driver's connection.
        pool: the pool that owns it.
        session_ready: True once its session has been set up.
    """

    __slots__ = ("pool", "raw", "session_ready")

    def __init__(self, raw: object, pool: DatabasePool) -> None:
        self.raw = raw
        self.pool = pool
        self.session_ready = False


class DatabasePool(ConnectionPool[PooledConnection]):
    """The connection pool of one database.

    Args:
        maker: a backend instance outside of all tasks. It opens connections and caches
            the server data.
        options: the limits of the pool.
    """

    def __init__(self, maker: Any, options: PoolOptions) -> None:
        self.maker = maker
        self._ping = bool(maker.settings_dict.get("CONN_HEALTH_CHECKS"))
        super().__init__(
            self._make,
            max_size=options.max_size,
            wait_timeout=options.wait_timeout,
            max_age=options.max_age,
            max_idle=options.max_idle,
            check=self._require_alive,
            reset=self._reset_session,
            close=self._close_raw,
            name=f"of the database {maker.alias!r}",
        )

    def _make(self) -> PooledConnection:
        maker = self.maker
        raw = maker.open_connection(maker.get_connection_params())
        return PooledConnection(raw, self)

    def _require_alive(self, pooled: PooledConnection) -> None:
        """Raise if an idle connection is dead."""
        fd = self.maker.descriptor_of(pooled.raw)
        if fd is not None and is_ready(fd, READ):
            # Unsolicited data: the server is shutting down or closed the connection.
            raise Unusable("the server has closed the connection")
        if self._ping:
            self.maker.ping(pooled.raw)

    def _reset_session(self, pooled: PooledConnection) -> None:
        self.maker.reset(pooled.raw)
        if self.has_waiters:
            # It is handed over without a check, and may have been idle for a long time.
            self._require_alive(pooled)

    def _close_raw(self, pooled: PooledConnection) -> None:
        self.maker.close_raw(pooled.raw)


# The pools by alias and connection settings; tests change the settings in place.
_pools: dict[str, dict[str, DatabasePool]] = {}


def statistics() -> dict[str, PoolStatistics]:
    """Return the statistics of the newest pool of each database, by alias."""
    found = {}
    for alias, pools in _pools.items():
        for pool in pools.values():
            found[alias] = pool.statistics()
    return found


# The settings that identify a pool.
_POOL_KEYS = (
    *("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS"),
    *("TIME_ZONE", "CONN_HEALTH_CHECKS"),
)


def _pool_of(backend: Any, options: PoolOptions) -> DatabasePool:
    pools = _pools.setdefault(backend.alias, {})
    settings = backend.settings_dict
    key = repr([settings.get(name) for name in _POOL_KEYS])
    pool = pools.get(key)
    if pool is None:
        maker = type(backend)(dict(settings), backend.alias)
        pool = pools[key] = DatabasePool(maker, options)
    return pool


def pools_of(alias: str) -> list[DatabasePool]:
    """Return the open pools of a database."""
    return list(_pools.get(alias, {}).values())


def close_pools(alias: str) -> None:
    """Close the pools of a database: idle connections now, others when returned."""
    for pool in _pools.pop(alias, {}).values():
        pool.close()


def _close_all_pools() -> None:
    for alias in list(_pools):
        close_pools(alias)


# Otherwise the database server logs an error for each connection that is not closed.
atexit.register(_close_all_pools)


class PooledDatabase:
    """A mixin with a connection pool, to be the first base class of a Django backend.

    A backend adds `descriptor_of`, `ping` and `reset`.
    """

    alias: str
    settings_dict: dict[str, Any]
    connection: Any
    in_atomic_block: bool
    needs_rollback: bool
    errors_occurred: bool
    Database: Any

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._pool_options = PoolOptions.of(self.alias, self.settings_dict["OPTIONS"])
        self._pooled: PooledConnection | None = None
        # Cursors to close before the connection is given back.
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()

    # Functions of the driver, provided by the backends.

    @staticmethod
    def descriptor_of(raw: object) -> int | None:
        """Return the descriptor of the connection to the server; None without one."""
        raise NotImplementedError

    @staticmethod
    def ping(raw: object) -> None:
        """Raise unless the server answers a request. May park."""
        raise NotImplementedError

    @staticmethod
    def reset(raw: object) -> None:
        """Remove the state of the last user, or raise. May park."""
        raise NotImplementedError

    def may_be_pooled(self) -> bool:
        """Return whether connections to this database can be pooled."""
        return bool(self.alias != NO_DB_ALIAS)

    # Called by Django.

    def get_connection_params(self) -> dict[str, object]:
        """Return Django's parameters, without the options of the pool."""
        params: dict[str, object] = super().get_connection_params()  # type: ignore[misc]
        params.pop(KEY, None)
        return params

    def open_connection(self, params: dict[str, object]) -> Any:
        """Open a connection of the driver. May park."""
        return super().get_new_connection(params)  # type: ignore[misc]

    def close_raw(self, raw: Any) -> None:
        """Close a connection that `open_connection` has made. May park."""
        raw.close()

    def get_new_connection(self, conn_params: dict[str, object]) -> Any:
        """Take a connection from the pool, or open one if there is no pool. May park.

        Raises:
            OperationalError: the driver's exception: no connection became free in time.
        """
        options = self._pool_options
        task = current_task()
        if (
            options is None
            or (task is None and in_task_of_thread() is None)
            or (task is not None and task is main_task())
            or not self.may_be_pooled()
        ):
            return self.open_connection(conn_params)
        pool = _pool_of(self, options)
        try:
            pooled = pool.take()
        except PoolTimeout as error:
            raise self.Database.OperationalError(
                f"{error} (OPTIONS['{KEY}'] of DATABASES[{self.alias!r}])"
            ) from error
        self._pooled = pooled
        self.copy_server_data(pool.maker)
        return pooled.raw

    def copy_server_data(self, maker: object) -> None:
        """Copy the cached server data from the pool's backend instance."""

    def create_cursor(self, name: str | None = None) -> Any:
        """Make a cursor, which is closed when its connection is given back."""
        cursor = super().create_cursor(name)  # type: ignore[misc]
        if self._pooled is not None:
            self._cursors.add(cursor)
        return cursor

    def is_usable(self) -> bool:
        """Return whether the server answers; otherwise mark it unusable."""
        usable = self.connection is not None and bool(super().is_usable())  # type: ignore[misc]
        if not usable:
            self.errors_occurred = True
        return usable

    def _close(self) -> None:
        pooled = self._pooled
        if pooled is None:
            super()._close()  # type: ignore[misc]
            return
        self._pooled = None
        in_doubt = self.in_atomic_block or self.needs_rollback or self.errors_occurred
        interruption: Exception | None = None
        handled = sys.exc_info()[1]
        if not in_doubt:
            try:
                for cursor in list(self._cursors):
                    cursor.close()
            except Exception as error:
                in_doubt = True
                if was_interrupted(error, handled):
                    interruption = error
        self._cursors.clear()
        if not in_doubt:
            # In a transaction, Django expects a closed connection to stay in place, so
            # that later queries of the block fail instead of reconnecting.
            self.connection = None
        pooled.session_ready = not in_doubt
        pooled.pool.give_back(pooled, discard=in_doubt)
        if interruption is not None:
            raise interruption

    def close_for_good(self) -> None:
        """Close at the end of the task. May park."""
        self.close()  # type: ignore[attr-defined]

    def close_pool(self) -> None:
        """Close the pool of this database, and Django's own pool if it has one."""
        close_pools(self.alias)
        django = super()
        if hasattr(django, "close_pool"):
            django.close_pool()
