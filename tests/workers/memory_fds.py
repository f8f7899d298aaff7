"""A reactor that watches nothing: tests call the descriptors themselves."""

from __future__ import annotations

from typing import Any


class FakeReactor:
    """Records the readers and writers."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: object) -> None:
        """Add a reader."""
        self.readers.add(reader)

    def removeReader(self, reader: object) -> None:
        """Remove a reader."""
        self.readers.discard(reader)

    def addWriter(self, writer: object) -> None:
        """Add a writer."""
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        """Remove a writer."""
        self.writers.discard(writer)
