"""Helpers for tests of connections: tasks on a clock, a peer in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._switching.greenlets import Task, hub_of
from txgreenwsgi.net import Connection
from txgreenwsgi.net.connection import ConnectionProtocol
from txgreenwsgi.testing import MemoryReactor

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class TaskTestCase(SynchronousTestCase):
    """Helpers that run functions in tasks; no task and no timer may be left."""

    def setUp(self) -> None:
        """Make a reactor in memory, whose clock the test advances."""
        self.reactor = MemoryReactor()
        self.hub = hub_of(self.reactor)
        self.addCleanup(self._assert_nothing_left)

    def _assert_nothing_left(self) -> None:
        self.reactor.settle()
        left = [(task, task.waiting_on) for task in self.hub.tasks]
        self.assertEqual([*left, *self.reactor.getDelayedCalls()], [])

    def begin(self, function: Callable[..., T], *args: Any) -> Task[T]:
        """Run a function in a task until it parks or ends."""
        task: Task[T] = Task(self.hub, function, args, name="test")
        self.hub.spawn(task)
        self.reactor.settle()
        return task

    def result(self, task: Task[T]) -> T:
        """Return the result of a task that has ended, or raise its error."""
        self.assertTrue(task.done, f"{task} waits for {task.waiting_on}")
        found: list[T] = []
        failed: list[Failure] = []
        task.deferred().addCallbacks(found.append, failed.append)
        for failure in failed:
            failure.raiseException()
        return found[0]

    def run_now(self, function: Callable[..., T], *args: Any) -> T:
        """Return the result of a function that need not wait."""
        return self.result(self.begin(function, *args))


class Transport(StringTransport):
    """A transport in memory that may be slow: each write then fills its buffer."""

    slow = False

    def write(self, data: bytes) -> None:
        """Store the data, and pause the producer if slow."""
        super().write(data)
        if self.slow:
            producer: Any = self.producer
            producer.pauseProducing()


class Peer:
    """The other end of a connection in memory."""

    def __init__(self, test: TaskTestCase) -> None:
        self.reactor = test.reactor
        self.transport = Transport()
        self.connection = Connection(test.hub)
        self.end = ConnectionProtocol(self.connection)
        self.end.makeConnection(self.transport)
        test.addCleanup(self.end_connection)

    @property
    def paused(self) -> bool:
        """True while the connection has paused reading from this peer."""
        return self.transport.producerState == "paused"

    @property
    def received(self) -> bytes:
        """The bytes that this peer has received."""
        data: bytes = self.transport.value()
        return data

    def send(self, *pieces: bytes) -> None:
        """Deliver each of `pieces` as one read."""
        for piece in pieces:
            self.end.dataReceived(piece)
            self.reactor.settle()

    def half_close(self) -> None:
        """Close the sending half."""
        self.end.readConnectionLost()
        self.reactor.settle()

    def end_connection(self, reason: Exception | None = None) -> None:
        """End the connection, cleanly unless `reason` is given."""
        if not self.connection.lost:
            self.end.connectionLost(Failure(reason or ConnectionDone()))
            self.reactor.settle()

    def lose_connection(self) -> None:
        """Break the connection."""
        self.end_connection(ConnectionLost("reset"))

    def take_no_more(self) -> None:
        """Fill the transport's buffer with every write from now on."""
        self.transport.slow = True

    def take(self) -> None:
        """Drain the transport's buffer."""
        self.end.resumeProducing()
        self.reactor.settle()
