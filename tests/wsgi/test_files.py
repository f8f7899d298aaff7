"""Tests of `wsgi.file_wrapper`: its blocks, and which files the kernel may send."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Task
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._wsgi.files import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall


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


class CountingClock(Clock):
    """A clock that counts the reactor turns for which a task has asked."""

    turns = 0

    def callLater(self, delay: float, *call: Any, **named: Any) -> IDelayedCall:
        """Count the calls for the next turn."""
        self.turns += not delay
        return super().callLater(delay, *call, **named)


class FileWrapperTests(SynchronousTestCase):
    """PEP 3333, "Optional Platform-Specific File Handling"."""

    def test_iterable(self) -> None:
        """Iteration yields the rest of the file, in reads of at least 64 KiB."""
        for size in (1, 8192, 100_000):
            file = Readable(bytes(200_000))
            blocks = list(FileWrapper(file, size))
            self.assertEqual(b"".join(blocks), bytes(200_000))
            self.assertGreaterEqual(min(file.sizes), 65536)

    def test_own_iterator(self) -> None:
        """The wrapper is its own iterator; it ends at the end of the file."""
        wrapper = FileWrapper(io.BytesIO(bytes(100_000)))
        self.assertIs(iter(wrapper), wrapper)
        self.assertEqual(len(next(wrapper)), 65536)
        self.assertEqual(len(next(wrapper)), 100_000 - 65536)
        self.assertRaises(StopIteration, next, wrapper)
        self.assertRaises(StopIteration, next, wrapper)

    def test_bounded_reads(self) -> None:
        """A read is at most 1 MiB, also with a larger block size."""
        file = Readable(bytes(3_000_000))
        self.assertEqual(sum(map(len, FileWrapper(file, 1 << 30))), 3_000_000)
        self.assertLessEqual(max(file.sizes), 1024 * 1024)

    def test_position(self) -> None:
        """seek() and tell() are those of the file."""
        wrapper = FileWrapper(io.BytesIO(b"0123456789"))
        self.assertTrue(wrapper.seekable())
        self.assertEqual(wrapper.seek(4), 4)
        self.assertEqual(wrapper.seek(2, os.SEEK_CUR), 6)
        self.assertEqual(wrapper.tell(), 6)
        self.assertEqual(next(wrapper), b"6789")
        self.assertEqual(wrapper.seek(-3, os.SEEK_END), 7)
        self.assertEqual(list(wrapper), [b"789"])
        self.assertEqual(wrapper.seek(0), 0)
        self.assertRaises(ValueError, wrapper.seek, 0, 9)

    def test_seek_that_returns_none(self) -> None:
        """seek() of a file-like object may return None, as that of mmap does."""

        class File(Readable):
            at = 0

            def seek(self, offset: int, whence: int = 0) -> None:
                self.at = offset

            def tell(self) -> int:
                return self.at

        wrapper = FileWrapper(File(b""))
        self.assertTrue(wrapper.seekable())
        self.assertEqual(wrapper.seek(5), 5)

    def test_no_position(self) -> None:
        """Objects without a position are not seekable."""
        wrapper = FileWrapper(Readable(b"abc"))
        self.assertFalse(wrapper.seekable())
        self.assertRaises(io.UnsupportedOperation, wrapper.seek, 0)
        self.assertRaises(io.UnsupportedOperation, wrapper.tell)
        reader, writer = os.pipe()
        with open(reader, "rb") as read, open(writer, "wb"):
            self.assertFalse(FileWrapper(read).seekable())
            self.assertRaises(OSError, FileWrapper(read).seek, 0)

    def test_position_of_compressed_files(self) -> None:
        """A compressed file is positioned in both directions, from any origin."""
        content = bytes(range(256)) * 1000
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("file", content)
        files: list[Any] = [
            gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content))),
            bz2.BZ2File(io.BytesIO(bz2.compress(content))),
            lzma.LZMAFile(io.BytesIO(lzma.compress(content))),  # noqa: SIM115 - closed below
            zipfile.ZipFile(packed).open("file"),  # noqa: SIM115 - closed below
        ]
        for file in files:
            wrapper = FileWrapper(file)
            for offset, whence, place in [
                (200_000, 0, 200_000),
                (10, 1, 200_010),
                (-20, 1, 199_990),
                (5, 0, 5),
                (-1000, 2, 255_000),
                (0, 2, 256_000),
                (300_000, 0, 256_000),
            ]:
                self.assertEqual(wrapper.seek(offset, whence), place, file)
                self.assertEqual(b"".join(wrapper), content[place:], file)
                wrapper.seek(place)
            self.assertRaises(ValueError, wrapper.seek, 0, 9)
            wrapper.close()

    def test_yields_to_the_reactor(self) -> None:
        """Reading, and positioning in a compressed file, yields after at most 4 MiB."""
        size = 40 * 1024 * 1024

        def skip(wrapper: FileWrapper) -> None:
            self.assertEqual(sum(map(len, wrapper)), size)

        def position(wrapper: FileWrapper) -> None:
            self.assertEqual(wrapper.seek(0, os.SEEK_END), size)

        plain = io.BytesIO(bytes(size))
        packed = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(bytes(size), 1)))
        for file, use in [(plain, skip), (packed, position)]:
            clock = CountingClock()
            self.run_in_task(clock, use, FileWrapper(file))
            self.assertGreaterEqual(clock.turns, 9)
            self.assertLess(clock.turns, 12)

    def run_in_task(
        self,
        clock: Clock,
        function: Callable[[FileWrapper], object],
        wrapper: FileWrapper,
    ) -> None:
        """Run a function in a task to its end."""
        task = Task(hub_of(clock), function, (wrapper,))
        task.hub.start(task)
        clock.advance(0)
        self.successResultOf(task.deferred())

    def test_yields_after_a_time_slice(self) -> None:
        """A read that took longer than a time slice is followed by a reactor turn."""
        clock = CountingClock()

        class Slow(Readable):
            def read(self, size: int) -> bytes:
                clock.rightNow += 0.1
                return super().read(size)

        read: list[bytes] = []
        wrapper = FileWrapper(Slow(bytes(200_000)))
        self.run_in_task(clock, read.extend, wrapper)
        self.assertEqual(sum(map(len, read)), 200_000)
        self.assertEqual(clock.turns, 4)

    def test_reads_where_it_cannot_park(self) -> None:
        """Outside of a task the wrapper reads without yielding."""
        self.assertEqual(
            sum(map(len, FileWrapper(io.BytesIO(bytes(10_000_000))))), 10_000_000
        )

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
                wrapper = FileWrapper(file)
                wrapper.seek(-4, os.SEEK_END)
                self.assertEqual(self.region(file), (6, 4))
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
