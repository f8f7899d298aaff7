"""Tests of connecting and listening, with endpoints in memory."""

from __future__ import annotations

import errno
from contextvars import ContextVar
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from txgreenwsgi import Cancelled, NotInGreenlet, TimedOut
from txgreenwsgi.net import Connection, Listener, connect, listen

from .tasks import TaskTestCase

colour: ContextVar[str] = ContextVar("colour")


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    """An endpoint that connects when the test says so."""

    def __init__(self) -> None:
        self.connecting: Deferred[Any] = Deferred(self._cancel)
        self.cancelled = False
        self.factory: Any = None

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled = True

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Record the factory; called by `net.connect`."""
        self.factory = protocolFactory
        return self.connecting

    def made(self) -> StringTransport:
        """Make the connection."""
        transport = StringTransport()
        protocol = self.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        self.connecting.callback(protocol)
        return transport


class ConnectTests(TaskTestCase):
    """`net.connect`."""

    def test_connected(self) -> None:
        """It waits for the connection and returns it."""
        endpoint = ClientEndpoint()
        task = self.begin(connect, endpoint)
        self.assertFalse(task.done)
        transport = endpoint.made()
        self.reactor.settle()
        connection = self.result(task)
        self.assertIsInstance(connection, Connection)
        self.run_now(connection.write, b"x")
        self.assertEqual(transport.value(), b"x")

    def test_timeout(self) -> None:
        """A connection that is not made in time is cancelled."""
        endpoint = ClientEndpoint()
        task = self.begin(connect, endpoint, 2.0)
        self.reactor.advance(2.0)
        with self.assertRaises(TimedOut):
            self.result(task)
        self.assertTrue(endpoint.cancelled)

    def test_made_just_when_given_up(self) -> None:
        """A connection made at the moment of the timeout is aborted."""
        endpoint = ClientEndpoint()
        transports: list[StringTransport] = []

        def meddle() -> None:
            # One task cannot resume another at once, so both events happen
            # before the task runs again.
            task.cancel()
            transports.append(endpoint.made())

        task = self.begin(connect, endpoint)
        self.run_now(meddle)
        self.reactor.settle()
        with self.assertRaises(Cancelled):
            self.result(task)
        self.assertTrue(transports[0].disconnected)

    def test_builtin_exceptions(self) -> None:
        """Failures raise builtin exceptions, which socket code handles."""
        refused = error.ConnectionRefusedError(osError=errno.ECONNREFUSED)
        for failure, expected in (
            (refused, ConnectionRefusedError),
            (error.TimeoutError(), TimeoutError),
            (error.DNSLookupError("no such host"), OSError),
            (error.ConnectError(string="odd"), ConnectionError),
        ):
            endpoint = ClientEndpoint()
            endpoint.connecting = fail(failure)
            with self.assertRaises(expected) as caught:
                self.run_now(connect, endpoint)
            self.assertIs(caught.exception.__cause__, failure)

    def test_outside_a_task(self) -> None:
        """Outside a task both functions raise, and begin nothing."""
        endpoint = ClientEndpoint()
        with self.assertRaisesRegex(NotInGreenlet, r"net\.connect\(\)"):
            connect(endpoint)
        self.assertIsNone(endpoint.factory)
        with self.assertRaisesRegex(NotInGreenlet, r"net\.listen\(\)"):
            listen("tcp:0", print)


@implementer(IStreamServerEndpoint)
class ServerEndpoint:
    """An endpoint that listens in memory."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.factory: Any = None
        self.stopped: Deferred[None] | None = None
        self.protocols: list[Any] = []

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """Record the factory; called by `net.listen`."""
        self.factory = protocolFactory
        return succeed(self) if self.failure is None else fail(self.failure)

    def getHost(self) -> IPv4Address:
        """Return the address."""
        return IPv4Address("TCP", "127.0.0.1", 7)

    def stopListening(self) -> Deferred[None]:
        """Count the call; called by `Listener.close`."""
        assert self.stopped is None
        self.stopped = Deferred()
        return self.stopped

    def client(self) -> StringTransport:
        """Connect a client."""
        protocol = self.factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.protocols.append(protocol)
        return transport


class ListenTests(TaskTestCase):
    """`net.listen`."""

    def setUp(self) -> None:
        """Make the endpoint."""
        super().setUp()
        self.endpoint = ServerEndpoint()

    def listen(self, function: Any) -> Listener:
        """Listen, with a function for each client."""
        listener = self.run_now(listen, self.endpoint, function)
        self.addCleanup(self.hang_up)
        return listener

    def client(self) -> tuple[Any, StringTransport]:
        """Return a client's protocol and transport."""
        transport = self.endpoint.client()
        self.reactor.settle()
        return self.endpoint.protocols[-1], transport

    def hang_up(self) -> None:
        """Disconnect all clients."""
        for protocol in self.endpoint.protocols:
            if not protocol.connection.lost:
                protocol.connectionLost()
        self.reactor.settle()

    def test_serves(self) -> None:
        """The function is called in a task per client; then it is closed."""

        def echo(connection: Connection) -> None:
            for line in connection:
                connection.write(line.upper())
                if line == b"bye\n":
                    return

        listener = self.listen(echo)
        self.assertEqual(listener.address, IPv4Address("TCP", "127.0.0.1", 7))
        one, to_one = self.client()
        two, to_two = self.client()
        one.dataReceived(b"hel")
        two.dataReceived(b"hi\n")
        one.dataReceived(b"lo\nbye\n")
        self.reactor.settle()
        self.assertEqual(to_one.value(), b"HELLO\nBYE\n")
        self.assertEqual(to_two.value(), b"HI\n")
        self.assertTrue(to_one.disconnecting)
        self.assertFalse(to_two.disconnecting)
        self.assertEqual(len(listener.tasks), 1)

    def test_context(self) -> None:
        """Each client is served in a copy of the listener's context."""
        seen: list[str] = []

        def serve(connection: Connection) -> None:
            seen.append(colour.get())
            colour.set("red")

        def begin() -> None:
            colour.set("blue")
            self.listen_in_task = listen(self.endpoint, serve)

        self.run_now(begin)
        self.addCleanup(self.hang_up)
        self.client()
        self.client()
        self.assertEqual(seen, ["blue", "blue"])

    def test_failure(self) -> None:
        """A function that raises aborts its connection, and is logged."""

        def broken(connection: Connection) -> None:
            connection.write(b"so far")
            raise KeyError("broken")

        self.listen(broken)
        _, transport = self.client()
        self.assertTrue(transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_client_goes(self) -> None:
        """The disconnect of a client is not logged."""

        def talk(connection: Connection) -> None:
            connection.read(1)
            while True:
                connection.write(b"still there?")

        listener = self.listen(talk)
        protocol, _ = self.client()
        protocol.connectionLost()
        self.reactor.settle()
        self.assertEqual(listener.tasks, set())

    def test_system_exit(self) -> None:
        """SystemExit in a function does not stop the reactor."""

        def leave(connection: Connection) -> None:
            raise SystemExit(3)

        self.listen(leave)
        _, transport = self.client()
        self.assertTrue(transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_cancelled(self) -> None:
        """A client's task may be cancelled, even before it begins."""

        def wait(connection: Connection) -> None:
            connection.read()

        listener = self.listen(wait)
        _, waiting = self.client()
        new = self.endpoint.client()
        for task in list(listener.tasks):
            task.cancel()
        self.reactor.settle()
        self.assertTrue(waiting.disconnected)
        self.assertTrue(new.disconnected)
        self.assertEqual(listener.tasks, set())

    def test_close(self) -> None:
        """`close` stops the listening once; `wait_closed` waits for it."""
        listener = self.listen(print)
        listener.close()
        listener.close()
        task = self.begin(listener.wait_closed)
        self.assertFalse(task.done)
        assert self.endpoint.stopped is not None
        self.endpoint.stopped.callback(None)
        self.reactor.settle()
        self.assertIsNone(self.result(task))
        Listener(self.hub, print, None).close()  # type: ignore[arg-type]

    def test_cannot_listen(self) -> None:
        """An address that is not available is an OSError with its errno."""
        for socket_error, number in (
            (OSError(errno.EADDRINUSE, "in use"), errno.EADDRINUSE),
            ("odd", None),
        ):
            failure = error.CannotListenError("127.0.0.1", 7, socket_error)
            self.endpoint = ServerEndpoint(failure)
            with self.assertRaises(OSError) as caught:
                self.run_now(listen, self.endpoint, print)
            self.assertEqual(caught.exception.errno, number)
