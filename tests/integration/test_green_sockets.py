"""Green sockets, locks and processes under the real reactor."""

from __future__ import annotations

import errno
import os
import socket as real_socket
import subprocess as real_subprocess
import threading as real_threading
from typing import TYPE_CHECKING, Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

import txgreenwsgi
from tests.folders import short_folder
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi.green import (
    offload,
    queue,
    select,
    socket,
    subprocess,
    threading,
    time,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def _echo(connection: Any) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


class SocketTests(TestCase):
    """A green socket parks its task, and otherwise behaves like the original."""

    timeout = 60

    def serve(self, answer: Callable[[Any], None] = _echo) -> tuple[str, int]:
        """Listen and serve each connection in a task; return the address."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                txgreenwsgi.spawn(answer, connection)

        accepting = txgreenwsgi.spawn(accept)

        def stop() -> Any:
            listener.close()
            return accepting.deferred()

        self.addCleanup(stop)
        address: tuple[str, int] = listener.getsockname()
        return address

    def ask(self, address: Any, data: bytes, **kwargs: Any) -> bytes:
        """Return what the server answers to `data`."""
        with socket.create_connection(address, **kwargs) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            with sock.makefile("rb") as file:
                answer: bytes = file.read()
        return answer

    @txgreenwsgi.in_greenlet
    def test_concurrency(self) -> None:
        """200 slow exchanges overlap."""

        def slow(connection: Any) -> None:
            time.sleep(0.5)
            _echo(connection)

        address = self.serve(slow)
        import time as real_time

        began = real_time.monotonic()
        tasks = [
            txgreenwsgi.spawn(self.ask, address, b"%d" % number)
            for number in range(200)
        ]
        for number, task in enumerate(tasks):
            self.assertEqual(task.wait(), b"%d" % number)
        self.assertLess(real_time.monotonic() - began, 30)  # of 100 seconds

    @txgreenwsgi.in_greenlet
    def test_more_than_the_kernel_holds(self) -> None:
        """A large message goes both ways, with and without a timeout."""
        data = os.urandom(1 << 20)
        address = self.serve()
        for limit in (None, 10.0):
            with socket.create_connection(address, timeout=limit) as sock:
                sender = txgreenwsgi.spawn(sock.sendall, data)
                got = bytearray()
                while len(got) < len(data):
                    got += sock.recv(1 << 16)
                sender.wait()
            self.assertEqual(bytes(got), data)

    @txgreenwsgi.in_greenlet
    def test_timeout_during_a_stall(self) -> None:
        """Bytes that arrive in time win over a timeout that expires in a stall."""
        import time as real_time

        from twisted.internet import reactor as installed

        reactor: Any = installed
        ours, theirs = socket.socketpair()
        ours.settimeout(0.2)

        def stall(data: bytes) -> None:
            theirs.send(data)
            real_time.sleep(0.5)

        for sent in (b"in time", b""):
            reading = txgreenwsgi.spawn(ours.recv, 100)
            txgreenwsgi.sleep(0)
            # The reactor runs this before delayed calls, which it runs before it polls.
            reactor.callFromThread(stall, sent)
            if sent:
                self.assertEqual(reading.wait(), sent)
            else:
                with self.assertRaises(TimeoutError):
                    reading.wait()
        ours.close()
        theirs.close()

    @txgreenwsgi.in_greenlet
    def test_timeout(self) -> None:
        """A timeout ends a wait with TimeoutError; the socket remains usable."""
        address = self.serve()
        with socket.create_connection(address) as sock:
            sock.settimeout(0.01)
            self.assertEqual(sock.gettimeout(), 0.01)
            with self.assertRaises(TimeoutError):
                sock.recv(1)
            sock.settimeout(5)
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")

    @txgreenwsgi.in_greenlet
    def test_non_blocking(self) -> None:
        """A non-blocking socket never waits."""
        with socket.create_connection(self.serve()) as sock:
            sock.setblocking(False)
            with self.assertRaises(BlockingIOError):
                sock.recv(1)
            self.assertEqual(select.select([sock], [], [], 0), ([], [], []))

    @txgreenwsgi.in_greenlet
    def test_closed_during_a_wait(self) -> None:
        """Closing a socket wakes its waiter and frees the descriptor."""
        address = self.serve()
        for _ in range(3):
            sock = socket.create_connection(address)
            number = sock.fileno()
            reading = txgreenwsgi.spawn(sock.recv, 1)
            txgreenwsgi.sleep(0)
            txgreenwsgi.sleep(0)
            sock.close()
            with self.assertRaises(OSError) as caught:
                reading.wait(5)
            self.assertEqual(caught.exception.errno, errno.EBADF)
            with socket.create_connection(address) as again:
                self.assertLessEqual(again.fileno(), number)
                again.sendall(b"x")
                self.assertEqual(again.recv(1), b"x")

    @txgreenwsgi.in_greenlet
    def test_cancelled(self) -> None:
        """A cancelled task leaves its wait and does not change the socket."""
        with socket.create_connection(self.serve()) as sock:
            reading = txgreenwsgi.spawn(sock.recv, 1)
            txgreenwsgi.sleep(0)
            txgreenwsgi.sleep(0)
            reading.cancel()
            with self.assertRaises(txgreenwsgi.Cancelled):
                reading.wait(5)
            sock.sendall(b"x")
            self.assertEqual(sock.recv(1), b"x")

    @txgreenwsgi.in_greenlet
    def test_other_kinds(self) -> None:
        """UNIX sockets, datagram sockets and socket pairs wait as well."""
        path = str(short_folder(self) / "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        accepting = txgreenwsgi.spawn(listener.accept)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        server, _ = accepting.wait()
        reading = txgreenwsgi.spawn(server.recv, 10)
        client.send(b"unix")
        self.assertEqual(reading.wait(), b"unix")
        for sock in (listener, client, server):
            sock.close()
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        reading = txgreenwsgi.spawn(one.recvfrom, 10)
        other.sendto(b"udp", ("localhost", one.getsockname()[1]))
        self.assertEqual(reading.wait()[0], b"udp")
        one.close()
        other.close()

    @txgreenwsgi.in_greenlet
    def test_ten_thousand(self) -> None:
        """10,000 operations leave no reader, no writer and no task behind."""
        reactor: Any = hub_of().reactor
        address = self.serve()
        sock = socket.create_connection(address)
        txgreenwsgi.sleep(0)
        watched = len(reactor.getReaders()), len(reactor.getWriters())
        tasks = len(hub_of().tasks)
        for _ in range(5000):
            sock.sendall(b"x")
            sock.recv(1)
        self.assertEqual(
            (len(reactor.getReaders()), len(reactor.getWriters())), watched
        )
        self.assertEqual(len(hub_of().tasks), tasks)
        sock.close()

    @txgreenwsgi.in_greenlet
    def test_name_lookup(self) -> None:
        """A name lookup parks the task."""
        turns: list[int] = []
        looking = txgreenwsgi.spawn(socket.getaddrinfo, "localhost", 80)
        while not looking.done:
            txgreenwsgi.sleep(0)
            turns.append(1)
        self.assertIn("127.0.0.1", {found[4][0] for found in looking.wait()})
        self.assertTrue(turns)
        with self.assertRaises(socket.gaierror):
            socket.getaddrinfo("no.such.name.invalid", 80)

    def test_in_the_reactor_greenlet(self) -> None:
        """Outside tasks a green socket is an ordinary one."""
        one, other = socket.socketpair()
        other.settimeout(0.01)
        with self.assertRaises(TimeoutError):
            other.recv(1)
        one.send(b"x")
        self.assertEqual(other.recv(1), b"x")
        self.assertIsInstance(one, real_socket.socket)
        one.close()
        other.close()


class SharedTests(TestCase):
    """Tasks and real threads share locks, events and queues."""

    timeout = 60

    @txgreenwsgi.in_greenlet
    def test_lock(self) -> None:
        """Many tasks and threads use one lock; none waits forever."""
        lock, inside, seen = threading.Lock(), [0], []

        def take(times: int) -> None:
            for _ in range(times):
                with lock:
                    inside[0] += 1
                    seen.append(inside[0])
                    inside[0] -= 1

        def take_and_wait(times: int) -> None:
            for _ in range(times):
                with lock:
                    inside[0] += 1
                    time.sleep(0)
                    seen.append(inside[0])
                    inside[0] -= 1

        threads = [deferToThread(take, 200) for _ in range(4)]
        tasks = [txgreenwsgi.spawn(take_and_wait, 100) for _ in range(4)]
        for thread in threads:
            txgreenwsgi.wait(thread, timeout=20)
        for task in tasks:
            task.wait(timeout=20)
        self.assertEqual(set(seen), {1})
        self.assertEqual(len(seen), 1200)

    @txgreenwsgi.in_greenlet
    def test_event(self) -> None:
        """A task wakes a thread, and a thread wakes a task."""
        for_thread, for_task = threading.Event(), threading.Event()

        def thread() -> bool:
            seen = for_thread.wait(10)
            for_task.set()
            return bool(seen)

        answer = deferToThread(thread)
        for_thread.set()
        self.assertTrue(for_task.wait(10))
        self.assertTrue(txgreenwsgi.wait(answer))

    @txgreenwsgi.in_greenlet
    def test_queue(self) -> None:
        """A task gets what a thread puts, and the reverse, in order."""
        for kind in (queue.Queue, queue.SimpleQueue):
            there, back = kind(), kind()

            def thread(there: Any = there, back: Any = back) -> None:
                for _ in range(500):
                    back.put(there.get(timeout=10))

            done = deferToThread(thread)
            for number in range(500):
                there.put(number)
            self.assertEqual(
                [back.get(timeout=10) for _ in range(500)], list(range(500))
            )
            txgreenwsgi.wait(done)

    @txgreenwsgi.in_greenlet
    def test_offload(self) -> None:
        """`offload` runs in a thread with the contextvars, and raises its errors."""
        from contextvars import ContextVar

        name: ContextVar[str] = ContextVar("name")
        name.set("mine")

        def blocking() -> tuple[str, int]:
            return name.get(), real_threading.get_ident()

        seen, thread = offload(blocking)
        self.assertEqual(seen, "mine")
        self.assertNotEqual(thread, real_threading.get_ident())
        with self.assertRaises(ZeroDivisionError):
            offload(divmod, 1, 0)


class ProcessTests(TestCase):
    """Waiting for child processes does not block the reactor."""

    timeout = 60

    @txgreenwsgi.in_greenlet
    def test_concurrency(self) -> None:
        """Programs that are waited for run concurrently."""
        import time as real_time

        began = real_time.monotonic()
        tasks = [
            txgreenwsgi.spawn(subprocess.run, ["sleep", "0.5"], check=True)
            for _ in range(10)
        ]
        for task in tasks:
            task.wait()
        self.assertLess(real_time.monotonic() - began, 4.5)  # of 5 seconds

    @txgreenwsgi.in_greenlet
    def test_pipes(self) -> None:
        """Output is read as it arrives; input may exceed the buffer of a pipe."""
        data = b"x" * 300_000
        self.assertEqual(subprocess.check_output(["cat"], input=data), data)
        with subprocess.Popen(
            ["sh", "-c", "echo one; sleep 0.1; echo two"], stdout=real_subprocess.PIPE
        ) as process:
            self.assertEqual(process.stdout.readline(), b"one\n")
            self.assertEqual(process.stdout.read(), b"two\n")
