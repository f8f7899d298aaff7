"""SQLite: Django's backend, each connection in a thread of its own, with a pool.

It knows `txgreenwsgi.green.sqlite3`, and Django's backend for SQLite. It must never
know tasks.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.sqlite3 import base

from txgreenwsgi.django.pooled import PooledDatabase, Unusable
from txgreenwsgi.green import sqlite3

__all__ = ["DatabaseWrapper"]


class Cursor(base.SQLiteCursorWrapper, sqlite3.Cursor):
    """Django's cursor, which translates placeholders, on a green one."""


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """A connection to an SQLite database, in a task one of the pool's."""

    def may_be_pooled(self) -> bool:
        """A database in memory is its connection's own."""
        return super().may_be_pooled() and not self.is_in_memory_db()

    def get_connection_params(self) -> dict[str, Any]:
        """As Django has them, for a connection with a thread of its own."""
        params = super().get_connection_params()
        params.setdefault("factory", sqlite3.Connection)
        return params

    def create_cursor(self, name: str | None = None) -> Any:
        """A green cursor that takes Django's placeholders."""
        cursor = self.connection.cursor(factory=Cursor)
        if self._pooled is not None:
            self._cursors.add(cursor)
        return cursor

    def close_for_good(self) -> None:
        """Close, and let go what is only in memory. May park."""
        BaseDatabaseWrapper.close(self)

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """There is no server."""
        return None

    @staticmethod
    def ping(raw: Any) -> None:
        """See whether the file can be read."""
        raw.execute("SELECT 1").fetchone()

    @staticmethod
    def put_to_rest(raw: Any) -> None:
        """Roll back what was begun; what is closed raises by itself."""
        if raw.in_transaction:
            raw.rollback()
            if raw.in_transaction:
                raise Unusable("its transaction could not be rolled back")
        raw.isolation_level = None
