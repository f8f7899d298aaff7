"""PostgreSQL: Django's backend, with a pool for tasks.

It knows psycopg 3 and psycopg2, whichever Django has chosen, where their
connections differ from one another. It must never know tasks.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base, creation

from txgreenwsgi.django.pooled import PooledDatabase, Unusable

__all__ = ["DatabaseWrapper"]

# As libpq counts them (PQtransactionStatus); both versions of psycopg do.
IDLE, _ACTIVE, IN_TRANSACTION, IN_ERROR, _UNKNOWN = range(5)


class DatabaseCreation(creation.DatabaseCreation):
    """Test databases: one that idle connections lead to cannot be dropped."""

    def _clone_test_db(self, *args: Any, **kwargs: Any) -> None:
        self.connection.close_pool()
        super()._clone_test_db(*args, **kwargs)

    def _destroy_test_db(self, *args: Any, **kwargs: Any) -> None:
        self.connection.close_pool()
        super()._destroy_test_db(*args, **kwargs)


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """A connection to PostgreSQL, in a task one of the pool's."""

    creation_class = DatabaseCreation

    def took(self, maker: Any) -> None:
        """Know the isolation level, which Django learns when it connects."""
        self.isolation_level = maker.isolation_level

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """The socket's."""
        fd: int = raw.fileno()
        return fd

    @staticmethod
    def ping(raw: Any) -> None:
        """Ask for nothing in particular."""
        with raw.cursor() as cursor:
            cursor.execute("SELECT 1")

    @staticmethod
    def put_to_rest(raw: Any) -> None:
        """Roll back what was begun."""
        if raw.closed:
            raise Unusable("it is closed")
        status = raw.info.transaction_status
        if status not in (IDLE, IN_TRANSACTION, IN_ERROR):
            raise Unusable("a query was cut short")
        if status != IDLE:
            raw.rollback()
        if not raw.autocommit:
            raw.autocommit = True
