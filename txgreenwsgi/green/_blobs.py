"""A blob of SQLite, read and written in its connection's thread.

The original's class cannot be derived from. It knows green connections.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Blob"]


class Blob:
    """As `sqlite3.Blob`; made by `Connection.blobopen`."""

    def __init__(self, connection: Any, blob: Any) -> None:
        self._connection = connection
        self._blob = blob

    def _run(self, name: str, *args: Any) -> Any:
        return self._connection._run(getattr(self._blob, name), *args)

    def read(self, *args: Any) -> Any:
        """As `sqlite3.Blob.read`. May park."""
        return self._run("read", *args)

    def write(self, *args: Any) -> Any:
        """As `sqlite3.Blob.write`. May park."""
        return self._run("write", *args)

    def close(self) -> Any:
        """As `sqlite3.Blob.close`. May park."""
        return self._connection._run(self._blob.close, unstoppable=True)

    def seek(self, *args: Any) -> Any:
        """As `sqlite3.Blob.seek`. Never parks."""
        return self._blob.seek(*args)

    def tell(self) -> Any:
        """As `sqlite3.Blob.tell`. Never parks."""
        return self._blob.tell()

    def __len__(self) -> int:
        return len(self._blob)

    def __getitem__(self, key: Any) -> Any:
        return self._run("__getitem__", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._run("__setitem__", key, value)

    def __delitem__(self, key: Any) -> None:
        self._run("__delitem__", key)

    def __contains__(self, key: Any) -> Any:
        return key in self._blob  # its TypeError

    def __enter__(self) -> Any:
        self._blob.__enter__()
        return self

    def __exit__(self, *args: Any) -> Any:
        return self._connection._run(self._blob.__exit__, *args, unstoppable=True)
