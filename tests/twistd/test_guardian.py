"""The guardian: counting signals, and the deadline. No process is started."""

from __future__ import annotations

import os
import select
import signal
import socket

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.guardian import NotedSignals
from txgreenwsgi._twistd.guardian_process import count, deadline

TERM, INT, CHLD = map(int, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD))


class DeadlineTests(SynchronousTestCase):
    """The time of the kill, for the times of the signals."""

    def test_none(self) -> None:
        """Without a signal the server is never killed."""
        self.assertEqual(deadline([], 0, 30, 7), float("inf"))

    def test_signals(self) -> None:
        """The second signal ends the grace period; later ones change nothing."""
        self.assertEqual(deadline([100], 0, 30, 7), 130)
        self.assertEqual(deadline([100, 101], 0, 30, 7), 108)
        self.assertEqual(deadline([100, 101, 102], 0, 30, 7), 108)
        self.assertEqual(deadline([100, 129], 0, 30, 7), 130)

    def test_drain(self) -> None:
        """The first signal begins the drain, the second one ends it."""
        self.assertEqual(deadline([100], 60, 30, 7), 190)
        self.assertEqual(deadline([100, 110], 60, 30, 7), 140)
        self.assertEqual(deadline([100, 110, 111], 60, 30, 7), 118)
        # After the drain, a second signal ends the grace period.
        self.assertEqual(deadline([100, 170], 60, 30, 7), 177)

    def test_count(self) -> None:
        """Other signals do not count."""
        numbers = bytes((TERM, INT))
        self.assertEqual(count(bytes((CHLD, TERM, CHLD, INT, TERM)), numbers), 3)
        self.assertEqual(count(b"", numbers), 0)


class NotedSignalsTests(SynchronousTestCase):
    """The reader in the server."""

    def setUp(self) -> None:
        """Make a reader; its socket is not the wakeup descriptor."""
        self.noted, self.noting = socket.socketpair()
        self.guardian = os.pipe()
        self.reactor = os.pipe()
        for fd in (*self.guardian, *self.reactor):
            os.set_blocking(fd, False)
            self.addCleanup(os.close, fd)
        for end in (self.noted, self.noting):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.others: set[int] = set()
        self.signals = NotedSignals(
            self.noted.fileno(),
            self.noting.fileno(),
            self.guardian[1],
            (TERM, INT),
            lambda number: number not in self.others,
        )

    def note(self) -> None:
        """Put the socket in the place of the reactor's descriptor."""
        before = signal.set_wakeup_fd(self.reactor[1])
        self.addCleanup(signal.set_wakeup_fd, before)
        self.signals.note()

    def read(self, fd: int) -> bytes:
        """Return what is in a pipe."""
        try:
            return os.read(fd, 100)
        except BlockingIOError:
            return b""

    def test_passed_on(self) -> None:
        """The reactor gets all signals, the guardian those that end the process."""
        self.note()
        self.assertEqual(self.signals.fileno(), self.noted.fileno())
        self.noting.send(bytes((CHLD, TERM, INT)))
        self.signals.doRead()
        self.assertEqual(self.read(self.reactor[0]), bytes((CHLD, TERM, INT)))
        self.assertEqual(self.read(self.guardian[0]), bytes((TERM, INT)))
        self.signals.doRead()  # nothing there

    def test_other_handler(self) -> None:
        """The guardian does not get a signal that the application handles."""
        self.note()
        self.others.add(TERM)
        self.noting.send(bytes((TERM, INT)))
        self.signals.doRead()
        self.assertEqual(self.read(self.reactor[0]), bytes((TERM, INT)))
        self.assertEqual(self.read(self.guardian[0]), bytes((INT,)))

    def test_full_pipes(self) -> None:
        """Pipes that accept nothing more are left as they are."""
        self.note()
        for _, writing in (self.reactor, self.guardian):
            while select.select([], [writing], [], 0)[1]:
                os.write(writing, bytes(select.PIPE_BUF))
        self.noting.send(bytes((TERM,)))
        self.signals.doRead()
        self.assertRaises(BlockingIOError, self.noted.recv, 1)

    def test_stopped_reactor(self) -> None:
        """When the reactor closes its descriptor, it gets nothing more."""
        self.note()
        self.signals.connectionLost(Failure(ConnectionLost()))
        self.noting.send(bytes((TERM,)))
        self.signals.doRead()
        self.assertEqual(self.read(self.reactor[0]), b"")
        self.assertEqual(self.read(self.guardian[0]), bytes((TERM,)))

    def test_noted_again(self) -> None:
        """At the end of the reactor's run the socket takes its place again."""
        self.note()
        signal.set_wakeup_fd(-1)
        self.signals.note_again()
        self.assertEqual(signal.set_wakeup_fd(-1), self.noting.fileno())
        signal.set_wakeup_fd(self.reactor[1])
        self.signals.note_again()  # other code has set one
        self.assertEqual(signal.set_wakeup_fd(-1), self.reactor[1])
