"""PostgreSQL: Django's backend with a connection pool for tasks.

It knows the connections of psycopg 3 and psycopg2; Django chooses one of them. It must
never know tasks.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base, creation

from txgreenwsgi.django.pooled import PooledDatabase, Unusable

__all__ = ["DatabaseWrapper"]

# The values of libpq's PQtransactionStatus, used by both versions of psycopg.
IDLE, _ACTIVE, IN_TRANSACTION, IN_ERROR, _UNKNOWN = range(5)


class DatabaseCreation(creation.DatabaseCreation):
    """Creation of test databases. Closes the pool first: connections block a drop."""

    def _clone_test_db(self, *args: object, **kwargs: object) -> None:
        self.connection.close_pool()
        super()._clone_test_db(*args, **kwargs)

    def _destroy_test_db(self, *args: object, **kwargs: object) -> None:
        self.connection.close_pool()
        super()._destroy_test_db(*args, **kwargs)


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """A connection to PostgreSQL; tasks take it from the pool."""

    creation_class = DatabaseCreation

    def copy_server_data(self, maker: Any) -> None:
        """Copy the isolation level, which Django sets when it connects."""
        self.isolation_level = maker.isolation_level

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """Return the descriptor of the socket."""
        fd: int = raw.fileno()
        return fd

    @staticmethod
    def ping(raw: Any) -> None:
        """Run `SELECT 1`. May park."""
        with raw.cursor() as cursor:
            cursor.execute("SELECT 1")

    @staticmethod
    def reset(raw: Any) -> None:
        """Roll back an open transaction and restore autocommit. May park."""
        if raw.closed:
            raise Unusable("the connection is closed")
        status = raw.info.transaction_status
        if status not in (IDLE, IN_TRANSACTION, IN_ERROR):
            raise Unusable("a query is still running")
        if status != IDLE:
            raw.rollback()
        if not raw.autocommit:
            raw.autocommit = True
