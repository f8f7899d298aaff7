"""A database in memory whose connections are counted, and may be slow or dead.

It knows what a driver looks like. It must never know the pool.
"""

from __future__ import annotations

from txgreenwsgi import sleep

__all__ = ["Connection", "Database"]


class Connection:
    """One connection; what it is asked is written down."""

    def __init__(self, database: Database, number: int) -> None:
        self.database = database
        self.number = number
        self.is_open = True
        self.is_dead = False
        self.in_transaction = False

    def __repr__(self) -> str:
        return f"<connection {self.number}>"

    def ping(self) -> None:
        """Raise if the other side is gone."""
        self.database.told.append(f"ping {self.number}")
        if self.database.ping_seconds:
            sleep(self.database.ping_seconds)
        if self.is_dead:
            raise ConnectionResetError(f"connection {self.number} is dead")

    def rollback(self) -> None:
        """Leave the transaction."""
        self.database.told.append(f"rollback {self.number}")
        if self.is_dead:
            raise ConnectionResetError(f"connection {self.number} is dead")
        self.in_transaction = False

    def close(self) -> None:
        """Say goodbye, which may take a while."""
        if self.database.close_seconds:
            sleep(self.database.close_seconds)
        self.is_open = False
        self.database.open.remove(self)
        self.database.told.append(f"close {self.number}")
        if self.is_dead:
            raise ConnectionResetError(f"connection {self.number} is dead")


class Database:
    """What there is to connect to.

    Attributes:
        open: the connections that are open, from the moment they begin to be.
        most: how many were open at once, at most.
        told: what was asked, in order.
        connect_seconds: how long connecting takes.
        close_seconds: how long closing takes.
        ping_seconds: how long a check takes.
        refuses: the next connections are refused.
    """

    def __init__(self) -> None:
        self.open: list[Connection] = []
        self.most = 0
        self.told: list[str] = []
        self.connect_seconds = 0.0
        self.close_seconds = 0.0
        self.ping_seconds = 0.0
        self.refuses = False
        self._made = 0

    def connect(self) -> Connection:
        """A connection, after a while."""
        self._made += 1
        connection = Connection(self, self._made)
        self.open.append(connection)
        self.most = max(self.most, len(self.open))
        try:
            if self.connect_seconds:
                sleep(self.connect_seconds)
            if self.refuses:
                raise ConnectionRefusedError("the database takes nobody")
        except BaseException:
            self.open.remove(connection)
            raise
        return connection
