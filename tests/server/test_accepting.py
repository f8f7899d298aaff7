"""Accepting pauses while file descriptors are short, and resumes afterwards."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server import accepting
from txgreenwsgi._server.accepting import (
    AcceptThrottle,
    descriptor_limit,
    first_reserved,
)
from txgreenwsgi._switching.greenlets import SLICE_SECONDS

from .logged import Logged

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IListeningPort

LIMIT = 80
#: An eighth of the limit is reserved for the application.
FIRST_RESERVED = 70


class Client:
    """The server's end of an accepted connection."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._fd

    def close(self) -> None:
        """A no-op, called because the factory refuses all connections."""


class Listening:
    """A listening socket whose backlog is never empty.

    Attributes:
        next_fd: the descriptor of the next connection, or the exception that
            `accept` raises in its place.
    """

    def __init__(self) -> None:
        self.next_fd: int | OSError = 10
        self.accepted = 0

    def accept(self) -> tuple[Client, tuple[str, int]]:
        """Return the next connection, on the next descriptor."""
        fd = self.next_fd
        if isinstance(fd, OSError):
            raise fd
        self.next_fd = fd + 1
        self.accepted += 1
        return Client(fd), ("192.0.2.1", self.accepted)

    def fileno(self) -> int:
        """Return its own descriptor."""
        return 7

    def getsockname(self) -> tuple[str, int]:
        """Return its address."""
        return ("192.0.2.2", 80)


class Refusing(Factory):
    """A factory that refuses and counts all connections."""

    count = 0

    def buildProtocol(self, addr: IAddress | None) -> None:
        """Refuse the connection."""
        self.count += 1


class MemoryPort(Port):
    """A port of Twisted, on a fake socket."""

    def __init__(self, clock: Any) -> None:
        self.site = Refusing()
        super().__init__(0, self.site, reactor=clock)
        self.listening = Listening()
        self.socket = self.listening
        self.numberAccepts = 100  # as set by startListening
        self.reading = True

    def fileno(self) -> int:
        """Return the descriptor of the socket, as a started port does."""
        return self.listening.fileno()

    def startReading(self) -> None:
        """Record that the reactor watches the port."""
        self.reading = True

    def stopReading(self) -> None:
        """Record that the reactor does not watch the port."""
        self.reading = False


class Slow(Refusing):
    """A factory that takes a third of a time slice for each connection."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> None:
        """Advance the clock, and refuse the connection."""
        super().buildProtocol(addr)
        self._clock.rightNow += SLICE_SECONDS / 3


class System:
    """The two system calls that find a free descriptor.

    Attributes:
        free: the lowest free descriptor, or the exception that `dup` raises.
        closed: the descriptors passed to `close`.
    """

    def __init__(self) -> None:
        self.free: int | OSError = 10
        self.closed: list[int] = []

    def dup(self, fd: int) -> int:
        """Return the lowest free descriptor."""
        if isinstance(self.free, OSError):
            raise self.free
        return self.free

    def close(self, fd: int) -> None:
        """Record the descriptor."""
        self.closed.append(fd)


class AcceptThrottleTests(SynchronousTestCase):
    """Ports in a process with few descriptors."""

    def setUp(self) -> None:
        """Watch a port in a process with a limit of 80 descriptors."""
        self.logged = Logged(self)
        self.clock = Clock()
        self.system = System()
        self.patch(accepting, "descriptor_limit", lambda: LIMIT)
        self.patch(accepting, "os", self.system)
        self.throttle = AcceptThrottle(self.clock)
        self.port = MemoryPort(self.clock)
        self.throttle.watch(self.port)

    def run_short(self) -> None:
        """Accept connections until the port is paused."""
        for _ in range(20):
            if not self.port.reading:
                return
            self.port.doRead()
        self.fail("the port never paused")

    def test_time_slice(self) -> None:
        """In one turn of the reactor a port accepts for one time slice."""
        self.port.factory = self.port.site = Slow(self.clock)
        self.port.doRead()
        self.assertEqual(self.port.site.count, 4)
        self.port.doRead()
        self.assertEqual(self.port.site.count, 8)
        self.assertTrue(self.port.reading)

    def test_room(self) -> None:
        """While descriptors are free, ports accept and no call is scheduled."""
        self.port.numberAccepts = 20
        self.port.doRead()
        self.assertEqual(self.port.site.count, 20)
        self.assertTrue(self.port.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pauses_at_the_reserve(self) -> None:
        """Connections never use the reserved descriptors, however many arrive."""
        self.port.numberAccepts = 1000
        self.port.doRead()
        self.assertFalse(self.port.reading)
        self.assertEqual(self.port.listening.next_fd, FIRST_RESERVED + 1)
        self.assertEqual(self.port.site.count, self.port.listening.accepted)

    def test_resumes(self) -> None:
        """The throttle retries ten times a second and resumes when one is free."""
        self.run_short()
        self.system.free = FIRST_RESERVED
        for _ in range(30):
            self.clock.advance(0.1)
            self.assertFalse(self.port.reading)
        self.system.free = FIRST_RESERVED - 1
        self.clock.advance(0.1)
        self.assertTrue(self.port.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(
            self.system.closed, [FIRST_RESERVED] * 30 + [FIRST_RESERVED - 1]
        )
        self.port.listening.next_fd = 20
        self.port.doRead()
        self.assertGreater(self.port.listening.next_fd, 20)

    def test_reserve_used_up(self) -> None:
        """The port stays paused while the application uses all descriptors."""
        self.run_short()
        self.system.free = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.clock.advance(0.1)
        self.assertFalse(self.port.reading)
        self.system.free = 10
        self.clock.advance(0.1)
        self.assertTrue(self.port.reading)

    def test_shortage_errors(self) -> None:
        """When accept() fails for lack of resources, the port pauses."""
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.port.listening.next_fd = OSError(number, os.strerror(number))
            self.port.doRead()
            self.assertFalse(self.port.reading)
            self.clock.advance(0.1)
            self.assertTrue(self.port.reading)
        self.assertEqual(self.port.site.count, 0)

    def test_full(self) -> None:
        """At a limit of connections, a port pauses until one is closed."""
        full = False
        throttle = AcceptThrottle(self.clock, lambda: full)
        port = MemoryPort(self.clock)
        throttle.watch(port)
        port.numberAccepts = 1
        port.doRead()
        self.assertEqual(port.site.count, 1)
        full = True
        port.doRead()
        self.clock.advance(1)
        self.assertFalse(port.reading)
        self.assertEqual(port.listening.accepted, 1)
        full = False
        self.clock.advance(0.1)
        self.assertTrue(port.reading)
        port.doRead()
        self.assertEqual(port.site.count, 2)
        self.assertEqual(self.logged.lines(), [])

    def test_full_at_the_end(self) -> None:
        """A port that closes at the limit leaves the backlog to other processes."""
        throttle = AcceptThrottle(self.clock, lambda: True)
        port = MemoryPort(self.clock)
        throttle.watch(port)
        throttle.forget()
        port.doRead()
        self.assertEqual(port.listening.accepted, 0)

    def test_other_errors(self) -> None:
        """Twisted handles any other error of accept(), and the port does not pause."""
        for number in (errno.ECONNABORTED, errno.EAGAIN):
            self.port.listening.next_fd = OSError(number, os.strerror(number))
            self.port.doRead()
            self.assertTrue(self.port.reading)

    def test_log_rate(self) -> None:
        """Repeated shortages log at most one line a minute, with the remedy."""
        for _ in range(100):
            self.port.listening.next_fd = FIRST_RESERVED
            self.run_short()
            self.clock.advance(0.1)
        lines = [line for line in self.logged.lines() if "run short" in line]
        self.assertEqual(len(lines), 1)
        self.assertIn(f"the limit is {LIMIT}", lines[0])
        self.assertIn("ulimit -n", lines[0])
        self.clock.advance(60)
        self.port.listening.next_fd = FIRST_RESERVED
        self.run_short()
        lines = [line for line in self.logged.lines() if "run short" in line]
        self.assertEqual(len(lines), 1)
        self.clock.advance(0.1)

    def test_all_ports(self) -> None:
        """All ports of a service pause and resume together."""
        other = MemoryPort(self.clock)
        self.throttle.watch(other)
        self.run_short()
        self.assertFalse(other.reading)
        other.doRead()
        self.assertEqual(other.site.count, 0)
        late = MemoryPort(self.clock)
        self.throttle.watch(late)
        self.assertFalse(late.reading)
        self.clock.advance(0.1)
        self.assertEqual((other.reading, late.reading), (True, True))

    def test_forget(self) -> None:
        """After `forget`, ports are not resumed and no call is pending."""
        self.run_short()
        self.throttle.forget()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1)
        self.assertFalse(self.port.reading)
        self.assertFalse(self.throttle.paused)

    def test_port_without_a_socket(self) -> None:
        """A port that is no Twisted socket port is ignored."""
        other: Any = object()
        port: IListeningPort = other
        self.throttle.watch(port)
        self.run_short()

    def test_other_socket_methods(self) -> None:
        """All methods but `accept` are those of the original socket."""
        self.assertEqual(self.port.socket.fileno(), 7)
        self.assertEqual(self.port.getHost().host, "192.0.2.2")


class LimitTests(SynchronousTestCase):
    """The limit of descriptors and the reserve."""

    def test_reserve(self) -> None:
        """An eighth of the limit is reserved, at most 64 descriptors."""
        for limit, first in (
            (64, 56),
            (256, 224),
            (512, 448),
            (1024, 960),
            (65536, 65472),
        ):
            self.patch(accepting, "descriptor_limit", lambda limit=limit: limit)
            self.assertEqual(first_reserved(), first)

    def test_limit(self) -> None:
        """The limit is read at each call, because it may change at any time."""

        class Resource:
            RLIMIT_NOFILE = 7
            RLIM_INFINITY = -1
            soft = 100

            def getrlimit(self, kind: int) -> tuple[int, int]:
                return self.soft, -1

        system = Resource()
        self.patch(accepting, "resource", system)
        self.assertEqual(descriptor_limit(), 100)
        system.soft = 200
        self.assertEqual(descriptor_limit(), 200)
        system.soft = -1
        self.assertGreater(descriptor_limit(), 1 << 20)
        self.patch(accepting, "resource", None)
        self.assertGreater(descriptor_limit(), 1 << 20)
