"""SQLite as the standard library has it, under our pool: it never waits."""

from __future__ import annotations

from typing import Any

from django.db.backends.sqlite3 import base

from txgreenwsgi.django.pooled import PooledDatabase, Unusable


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """Its connections tell what was asked of them.

    Attributes:
        pings: how often one was asked whether it lives.
        dead: connections that are to be found dead.
    """

    pings = 0
    dead: set[int] = set()  # noqa: RUF012 - shared, as the pool is

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """There is none."""
        return None

    @staticmethod
    def ping(raw: Any) -> None:
        """Count, and fail if it is dead."""
        DatabaseWrapper.pings += 1
        if id(raw) in DatabaseWrapper.dead:
            raise Unusable("it was said to be dead")

    @staticmethod
    def put_to_rest(raw: Any) -> None:
        """Roll back."""
        raw.rollback()
        raw.isolation_level = None
