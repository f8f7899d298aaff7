"""The descriptor of a green socket: non-blocking for C code, lent in declared mode."""

from __future__ import annotations

import os as real_os
import posix
import socket as real_socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.trial.unittest import TestCase

import txgreenwsgi
from tests.certificate import TLS_OPTIONS
from txgreenwsgi.green import drivers, offload, os, socket, ssl, subprocess

if TYPE_CHECKING:
    from collections.abc import Callable


def is_blocking(sock: Any) -> bool:
    """Return whether the descriptor of a socket is in blocking mode."""
    return real_os.get_blocking(sock.fileno())


class SocketTestCase(TestCase):
    """Tests with green sockets."""

    timeout = 60

    def pair(self) -> tuple[Any, Any]:
        """Return a pair of green sockets, closed after the test."""
        pair: tuple[Any, Any] = socket.socketpair()
        for sock in pair:
            self.addCleanup(sock.close)
        return pair

    def listener(self) -> Any:
        """Return a green listener, closed after the test."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        return listener

    def assert_declares_blocking(self, *socks: Any) -> None:
        """Each socket declares blocking mode; its descriptor is non-blocking."""
        for sock in socks:
            self.assertEqual((sock.gettimeout(), sock.getblocking()), (None, True))
            self.assertIsNone(sock.timeout)
            self.assertFalse(is_blocking(sock))


class ModeTests(SocketTestCase):
    """The mode of the descriptor, and the one that the socket declares."""

    @txgreenwsgi.in_greenlet
    def test_every_origin(self) -> None:
        """It is non-blocking however the socket was made; the contract is kept."""
        one, other = self.pair()
        listener = self.listener()
        client = socket.create_connection(listener.getsockname())
        self.addCleanup(client.close)
        accepted, _ = listener.accept()
        self.addCleanup(accepted.close)
        duplicate = one.dup()
        self.addCleanup(duplicate.close)
        real, real_other = real_socket.socketpair()
        self.addCleanup(real_other.close)
        with real:
            copied = socket.fromfd(real.fileno(), real.family, real.type)
        self.addCleanup(copied.close)
        self.assert_declares_blocking(
            one, other, listener, client, accepted, duplicate, copied
        )
        wrapped = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
            client, server_hostname="test", do_handshake_on_connect=False
        )
        self.addCleanup(wrapped.close)
        self.assert_declares_blocking(wrapped)

    @txgreenwsgi.in_greenlet
    def test_time_limits(self) -> None:
        """`settimeout` and `setblocking` change what is declared, not the mode."""
        sock, _ = self.pair()
        for limit in (0.0, None, 2.5, None):
            sock.settimeout(limit)
            self.assertEqual(sock.gettimeout(), limit)
            self.assertEqual(sock.getblocking(), limit != 0.0)
            self.assertFalse(is_blocking(sock))
        sock.setblocking(False)
        self.assertEqual(sock.gettimeout(), 0.0)
        with self.assertRaises(BlockingIOError):
            sock.recv(1)
        sock.setblocking(True)
        self.assert_declares_blocking(sock)
        for wrong, error in ((-1, ValueError), ("1", TypeError)):
            with self.assertRaises(error):
                sock.settimeout(wrong)
        self.assertIsNone(sock.gettimeout())

    @txgreenwsgi.in_greenlet
    def test_c_code(self) -> None:
        """C code that reads the descriptor gets EAGAIN; it does not block."""
        sock, peer = self.pair()
        with self.assertRaises(BlockingIOError):
            posix.read(sock.fileno(), 1)
        peer.sendall(b"x")
        self.assertEqual(posix.read(sock.fileno(), 1), b"x")

    @txgreenwsgi.in_greenlet
    def test_calls_by_number(self) -> None:
        """`os.read` and `os.write` of its number wait, as the socket would."""
        sock, peer = self.pair()
        number = sock.fileno()
        reading = txgreenwsgi.spawn(os.read, number, 10)
        vector = bytearray(3)
        txgreenwsgi.sleep(0)
        self.assertFalse(reading.done)
        peer.sendall(b"abc")
        self.assertEqual(reading.wait(5), b"abc")
        reading_vector = txgreenwsgi.spawn(os.readv, number, [vector])
        txgreenwsgi.sleep(0)
        peer.sendall(b"def")
        self.assertEqual((reading_vector.wait(5), vector), (3, b"def"))
        much = bytes(1 << 20)
        writing = txgreenwsgi.spawn(os.write, number, much)
        received = 0
        while received < len(much):
            received += len(peer.recv(1 << 16))
        self.assertEqual(writing.wait(5), len(much))
        sock.settimeout(5)
        with self.assertRaises(BlockingIOError):  # as in the original
            os.read(number, 1)

    @txgreenwsgi.in_greenlet
    def test_in_threads(self) -> None:
        """In real threads, operations on it block."""
        sock, peer = self.pair()
        listener = self.listener()

        def work() -> list[object]:
            connected = real_socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
            with connected, accepted:
                connected.sendall(b"hi")
                found = [sock.recv(1), os.read(sock.fileno(), 1), accepted.recv(2)]
            sock.sendall(bytes(1 << 20))
            return found

        working = txgreenwsgi.spawn(offload, work)
        txgreenwsgi.sleep(0.05)
        peer.sendall(b"a")
        txgreenwsgi.sleep(0.05)
        peer.sendall(b"b")
        received = 0
        while received < 1 << 20:
            received += len(peer.recv(1 << 16))
        self.assertEqual(working.wait(20), [b"a", b"b", b"hi"])


class LendingTests(SocketTestCase):
    """Code that takes the descriptor over gets it in the declared mode."""

    @txgreenwsgi.in_greenlet
    def test_detach(self) -> None:
        """`detach` returns a blocking descriptor, unless there is a time limit."""
        for limit, blocking in ((None, True), (3, False), (0, False)):
            sock, _ = self.pair()
            sock.settimeout(limit)
            number = sock.detach()
            self.assertEqual(real_os.get_blocking(number), blocking)
            real_os.close(number)
        sock, _ = self.pair()
        successor = socket.socket(fileno=sock.fileno())
        sock.detach()
        self.assert_declares_blocking(successor)
        successor.close()
        with self.assertRaises(OSError):
            sock.settimeout(None)

    @txgreenwsgi.in_greenlet
    def test_closed_by_number(self) -> None:
        """`detach` after `os.close` does not change the next file with that number."""
        sock, _ = self.pair()
        number = sock.fileno()
        os.close(number)
        reader, writer = real_os.pipe()
        real_os.set_blocking(reader, False)
        real_os.dup2(reader, number)
        sock.detach()
        self.assertFalse(real_os.get_blocking(number))
        for fd in {reader, writer, number}:
            real_os.close(fd)

    def assert_lent(self, lend: Callable[[int], object]) -> None:
        """Taking the number lends it; the socket parks as before."""
        sock, peer = self.pair()
        limited, _ = self.pair()
        limited.settimeout(3)
        for lent in (sock, limited):
            number = lend(lent.fileno())
            if isinstance(number, int):
                self.addCleanup(real_os.close, number)
        self.assertTrue(is_blocking(sock))
        self.assertFalse(is_blocking(limited))
        reading = txgreenwsgi.spawn(sock.recv, 10)
        txgreenwsgi.sleep(0)
        self.assertFalse(reading.done)
        peer.sendall(b"x")
        self.assertEqual(reading.wait(5), b"x")
        # From now on, the mode follows what the socket declares, as in the original.
        sock.settimeout(1)
        self.assertFalse(is_blocking(sock))
        sock.settimeout(None)
        self.assertTrue(is_blocking(sock))

    @txgreenwsgi.in_greenlet
    def test_numbers(self) -> None:
        """`os.dup`, `os.dup2`, `set_inheritable` and messages lend it."""
        self.assert_lent(os.dup)
        target = real_os.dup(0)
        self.addCleanup(real_os.close, target)
        self.assert_lent(lambda fd: os.dup2(fd, target) and None)
        self.assert_lent(lambda fd: os.set_inheritable(fd, True))
        carrier, receiver = self.pair()
        self.assert_lent(lambda fd: socket.send_fds(carrier, [b"x"], [fd]) and None)
        for _ in range(2):
            real_os.close(socket.recv_fds(receiver, 1, 1)[1][0])
        sock, _ = self.pair()
        sock.set_inheritable(True)
        self.assertTrue(is_blocking(sock))

    @txgreenwsgi.in_greenlet
    def test_lent_listener(self) -> None:
        """A lent listener parks in `accept`, and stays in blocking mode."""
        listener = self.listener()
        listener.set_inheritable(True)
        accepting = txgreenwsgi.spawn(listener.accept)
        txgreenwsgi.sleep(0)
        self.assertFalse(accepting.done)
        self.assertTrue(is_blocking(listener))
        with socket.create_connection(listener.getsockname()):
            accepted, _ = accepting.wait(5)
        self.assert_declares_blocking(accepted)
        accepted.close()
        self.assertTrue(is_blocking(listener))

    @txgreenwsgi.in_greenlet
    def test_standard_streams_of_a_child(self) -> None:
        """A child reads its input from the socket in blocking mode."""
        sock, peer = self.pair()
        program = "import os; print(os.get_blocking(0), os.read(0, 5))"
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=sock, stdout=subprocess.PIPE
        )
        txgreenwsgi.sleep(0.1)
        peer.sendall(b"hello")
        output, _ = process.communicate(timeout=20)
        self.assertEqual(output, b"True b'hello'\n")

    @txgreenwsgi.in_greenlet
    def test_passed_to_a_child(self) -> None:
        """So does a child with a socket in `pass_fds`, also in its own socket."""
        sock, peer = self.pair()
        program = (
            "import socket, sys; print(socket.socket(fileno=int(sys.argv[1])).recv(5))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(sock.fileno())],
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
        )
        txgreenwsgi.sleep(0.1)
        peer.sendall(b"hello")
        output, _ = process.communicate(timeout=20)
        self.assertEqual(output, b"b'hello'\n")

    @txgreenwsgi.in_greenlet
    def test_posix_spawn(self) -> None:
        """`os.posix_spawn` lends the descriptors that it duplicates for the child."""
        sock, peer = self.pair()
        actions = [(real_os.POSIX_SPAWN_DUP2, sock.fileno(), 0)]
        program = "import os, sys; sys.exit(os.read(0, 1) != b'x')"
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", program],
            dict(real_os.environ),
            file_actions=actions,
        )
        self.assertTrue(is_blocking(sock))
        peer.sendall(b"x")
        self.assertEqual(os.waitpid(pid, 0), (pid, 0))

    @txgreenwsgi.in_greenlet
    def test_tls(self) -> None:
        """A TLS socket is never lent: OpenSSL would block on it."""
        sock, _ = self.pair()
        wrapped = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
            sock, server_hostname="test", do_handshake_on_connect=False
        )
        wrapped.set_inheritable(True)
        self.assert_declares_blocking(wrapped)
        number = wrapped.detach()
        self.assertTrue(real_os.get_blocking(number))
        real_os.close(number)


class PyOpenSSLTests(SocketTestCase):
    """Connections of pyOpenSSL on green sockets."""

    def setUp(self) -> None:
        """Make pyOpenSSL green, as `patch_socket` does."""
        drivers.make_pyopenssl_green()

    def connections(self, limit: float | None) -> tuple[Any, Any]:
        """Return a client and a server on a pair of sockets with this time limit."""
        client, server = self.pair()
        made = []
        for sock, context in (
            (client, SSL.Context(SSL.TLS_CLIENT_METHOD)),
            (server, TLS_OPTIONS.getContext()),
        ):
            sock.settimeout(limit)
            made.append(SSL.Connection(context, sock))
        made[0].set_connect_state()
        made[1].set_accept_state()
        return made[0], made[1]

    @txgreenwsgi.in_greenlet
    def test_both_ends_in_one_thread(self) -> None:
        """Without a time limit, all methods park: neither end blocks the other."""
        client, server = self.connections(None)
        much = bytes(range(256)) * 8192

        def serve() -> bytes:
            server.do_handshake()
            data = bytearray(len(much))
            view, count = memoryview(data), 0
            while count < len(much):
                count += server.recv_into(view[count:])
            server.sendall(b"thanks")
            server.shutdown()
            return bytes(data)

        serving = txgreenwsgi.spawn(serve)
        client.do_handshake()
        txgreenwsgi.sleep(0.05)  # the server waits in recv_into
        self.assertEqual(client.sendall(much), len(much))
        self.assertEqual(client.recv(100), b"thanks")
        self.assertEqual(serving.wait(20), much)
        with self.assertRaises(SSL.ZeroReturnError):
            client.read(1)

    @txgreenwsgi.in_greenlet
    def test_with_a_time_limit(self) -> None:
        """With one, the methods raise, as on the original socket."""
        for limit in (0.0, 5.0):
            client, server = self.connections(limit)
            with self.assertRaises(SSL.WantReadError):
                client.do_handshake()
            with self.assertRaises(SSL.WantReadError):
                server.recv(1)

    @txgreenwsgi.in_greenlet
    def test_interrupted(self) -> None:
        """A timeout ends the wait, and so does closing the socket."""
        client, _ = self.connections(None)
        with self.assertRaises(txgreenwsgi.TimedOut), txgreenwsgi.timeout(0.05):
            client.do_handshake()
        waiting = txgreenwsgi.spawn(client.do_handshake)
        txgreenwsgi.sleep(0)
        client.close()
        with self.assertRaises(OSError):
            waiting.wait(5)

    def test_in_a_thread(self) -> None:
        """In a real thread and in the reactor greenlet, the methods block."""
        client, server = self.connections(None)
        got = []

        def serve() -> None:
            server.do_handshake()
            got.append(server.recv(5))

        serving = threading.Thread(target=serve)
        serving.start()
        client.do_handshake()
        client.send(b"hello")
        serving.join(20)
        self.assertEqual(got, [b"hello"])

    def test_memory(self) -> None:
        """A connection on memory, as Twisted's, is not affected."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        connection.set_connect_state()
        with self.assertRaises(SSL.WantReadError):
            connection.do_handshake()
