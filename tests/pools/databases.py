"""A fake database whose connections are counted, and may be slow or dead.

It knows the API of a driver. It must never know the pool.
"""

from __future__ import annotations

from txgreenwsgi import sleep

__all__ = ["Connection", "Database"]


class Connection:
    """One connection, which records its calls."""

    def __init__(self, database: Database, number: int) -> None:
        self.database = database
        self.number = number
        self.is_open = True
        self.is_dead = False
        self.in_transaction = False

    def __repr__(self) -> str:
        return f"<connection {self.number}>"

    def ping(self) -> None:
        """Raise if the connection is dead."""
        self.database.calls.append(f"ping {self.number}")
        if self.database.ping_seconds:
            sleep(self.database.ping_seconds)
        if self.is_dead:
            raise ConnectionResetError(f"connection {self.number} is dead")

    def rollback(self) -> None:
        """End the transaction."""
        self.database.calls.append(f"rollback {self.number}")
        if self.is_dead:
            raise ConnectionResetError(f"connection {self.number} is dead")
        self.in_transaction = False

    def close(self) -> None:
        """Close the connection, after `close_seconds`."""
        if self.database.close_seconds:
            sleep(self.database.close_seconds)
        self.is_open = False
        self.database.open.remove(self)
        self.database.calls.append(f"close {self.number}")
        if self.is_dead:
            raise ConnectionResetError(f"connection {self.number} is dead")


class Database:
    """The database to connect to.

    Attributes:
        open: open connections, including those being opened.
        most: maximum number of connections open at once.
        calls: calls of its connections, in order.
        connect_seconds: duration of connecting.
        close_seconds: duration of closing.
        ping_seconds: duration of a ping.
        refuses: True to refuse new connections.
    """

    def __init__(self) -> None:
        self.open: list[Connection] = []
        self.most = 0
        self.calls: list[str] = []
        self.connect_seconds = 0.0
        self.close_seconds = 0.0
        self.ping_seconds = 0.0
        self.refuses = False
        self._made = 0

    def connect(self) -> Connection:
        """Open a connection, after `connect_seconds`."""
        self._made += 1
        connection = Connection(self, self._made)
        self.open.append(connection)
        self.most = max(self.most, len(self.open))
        try:
            if self.connect_seconds:
                sleep(self.connect_seconds)
            if self.refuses:
                raise ConnectionRefusedError("the database refuses connections")
        except BaseException:
            self.open.remove(connection)
            raise
        return connection
