"""Tests of `wsgi.file_wrapper`: its blocks, and which files the kernel may send."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._wsgi.files import FileWrapper


class Readable:
    """The minimal object that can be wrapped; records the sizes of its reads."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sizes: list[int] = []

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        self.sizes.append(size)
        data, self.data = self.data[:size], self.data[size:]
        return data


class FileWrapperTests(SynchronousTestCase):
    """PEP 3333, "Optional Platform-Specific File Handling"."""

    def test_iterable(self) -> None:
        """Iteration yields the rest of the file, in reads of at least 64 KiB."""
        for size in (1, 8192, 100_000):
            file = Readable(bytes(200_000))
            blocks = list(FileWrapper(file, size))
            self.assertEqual(b"".join(blocks), bytes(200_000))
            self.assertGreaterEqual(min(file.sizes), 65536)

    def test_limit(self) -> None:
        """blocks(limit) reads at most `limit` bytes of the file."""
        for limit in (0, 1, 65536, 65537, 150_000, 200_000, 300_000):
            file = Readable(bytes(200_000))
            blocks = list(FileWrapper(file).blocks(limit))
            self.assertEqual(sum(map(len, blocks)), min(limit, 200_000))
            self.assertEqual(len(file.data), max(0, 200_000 - limit))

    def test_close(self) -> None:
        """close() closes the file, and is a no-op if it has no close()."""
        file = io.BytesIO(b"abc")
        FileWrapper(file).close()
        self.assertTrue(file.closed)
        FileWrapper(Readable(b"abc")).close()

    def region(self, file: Any) -> tuple[int, int] | None:
        """Return offset and length of the region that the kernel may send."""
        found = FileWrapper(file).regular_file()
        if found is None:
            return None
        self.assertEqual(found.fd, file.fileno())
        return found.offset, found.length

    def test_regular_files(self) -> None:
        """Regular files are sent with sendfile(), from their current position."""
        path = Path(self.mktemp())
        path.write_bytes(b"0123456789")
        for buffering in (-1, 0):
            with open(path, "rb", buffering) as file:
                self.assertEqual(self.region(file), (0, 10))
                file.read(3)
                self.assertEqual(self.region(file), (3, 7))
                file.seek(30)
                self.assertEqual(self.region(file), (30, 0))
        with open(path, "r+b") as file:
            self.assertEqual(self.region(file), (0, 10))
        with tempfile.NamedTemporaryFile() as named:
            named.write(b"abc")
            named.flush()
            named.seek(0)
            self.assertEqual(self.region(named), (0, 3))

    def test_read_instead(self) -> None:
        """Objects other than plain binary files are read, not sent by descriptor."""
        path = Path(self.mktemp())
        path.write_bytes(gzip.compress(b"0123456789"))
        with gzip.open(path) as compressed:
            self.assertIsNone(self.region(compressed))
            self.assertEqual(list(FileWrapper(compressed)), [b"0123456789"])
        with open(path, encoding="latin-1") as text:
            self.assertIsNone(self.region(text))
        for memory in (io.BytesIO(b"abc"), Readable(b"abc")):
            self.assertIsNone(self.region(memory))
        reader, writer = os.pipe()
        with open(reader, "rb") as read, open(writer, "wb") as write:
            self.assertIsNone(self.region(read))
            self.assertIsNone(self.region(write))
        with open(path, "rb") as closed:
            pass
        self.assertIsNone(FileWrapper(closed).regular_file())

    def test_files_without_a_size(self) -> None:
        """Files of size 0 are read: those in /proc have content all the same."""
        path = Path(self.mktemp())
        path.write_bytes(b"")
        with open(path, "rb") as empty:
            self.assertIsNone(self.region(empty))
            self.assertEqual(list(FileWrapper(empty)), [])

    def test_files_for_writing(self) -> None:
        """A file opened for writing is read, so that the read raises its error."""
        with open(self.mktemp(), "wb") as file:
            file.write(b"abc")
            file.seek(0)
            self.assertIsNone(self.region(file))
            self.assertRaises(OSError, list, FileWrapper(file))

    def test_subclasses(self) -> None:
        """A subclass that changes the data is read although it has a descriptor."""
        path = Path(self.mktemp())
        path.write_bytes(b"secret")

        class Masked(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return (super().read(size) or b"").replace(b"secret", b"******")

        with Masked(path) as masked:
            self.assertIsNone(self.region(masked))
            self.assertEqual(list(FileWrapper(masked)), [b"******"])
