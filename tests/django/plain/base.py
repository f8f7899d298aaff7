"""A pooled backend on the standard library's sqlite3, which never parks."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import base

from txgreenwsgi.django.pooled import PooledDatabase, Unusable


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """The backend; it counts pings and can pretend that connections are dead.

    Attributes:
        pings: number of pings of all connections.
        dead: ids of connections whose ping fails.
    """

    pings = 0
    dead: set[int] = set()  # noqa: RUF012 - shared, as the pool is

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """Return None: there is no server."""
        return None

    @staticmethod
    def ping(raw: Any) -> None:
        """Count the ping, and raise if the connection is listed as dead."""
        DatabaseWrapper.pings += 1
        if id(raw) in DatabaseWrapper.dead:
            raise Unusable("the connection is listed as dead")

    @staticmethod
    def reset(raw: Any) -> None:
        """Roll back."""
        raw.rollback()
        raw.isolation_level = None
