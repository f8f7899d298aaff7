"""SQLite: Django's backend with a dedicated thread per connection and a pool.

It knows `txgreenwsgi.green.sqlite3` and Django's backend for SQLite. It must never know
tasks.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.sqlite3 import base

from txgreenwsgi.django.pooled import PooledDatabase, Unusable
from txgreenwsgi.green import sqlite3

__all__ = ["DatabaseWrapper"]


class Cursor(base.SQLiteCursorWrapper, sqlite3.Cursor):
    """Django's cursor, which translates placeholders, on the green cursor."""


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """A connection to an SQLite database; tasks take it from the pool."""

    def may_be_pooled(self) -> bool:
        """Return False for an in-memory database, which belongs to its connection."""
        return super().may_be_pooled() and not self.is_in_memory_db()

    def get_connection_params(self) -> dict[str, object]:
        """Return Django's parameters, with the green connection as the factory."""
        params = super().get_connection_params()
        params.setdefault("factory", sqlite3.Connection)
        return params

    def create_cursor(self, name: str | None = None) -> Any:
        """Make a green cursor that accepts Django's placeholders."""
        cursor = self.connection.cursor(factory=Cursor)
        if self._pooled is not None:
            self._cursors.add(cursor)
        return cursor

    def close_for_good(self) -> None:
        """Close the connection, even of an in-memory database. May park."""
        BaseDatabaseWrapper.close(self)

    @staticmethod
    def descriptor_of(raw: object) -> int | None:
        """Return None: there is no server."""
        return None

    @staticmethod
    def ping(raw: Any) -> None:
        """Check that the file can be read. May park."""
        raw.execute("SELECT 1").fetchone()

    @staticmethod
    def reset(raw: Any) -> None:
        """Roll back an open transaction; raises if the connection is closed."""
        if raw.in_transaction:
            raw.rollback()
            if raw.in_transaction:
                raise Unusable("the transaction could not be rolled back")
        raw.isolation_level = None
