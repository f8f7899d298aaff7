"""MariaDB and MySQL: Django's backend on PyMySQL, with a connection pool for tasks.

PyMySQL is written in Python, so its waits can park; mysqlclient waits in C. Django's
backend imports `MySQLdb`, for which PyMySQL is installed here.

It knows PyMySQL and Django's backend for MySQL. It must never know tasks.
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
        "the ENGINE 'txgreenwsgi.django.backends.mysql' needs PyMySQL, which is not "
        "installed: pip install PyMySQL"
    ) from error

from txgreenwsgi.django.pooled import PooledDatabase, Unusable
from txgreenwsgi.pools import was_interrupted

__all__ = ["DatabaseWrapper"]

# Django checks the version of mysqlclient, and raises the minimum from time to time.
_MYSQLCLIENT_VERSION = (2, 2, 8, "final", 1)


def _install_as_mysqlclient() -> None:
    present = sys.modules.get("MySQLdb")
    if present is not None and present is not pymysql:
        raise ImproperlyConfigured(
            "mysqlclient (MySQLdb) is already imported, possibly by Django's own MySQL "
            "backend, but the ENGINE 'txgreenwsgi.django.backends.mysql' replaces it "
            "with PyMySQL: use this ENGINE for all MySQL databases of the process, or "
            "for none"
        )
    if pymysql.version_info < _MYSQLCLIENT_VERSION:
        pymysql.version_info = _MYSQLCLIENT_VERSION
    pymysql.install_as_MySQLdb()
    # Otherwise each would be imported a second time under the other name.
    for name in ("connections", "constants", "converters", "cursors"):
        sys.modules[f"MySQLdb.{name}"] = import_module(f"pymysql.{name}")
    for name in ("CLIENT", "CR", "ER", "FIELD_TYPE", "FLAG"):
        module = import_module(f"pymysql.constants.{name}")
        sys.modules[f"MySQLdb.constants.{name}"] = module


_install_as_mysqlclient()

from django.db.backends.mysql import base  # noqa: E402 - it imports MySQLdb

# SERVER_STATUS_IN_TRANS of the protocol's status flags.
_IN_TRANSACTION = 1

_contexts: dict[str, ssl.SSLContext] = {}


class Connection(pymysql.connections.Connection):
    """PyMySQL's connection, adapted to tasks.

    Loads the system's certificates once: PyMySQL loads them for each connection, even
    if the server has no TLS, which blocks the reactor's thread for 33 ms.

    Attributes:
        cut_short: True if the connection was closed by the interruption of a wait; the
            server may still run its query.
    """

    cut_short = False
    # The exception being handled when the command began, not caused by the command.
    _handled: BaseException | None = None

    def _execute_command(self, command: int, sql: object) -> None:
        self._handled = sys.exc_info()[1]
        super()._execute_command(command, sql)

    def ping(self, reconnect: bool = False) -> None:
        """Ping the server. Never reconnects, unlike older versions of PyMySQL."""
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
    """A connection to MariaDB or MySQL; tasks take it from the pool."""

    def open_connection(self, params: dict[str, object]) -> Any:
        """Open a connection. May park."""
        return Connection(**params)

    def copy_server_data(self, maker: object) -> None:
        """Copy the server data, which saves a query."""
        if "mysql_server_data" in maker.__dict__:
            self.__dict__["mysql_server_data"] = maker.__dict__["mysql_server_data"]

    def init_connection_state(self) -> None:
        """Set up the session, unless a previous user of the connection did."""
        pooled = self._pooled
        if pooled is None or not pooled.session_ready:
            super().init_connection_state()
        if pooled is not None and "mysql_server_data" in self.__dict__:
            pooled.pool.maker.__dict__["mysql_server_data"] = self.mysql_server_data

    def close_raw(self, raw: Any) -> None:
        """Close the connection, and kill the query whose wait was interrupted."""
        if raw.open:
            raw.close()
        if raw.cut_short:
            params = self.get_connection_params() | {"database": None}
            with Connection(**params) as other, other.cursor() as cursor:
                cursor.execute("KILL %s", [raw.thread_id()])

    @staticmethod
    def descriptor_of(raw: Any) -> int | None:
        """Return the descriptor of the socket; None if it is closed."""
        return None if raw._sock is None else int(raw._sock.fileno())

    @staticmethod
    def ping(raw: Any) -> None:
        """Send COM_PING. May park."""
        raw.ping()

    @staticmethod
    def reset(raw: Any) -> None:
        """Roll back an open transaction and restore autocommit. May park."""
        if not raw.open:
            raise Unusable("the connection is closed")
        if raw._result is not None and raw._result.unbuffered_active:
            raise Unusable("rows of a query were not read")
        if raw.server_status & _IN_TRANSACTION or not raw.get_autocommit():
            raw.rollback()
        if not raw.get_autocommit():
            raw.autocommit(True)
