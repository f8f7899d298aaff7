"""A pool of connections under a Django database backend.

In a task the backend takes its connection from the pool of its database when
Django connects, and gives it back when Django closes, which it does when the
request ends; `txgreenwsgi.isolation` sees to the rest. What comes back is at rest
(no transaction, no open cursor) or it is closed. Outside tasks, in real threads
and in commands, a backend connects and closes as Django does.

It knows Django's base backend. It must never know a driver: the backends say how
one of their connections is asked.
"""

from __future__ import annotations

import atexit
import sys
import weakref
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import NO_DB_ALIAS

from txgreenwsgi.green import _events
from txgreenwsgi.green._place import here, main_task
from txgreenwsgi.pools import ConnectionPool, PoolTimeout, was_interrupted

from .pool_options import KEY, PoolOptions

if TYPE_CHECKING:
    from txgreenwsgi.pools import PoolStatistics

__all__ = ["PooledDatabase", "statistics"]


class Unusable(Exception):
    """A connection that nobody is to have any more; the message says why."""


class Pooled:
    """A driver's connection, as the pool has it.

    Attributes:
        raw: the driver's connection.
        pool: where it is given back.
        settled: whether its session has been set up.
    """

    __slots__ = ("pool", "raw", "settled")

    def __init__(self, raw: Any, pool: DatabasePool) -> None:
        self.raw = raw
        self.pool = pool
        self.settled = False


class DatabasePool(ConnectionPool[Pooled]):
    """The pool of one database.

    Args:
        maker: a backend of the pool's own, which belongs to no task: it knows how
            to connect, and keeps what is known of the server.
        options: how many, for how long.
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
            check=self._look_at,
            reset=self._put_to_rest,
            close=self._end,
            name=f"of the database {maker.alias!r}",
        )

    def _make(self) -> Pooled:
        maker = self.maker
        return Pooled(maker.connect_anew(maker.get_connection_params()), self)

    def _look_at(self, pooled: Pooled) -> None:
        """Raise if an idle connection is dead."""
        fd = self.maker.descriptor_of(pooled.raw)
        if fd is not None and _events.is_ready(fd, _events.READ):
            # Nobody asked: it says that it stops, or has hung up.
            raise Unusable("the server has ended the connection")
        if self._ping:
            self.maker.ping(pooled.raw)

    def _put_to_rest(self, pooled: Pooled) -> None:
        self.maker.put_to_rest(pooled.raw)
        if self._line:
            # The next gets it at once, unseen; who had it may not have used it lately.
            self._look_at(pooled)

    def _end(self, pooled: Pooled) -> None:
        self.maker.close_anew(pooled.raw)


#: The pools by alias, and by what they connect to: tests change that in place.
_pools: dict[str, dict[str, DatabasePool]] = {}


def statistics() -> dict[str, PoolStatistics]:
    """What each pool does and has done, by alias; the last made, if there are more."""
    found = {}
    for alias, pools in _pools.items():
        for pool in pools.values():
            found[alias] = pool.statistics()
    return found


_SAYS_WHERE = (
    *("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS"),
    *("TIME_ZONE", "CONN_HEALTH_CHECKS"),
)


def _pool_of(backend: Any, options: PoolOptions) -> DatabasePool:
    pools = _pools.setdefault(backend.alias, {})
    settings = backend.settings_dict
    where = repr([settings.get(key) for key in _SAYS_WHERE])
    pool = pools.get(where)
    if pool is None:
        maker = type(backend)(dict(settings), backend.alias)
        pool = pools[where] = DatabasePool(maker, options)
    return pool


def close_pools(alias: str) -> None:
    """Close what is idle to a database, and the rest when it is given back."""
    for pool in _pools.pop(alias, {}).values():
        pool.close()


def _close_all_pools() -> None:
    for alias in list(_pools):
        close_pools(alias)


# A server that is left without a word complains in its log.
atexit.register(_close_all_pools)


class PooledDatabase:
    """What makes a backend of Django's a pooled one: the first of its bases.

    A backend adds `descriptor_of`, `ping` and `put_to_rest`.
    """

    alias: str
    settings_dict: dict[str, Any]
    connection: Any
    in_atomic_block: bool
    needs_rollback: bool
    errors_occurred: bool
    Database: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool_options = PoolOptions.of(self.alias, self.settings_dict["OPTIONS"])
        self._pooled: Pooled | None = None
        # What somebody may still hold when the connection is another's.
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()

    # What a backend says of a connection of its driver's.

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """The file descriptor that the server speaks on; None if there is none."""
        raise NotImplementedError

    @staticmethod
    def ping(raw: Any) -> None:
        """Ask the server something, and raise if it does not answer. May park."""
        raise NotImplementedError

    @staticmethod
    def put_to_rest(raw: Any) -> None:
        """Leave nothing of whoever had it; raise if that cannot be. May park."""
        raise NotImplementedError

    def may_be_pooled(self) -> bool:
        """Is this a database that connections can be kept of?"""
        return bool(self.alias != NO_DB_ALIAS)

    # What Django calls.

    def get_connection_params(self) -> dict[str, Any]:
        """As Django has them, without what is meant for the pool."""
        params: dict[str, Any] = super().get_connection_params()  # type: ignore[misc]
        params.pop(KEY, None)
        return params

    def connect_anew(self, params: dict[str, Any]) -> Any:
        """A connection of the driver's, made now. May park."""
        return super().get_new_connection(params)  # type: ignore[misc]

    def close_anew(self, raw: Any) -> None:
        """Close what `connect_anew` has made. May park."""
        raw.close()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """A connection from the pool, where there is one. May park.

        Raises:
            OperationalError: of the driver; none became free in time.
        """
        options = self._pool_options
        task = here()
        if (
            options is None
            or task is None
            or task is main_task()
            or not self.may_be_pooled()
        ):
            return self.connect_anew(conn_params)
        pool = _pool_of(self, options)
        try:
            pooled = pool.take()
        except PoolTimeout as error:
            raise self.Database.OperationalError(
                f"{error} (OPTIONS['{KEY}'] of DATABASES[{self.alias!r}])"
            ) from error
        self._pooled = pooled
        self.took(pool.maker)
        return pooled.raw

    def took(self, maker: Any) -> None:
        """A connection was taken that `maker` has made: know what it knows."""

    def create_cursor(self, name: str | None = None) -> Any:
        """A cursor, which is closed when its connection is given back."""
        cursor = super().create_cursor(name)  # type: ignore[misc]
        if self._pooled is not None:
            self._cursors.add(cursor)
        return cursor

    def is_usable(self) -> bool:
        """Does the server answer? A connection on which it does not is not pooled."""
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
            # In a transaction it remains what we have, closed, as Django wants it:
            # then what follows in the block fails, and is not begun anew.
            self.connection = None
        pooled.settled = not in_doubt
        pooled.pool.give_back(pooled, discard=in_doubt)
        if interruption is not None:
            raise interruption

    def close_for_good(self) -> None:
        """Close as the task ends, in which nobody will ask again. May park."""
        self.close()  # type: ignore[attr-defined]

    def close_pool(self) -> None:
        """Close the pool of this database, and Django's own if there is one."""
        close_pools(self.alias)
        django = super()
        if hasattr(django, "close_pool"):
            django.close_pool()
