"""Descriptors by number: writes park, and closing one wakes its waiters."""

from __future__ import annotations

import contextlib
import errno
import fcntl as real_fcntl
import os as real_os
import socket as real_socket
import struct
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import TestCase

import txgreenwsgi
from txgreenwsgi.green import fcntl, os, select, socket, subprocess

if TYPE_CHECKING:
    from collections.abc import Callable

#: More than the buffer of a pipe or a socket pair.
MUCH = bytes(range(256)) * 4096


class _Ticking:
    """A task that counts its turns."""

    def __init__(self) -> None:
        self.count = 0
        self._task = txgreenwsgi.spawn(self._tick)

    def _tick(self) -> None:
        while True:
            self.count += 1
            txgreenwsgi.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


def _read_all(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 65536):
        pieces.append(piece)
    return b"".join(pieces)


class WriteTests(TestCase):
    """`os.write` of the green `os`."""

    timeout = 60

    def pipe(self) -> tuple[int, int]:
        """Return both ends of a pipe."""
        return real_os.pipe()

    def assert_written(
        self,
        reader: int,
        writer: int,
        write: Callable[[int], int] = lambda writer: int(os.write(writer, MUCH)),
    ) -> None:
        """Write and read a long message while other tasks run."""
        ticking = _Ticking()

        def write_and_close() -> int:
            try:
                return write(writer)
            finally:
                os.close(writer)

        writing = txgreenwsgi.spawn(write_and_close)
        reading = txgreenwsgi.spawn(_read_all, reader)
        self.assertEqual(reading.wait(20), MUCH)
        self.assertEqual(writing.wait(20), len(MUCH))
        ticking.stop()
        self.assertGreater(ticking.count, 5)
        os.close(reader)

    @txgreenwsgi.in_greenlet
    def test_pipe(self) -> None:
        """More than a pipe holds is written while another task reads it."""
        self.assert_written(*self.pipe())

    @txgreenwsgi.in_greenlet
    def test_socket(self) -> None:
        """The same holds for the descriptor of a stream socket."""
        one, other = real_socket.socketpair()
        self.assert_written(one.detach(), other.detach())

    @txgreenwsgi.in_greenlet
    def test_a_full_pipe(self) -> None:
        """A write to a full pipe waits until there is room; a timeout ends it."""
        reader, writer = self.pipe()
        real_os.set_blocking(writer, False)
        try:
            while True:
                real_os.write(writer, bytes(4096))
        except BlockingIOError:
            real_os.set_blocking(writer, True)
        with self.assertRaises(txgreenwsgi.TimedOut), txgreenwsgi.timeout(0.05):
            os.write(writer, b"x")
        writing = txgreenwsgi.spawn(os.write, writer, b"x")
        txgreenwsgi.sleep(0)
        self.assertFalse(writing.done)
        real_os.read(reader, 65536)
        self.assertEqual(writing.wait(5), 1)
        os.close(reader)
        os.close(writer)

    @txgreenwsgi.in_greenlet
    def test_packet(self) -> None:
        """A packet that exceeds PIPE_BUF is still one datagram."""
        one, other = real_socket.socketpair(type=real_socket.SOCK_DGRAM)
        with one, other:
            self.assertEqual(os.write(one.fileno(), MUCH[:30_000]), 30_000)
            self.assertEqual(other.recv(65536), MUCH[:30_000])

    @txgreenwsgi.in_greenlet
    def test_like_the_original(self) -> None:
        """Files, non-blocking descriptors and errors: the same as the original."""
        with tempfile.TemporaryFile() as file:
            self.assertEqual(os.write(file.fileno(), MUCH), len(MUCH))
        reader, writer = self.pipe()
        real_os.set_blocking(writer, False)
        self.assertLess(os.write(writer, MUCH), len(MUCH))
        with self.assertRaises(BlockingIOError):
            os.write(writer, MUCH)
        os.close(reader)
        with self.assertRaises(BrokenPipeError):
            os.write(writer, b"x")
        real_os.set_blocking(writer, True)
        with self.assertRaises(BrokenPipeError):
            os.write(writer, MUCH)
        os.close(writer)
        with self.assertRaises(OSError) as caught:
            os.write(writer, b"x")
        self.assertEqual(caught.exception.errno, errno.EBADF)
        for wrong in ("text", None):
            with self.assertRaises(TypeError):
                os.write(1, wrong)
        with self.assertRaises(TypeError):
            os.write("1", b"x")

    def assert_all_written(self, write: Callable[[int], int]) -> None:
        """More than a pipe or stream socket holds is written; other tasks run."""
        one, other = real_socket.socketpair()
        for reader, writer in (self.pipe(), (one.detach(), other.detach())):
            self.assert_written(reader, writer, write)

    @txgreenwsgi.in_greenlet
    def test_several_buffers(self) -> None:
        """`os.writev` writes all of its buffers, of any size and type."""
        pieces = (MUCH[:10], b"", memoryview(MUCH)[10:70_000], bytearray(MUCH[70_000:]))
        self.assert_all_written(lambda writer: int(os.writev(writer, pieces)))

    @txgreenwsgi.in_greenlet
    def test_a_file(self) -> None:
        """`os.sendfile` sends the range and moves the file position as the original."""
        with tempfile.TemporaryFile() as file:
            file.write(MUCH)
            file.seek(0)
            number = file.fileno()
            self.assert_all_written(
                lambda writer: int(os.sendfile(writer, number, 0, 2 * len(MUCH)))
            )
            self.assertEqual(file.tell(), 0)
            reader, writer = self.pipe()
            reading = txgreenwsgi.spawn(_read_all, reader)
            self.assertEqual(os.sendfile(writer, number, None, 100_000), 100_000)
            self.assertEqual(file.tell(), 100_000)
            self.assertEqual(os.sendfile(writer, number, 5, 3), 3)
            os.close(writer)
            self.assertEqual(reading.wait(5), MUCH[:100_000] + MUCH[5:8])
            os.close(reader)

    @txgreenwsgi.in_greenlet
    def test_into_buffers(self) -> None:
        """`os.readv` waits for the first byte and returns what is available."""
        reader, writer = self.pipe()
        buffers = bytearray(2), bytearray(4)
        with self.assertRaises(txgreenwsgi.TimedOut), txgreenwsgi.timeout(0.05):
            os.readv(reader, buffers)
        reading = txgreenwsgi.spawn(os.readv, reader, buffers)
        txgreenwsgi.sleep(0)
        self.assertFalse(reading.done)
        os.writev(writer, (b"a", b"bcd"))
        self.assertEqual(reading.wait(5), 4)
        self.assertEqual(buffers, (b"ab", b"cd\0\0"))
        os.close(writer)
        self.assertEqual(os.readv(reader, buffers), 0)
        os.close(reader)

    @txgreenwsgi.in_greenlet
    def test_buffers_like_the_original(self) -> None:
        """A packet remains one packet, and errors are those of the original."""
        one, other = real_socket.socketpair(type=real_socket.SOCK_DGRAM)
        with one, other:
            written = os.writev(one.fileno(), (MUCH[:15_000], MUCH[:15_000]))
            self.assertEqual(written, 30_000)
            self.assertEqual(other.recv(65536), MUCH[:15_000] * 2)
        reader, writer = self.pipe()
        self.assertEqual(os.writev(writer, [b"x"] * 1024), 1024)
        with self.assertRaises(OSError) as caught:
            os.writev(writer, [b"x"] * 100_000)
        self.assertEqual(caught.exception.errno, errno.EINVAL)
        for wrong in (("text",), None, 7):
            with self.assertRaises(TypeError):
                os.writev(writer, wrong)
            with self.assertRaises(TypeError):
                os.readv(reader, wrong)
        os.close(reader)
        with self.assertRaises(BrokenPipeError):
            os.writev(writer, (MUCH, MUCH))
        os.close(writer)

    def test_in_the_reactor_greenlet(self) -> None:
        """Outside tasks it is the original."""
        reader, writer = self.pipe()
        self.assertEqual(os.write(writer, b"abc"), 3)
        self.assertEqual(os.read(reader, 10), b"abc")
        os.close(reader)
        os.close(writer)


class WaitingCallTests(TestCase):
    """Other functions of `os` and `fcntl` that wait for a descriptor."""

    timeout = 60

    def pipe(self) -> tuple[int, int]:
        """Return both ends of a pipe, closed after the test."""
        ends = real_os.pipe()
        for end in ends:
            self.addCleanup(real_os.close, end)
        return ends

    def parked(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return a task that calls the function; it has to wait."""
        task = txgreenwsgi.spawn(function, *args)
        txgreenwsgi.sleep(0.01)
        self.assertFalse(task.done, task)
        return task

    def folder(self) -> str:
        """Return an empty folder, removed after the test."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    if hasattr(os, "eventfd"):

        @txgreenwsgi.in_greenlet
        def test_eventfd(self) -> None:
            """Reading waits for an event, writing for room in the counter."""
            fd = real_os.eventfd(0)
            self.addCleanup(real_os.close, fd)
            reading = self.parked(os.eventfd_read, fd)
            os.eventfd_write(fd, 3)
            self.assertEqual(reading.wait(5), 3)
            most = 2**64 - 2
            for first, second in ((most, 1), (most - 1, 5)):
                os.eventfd_write(fd, first)
                writing = self.parked(os.eventfd_write, fd, second)
                self.assertEqual(os.eventfd_read(fd), first)
                writing.wait(5)
                self.assertEqual(os.eventfd_read(fd), second)
            real_os.set_blocking(fd, False)
            with self.assertRaises(BlockingIOError):
                os.eventfd_read(fd)

    if hasattr(os, "splice"):

        @txgreenwsgi.in_greenlet
        def test_splice(self) -> None:
            """It waits for data at one end and for room at the other."""
            source, writer = self.pipe()
            reader, target = self.pipe()
            splicing = self.parked(os.splice, source, target, 100)
            os.write(writer, b"data")
            self.assertEqual(splicing.wait(5), 4)
            self.assertEqual(os.read(reader, 100), b"data")
            one, other = socket.socketpair()
            with one, other:
                splicing = self.parked(os.splice, one.fileno(), target, 100)
                other.sendall(b"more")
                self.assertEqual(splicing.wait(5), 4)
                self.assertEqual(os.read(reader, 100), b"more")
            full = 0
            real_os.set_blocking(target, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    full += real_os.write(target, bytes(4096))
            os.write(writer, b"x")
            with self.assertRaises(BlockingIOError):
                os.splice(source, target, 100)
            real_os.set_blocking(target, True)
            splicing = self.parked(os.splice, source, target, 100)
            while full:
                full -= len(os.read(reader, full))
            self.assertEqual(splicing.wait(5), 1)
            with self.assertRaises(BlockingIOError):
                os.splice(source, target, 1, flags=real_os.SPLICE_F_NONBLOCK)

        @txgreenwsgi.in_greenlet
        def test_splice_to_a_slow_socket(self) -> None:
            """A socket that takes no more makes it wait, not the other tasks."""
            source, writer = self.pipe()
            one, other = real_socket.socketpair()
            self.addCleanup(one.close)
            self.addCleanup(other.close)

            def fill() -> None:
                for _ in range(256):
                    os.write(writer, bytes(4096))

            def pass_on() -> int:
                done = 0
                while done < 256 * 4096:
                    done += os.splice(source, one.fileno(), 1 << 20)
                return done

            filling, passing = txgreenwsgi.spawn(fill), txgreenwsgi.spawn(pass_on)
            txgreenwsgi.sleep(0.05)
            received = 0
            while received < 256 * 4096:
                received += len(os.read(other.fileno(), 65536))
            self.assertEqual(passing.wait(5), received)
            filling.wait(5)

        @txgreenwsgi.in_greenlet
        def test_sendfile_from_a_socket(self) -> None:
            """`os.sendfile` from a socket to a pipe waits for data."""
            reader, target = self.pipe()
            source, writer = socket.socketpair()
            with source, writer:
                sending = self.parked(os.sendfile, target, source.fileno(), None, 100)
                writer.sendall(b"data")
                self.assertEqual(sending.wait(5), 4)
            self.assertEqual(os.read(reader, 10), b"data")

    if hasattr(os, "preadv"):

        @txgreenwsgi.in_greenlet
        def test_position_of_a_pipe(self) -> None:
            """`preadv` and `pwritev` at the position -1 read and write a pipe."""
            reader, writer = self.pipe()
            data = bytearray(4)
            reading = self.parked(os.preadv, reader, [data], -1)
            self.assertEqual(os.pwritev(writer, [b"ab", b"cd"], -1), 4)
            self.assertEqual((reading.wait(5), data), (4, b"abcd"))
            with self.assertRaises(OSError):
                os.preadv(reader, [data], 0)

    @txgreenwsgi.in_greenlet
    def test_open_a_fifo(self) -> None:
        """Opening a FIFO waits for its other end, which another task opens."""
        path = real_os.path.join(self.folder(), "fifo")
        real_os.mkfifo(path)
        for first, second in (
            (os.O_RDONLY, os.O_WRONLY),
            (os.O_WRONLY, os.O_RDONLY),
        ):
            opening = self.parked(os.open, path, first)
            other = os.open(path, second)
            one = opening.wait(5)
            reader, writer = (one, other) if first == os.O_RDONLY else (other, one)
            os.write(writer, b"x")
            self.assertEqual(os.read(reader, 2), b"x")
            self.assertFalse(real_os.get_inheritable(one))
            os.close(one)
            os.close(other)
        # These do not wait.
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        os.close(os.open(path, os.O_RDWR))
        with self.assertRaises(OSError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    @txgreenwsgi.in_greenlet
    def test_interrupted_open(self) -> None:
        """An interruption ends the wait, and the thread that opens the FIFO."""
        path = real_os.path.join(self.folder(), "fifo")
        real_os.mkfifo(path)
        for flags in (os.O_RDONLY, os.O_WRONLY):
            before = len(real_os.listdir("/proc/self/task"))
            with self.assertRaises(txgreenwsgi.TimedOut), txgreenwsgi.timeout(0.05):
                os.open(path, flags)
            for _ in range(500):
                if len(real_os.listdir("/proc/self/task")) <= before:
                    break
                txgreenwsgi.sleep(0.01)
            self.assertLessEqual(len(real_os.listdir("/proc/self/task")), before)
            # Neither end is open any more.
            with self.assertRaises(OSError):
                real_os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    @txgreenwsgi.in_greenlet
    def test_locks(self) -> None:
        """`flock` waits until another task has unlocked the file."""
        path = real_os.path.join(self.folder(), "file")
        with open(path, "wb") as one, open(path, "wb") as other:
            fcntl.flock(one, fcntl.LOCK_EX)
            with self.assertRaises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self.assertRaises(txgreenwsgi.TimedOut), txgreenwsgi.timeout(0.05):
                fcntl.flock(other, fcntl.LOCK_SH)
            locking = self.parked(fcntl.flock, other.fileno(), fcntl.LOCK_EX)
            fcntl.flock(one, fcntl.LOCK_UN)
            locking.wait(5)
            with self.assertRaises(OSError):
                fcntl.flock(10_000, fcntl.LOCK_EX)

    @txgreenwsgi.in_greenlet
    def test_locks_of_another_process(self) -> None:
        """`lockf`, `os.lockf` and F_SETLKW wait for a lock of another process."""
        path = real_os.path.join(self.folder(), "file")
        program = (
            "import fcntl, sys; file = open(sys.argv[1], 'r+b'); "
            "fcntl.lockf(file, fcntl.LOCK_EX); print('locked', flush=True); "
            "sys.stdin.read()"
        )
        whole_file = struct.pack("hhqqi4x", real_fcntl.F_WRLCK, 0, 0, 0, 0)
        with open(path, "w+b") as file:
            for lock in (
                lambda: fcntl.lockf(file, fcntl.LOCK_EX),
                lambda: os.lockf(file.fileno(), os.F_LOCK, 0),
                lambda: fcntl.fcntl(file, fcntl.F_SETLKW, whole_file),
            ):
                with subprocess.Popen(
                    [sys.executable, "-c", program, path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                ) as holder:
                    self.assertEqual(holder.stdout.readline(), b"locked\n")
                    locking = self.parked(lock)
                    holder.stdin.close()
                    locking.wait(20)
                fcntl.lockf(file, fcntl.LOCK_UN)

    @txgreenwsgi.in_greenlet
    def test_system(self) -> None:
        """`os.system` runs the command while other tasks run."""
        # Not a pipe: the shell takes descriptors of one digit only.
        path = real_os.path.join(self.folder(), "fifo")
        real_os.mkfifo(path)
        writer = real_os.open(path, real_os.O_RDWR)
        self.addCleanup(real_os.close, writer)
        running = self.parked(os.system, f"read line <{path}; exit 3")
        os.write(writer, b"x\n")
        self.assertEqual(real_os.waitstatus_to_exitcode(running.wait(20)), 3)


class CloseTests(TestCase):
    """A descriptor that one task closes by number while another waits on it."""

    timeout = 60

    def closed_under(self, wait: Callable[[int], object]) -> Any:
        """Return the task that waits on a pipe whose end is then closed."""
        reader, writer = real_os.pipe()
        waiting = txgreenwsgi.spawn(wait, reader)
        txgreenwsgi.sleep(0)
        txgreenwsgi.sleep(0)
        self.assertFalse(waiting.done)
        os.close(reader)
        real_os.close(writer)
        return waiting

    def assert_bad_descriptor(self, task: Any) -> None:
        """Check that the task ended with EBADF."""
        with self.assertRaises(OSError) as caught:
            task.wait(5)
        self.assertEqual(caught.exception.errno, errno.EBADF)

    @txgreenwsgi.in_greenlet
    def test_read(self) -> None:
        """`os.read` fails with EBADF."""
        self.assert_bad_descriptor(self.closed_under(lambda fd: os.read(fd, 1)))

    @txgreenwsgi.in_greenlet
    def test_select(self) -> None:
        """`select.select` fails with EBADF."""
        self.assert_bad_descriptor(
            self.closed_under(lambda fd: select.select([fd], [], []))
        )

    @txgreenwsgi.in_greenlet
    def test_socket(self) -> None:
        """So does a socket whose descriptor is closed by number."""
        one, other = socket.socketpair()
        receiving = txgreenwsgi.spawn(one.recv, 1)
        txgreenwsgi.sleep(0)
        txgreenwsgi.sleep(0)
        os.close(one.fileno())
        self.assert_bad_descriptor(receiving)
        one.detach()
        other.close()

    @txgreenwsgi.in_greenlet
    def test_poll(self) -> None:
        """`poll` reports POLLNVAL, as for any descriptor that is not open."""

        def polling(make: Callable[[], Any]) -> Callable[[int], object]:
            def wait(fd: int) -> object:
                poll = make()
                poll.register(fd, select.POLLIN)
                return [events for _, events in poll.poll()]

            return wait

        for make in (select.poll, txgreenwsgi.poll):
            task = self.closed_under(polling(make))
            self.assertEqual(task.wait(5), [select.POLLNVAL])

    @txgreenwsgi.in_greenlet
    def test_wait_readable(self) -> None:
        """`wait_readable` reports that the descriptor is no longer open."""
        task = self.closed_under(txgreenwsgi.wait_readable)
        with self.assertRaisesRegex(ValueError, "was closed while"):
            task.wait(5)

    @txgreenwsgi.in_greenlet
    def test_a_socket_closed_by_its_method(self) -> None:
        """`socket.close` also ends `wait_readable` on the socket."""
        one, other = socket.socketpair()
        waiting = txgreenwsgi.spawn(txgreenwsgi.wait_readable, one)
        txgreenwsgi.sleep(0)
        txgreenwsgi.sleep(0)
        one.close()
        with self.assertRaisesRegex(ValueError, "was closed while"):
            waiting.wait(5)
        other.close()

    @txgreenwsgi.in_greenlet
    def test_others_go_on(self) -> None:
        """Waiters on other descriptors, or later on the same number, are unaffected."""
        reader, writer = real_os.pipe()
        waiting = [
            txgreenwsgi.spawn(os.read, reader, 1),
            txgreenwsgi.spawn(txgreenwsgi.wait_readable, reader),
        ]
        for _ in range(3):
            task = self.closed_under(lambda fd: os.read(fd, 1))
            self.assert_bad_descriptor(task)
        self.assertEqual([task.done for task in waiting], [False, False])
        real_os.write(writer, b"ab")
        self.assertEqual(waiting[0].wait(5), b"a")
        self.assertTrue(waiting[1].wait(5))
        os.close(reader)
        os.close(writer)

    @txgreenwsgi.in_greenlet
    def test_epoll(self) -> None:
        """Closing an epoll object ends the wait in it."""
        one, other = socket.socketpair()
        poll = select.epoll()
        poll.register(one, select.EPOLLIN)
        waiting = txgreenwsgi.spawn(poll.poll)
        txgreenwsgi.sleep(0)
        txgreenwsgi.sleep(0)
        poll.close()
        self.assert_bad_descriptor(waiting)
        one.close()
        other.close()

    @txgreenwsgi.in_greenlet
    def test_the_pipe_of_a_process(self) -> None:
        """Closing the pipe to a child process ends the wait for it."""
        with subprocess.Popen(
            ["sleep", "20"], stdout=subprocess.PIPE, bufsize=0
        ) as process:
            reading = txgreenwsgi.spawn(process.stdout.read, 1)
            txgreenwsgi.sleep(0)
            txgreenwsgi.sleep(0)
            process.stdout.close()
            self.assert_bad_descriptor(reading)
            process.kill()

    @txgreenwsgi.in_greenlet
    def test_reused_number(self) -> None:
        """A file can be closed whose number was a pipe's that C code has closed."""
        reader, writer = real_os.pipe()
        with self.assertRaises(TimeoutError), txgreenwsgi.timeout(0.01):
            os.read(reader, 1)
        with tempfile.TemporaryFile() as file:
            real_os.dup2(file.fileno(), reader)  # which closes the end of the pipe
        os.close(reader)
        self.assertRaises(OSError, real_os.fstat, reader)
        real_os.close(writer)

    def test_errors(self) -> None:
        """Invalid and closed descriptors raise the errors of the original."""
        with self.assertRaises(TypeError):
            os.close("1")
        with self.assertRaises(OSError) as caught:
            os.close(1 << 20)
        self.assertEqual(caught.exception.errno, errno.EBADF)
