"""Real descriptors, on a clock that looks at them when told to."""

from __future__ import annotations

import fcntl
import gc
import os
import select
import socket
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.task import Clock
from zope.interface import implementer

from txgreenwsgi._switching import readiness

from .clocked import ClockTestCase

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase


@implementer(IReactorFDSet)
class DescriptorClock(Clock):
    """What is ready is told at the next turn: `advance`."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[IReadDescriptor] = []
        self.writers: list[IWriteDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        """Watch it."""
        self.readers.append(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Watch it."""
        self.writers.append(writer)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Stop watching it, if it was watched."""
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Stop watching it, if it was watched."""
        if writer in self.writers:
            self.writers.remove(writer)

    def removeAll(self) -> Any:
        """Stop watching everything."""
        watched = {*self.readers, *self.writers}
        self.readers, self.writers = [], []
        return watched

    def getReaders(self) -> list[IReadDescriptor]:
        """What is watched for reading."""
        return self.readers

    def getWriters(self) -> list[IWriteDescriptor]:
        """What is watched for writing."""
        return self.writers

    def advance(self, amount: float) -> None:
        """Tell what is ready, then move on."""
        ended = select.POLLHUP | select.POLLERR
        for reader in self.readers[:]:
            if reader in self.readers and _is_ready(reader, select.POLLIN | ended):
                reader.doRead()
        for writer in self.writers[:]:
            if writer in self.writers and _is_ready(writer, select.POLLOUT | ended):
                writer.doWrite()
        super().advance(amount)


def _is_ready(watched: Any, events: int) -> bool:
    kernel = select.poll()
    kernel.register(watched.fileno(), events)
    return bool(kernel.poll(0))


def make_pipe(test: SynchronousTestCase) -> tuple[int, int]:
    """The reading and the writing end of a pipe; closed after the test."""
    ends = os.pipe()
    for end in ends:
        test.addCleanup(close, end)
    return ends


def make_sockets(test: SynchronousTestCase) -> tuple[socket.socket, socket.socket]:
    """Two that are connected; closed after the test."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        test.addCleanup(end.close)
    return ends


def close(fd: int) -> None:
    """Close it, if it is not closed yet."""
    try:
        os.close(fd)
    except OSError:
        return


def fill(fd: int) -> None:
    """Write until it would block."""
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, before | os.O_NONBLOCK)
    try:
        while True:
            os.write(fd, b"x" * 65536)
    except BlockingIOError:
        return


def open_descriptors() -> set[str]:
    """What this process has open."""
    return set(os.listdir("/dev/fd"))


def wait_for_the_kernel(readable: list[Any], exceptional: list[Any]) -> None:
    """Terminals and TCP take a moment to hand on what was written."""
    if not any(select.select(readable, [], exceptional, 10)):
        raise AssertionError("the kernel does not hand it on")


class DescriptorTestCase(ClockTestCase):
    """A reactor that watches descriptors, and a pipe."""

    clock: DescriptorClock

    def setUp(self) -> None:
        """Make them; after the test nothing may be watched or left open."""
        super().setUp()
        gc.collect()
        self.opened = open_descriptors()
        self.addCleanup(self.assert_nothing_watched)
        self.reading, self.writing = make_pipe(self)

    def make_clock(self) -> DescriptorClock:
        """One that watches descriptors."""
        return DescriptorClock()

    def assert_nothing_watched(self) -> None:
        """No reader, no writer, no descriptor of ours."""
        self.hub.close()
        self.assertEqual((self.clock.readers, self.clock.writers), ([], []))
        self.assertEqual(open_descriptors(), self.opened)
        self.assertEqual(readiness.waiters_of(self.hub), {})


class WithoutEpollMixin:
    """The same tests where there is no epoll: the reactor watches duplicates."""

    def setUp(self) -> None:
        """Do without epoll."""
        patched = patch.object(readiness, "watch_class", readiness.DuplicateWatch)
        patched.start()
        super().setUp()  # type: ignore[misc]
        self.addCleanup(patched.stop)  # type: ignore[attr-defined]
