"""Accepting stops while descriptors are short, and goes on when they are not."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server import accepting
from txgreenwsgi._server.accepting import Accepting

from .logged import Logged

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IListeningPort

LIMIT = 80
#: An eighth of the limit is left to the application.
MOST = 70


class Client:
    """The server's end of a connection that was accepted."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def close(self) -> None:
        """The factory refuses them all."""


class Listening:
    """A listening socket whose backlog is never empty.

    Attributes:
        next_fd: the descriptor that the next connection gets; an exception is
            raised instead.
    """

    def __init__(self) -> None:
        self.next_fd: int | OSError = 10
        self.accepted = 0

    def accept(self) -> tuple[Client, tuple[str, int]]:
        """The next connection, on the next descriptor."""
        fd = self.next_fd
        if isinstance(fd, OSError):
            raise fd
        self.next_fd = fd + 1
        self.accepted += 1
        return Client(fd), ("192.0.2.1", self.accepted)

    def fileno(self) -> int:
        """Its own descriptor."""
        return 7

    def getsockname(self) -> tuple[str, int]:
        """Where it listens."""
        return ("192.0.2.2", 80)


class Refusing(Factory):
    """Counts the connections that it refuses."""

    count = 0

    def buildProtocol(self, addr: IAddress | None) -> None:
        """No protocol for anybody."""
        self.count += 1


class MemoryPort(Port):
    """Twisted's port, on a socket of the test's."""

    def __init__(self, clock: Any) -> None:
        self.site = Refusing()
        super().__init__(0, self.site, reactor=clock)
        self.listening = Listening()
        self.socket = self.listening
        self.numberAccepts = 100  # as once it is started
        self.reading = True

    def fileno(self) -> int:
        """As if it had been started."""
        return self.listening.fileno()

    def startReading(self) -> None:
        """What the reactor is asked for."""
        self.reading = True

    def stopReading(self) -> None:
        """Likewise."""
        self.reading = False


class System:
    """The two calls by which a free descriptor is found.

    Attributes:
        free: the lowest that is; an exception is raised instead.
        closed: those that were closed again.
    """

    def __init__(self) -> None:
        self.free: int | OSError = 10
        self.closed: list[int] = []

    def dup(self, fd: int) -> int:
        """What os.dup would return."""
        if isinstance(self.free, OSError):
            raise self.free
        return self.free

    def close(self, fd: int) -> None:
        """What os.close would do."""
        self.closed.append(fd)


class AcceptingTests(SynchronousTestCase):
    """One or two ports, and a process of few descriptors."""

    def setUp(self) -> None:
        """A port that is watched, and a next descriptor that the test decides on."""
        self.logged = Logged(self)
        self.clock = Clock()
        self.system = System()
        self.patch(accepting, "_limit", lambda: LIMIT)
        self.patch(accepting, "os", self.system)
        self.accepting = Accepting(self.clock)
        self.port = MemoryPort(self.clock)
        self.accepting.watch(self.port)

    def run_short(self) -> None:
        """Accept until it is paused."""
        for _ in range(20):
            if not self.port.reading:
                return
            self.port.doRead()
        self.fail("it never paused")

    def test_room(self) -> None:
        """While there is room, nothing is different."""
        self.port.numberAccepts = 20
        self.port.doRead()
        self.assertEqual(self.port.site.count, 20)
        self.assertTrue(self.port.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pauses_before_the_last(self) -> None:
        """The last descriptors are not for connections, however many want one."""
        self.port.numberAccepts = 1000
        self.port.doRead()
        self.assertFalse(self.port.reading)
        self.assertEqual(self.port.listening.next_fd, MOST + 1)
        self.assertEqual(self.port.site.count, self.port.listening.accepted)

    def test_goes_on(self) -> None:
        """It is tried again ten times a second, and goes on when there is room."""
        self.run_short()
        self.system.free = MOST
        for _ in range(30):
            self.clock.advance(0.1)
            self.assertFalse(self.port.reading)
        self.system.free = MOST - 1
        self.clock.advance(0.1)
        self.assertTrue(self.port.reading)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.system.closed, [MOST] * 30 + [MOST - 1])
        self.port.listening.next_fd = 20
        self.port.doRead()
        self.assertGreater(self.port.listening.next_fd, 20)

    def test_no_descriptor_to_try_with(self) -> None:
        """The application has used up even those that were left to it."""
        self.run_short()
        self.system.free = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.clock.advance(0.1)
        self.assertFalse(self.port.reading)
        self.system.free = 10
        self.clock.advance(0.1)
        self.assertTrue(self.port.reading)

    def test_none_left(self) -> None:
        """When accepting fails for want of anything, it is paused, and not tried on."""
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.port.listening.next_fd = OSError(number, os.strerror(number))
            self.port.doRead()
            self.assertFalse(self.port.reading)
            self.clock.advance(0.1)
            self.assertTrue(self.port.reading)
        self.assertEqual(self.port.site.count, 0)

    def test_other_errors(self) -> None:
        """An error that has nothing to do with it goes its way."""
        for number in (errno.ECONNABORTED, errno.EAGAIN):
            self.port.listening.next_fd = OSError(number, os.strerror(number))
            self.port.doRead()
            self.assertTrue(self.port.reading)

    def test_one_line(self) -> None:
        """A shortage that comes and goes is one line a minute, with the remedy."""
        for _ in range(100):
            self.port.listening.next_fd = MOST
            self.run_short()
            self.clock.advance(0.1)
        lines = [line for line in self.logged.lines() if "run short" in line]
        self.assertEqual(len(lines), 1)
        self.assertIn(f"the limit is {LIMIT}", lines[0])
        self.assertIn("ulimit -n", lines[0])
        self.clock.advance(60)
        self.port.listening.next_fd = MOST
        self.run_short()
        lines = [line for line in self.logged.lines() if "run short" in line]
        self.assertEqual(len(lines), 1)
        self.clock.advance(0.1)

    def test_all_ports(self) -> None:
        """The ports of a service share their descriptors."""
        other = MemoryPort(self.clock)
        self.accepting.watch(other)
        self.run_short()
        self.assertFalse(other.reading)
        other.doRead()
        self.assertEqual(other.site.count, 0)
        late = MemoryPort(self.clock)
        self.accepting.watch(late)
        self.assertFalse(late.reading)
        self.clock.advance(0.1)
        self.assertEqual((other.reading, late.reading), (True, True))

    def test_forgotten(self) -> None:
        """Ports that are closed are not read from again, and nothing is pending."""
        self.run_short()
        self.accepting.forget()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1)
        self.assertFalse(self.port.reading)
        self.assertFalse(self.accepting.paused)

    def test_port_of_another_kind(self) -> None:
        """What is not Twisted's port of sockets is left alone."""
        other: Any = object()
        port: IListeningPort = other
        self.accepting.watch(port)
        self.run_short()

    def test_socket_is_what_it_was(self) -> None:
        """In all else the port's socket is the one that it was."""
        self.assertEqual(self.port.socket.fileno(), 7)
        self.assertEqual(self.port.getHost().host, "192.0.2.2")


class LimitTests(SynchronousTestCase):
    """What the system allows this process."""

    def test_spare(self) -> None:
        """At most 64 descriptors are left to the application, at least an eighth."""
        for limit, most in (
            (64, 56),
            (256, 224),
            (512, 448),
            (1024, 960),
            (65536, 65472),
        ):
            self.patch(accepting, "_limit", lambda limit=limit: limit)
            self.assertEqual(accepting._most(), most)

    def test_limit(self) -> None:
        """The limit is asked for each time: it can be changed at any time."""

        class Resource:
            RLIMIT_NOFILE = 7
            RLIM_INFINITY = -1
            soft = 100

            def getrlimit(self, kind: int) -> tuple[int, int]:
                return self.soft, -1

        system = Resource()
        self.patch(accepting, "resource", system)
        self.assertEqual(accepting._limit(), 100)
        system.soft = 200
        self.assertEqual(accepting._limit(), 200)
        system.soft = -1
        self.assertGreater(accepting._limit(), 1 << 20)
        self.patch(accepting, "resource", None)
        self.assertGreater(accepting._limit(), 1 << 20)
