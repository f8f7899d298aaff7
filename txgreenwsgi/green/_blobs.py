"""A blob of SQLite, read and written in its connection's thread.

The original class cannot be subclassed, so this one wraps it. It knows the original
blob, and calls it through a function of the green connection. It must never know tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Blob"]

T = TypeVar("T")


class _Run(Protocol):
    def __call__(
        self, function: Callable[..., T], *args: object, unstoppable: bool = False
    ) -> T: ...


class Blob:
    """The API of `sqlite3.Blob`; made by `Connection.blobopen`.

    Args:
        run: calls a function in the connection's thread.
        blob: the original blob.
    """

    def __init__(self, run: _Run, blob: Any) -> None:
        self._run = run
        self._blob = blob

    def read(self, *args: int) -> bytes:
        """As `sqlite3.Blob.read`. May park."""
        data: bytes = self._run(self._blob.read, *args)
        return data

    def write(self, *args: object) -> None:
        """As `sqlite3.Blob.write`. May park."""
        self._run(self._blob.write, *args)

    def close(self) -> None:
        """As `sqlite3.Blob.close`. May park."""
        self._run(self._blob.close, unstoppable=True)

    def seek(self, *args: int) -> None:
        """As `sqlite3.Blob.seek`. Never parks."""
        self._blob.seek(*args)

    def tell(self) -> int:
        """As `sqlite3.Blob.tell`. Never parks."""
        return int(self._blob.tell())

    def __len__(self) -> int:
        return len(self._blob)

    def __getitem__(self, key: int | slice) -> int | bytes:
        item: int | bytes = self._run(self._blob.__getitem__, key)
        return item

    def __setitem__(self, key: int | slice, value: object) -> None:
        self._run(self._blob.__setitem__, key, value)

    def __delitem__(self, key: int | slice) -> None:
        self._run(self._blob.__delitem__, key)

    def __contains__(self, key: object) -> bool:
        return key in self._blob  # raises TypeError

    def __enter__(self) -> Self:
        self._blob.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._blob.__exit__, kind, error, traceback, unstoppable=True)
