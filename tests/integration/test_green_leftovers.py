"""10,000 green operations of every kind leave no resource behind."""

from __future__ import annotations

import gc
import os as real_os
import ssl as real_ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import TestCase

import txgreenwsgi
from txgreenwsgi._parking.descriptors import registrations_of
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi.green import (
    os,
    queue,
    select,
    selectors,
    socket,
    ssl,
    subprocess,
    threading,
    time,
)

from .test_endpoints import write_certificate

if TYPE_CHECKING:
    from collections.abc import Callable


def _round_trips(times: int) -> None:
    one, other = socket.socketpair()

    def echo() -> None:
        while data := other.recv(100):
            other.sendall(data)

    echoing = txgreenwsgi.spawn(echo)
    for _ in range(times):
        one.sendall(b"x")
        assert one.recv(100) == b"x"
    one.close()
    echoing.wait()
    other.close()


def _connections(times: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        for _ in range(times):
            accepting = txgreenwsgi.spawn(listener.accept)
            with socket.create_connection(listener.getsockname(), timeout=10) as sock:
                accepted, _ = accepting.wait()
                accepted.sendall(b"x")
                accepted.close()
                assert sock.recv(10) == b"x"
                assert sock.recv(10) == b""


def _timed_out(times: int) -> None:
    one, other = socket.socketpair()
    one.settimeout(0.0001)
    for _ in range(times):
        try:
            one.recv(1)
        except TimeoutError:
            continue
        raise AssertionError("nothing was sent")
    one.close()
    other.close()


def _cancelled(times: int) -> None:
    one, other = socket.socketpair()
    for _ in range(times):
        reading = txgreenwsgi.spawn(one.recv, 1)
        txgreenwsgi.sleep(0)
        reading.cancel()
        try:
            reading.wait()
        except txgreenwsgi.Cancelled:
            continue
        raise AssertionError("nothing was sent")
    one.close()
    other.close()


def _closed_during_a_wait(times: int) -> None:
    for _ in range(times):
        one, other = socket.socketpair()
        reading = txgreenwsgi.spawn(one.recv, 1)
        txgreenwsgi.sleep(0)
        txgreenwsgi.sleep(0)
        one.close()
        other.close()
        try:
            reading.wait()
        except OSError:
            continue
        raise AssertionError("nothing was sent")


def _datagrams(times: int) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        one.bind(("127.0.0.1", 0))
        for _ in range(times):
            reading = txgreenwsgi.spawn(one.recvfrom, 10)
            other.sendto(b"x", one.getsockname())
            assert reading.wait()[0] == b"x"


def _pipes(times: int) -> None:
    reader, writer = os.pipe()
    for _ in range(times):
        reading = txgreenwsgi.spawn(os.read, reader, 10)
        txgreenwsgi.sleep(0)
        os.write(writer, b"x")
        assert reading.wait() == b"x"
    os.close(reader)
    os.close(writer)


def _sleeps(times: int) -> None:
    for _ in range(times):
        time.sleep(0)


def _locks(times: int) -> None:
    lock = threading.Lock()

    def take() -> None:
        for _ in range(times // 4):
            with lock:
                time.sleep(0)

    for task in [txgreenwsgi.spawn(take) for _ in range(4)]:
        task.wait()


def _conditions(times: int) -> None:
    condition, turn = threading.Condition(), [0]

    def take(mine: int) -> None:
        for _ in range(times // 2):
            with condition:
                condition.wait_for(lambda: turn[0] == mine)
                turn[0] = 1 - mine
                condition.notify()

    for task in [txgreenwsgi.spawn(take, mine) for mine in (0, 1)]:
        task.wait()


def _queues(times: int) -> None:
    there: Any = queue.Queue(maxsize=1)
    back: Any = queue.SimpleQueue()

    def pass_on() -> None:
        for _ in range(times):
            back.put(there.get())

    passing = txgreenwsgi.spawn(pass_on)
    for number in range(times):
        there.put(number)
        assert back.get(timeout=10) == number
    passing.wait()
    try:
        back.get(timeout=0.001)
    except queue.Empty:
        return
    raise AssertionError("it is empty")


def _threads(times: int) -> None:
    local = threading.local()

    def run(number: int) -> None:
        local.number = number
        time.sleep(0)
        assert local.number == number

    for number in range(times):
        thread = threading.Thread(target=run, args=(number,))
        thread.start()
        thread.join()


def _selects(times: int) -> None:
    one, other = socket.socketpair()

    def send() -> None:
        for _ in range(times):
            other.send(b"x")
            wanted.get()

    wanted: Any = queue.SimpleQueue()
    sending = txgreenwsgi.spawn(send)
    poll = select.poll()
    poll.register(one, select.POLLIN)
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ)
        waits: list[Callable[[], Any]] = [
            lambda: select.select([one], [], [], 10)[0],
            poll.poll,
            selector.select,
        ]
        for number in range(times):
            assert waits[number % 3]()
            one.recv(1)
            wanted.put(None)
        assert not selector.select(0.001)
    sending.wait()
    one.close()
    other.close()


def _own_waits(times: int) -> None:
    reader, writer = os.pipe()
    for _ in range(times):
        waiting = txgreenwsgi.spawn(txgreenwsgi.wait_readable, reader, 10)
        txgreenwsgi.sleep(0)
        os.write(writer, b"x")
        assert waiting.wait()
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)


def _processes(times: int) -> None:
    for _ in range(times):
        assert subprocess.check_output(["echo", "x"]) == b"x\n"


def _names(times: int) -> None:
    for _ in range(times):
        assert socket.getaddrinfo("localhost", 80)


def _tls(times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = write_certificate(Path(folder))
        server_side = ssl.SSLContext(real_ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(certificate, key)
        client_side = ssl.create_default_context(cafile=str(certificate))

    def answer(plain: Any) -> None:
        with server_side.wrap_socket(plain, server_side=True) as tls:
            tls.sendall(tls.recv(10))

    for _ in range(times):
        one, other = socket.socketpair()
        answering = txgreenwsgi.spawn(answer, other)
        with client_side.wrap_socket(one, server_hostname="127.0.0.1") as tls:
            tls.sendall(b"x")
            assert tls.recv(10) == b"x"
        answering.wait()


#: The operations and their numbers: more than 10,000 in all.
OPERATIONS: dict[Callable[[int], None], int] = {
    _round_trips: 2000,
    _connections: 300,
    _timed_out: 200,
    _cancelled: 500,
    _closed_during_a_wait: 300,
    _datagrams: 500,
    _pipes: 1000,
    _sleeps: 1000,
    _locks: 1000,
    _conditions: 600,
    _queues: 1000,
    _threads: 500,
    _selects: 900,
    _own_waits: 500,
    _processes: 10,
    _names: 20,
    _tls: 20,
}


class LeftoverTests(TestCase):
    """After all operations, the process holds the same resources as before."""

    timeout = 100

    def held(self) -> dict[str, int]:
        """Return the number of each kind of resource."""
        gc.collect()
        hub = hub_of()
        reactor: Any = hub.reactor
        return {
            "readers": len(reactor.getReaders()),
            "writers": len(reactor.getWriters()),
            "delayed calls": len(reactor.getDelayedCalls()),
            "tasks": len(hub.tasks),
            "descriptors": len(real_os.listdir("/proc/self/fd")),
            "descriptors that are waited on": len(registrations_of(hub)),
            "claims": len(reactor.__dict__.get("_txgreenwsgi_waiters", {})),
            "threads": len(threading.enumerate()),
        }

    @txgreenwsgi.in_greenlet
    def test_ten_thousand(self) -> None:
        """No reader, writer, delayed call, task, thread or descriptor is left."""
        self.assertGreaterEqual(sum(OPERATIONS.values()), 10_000)
        for operation in OPERATIONS:
            operation(
                4
            )  # creates what is created once: threads for lookups, the epoll object
        txgreenwsgi.sleep(0)
        for operation, times in OPERATIONS.items():
            before = self.held()
            operation(times)
            txgreenwsgi.sleep(0)
            self.assertEqual(self.held(), before, operation.__name__)
