"""`wsgi.file_wrapper`: what it gives, and which files the kernel may send."""

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
    """The least that can be wrapped."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sizes: list[int] = []

    def read(self, size: int) -> bytes:
        """The next bytes."""
        self.sizes.append(size)
        data, self.data = self.data[:size], self.data[size:]
        return data


class FileWrapperTests(SynchronousTestCase):
    """PEP 3333, "Optional Platform-Specific File Handling"."""

    def test_iterable(self) -> None:
        """It gives what is left of the file; a block size is a suggestion."""
        for size in (1, 8192, 100_000):
            file = Readable(bytes(200_000))
            blocks = list(FileWrapper(file, size))
            self.assertEqual(b"".join(blocks), bytes(200_000))
            self.assertGreaterEqual(min(file.sizes), 65536)

    def test_part(self) -> None:
        """A part of it can be asked for, and no more is read."""
        for limit in (0, 1, 65536, 65537, 150_000, 200_000, 300_000):
            file = Readable(bytes(200_000))
            blocks = list(FileWrapper(file).blocks(limit))
            self.assertEqual(sum(map(len, blocks)), min(limit, 200_000))
            self.assertEqual(len(file.data), max(0, 200_000 - limit))

    def test_close(self) -> None:
        """close() closes the file, if that can be closed."""
        file = io.BytesIO(b"abc")
        FileWrapper(file).close()
        self.assertTrue(file.closed)
        FileWrapper(Readable(b"abc")).close()

    def regular(self, file: Any) -> tuple[int, int] | None:
        """Offset and length of what the kernel may send."""
        found = FileWrapper(file).regular_file()
        if found is None:
            return None
        self.assertEqual(found[0], file.fileno())
        return found[1:]

    def test_regular_files(self) -> None:
        """Real files are sent by the kernel, from where they stand."""
        path = Path(self.mktemp())
        path.write_bytes(b"0123456789")
        for buffering in (-1, 0):
            with open(path, "rb", buffering) as file:
                self.assertEqual(self.regular(file), (0, 10))
                file.read(3)
                self.assertEqual(self.regular(file), (3, 7))
                file.seek(30)
                self.assertEqual(self.regular(file), (30, 0))
        with open(path, "r+b") as file:
            self.assertEqual(self.regular(file), (0, 10))
        with tempfile.NamedTemporaryFile() as named:
            named.write(b"abc")
            named.flush()
            named.seek(0)
            self.assertEqual(self.regular(named), (0, 3))

    def test_what_is_read_instead(self) -> None:
        """Whatever is no plain file of bytes is read, not sent as it lies there."""
        path = Path(self.mktemp())
        path.write_bytes(gzip.compress(b"0123456789"))
        with gzip.open(path) as compressed:
            self.assertIsNone(self.regular(compressed))
            self.assertEqual(list(FileWrapper(compressed)), [b"0123456789"])
        with open(path, encoding="latin-1") as text:
            self.assertIsNone(self.regular(text))
        for memory in (io.BytesIO(b"abc"), Readable(b"abc")):
            self.assertIsNone(self.regular(memory))
        reader, writer = os.pipe()
        with open(reader, "rb") as read, open(writer, "wb") as write:
            self.assertIsNone(self.regular(read))
            self.assertIsNone(self.regular(write))
        with open(path, "rb") as closed:
            pass
        self.assertIsNone(FileWrapper(closed).regular_file())

    def test_files_without_a_size(self) -> None:
        """A file that is made as it is read is not taken for an empty one."""
        path = Path(self.mktemp())
        path.write_bytes(b"")
        with open(path, "rb") as empty:
            self.assertIsNone(self.regular(empty))
            self.assertEqual(list(FileWrapper(empty)), [])

    def test_files_for_writing(self) -> None:
        """A file that cannot be read is the application's error, to be seen."""
        with open(self.mktemp(), "wb") as file:
            file.write(b"abc")
            file.seek(0)
            self.assertIsNone(self.regular(file))
            self.assertRaises(OSError, list, FileWrapper(file))

    def test_wrappers_of_files(self) -> None:
        """A class that changes what is read is read, though it has a descriptor."""
        path = Path(self.mktemp())
        path.write_bytes(b"secret")

        class Masked(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return (super().read(size) or b"").replace(b"secret", b"******")

        with Masked(path) as masked:
            self.assertIsNone(self.regular(masked))
            self.assertEqual(list(FileWrapper(masked)), [b"******"])
