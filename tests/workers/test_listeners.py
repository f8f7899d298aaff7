"""The sockets of the master, and the ports of its workers."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import defer, reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import UNIXClientEndpoint, clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.folders import short_folder
from txgreenwsgi._server.adopted import expect_from_master
from txgreenwsgi._server.endpoints import check_endpoint
from txgreenwsgi._server.errors import EndpointError, ListenError
from txgreenwsgi._server.slots import SlotPort, slot_endpoint
from txgreenwsgi._workers.handover import HandedOver, OwnedPath, write_pid
from txgreenwsgi._workers.listeners import Listener, open_listeners
from txgreenwsgi._workers.sockets import ListeningSockets

LISTEN = "tcp:0:interface=127.0.0.1"


class ListenerTests(TestCase):
    """Sockets of endpoint strings."""

    def open(self, text: str, slots: int = 3) -> Listener:
        """Open one endpoint; the test's cleanup closes it."""
        [listener] = open_listeners([text], slots, reactor)
        self.addCleanup(listener.close)
        return listener

    def test_tcp(self) -> None:
        """A TCP endpoint has a socket for each slot, on one address."""
        listener = self.open(LISTEN)
        self.assertTrue(listener.divided)
        addresses = {each.getsockname() for each in listener.sockets}
        self.assertEqual((len(listener.sockets), len(addresses)), (3, 1))
        [(host, port)] = addresses
        self.assertEqual(listener.address, f"{host}:{port}")
        for each in listener.sockets:
            self.assertFalse(each.getblocking())
            self.assertFalse(os.get_inheritable(each.fileno()))

    def test_backlog(self) -> None:
        """All connections wait in the backlogs; each slot has some."""
        listener = self.open(LISTEN, 2)
        clients = [
            socket.create_connection(listener.sockets[0].getsockname())
            for _ in range(60)
        ]
        counts = []
        for each in listener.sockets:
            count = 0
            while True:
                try:
                    each.accept()[0].close()
                except BlockingIOError:
                    break
                count += 1
            counts.append(count)
        for client in clients:
            client.close()
        self.assertEqual(sum(counts), 60)
        self.assertGreater(min(counts), 10)

    def test_ipv6(self) -> None:
        """IPv6 sockets accept IPv6 alone, unless the string says otherwise."""
        for option, value in ("", 1), (":v6only=0", 0):
            listener = self.open(r"tcp6:0:interface=\:\:" + option, 2)
            for each in listener.sockets:
                found = each.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                self.assertEqual(found, value)
            self.assertTrue(listener.address.startswith("[::]:"))

    def test_address_in_use(self) -> None:
        """A second server of the same user cannot share the address."""
        listener = self.open(LISTEN)
        port = listener.sockets[0].getsockname()[1]
        error = self.assertRaises(
            ListenError, self.open, f"tcp:{port}:interface=127.0.0.1"
        )
        self.assertIn("Address already in use", str(error))

    def test_further_slot(self) -> None:
        """A socket for one more slot has the same address."""
        listener = self.open(LISTEN, 1)
        self.assertTrue(listener.divide_further())
        first, second = (each.getsockname() for each in listener.sockets)
        self.assertEqual(first, second)

    def test_unix(self) -> None:
        """A UNIX socket is shared; its path is removed with it."""
        path = f"{short_folder(self)}/socket"
        [listener] = open_listeners([f"unix:{path}"], 3, reactor)
        self.assertFalse(listener.divided)
        self.assertEqual(len(listener.sockets), 1)
        self.assertTrue(os.path.exists(path))

        def check(_: object) -> None:
            self.assertFalse(os.path.lexists(path))
            self.assertFalse(os.path.lexists(f"{path}.lock"))

        closed: Any = listener.close().addCallback(check)
        return closed  # type: ignore[no-any-return]

    def test_inherited(self) -> None:
        """An inherited descriptor is shared."""
        inherited = socket.create_server(("127.0.0.1", 0))
        fd = os.dup(inherited.fileno())
        listener = self.open(f"fd:{fd}")
        self.assertFalse(listener.divided)
        self.assertEqual(listener.sockets[0].getsockname(), inherited.getsockname())
        inherited.close()

    def test_endpoint_that_cannot_be_shared(self) -> None:
        """Endpoints that open no socket here are refused."""
        error = self.assertRaises(EndpointError, self.open, "stdio:")
        self.assertIn("cannot be shared by workers", str(error))

    def test_failure_closes_the_others(self) -> None:
        """If one endpoint cannot be opened, the others are closed."""
        listener = self.open(LISTEN)
        used = listener.sockets[0].getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.assertRaises(
            ListenError,
            open_listeners,
            [f"tcp:{port}:interface=127.0.0.1", f"tcp:{used}:interface=127.0.0.1"],
            2,
            reactor,
        )
        socket.create_server(("127.0.0.1", port)).close()

    def test_descriptors(self) -> None:
        """A slot gets its own sockets, and the shared ones on demand."""
        texts = [LISTEN, f"unix:{short_folder(self)}/socket"]
        sockets = ListeningSockets(texts, reactor)
        sockets.open(2)
        self.addCleanup(sockets.close)
        self.assertEqual((sockets.slots, sockets.shared()), (2, [1]))
        indices, own = sockets.descriptors(1, shared=True)
        self.assertEqual((indices, len(set(own))), ([0, 1], 2))
        self.assertEqual(sockets.descriptors(1, shared=False), ([0], own[:1]))
        self.assertEqual(len(sockets.descriptors(4, shared=False)[1]), 1)
        self.assertEqual(sockets.slots, 5)

    def test_further_socket_that_cannot_be_opened(self) -> None:
        """A further slot then shares the socket of another one."""
        sockets = ListeningSockets([LISTEN], reactor)
        sockets.open(2)
        self.addCleanup(sockets.close)
        self.patch(Listener, "divide_further", lambda listener: False)
        _, first = sockets.descriptors(0, shared=True)
        self.assertEqual(sockets.descriptors(2, shared=True), ([0], first))

    def test_further_socket_during_a_handover(self) -> None:
        """The new master does not know further sockets, so there are none."""
        sockets = ListeningSockets([LISTEN], reactor)
        sockets.open(1)
        self.addCleanup(sockets.close)
        _, first = sockets.descriptors(0, shared=True)
        sockets.send(lambda message, fds: None)
        self.assertEqual(sockets.descriptors(1, shared=True), ([0], first))
        sockets.keep()
        self.assertNotEqual(sockets.descriptors(1, shared=True), ([0], first))

    def test_handed_over(self) -> None:
        """The sockets of the last master are used; others are opened."""
        listener = self.open(LISTEN, 2)
        given = HandedOver(
            LISTEN, [each.dup() for each in listener.sockets], True, 7, ""
        )
        sockets = ListeningSockets([LISTEN, LISTEN], reactor, [given])
        sockets.open(1)
        self.addCleanup(sockets.close)
        first, second = sockets.addresses
        self.assertEqual(first, listener.address)
        self.assertNotEqual(second, first)
        self.assertEqual(sockets.slots, 2)
        sent: list[Any] = []
        sockets.send(lambda message, fds: sent.append((message, len(fds))))
        self.assertEqual(
            sent[0],
            (
                {
                    "do": "listen",
                    "text": LISTEN,
                    "divided": True,
                    "backlog": 7,
                    "path": "",
                },
                2,
            ),
        )

    def test_handed_over_in_vain(self) -> None:
        """Sockets that are not configured any more are closed; paths are removed."""
        listener = self.open(LISTEN, 1)
        path = f"{short_folder(self)}/socket"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)
            divided = [each.dup() for each in listener.sockets]
            shared = made.dup()
            sockets = ListeningSockets(
                [LISTEN],
                reactor,
                [
                    HandedOver("tcp:1", divided, True, 7, ""),
                    HandedOver(f"unix:{path}", [shared], False, 7, path),
                ],
            )
            sockets.open(1)
        self.addCleanup(sockets.close)
        self.assertEqual([each.fileno() for each in [*divided, shared]], [-1, -1])
        self.assertTrue(os.path.exists(path))
        sockets.remove_dropped()
        self.assertFalse(os.path.exists(path))


class OwnedPathTests(TestCase):
    """The path of a UNIX socket that the last master has made."""

    def setUp(self) -> None:
        """Make a socket with a lock."""
        self.path = f"{short_folder(self)}/socket"
        self.lock = f"{self.path}.lock"
        self.socket = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.path)
        os.symlink("1", self.lock)

    def test_taken_over(self) -> None:
        """The lock has the new pid; both are removed at the end."""
        owned = OwnedPath(self.path)
        self.assertEqual(os.readlink(self.lock), str(os.getpid()))
        owned.remove()
        self.assertFalse(os.path.lexists(self.path) or os.path.lexists(self.lock))
        owned.remove()

    def test_replaced(self) -> None:
        """The socket of another server stays."""
        owned = OwnedPath(self.path)
        os.rename(self.path, f"{self.path}.old")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            owned.remove()
            self.assertTrue(os.path.exists(self.path))

    def test_abstract(self) -> None:
        """An abstract socket has no file."""
        OwnedPath("\0name").remove()

    def test_pidfile(self) -> None:
        """A pidfile has the new pid alone."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"1234567")
        fd = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, fd)
        write_pid(fd, 89)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"89")


class Greeter(Protocol):
    """Greets and closes."""

    def connectionMade(self) -> None:
        """Greet."""
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class Reader(Protocol):
    """Collects what it receives."""

    def __init__(self) -> None:
        self.data = b""
        self.done: defer.Deferred[bytes] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Collect."""
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        """Report."""
        self.done.callback(self.data)


class SlotPortTests(TestCase):
    """Ports of a worker."""

    def port(self, text: str) -> SlotPort:
        """Return the port of an endpoint string."""
        factory = Factory.forProtocol(Greeter)
        factory.noisy = False
        port: Any = self.successResultOf(slot_endpoint(reactor, text).listen(factory))
        self.assertIsInstance(port, SlotPort)
        self.addCleanup(port.stopListening)
        slot_port: SlotPort = port
        return slot_port

    def listening(self) -> socket.socket:
        """Return a listening socket."""
        made = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(made.close)
        return made

    def ask(self, listening: socket.socket) -> defer.Deferred[bytes]:
        """Connect to a socket, and return what it sends."""
        host, port = listening.getsockname()
        endpoint = clientFromString(reactor, f"tcp:{host}:{port}")
        factory = Factory.forProtocol(Reader)
        factory.noisy = False
        connected: Any = endpoint.connect(factory)
        done: defer.Deferred[bytes] = connected.addCallback(lambda reader: reader.done)
        return done

    @inlineCallbacks
    def test_adopt(self) -> Any:
        """A port accepts on the sockets that it has adopted."""
        port = self.port("tcp:1")
        opened: list[object] = []
        port.on_open = opened.append
        first, second = self.listening(), self.listening()
        port.adopt(0, first.dup())
        self.assertEqual((yield self.ask(first)), b"hello")
        port.adopt(1, second.dup())
        self.assertEqual((yield self.ask(second)), b"hello")
        self.assertEqual((yield self.ask(first)), b"hello")
        self.assertEqual(len(opened), 2)
        host: Any = port.getHost()
        self.assertEqual(host.port, first.getsockname()[1])

    @inlineCallbacks
    def test_release(self) -> Any:
        """A released socket keeps its backlog for another process."""
        port = self.port("tcp:1")
        closed: list[object] = []
        port.on_close = closed.append
        listening = self.listening()
        port.adopt(0, listening.dup())
        yield self.ask(listening)
        port.release(0)
        port.release(0)
        self.assertEqual(len(closed), 1)
        with socket.create_connection(listening.getsockname()):
            yield defer.succeed(None)
            accepted, _ = listening.accept()
            accepted.close()

    @inlineCallbacks
    def test_stop(self) -> Any:
        """A stopped port leaves the sockets open in other processes."""
        port = self.port("tcp:1")
        listening = self.listening()
        port.adopt(0, listening.dup())
        yield port.stopListening()
        client = socket.create_connection(listening.getsockname())
        self.addCleanup(client.close)
        listening.accept()[0].close()
        late = listening.dup()
        self.assertIsNone(port.adopt(1, late))
        self.assertEqual(late.fileno(), -1)
        yield port.stopListening()

    @inlineCallbacks
    def test_unix(self) -> Any:
        """The same on a UNIX socket, also of a string whose socket is inherited."""
        expect_from_master(["systemd:name=web", "https:systemd:name=api:min=1.3"])
        self.addCleanup(expect_from_master, [])
        path = f"{short_folder(self)}/socket"
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(path)
        listening.listen()
        check_endpoint("https:systemd:name=api", tls=None)
        for text in ("unix:/nowhere", "systemd:name=web", "systemd:name=api"):
            port = self.port(text)
            port.adopt(0, listening.dup(), shared=True)
            factory = Factory.forProtocol(Reader)
            factory.noisy = False
            reader: Any = yield UNIXClientEndpoint(reactor, path).connect(factory)
            self.assertEqual((yield reader.done), b"hello")
            host: Any = port.getHost()
            self.assertEqual(os.fsdecode(host.name), path)
            yield port.stopListening()

    @inlineCallbacks
    def test_excess(self) -> Any:
        """A worker with more connections than others accepts seldom, but does."""
        port = self.port("tcp:1")
        port.has_excess = lambda: True
        listening = self.listening()
        port.adopt(0, listening.dup(), shared=True)
        results = yield defer.gatherResults([self.ask(listening) for _ in range(8)])
        self.assertEqual(results, [b"hello"] * 8)
        port.has_excess = lambda: False
        self.assertEqual((yield self.ask(listening)), b"hello")
        port.poll_shared()
        self.assertEqual((yield self.ask(listening)), b"hello")
