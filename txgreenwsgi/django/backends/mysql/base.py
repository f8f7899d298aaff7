"""MariaDB and MySQL: Django's backend on PyMySQL, with a pool for tasks.

PyMySQL is written in Python, so that its waiting is ours; mysqlclient waits in C.
Django's backend imports it as `MySQLdb`, and gets it as such here.

It knows PyMySQL, and Django's backend for MySQL. It must never know tasks.
"""

from __future__ import annotations

import ssl
import sys
from importlib import import_module
from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    import pymysql
except ImportError as error:
    raise ImproperlyConfigured(
        "the ENGINE 'txgreenwsgi.django.backends.mysql' speaks by PyMySQL, which is "
        "not installed: pip install PyMySQL"
    ) from error

from txgreenwsgi.django.pooled import PooledDatabase, Unusable
from txgreenwsgi.pools import was_interrupted

__all__ = ["DatabaseWrapper"]

#: What Django asks for grows, and PyMySQL does not know of it in time.
_LIKE_MYSQLCLIENT = (2, 2, 8, "final", 1)


def _stand_in_for_mysqlclient() -> None:
    present = sys.modules.get("MySQLdb")
    if present is not None and present is not pymysql:
        raise ImproperlyConfigured(
            "mysqlclient (MySQLdb) is imported, by Django's own MySQL backend perhaps, "
            "and the ENGINE 'txgreenwsgi.django.backends.mysql' puts PyMySQL in its "
            "place: use this ENGINE for all databases of the process, or for none"
        )
    if pymysql.version_info < _LIKE_MYSQLCLIENT:
        pymysql.version_info = _LIKE_MYSQLCLIENT
    pymysql.install_as_MySQLdb()
    # Else each would be imported a second time, under the other name.
    for name in ("connections", "constants", "converters", "cursors"):
        sys.modules[f"MySQLdb.{name}"] = import_module(f"pymysql.{name}")
    for name in ("CLIENT", "CR", "ER", "FIELD_TYPE", "FLAG"):
        module = import_module(f"pymysql.constants.{name}")
        sys.modules[f"MySQLdb.constants.{name}"] = module


_stand_in_for_mysqlclient()

from django.db.backends.mysql import base  # noqa: E402 - it imports MySQLdb

#: SERVER_STATUS_IN_TRANS of the protocol's status flags.
_IN_TRANSACTION = 1

_contexts: dict[str, ssl.SSLContext] = {}


class Connection(pymysql.connections.Connection):
    """PyMySQL's, in some things better suited to many tasks.

    The system's certificates are read once, not for each connection: PyMySQL does
    so whether the server has TLS or not, and everybody waits 33 ms for it. And a
    connection knows whether it was closed because a wait was cut short.

    Attributes:
        cut_short: then the server may still be busy with its query.
    """

    cut_short = False
    # What was being handled when the command was begun, which is not its error.
    _handled: BaseException | None = None

    def _execute_command(self, command: int, sql: Any) -> None:
        self._handled = sys.exc_info()[1]
        super()._execute_command(command, sql)

    def ping(self, reconnect: bool = False) -> None:
        """Ask this connection. Older versions make another, unasked, if it is dead."""
        super().ping(reconnect=False)

    def _force_close(self) -> None:
        error = sys.exc_info()[1]
        if self._sock is not None and error is not None:
            self.cut_short = was_interrupted(error, self._handled)
        super()._force_close()

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        if isinstance(sslp, ssl.SSLContext):
            return sslp
        key = repr(sorted(sslp.items()))
        context = _contexts.get(key)
        if context is None:
            context = _contexts[key] = super()._create_ssl_ctx(sslp)
        return context


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """A connection to MariaDB or MySQL, in a task one of the pool's."""

    def connect_anew(self, params: dict[str, Any]) -> Any:
        """A connection, made now. May park."""
        return Connection(**params)

    def took(self, maker: Any) -> None:
        """Know what the server is; it need not be asked for each request."""
        if "mysql_server_data" in maker.__dict__:
            self.__dict__["mysql_server_data"] = maker.__dict__["mysql_server_data"]

    def init_connection_state(self) -> None:
        """Set the session up, unless that was done for the one who had it before."""
        pooled = self._pooled
        if pooled is None or not pooled.settled:
            super().init_connection_state()
        if pooled is not None and "mysql_server_data" in self.__dict__:
            pooled.pool.maker.__dict__["mysql_server_data"] = self.mysql_server_data

    def close_anew(self, raw: Any) -> None:
        """Close, and have the server end a query that nobody waits for any more."""
        if raw.open:
            raw.close()
        if raw.cut_short:
            params = self.get_connection_params() | {"database": None}
            with Connection(**params) as other, other.cursor() as cursor:
                cursor.execute("KILL %s", [raw.thread_id()])

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """The socket's."""
        return None if raw._sock is None else int(raw._sock.fileno())

    @staticmethod
    def ping(raw: Any) -> None:
        """COM_PING."""
        raw.ping()

    @staticmethod
    def put_to_rest(raw: Any) -> None:
        """Roll back what was begun."""
        if not raw.open:
            raise Unusable("it is closed")
        if raw._result is not None and raw._result.unbuffered_active:
            raise Unusable("rows of a query were not read")
        if raw.server_status & _IN_TRANSACTION or not raw.get_autocommit():
            raw.rollback()
        if not raw.get_autocommit():
            raw.autocommit(True)
