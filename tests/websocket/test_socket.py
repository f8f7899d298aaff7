"""`environ["gunicorn.socket"]` in memory: the connection of a request as a socket."""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Cancelled, sleep, spawn, timeout
from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi.monitoring import ExchangeRecord
    from txgreenwsgi.testing import MemoryClient

Environ = dict[str, Any]

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class UpgradedSocketTests(LeakCheckMixin, SynchronousTestCase):
    """The socket of an upgraded request."""

    def open(
        self,
        use: Callable[[Any], object],
        data: bytes = REQUEST,
        room: float = float("inf"),
        **settings: Any,
    ) -> MemoryClient:
        """Return a client; `use` is called with the socket of its request."""
        self.errors: list[BaseException] = []
        self.records: list[ExchangeRecord] = []
        self.ended = 0

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            try:
                use(environ["gunicorn.socket"])
            except BaseException as error:
                self.errors.append(error)
                raise
            finally:
                self.ended += 1
            raise StopIteration

        self.server = self.serve(app, [self.records.append], **settings)
        client = self.server.connect(room)
        client.send(data)
        return client

    def spawn_reader(self, skt: Any, seen: list[object]) -> None:
        """Start a task that receives; the number of its OSError is added to `seen`."""

        def read() -> None:
            with self.assertRaises(OSError) as raised:
                skt.recv(10)
            seen.append(raised.exception.errno)

        spawn(read)

    def test_only_on_upgrade_requests(self) -> None:
        """The keys are in the environ of WebSocket handshakes only."""
        environs: list[Environ] = []

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            environs.append(environ)
            start_response("200 OK", [])
            return [b"ok"]

        server = self.serve(app)
        upgrade = [("Connection", "upgrade"), ("Upgrade", "WebSocket")]
        for headers, method, offered in (
            (upgrade, "GET", True),
            ([upgrade[0], ("Upgrade", "h2c, websocket")], "GET", True),
            ([], "GET", False),
            (upgrade[:1], "GET", False),
            (upgrade[1:], "GET", False),
            (upgrade, "POST", False),
            ([upgrade[0], ("Upgrade", "h2c")], "GET", False),
            ([*upgrade, ("Content-Length", "0")], "GET", True),
        ):
            with self.subTest(headers=headers, method=method):
                self.assertEqual(server.request(method, headers=headers).status, 200)
                environ = environs.pop()
                self.assertEqual("gunicorn.socket" in environ, offered)
                self.assertEqual("txgreenwsgi.upgrade" in environ, offered)

    def test_echo(self) -> None:
        """Bytes go both ways, those behind the head included."""

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            while data := skt.recv(5):
                self.assertEqual(skt.send(memoryview(data)), len(data))

        client = self.open(use, REQUEST + b"early bytes")
        self.assertEqual(client.received, SWITCH + b"early bytes")
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(client.received.endswith(b"GET / HTTP/1.1\r\n\r\n"))
        self.assertEqual(self.ended, 0)
        client.end()
        self.assertEqual(self.ended, 1)
        [record] = self.records
        self.assertEqual((record.status, record.outcome), (101, "finished"))
        self.assertEqual(record.bytes_sent, len(client.received))

    def test_ends_of_the_call(self) -> None:
        """The call may end in any way; nothing more is sent, and it is closed."""
        for start in (False, True):
            for answer in ([], [b""], [b"text"], None):

                def app(
                    environ: Environ,
                    start_response: Any,
                    start: bool = start,
                    answer: Any = answer,
                ) -> Iterable[bytes]:
                    environ["gunicorn.socket"].sendall(SWITCH)
                    if start:
                        start_response("200 OK", [("Content-Type", "text/plain")])
                    if answer is None:
                        raise StopIteration
                    return answer  # type: ignore[no-any-return]

                for strict in (False, True):
                    if strict and not start and answer:
                        continue  # a block without start_response
                    with self.subTest(start=start, answer=answer, strict=strict):
                        server = self.serve(app, strict=strict)
                        client = server.connect()
                        client.send(REQUEST)
                        self.assertEqual(client.received, SWITCH)
                        self.assertTrue(client.closed)
                        self.assertFalse(client.reset)
                        self.assertEqual(server.tasks, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unused(self) -> None:
        """Methods that do not communicate leave the request as it is."""

        def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
            skt = environ["gunicorn.socket"]
            skt.settimeout(5)
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            text = (
                f"{skt.gettimeout()} {skt.getpeername()} {skt.getsockname()} "
                f"{skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)} "
                f"{skt.family == socket.AF_INET} {skt.type == socket.SOCK_STREAM}"
            )
            start_response("200 OK", [])
            return [text.encode()]

        client = self.serve(app).connect()
        client.send(REQUEST + REQUEST)
        bodies = [response.body for response in client.responses()]
        text = b"5 ('192.0.2.1', 4321) ('127.0.0.1', 8080) 0 True True"
        self.assertEqual(bodies, [text, text])

    def test_error(self) -> None:
        """An exception is logged; the connection is closed."""

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            raise ZeroDivisionError

        client = self.open(use)
        self.assertEqual(client.received, SWITCH)
        self.assertTrue(client.closed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.records[0].outcome, "error")

    def test_client_leaves(self) -> None:
        """`recv` returns b"", `send` raises BrokenPipeError."""

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            self.assertEqual(skt.recv(10), b"last")
            self.assertEqual(skt.recv(10), b"")
            with self.assertRaises(BrokenPipeError):
                skt.send(b"more")
            skt.close()

        client = self.open(use)
        client.send(b"last")
        client.disconnect()
        self.assertEqual((self.ended, len(self.errors)), (1, 0))

    def test_timeouts(self) -> None:
        """The timeout of the socket, and timeouts of the task."""
        seen: list[object] = []

        def use(skt: Any) -> None:
            skt.settimeout(2)
            with self.assertRaisesRegex(TimeoutError, "^timed out$"):
                skt.recv(10)
            skt.settimeout(None)
            with self.assertRaisesRegex(TimeoutError, "after 3 seconds"), timeout(3):
                skt.recv(10)
            skt.setblocking(False)
            with self.assertRaises(BlockingIOError):
                skt.recv(10)
            skt.setblocking(True)
            with self.assertRaises(BlockingIOError):
                skt.recv(10, socket.MSG_DONTWAIT)
            seen.append(skt.recv(10, socket.MSG_PEEK))
            seen.append(skt.recv(10, socket.MSG_DONTWAIT))

        client = self.open(use)
        self.server.advance(2)
        self.server.advance(3)
        client.send(b"bytes")
        self.assertEqual(seen, [b"bytes", b"bytes"])

    def test_files_and_buffers(self) -> None:
        """`recv_into`, `makefile` and `sendmsg`."""
        seen: list[object] = []

        def use(skt: Any) -> None:
            buffer = bytearray(4)
            seen.append((skt.recv_into(buffer), bytes(buffer)))
            file = skt.makefile("rwb")
            seen.append(file.readline())
            file.write(b"buffered")
            file.flush()
            skt.sendmsg([b"<", b">"])
            seen.append(file.read(4))
            seen.append(skt.makefile("r", encoding="utf-8").readline())
            self.assertRaises(OSError, skt.detach)
            self.assertRaises(ValueError, skt.makefile, "a")
            self.assertRaises(ValueError, skt.recv, -1)
            self.assertEqual(skt.recv(0), b"")

        client = self.open(use)
        client.send(b"1234line\nrest")
        client.send("grün\n".encode())
        self.assertEqual(seen, [(4, b"1234"), b"line\n", b"rest", "grün\n"])
        self.assertEqual(client.received, b"buffered<>")

    def test_close(self) -> None:
        """`close` closes the connection, while the call goes on."""

        def use(skt: Any) -> None:
            with skt:
                skt.sendall(SWITCH)
            self.assertEqual(skt.fileno(), -1)
            for call in (lambda: skt.recv(1), lambda: skt.send(b"x")):
                with self.assertRaises(OSError) as raised:
                    call()
                self.assertEqual(raised.exception.errno, errno.EBADF)
            sleep(5)

        client = self.open(use)
        self.assertEqual(client.received, SWITCH)
        self.assertTrue(client.closed)
        self.assertEqual(self.ended, 0)
        client.disconnect()
        self.server.advance(5)
        self.assertEqual((self.ended, self.errors), (1, []))

    def test_shutdown_of_sending(self) -> None:
        """After SHUT_WR the client reads the end, and `recv` its further bytes."""
        seen: list[bytes] = []

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            skt.shutdown(socket.SHUT_WR)
            with self.assertRaises(BrokenPipeError):
                skt.send(b"more")
            skt.shutdown(socket.SHUT_WR)
            self.assertEqual(select.select([skt], [], [], 0)[0], [])
            while data := skt.recv(10):
                seen.append(data)

        client = self.open(use)
        self.assertEqual(client.received, SWITCH)
        self.assertTrue(client.socket.server_closed)
        self.assertEqual(self.ended, 0)
        client.send(b"one")
        client.send(b"two")
        self.assertEqual((seen, self.ended), ([b"one", b"two"], 0))
        client.end()
        self.assertEqual((self.ended, self.errors), (1, []))
        self.assertEqual(client.received, SWITCH)
        self.assertFalse(client.reset)

    def test_shutdown_of_receiving(self) -> None:
        """After SHUT_RD, `recv` returns what has arrived; sending continues."""
        seen: list[bytes] = []

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            sleep(1)
            skt.shutdown(socket.SHUT_RD)
            sleep(1)
            seen.extend([skt.recv(100), skt.recv(100)])
            skt.sendall(b"answer")

        client = self.open(use)
        client.send(b"before")
        self.server.advance(1)
        client.send(b"after")
        self.server.advance(1)
        self.assertEqual(seen, [b"before", b""])
        self.assertEqual(client.received, SWITCH + b"answer")
        self.assertEqual((self.ended, self.errors), (1, []))

    def test_shutdown_of_both(self) -> None:
        """SHUT_RDWR ends both directions; the call goes on. Bad values are refused."""

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            with self.assertRaises(OSError) as raised:
                skt.shutdown(9)
            self.assertEqual(raised.exception.errno, errno.EINVAL)
            skt.shutdown(socket.SHUT_RDWR)
            self.assertEqual(skt.recv(10), b"")
            with self.assertRaises(BrokenPipeError):
                skt.send(b"more")
            skt.close()
            with self.assertRaises(OSError) as raised:
                skt.shutdown(socket.SHUT_WR)
            self.assertEqual(raised.exception.errno, errno.EBADF)

        client = self.open(use)
        self.assertEqual(client.received, SWITCH)
        client.end()
        self.assertEqual((self.ended, self.errors), (1, []))

    def test_half_closed_by_client(self) -> None:
        """After the end of the client's bytes, the application still sends."""

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            total = b""
            while data := skt.recv(100):
                total += data
            sleep(1)
            skt.sendall(b"got " + total)

        client = self.open(use)
        client.send(b"all")
        client.end()
        self.assertEqual((self.ended, client.closed), (0, False))
        self.server.advance(1)
        self.assertEqual(client.received, SWITCH + b"got all")
        self.assertEqual((self.ended, self.errors), (1, []))
        self.assertTrue(client.closed)
        self.assertFalse(client.reset)

    def test_half_closed_at_stop(self) -> None:
        """The grace period also ends a call whose socket is shut down."""

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            skt.shutdown(socket.SHUT_WR)
            skt.recv(10)

        client = self.open(use)
        self.server.site.stop(5)
        self.server.advance(4)
        self.assertEqual(self.ended, 0)
        self.server.advance(2)
        self.assertEqual(self.ended, 1)
        self.assertIsInstance(self.errors[0], Cancelled)
        client.disconnect()

    def test_other_tasks(self) -> None:
        """A task of the application that outlives the call gets socket errors."""
        seen: list[object] = []

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)

            self.spawn_reader(skt, seen)
            sleep(1)

        self.open(use)
        self.server.advance(1)
        self.assertEqual(seen, [errno.EBADF])

    def test_cancelled(self) -> None:
        """A cancelled request: Cancelled in its task, socket errors in others."""
        seen: list[object] = []

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)

            self.spawn_reader(skt, seen)
            sleep(100)

        client = self.open(use)
        self.server.site.stop(5)
        self.server.advance(6)
        self.assertEqual(seen, [errno.ECONNABORTED])
        self.assertIsInstance(self.errors[0], Cancelled)
        self.assertEqual(self.records[0].outcome, "cancelled")
        client.disconnect()

    def test_backpressure(self) -> None:
        """Unread bytes are bounded; a slow client parks the sender."""

        def use(skt: Any) -> None:
            sleep(1)
            total = 0
            while total < 1_000_000:
                total += len(skt.recv(100_000))
            skt.sendall(bytes(50_000))

        client = self.open(use, room=1000)
        client.send(bytes(1_000_000))
        self.assertGreater(len(client.socket.to_server), 800_000)
        self.server.advance(1)
        self.assertEqual(len(client.socket.to_server), 0)
        self.assertEqual(self.ended, 0)
        while client.read(1000):
            pass
        self.assertEqual((self.ended, len(client.received)), (1, 50_000))

    def test_poll(self) -> None:
        """`fileno` can be polled for bytes, and for the end."""
        seen: list[bool] = []

        def use(skt: Any) -> None:
            def poll() -> None:
                seen.append(bool(select.select([skt], [], [], 0)[0]))
                self.assertTrue(select.select([], [skt], [], 0)[1])

            poll()
            sleep(1)
            poll()
            skt.recv(2)
            poll()
            skt.recv(2)
            poll()
            sleep(1)
            poll()

        client = self.open(use)
        client.send(b"1234")
        self.server.advance(1)
        client.end()
        self.server.advance(1)
        self.assertEqual(seen, [False, True, True, False, True])

    def test_request_timeout(self) -> None:
        """The request timeout does not apply after the upgrade."""

        def use(skt: Any) -> None:
            skt.sendall(SWITCH)
            skt.sendall(skt.recv(10))

        client = self.open(use, request_timeout=5)
        for _ in range(10):
            self.server.advance(1)
        client.send(b"alive")
        self.assertEqual(client.received, SWITCH + b"alive")

    def test_status_of_the_application(self) -> None:
        """The record has the status that the application has sent."""
        for data, status in (
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403),
            (b"no HTTP", 101),
            (b"", 0),
        ):
            with self.subTest(data):
                self.open(lambda skt, data=data: skt.sendall(data))  # type: ignore[misc]
                self.assertEqual(self.records[0].status, status)
